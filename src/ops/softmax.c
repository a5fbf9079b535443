#include "ops/softmax.h"

#include "ops/parallel.h"
#include "ops/visible.h"

/* Nanoseconds for one element. */
#define SOFTMAX_NS            0.25
#define SOFTMAX_ROWS_PER_ITEM 16

struct softmax {
    const struct attn_softmax_kernel *kernel;
    const attn_softmax_args *args;
    size_t rows; /* batch * rows */
};

static void empty_row(const attn_softmax_args *args, float *y) {
    float value = args->empty == ATTN_EMPTY_MEAN ? 1.0f / (float)args->cols : 0.0f;
    for (size_t c = 0; c < args->cols; c++)
        y[c] = value;
}

static void softmax_row(const struct softmax *softmax, size_t row) {
    const attn_softmax_args *args = softmax->args;
    size_t b = row / args->rows, i = row % args->rows;
    size_t valid = attn_valid_len(&args->valid, b, i, args->rows, args->cols);
    float *y = attn_row_out_at(&args->y, b, 0, i);
    if (valid == 0)
        empty_row(args, y);
    else
        softmax->kernel->row(attn_row_at(&args->x, b, 0, i), valid, args->cols, y);
}

static void softmax_rows(const void *arg, size_t item, size_t task) {
    (void)task;
    const struct softmax *softmax = arg;
    size_t begin = item * SOFTMAX_ROWS_PER_ITEM, end = attn_min(begin + SOFTMAX_ROWS_PER_ITEM, softmax->rows);
    for (size_t row = begin; row < end; row++)
        softmax_row(softmax, row);
}

void attn_op_masked_softmax(const struct attn_softmax_kernel *kernel, const attn_softmax_args *args) {
    struct softmax softmax = {.kernel = kernel, .args = args, .rows = args->batch * args->rows};
    size_t items = (softmax.rows + SOFTMAX_ROWS_PER_ITEM - 1) / SOFTMAX_ROWS_PER_ITEM;
    double elements = (double)softmax.rows * (double)args->cols;
    attn_for_each(args->parallel, attn_threads_for(args->parallel, elements * SOFTMAX_NS), items, softmax_rows,
                  &softmax);
}
