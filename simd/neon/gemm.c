/* GEMM for NEON.
 *
 * Tile 6 x 16: 24 accumulators, six registers of A, each four steps of k, one of B, 31 of 32 registers. Per four steps 6 loads
 * of A and 16 of B feed 96 multiply-adds by lane: 22 loads in the 48 cycles that two multiply-add pipes need, or the 24 of
 * four. (A broadcast by ld1r would take a vector pipe as well.) Each accumulator is used again after 12 or 6 cycles, above
 * the latency of 4. Fewer rows take more registers of B at once, across panels, so that 16 chains or more are in
 * flight: 1 x 64, 2 x 56, 3 x 36, 4 x 24, 5 x 20. */
#include "body/objects.h"

enum { ROWS = 6, COLS = 16, VECS = COLS / VEC_LANES, MAX_WIDTH = 16 };

/* B's panel block of 256 x 16 floats is 16 KiB: it stays in the smallest L1 while the rows pass; rows x 256 floats of A stay
 * in L2. */
enum { K_BLOCK = 256, ROW_BLOCK = 240 };

/* Rows or columns in place that are fetched ahead: the processor does not foresee them where they lie far apart. */
enum { PREFETCH = 16, LINE = 16 };

/* Elements of columns in place that are transposed at a time; of those that do not fill a transposition, in a panel. */
enum { DEPTH = 4, PANEL_DEPTH = 64 };

/* A tile's place: rows from a and c, columns from b; the last register of each row ends at `tail` lanes. */
struct tile {
    size_t k;
    const float *a;
    size_t a_stride;
    const float *b;
    size_t b_stride; /* from panel to panel; in place from row to row or from column to column */
    const float *bias;
    const float *scale; /* NULL, or what c, from which the chains then start, is multiplied by in each row */
    float *c;
    size_t c_stride;
    size_t tail;
};

/* Where the chains start: compile-time rows and registers. */
INLINE void tile_begin(const struct tile *t, size_t tail, vec *acc, const int rows, const int width) {
    UNROLL for (int j = 0; j < width; j++) {
        size_t lanes = j == width - 1 ? tail : VEC_LANES;
        vec start = t->bias ? vec_load_first(lanes, t->bias + j * VEC_LANES) : vec_zero();
        UNROLL for (int i = 0; i < rows; i++) acc[i * width + j] = start;
    }
    if (t->scale) {
        UNROLL for (int i = 0; i < rows; i++) {
            const float *c = t->c + (size_t)i * t->c_stride;
            vec scale = vec_set(t->scale[i]);
            UNROLL for (int j = 0; j < width - 1; j++) acc[i * width + j] = vec_mul(vec_load(c + j * VEC_LANES), scale);
            acc[i * width + width - 1] = vec_mul(vec_load_first(tail, c + (width - 1) * VEC_LANES), scale);
        }
    }
}

INLINE void tile_end(const struct tile *t, size_t tail, const vec *acc, const int rows, const int width) {
    float *c = t->c;
    size_t c_stride = t->c_stride;
    UNROLL for (int i = 0; i < rows; i++, c += c_stride) {
        UNROLL for (int j = 0; j < width - 1; j++) vec_store(c + j * VEC_LANES, acc[i * width + j]);
        vec_store_first(tail, c + (width - 1) * VEC_LANES, acc[i * width + width - 1]);
    }
}

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
INLINE void tile_run(const struct tile *t, const int rows, const int width, const int in_place) {
    size_t tail = in_place ? VEC_LANES : t->tail;
    vec acc[28];
    tile_begin(t, tail, acc, rows, width);
    const float *a = t->a, *b[4];
    const int pointers = in_place ? 4 : (width + VECS - 1) / VECS;
    size_t k = t->k, p = 0, stride = t->a_stride, step = in_place ? t->b_stride : COLS;
    UNROLL for (int q = 0; q < pointers; q++) b[q] = t->b + (size_t)q * t->b_stride;
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
    tile_end(t, tail, acc, rows, width);
}

/* Element `lane` of the four in bv, of register j. */
#define COLUMNS_STEP(lane)                                                                                             \
    UNROLL for (int i = 0; i < rows; i++) vec_fma_lane(acc[i * width + j], bv[lane], av[i], lane);

/* Compile-time rows and registers of columns in place, DEPTH elements of each at a time: transposed they stay in registers
 * while the rows of A pass by. That takes 8 shuffles a register next to 4 multiply-adds a row. Meanwhile a line of some columns
 * further on is fetched, so that in 16 elements it is the turn of each. */
