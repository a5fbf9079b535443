/* Tiles and products of quads: what the classes of integers share beside gemm_tiles.h and gemm_loops.h. The
 * kernels' own texts say what lies in a panel. */
#ifndef ATTN_BODY_GEMM_QUADS_H
#define ATTN_BODY_GEMM_QUADS_H

typedef int8_t tile_element;

#include "body/gemm_tiles.h"

#define TAILS 0

/* What few rows, which wait for B, fetch ahead, in bytes. */
enum { AHEAD = 1024 };

/* Compile-time rows and registers, every column there. */
struct tile {
    size_t k;
    struct attn_scaling scaling;
    const int8_t *a;
    size_t a_stride;
    const uint8_t *b;
    size_t panel; /* bytes from panel to panel */
    const float *bias;
    float *c;
    size_t c_stride; /* floats */
    size_t fetch;    /* bytes ahead */
    /* Of INT8 in several parts, or in blocks: the number of the one at b, and [rows][columns] sums of its products,
     * which are wanted in place of c. */
    size_t part;
    int32_t *sums;
    vec *totals; /* of INT8 in blocks, where a tile folds them in memory: [rows][registers], 0 to begin with */
};

typedef void tile_function(const struct tile *t);

struct product {
    const struct attn_gemm_args *args;
};

/* Where column 0 of register v begins; elements take `bytes` each. */
INLINE size_t place(size_t panel, int v, size_t bytes) {
    return (size_t)(v / VECS) * panel + (size_t)(v % VECS) * VEC_LANES * bytes;
}

static const float no_bias[WIDEST * VEC_LANES];

INLINE void tile_place(struct tile *t, const struct product *product, size_t i, size_t j) {
    const struct attn_gemm_args *args = product->args;
    *t = (struct tile){.k = args->k,
                       .scaling = args->scaling,
                       .a = (const int8_t *)args->a + i * args->a_stride,
                       .a_stride = args->a_stride,
                       .b = (const uint8_t *)args->b.data + (args->column + j) / COLS * args->b.stride,
                       .panel = args->b.stride,
                       .bias = args->start == ATTN_START_BIAS ? args->factors + j : no_bias,
                       .c = (float *)((char *)args->c + i * args->c_stride) + j,
                       .c_stride = args->c_stride / sizeof(float),
                       .fetch = AHEAD_ROWS};
}

INLINE void tile_go_down(struct tile *t, size_t rows) {
    t->a += rows * t->a_stride;
    t->c += rows * t->c_stride;
}

INLINE bool tile_starts_from_c(const struct tile *t) {
    (void)t;
    return false;
}

INLINE void tile_leave_columns(struct tile *t, size_t cols) {
    (void)t, (void)cols;
}

/* All of k is taken at once. */
INLINE void product_begin(struct product *product) {
    (void)product;
}

INLINE bool product_go_on(struct product *product) {
    (void)product;
    return false;
}

#endif
