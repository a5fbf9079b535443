#include "ops/softmax.h"

#include <string.h>

#include "ops/parallel.h"
#include "ops/visible.h"

#define SOFTMAX_ROWS_PER_ITEM 16

struct softmax {
    const struct attn_softmax_kernel *kernel;
    const struct attn_convert_kernel *convert;
    const attn_softmax_args *args;
    size_t rows; /* batch * rows */
};

/* One element, then as many again as there are. */
static void empty_row(const struct softmax *softmax, char *y) {
    const attn_softmax_args *args = softmax->args;
    float value = args->empty == ATTN_EMPTY_MEAN ? 1.0f / (float)args->cols : 0.0f;
    size_t done = attn_type_size(args->y.type), bytes = args->cols * done;
    softmax->convert->narrow(args->y.type, 1, &value, y);
    for (; done < bytes; done += attn_min(done, bytes - done))
        memcpy(y + done, y, attn_min(done, bytes - done));
}

/* n rows of sequence b, from row i on. */
static void softmax_few(const struct softmax *softmax, size_t b, size_t i, size_t n) {
    const attn_softmax_args *args = softmax->args;
    const attn_tensor *x = &args->x;
    const attn_tensor_out *y = &args->y;
    size_t valid[SOFTMAX_ROWS_PER_ITEM];
    for (size_t r = 0; r < n; r++) {
        valid[r] = attn_valid_len(&args->valid, b, i + r, args->rows, args->cols);
        if (valid[r] == 0)
            empty_row(softmax, attn_typed_row_out_at(y, b, 0, i + r));
    }
    softmax->kernel->rows(&(struct attn_softmax_rows){.from = x->type,
                                                      .to = y->type,
                                                      .rows = n,
                                                      .cols = args->cols,
                                                      .valid = valid,
                                                      .x = attn_typed_row_at(x, b, 0, i),
                                                      .x_stride = x->row_stride * attn_type_size(x->type),
                                                      .y = attn_typed_row_out_at(y, b, 0, i),
                                                      .y_stride = y->row_stride * attn_type_size(y->type)});
}

static void softmax_rows(const void *arg, size_t item, size_t task) {
    (void)task;
    const struct softmax *softmax = arg;
    size_t begin = item * SOFTMAX_ROWS_PER_ITEM, end = attn_min(begin + SOFTMAX_ROWS_PER_ITEM, softmax->rows);
    for (size_t row = begin, rows = softmax->args->rows, n; row < end; row += n) {
        n = attn_min(end - row, rows - row % rows);
        softmax_few(softmax, row / rows, row % rows, n);
    }
}

void attn_op_masked_softmax(const struct attn_kernels *table, const attn_softmax_args *args) {
    struct softmax softmax = {.kernel = attn_table_softmax(table),
                              .convert = attn_table_convert(table),
                              .args = args,
                              .rows = args->batch * args->rows};
    size_t items = (softmax.rows + SOFTMAX_ROWS_PER_ITEM - 1) / SOFTMAX_ROWS_PER_ITEM;
    double elements = (double)softmax.rows * (double)args->cols;
    const struct attn_tuning *tuning = attn_tuning_for(table->isa);
    attn_for_each(args->parallel, attn_threads_for(tuning, args->parallel, elements * tuning->float_ns), items,
                  softmax_rows, &softmax);
}
