/* Tiles that multiply by a lane of A, which is read four steps of k at a time. */
#ifndef ATTN_BODY_GEMM_LANES_H
#define ATTN_BODY_GEMM_LANES_H

#include "body/gemm.h"

/* Register j of step `lane` of B: b points to panels, in place to rows. */
INLINE const float *b_at(const float *const b[4], const int lane, const int j, const int in_place) {
    return in_place ? b[lane] + j * VEC_LANES : b[j / VECS] + lane * COLS + j % VECS * VEC_LANES;
}

/* Step `lane` of the four whose A is in av. */
#define STEP(lane)                                                                                                     \
    UNROLL for (int j = 0; j < width; j++) {                                                                           \
        vec bv = vec_load(b_at(b, lane, j, in_place));                                                                 \
        if (in_place && j % VECS == 0)                                                                                 \
            vec_prefetch(b_at(b, lane, j, in_place), PREFETCH *step);                                                  \
        UNROLL for (int i = 0; i < rows; i++) vec_fma_lane(acc[i * width + j], bv, av[i], lane);                       \
    }

/* Compile-time rows and registers of B per step, which may come from several panels or follow each other in a row of
 * B in place. A stays in registers for four steps while B passes by. */
INLINE void tile_run(const struct tile *t, const int rows, const int width, const int in_place) {
    vec acc[28];
    tile_begin(t, acc, rows, width, in_place);
    const float *a = t->a, *b[4];
    const int pointers = in_place ? 4 : (width + VECS - 1) / VECS;
    size_t k = t->k, p = 0, stride = t->a_stride, step = in_place ? t->layout.step : COLS;
    UNROLL for (int q = 0; q < pointers; q++) b[q] = t->b + (size_t)q * (in_place ? step : t->layout.panel);
    for (; p + 4 <= k; p += 4, a += 4) {
        vec av[ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = vec_load_quads(a + (size_t)i * stride);
        STEP(0)
        STEP(1)
        STEP(2)
        STEP(3)
        UNROLL for (int q = 0; q < pointers; q++) b[q] += 4 * step;
    }
    for (; p < k; p++, a++) {
        vec av[ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = vec_load_one(a + (size_t)i * stride);
        STEP(0)
        UNROLL for (int q = 0; q < pointers; q++) b[q] += step;
    }
    tile_end(t, acc, rows, width, in_place);
}

/* Element `lane` of the four in bv, of register j. */
#define COLUMNS_STEP(lane)                                                                                             \
    UNROLL for (int i = 0; i < rows; i++) vec_fma_lane(acc[i * width + j], bv[lane], av[i], lane);

/* Compile-time rows and registers of columns in place, DEPTH elements of each at a time: transposed they stay in
 * registers while the rows of A pass by. That takes 8 shuffles a register next to 4 multiply-adds a row. */
INLINE void tile_columns_run(const struct tile *t, const int rows, const int width, const int dense) {
    vec acc[16];
    tile_begin(t, acc, rows, width, 1);
    const float *a = t->a, *b = t->b;
    size_t k = t->k, stride = t->a_stride, b_stride = t->b_stride;
    for (size_t p = 0; p < k; p += DEPTH, a += DEPTH, b += DEPTH) {
        fetch_columns(b, b_stride, b, p, width, dense);
        vec av[ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = vec_load_quads(a + (size_t)i * stride);
        UNROLL for (int j = 0; j < width; j++) {
            vec bv[DEPTH];
            vec_load_columns(b + (size_t)j * VEC_LANES * b_stride, b_stride, bv);
            COLUMNS_STEP(0)
            COLUMNS_STEP(1)
            COLUMNS_STEP(2)
            COLUMNS_STEP(3)
        }
    }
    tile_end(t, acc, rows, width, 1);
}

#endif
