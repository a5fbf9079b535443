/* GEMM for AVX2.
 *
 * Tile 6 x 16: 12 accumulators, two registers of B, one broadcast of A, 15 of 16 registers. Per step of k two loads of B and
 * 6 broadcasts feed 12 multiply-adds: 8 loads in the 6 cycles that two multiply-add pipes need, 12 for both load ports. Each
 * accumulator is used again after 6 cycles, above the latency of 4 or 5. The loop over k is unrolled by four: with its own
 * counting each step would take every slot of a processor that issues four operations a cycle. Fewer rows take more registers
 * of B at once, across panels, so that eight chains or more are in flight: 1 x 112, 2 x 48, 3 x 32, 4 x 24. */
#include <stdbool.h>

#include "body/objects.h"

enum { ROWS = 6, COLS = 16, VECS = COLS / VEC_LANES, MAX_WIDTH = 14 };

/* B's panel block of 256 x 16 floats is 16 KiB: it stays in L1 while the rows pass; rows x 256 floats of A stay in L2. Longer
 * blocks are level where L2 is large. */
enum { K_BLOCK = 256, ROW_BLOCK = 144 };

/* Rows or columns in place that are fetched ahead, as many as memory takes to answer: the processor does not foresee them where
 * they lie far apart. Rows that tiles side by side take turns at. */
enum { PREFETCH = 32, TURN = 16, LINE = 16 };

/* What few rows read in one go: panels of at most so many rows, and how many rows ahead is then fetched; how few they are; of how
 * few the chains are scaled on the way. */
enum { SHORT = 256, FETCH_ROWS = 64, MANY = 32, CHAINED_ROWS = 2 };

/* Elements of columns in place that are transposed at a time; of those that do not fill a transposition, in a panel. Registers of
 * columns that one row takes at a time. */
enum { DEPTH = 4, PANEL_DEPTH = 64, ROW_WIDTH = 4 };

/* Rows fetched ahead of what is packed. */
enum { PACK_PREFETCH = 8 };

/* A tile's place: rows from a and c, columns from b; the last register of each row ends at `tail` lanes. */
struct tile {
    size_t k;
    const float *a;
    size_t a_stride;
    const float *b;
    size_t b_stride; /* from panel to panel; in place from row to row or from column to column */
    const float *bias;
    const float *scale;  /* NULL, or what c, from which the chains then start, is multiplied by in each row */
    size_t block;        /* few rows' chains are multiplied again after so many steps, */
    const float *again;  /* by what is here for the first time, */
    size_t again_stride; /* and floats further on the next */
    float *c;
    size_t c_stride;
    size_t tail;
    const float *ahead; /* what the next tiles read, brought to L2: with each step of k so many floats more */
    size_t ahead_step;
    size_t fetch; /* in panels: floats from what is read to what is fetched meanwhile, or 0 */
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

/* One pointer for every four rows, or panels: what the addressing modes reach with the stride and its multiples. */
INLINE void pointers(const float *p[2], const float *first, size_t stride, const int rows) {
    UNROLL for (int q = 0; q < 2; q++) {
        p[q] = first + (size_t)(q * 4 < rows ? q * 4 : 0) * stride;
        __asm__("" : "+r"(p[q])); /* or the compiler derives each from the first again, through the stack */
    }
}

/* Chains go on from what they are, scaled: where a block begins. */
INLINE void tile_rescale(vec *acc, const float *scale, const int rows, const int width) {
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < width; j++) acc[i * width + j] =
        vec_mul(acc[i * width + j], vec_set(scale[i]));
}

/* How a tile finds B: in panels; in panels whose rows further on are fetched meanwhile; in a panel whose successor is fetched
 * meanwhile; in place. */
enum source { PANELS, FETCHED_PANELS, FAR_PANELS, IN_PLACE };

/* Register j of a step of B. */
INLINE vec load_b(const float *const b[2], size_t b_stride, const int j, const enum source source) {
    if (source == IN_PLACE)
        return vec_load(b[0] + j * VEC_LANES);
    return vec_load(b[j / VECS / 4] + (size_t)(j / VECS % 4) * b_stride + j % VECS * VEC_LANES);
}

