/* attn_merge: argument checks. */
#include "ops/merge.h"

#include "api/check.h"
#include "dispatch.h"
#include "verbose.h"

static struct attn_strided strided_part(const attn_merge_args *args, const attn_tensor *o) {
    return (struct attn_strided){.data = o->data,
                                 .dims = {args->batch, args->heads, args->q_len},
                                 .strides = {o->batch_stride, o->head_stride, o->row_stride},
                                 .width = args->value_size};
}

/* Every part's output and log-sum-exp: no output may overlap them. */
static attn_status check_parts(const attn_merge_args *args, const struct attn_strided *merged,
                               const struct attn_named_bytes *range, size_t row_bytes, attn_error *error) {
    const float *lse = args->merged_log_sum_exp;
    size_t lse_bytes = lse ? row_bytes : 0;
    for (size_t p = 0; p < args->parts; p++) {
        struct attn_strided o = strided_part(args, &args->o[p]);
        struct attn_named_bytes o_range = {.name = "o"};
        const float *part_lse = args->log_sum_exp[p];
        RETURN_IF_ERROR(attn_check_tensor(&o, &o_range, "o", error));
        RETURN_IF_ERROR(attn_check_pointer(part_lse, "log_sum_exp", error));
        RETURN_IF_ERROR(attn_check_input(merged, range, &o, &o_range, error));
        RETURN_IF_ERROR(attn_check_disjoint(merged->data, range->bytes, part_lse, row_bytes, "merged", error));
        RETURN_IF_ERROR(attn_check_disjoint(lse, lse_bytes, o.data, o_range.bytes, "merged_log_sum_exp", error));
        RETURN_IF_ERROR(attn_check_disjoint(lse, lse_bytes, part_lse, row_bytes, "merged_log_sum_exp", error));
    }
    return attn_check_disjoint(lse, lse_bytes, merged->data, range->bytes, "merged_log_sum_exp", error);
}

static attn_status run_merge(const attn_merge_args *args, attn_error *error) {
    const struct attn_kernels *table;
    size_t rows, row_bytes;
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
    RETURN_IF_ERROR(attn_check_pointer(args->merged.data, "merged.data", error));
    if (!attn_mul(args->batch, args->heads, &rows) || !attn_mul(rows, args->q_len, &rows) ||
        !attn_mul(rows, sizeof(float), &row_bytes))
        return attn_fail(ATTN_OVERFLOW, "q_len", error);
    attn_tensor out = {args->merged.data, args->merged.batch_stride, args->merged.head_stride, args->merged.row_stride};
    struct attn_strided merged = strided_part(args, &out);
    struct attn_named_bytes range = {.name = "merged"};
    RETURN_IF_ERROR(attn_check_tensor(&merged, &range, "merged.data", error));
    RETURN_IF_ERROR(attn_check_apart(merged.dims, merged.strides, merged.width, "merged", error));
    RETURN_IF_ERROR(check_parts(args, &merged, &range, row_bytes, error));
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
    attn_line_add(line, "%s", args->merged_log_sum_exp ? " log_sum_exp" : "");
    attn_line_parallel(line, args->parallel);
    attn_line_zero(line, "batch", args->batch, "nothing is written");
    attn_line_zero(line, "heads", args->heads, "nothing is written");
    attn_line_zero(line, "q_len", args->q_len, "nothing is written");
}

attn_status attn_merge(const attn_merge_args *args, attn_error *error) {
    ATTN_RETURN_CALL("merge", run_merge(args, error), describe_merge(args, &line));
}
