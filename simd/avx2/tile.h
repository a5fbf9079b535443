/* GEMM for AVX2.
 *
 * Tile 6 x 16: 12 accumulators, two registers of B, one broadcast of A, 15 of 16 registers. Per step of k two loads
 * of B and 6 broadcasts feed 12 multiply-adds: 8 loads in the 6 cycles that two multiply-add pipes need, 12 for both
 * load ports. Each accumulator is used again after 6 cycles, above the latency of 4 or 5. The loop over k is
 * unrolled by four: with its own counting each step would take every slot of a processor that issues four operations
 * a cycle. Fewer rows take more registers of B at once, across panels, so that eight chains or more are in flight: 1
 * x 64, 2 x 32, 3 x 32. */
#ifndef ATTN_AVX2_TILE_H
#define ATTN_AVX2_TILE_H

#include <stdint.h>

#include "vec.h"

#define GEMM_NAME "avx2_6x16"

enum { ROWS = 6, COLS = 16, WIDEST = 8, POINTERS = 2 };

/* B's panel block of 256 x 16 floats is 16 KiB: it stays in L1 while the rows pass; rows x 256 floats of A stay in
 * L2. Longer blocks are level where L2 is large. */
enum { K_BLOCK = 256, K_STEP = 1, ROW_BLOCK = 144 };

/* PREFETCH: the distance in rows or columns of B in place, which the processor's own prefetcher does not follow
 * where they lie far apart. TURN: rows of B in place that one tile takes before the tile beside it takes the same
 * rows, while L1 holds them. */
enum { PREFETCH = 32, TURN = 16 };

/* SHORT: the largest k of a panel that needs a prefetch; the processor's own prefetcher is as good for longer ones.
 * FETCH_ROWS: the prefetch distance in rows of a panel. MANY: with more rows of A, tiles bring the next panel to L2
 * instead. */
enum { SHORT = 256, FETCH_ROWS = 64, MANY = 32 };

/* Elements of columns in place that are transposed at a time. */
enum { DEPTH = 4 };

/* Rows fetched ahead of what is packed. */
enum { PACK_PREFETCH = 8 };

/* Registers are full in place; no stride of A asks for lower tiles. */
enum { TAILS_IN_PLACE = 0, ALIASED_ROWS = ROWS };

#define TWINS_IN_PLACE
/* Which blocks of INT4 one row takes from two panels at once, see gemm_stored.c: with zero points two panels' sums and
 * scales take all 16 registers. */
#define INT4_WIDE INT4_WITHOUT_ZEROS

#include "body/gemm.h"

/* How a tile finds B: in panels; in panels while what lies ahead is fetched; in place. */
enum source { PANELS, PANELS_AHEAD, IN_PLACE };

/* Register j of a step of B. */
INLINE vec load_b(const float *const b[POINTERS], size_t b_stride, const int j, const enum source source) {
    if (source == IN_PLACE)
        return vec_load(b[0] + j * VEC_LANES);
    return vec_load(b[j / VECS / 4] + (size_t)(j / VECS % 4) * b_stride + j % VECS * VEC_LANES);
}

/* Compile-time rows and registers of B per step, which may come from several panels or follow each other in a row of
 * B in place. The smaller side of the outer product stays in registers while the larger passes by. */
INLINE void tile_loop(const struct tile *t, vec *acc, const int rows, const int width, const enum source source) {
    const int in_place = source == IN_PLACE;
    const int full = rows > 1 && rows * width + (rows < width ? rows : width) + 1 == 16; /* no register is left */
    const int panels = in_place ? 1 : (width + VECS - 1) / VECS;
    const float *b[POINTERS], *a[POINTERS], *ahead = t->ahead;
    size_t k = t->k, stride = t->a_stride, b_stride = t->layout.panel, step = in_place ? t->layout.step : COLS,
           ahead_step = t->ahead_step;
    pointers(a, POINTERS, t->a, stride, rows);
    pointers(b, POINTERS, t->b, b_stride, panels);
    _Pragma("GCC unroll 4") for (size_t p = 0; p < k; p++) {
        if (in_place)
            UNROLL for (int j = 0; j < width; j += VECS) vec_prefetch(b[0], PREFETCH * step + (size_t)j * VEC_LANES);
        if (source == PANELS_AHEAD) {
            UNROLL for (int j = 0; j < panels; j++) vec_prefetch_l2(ahead + (size_t)j * b_stride);
            ahead += ahead_step;
        }
        if (rows < width) {
            vec av[ROWS];
            UNROLL for (int i = 0; i < rows; i++) av[i] = vec_set(a[i / 4][(size_t)(i % 4) * stride]);
            UNROLL for (int j = 0; j < width; j++) {
                vec bv = load_b(b, b_stride, j, source);
                UNROLL for (int i = 0; i < rows; i++) {
                    acc[i * width + j] = vec_fma(av[i], bv, acc[i * width + j]);
                    if (full)
                        vec_settle(acc[i * width + j]);
                }
            }
        } else {
            vec bv[WIDEST];
            UNROLL for (int j = 0; j < width; j++) bv[j] = load_b(b, b_stride, j, source);
            UNROLL for (int i = 0; i < rows; i++) {
                vec av = vec_set(a[i / 4][(size_t)(i % 4) * stride]);
                UNROLL for (int j = 0; j < width; j++) {
                    acc[i * width + j] = vec_fma(av, bv[j], acc[i * width + j]);
                    if (full)
                        vec_settle(acc[i * width + j]);
                }
            }
        }
        UNROLL for (int q = 0; q < POINTERS; q++) {
            a[q]++;
            b[q] += step;
        }
        __asm__ volatile("" : : : "memory"); /* else clang starts the next step early and spills */
    }
}

