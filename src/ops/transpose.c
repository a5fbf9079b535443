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
    const struct attn_transpose *args;
    size_t row_bytes;   /* of x */
    size_t band, bands; /* rows in a band, bands in a sequence */
};

static const char *row_at(const struct attn_head_rows *side, size_t b, size_t h, size_t i) {
    return (const char *)side->data + b * side->batch_step + h * side->head_step + i * side->row_step;
}

/* Rows of one head. */
static void transpose_rows(const struct transpose *transpose, size_t rows, const char *x, char *y) {
    const struct attn_transpose *args = transpose->args;
    if (args->x.type == args->y.type) {
        transpose->copy->rows(rows, transpose->row_bytes, x, args->x.row_step, y, args->y.row_step);
        return;
    }
    for (size_t i = 0; i < rows; i++)
        attn_convert_row(transpose->convert, args->x.type, args->y.type, args->head_size, x + i * args->x.row_step,
                         y + i * args->y.row_step);
}

/* All heads of a band of one sequence's rows. */
static void transpose_band(const void *arg, size_t item, size_t task) {
    (void)task;
    const struct transpose *transpose = arg;
    const struct attn_transpose *args = transpose->args;
    size_t b = item / transpose->bands, row = item % transpose->bands * transpose->band;
    size_t rows = attn_min(args->len - row, transpose->band);
    const char *x = row_at(&args->x, b, 0, row), *y = row_at(&args->y, b, 0, row);
    for (size_t h = 0; h < args->heads; h++)
        transpose_rows(transpose, rows, x + h * args->x.head_step, (char *)y + h * args->y.head_step);
}

void attn_op_transpose(const struct attn_kernels *table, const struct attn_transpose *args,
                       const attn_parallel *parallel) {
    const struct attn_tuning *tuning = attn_tuning_for(table->isa);
    size_t x_element = attn_type_size(args->x.type), element = attn_max(x_element, attn_type_size(args->y.type));
    double bytes = (double)(args->batch * args->len) * (double)(args->heads * args->head_size * element);
    bool aliased = args->merged_row_step % ATTN_ALIAS == 0 && bytes <= tuning->aliased_bytes;
    struct transpose transpose;
    transpose.copy = attn_table_copy(table);
    transpose.convert = attn_table_convert(table);
    transpose.args = args;
    transpose.row_bytes = args->head_size * x_element;
    transpose.band = aliased ? TRANSPOSE_ALIASED_ROWS_PER_ITEM : TRANSPOSE_ROWS_PER_ITEM;
    transpose.bands = (args->len + transpose.band - 1) / transpose.band;
    attn_for_each(parallel, attn_threads_for(tuning, parallel, bytes * tuning->byte_ns), args->batch * transpose.bands,
                  transpose_band, &transpose);
}
