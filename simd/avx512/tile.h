/* GEMM for AVX-512.
 *
 * Tile 14 x 32: 28 accumulators, two registers of B, one broadcast of A, 31 of 32 registers. Per step of k two loads
 * of B and 14 broadcasts feed 28 multiply-adds: 16 loads in the 14 cycles that two multiply-add pipes need. Each
 * accumulator is used again after 14 cycles, far above the latency of 4. Up to three rows take more registers of B
 * at once, across panels, so that there are eight chains or more. A panel is as wide as the tile: few rows wait for
 * memory, which answers soonest where what is read follows each other. */
#ifndef ATTN_AVX512_TILE_H
#define ATTN_AVX512_TILE_H

#include <stdint.h>

#include "vec.h"

#define GEMM_NAME "avx512_14x32"

enum { ROWS = 14, COLS = 32, WIDEST = 8, POINTERS = 4 };

/* Rows that pass over a panel of B, and how much of k they take at once: 512 KiB of A, a panel of 128 KiB and the
 * next one that is fetched meanwhile stay in an L2 of 1 MiB. On an Emerald Rapids blocks of 4096 take 1.17 times as
 * long in 512 x 4096 x 4096, because A then comes from L3 for every panel. */
enum { K_BLOCK = 1024, K_STEP = 1, ROW_BLOCK = 128 };

/* The rows of a tile where the rows of A lie a multiple of 4 KiB apart. Such rows share one set of L1, which has 12
 * lines, and B needs some of these. */
enum { ALIASED_ROWS = 10 };

/* The least k for which tiles fetch the next panel. A shorter panel ends before the prefetch pays. */
enum { FAR = 384 };

/* 48 KiB, which L1 holds, in floats. Of a B of at most this size the first line of each page is prefetched before
 * the product: the processor's own prefetcher stops at the end of a page. These are 12 lines of one cache set, all
 * that it has. */
enum { HOME_PAGES = 12 * 1024 };

/* Prefetch distances: AHEAD in floats of panels, for one and two rows; PREFETCH in rows or columns of B in place,
 * which the processor's own prefetcher does not follow where they lie far apart. */
enum { AHEAD = 256, PREFETCH = 32 };

/* Prefetch distances of three rows of A and more, in rows of a panel: FETCH_ROWS for up to two tiles of rows,
 * FETCH_TALL for more, FETCH_LONG where k is above SHORT. L1 holds a B of at most HOME floats, which needs no
 * prefetch; L2 holds a B of long panels below LARGE floats. */
enum { FETCH_ROWS = 64, FETCH_TALL = 16, FETCH_LONG = 32, HOME = 8192, LARGE = 1 << 18 };

/* Elements of columns in place that are transposed at a time. */
enum { DEPTH = 8 };

/* Rows fetched ahead of what is packed. */
enum { PACK_PREFETCH = 8 };

/* A product of at most FEW_ROWS rows takes as long as B takes to arrive, where L1 does not hold B. It then takes
 * FEW_WIDTH registers of B at a time: more streams arrive later. SHORT: the largest k of a short panel, which a key
 * is. */
enum { FEW_ROWS = 2, FEW_WIDTH = 4, SHORT = 256 };

/* A row's last register may have a tail in place, so that a row is read in one go. */
enum { TAILS_IN_PLACE = 1, TURN = 0 };

/* Which blocks of INT4 one row takes from two panels at once, see gemm_stored.c. */
#define INT4_WIDE INT4_ANY

#include "body/gemm.h"

/* The addresses of the current step of k. */
struct walk {
    const float *a[POINTERS], *b, *ahead;
};

INLINE struct walk walk_begin(const struct tile *t, const int rows) {
    struct walk w = {.b = t->b, .ahead = t->ahead};
    pointers(w.a, POINTERS, t->a, t->a_stride, rows);
    return w;
}

/* Register j of B. Only one that is alone may have a tail: a load under a mask takes a slot of the multiply-adds, of
 * which a tile of one register a row leaves half. */
INLINE vec load_b(const struct tile *t, struct layout layout, const struct walk *w, const int j, const int width) {
    return vec_load_tail(width == 1 ? t->b_tail : VEC_WHOLE, w->b + place(layout, (size_t)j));
}

/* One step of k: compile-time rows and registers of B, which may come from several panels or follow each other in a
 * row of B in place. The smaller side of the outer product stays in registers while the larger passes by. A prefetch
 * in every step costs nothing here (1.000 over 26 shapes), so that one loop serves. To L1: 1.02 times as fast as to
 * L2 over 28 shapes on Zen 5, 1.1 where 4 or 8 query rows read a cache. */
