/* attn_merge: argument checks. */
#include "ops/merge.h"

#include "api/check.h"
#include "dispatch.h"
#include "verbose.h"

static const struct attn_names lse_names = ATTN_NAMES("log_sum_exp"), merged_names = ATTN_NAMES("merged"),
                               merged_lse_names = ATTN_NAMES("merged_log_sum_exp");

static struct attn_strided part_of(const attn_merge_args *args, const attn_tensor *x, size_t width) {
    return attn_heads_of(x, args->batch, args->heads, args->q_len, width);
}

/* The log-sum-exp of a part, or of all. */
static attn_status check_log_sum_exp(const attn_merge_args *args, const attn_tensor *lse, struct attn_strided *strided,
                                     struct attn_named_bytes *range, const struct attn_names *names,
                                     attn_error *error) {
    attn_tensor each = attn_with_strides(lse, args->heads, args->q_len, 1);
    *strided = part_of(args, &each, 1);
    RETURN_IF_ERROR(attn_check_tensor(strided, range, names, error));
    return attn_check_strides(strided, names->tensor, error);
}

struct merge_output {
    struct attn_strided strided;
    struct attn_named_bytes range;
};

/* Every part's output and log-sum-exp: no output may overlap them. */
static attn_status check_parts(const attn_merge_args *args, const struct merge_output outputs[2], attn_error *error) {
    for (size_t p = 0; p < args->parts; p++) {
        struct attn_strided o = part_of(args, &args->o[p], args->value_size), lse;
        struct attn_named_bytes o_range, lse_range;
        o.any_float = true;
        RETURN_IF_ERROR(attn_check_tensor(&o, &o_range, &attn_names_o, error));
        RETURN_IF_ERROR(check_log_sum_exp(args, &args->log_sum_exp[p], &lse, &lse_range, &lse_names, error));
        for (int i = 0; i < 2; i++) {
            const struct merge_output *output = &outputs[i];
            RETURN_IF_ERROR(attn_check_input(&output->strided, &output->range, &o, &o_range, error));
            RETURN_IF_ERROR(attn_check_input(&output->strided, &output->range, &lse, &lse_range, error));
        }
    }
    return ATTN_OK;
}

static attn_status check_outputs(const attn_merge_args *args, struct merge_output outputs[2], attn_error *error) {
    attn_tensor merged = attn_as_input(&args->merged), lse = attn_as_input(&args->merged_log_sum_exp);
    struct merge_output *first = &outputs[0], *second = &outputs[1];
    first->strided = part_of(args, &merged, args->value_size);
    first->strided.any_float = true;
    RETURN_IF_ERROR(attn_check_tensor(&first->strided, &first->range, &merged_names, error));
    RETURN_IF_ERROR(attn_check_rows_apart(&first->strided, "merged", error));
    second->range = (struct attn_named_bytes){.name = "merged_log_sum_exp"};
    if (!lse.data)
        return ATTN_OK;
    RETURN_IF_ERROR(check_log_sum_exp(args, &lse, &second->strided, &second->range, &merged_lse_names, error));
    RETURN_IF_ERROR(attn_check_rows_apart(&second->strided, "merged_log_sum_exp", error));
    return attn_check_input(&second->strided, &second->range, &first->strided, &first->range, error);
}

static attn_status run_merge(const attn_merge_args *args, attn_error *error) {
    const struct attn_kernels *table;
    struct merge_output outputs[2];
    size_t rows;
    RETURN_IF_ERROR(attn_check_pointer(args, "args", error));
    attn_status status = attn_table_for(args->isa, &table);
    if (status != ATTN_OK)
        return attn_fail(status, "isa", error);
    RETURN_IF_ERROR(attn_check_size(args->parts, 1, "parts", error));
    RETURN_IF_ERROR(attn_check_size(args->batch, 0, "batch", error));
    RETURN_IF_ERROR(attn_check_size(args->heads, 0, "heads", error));
    RETURN_IF_ERROR(attn_check_size(args->q_len, 0, "q_len", error));
    RETURN_IF_ERROR(attn_check_size(args->value_size, 1, "value_size", error));
    RETURN_IF_ERROR(attn_check_parallel(args->parallel, "parallel.run", error));
    if (!args->batch || !args->heads || !args->q_len)
        return ATTN_OK;
    RETURN_IF_ERROR(attn_check_pointer(args->o, "o", error));
    RETURN_IF_ERROR(attn_check_pointer(args->log_sum_exp, "log_sum_exp", error));
    if (!attn_mul(args->batch, args->heads, &rows) || !attn_mul(rows, args->q_len, &rows) ||
        !attn_mul(rows, sizeof(float), &rows))
        return attn_fail(ATTN_OVERFLOW, "q_len", error);
    RETURN_IF_ERROR(check_outputs(args, outputs, error));
    RETURN_IF_ERROR(check_parts(args, outputs, error));
    attn_op_merge(table, args);
    return ATTN_OK;
}

static void describe_merge(const attn_merge_args *args, struct attn_line *line) {
    attn_line_add(line, " %s", attn_isa_name(args->isa != ATTN_ISA_BEST ? args->isa : attn_isa_chosen()));
    attn_line_size(line, "parts", args->parts);
    attn_line_size(line, "batch", args->batch);
    attn_line_size(line, "heads", args->heads);
    attn_line_size(line, "q_len", args->q_len);
    attn_line_size(line, "value_size", args->value_size);
    attn_line_add(line, "%s", args->merged_log_sum_exp.data ? " log_sum_exp" : "");
    attn_line_parallel(line, args->parallel);
    attn_line_zero(line, "batch", args->batch, "nothing is written");
    attn_line_zero(line, "heads", args->heads, "nothing is written");
    attn_line_zero(line, "q_len", args->q_len, "nothing is written");
}

attn_status attn_merge(const attn_merge_args *args, attn_error *error) {
    ATTN_RETURN_CALL("merge", run_merge(args, error), describe_merge(args, &line));
}
