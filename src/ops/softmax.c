#include "ops/softmax.h"

#include "checked.h"
#include "ops/parallel.h"

/* Below this many elements waking another thread costs more than it saves. */
#define SOFTMAX_PARALLEL_WORK (1u << 16)
#define SOFTMAX_ROWS_PER_ITEM 16

size_t attn_valid_len(const attn_valid_lens *valid, size_t b, size_t i, size_t rows, size_t keys) {
    if (valid->kind == ATTN_VALID_ALL)
        return keys;
    int64_t len = valid->lens[valid->kind == ATTN_VALID_PER_ROW ? b * rows + i : b];
    if (len <= 0)
        return 0;
    return (uint64_t)len < keys ? (size_t)len : keys;
}

struct softmax_work {
    const struct attn_softmax_kernel *kernel;
    const attn_softmax_args *args;
    size_t rows; /* batch * rows */
    struct attn_queue queue;
};

static void empty_row(const attn_softmax_args *args, float *y) {
    float value = args->empty == ATTN_EMPTY_MEAN ? 1.0f / (float)args->cols : 0.0f;
    for (size_t c = 0; c < args->cols; c++)
        y[c] = value;
}

static void run_row(const struct softmax_work *work, size_t row) {
    const attn_softmax_args *args = work->args;
    size_t b = row / args->rows, i = row % args->rows;
    size_t valid = attn_valid_len(&args->valid, b, i, args->rows, args->cols);
    float *y = args->y + b * args->y_batch_stride + i * args->y_row_stride;
    if (valid == 0)
        empty_row(args, y);
    else
        work->kernel->row(args->x + b * args->x_batch_stride + i * args->x_row_stride, valid, args->cols, y);
}

static void run_softmax_task(void *arg, size_t index) {
    struct softmax_work *work = arg;
    for (struct attn_share share = attn_queue_share(&work->queue, index); attn_queue_take(&share);)
        for (size_t row = share.item * SOFTMAX_ROWS_PER_ITEM;
             row < work->rows && row < (share.item + 1) * SOFTMAX_ROWS_PER_ITEM; row++)
            run_row(work, row);
}

void attn_op_masked_softmax(const struct attn_softmax_kernel *kernel, const attn_softmax_args *args) {
    struct softmax_work work = {.kernel = kernel, .args = args, .rows = args->batch * args->rows};
    size_t items = (work.rows + SOFTMAX_ROWS_PER_ITEM - 1) / SOFTMAX_ROWS_PER_ITEM,
           threads = attn_threads(args->parallel);
    if ((double)work.rows * (double)args->cols < SOFTMAX_PARALLEL_WORK)
        threads = 1;
    threads = attn_min(threads, items);
    attn_run_queue(args->parallel, threads, items, run_softmax_task, &work, &work.queue);
}
