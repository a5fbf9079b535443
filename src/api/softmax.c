/* attn_masked_softmax: argument checks. */
#include "ops/softmax.h"
#include "api/options.h"
#include "dispatch.h"

static attn_status check_softmax(const attn_softmax_args *args, attn_error *error) {
    RETURN_IF_ERROR(attn_check_size(args->batch, 0, "batch", error));
    RETURN_IF_ERROR(attn_check_size(args->rows, 0, "rows", error));
    RETURN_IF_ERROR(attn_check_size(args->cols, 0, "cols", error));
    RETURN_IF_ERROR(attn_check_enum((int)args->empty, ATTN_EMPTY_MEAN, "empty", error));
    RETURN_IF_ERROR(ATTN_CHECK_VALID(&args->valid, "", error));
    RETURN_IF_ERROR(attn_check_parallel(args->parallel, "parallel.run", error));
    if (args->batch == 0 || args->rows == 0 || args->cols == 0)
        return ATTN_OK;
    RETURN_IF_ERROR(attn_check_valid_lens(&args->valid, "valid.lens", error));
    attn_tensor out = attn_as_input(&args->y);
    struct attn_strided x = attn_rows_of(&args->x, args->batch, args->rows, args->cols);
    struct attn_strided y = attn_rows_of(&out, args->batch, args->rows, args->cols);
    struct attn_named_bytes x_range, y_range;
    x.any_float = y.any_float = true;
    RETURN_IF_ERROR(attn_check_rows(&x, &x_range, &attn_names_x, error));
    RETURN_IF_ERROR(attn_check_rows(&y, &y_range, &attn_names_y, error));
    RETURN_IF_ERROR(attn_check_rows_apart(&y, attn_names_y.batch_stride, error));
    bool in_place = x.data == y.data && attn_type_size(x.type) == attn_type_size(y.type) &&
                    (args->rows == 1 || x.strides[2] == y.strides[2]) &&
                    (args->batch == 1 || x.strides[1] == y.strides[1]);
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
        attn_op_masked_softmax(table, args);
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
