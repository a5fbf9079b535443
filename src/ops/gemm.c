#include "ops/gemm.h"

#include <string.h>

#include "ops/parallel.h"

/* Items per thread: enough that a thread which loses its core delays little. */
#define ITEMS_PER_THREAD 4

void attn_packed_layout(struct attn_packed *packed, const struct attn_gemm_kernel *kernel, size_t k, size_t n,
                        bool with_bias, struct attn_arena *arena) {
    size_t cols = kernel->b.cols, panel = 0;
    arena->overflow |= !attn_panel_bytes(&kernel->b, k, cols, &panel);
    *packed = (struct attn_packed){.kernel = kernel, .k = k, .n = n, .panels = {.cols = cols, .stride = panel}};
    packed->panels.data = attn_arena_take(arena, n / cols + (n % cols != 0), panel);
    packed->bias = with_bias ? attn_arena_take(arena, n, sizeof *packed->bias) : NULL;
}

void attn_packed_fill(struct attn_packed *packed, const attn_linear *w) {
    size_t element = attn_type_size(packed->kernel->b.type);
    packed->kernel->pack(&(struct attn_pack_args){.k = packed->k,
                                                  .n = packed->n,
                                                  .b = w->weight,
                                                  .k_stride = w->in_stride * element,
                                                  .n_stride = w->out_stride * element,
                                                  .packed = packed->panels});
    if (packed->bias)
        memcpy((float *)packed->bias, w->bias, packed->n * sizeof *packed->bias);
}

float *attn_take_rows(struct attn_arena *arena, size_t rows, size_t width) {
    size_t bytes = 0;
    if (width > SIZE_MAX - ATTN_LINE || !attn_mul(attn_row_stride(width), attn_type_size(ATTN_F32), &bytes))
        arena->overflow = true;
    return attn_arena_take(arena, rows, bytes);
}

/* A product cut into items: bands of rows, or bands of columns. */
struct product {
    const struct attn_packed *w;
    size_t m;
    const float *x;
    size_t x_stride;
    float *y;
    size_t y_stride;
    bool by_rows;
    size_t band; /* rows or columns of an item, a multiple of the tile's */
};

static void multiply_band(const void *arg, size_t item, size_t task) {
    (void)task;
    const struct product *product = arg;
    const struct attn_packed *w = product->w;
    size_t begin = item * product->band, total = product->by_rows ? product->m : w->n;
    size_t count = attn_min(total - begin, product->band);
    size_t row = product->by_rows ? begin : 0, col = product->by_rows ? 0 : begin;
    w->kernel->run(&(struct attn_gemm_args){.m = product->by_rows ? count : product->m,
                                            .n = product->by_rows ? w->n : count,
                                            .k = w->k,
                                            .a = product->x + row * product->x_stride,
                                            .a_stride = product->x_stride * sizeof *product->x,
                                            .b = w->panels,
                                            .column = col,
                                            .start = w->bias ? ATTN_START_BIAS : ATTN_START_ZERO,
                                            .factors = w->bias ? w->bias + col : NULL,
                                            .c = product->y + row * product->y_stride + col,
                                            .c_stride = product->y_stride * sizeof *product->y});
}

/* `total` rows or columns, cut into items of the same number of GEMM tiles. */
struct cut {
    size_t band, items;
    double wait; /* the time until the last thread is done, as a multiple of the time with equal shares */
};

static struct cut cut_tiles(size_t total, size_t tile, size_t threads) {
    size_t tiles = (total + tile - 1) / tile;
    size_t wanted = threads < tiles / ITEMS_PER_THREAD ? threads * ITEMS_PER_THREAD : tiles;
    size_t per_item = (tiles + wanted - 1) / wanted, items = (tiles + per_item - 1) / per_item;
    double most = (double)((items + threads - 1) / threads) * (double)per_item;
    return (struct cut){per_item * tile, items, most * (double)threads / (double)tiles};
}

void attn_op_gemm(const struct attn_packed *w, size_t m, const float *x, size_t x_stride, float *y, size_t y_stride,
                  const attn_parallel *parallel) {
    struct product product = {
        .w = w, .m = m, .x = x, .x_stride = x_stride, .y = y, .y_stride = y_stride, .by_rows = true, .band = m};
    if (m == 0)
        return;
    /* In floating point, because the product of the sizes may not fit in size_t. */
    size_t threads = attn_threads_for(parallel, (double)m * (double)w->n * (double)w->k * ATTN_MULTIPLY_ADD_NS);
    if (threads == 1) {
        multiply_band(&product, 0, 0);
        return;
    }
    struct cut rows = cut_tiles(m, w->kernel->rows, threads), cols = cut_tiles(w->n, w->kernel->b.cols, threads);
    product.by_rows = rows.wait < cols.wait;
    struct cut cut = product.by_rows ? rows : cols;
    product.band = cut.band;
    attn_for_each(parallel, threads, cut.items, multiply_band, &product);
}