/* Compile-time rows and registers of B per step, which may come from several panels or follow each other in a row of B in
 * place. The smaller side of the outer product stays in registers while the larger passes by. */
INLINE void tile_run(const struct tile *t, const int rows, const int width, const enum source source) {
    const int in_place = source == IN_PLACE;
    const int full = rows > 1 && rows * width + (rows < width ? rows : width) + 1 == 16; /* no register is left */
    size_t tail = in_place ? VEC_LANES : t->tail;
    vec acc[14];
    tile_begin(t, tail, acc, rows, width);
    const float *b[2], *a[2];
    size_t k = t->k, stride = t->a_stride, b_stride = t->b_stride, step = in_place ? b_stride : COLS, fetch = t->fetch;
    pointers(a, t->a, stride, rows);
    pointers(b, t->b, b_stride, in_place ? 1 : (width + VECS - 1) / VECS);
    const float *ahead = t->ahead;
    size_t ahead_step = t->ahead_step, border = t->block - 1;
    const float *again = t->again;
    _Pragma("GCC unroll 4") for (size_t p = 0; p < k; p++) {
        if (in_place)
            UNROLL for (int j = 0; j < width; j += VECS) vec_prefetch(b[0], PREFETCH * step + (size_t)j * VEC_LANES);
        if (source == FAR_PANELS) {
            vec_prefetch_l2(ahead);
            ahead += ahead_step;
        }
        if (source == FETCHED_PANELS)
            UNROLL for (int j = 0; j < (width + VECS - 1) / VECS; j++)
                vec_prefetch(b[j / 4], (size_t)(j % 4) * b_stride + fetch);
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
            vec bv[MAX_WIDTH];
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
        UNROLL for (int q = 0; q < 2; q++) {
            a[q]++;
            b[q] += step;
        }
        if (rows <= CHAINED_ROWS && source != FAR_PANELS && __builtin_expect(p == border, 0)) {
            tile_rescale(acc, again, rows, width);
            again += t->again_stride;
            border = k - 1 - border > t->block ? border + t->block : SIZE_MAX;
        }
        __asm__ volatile("" : : : "memory"); /* or clang begins the next step in registers that there are not */
    }
    tile_end(t, tail, acc, rows, width);
}

/* Of panels, whether or not there is something to fetch: a loop for either, not a branch in each step. */
INLINE void tile_run_panels(const struct tile *t, const int rows, const int width) {
    if (rows > 1 && t->fetch)
        tile_run(t, rows, width, FETCHED_PANELS);
    else
        tile_run(t, rows, width, PANELS);
}

/* Compile-time rows and registers of columns in place, DEPTH elements of each at a time: transposed they stay in registers
 * while the rows of A pass by. That takes 8 loads and 8 shuffles a register next to 4 multiply-adds a row; loads are what it waits
 * for, so that of one row what is read of A is kept. Meanwhile a line of some columns further on is fetched, so that in 16
 * elements it is the turn of each; where columns follow each other (`dense`), those that the next tile reads, in the order in
 * which they lie. */
INLINE void tile_columns_run(const struct tile *t, const int rows, const int width, const int dense) {
    vec acc[6];
    tile_begin(t, VEC_LANES, acc, rows, width);
    const float *b = t->b, *a[2];
    const size_t turns = (size_t)width * VEC_LANES * DEPTH / LINE;
    size_t k = t->k, stride = t->a_stride, b_stride = t->b_stride;
    const float *next = b + (size_t)width * VEC_LANES * k;
    pointers(a, t->a, stride, rows);
    for (size_t p = 0; p < k; p += DEPTH, b += DEPTH, next += turns * LINE) {
        size_t turn = PREFETCH + p % LINE / DEPTH * turns;
        UNROLL for (size_t i = 0; i < turns; i++) {
            if (dense)
                vec_prefetch(next, i * LINE);
            else
                vec_prefetch(b, (turn + i) * b_stride);
        }
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
                __asm__ volatile("" : "+x"(*sum) : : "memory"); /* or more is begun than there are registers for */
            }
        }
        UNROLL for (int q = 0; q < 2; q++) a[q] += DEPTH;
    }
    tile_end(t, VEC_LANES, acc, rows, width);
}

