/* attn_transpose_qkv and attn_transpose_output: judging. */
#include "ops/transpose.h"
#include "api/judge.h"
#include "dispatch.h"

static bool empty(const attn_transpose_args *args) {
    return !args->batch || !args->len || !args->heads;
}

static attn_status judge(const attn_transpose_args *args, bool merge, const char **field) {
    JUDGE(judge_size(args->batch, 0, "batch", field));
    JUDGE(judge_size(args->len, 0, "len", field));
    JUDGE(judge_size(args->heads, 0, "heads", field));
    JUDGE(judge_size(args->head_size, 1, "head_size", field));
    JUDGE(judge_parallel(args->parallel, "parallel.run", field));
    if (empty(args))
        return ATTN_OK;
    JUDGE(judge_pointer(args->x, "x", field));
    JUDGE(judge_pointer(args->y, "y", field));

    size_t width, sequence, split, merged_bytes, split_bytes;
    if (!attn_mul(args->heads, args->head_size, &width))
        return judge_fail(ATTN_OVERFLOW, "head_size", field);
    if (args->len > 1 && args->merged_row_stride < width)
        return judge_fail(ATTN_BAD_STRIDE, "merged_row_stride", field);
    size_t dims[JUDGE_DIMS] = {1, args->batch, args->len};
    size_t strides[JUDGE_DIMS] = {0, args->merged_batch_stride, args->merged_row_stride};
    JUDGE(judge_extent(dims, strides, width, &merged_bytes, "merged_batch_stride", field));
    JUDGE(judge_apart(dims, strides, width, "merged_batch_stride", field));
    if (!attn_mul(args->len, width, &sequence) || !attn_mul(args->batch, sequence, &split) ||
        !attn_mul(split, sizeof(float), &split_bytes) || split_bytes > PTRDIFF_MAX)
        return judge_fail(ATTN_OVERFLOW, "batch", field);
    return judge_disjoint(args->x, merge ? split_bytes : merged_bytes, args->y, merge ? merged_bytes : split_bytes, "y",
                          field);
}

static attn_status transpose(const attn_transpose_args *args, bool merge, const char **field) {
    const struct attn_kernels *table;
    JUDGE(judge_pointer(args, "args", field));
    attn_status status = attn_table_for(args->isa, &table);
    if (status != ATTN_OK)
        return judge_fail(status, "isa", field);
    JUDGE(judge(args, merge, field));
    if (!empty(args))
        attn_op_transpose(attn_table_copy(table), args, merge);
    return ATTN_OK;
}

attn_status attn_transpose_qkv(const attn_transpose_args *args, const char **field) {
    return transpose(args, false, field);
}

attn_status attn_transpose_output(const attn_transpose_args *args, const char **field) {
    return transpose(args, true, field);
}
