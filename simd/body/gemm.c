/* GEMM around the tiles of tile.h: packing, and which tile takes which part of the product.
 *
 * A tile.h has tile_run and tile_columns_run, the list of tiles EACH_ROW_COUNT, and what it wants fetched ahead, to
 * which it gives these answers; gemm_plain.h has those of an ISA that wants nothing:
 *
 *     fetch_block      before a block of k, what comes first
 *     widest_of        registers that a tile of few rows takes at once
 *     fetch_few        before a tile of few rows, what it reads or what follows; the distance to what the tile fetches
 *     fetch_in_place   the same distance of rows in place
 *     is_far           whether tiles of many rows fetch the next panel
 *     fetch_tile       the distance for tile i of the `count` that read a panel
 *
 * Distances are in floats; 0: nothing is to be fetched. */
#include <stdint.h>
#include <string.h>

#include "tile.h"

#include "body/one_copy.h"
#include "body/panel.h"

/* Elements of columns in place that do not fill a transposition, in a panel. */
enum { PANEL_DEPTH = 24 };

/* Rows of A that lie a multiple of so many floats apart compete for the lines of one cache set. */
enum { ALIAS = 4096 / sizeof(float) };

/* ---- The tiles ---- */

enum { POWERS = 5 };

/* A tile for each number of rows and each power of two up to the widest. One that finds rows in place through other
 * addresses than panels has a twin for them (TWINS_IN_PLACE). One for columns in place. */
#ifdef TWINS_IN_PLACE
#define TILE(rows, width)                                                                                              \
    static void ISA_FN(tile_##rows##_##width)(const struct tile *t) {                                                  \
        tile_run(t, rows, width, 0);                                                                                   \
    }                                                                                                                  \
    static void ISA_FN(tile_rows_##rows##_##width)(const struct tile *t) {                                             \
        tile_run(t, rows, width, 1);                                                                                   \
    }
#define ROWS_ENTRY(rows, width) ISA_FN(tile_rows_##rows##_##width),
#else
#define TILE(rows, width)                                                                                              \
    static void ISA_FN(tile_##rows##_##width)(const struct tile *t) {                                                  \
        tile_run(t, rows, width);                                                                                      \
    }
#define ROWS_ENTRY(rows, width) ENTRY(rows, width)
#endif
#define ENTRY(rows, width) ISA_FN(tile_##rows##_##width),
#define UP_TO_2(X, rows)   X(rows, 1) X(rows, 2)
#define UP_TO_4(X, rows)   UP_TO_2(X, rows) X(rows, 4)
#define UP_TO_8(X, rows)   UP_TO_4(X, rows) X(rows, 8)
#define UP_TO_16(X, rows)  UP_TO_8(X, rows) X(rows, 16)

#define TILE_COLUMNS(rows, width)                                                                                      \
    static void COLUMNS_TILE(rows, width)(const struct tile *t) {                                                      \
        tile_columns_run(t, rows, width, 0);                                                                           \
    }
