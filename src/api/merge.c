/* attn_merge: argument checks. */
#include "ops/merge.h"

#include "api/check.h"
#include "dispatch.h"

/* Every part's output and log-sum-exp, none of which an output may touch. */
static attn_status check_parts(const attn_merge_args *args, const size_t dims[ATTN_CHECK_DIMS], size_t merged_bytes,
                               size_t row_bytes, const char **field) {
    const float *merged = args->merged.data, *lse = args->merged_log_sum_exp;
    size_t lse_bytes = lse ? row_bytes : 0, bytes;
    for (size_t p = 0; p < args->parts; p++) {
        const attn_tensor *o = &args->o[p];
        const float *part_lse = args->log_sum_exp[p];
        RETURN_IF_ERROR(attn_check_extent(dims, (size_t[]){o->batch_stride, o->head_stride, o->row_stride},
                                          args->value_size, &bytes, "o", field));
        RETURN_IF_ERROR(attn_check_pointer(o->data, "o", field));
        RETURN_IF_ERROR(attn_check_pointer(part_lse, "log_sum_exp", field));
        RETURN_IF_ERROR(attn_check_disjoint(merged, merged_bytes, o->data, bytes, "merged", field));
        RETURN_IF_ERROR(attn_check_disjoint(merged, merged_bytes, part_lse, row_bytes, "merged", field));
        RETURN_IF_ERROR(attn_check_disjoint(lse, lse_bytes, o->data, bytes, "merged_log_sum_exp", field));
        RETURN_IF_ERROR(attn_check_disjoint(lse, lse_bytes, part_lse, row_bytes, "merged_log_sum_exp", field));
    }
    return attn_check_disjoint(lse, lse_bytes, merged, merged_bytes, "merged_log_sum_exp", field);
}

attn_status attn_merge(const attn_merge_args *args, const char **field) {
    const struct attn_kernels *table;
    size_t merged_bytes, rows, row_bytes;
    RETURN_IF_ERROR(attn_check_pointer(args, "args", field));
    attn_status status = attn_table_for(args->isa, &table);
    if (status != ATTN_OK)
        return attn_fail(status, "isa", field);
    RETURN_IF_ERROR(attn_check_size(args->parts, 1, "parts", field));
    RETURN_IF_ERROR(attn_check_size(args->batch, 0, "batch", field));
    RETURN_IF_ERROR(attn_check_size(args->heads, 0, "heads", field));
    RETURN_IF_ERROR(attn_check_size(args->q_len, 0, "q_len", field));
    RETURN_IF_ERROR(attn_check_size(args->value_size, 1, "value_size", field));
    RETURN_IF_ERROR(attn_check_parallel(args->parallel, "parallel.run", field));
    if (!args->batch || !args->heads || !args->q_len)
        return ATTN_OK;
    RETURN_IF_ERROR(attn_check_pointer(args->o, "o", field));
    RETURN_IF_ERROR(attn_check_pointer(args->log_sum_exp, "log_sum_exp", field));
    RETURN_IF_ERROR(attn_check_pointer(args->merged.data, "merged.data", field));
    if (!attn_mul(args->batch, args->heads, &rows) || !attn_mul(rows, args->q_len, &rows) ||
        !attn_mul(rows, sizeof(float), &row_bytes))
        return attn_fail(ATTN_OVERFLOW, "q_len", field);
    size_t dims[ATTN_CHECK_DIMS] = {args->batch, args->heads, args->q_len};
    size_t strides[ATTN_CHECK_DIMS] = {args->merged.batch_stride, args->merged.head_stride, args->merged.row_stride};
    RETURN_IF_ERROR(attn_check_extent(dims, strides, args->value_size, &merged_bytes, "merged", field));
    RETURN_IF_ERROR(attn_check_apart(dims, strides, args->value_size, "merged", field));
    RETURN_IF_ERROR(check_parts(args, dims, merged_bytes, row_bytes, field));
    attn_op_merge(table, args);
    return ATTN_OK;
}
