/* GEMM for NEON.
 *
 * Tile 6 x 16: 24 accumulators, six registers of A, each four steps of k, one of B, 31 of 32 registers. Per four steps 6 loads
 * of A and 16 of B feed 96 multiply-adds by lane: 22 loads in the 48 cycles that two multiply-add pipes need, or the 24 of
 * four. (A broadcast by ld1r would take a vector pipe as well.) Each accumulator is used again after 12 or 6 cycles, above
 * the latency of 4. Fewer rows take more registers of B at once, across panels, so that 16 chains or more are in
 * flight: 1 x 64, 2 x 56, 3 x 36, 4 x 24, 5 x 20. */
#include "kernels.h"
#include "vec.h"

enum { ROWS = 6, COLS = 16, VECS = COLS / VEC_LANES, MAX_WIDTH = 16 };

/* B's panel block of 256 x 16 floats is 16 KiB: it stays in the smallest L1 while the rows pass; rows x 256 floats of A stay
 * in L2. */
enum { K_BLOCK = 256, ROW_BLOCK = 240 };

/* A tile's place: rows from a and c, columns from panel b; the last register of each row ends at `tail` lanes. */
struct tile {
    size_t k;
    const float *a;
    size_t a_stride;
    const float *b;
    size_t panel_stride;
    const float *bias;
    int accumulate;
    float *c;
    size_t c_stride;
    size_t tail;
};

/* Step `lane` of the four whose A is in av. */
#define STEP(lane)                                                                                                     \
    UNROLL for (int j = 0; j < width; j++) {                                                                           \
        vec bv = vec_load(b[j / VECS] + lane * COLS + j % VECS * VEC_LANES);                                           \
        UNROLL for (int i = 0; i < rows; i++) vec_fma_lane(acc[i * width + j], bv, av[i], lane);                       \
    }

/* Compile-time rows and registers of B per step, which may come from several panels. A stays in registers for four steps
 * while B passes by. */