/* Two loops over panels, because a step of 6 x 16 has no slot to spare. With a prefetch in every step, products that
 * need none take 1.03 to 1.05 times as long. Without any prefetch, 2 to 64 query rows over a cache take 1.2 to 1.6
 * times as long. One row waits for memory alone, and a fetch in each step delays it; narrow tiles are only a
 * product's last columns. */
INLINE void tile_run(const struct tile *t, const int rows, const int width, const int in_place) {
    vec acc[14];
    tile_begin(t, acc, rows, width, in_place);
    if (in_place)
        tile_loop(t, acc, rows, width, IN_PLACE);
    else if (rows > 1 && rows * width >= 8 && t->ahead != t->b)
        tile_loop(t, acc, rows, width, PANELS_AHEAD);
    else
        tile_loop(t, acc, rows, width, PANELS);
    tile_end(t, acc, rows, width, in_place);
}

/* Compile-time rows and registers of columns in place, DEPTH elements of each at a time: transposed they stay in
 * registers while the rows of A pass by. That takes 8 loads and 8 shuffles a register next to 4 multiply-adds a row;
 * loads are what it waits for, so that of one row what is read of A is kept. Meanwhile a line of some columns
 * further on is fetched, so that in 16 elements it is the turn of each; where columns follow each other (`dense`),
 * those that the next tile reads, in the order in which they lie. */
INLINE void tile_columns_run(const struct tile *t, const int rows, const int width, const int dense) {
    vec acc[6];
    tile_begin(t, acc, rows, width, 1);
    const float *b = t->b, *a[POINTERS];
    size_t k = t->k, stride = t->a_stride, b_stride = t->b_stride;
    const float *next = b + (size_t)width * VEC_LANES * k;
    pointers(a, POINTERS, t->a, stride, rows);
    for (size_t p = 0; p < k; p += DEPTH, b += DEPTH, next += (size_t)width * VEC_LANES * DEPTH) {
        fetch_columns(b, b_stride, next, p, width, dense);
        vec av[DEPTH];
        UNROLL for (int l = 0; l < DEPTH; l++) av[l] = vec_set(a[0][l]);
        __asm__("" : "+r"(stride)); /* or each of the addresses below is kept on the stack */
        UNROLL for (int j = 0; j < width; j++) {
            vec bv[DEPTH];
            vec_load_columns(b + (size_t)j * VEC_LANES * b_stride, b_stride, bv);
            UNROLL for (int l = 0; l < DEPTH; l++) UNROLL for (int i = 0; i < rows; i++) {
                vec *sum = &acc[i * width + j];
                *sum =
                    vec_fma(rows == 1 ? av[l] : vec_set(a[i / 4][(size_t)(i % 4) * stride + (size_t)l]), bv[l], *sum);
                __asm__ volatile("" : "+x"(*sum) : : "memory"); /* else compilers start later sums early, and spill */
            }
        }
        UNROLL for (int q = 0; q < POINTERS; q++) a[q] += DEPTH;
    }
    tile_end(t, acc, rows, width, 1);
}

/* X(rows, registers of the widest tile, registers of columns in place). The widest tiles have eight chains or more. */
#define EACH_ROW_COUNT(X)         X(1, 8, 2) X(2, 4, 2) X(3, 4, 2) X(4, 2, 1) X(5, 2, 1) X(6, 2, 1)
#define COLUMNS_TILE(rows, width) ISA_FN(tile_columns_##rows##_##width##_4)

/* Floats from a row of a panel to what is fetched meanwhile: of keys, panels that follow each other, the same row as
 * many panels later as are read at once; of values rows further on. The processor's own prefetching is level or
 * better for longer panels. */
static size_t fetch_distance(const struct tile *t, size_t panels) {
    if (t->k > SHORT)
        return 0;
    return t->layout.panel == t->k * COLS ? panels * t->layout.panel : FETCH_ROWS * COLS;
}

/* One row waits for memory alone, and a fetch in each step delays it: the beginnings of the next short panels start the
 * processor's own prefetching, which ends with each panel. */
static void fetch_beginnings(const struct tile *t, size_t panels) {
    enum { LEAST = 4, LINES = 4 };
    if (t->k > SHORT || t->layout.panel != t->k * COLS || panels < LEAST)
        return;
    for (size_t v = panels; v < 2 * panels; v++)
        for (size_t l = 0; l < LINES; l++)
            vec_prefetch_l2(t->b + v * t->layout.panel + l * LINE);
    __asm__ volatile(""); /* or gcc takes a function that only fetches for one that does nothing */
}

INLINE size_t fetch_few(const struct tile *t, size_t rows, size_t vecs, size_t n) {
    (void)n;
    if (rows == 1)
        fetch_beginnings(t, vecs / VECS);
    return fetch_distance(t, (vecs + VECS - 1) / VECS);
}

INLINE size_t fetch_in_place(const struct tile *t) {
    return PREFETCH * t->layout.step;
}

/* From many rows on each tile fetches its share of the next panel; below, the first one what it reads itself. */
INLINE bool is_far(const struct tile *t, size_t m) {
    (void)t;
    return m > MANY;
}

INLINE size_t fetch_tile(const struct tile *t, size_t i, size_t count, size_t m, size_t n) {
    (void)count, (void)n;
    return i == 0 && m <= MANY ? fetch_distance(t, 1) : 0;
}

#include "body/gemm_plain.h"

#endif
