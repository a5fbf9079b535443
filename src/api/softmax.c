/* attn_masked_softmax: argument checks. */
#include "ops/softmax.h"
#include "api/options.h"
#include "dispatch.h"

static attn_status check_softmax(const attn_softmax_args *args, attn_error *error) {
    RETURN_IF_ERROR(attn_check_size(args->batch, 0, "batch", error));
    RETURN_IF_ERROR(attn_check_size(args->rows, 0, "rows", error));
    RETURN_IF_ERROR(attn_check_size(args->cols, 0, "cols", error));
    RETURN_IF_ERROR(attn_check_enum((int)args->empty, ATTN_EMPTY_MEAN, "empty", error));
    RETURN_IF_ERROR(attn_check_valid_kind(&args->valid, "valid.kind", "valid.lens", error));
    RETURN_IF_ERROR(attn_check_parallel(args->parallel, "parallel.run", error));
    if (args->batch == 0 || args->rows == 0 || args->cols == 0)
        return ATTN_OK;
    RETURN_IF_ERROR(attn_check_valid_lens(&args->valid, "valid.lens", error));
    RETURN_IF_ERROR(attn_check_pointer(args->x, "x", error));
    RETURN_IF_ERROR(attn_check_pointer(args->y, "y", error));
    if (args->rows > 1 && args->x_row_stride < args->cols)
        return attn_fail(ATTN_BAD_STRIDE, "x_row_stride", error);

    struct attn_strided x = {
        args->x, {1, args->batch, args->rows}, {0, args->x_batch_stride, args->x_row_stride}, args->cols};
    struct attn_strided y = {
        args->y, {1, args->batch, args->rows}, {0, args->y_batch_stride, args->y_row_stride}, args->cols};
    struct attn_named_bytes x_range = {.name = "x"}, y_range = {.name = "y"};
    RETURN_IF_ERROR(attn_check_extent(x.dims, x.strides, x.width, &x_range.bytes, "x_batch_stride", error));
    RETURN_IF_ERROR(attn_check_extent(y.dims, y.strides, y.width, &y_range.bytes, "y_batch_stride", error));
    RETURN_IF_ERROR(attn_check_apart((size_t[]){1, 1, args->rows}, y.strides, args->cols, "y_row_stride", error));
    RETURN_IF_ERROR(attn_check_apart(y.dims, y.strides, args->cols, "y_batch_stride", error));
    bool in_place = args->x == args->y && (args->rows == 1 || args->x_row_stride == args->y_row_stride) &&
                    (args->batch == 1 || args->x_batch_stride == args->y_batch_stride);
    return in_place ? ATTN_OK : attn_check_input(&y, &y_range, &x, &x_range, error);
}

static attn_status run_softmax(const attn_softmax_args *args, attn_error *error) {
    const struct attn_kernels *table;
    RETURN_IF_ERROR(attn_check_pointer(args, "args", error));
    attn_status status = attn_table_for(args->isa, &table);
    if (status != ATTN_OK)
        return attn_fail(status, "isa", error);
    RETURN_IF_ERROR(check_softmax(args, error));
    if (args->batch && args->rows && args->cols)
        attn_op_masked_softmax(attn_table_softmax(table), args);
    return ATTN_OK;
}

static void describe_softmax(const attn_softmax_args *args, struct attn_line *line) {
    attn_line_add(line, " %s", attn_isa_name(args->isa != ATTN_ISA_BEST ? args->isa : attn_isa_chosen()));
    attn_line_size(line, "batch", args->batch);
    attn_line_size(line, "rows", args->rows);
    attn_line_size(line, "cols", args->cols);
    attn_describe_options(&(attn_options){.valid = args->valid, .empty = args->empty}, line);
    attn_line_parallel(line, args->parallel);
    attn_line_zero(line, "batch", args->batch, "nothing is written");
    attn_line_zero(line, "rows", args->rows, "nothing is written");
    attn_line_zero(line, "cols", args->cols, "nothing is written");
}

attn_status attn_masked_softmax(const attn_softmax_args *args, attn_error *error) {
    ATTN_RETURN_CALL("masked_softmax", run_softmax(args, error), describe_softmax(args, &line));
}
