/* Tiles of pairs over B as floats, one row of a panel after the other: nothing is left to do beside multiply-adds.
 * Where many rows read a panel of pairs, the first tile leaves a stretch of it as such in the caller's memory. */
#ifndef ATTN_BODY_PAIRS_WIDE_H
#define ATTN_BODY_PAIRS_WIDE_H

/* Pairs that are widened at a time: 32 KiB, which rows read from L1 and L2. With half as many each element of C is
 * loaded and stored twice as often: 512x4096x4096 takes 1.09 times as long. */
enum { WIDE_BLOCK = 8192 / (2 * COLS) };

/* Rows fetched ahead of what is packed. */
enum { WIDE_FETCH = 8 };

/* Element n of each row from a on, times the row of B at b. */
INLINE void wide_step(const PAIR_A *const *a, size_t a_stride, const size_t n, const float *b, vec *acc,
                      const int rows) {
    vec bv[VECS];
    UNROLL for (int j = 0; j < VECS; j++) bv[j] = vec_load(b + j * VEC_LANES);
    UNROLL for (int i = 0; i < rows; i++) {
        vec av = vec_set(a[i / 4][(size_t)(i % 4) * a_stride + n]);
        UNROLL for (int j = 0; j < VECS; j++) {
            acc[i * VECS + j] = vec_fma(av, bv[j], acc[i * VECS + j]);
            vec_settle(acc[i * VECS + j]);
        }
    }
    __asm__ volatile("" : : : "memory"); /* else compilers start the next step early, and spill */
}

/* The half of a pair that is not there: +0 times +0. */
INLINE void wide_add_zero(vec *acc, const int rows) {
    vec zero = vec_zero();
    __asm__ volatile("" : "+x"(zero)); /* or it takes a register that the loop over pairs needs */
    UNROLL for (int i = 0; i < rows * VECS; i++) acc[i] = vec_add(acc[i], zero);
}

INLINE void wide_tile(const struct tile *t, const int rows) {
    vec acc[MOST_VECS];
    const PAIR_A *a[POINTERS];
    const float *b = t->b;
    size_t a_stride = t->a_stride, pairs = t->pairs;
    tile_begin(t, acc, rows, VECS);
    point_to_rows(a, t->a, a_stride, rows);
    if (t->first) {
        wide_step(a, a_stride, 0, b + COLS, acc, rows);
        wide_add_zero(acc, rows);
        UNROLL for (int q = 0; q < POINTERS; q++) a[q]++;
        b += 2 * COLS;
    }
    _Pragma("GCC unroll 2") for (; pairs > 0; pairs--, b += 2 * COLS) {
        wide_step(a, a_stride, 1, b + COLS, acc, rows);
        wide_step(a, a_stride, 0, b, acc, rows);
        UNROLL for (int q = 0; q < POINTERS; q++) a[q] += 2;
    }
    if (t->last) {
        wide_add_zero(acc, rows);
        wide_step(a, a_stride, 0, b, acc, rows);
    }
    tile_end(t, acc, rows, VECS);
}

#define WIDE_TILE_OF(rows, width)                                                                                      \
    static void ISA_FN(pairs_wide_##rows)(const struct tile *t) {                                                      \
        wide_tile(t, rows);                                                                                            \
    }
#define WIDE_ENTRY(rows, width) ISA_FN(pairs_wide_##rows),
EACH_ROW_COUNT(WIDE_TILE_OF)
static tile_function *const wide_tiles[ROWS] = {EACH_ROW_COUNT(WIDE_ENTRY)}; /* [rows - 1] */

/* `rows` rows over a panel, or over some that follow each other. */
static void ISA_FN(pairs_run_wide)(const struct tile *t, size_t rows, size_t cols) {
    struct tile panel;
    wide_tiles[rows - 1](t);
    if (cols <= COLS)
        return;
    panel = *t;
    for (size_t j = COLS; j < cols; j += COLS) {
        panel.b += panel.layout.panel;
        panel.bias = panel.bias ? panel.bias + COLS : NULL;
        panel.c = (float *)panel.c + COLS;
        wide_tiles[rows - 1](&panel);
    }
}

#endif