typedef void tile_function(const struct tile *t);

/* A tile for each number of rows and each width up to the widest whose accumulators, smaller side and one more register fit
 * in 16; one for far panels, one for columns in place. */
#define TILE(rows, width)                                                                                              \
    static void tile_##rows##_##width(const struct tile *t) {                                                          \
        tile_run_panels(t, rows, width);                                                                               \
    }                                                                                                                  \
    static void tile_rows_##rows##_##width(const struct tile *t) {                                                     \
        tile_run(t, rows, width, IN_PLACE);                                                                            \
    }
#define TILE_FAR(rows)                                                                                                 \
    static void tile_far_##rows##_2(const struct tile *t) {                                                            \
        tile_run(t, rows, VECS, FAR_PANELS);                                                                           \
    }
#define TILE_COLUMNS(rows, width)                                                                                      \
    static void tile_columns_##rows##_##width##_4(const struct tile *t) {                                              \
        tile_columns_run(t, rows, width, 0);                                                                           \
    }
#define ENTRY(rows, width)           tile_##rows##_##width,
#define ROWS_ENTRY(rows, width)      tile_rows_##rows##_##width,
#define UP_TO_2(X, rows)             X(rows, 1) X(rows, 2)
#define UP_TO_3(X, rows)             UP_TO_2(X, rows) X(rows, 3)
#define UP_TO_4(X, rows)             UP_TO_3(X, rows) X(rows, 4)
#define UP_TO_6(X, rows)             UP_TO_4(X, rows) X(rows, 5) X(rows, 6)
#define UP_TO_10(X, rows)            UP_TO_6(X, rows) X(rows, 7) X(rows, 8) X(rows, 9) X(rows, 10)
#define UP_TO_14(X, rows)            UP_TO_10(X, rows) X(rows, 11) X(rows, 12) X(rows, 13) X(rows, 14)
#define EACH_ROW_COUNT(X)            X(1, 14, 2) X(2, 6, 2) X(3, 4, 2) X(4, 3, 1) X(5, 2, 1) X(6, 2, 1)

