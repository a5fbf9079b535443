/* The loops over the tiles of a product.
 *
 * A class says before it includes this, beside what gemm_tiles.h asks for:
 *
 *     struct tile                          bias, which may be NULL, c, c_stride and fetch are looked at
 *     tile_run(t, rows, width)             compile-time rows and registers, every column there
 *     run_tile(t, run, rows, cols)         calls that for a tile of so many rows and columns
 *     tile_starts_from_c(t)                whether it reads c
 *     tile_leave_columns(t, cols)          to the tile: only so many are there. Where TAILS, the others are not touched
 *     tile_go_down(t, rows)                on to the rows below
 *     struct product
 *     tile_place(t, product, i, j)         the tile to row i and column j, with the prefetch distance of many rows
 *     product_begin(product), product_go_on(product)
 *                                          takes the first rows of B, and the next ones, or returns false
 *     MOST_ROWS_OF(product)                rows of the largest tile that it takes; where there is none, MOST_ROWS
 *     AHEAD                                what few rows fetch
 *     TAILS                                1 where loads and stores of the first lanes are as fast as whole ones
 *     EACH_WIDE_TILE(X)                    X(rows, registers): tiles of FEW_ROWS over several panels
 *     ONE_ROW_TILES(X), TWO_ROW_TILES(X)   those of one row, and of two, widest first; last the tile of one panel.
 *                                          These three where there are others than below */
#ifndef ATTN_BODY_GEMM_LOOPS_H
#define ATTN_BODY_GEMM_LOOPS_H

#include "body/gemm_tiles.h"

#ifndef MOST_ROWS_OF
#define MOST_ROWS_OF(product) MOST_ROWS
#endif

#ifndef EACH_WIDE_TILE
#define EACH_WIDE_TILE(X) X(1, 8) X(1, 4) X(2, 4)
#define ONE_ROW_TILES(X)  X(1, 8) X(1, 4) X(1, 2)
#define TWO_ROW_TILES(X)  X(2, 4) X(2, 2)
#endif

#define TILE(rows, width)                                                                                              \
    static void TILES_FN(rows##_##width)(const struct tile *t) {                                                       \
        tile_run(t, rows, width);                                                                                      \
    }
EACH_TILE(TILE)
EACH_WIDE_TILE(TILE)
#define ENTRY(rows, width) TILES_FN(rows##_##width),
static tile_function *const tiles[MOST_ROWS] = {EACH_TILE(ENTRY)}; /* [rows - 1] */

enum { WIDTHS = 3 };

/* [rows - 1]. */
#define WIDE_TILE(rows, width) {TILES_FN(rows##_##width), width * VEC_LANES},
static const struct wide_tile {
    tile_function *run;
    size_t cols;
} few[FEW_ROWS][WIDTHS] = {{ONE_ROW_TILES(WIDE_TILE)}, {TWO_ROW_TILES(WIDE_TILE)}};

/* The last columns, fewer than a tile has: where there are no TAILS, in memory of a tile's width. */
static __attribute__((noinline)) void TILES_FN(last_columns)(struct tile *t, size_t rows, size_t cols) {
    tile_leave_columns(t, cols);
    if (TAILS) {
        run_tile(t, tiles[rows - 1], rows, COLS);
        return;
    }
    float c[MOST_ROWS * COLS], bias[COLS] = {0}, *to = t->c;
    const float *given = t->bias;
    size_t stride = t->c_stride;
    if (tile_starts_from_c(t)) {
        memset(c, 0, rows * COLS * sizeof *c);
        for (size_t i = 0; i < rows; i++)
            memcpy(c + i * COLS, to + i * stride, cols * sizeof *c);
    }
    if (given) {
        memcpy(bias, given, cols * sizeof *bias);
        t->bias = bias;
    }
    t->c = c;
    t->c_stride = COLS;
    run_tile(t, tiles[rows - 1], rows, COLS);
    for (size_t i = 0; i < rows; i++)
        memcpy(to + i * stride, c + i * COLS, cols * sizeof *c);
    t->bias = given;
    t->c = to;
    t->c_stride = stride;
}

/* A panel, of which so many columns are there. */
INLINE void run_panel(struct tile *t, size_t rows, size_t cols) {
    if (cols < COLS)
        TILES_FN(last_columns)(t, rows, cols);
    else
        run_tile(t, tiles[rows - 1], rows, COLS);
}

/* `rows` rows over all columns. */
static void TILES_FN(rows)(const struct product *product, size_t i, size_t rows) {
    size_t n = product->args->n, j = 0;
    struct tile t;
    for (size_t w = 0; rows <= FEW_ROWS && w < WIDTHS && few[rows - 1][w].run; w++)
        for (const struct wide_tile *wide = &few[rows - 1][w]; j + wide->cols <= n; j += wide->cols) {
            tile_place(&t, product, i, j);
            t.fetch = AHEAD;
            run_tile(&t, wide->run, rows, wide->cols);
        }
    for (; j < n; j += COLS) {
        tile_place(&t, product, i, j);
        run_panel(&t, rows, n - j);
    }
}

/* Tiles of nearly equal height, the first of them one row taller. */
struct tiling {
    size_t count, height, taller;
};

/* A panel's `cols` columns in all tiles, from t down. */
static void TILES_FN(panel)(struct tile *t, const struct tiling *tiling, size_t cols) {
    for (size_t i = 0; i < tiling->count; i++) {
        size_t rows = tiling->height + (i < tiling->taller);
        run_panel(t, rows, cols);
        tile_go_down(t, rows);
    }
}

/* m rows, a panel after the other. */
static void TILES_FN(block)(const struct product *product, size_t i, size_t m) {
    size_t most = MOST_ROWS_OF(product), count = (m + most - 1) / most, n = product->args->n;
    struct tiling tiling = {count, m / count, m % count};
    if (count == 1) {
        TILES_FN(rows)(product, i, m);
        return;
    }
    struct tile t;
    for (size_t j = 0; j < n; j += COLS) {
        tile_place(&t, product, i, j);
        TILES_FN(panel)(&t, &tiling, n - j);
    }
}

static void TILES_FN(multiply)(struct product *product) {
    size_t m = product->args->m, rows = share(m, ROW_BLOCK);
    for (size_t i = 0; i < m; i += rows) {
        product_begin(product);
        do
            TILES_FN(block)(product, i, m - i < rows ? m - i : rows);
        while (product_go_on(product));
    }
}

#endif
