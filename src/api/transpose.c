/* attn_transpose_qkv and attn_transpose_output: argument checks. */
#include "ops/transpose.h"
#include "api/check.h"
#include "dispatch.h"
#include "verbose.h"

static bool transpose_is_empty(const attn_transpose_args *args) {
    return !args->batch || !args->len || !args->heads;
}

/* One side; split, and dense if its strides were all left 0, or merged. */
static struct attn_strided side_of(const attn_transpose_args *args, const attn_tensor *side, bool merged) {
    if (merged)
        return attn_rows_of(side, args->batch, args->len, args->heads * args->head_size);
    attn_tensor split = attn_with_strides(side, args->heads, args->len, args->head_size);
    return attn_heads_of(&split, args->batch, args->heads, args->len, args->head_size);
}

/* Of a side that has been checked. */
static void take_rows(struct attn_head_rows *rows, const struct attn_strided *side, size_t batch_step,
                      size_t head_step) {
    size_t element = attn_type_size(side->type);
    rows->data = side->data;
    rows->type = side->type;
    rows->batch_step = batch_step * element;
    rows->head_step = head_step * element;
    rows->row_step = side->strides[2] * element;
}

static attn_status check_sizes(const attn_transpose_args *args, attn_error *error) {
    size_t width, elements, bytes;
    if (!attn_mul(args->heads, args->head_size, &width))
        return attn_fail(ATTN_OVERFLOW, "head_size", error);
    if (!attn_mul(args->len, width, &elements) || !attn_mul(args->batch, elements, &elements) ||
        !attn_mul(elements, sizeof(float), &bytes) || bytes > PTRDIFF_MAX)
        return attn_fail(ATTN_OVERFLOW, "batch", error);
    return ATTN_OK;
}

/* Both sides; x is split if `merge`, else y. */
static attn_status check_sides(const attn_transpose_args *args, bool merge, struct attn_transpose *to,
                               attn_error *error) {
    const struct attn_names *names[2] = {&attn_names_x, &attn_names_y};
    attn_tensor y = attn_as_input(&args->y);
    struct attn_strided side[2] = {side_of(args, &args->x, !merge), side_of(args, &y, merge)};
    const struct attn_strided *merged = &side[merge], *split = &side[!merge];
    struct attn_named_bytes range[2];
    side[0].any_float = side[1].any_float = true;
    RETURN_IF_ERROR(attn_check_rows(merged, &range[merge], names[merge], error));
    RETURN_IF_ERROR(attn_check_tensor(split, &range[!merge], names[!merge], error));
    RETURN_IF_ERROR(attn_check_rows_apart(&side[1], "y", error));
    RETURN_IF_ERROR(attn_check_input(&side[1], &range[1], &side[0], &range[0], error));
    struct attn_head_rows *merged_rows = merge ? &to->y : &to->x, *split_rows = merge ? &to->x : &to->y;
    take_rows(merged_rows, merged, merged->strides[1], args->head_size);
    take_rows(split_rows, split, split->strides[0], split->strides[1]);
    to->merged_row_step = merged_rows->row_step;
    return ATTN_OK;
}

static attn_status check_transpose(const attn_transpose_args *args, bool merge, struct attn_transpose *to,
                                   attn_error *error) {
    RETURN_IF_ERROR(attn_check_size(args->batch, 0, "batch", error));
    RETURN_IF_ERROR(attn_check_size(args->len, 0, "len", error));
    RETURN_IF_ERROR(attn_check_size(args->heads, 0, "heads", error));
    RETURN_IF_ERROR(attn_check_size(args->head_size, 1, "head_size", error));
    RETURN_IF_ERROR(attn_check_parallel(args->parallel, "parallel.run", error));
    if (transpose_is_empty(args))
        return ATTN_OK;
    to->batch = args->batch;
    to->len = args->len;
    to->heads = args->heads;
    to->head_size = args->head_size;
    RETURN_IF_ERROR(check_sizes(args, error));
    return check_sides(args, merge, to, error);
}

static attn_status transpose(const attn_transpose_args *args, bool merge, attn_error *error) {
    const struct attn_kernels *table;
    struct attn_transpose checked;
    RETURN_IF_ERROR(attn_check_pointer(args, "args", error));
    attn_status status = attn_table_for(args->isa, &table);
    if (status != ATTN_OK)
        return attn_fail(status, "isa", error);
    RETURN_IF_ERROR(check_transpose(args, merge, &checked, error));
    if (!transpose_is_empty(args))
        attn_op_transpose(table, &checked, args->parallel);
    return ATTN_OK;
}

static void describe_transpose(const attn_transpose_args *args, struct attn_line *line) {
    attn_line_add(line, " %s", attn_isa_name(args->isa != ATTN_ISA_BEST ? args->isa : attn_isa_chosen()));
    attn_line_size(line, "batch", args->batch);
    attn_line_size(line, "len", args->len);
    attn_line_size(line, "heads", args->heads);
    attn_line_size(line, "head_size", args->head_size);
    attn_line_parallel(line, args->parallel);
    attn_line_zero(line, "batch", args->batch, "nothing is written");
    attn_line_zero(line, "len", args->len, "nothing is written");
    attn_line_zero(line, "heads", args->heads, "nothing is written");
}

attn_status attn_transpose_qkv(const attn_transpose_args *args, attn_error *error) {
    ATTN_RETURN_CALL("transpose_qkv", transpose(args, false, error), describe_transpose(args, &line));
}

attn_status attn_transpose_output(const attn_transpose_args *args, attn_error *error) {
    ATTN_RETURN_CALL("transpose_output", transpose(args, true, error), describe_transpose(args, &line));
}
