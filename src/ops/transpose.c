#include "ops/transpose.h"

#include "checked.h"
#include "ops/convert.h"
#include "ops/gemm.h"
#include "ops/parallel.h"

/* Rows of a head that are copied before those of the next head, which lies beside it in the merged side. Fewer rows
 * where the merged side's rows alias, because their lines would leave the cache before the next head needs them. */
#define TRANSPOSE_ROWS_PER_ITEM         128
#define TRANSPOSE_ALIASED_ROWS_PER_ITEM 8

struct transpose {
    const struct attn_copy_kernel *copy;
    const struct attn_convert_kernel *convert;
    const attn_transpose_args *args; /* with all strides, see attn_op_transpose */
    size_t band, bands;              /* rows in a band, bands in a sequence */
};

/* Rows row .. row + rows - 1 of one head. */
static void transpose_rows(const struct transpose *transpose, size_t b, size_t h, size_t row, size_t rows) {
    const attn_transpose_args *args = transpose->args;
    const attn_tensor *x = &args->x;
    const attn_tensor_out *y = &args->y;
    size_t element = attn_type_size(x->type);
    if (x->type == y->type) {
        transpose->copy->rows(rows, args->head_size * element, attn_typed_row_at(x, b, h, row), x->row_stride * element,
                              attn_typed_row_out_at(y, b, h, row), y->row_stride * element);
        return;
    }
    for (size_t i = row; i < row + rows; i++)
        attn_convert_row(transpose->convert, x->type, y->type, args->head_size, attn_typed_row_at(x, b, h, i),
                         attn_typed_row_out_at(y, b, h, i));
}

/* All heads of a band of one sequence's rows. */
static void transpose_band(const void *arg, size_t item, size_t task) {
    (void)task;
    const struct transpose *transpose = arg;
    const attn_transpose_args *args = transpose->args;
    size_t b = item / transpose->bands, row = item % transpose->bands * transpose->band;
    size_t rows = attn_min(args->len - row, transpose->band);
    for (size_t h = 0; h < args->heads; h++)
        transpose_rows(transpose, b, h, row, rows);
}

void attn_op_transpose(const struct attn_kernels *table, const attn_transpose_args *args, bool merge) {
    struct transpose transpose = {.copy = attn_table_copy(table),
                                  .convert = attn_table_convert(table),
                                  .args = args,
                                  .band = TRANSPOSE_ROWS_PER_ITEM};
    const struct attn_tuning *tuning = attn_tuning_for(table->isa);
    double elements = (double)args->batch * (double)args->len * (double)args->heads * (double)args->head_size;
    size_t x_element = attn_type_size(args->x.type), y_element = attn_type_size(args->y.type);
    size_t merged_bytes = merge ? args->y.row_stride * y_element : args->x.row_stride * x_element;
    double bytes = elements * (double)attn_max(x_element, y_element);
    if (merged_bytes % ATTN_ALIAS == 0 && bytes <= tuning->aliased_bytes)
        transpose.band = TRANSPOSE_ALIASED_ROWS_PER_ITEM;
    transpose.bands = (args->len + transpose.band - 1) / transpose.band;
    attn_for_each(args->parallel, attn_threads_for(tuning, args->parallel, bytes * tuning->byte_ns),
                  args->batch * transpose.bands, transpose_band, &transpose);
}