#define TILES(rows, widest, columns) UP_TO_##widest(TILE, rows) TILE_COLUMNS(rows, columns)
#define ENTRIES(rows, widest, columns)                                                                                 \
    {widest,                                                                                                           \
     {{UP_TO_##widest(ENTRY, rows)}, {UP_TO_##widest(ROWS_ENTRY, rows)}},                                              \
     columns * VEC_LANES,                                                                                              \
     COLUMNS_TILE(rows, columns)},
EACH_ROW_COUNT(TILES)
static const struct {
    size_t widest;
    tile_function *run[2][POWERS]; /* [in place][log2(width)] */
    size_t columns;
    tile_function *run_columns;
} tiles[ROWS] = {EACH_ROW_COUNT(ENTRIES)};

/* ---- Packed ---- */

/* Where nothing is to be scaled. */
static const float ones[ATTN_MAX_ROWS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                          1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

/* Of a tile from row i on, whose chains go on at p. */
INLINE const float *first_scale(const struct product *args, size_t i, size_t p) {
    if (p > 0)
        return ones;
    return !args->accumulate ? NULL : args->scale ? args->scale + i : ones;
}

/* Of the tile `rows` further on. */
INLINE const float *next_scale(const float *scale, size_t rows) {
    return scale && scale != ones ? scale + rows : scale;
}

/* How many steps from p on go together. */
INLINE size_t steps(const struct product *args, size_t p, size_t most) {
    return args->k - p < most ? args->k - p : most;
}

/* What tile t fetches while it reads: what lies `distance` floats further on. */
INLINE void fetch_at(struct tile *t, size_t distance) {
    t->ahead = t->b + distance;
    t->ahead_step = t->layout.step;
}

/* One row tile over n of a product's `all` columns: in the widest tiles, then in narrower ones. Where a tile begins
 * within a panel it ends there. */
INLINE void row_tile(struct tile *t, size_t rows, size_t n, size_t all, const int in_place) {
    tile_function *const *run = tiles[rows - 1].run[in_place];
    const float *b = t->b, *bias = t->bias;
    float *c = t->c;
    size_t width = in_place ? tiles[rows - 1].widest : widest_of(tiles[rows - 1].widest, rows, t->k, all);
    for (size_t j = 0, cols; j < n; j += cols) {
        size_t whole = (n - j) / VEC_LANES, vecs = (n - j + VEC_LANES - 1) / VEC_LANES;
        if (in_place && whole > 0) /* what does not fill a register is a tile of its own */
            vecs = whole;
        while (width > vecs)
            width /= 2;
        cols = width * VEC_LANES < n - j ? width * VEC_LANES : n - j;
        t->b = b + place(t->layout, j / VEC_LANES);
        t->bias = bias ? bias + j : NULL;
        t->c = c + j;
        t->tail = vec_tail_of(cols - (width - 1) * VEC_LANES);
        if (in_place)
            t->b_tail = t->tail;
        fetch_at(t, in_place ? fetch_in_place(t) : fetch_few(t, rows, width, all));
        run[__builtin_ctz((unsigned)width)](t);
    }
}

/* Rows in tiles of nearly equal height, the first of them one row taller. */
struct tiling {
    size_t count, height, taller;
};

/* At most ROW_BLOCK rows. Divisors are constants and numbers short: a division of others takes 20 cycles. */
INLINE struct tiling tiling_of(size_t m, size_t a_stride) {
    unsigned rows = (unsigned)m;
    unsigned count = a_stride % ALIAS ? (rows + ROWS - 1) / ROWS : (rows + ALIASED_ROWS - 1) / ALIASED_ROWS;
    return (struct tiling){count, rows / count, rows % count};
}

/* On to the tile below. */
INLINE void go_down(struct tile *t, size_t rows) {
    t->a += rows * t->a_stride;
    t->c += rows * t->c_stride;
    t->scale = next_scale(t->scale, rows);
}

/* Back to the first of the m rows. A copy of the tile's place instead waits for the stores of what it copies: 30 cycles
 * for each panel. */
INLINE void go_up(struct tile *t, size_t m) {
    t->a -= m * t->a_stride;
    t->c -= m * t->c_stride;
    t->scale = t->scale && t->scale != ones ? t->scale - m : t->scale;
}

/* A panel's columns over all m rows. Where the next panel is far each tile fetches its share of it, and what the
 * next tile starts from. */
static void ISA_FN(gemm_panel)(struct tile *t, const struct tiling *tiling, size_t m, size_t n) {
    size_t count = tiling->count, far_step = is_far(t, m) ? (COLS + count - 1) / count : 0;
    const float *far = t->b + t->layout.panel;
    t->tail = VEC_WHOLE;
    for (size_t i = 0; i < count; i++) {
        size_t rows = tiling->height + (i < tiling->taller);
        fetch_at(t, fetch_tile(t, i, count, m, n));
        if (far_step > 0) {
            t->ahead = far + i * far_step * t->k;
            t->ahead_step = far_step;
        }
        for (size_t r = rows; far_step > 0 && t->scale && r < 2 * rows; r++)
            UNROLL for (size_t v = 0; v < COLS; v += LINE) vec_prefetch_l2(t->c + r * t->c_stride + v);
        tiles[rows - 1].run[0][__builtin_ctz(VECS)](t);
        go_down(t, rows);
    }
    go_up(t, m);
}

/* The last `cols` columns, fewer than a panel has. */
static void ISA_FN(gemm_last_columns)(struct tile t, const struct tiling *tiling, size_t cols, size_t n) {
    for (size_t i = 0; i < tiling->count; i++) {
        size_t rows = tiling->height + (i < tiling->taller);
        struct tile tile = t;
        row_tile(&tile, rows, cols, n, 0);
        go_down(&t, rows);
    }
}

static void ISA_FN(gemm_block)(const struct product *args, size_t i, size_t m, size_t p, size_t k) {
    struct tile t = {.k = k,
                     .a = args->a + i * args->a_stride + p,
                     .a_stride = args->a_stride,
                     .layout = layout_of(args->panel_stride, args->narrow),
                     .bias = args->bias,
                     .scale = first_scale(args, i, p),
                     .c = args->c + i * args->c_stride,
                     .c_stride = args->c_stride,
                     .b_tail = VEC_WHOLE};
    t.b = args->b + p * t.layout.step;
    fetch_block(&t, args);
    if (m <= ROWS) {
        row_tile(&t, m, args->n, args->n, 0);
        return;
    }
    struct tiling tiling = tiling_of(m, t.a_stride);
    for (size_t j = 0; j < args->n; j += COLS) {
        if (args->n - j < COLS)
            ISA_FN(gemm_last_columns)(t, &tiling, args->n - j, args->n);
        else
            ISA_FN(gemm_panel)(&t, &tiling, m, args->n);
        t.b += t.layout.panel;
        t.bias = t.bias ? t.bias + COLS : NULL;
        t.c += COLS;
    }
}

/* The part of `total` that each pass takes: nearly equal ones of at most `most`; at least 1. */
INLINE size_t share(size_t total, size_t most) {
    if (total <= most) /* as it mostly is: two divisions less */
        return total ? total : 1;
    size_t parts = (total + most - 1) / most;
    return (total + parts - 1) / parts;
}

static void ISA_FN(gemm_multiply)(const struct product *args) {
    size_t rows = share(args->m, ROW_BLOCK), depth = args->k;
    if (args->m > ROWS)
        depth = (share(args->k, K_BLOCK) + K_STEP - 1) / K_STEP * K_STEP;
    for (size_t i = 0; i < args->m; i += rows) {
        size_t m = args->m - i < rows ? args->m - i : rows, p = 0;
        do {
            size_t k = args->k - p < depth ? args->k - p : depth;
            ISA_FN(gemm_block)(args, i, m, p, k);
            p += k;
        } while (p < args->k);
    }
}

/* ---- Packing ---- */

/* What is packed may be pairs of smaller elements, which have their alignment. */
INLINE float load_unit(const float *b) {
    float x;
    memcpy(&x, b, sizeof x);
    return x;
}

/* `cols` columns of a row, then the last one again. */
INLINE vec columns_from(const float *b, size_t cols) {
    if (cols >= VEC_LANES)
        return vec_load(b);
    return vec_select(vec_lanes(0, cols), vec_load_first(cols, b), vec_set(load_unit(b + cols - 1)));
}

/* k rows of b that lie contiguous: compile-time registers at a time, the last of `cols` columns. */
INLINE void pack_rows(const struct packing *args, struct layout layout, size_t j, size_t cols, const int vecs) {
    const float *b = args->b + j;
    float *packed = args->packed + place(layout, j / VEC_LANES);
    const size_t width = (size_t)vecs * VEC_LANES;
    for (size_t p = 0; p < args->k; p++, b += args->k_stride, packed += layout.step) {
        if (PACK_PREFETCH)
            UNROLL for (size_t i = 0; i < width; i += LINE) vec_prefetch(b, PACK_PREFETCH * args->k_stride + i);
        UNROLL for (int v = 0; v < vecs; v++) vec_store(
            packed + place(layout, (size_t)v), columns_from(b + v * VEC_LANES, v == vecs - 1 ? cols : VEC_LANES));
    }
}

/* A register's worth of columns of which there is none: the last one. */
static void ISA_FN(gemm_pack_last)(const struct packing *args, struct layout layout, size_t j) {
    const float *b = args->b + (args->n - 1) * args->n_stride;
    float *packed = args->packed + place(layout, j / VEC_LANES);
    for (size_t p = 0; p < args->k; p++)
        vec_store(packed + p * layout.step, vec_set(load_unit(b + p * args->k_stride)));
}

/* A register's columns that lie contiguous, DEPTH elements of each at a time, and of those that come 16 columns
 * later a line each in 16 elements. Returns how many elements are done. */
static size_t ISA_FN(gemm_pack_whole_columns)(const struct packing *args, const float *b, float *packed, size_t step) {
    const size_t turns = VEC_LANES * DEPTH / LINE;
    size_t p = 0;
    for (; p + DEPTH <= args->k; p += DEPTH) {
        vec r[DEPTH];
        if (PACK_PREFETCH)
            UNROLL for (size_t i = 0; i < turns; i++)
                vec_prefetch(b + p, (LINE + p % LINE / DEPTH * turns + i) * args->n_stride);
        vec_load_columns(b + p, args->n_stride, r);
        UNROLL for (size_t i = 0; i < DEPTH; i++) vec_store(packed + (p + i) * step, r[i]);
    }
    return p;
}

/* The same where there may be fewer columns or elements: VEC_LANES of each transposed at a time. */
static void ISA_FN(gemm_pack_columns)(const struct packing *args, struct layout layout, size_t j, size_t cols) {
    const float *b = args->b + j * args->n_stride;
    float *packed = args->packed + place(layout, j / VEC_LANES);
    size_t p = cols == VEC_LANES ? ISA_FN(gemm_pack_whole_columns)(args, b, packed, layout.step) : 0;
    for (; p < args->k; p += VEC_LANES) {
        size_t depth = args->k - p < VEC_LANES ? args->k - p : VEC_LANES;
        vec r[VEC_LANES];
        UNROLL for (size_t i = 0; i < VEC_LANES; i++) r[i] =
            vec_load_first(depth, b + (i < cols ? i : cols - 1) * args->n_stride + p);
        vec_transpose(r);
        UNROLL for (size_t i = 0; i < VEC_LANES; i++) if (i < depth) vec_store(packed + (p + i) * layout.step, r[i]);
    }
}

static void ISA_FN(gemm_pack_any)(const struct packing *args, struct layout layout, size_t j, size_t cols) {
    float *packed = args->packed + place(layout, j / VEC_LANES);
    for (size_t p = 0; p < args->k; p++)
        for (size_t i = 0; i < VEC_LANES; i++)
            packed[p * layout.step + i] =
                load_unit(args->b + p * args->k_stride + (j + (i < cols ? i : cols - 1)) * args->n_stride);
}

static ONE_COPY void ISA_FN(gemm_pack_panels)(const struct packing *args) {
    struct layout layout = layout_of(args->panel_stride, args->narrow);
    size_t j = 0;
    for (; args->n_stride == 1 && j + 8 * VEC_LANES <= args->n; j += 8 * VEC_LANES)
        pack_rows(args, layout, j, VEC_LANES, 8);
    for (; args->n_stride == 1 && j + 4 * VEC_LANES <= args->n; j += 4 * VEC_LANES)
        pack_rows(args, layout, j, VEC_LANES, 4);
    for (; args->n_stride == 1 && j + 2 * VEC_LANES <= args->n; j += 2 * VEC_LANES)
        pack_rows(args, layout, j, VEC_LANES, 2);
    for (; j < args->n; j += VEC_LANES) {
        size_t cols = args->n - j < VEC_LANES ? args->n - j : VEC_LANES;
        if (args->n_stride == 1)
            pack_rows(args, layout, j, cols, 1);
        else if (args->k_stride == 1)
            ISA_FN(gemm_pack_columns)(args, layout, j, cols);
        else
            ISA_FN(gemm_pack_any)(args, layout, j, cols);
    }
    for (; j % layout.step; j += VEC_LANES) /* what the last panel has beyond */
        ISA_FN(gemm_pack_last)(args, layout, j);
}

/* ---- In place ---- */

/* n columns from j on, at most a panel's, their elements from p on, which lie k_stride apart: what does not fill
 * registers. */
static __attribute__((noinline)) void ISA_FN(gemm_multiply_through_panel)(const struct product *args, size_t j,
                                                                          size_t n, size_t p, size_t k_stride,
                                                                          size_t n_stride) {
    float panel[PANEL_DEPTH * COLS];
    do {
        struct tile t = {.k = steps(args, p, PANEL_DEPTH),
                         .a = args->a + p,
                         .a_stride = args->a_stride,
                         .b = panel,
                         .layout = layout_of(PANEL_DEPTH * COLS, 0),
                         .bias = args->bias ? args->bias + j : NULL,
                         .scale = first_scale(args, 0, p),
                         .c = args->c + j,
                         .c_stride = args->c_stride,
                         .b_tail = VEC_WHOLE};
        ISA_FN(gemm_pack_panels)
        (&(struct packing){.k = t.k,
                           .n = n,
                           .b = args->b + p * k_stride + j * n_stride,
                           .k_stride = k_stride,
                           .n_stride = n_stride,
                           .packed = panel,
                           .panel_stride = PANEL_DEPTH * COLS});
        p += t.k;
        row_tile(&t, args->m, n, n, 0);
    } while (p < args->k);
}

/* Where one tile is not as wide as a row, TURN rows at a time: what was fetched with them waits in L1 for the next
 * tile. */
static void ISA_FN(gemm_multiply_rows)(const struct product *args) {
    size_t n = TAILS_IN_PLACE ? args->n : args->n / VEC_LANES * VEC_LANES, p = 0;
    bool turns = TURN > 0 && n > tiles[args->m - 1].widest * VEC_LANES;
    do {
        struct tile t = {.k = turns ? steps(args, p, TURN) : args->k,
                         .a = args->a + p,
                         .a_stride = args->a_stride,
                         .b = args->b + p * args->b_stride,
                         .layout = layout_in_place(args->b_stride),
                         .bias = args->bias,
                         .scale = first_scale(args, 0, p),
                         .c = args->c,
                         .c_stride = args->c_stride};
        p += t.k;
        row_tile(&t, args->m, n, n, 1);
    } while (p < args->k);
    if (n < args->n)
        ISA_FN(gemm_multiply_through_panel)(args, n, args->n - n, 0, args->b_stride, 1);
}

static void ISA_FN(gemm_multiply_columns)(const struct product *args) {
    size_t least = tiles[args->m - 1].columns, k = args->k / DEPTH * DEPTH, j = 0;
    for (; args->n - j >= least; j += least) {
        if (k > 0 || args->k == 0)
            tiles[args->m - 1].run_columns(&(struct tile){.k = k,
                                                          .a = args->a,
                                                          .a_stride = args->a_stride,
                                                          .b = args->b + j * args->b_stride,
                                                          .b_stride = args->b_stride,
                                                          .bias = args->bias ? args->bias + j : NULL,
                                                          .scale = first_scale(args, 0, 0),
                                                          .c = args->c + j,
                                                          .c_stride = args->c_stride,
                                                          .tail = VEC_WHOLE});
        if (k < args->k)
            ISA_FN(gemm_multiply_through_panel)(args, j, least, k, 1, args->b_stride);
    }
    if (j < args->n)
        ISA_FN(gemm_multiply_through_panel)(args, j, args->n - j, 0, 1, args->b_stride);
}

/* ---- The kernel ---- */

INLINE struct product product_of(const struct attn_gemm_args *args) {
    return (struct product){.m = args->m,
                            .n = args->n,
                            .k = args->k,
                            .a = args->a,
                            .a_stride = args->a_stride / sizeof(float),
                            .bias = args->start == ATTN_START_BIAS ? args->factors : NULL,
                            .accumulate = args->start == ATTN_START_C || args->start == ATTN_START_SCALE,
                            .scale = args->start == ATTN_START_SCALE ? args->factors : NULL,
                            .c = args->c,
                            .c_stride = args->c_stride / sizeof(float)};
}

/* Where row `row` lies of the panel that has that column. */
INLINE float *panel_at(const struct attn_panels *panels, size_t row, size_t column) {
    return (float *)panels->data + panel_number(panels, column) * (panels->stride / sizeof(float)) + row * panels->cols;
}

static void ISA_FN(gemm_run)(const struct attn_gemm_args *args) {
    struct product product = product_of(args);
    product.b = panel_at(&args->b, args->row, args->column);
    product.panel_stride = args->b.stride / sizeof(float);
    product.narrow = args->b.cols < COLS;
    ISA_FN(gemm_multiply)(&product);
}

/* In place tiles take all rows of a product at once. */
INLINE void each_tile(const struct attn_gemm_args *args, void (*multiply)(const struct product *)) {
    struct product product = product_of(args);
    product.b = args->b.data;
    product.b_stride = args->b.stride / sizeof(float);
    for (size_t rows = args->m; rows > 0; rows -= product.m) {
        product.m = rows < ROWS ? rows : ROWS;
        multiply(&product);
        product.a += product.m * product.a_stride;
        product.c += product.m * product.c_stride;
        product.scale = product.scale ? product.scale + product.m : NULL;
    }
}

static void ISA_FN(gemm_run_rows)(const struct attn_gemm_args *args) {
    each_tile(args, ISA_FN(gemm_multiply_rows));
}

static void ISA_FN(gemm_run_columns)(const struct attn_gemm_args *args) {
    each_tile(args, ISA_FN(gemm_multiply_columns));
}

/* Up to the end of the panel to which `column` belongs. Returns how many columns are done. */
static size_t ISA_FN(gemm_pack_beside)(const struct attn_pack_args *args) {
    const struct attn_panels *packed = &args->packed;
    size_t first = args->column % packed->cols, left = packed->cols - first, n = args->n < left ? args->n : left;
    float *panel = panel_at(packed, args->row, args->column) + first;
    const float *b = args->b;
    for (size_t j = 0; j < n; j++)
        for (size_t p = 0; p < args->k; p++)
            panel[p * packed->cols + j] = b[(p * args->k_stride + j * args->n_stride) / sizeof(float)];
    return n;
}

static void ISA_FN(gemm_pack)(const struct attn_pack_args *args) {
    size_t done = args->column % args->packed.cols ? ISA_FN(gemm_pack_beside)(args) : 0;
    if (done == args->n)
        return;
    ISA_FN(gemm_pack_panels)
    (&(struct packing){.k = args->k,
                       .n = args->n - done,
                       .b = (const float *)args->b + done * args->n_stride / sizeof(float),
                       .k_stride = args->k_stride / sizeof(float),
                       .n_stride = args->n_stride / sizeof(float),
                       .packed = panel_at(&args->packed, args->row, args->column + done),
                       .panel_stride = args->packed.stride / sizeof(float),
                       .narrow = args->packed.cols < COLS});
}

static int ISA_FN(gemm_finite)(const struct attn_panels *b, size_t row, size_t k, size_t n) {
    for (size_t j = 0; j < n; j += b->cols)
        if (!ISA_OBJECT(attention).all_finite(panel_at(b, row, j), k * b->cols))
            return 0;
    return 1;
}

const struct attn_gemm_kernel ISA_OBJECT(gemm_f32) = {.name = GEMM_NAME,
                                                      .arithmetic = ATTN_CLASS_F32,
                                                      .b = {.cols = COLS, .k_unit = 1},
                                                      .rows = ROWS,
                                                      .pack = ISA_FN(gemm_pack),
                                                      .finite = ISA_FN(gemm_finite),
                                                      .run = ISA_FN(gemm_run),
                                                      .run_rows = ISA_FN(gemm_run_rows),
                                                      .run_columns = ISA_FN(gemm_run_columns)};