INLINE void tile_columns_run(const struct tile *t, const int rows, const int width) {
    vec acc[16];
    tile_begin(t, VEC_LANES, acc, rows, width);
    const float *a = t->a, *b = t->b;
    const size_t turns = (size_t)width * VEC_LANES * DEPTH / LINE;
    size_t k = t->k, stride = t->a_stride, b_stride = t->b_stride;
    for (size_t p = 0; p < k; p += DEPTH, a += DEPTH, b += DEPTH) {
        size_t turn = PREFETCH + p % LINE / DEPTH * turns;
        UNROLL for (size_t i = 0; i < turns; i++) vec_prefetch(b, (turn + i) * b_stride);
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
    tile_end(t, VEC_LANES, acc, rows, width);
}

typedef void tile_function(const struct tile *t);

/* A tile for each number of rows and each width up to the widest whose accumulators, A and one more register fit in 32, or
 * four panels; one for columns in place. */
#define TILE(rows, width)                                                                                              \
    static void tile_##rows##_##width(const struct tile *t) {                                                          \
        tile_run(t, rows, width, 0);                                                                                   \
    }                                                                                                                  \
    static void tile_rows_##rows##_##width(const struct tile *t) {                                                     \
        tile_run(t, rows, width, 1);                                                                                   \
    }
#define TILE_COLUMNS(rows, width)                                                                                      \
    static void tile_columns_##rows##_##width##_4(const struct tile *t) {                                              \
        tile_columns_run(t, rows, width);                                                                              \
    }
#define ENTRY(rows, width)           tile_##rows##_##width,
#define ROWS_ENTRY(rows, width)      tile_rows_##rows##_##width,
#define UP_TO_2(X, rows)             X(rows, 1) X(rows, 2)
#define UP_TO_3(X, rows)             UP_TO_2(X, rows) X(rows, 3)
#define UP_TO_4(X, rows)             UP_TO_3(X, rows) X(rows, 4)
#define UP_TO_5(X, rows)             UP_TO_4(X, rows) X(rows, 5)
#define UP_TO_6(X, rows)             UP_TO_5(X, rows) X(rows, 6)
#define UP_TO_9(X, rows)             UP_TO_6(X, rows) X(rows, 7) X(rows, 8) X(rows, 9)
#define UP_TO_14(X, rows)            UP_TO_9(X, rows) X(rows, 10) X(rows, 11) X(rows, 12) X(rows, 13) X(rows, 14)
#define UP_TO_16(X, rows)            UP_TO_14(X, rows) X(rows, 15) X(rows, 16)
#define EACH_ROW_COUNT(X)            X(1, 16, 4) X(2, 14, 4) X(3, 9, 4) X(4, 6, 4) X(5, 5, 2) X(6, 4, 2)