#define TILES(rows, widest, columns) UP_TO_##widest(TILE, rows) TILE_FAR(rows) TILE_COLUMNS(rows, columns)
#define ENTRIES(rows, widest, columns)                                                                                 \
    {widest,                                                                                                           \
     {UP_TO_##widest(ENTRY, rows)},                                                                                    \
     {UP_TO_##widest(ROWS_ENTRY, rows)},                                                                               \
     tile_far_##rows##_2,                                                                                              \
     columns * VEC_LANES,                                                                                              \
     tile_columns_##rows##_##columns##_4},
EACH_ROW_COUNT(TILES)
static const struct {
    size_t widest;
    tile_function *run[MAX_WIDTH], *run_rows[MAX_WIDTH], *run_far;
    size_t columns;
    tile_function *run_columns;
} tiles[ROWS] = {EACH_ROW_COUNT(ENTRIES)};

static void tile_columns_1_4_4(const struct tile *t) {
    tile_columns_run(t, 1, ROW_WIDTH, 0);
}

static void tile_columns_dense_1_4_4(const struct tile *t) {
    tile_columns_run(t, 1, ROW_WIDTH, 1);
}

/* Where nothing is to be scaled. */
static const float ones[ROWS] = {1, 1, 1, 1, 1, 1};

/* Of a tile from row i on, whose chains go on at p. */
static const float *first_scale(const struct attn_gemm_args *args, size_t i, size_t p) {
    if (p > 0 && args->block && p % args->block == 0)
        return args->scale + p / args->block * args->scale_stride + i;
    if (p > 0)
        return ones;
    return !args->accumulate ? NULL : args->scale ? args->scale + i : ones;
}

/* How many steps from p on go together: at most so many, and none of the next block. */
static size_t steps(const struct attn_gemm_args *args, size_t p, size_t most) {
    size_t left = args->block ? args->block - p % args->block : most, k = args->k - p;
    most = left < most ? left : most;
    return k < most ? k : most;
}

/* Of the tile `rows` further on. */
static const float *next_scale(const float *scale, size_t rows) {
    return scale && scale != ones ? scale + rows : scale;
}

/* Floats from a row of a panel to what is fetched meanwhile: of keys, panels that follow each other, the same row as many panels
 * later as are read at once; of values rows further on. The processor's own prefetching is level or better for longer panels. */
static size_t fetch_distance(const struct tile *t, size_t panels) {
    if (t->k > SHORT)
        return 0;
    return t->b_stride == t->k * COLS ? panels * t->b_stride : FETCH_ROWS * COLS;
}

/* One row waits for memory alone, and a fetch in each step delays it: the beginnings of the next short panels start the
 * processor's own prefetching, which ends with each panel. */
static void fetch_beginnings(const struct tile *t, size_t panels) {
    enum { LEAST = 4, LINES = 4 };
    if (t->k > SHORT || t->b_stride != t->k * COLS || panels < LEAST)
        return;
    for (size_t v = panels; v < 2 * panels; v++)
        for (size_t l = 0; l < LINES; l++)
            vec_prefetch_l2(t->b + v * t->b_stride + l * LINE);
    __asm__ volatile(""); /* or gcc takes a function that only fetches for one that does nothing */
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
        t->fetch = fetch_distance(t, (vecs + VECS - 1) / VECS);
        if (rows == 1 && !in_place)
            fetch_beginnings(t, vecs / VECS);
        run[vecs - 1](t);
    }
}

/* One panel over all rows, in tiles of nearly equal height. Where there are many each fetches its share of the next panel, and
 * what the next tile starts from. */
static void one_panel(struct tile *t, size_t m, size_t cols) {
    size_t count = (m + ROWS - 1) / ROWS, vecs = (cols + VEC_LANES - 1) / VEC_LANES;
    bool far = m > MANY && vecs == VECS;
    t->tail = cols - (vecs - 1) * VEC_LANES;
    t->ahead = t->b + t->b_stride;
    t->ahead_step = (COLS + count - 1) / count;
    for (size_t i = 0; i < count; i++) {
        size_t rows = m / count + (i < m % count);
        t->fetch = i == 0 && m <= MANY ? fetch_distance(t, 1) : 0;
        for (size_t r = rows; far && t->scale && r < 2 * rows; r++)
            vec_prefetch_l2(t->c + r * t->c_stride);
        (far ? tiles[rows - 1].run_far : tiles[rows - 1].run[vecs - 1])(t);
        t->a += rows * t->a_stride;
        t->c += rows * t->c_stride;
        t->scale = next_scale(t->scale, rows);
        t->ahead += t->ahead_step * t->k;
    }
}

/* Where few rows' chains are scaled on the way. */
static void chain(struct tile *t, const struct attn_gemm_args *args) {
    bool several = args->block && args->block < args->k;
    t->block = several ? args->block : 0;
    t->again = several ? args->scale + args->scale_stride : NULL;
    t->again_stride = args->scale_stride;
}

static void block(const struct attn_gemm_args *args, size_t i, size_t m, size_t p, size_t k) {
    struct tile t = {.k = k,
                     .a_stride = args->a_stride,
                     .b_stride = args->panel_stride,
                     .scale = first_scale(args, i, p),
                     .c_stride = args->c_stride};
    chain(&t, args);
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
    size_t rows = share(args->m, ROW_BLOCK), depth = args->m > ROWS ? share(args->k, K_BLOCK) : args->k;
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

/* k rows of b that lie contiguous: compile-time panels side by side, the last of `cols` columns. */
INLINE void pack_rows(const struct attn_pack_args *args, size_t j, size_t cols, const int panels) {
    const float *b = args->b + j;
    float *packed = args->packed + j / COLS * args->panel_stride;
    for (size_t p = 0; p < args->k; p++, b += args->k_stride, packed += COLS) {
        UNROLL for (int i = 0; i < panels; i++) vec_prefetch(b, PACK_PREFETCH * args->k_stride + (size_t)i * COLS);
        UNROLL for (int i = 0; i < panels; i++) UNROLL for (size_t v = 0; v < COLS; v += VEC_LANES) {
            size_t left = i == panels - 1 ? cols : COLS;
            vec_store(packed + (size_t)i * args->panel_stride + v, columns_from(b + (size_t)i * COLS, left, v));
        }
    }
}

/* 8 columns of b that lie contiguous, of which `cols` exist: 8 x 8 transposed at a time. */
static void pack_lanes(const struct attn_pack_args *args, const float *b, size_t cols, float *packed) {
    for (size_t p = 0; p < args->k; p += VEC_LANES) {
        size_t depth = args->k - p < VEC_LANES ? args->k - p : VEC_LANES;
        vec r[VEC_LANES];
        UNROLL for (size_t i = 0; i < VEC_LANES / 2; i++)
            vec_prefetch(b + p, (COLS + p % LINE / 2 + i) * args->n_stride);
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
    size_t j = 0;
    for (; args->n_stride == 1 && j + 4 * COLS <= args->n; j += 4 * COLS)
        pack_rows(args, j, COLS, 4);
    for (; j < args->n; j += COLS) {
        size_t cols = args->n - j < COLS ? args->n - j : COLS;
        if (args->n_stride == 1)
            pack_rows(args, j, cols, 1);
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
        size_t k = steps(args, p, PANEL_DEPTH);
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
                                     .scale = first_scale(args, 0, p),
                                     .c = args->c + j,
                                     .c_stride = args->c_stride});
        p += k;
    } while (p < args->k);
}

/* Where one tile is not as wide as a row, TURN rows at a time: what was fetched with them waits in L1 for the next tile. */
static void run_rows(const struct attn_gemm_args *args) {
    size_t whole = args->n / VEC_LANES * VEC_LANES, p = 0;
    if (args->m == 0)
        return;
    bool turns = whole > tiles[args->m - 1].widest * VEC_LANES;
    do {
        struct tile t = tile_in_place(args, turns ? steps(args, p, TURN) : args->k);
        if (!turns)
            chain(&t, args);
        t.a += p;
        t.scale = first_scale(args, 0, p);
        few_rows(&t, args->m, whole, args, args->b + p * args->b_stride, 1);
        p += t.k;
    } while (p < args->k);
    if (whole < args->n)
        run_through_panel(args, whole, args->n - whole, 0, args->b_stride, 1);
}

/* As many columns at a time as one row takes. More rows do not wait for the order in which lines come; from memory as many
 * streams as there are columns come sooner. */
static tile_function *row_tile(const struct attn_gemm_args *args) {
    bool dense = args->b_stride == args->k && args->k % DEPTH == 0 && !args->distant;
    return dense ? tile_columns_dense_1_4_4 : tile_columns_1_4_4;
}

static void run_columns(const struct attn_gemm_args *args) {
    size_t k = args->k / DEPTH * DEPTH, j = 0, cols;
    struct tile t = tile_in_place(args, k);
    if (args->m == 0)
        return;
    size_t least = tiles[args->m - 1].columns;
    for (; args->n - j >= least; j += cols) {
        bool wide = args->m == 1 && args->n - j >= ROW_WIDTH * VEC_LANES;
        cols = wide ? ROW_WIDTH * VEC_LANES : least;
        t.b = args->b + j * args->b_stride;
        t.bias = args->bias ? args->bias + j : NULL;
        t.c = args->c + j;
        if (k > 0 || args->k == 0)
            (wide ? row_tile(args) : tiles[args->m - 1].run_columns)(&t);
        for (size_t i = 0; k < args->k && i < cols; i += least)
            run_through_panel(args, j + i, least, k, 1, args->b_stride);
    }
    if (j < args->n)
        run_through_panel(args, j, args->n - j, 0, 1, args->b_stride);
}

const struct attn_gemm_kernel attn_avx2_gemm = {.name = "avx2_6x16",
                                                .rows = ROWS,
                                                .cols = COLS,
                                                .pack = pack,
                                                .run = run,
                                                .run_rows = run_rows,
                                                .run_columns = run_columns,
                                                .chained_rows = CHAINED_ROWS};
