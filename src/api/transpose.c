/* attn_transpose_qkv and attn_transpose_output: argument checks. */
#include "ops/transpose.h"
#include "api/check.h"
#include "dispatch.h"
#include "verbose.h"

static bool transpose_is_empty(const attn_transpose_args *args) {
    return !args->batch || !args->len || !args->heads;
}

/* *resolved = the arguments with all strides, unless there is nothing to do. */
static attn_status check_transpose(const attn_transpose_args *args, bool merge, attn_transpose_args *resolved,
                                   attn_error *error) {
    RETURN_IF_ERROR(attn_check_size(args->batch, 0, "batch", error));
    RETURN_IF_ERROR(attn_check_size(args->len, 0, "len", error));
    RETURN_IF_ERROR(attn_check_size(args->heads, 0, "heads", error));
    RETURN_IF_ERROR(attn_check_size(args->head_size, 1, "head_size", error));
    RETURN_IF_ERROR(attn_check_parallel(args->parallel, "parallel.run", error));
    if (transpose_is_empty(args))
        return ATTN_OK;
    size_t width, elements, bytes;
    if (!attn_mul(args->heads, args->head_size, &width))
        return attn_fail(ATTN_OVERFLOW, "head_size", error);
    if (!attn_mul(args->len, width, &elements) || !attn_mul(args->batch, elements, &elements) ||
        !attn_mul(elements, sizeof(float), &bytes) || bytes > PTRDIFF_MAX)
        return attn_fail(ATTN_OVERFLOW, "batch", error);
    attn_tensor side[2] = {args->x, attn_as_input(&args->y)}, *merged = &side[merge], *split = &side[!merge];
    const struct attn_names *names[2] = {&attn_names_x, &attn_names_y};
    struct attn_strided strided[2];
    struct attn_named_bytes range[2];
    *split = attn_with_strides(split, args->heads, args->len, args->head_size);
    strided[merge] = attn_rows_of(merged, args->batch, args->len, width);
    strided[!merge] = attn_heads_of(split, args->batch, args->heads, args->len, args->head_size);
    strided[0].any_float = strided[1].any_float = true;
    RETURN_IF_ERROR(attn_check_rows(&strided[merge], &range[merge], names[merge], error));
    RETURN_IF_ERROR(attn_check_tensor(&strided[!merge], &range[!merge], names[!merge], error));
    RETURN_IF_ERROR(attn_check_rows_apart(&strided[1], "y", error));
    RETURN_IF_ERROR(attn_check_input(&strided[1], &range[1], &strided[0], &range[0], error));
    merged->head_stride = args->head_size;
    *resolved = *args;
    resolved->x = side[0];
    resolved->y = attn_as_output(&side[1], args->y.data);
    return ATTN_OK;
}

static attn_status transpose(const attn_transpose_args *args, bool merge, attn_error *error) {
    const struct attn_kernels *table;
    attn_transpose_args resolved;
    RETURN_IF_ERROR(attn_check_pointer(args, "args", error));
    attn_status status = attn_table_for(args->isa, &table);
    if (status != ATTN_OK)
        return attn_fail(status, "isa", error);
    RETURN_IF_ERROR(check_transpose(args, merge, &resolved, error));
    if (!transpose_is_empty(args))
        attn_op_transpose(table, &resolved, merge);
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