INLINE void tile_step(const struct tile *t, struct layout layout, struct walk *w, vec *acc, const int rows,
                      const int width) {
    size_t stride = t->a_stride;
    if (rows < width) {
        vec av[ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = vec_set(w->a[i / 4][(size_t)(i % 4) * stride]);
        UNROLL for (int j = 0; j < width; j++) {
            vec bv = load_b(t, layout, w, j, width);
            UNROLL for (int i = 0; i < rows; i++) acc[i * width + j] = vec_fma(av[i], bv, acc[i * width + j]);
        }
    } else {
        vec bv[WIDEST];
        UNROLL for (int j = 0; j < width; j++) bv[j] = load_b(t, layout, w, j, width);
        UNROLL for (int i = 0; i < rows; i++) {
            vec av = vec_set(w->a[i / 4][(size_t)(i % 4) * stride]);
            UNROLL for (int j = 0; j < width; j++) acc[i * width + j] = vec_fma(av, bv[j], acc[i * width + j]);
        }
    }
    UNROLL for (int j = 0; j < width; j++) vec_prefetch(w->ahead, place(layout, (size_t)j));
    UNROLL for (int q = 0; q < POINTERS; q++) w->a[q]++;
    w->b += layout.step;
    w->ahead += t->ahead_step;
}

INLINE void tile_run(const struct tile *t, const int rows, const int width) {
    vec acc[28];
    tile_begin(t, acc, rows, width, 0);
    struct walk w = walk_begin(t, rows);
    struct layout layout = t->layout;
    size_t k = t->k;
    for (size_t p = 0; p < k; p++)
        tile_step(t, layout, &w, acc, rows, width);
    tile_end(t, acc, rows, width, 0);
}

/* A tile over columns of B in place; rows and registers are compile-time constants. DEPTH elements of each column
 * are transposed into registers, and all rows of A use them. That takes 24 shuffles beside 8 multiply-adds a row.
 * The multiply-adds of a register are one chain, so two registers are twice as fast as one where there are few rows.
 * Each pass prefetches a share of the columns PREFETCH further on; over 16 elements, a cache line, every one of
 * these has had its turn. Where columns lie one behind the other (`dense`) it prefetches the next tile's in the
 * order of memory. */
INLINE void tile_columns_run(const struct tile *t, const int rows, const int width, const int dense) {
    vec acc[2 * ROWS];
    tile_begin(t, acc, rows, width, 0);
    const float *b = t->b, *a[POINTERS];
    size_t k = t->k, stride = t->a_stride, b_stride = t->b_stride;
    const float *next = b + (size_t)width * VEC_LANES * k;
    pointers(a, POINTERS, t->a, stride, rows);
    for (size_t p = 0; p < k; p += DEPTH, b += DEPTH, next += (size_t)width * VEC_LANES * DEPTH) {
        fetch_columns(b, b_stride, next, p, width, dense);
        UNROLL for (int j = 0; j < width; j++) {
            vec bv[DEPTH];
            vec_load_columns(b + (size_t)j * VEC_LANES * b_stride, b_stride, bv);
            __asm__("" : "+r"(stride)); /* else gcc keeps each of the addresses below on the stack */
            UNROLL for (int l = 0; l < DEPTH; l++) UNROLL for (int i = 0; i < rows; i++) acc[i * width + j] =
                vec_fma(vec_set(a[i / 4][(size_t)(i % 4) * stride + (size_t)l]), bv[l], acc[i * width + j]);
            if (rows > 1 && width > 1) /* else gcc keeps what it has read of A on the stack, for the next register */
                __asm__ volatile("" : : : "memory");
        }
        UNROLL for (int q = 0; q < POINTERS; q++) a[q] += DEPTH;
    }
    tile_end(t, acc, rows, width, 0);
}

/* X(rows, registers of the widest tile, registers of columns in place). The widest tiles have eight chains or more. */
#define UP_TO_7_ROWS(X) X(1, 8, 1) X(2, 4, 1) X(3, 4, 1) X(4, 4, 1) X(5, 4, 1) X(6, 4, 1) X(7, 2, 1)
#define EACH_ROW_COUNT(X)                                                                                              \
    UP_TO_7_ROWS(X) X(8, 2, 1) X(9, 2, 1) X(10, 2, 1) X(11, 2, 1) X(12, 2, 1) X(13, 2, 1) X(14, 2, 1)
#define COLUMNS_TILE(rows, width) ISA_FN(tile_columns_##rows##_##width##_8)

/* Whether the product takes as long as B takes to arrive. */
INLINE bool waits(size_t rows, size_t n, size_t k) {
    return rows <= FEW_ROWS && n * k > HOME_PAGES;
}

/* The prefetch distance, in floats, of products that do not wait for B. 0: no prefetch, for one and two rows and for
 * a B that a cache holds. Short panels without a gap between them (keys): the same row of the panels that are read
 * next. Panels with a gap (values) and long ones that L2 does not hold (weights): rows further on. For other long
 * panels the processor's own prefetcher is as good or better. */
INLINE size_t fetch_distance(const struct tile *t, size_t rows, size_t n, size_t vecs) {
    if (rows <= FEW_ROWS)
        return 0;
    if (t->k > SHORT)
        return n * t->k >= LARGE ? FETCH_LONG * t->layout.step : 0;
    if (n * t->k <= HOME)
        return 0;
    return t->layout.panel == t->k * COLS ? vecs * VEC_LANES * t->k : FETCH_ROWS * t->layout.step;
}

INLINE size_t fetch_few(const struct tile *t, size_t rows, size_t vecs, size_t n) {
    return waits(rows, n, t->k) ? AHEAD : fetch_distance(t, rows, n, vecs);
}

INLINE size_t fetch_in_place(const struct tile *t) {
    return PREFETCH * t->layout.step;
}

/* The registers of panels that a tile of few rows takes at most: from four rows on one panel has chains enough, and
 * two at a time arrive later (0.87 where 4 rows read a cache). In place a row is read in one go (1.2 for 4 rows). */
INLINE size_t widest_of(size_t widest, size_t rows, size_t k, size_t n) {
    return rows > 3 ? VECS : waits(rows, n, k) ? FEW_WIDTH : widest;
}

INLINE void fetch_block(const struct tile *t, const struct product *args) {
    if (args->n * t->k <= HOME_PAGES)
        fetch_pages(t->b, (args->n + COLS - 1) / COLS * t->layout.panel);
}

INLINE bool is_far(const struct tile *t, size_t m) {
    (void)m;
    return t->k >= FAR && t->layout.step == COLS;
}

INLINE size_t fetch_tile(const struct tile *t, size_t i, size_t count, size_t m, size_t n) {
    (void)i, (void)m;
    return count <= 2 ? fetch_distance(t, ROWS, n, VECS) : FETCH_TALL * t->layout.step;
}

#endif