#define TILES(rows, widest, columns) UP_TO_##widest(TILE, rows) TILE_COLUMNS(rows, columns)
#define ENTRIES(rows, widest, columns)                                                                                 \
    {widest,                                                                                                           \
     {UP_TO_##widest(ENTRY, rows)},                                                                                    \
     {UP_TO_##widest(ROWS_ENTRY, rows)},                                                                               \
     columns * VEC_LANES,                                                                                              \
     tile_columns_##rows##_##columns##_4},
EACH_ROW_COUNT(TILES)
static const struct {
    size_t widest;
    tile_function *run[MAX_WIDTH], *run_rows[MAX_WIDTH];
    size_t columns;
    tile_function *run_columns;
} tiles[ROWS] = {EACH_ROW_COUNT(ENTRIES)};

/* Where nothing is to be scaled. */
static const float ones[ROWS] = {1, 1, 1, 1, 1, 1};

/* Of a tile from row i on, whose chains go on at p. */
static const float *first_scale(const struct attn_gemm_args *args, size_t i, size_t p) {
    if (p > 0)
        return ones;
    return !args->accumulate ? NULL : args->scale ? args->scale + i : ones;
}

/* Of the tile `rows` further on. */
static const float *next_scale(const float *scale, size_t rows) {
    return scale && scale != ones ? scale + rows : scale;
}

/* One row tile over n columns: as many registers at once as fit, in whole panels but for the last. The last two steps share
 * what is left, or one of them may have too few chains. */
INLINE void few_rows(struct tile *t, size_t rows, size_t n, const struct attn_gemm_args *args, const float *b,
                     const int in_place) {
    tile_function *const *run = in_place ? tiles[rows - 1].run_rows : tiles[rows - 1].run;
    size_t widest = tiles[rows - 1].widest, step = widest / VECS * COLS;
    float *c = t->c;
    for (size_t j = 0, taken; j < n; j += taken) {
        size_t left = n - j, vecs = (left + VEC_LANES - 1) / VEC_LANES;
        taken = vecs <= widest ? left : left < 2 * step ? (left / COLS + 1) / 2 * COLS : step;
        vecs = (taken + VEC_LANES - 1) / VEC_LANES;
        t->b = b + (in_place ? j : j / COLS * args->panel_stride);
        t->bias = args->bias ? args->bias + j : NULL;
        t->c = c + j;
        t->tail = taken - (vecs - 1) * VEC_LANES;
        run[vecs - 1](t);
    }
}

/* One panel over all rows, in tiles of nearly equal height. */
static void one_panel(struct tile *t, size_t m, size_t cols) {
    size_t count = (m + ROWS - 1) / ROWS, vecs = (cols + VEC_LANES - 1) / VEC_LANES;
    t->tail = cols - (vecs - 1) * VEC_LANES;
    for (size_t i = 0; i < count; i++) {
        size_t rows = m / count + (i < m % count);
        tiles[rows - 1].run[vecs - 1](t);
        t->a += rows * t->a_stride;
        t->c += rows * t->c_stride;
        t->scale = next_scale(t->scale, rows);
    }
}

static void block(const struct attn_gemm_args *args, size_t i, size_t m, size_t p, size_t k) {
    struct tile t = {.k = k,
                     .a_stride = args->a_stride,
                     .b_stride = args->panel_stride,
                     .scale = first_scale(args, i, p),
                     .c_stride = args->c_stride};
    const float *a = args->a + i * args->a_stride + p, *b = args->b + p * COLS;
    float *c = args->c + i * args->c_stride;
    if (m <= ROWS) {
        t.a = a;
        t.c = c;
        few_rows(&t, m, args->n, args, b, 0);
        return;
    }
    for (size_t j = 0; j < args->n; j += COLS) {
        t.a = a;
        t.b = b + j / COLS * args->panel_stride;
        t.bias = args->bias ? args->bias + j : NULL;
        t.c = c + j;
        t.scale = first_scale(args, i, p);
        one_panel(&t, m, args->n - j < COLS ? args->n - j : COLS);
    }
}

/* The part of `total` that each pass takes: nearly equal ones of at most `most`; at least 1. */
static size_t share(size_t total, size_t most) {
    size_t parts = (total + most - 1) / most;
    return parts ? (total + parts - 1) / parts : 1;
}

static void run(const struct attn_gemm_args *args) {
    size_t rows = share(args->m, ROW_BLOCK), depth = args->m > ROWS ? (share(args->k, K_BLOCK) + 3) / 4 * 4 : args->k;
    for (size_t i = 0; i < args->m; i += rows) {
        size_t m = args->m - i < rows ? args->m - i : rows, p = 0;
        do {
            size_t k = args->k - p < depth ? args->k - p : depth;
            block(args, i, m, p, k);
            p += k;
        } while (p < args->k);
    }
}

/* Columns v and up of a row that has `cols`, after these the last one again. */
INLINE vec columns_from(const float *b, size_t cols, size_t v) {
    if (v + VEC_LANES <= cols)
        return vec_load(b + v);
    vec last = vec_set(b[cols - 1]);
    return v < cols ? vec_select(vec_lanes(0, cols - v), vec_load_first(cols - v, b + v), last) : last;
}

/* k rows of b that lie contiguous. */
INLINE void pack_rows(const struct attn_pack_args *args, size_t j, size_t cols) {
    const float *b = args->b + j;
    float *packed = args->packed + j / COLS * args->panel_stride;
    for (size_t p = 0; p < args->k; p++)
        UNROLL for (size_t v = 0; v < COLS; v += VEC_LANES)
            vec_store(packed + p * COLS + v, columns_from(b + p * args->k_stride, cols, v));
}

/* 4 columns of b that lie contiguous, of which `cols` exist: 4 x 4 transposed at a time. */
static void pack_lanes(const struct attn_pack_args *args, const float *b, size_t cols, float *packed) {
    for (size_t p = 0; p < args->k; p += VEC_LANES) {
        size_t depth = args->k - p < VEC_LANES ? args->k - p : VEC_LANES;
        vec r[VEC_LANES];
        UNROLL for (size_t i = 0; i < VEC_LANES; i++) r[i] =
            vec_load_first(depth, b + (i < cols ? i : cols - 1) * args->n_stride + p);
        vec_transpose(r);
        UNROLL for (size_t i = 0; i < VEC_LANES; i++) if (i < depth) vec_store(packed + (p + i) * COLS, r[i]);
    }
}

static void pack_columns(const struct attn_pack_args *args, size_t j, size_t cols) {
    float *packed = args->packed + j / COLS * args->panel_stride;
    for (size_t v = 0; v < COLS; v += VEC_LANES) {
        if (v < cols)
            pack_lanes(args, args->b + (j + v) * args->n_stride, cols - v, packed + v);
        else
            for (size_t p = 0; p < args->k; p++)
                vec_store(packed + p * COLS + v, vec_set(args->b[(j + cols - 1) * args->n_stride + p]));
    }
}

static void pack_any(const struct attn_pack_args *args, size_t j, size_t cols) {
    float *packed = args->packed + j / COLS * args->panel_stride;
    for (size_t p = 0; p < args->k; p++)
        for (size_t i = 0; i < COLS; i++)
            packed[p * COLS + i] = args->b[p * args->k_stride + (j + (i < cols ? i : cols - 1)) * args->n_stride];
}

static void pack(const struct attn_pack_args *args) {
    for (size_t j = 0; j < args->n; j += COLS) {
        size_t cols = args->n - j < COLS ? args->n - j : COLS;
        if (args->n_stride == 1 && cols == COLS)
            pack_rows(args, j, COLS); /* compiled without tails */
        else if (args->n_stride == 1)
            pack_rows(args, j, cols);
        else if (args->k_stride == 1)
            pack_columns(args, j, cols);
        else
            pack_any(args, j, cols);
    }
}

static struct tile tile_in_place(const struct attn_gemm_args *args, size_t k) {
    return (struct tile){.k = k,
                         .a = args->a,
                         .a_stride = args->a_stride,
                         .b_stride = args->b_stride,
                         .scale = first_scale(args, 0, 0),
                         .c = args->c,
                         .c_stride = args->c_stride};
}

/* n columns from j on, at most a panel's, their elements from p on, which lie k_stride apart: what does not fill registers.
 * Out of line, or the panels of several calls of it are on the stack at once. */
static __attribute__((noinline)) void run_through_panel(const struct attn_gemm_args *args, size_t j, size_t n, size_t p,
                                                        size_t k_stride, size_t n_stride) {
    float panel[PANEL_DEPTH * COLS];
    do {
        size_t k = args->k - p < PANEL_DEPTH ? args->k - p : PANEL_DEPTH;
        pack(&(struct attn_pack_args){.k = k,
                                      .n = n,
                                      .b = args->b + p * k_stride + j * n_stride,
                                      .k_stride = k_stride,
                                      .n_stride = n_stride,
                                      .packed = panel,
                                      .panel_stride = PANEL_DEPTH * COLS});
        run(&(struct attn_gemm_args){.m = args->m,
                                     .n = n,
                                     .k = k,
                                     .a = args->a + p,
                                     .a_stride = args->a_stride,
                                     .b = panel,
                                     .panel_stride = PANEL_DEPTH * COLS,
                                     .bias = args->bias ? args->bias + j : NULL,
                                     .accumulate = args->accumulate || p > 0,
                                     .scale = p > 0 ? NULL : args->scale,
                                     .c = args->c + j,
                                     .c_stride = args->c_stride});
        p += k;
    } while (p < args->k);
}

/* Where one tile is not as wide as a row, PREFETCH rows at a time: what was fetched with them waits in L1 for the next tile. */
static void run_rows(const struct attn_gemm_args *args) {
    size_t whole = args->n / VEC_LANES * VEC_LANES, p = 0;
    if (args->m == 0)
        return;
    size_t depth = whole > tiles[args->m - 1].widest * VEC_LANES ? PREFETCH : args->k;
    do {
        struct tile t = tile_in_place(args, args->k - p < depth ? args->k - p : depth);
        t.a += p;
        t.scale = first_scale(args, 0, p);
        few_rows(&t, args->m, whole, args, args->b + p * args->b_stride, 1);
        p += t.k;
    } while (p < args->k);
    if (whole < args->n)
        run_through_panel(args, whole, args->n - whole, 0, args->b_stride, 1);
}

static void run_columns(const struct attn_gemm_args *args) {
    size_t k = args->k / DEPTH * DEPTH, j = 0;
    struct tile t = tile_in_place(args, k);
    if (args->m == 0)
        return;
    for (size_t cols = tiles[args->m - 1].columns; args->n - j >= cols; j += cols) {
        t.b = args->b + j * args->b_stride;
        t.bias = args->bias ? args->bias + j : NULL;
        t.c = args->c + j;
        if (k > 0 || args->k == 0)
            tiles[args->m - 1].run_columns(&t);
        if (k < args->k)
            run_through_panel(args, j, cols, k, 1, args->b_stride);
    }
    if (j < args->n)
        run_through_panel(args, j, args->n - j, 0, 1, args->b_stride);
}

const struct attn_gemm_kernel attn_neon_gemm = {.name = "neon_6x16",
                                                .rows = ROWS,
                                                .cols = COLS,
                                                .pack = pack,
                                                .run = run,
                                                .run_rows = run_rows,
                                                .run_columns = run_columns};
