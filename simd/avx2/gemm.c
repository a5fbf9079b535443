/* GEMM for AVX2.
 *
 * Tile 6 x 16: 12 accumulators, two registers of B, one broadcast of A, 15 of 16 registers. Per step of k two loads of B and
 * 6 broadcasts feed 12 multiply-adds: 8 loads in the 6 cycles that two multiply-add pipes need, 12 for both load ports. Each
 * accumulator is used again after 6 cycles, above the latency of 4 or 5. The loop over k is unrolled by four: with its own
 * counting each step would take every slot of a processor that issues four operations a cycle. Fewer rows take more panels
 * at once instead, so that at least eight chains are in flight. */
#include "kernels.h"
#include "vec.h"

enum { ROWS = 6, COLS = 16, VECS = COLS / VEC_LANES };

/* B's panel block of 256 x 16 floats is 16 KiB: it stays in L1 while the rows pass; rows x 256 floats of A stay in L2. */
enum { K_BLOCK = 256, ROW_BLOCK = 144 };

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

/* Compile-time rows; `panels` panels of `vecs` registers each (panels > 1 only with full ones). */
INLINE void tile_run(const struct tile *t, const int rows, const int panels, const int vecs) {
    const int width = panels * vecs;
    vec acc[12];
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
    const float *a = t->a, *b = t->b;
    _Pragma("GCC unroll 4") for (size_t p = 0; p < t->k; p++, a++, b += COLS) {
        if (rows < width) {
            vec av[ROWS];
            UNROLL for (int i = 0; i < rows; i++) av[i] = vec_set(a[(size_t)i * t->a_stride]);
            UNROLL for (int j = 0; j < width; j++) {
                vec bv = vec_load(b + (size_t)(j / vecs) * t->panel_stride + j % vecs * VEC_LANES);
                UNROLL for (int i = 0; i < rows; i++) acc[i * width + j] = vec_fma(av[i], bv, acc[i * width + j]);
            }
        } else {
            vec bv[VECS];
            UNROLL for (int j = 0; j < width; j++) bv[j] = vec_load(b + j * VEC_LANES);
            UNROLL for (int i = 0; i < rows; i++) {
                vec av = vec_set(a[(size_t)i * t->a_stride]);
                UNROLL for (int j = 0; j < width; j++) acc[i * width + j] = vec_fma(av, bv[j], acc[i * width + j]);
            }
        }
    }
    UNROLL for (int i = 0; i < rows; i++) {
        float *c = t->c + (size_t)i * t->c_stride;
        UNROLL for (int j = 0; j < width - 1; j++) vec_store(c + j * VEC_LANES, acc[i * width + j]);
        vec_store_first(t->tail, c + (width - 1) * VEC_LANES, acc[i * width + width - 1]);
    }
}

/* A tile of each shape: one panel, of which one or two registers are wanted, or several whole panels for few rows. */
#define TILE(rows, panels, vecs)                                                                                       \
    static void tile_##rows##_##panels##_##vecs(const struct tile *t) {                                                \
        tile_run(t, rows, panels, vecs);                                                                               \
    }
#define EACH_NARROW(X)     X(1) X(2) X(3) X(4) X(5) X(6)
#define EACH_WIDE(X)       X(1, 4) X(2, 3) X(3, 2)
#define NARROW(rows)       TILE(rows, 1, 1) TILE(rows, 1, 2)
#define WIDE(rows, panels) TILE(rows, panels, 2)
EACH_NARROW(NARROW)
EACH_WIDE(WIDE)

#define NARROW_ENTRY(rows) {tile_##rows##_1_1, tile_##rows##_1_2},
static tile_function *const narrow[ROWS][VECS] = {EACH_NARROW(NARROW_ENTRY)};

#define WIDE_ENTRY(rows, panels) {tile_##rows##_##panels##_2, panels},
enum { WIDE_ROWS = 3 };
static const struct {
    tile_function *run;
    size_t panels;
} wide[WIDE_ROWS] = {EACH_WIDE(WIDE_ENTRY)};

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
                k = k < 2 * K_BLOCK ? (k + 1) / 2 : K_BLOCK;
            block(args, i, m, p, k);
            p += k;
        } while (p < args->k);
    }
}

/* k rows of b that lie contiguous. */
static void pack_rows(const struct attn_pack_args *args, size_t j, size_t cols) {
    const float *b = args->b + j;
    float *packed = args->packed + j / COLS * args->panel_stride;
    for (size_t p = 0; p < args->k; p++)
        UNROLL for (size_t v = 0; v < COLS; v += VEC_LANES) vec_store(
            packed + p * COLS + v, v < cols ? vec_load_first(cols - v, b + p * args->k_stride + v) : vec_zero());
}

/* Columns of b that lie contiguous: 8 x 8 transposed at a time. */
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
        if (args->n_stride == 1)
            pack_rows(args, j, cols);
        else if (args->k_stride == 1)
            pack_columns(args, j, cols);
        else
            pack_any(args, j, cols);
    }
}

const struct attn_gemm_kernel attn_avx2_gemm = {
    .name = "avx2_6x16", .rows = ROWS, .cols = COLS, .pack = pack, .run = run};
