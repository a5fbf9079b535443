/* attn_transpose_qkv and attn_transpose_output: argument checks. */
#include "ops/transpose.h"
#include "api/check.h"
#include "dispatch.h"
#include "verbose.h"

static bool transpose_is_empty(const attn_transpose_args *args) {
    return !args->batch || !args->len || !args->heads;
}

static attn_status check_transpose(const attn_transpose_args *args, bool merge, attn_error *error) {
    RETURN_IF_ERROR(attn_check_size(args->batch, 0, "batch", error));
    RETURN_IF_ERROR(attn_check_size(args->len, 0, "len", error));
    RETURN_IF_ERROR(attn_check_size(args->heads, 0, "heads", error));
    RETURN_IF_ERROR(attn_check_size(args->head_size, 1, "head_size", error));
    RETURN_IF_ERROR(attn_check_parallel(args->parallel, "parallel.run", error));
    if (transpose_is_empty(args))
        return ATTN_OK;
    RETURN_IF_ERROR(attn_check_pointer(args->x, "x", error));
    RETURN_IF_ERROR(attn_check_pointer(args->y, "y", error));

    size_t width, sequence, split, merged_bytes, split_bytes;
    if (!attn_mul(args->heads, args->head_size, &width))
        return attn_fail(ATTN_OVERFLOW, "head_size", error);
    if (args->len > 1 && args->merged_row_stride < width)
        return attn_fail(ATTN_BAD_STRIDE, "merged_row_stride", error);
    size_t dims[ATTN_CHECK_DIMS] = {1, args->batch, args->len};
    size_t strides[ATTN_CHECK_DIMS] = {0, args->merged_batch_stride, args->merged_row_stride};
    RETURN_IF_ERROR(attn_check_extent(dims, strides, width, &merged_bytes, "merged_batch_stride", error));
    RETURN_IF_ERROR(attn_check_apart(dims, strides, width, "merged_batch_stride", error));
    if (!attn_mul(args->len, width, &sequence) || !attn_mul(args->batch, sequence, &split) ||
        !attn_mul(split, sizeof(float), &split_bytes) || split_bytes > PTRDIFF_MAX)
        return attn_fail(ATTN_OVERFLOW, "batch", error);
    return attn_check_disjoint(args->x, merge ? split_bytes : merged_bytes, args->y, merge ? merged_bytes : split_bytes,
                               "y", error);
}

static attn_status transpose(const attn_transpose_args *args, bool merge, attn_error *error) {
    const struct attn_kernels *table;
    RETURN_IF_ERROR(attn_check_pointer(args, "args", error));
    attn_status status = attn_table_for(args->isa, &table);
    if (status != ATTN_OK)
        return attn_fail(status, "isa", error);
    RETURN_IF_ERROR(check_transpose(args, merge, error));
    if (!transpose_is_empty(args))
        attn_op_transpose(attn_table_copy(table), args, merge);
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
