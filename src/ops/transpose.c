#include "ops/transpose.h"

#include "checked.h"
#include "ops/gemm.h"
#include "ops/parallel.h"
#include "ops/tensor.h"

/* Nanoseconds for one element: it is read and written. */

#define TRANSPOSE_NS 0.125
/* Rows of a head that are copied before those of the next head, which lies beside it in the merged side. Fewer rows
 * where the merged side's rows alias, because their lines would leave the cache before the next head needs them; but
 * not with more than ALIASED_WORK elements, which come from memory, and memory is faster at long runs. */
#define TRANSPOSE_ROWS_PER_ITEM         128
#define TRANSPOSE_ALIASED_ROWS_PER_ITEM 8
#define ALIASED_WORK                    (3u << 19)

struct transpose {
    const struct attn_copy_kernel *kernel;
    const attn_transpose_args *args; /* with all strides, see attn_op_transpose */
    size_t band, bands;              /* rows in a band, bands in a sequence */
};

/* All heads of a band of one sequence's rows. */
static void transpose_band(const void *arg, size_t item, size_t task) {
    (void)task;
    const struct transpose *transpose = arg;
    const attn_transpose_args *args = transpose->args;
    size_t b = item / transpose->bands, row = item % transpose->bands * transpose->band;
    size_t rows = attn_min(args->len - row, transpose->band);
    for (size_t h = 0; h < args->heads; h++)
        transpose->kernel->rows(rows, args->head_size, attn_row_at(&args->x, b, h, row), args->x.row_stride,
                                attn_row_out_at(&args->y, b, h, row), args->y.row_stride);
}

void attn_op_transpose(const struct attn_copy_kernel *kernel, const attn_transpose_args *args, bool merge) {
    struct transpose transpose = {.kernel = kernel, .args = args, .band = TRANSPOSE_ROWS_PER_ITEM};
    double elements = (double)args->batch * (double)args->len * (double)args->heads * (double)args->head_size;
    size_t merged_stride = merge ? args->y.row_stride : args->x.row_stride;
    if (merged_stride * sizeof(float) % ATTN_ALIAS == 0 && elements <= ALIASED_WORK)
        transpose.band = TRANSPOSE_ALIASED_ROWS_PER_ITEM;
    transpose.bands = (args->len + transpose.band - 1) / transpose.band;
    attn_for_each(args->parallel, attn_threads_for(args->parallel, elements * TRANSPOSE_NS),
                  args->batch * transpose.bands, transpose_band, &transpose);
}