INLINE void tile_run(const struct tile *t, const int rows, const int width) {
    vec acc[28];
    UNROLL for (int j = 0; j < width; j++) {
        size_t lanes = j == width - 1 ? t->tail : VEC_LANES;
        vec start = t->bias ? vec_load_first(lanes, t->bias + j * VEC_LANES) : vec_zero();
        UNROLL for (int i = 0; i < rows; i++) acc[i * width + j] = start;
    }
    if (t->accumulate) {
        UNROLL for (int i = 0; i < rows; i++) {
            const float *c = t->c + (size_t)i * t->c_stride;
            UNROLL for (int j = 0; j < width - 1; j++) acc[i * width + j] = vec_load(c + j * VEC_LANES);
            acc[i * width + width - 1] = vec_load_first(t->tail, c + (width - 1) * VEC_LANES);
        }
    }

    const float *a = t->a, *b[4];
    const int panels = (width + VECS - 1) / VECS;
    size_t k = t->k, p = 0, stride = t->a_stride;
    UNROLL for (int j = 0; j < panels; j++) b[j] = t->b + (size_t)j * t->panel_stride;
    for (; p + 4 <= k; p += 4, a += 4) {
        vec av[ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = vec_load(a + (size_t)i * stride);
        STEP(0)
        STEP(1)
        STEP(2)
        STEP(3)
        UNROLL for (int j = 0; j < panels; j++) b[j] += 4 * COLS;
    }
    for (; p < k; p++, a++) {
        vec av[ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = vec_load_first(1, a + (size_t)i * stride);
        STEP(0)
        UNROLL for (int j = 0; j < panels; j++) b[j] += COLS;
    }

    float *c = t->c;
    size_t c_stride = t->c_stride, tail = t->tail;
    UNROLL for (int i = 0; i < rows; i++, c += c_stride) {
        UNROLL for (int j = 0; j < width - 1; j++) vec_store(c + j * VEC_LANES, acc[i * width + j]);
        vec_store_first(tail, c + (width - 1) * VEC_LANES, acc[i * width + width - 1]);
    }
}

typedef void tile_function(const struct tile *t);

/* A tile for each number of rows and each width up to the widest whose accumulators, A and one more register fit in 32, or
 * four panels. */
#define TILE(rows, width)                                                                                              \
    static void tile_##rows##_##width(const struct tile *t) {                                                          \
        tile_run(t, rows, width);                                                                                      \
    }
#define ENTRY(rows, width)    tile_##rows##_##width,
#define UP_TO_2(X, rows)      X(rows, 1) X(rows, 2)
#define UP_TO_3(X, rows)      UP_TO_2(X, rows) X(rows, 3)
#define UP_TO_4(X, rows)      UP_TO_3(X, rows) X(rows, 4)
#define UP_TO_5(X, rows)      UP_TO_4(X, rows) X(rows, 5)
#define UP_TO_6(X, rows)      UP_TO_5(X, rows) X(rows, 6)
#define UP_TO_9(X, rows)      UP_TO_6(X, rows) X(rows, 7) X(rows, 8) X(rows, 9)
#define UP_TO_14(X, rows)     UP_TO_9(X, rows) X(rows, 10) X(rows, 11) X(rows, 12) X(rows, 13) X(rows, 14)
#define UP_TO_16(X, rows)     UP_TO_14(X, rows) X(rows, 15) X(rows, 16)
#define EACH_ROW_COUNT(X)     X(1, 16) X(2, 14) X(3, 9) X(4, 6) X(5, 5) X(6, 4)

#define TILES(rows, widest)   UP_TO_##widest(TILE, rows)
#define ENTRIES(rows, widest) {widest, {UP_TO_##widest(ENTRY, rows)}},
EACH_ROW_COUNT(TILES)
static const struct {
    size_t widest;
    tile_function *run[MAX_WIDTH];
} tiles[ROWS] = {EACH_ROW_COUNT(ENTRIES)};

/* One row tile over all panels: as many registers at once as fit, in whole panels but for the last. The last two steps share
 * what is left, or one of them may have too few chains. */
static void few_rows(struct tile *t, size_t rows, const struct attn_gemm_args *args, const float *b) {
    size_t widest = tiles[rows - 1].widest, step = widest / VECS * COLS;
    float *c = t->c;
    for (size_t j = 0, taken; j < args->n; j += taken) {
        size_t left = args->n - j, vecs = (left + VEC_LANES - 1) / VEC_LANES;
        taken = vecs <= widest ? left : left < 2 * step ? (left / COLS + 1) / 2 * COLS : step;
        vecs = (taken + VEC_LANES - 1) / VEC_LANES;
        t->b = b + j / COLS * args->panel_stride;
        t->bias = args->bias ? args->bias + j : NULL;
        t->c = c + j;
        t->tail = taken - (vecs - 1) * VEC_LANES;
        tiles[rows - 1].run[vecs - 1](t);
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
    }
}

static void block(const struct attn_gemm_args *args, size_t i, size_t m, size_t p, size_t k) {
    struct tile t = {.k = k,
                     .a_stride = args->a_stride,
                     .panel_stride = args->panel_stride,
                     .accumulate = args->accumulate || p > 0,
                     .c_stride = args->c_stride};
    const float *a = args->a + i * args->a_stride + p, *b = args->b + p * COLS;
    float *c = args->c + i * args->c_stride;
    if (m <= ROWS) {
        t.a = a;
        t.c = c;
        few_rows(&t, m, args, b);
        return;
    }
    for (size_t j = 0; j < args->n; j += COLS) {
        t.a = a;
        t.b = b + j / COLS * args->panel_stride;
        t.bias = args->bias ? args->bias + j : NULL;
        t.c = c + j;
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

/* k rows of b that lie contiguous. */
INLINE void pack_rows(const struct attn_pack_args *args, size_t j, size_t cols) {
    const float *b = args->b + j;
    float *packed = args->packed + j / COLS * args->panel_stride;
    for (size_t p = 0; p < args->k; p++)
        UNROLL for (size_t v = 0; v < COLS; v += VEC_LANES) vec_store(
            packed + p * COLS + v, v < cols ? vec_load_first(cols - v, b + p * args->k_stride + v) : vec_zero());
}

/* 4 columns of b that lie contiguous, of which `cols` exist: 4 x 4 transposed at a time. */
static void pack_lanes(const struct attn_pack_args *args, const float *b, size_t cols, float *packed) {
    for (size_t p = 0; p < args->k; p += VEC_LANES) {
        size_t depth = args->k - p < VEC_LANES ? args->k - p : VEC_LANES;
        vec r[VEC_LANES];
        UNROLL for (size_t i = 0; i < VEC_LANES; i++) r[i] =
            i < cols ? vec_load_first(depth, b + i * args->n_stride + p) : vec_zero();
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
                vec_store(packed + p * COLS + v, vec_zero());
    }
}

static void pack_any(const struct attn_pack_args *args, size_t j, size_t cols) {
    float *packed = args->packed + j / COLS * args->panel_stride;
    for (size_t p = 0; p < args->k; p++)
        for (size_t i = 0; i < COLS; i++)
            packed[p * COLS + i] = i < cols ? args->b[p * args->k_stride + (j + i) * args->n_stride] : 0.0f;
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

const struct attn_gemm_kernel attn_neon_gemm = {
    .name = "neon_6x16", .rows = ROWS, .cols = COLS, .width = COLS, .pack = pack, .run = run};
