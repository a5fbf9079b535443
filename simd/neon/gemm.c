/* GEMM for NEON.
 *
 * Tile 6 x 16: 24 accumulators, six registers of A, each four steps of k, one of B, 31 of 32 registers. Per four steps 6 loads
 * of A and 16 of B feed 96 multiply-adds by lane: 22 loads in the 48 cycles that two multiply-add pipes need, or the 24 of
 * four. (A broadcast by ld1r would take a vector pipe as well.) Each accumulator is used again after 12 or 6 cycles, above
 * the latency of 4. Fewer rows take more panels at once instead, so that at least 16 chains are in flight. */
#include "kernels.h"
#include "vec.h"

enum { ROWS = 6, COLS = 16, VECS = COLS / VEC_LANES };

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

typedef void tile_function(const struct tile *t);

/* Step `lane` of the four whose A is in av. */
#define STEP(lane)                                                                                                     \
    UNROLL for (int j = 0; j < width; j++) {                                                                           \
        vec bv = vec_load(b[j / vecs] + lane * COLS + j % vecs * VEC_LANES);                                           \
        UNROLL for (int i = 0; i < rows; i++) vec_fma_lane(acc[i * width + j], bv, av[i], lane);                       \
    }

/* Compile-time rows; `panels` panels of `vecs` registers each (panels > 1 only with full ones). */
INLINE void tile_run(const struct tile *t, const int rows, const int panels, const int vecs) {
    const int width = panels * vecs;
    const size_t k = t->k, a_stride = t->a_stride;
    vec acc[24];
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
    UNROLL for (int j = 0; j < panels; j++) b[j] = t->b + (size_t)j * t->panel_stride;
    size_t p = 0;
    for (; p + 4 <= k; p += 4, a += 4) {
        vec av[ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = vec_load(a + (size_t)i * a_stride);
        STEP(0)
        STEP(1)
        STEP(2)
        STEP(3)
        UNROLL for (int j = 0; j < panels; j++) b[j] += 4 * COLS;
    }
    for (; p < k; p++, a++) {
        vec av[ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = vec_load_first(1, a + (size_t)i * a_stride);
        STEP(0)
        UNROLL for (int j = 0; j < panels; j++) b[j] += COLS;
    }
    UNROLL for (int i = 0; i < rows; i++) {
        float *c = t->c + (size_t)i * t->c_stride;
        UNROLL for (int j = 0; j < width - 1; j++) vec_store(c + j * VEC_LANES, acc[i * width + j]);
        vec_store_first(t->tail, c + (width - 1) * VEC_LANES, acc[i * width + width - 1]);
    }
}

/* A tile of each shape: one panel, of which one to four registers are wanted, or several whole panels for few rows. */
#define TILE(rows, panels, vecs)                                                                                       \
    static void tile_##rows##_##panels##_##vecs(const struct tile *t) {                                                \
        tile_run(t, rows, panels, vecs);                                                                               \
    }
#define EACH_ROW_COUNT(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define NARROW(rows)      TILE(rows, 1, 1) TILE(rows, 1, 2) TILE(rows, 1, 3) TILE(rows, 1, 4)
EACH_ROW_COUNT(NARROW)
TILE(1, 4, 4)
TILE(2, 2, 4)
TILE(3, 2, 4)

#define NARROW_ENTRY(rows) {tile_##rows##_1_1, tile_##rows##_1_2, tile_##rows##_1_3, tile_##rows##_1_4},
static tile_function *const narrow[ROWS][VECS] = {EACH_ROW_COUNT(NARROW_ENTRY)};

enum { WIDE_ROWS = 3 };
static const struct {
    tile_function *run;
    size_t panels;
} wide[WIDE_ROWS] = {{tile_1_4_4, 4}, {tile_2_2_4, 2}, {tile_3_2_4, 2}};

/* One row tile over all panels. */
static void few_rows(struct tile *t, size_t rows, const struct attn_gemm_args *args, const float *b) {
    size_t j = 0, panels = rows <= WIDE_ROWS ? wide[rows - 1].panels : 1;
    float *c = t->c;
    while (j < args->n) {
        size_t left = args->n - j, taken = COLS * panels;
        t->b = b + j / COLS * args->panel_stride;
        t->bias = args->bias ? args->bias + j : NULL;
        t->c = c + j;
        if (panels > 1 && left >= taken) {
            t->tail = VEC_LANES;
            wide[rows - 1].run(t);
        } else {
            taken = left < COLS ? left : COLS;
            size_t vecs = (taken + VEC_LANES - 1) / VEC_LANES;
            t->tail = taken - (vecs - 1) * VEC_LANES;
            narrow[rows - 1][vecs - 1](t);
        }
        j += taken;
    }
}

/* One panel over all rows, in tiles of nearly equal height. */
static void one_panel(struct tile *t, size_t m, size_t cols) {
    size_t tiles = (m + ROWS - 1) / ROWS, vecs = (cols + VEC_LANES - 1) / VEC_LANES;
    t->tail = cols - (vecs - 1) * VEC_LANES;
    for (size_t i = 0; i < tiles; i++) {
        size_t rows = m / tiles + (i < m % tiles);
        narrow[rows - 1][vecs - 1](t);
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

static void run(const struct attn_gemm_args *args) {
    for (size_t i = 0; i < args->m; i += ROW_BLOCK) {
        size_t m = args->m - i < ROW_BLOCK ? args->m - i : ROW_BLOCK, p = 0;
        do {
            size_t k = args->k - p;
            if (m > ROWS && k > K_BLOCK)
                k = k < 2 * K_BLOCK ? (k + 7) / 8 * 4 : K_BLOCK;
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

/* Columns of b that lie contiguous: 4 x 4 transposed at a time. */
static void pack_columns(const struct attn_pack_args *args, size_t j, size_t cols) {
    for (size_t v = 0; v < COLS; v += VEC_LANES) {
        float *packed = args->packed + j / COLS * args->panel_stride + v;
        for (size_t p = 0; p < args->k; p += VEC_LANES) {
            vec r[VEC_LANES];
            UNROLL for (size_t i = 0; i < VEC_LANES; i++) r[i] =
                v + i < cols ? vec_load_first(args->k - p, args->b + (j + v + i) * args->n_stride + p) : vec_zero();
            vec_transpose(r);
            UNROLL for (size_t i = 0; i < VEC_LANES; i++) if (p + i < args->k) vec_store(packed + (p + i) * COLS, r[i]);
        }
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
    .name = "neon_6x16", .rows = ROWS, .cols = COLS, .pack = pack, .run = run};
