#include "ops/transpose.h"

#include "checked.h"
#include "ops/gemm.h"
#include "ops/parallel.h"

/* Below this many elements waking another thread costs more than it saves. */
#define TRANSPOSE_PARALLEL_WORK (1u << 17)
/* Rows copied at a time: the heads of so many rows lie close together in the merged side. Fewer where its rows compete for the
 * same cache sets, unless there are so many elements that memory is what is waited for: it likes long stretches. */
#define TRANSPOSE_ROWS_PER_ITEM         128
#define TRANSPOSE_ALIASED_ROWS_PER_ITEM 8
#define ALIASED_WORK                    (3u << 19)

struct transpose_work {
    const struct attn_copy_kernel *kernel;
    const attn_transpose_args *args;
    bool merge;
    size_t band, bands; /* rows in a band, bands in a sequence */
    struct attn_queue queue;
};

/* All heads of a band of one sequence's rows. */
static void run_transpose_item(const struct transpose_work *work, size_t item) {
    const attn_transpose_args *args = work->args;
    size_t b = item / work->bands, row = item % work->bands * work->band, size = args->head_size;
    size_t rows = attn_min(args->len - row, work->band);
    for (size_t h = 0; h < args->heads; h++) {
        size_t merged = b * args->merged_batch_stride + row * args->merged_row_stride + h * size;
        size_t split = ((b * args->heads + h) * args->len + row) * size;
        if (work->merge)
            work->kernel->rows(rows, size, args->x + split, size, args->y + merged, args->merged_row_stride);
        else
            work->kernel->rows(rows, size, args->x + merged, args->merged_row_stride, args->y + split, size);
    }
}

static void run_transpose_task(void *arg, size_t index) {
    struct transpose_work *work = arg;
    for (struct attn_share share = attn_queue_share(&work->queue, index); attn_queue_take(&share);)
        run_transpose_item(work, share.item);
}

void attn_op_transpose(const struct attn_copy_kernel *kernel, const attn_transpose_args *args, bool merge) {
    struct transpose_work work = {.kernel = kernel, .args = args, .merge = merge, .band = TRANSPOSE_ROWS_PER_ITEM};
    double elements = (double)args->batch * (double)args->len * (double)args->heads * (double)args->head_size;
    if (args->merged_row_stride % ATTN_ALIAS == 0 && elements <= ALIASED_WORK)
        work.band = TRANSPOSE_ALIASED_ROWS_PER_ITEM;
    work.bands = (args->len + work.band - 1) / work.band;
    size_t items = args->batch * work.bands,
           threads = elements < TRANSPOSE_PARALLEL_WORK ? 1 : attn_threads(args->parallel);
    attn_run_queue(args->parallel, attn_min(threads, items), items, run_transpose_task, &work, &work.queue);
}
