/* GEMM for NEON.
 *
 * Tile 6 x 16: 24 accumulators, six registers of A, each four steps of k, one of B, 31 of 32 registers. Per four steps 6 loads
 * of A and 16 of B feed 96 multiply-adds by lane: 22 loads in the 48 cycles that two multiply-add pipes need, or the 24 of
 * four. (A broadcast by ld1r would take a vector pipe as well.) Each accumulator is used again after 12 or 6 cycles, above
 * the latency of 4. Fewer rows take more registers of B at once, across panels, so that 16 chains or more are in
 * flight: 1 x 64, 2 x 32, 3 x 32. */
#ifndef ATTN_NEON_TILE_H
#define ATTN_NEON_TILE_H

#include "vec.h"

#define GEMM_NAME "neon_6x16"

enum { ROWS = 6, COLS = 16, WIDEST = 16 };

/* B's panel block of 256 x 16 floats is 16 KiB: it stays in the smallest L1 while the rows pass; rows x 256 floats of A stay
 * in L2. Blocks are whole steps of four. */
enum { K_BLOCK = 256, K_STEP = 4, ROW_BLOCK = 240 };

/* Rows or columns in place that are fetched ahead: the processor does not foresee them where they lie far apart. Rows that tiles
 * side by side take turns at. Of what is packed nothing is fetched ahead. */
enum { PREFETCH = 16, TURN = 16, PACK_PREFETCH = 0 };

/* Elements of columns in place that are transposed at a time. */
enum { DEPTH = 4 };

/* A tile begins with a panel, and its registers are full in place; no stride of A asks for lower tiles. */
enum { TAILS_IN_PLACE = 0, ALIASED_ROWS = ROWS };

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

/* Compile-time rows and registers of B per step, which may come from several panels or follow each other in a row of B in
 * place. A stays in registers for four steps while B passes by. */
INLINE void tile_run(const struct tile *t, const int rows, const int width, const enum source source) {
    const int in_place = source == IN_PLACE;
    vec acc[28];
    tile_begin(t, acc, rows, width, in_place);
    const float *a = t->a, *b[4];
    const int pointers = in_place ? 4 : (width + VECS - 1) / VECS;
    size_t k = t->k, p = 0, stride = t->a_stride, step = in_place ? t->layout.step : COLS;
    UNROLL for (int q = 0; q < pointers; q++) b[q] = t->b + (size_t)q * (in_place ? step : t->layout.panel);
    for (; p + 4 <= k; p += 4, a += 4) {
        vec av[ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = vec_load(a + (size_t)i * stride);
        STEP(0)
        STEP(1)
        STEP(2)
        STEP(3)
        UNROLL for (int q = 0; q < pointers; q++) b[q] += 4 * step;
    }
    for (; p < k; p++, a++) {
        vec av[ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = vec_load_first(1, a + (size_t)i * stride);
        STEP(0)
        UNROLL for (int q = 0; q < pointers; q++) b[q] += step;
    }
    tile_end(t, acc, rows, width, in_place);
}

/* Element `lane` of the four in bv, of register j. */
#define COLUMNS_STEP(lane)                                                                                             \
    UNROLL for (int i = 0; i < rows; i++) vec_fma_lane(acc[i * width + j], bv[lane], av[i], lane);

/* Compile-time rows and registers of columns in place, DEPTH elements of each at a time: transposed they stay in registers
 * while the rows of A pass by. That takes 8 shuffles a register next to 4 multiply-adds a row. */
INLINE void tile_columns_run(const struct tile *t, const int rows, const int width, const int dense) {
    vec acc[16];
    tile_begin(t, acc, rows, width, 1);
    const float *a = t->a, *b = t->b;
    size_t k = t->k, stride = t->a_stride, b_stride = t->b_stride;
    for (size_t p = 0; p < k; p += DEPTH, a += DEPTH, b += DEPTH) {
        fetch_columns(b, b_stride, b, p, width, dense);
        vec av[ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = vec_load(a + (size_t)i * stride);
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

/* Rows, the widest tile, registers of columns in place: 16 chains or more. */
#define EACH_ROW_COUNT(X)         X(1, 16, 4) X(2, 8, 4) X(3, 8, 4) X(4, 4, 4) X(5, 4, 2) X(6, 4, 2)
#define COLUMNS_TILE(rows, width) ISA_FN(tile_columns_##rows##_##width##_4)

#include "body/gemm_plain.h"

#endif
