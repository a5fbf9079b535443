/* GEMM for AVX-512.
 *
 * A panel is one register wide. Tile 14 x 32: two panels, 28 accumulators, two registers of B, one broadcast of A, 31 of 32
 * registers. Per step of k two loads of B and 14 broadcasts feed 28 multiply-adds: 16 loads in the 14 cycles that two
 * multiply-add pipes need. Each accumulator is used again after 14 cycles, far above the latency of 4. Fewer rows take more
 * panels at once, so that eight chains or more are in flight: 1 x 128, 4 x 96, 8 x 48. */
#include <stdbool.h>

#include "kernels.h"
#include "vec.h"

enum { ROWS = 14, COLS = VEC_LANES, WIDTH = 2, MAX_WIDTH = 8 };

/* Rows that pass over two panels of B, and how long panels may be: two, 512 KiB, and the next two that are fetched meanwhile stay
 * in an L2 of 1 MiB. A comes from L3 where it is that long, in time, since each row is read in one go; blocks of k that would keep
 * it in L2 cost more, a round trip of C each. */
enum { K_BLOCK = 4096, ROW_BLOCK = 128 };

/* Rows of A that lie a multiple of 4 KiB apart compete for the 12 lines of one cache set, B with them: fewer rows then share a
 * tile. */
enum { ALIAS = 4096 / sizeof(float), ALIASED_ROWS = 10 };

/* From so many rows on a panel pair's successors are worth fetching. */
enum { FAR = 384 };

/* What few rows read in one go: panels of at most so many rows, and how many rows ahead is then fetched. */
enum { SHORT = 256, FETCH_ROWS = 64 };

/* Rows of each panel, 1 KiB, fetched ahead: also of the next one, which mostly follows. In place as many rows or columns as
 * memory takes to answer, which the processor does not foresee where they lie far apart. */
enum { PREFETCH = 16, IN_PLACE_PREFETCH = 32, LINE = 16 };

/* Elements of columns in place that are transposed at a time; of those that do not fill a transposition, in a panel. */
enum { DEPTH = 8, PANEL_DEPTH = 64 };

/* Up to so many rows take two registers of columns at a time, where columns are so short that two times 32 of them are at home
 * in L1. */
enum { PAIR_ROWS = 2, PAIR_DEPTH = 64 };

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
    vec_mask tail;
    const float *ahead; /* what the next tiles read, brought to L2: with each step of k so many floats more */
    size_t ahead_step;
    size_t fetch; /* in panels: floats from what is read to what is fetched meanwhile, or 0 */
};

/* Where the chains start: compile-time rows and registers. */
INLINE void tile_begin(const struct tile *t, vec *acc, const int rows, const int width) {
    UNROLL for (int j = 0; j < width; j++) {
        vec_mask mask = j == width - 1 ? t->tail : (vec_mask)-1;
        vec start = t->bias ? vec_load_mask(mask, t->bias + j * VEC_LANES) : vec_zero();
        UNROLL for (int i = 0; i < rows; i++) acc[i * width + j] = start;
    }
    if (t->scale) {
        UNROLL for (int i = 0; i < rows; i++) {
            const float *c = t->c + (size_t)i * t->c_stride;
            vec scale = vec_set(t->scale[i]);
            UNROLL for (int j = 0; j < width - 1; j++) acc[i * width + j] = vec_mul(vec_load(c + j * VEC_LANES), scale);
            acc[i * width + width - 1] = vec_mul(vec_load_mask(t->tail, c + (width - 1) * VEC_LANES), scale);
        }
    }
}

INLINE void tile_end(const struct tile *t, const vec *acc, const int rows, const int width) {
    float *c = t->c;
    size_t c_stride = t->c_stride;
    vec_mask tail = t->tail;
    UNROLL for (int i = 0; i < rows; i++, c += c_stride) {
        UNROLL for (int j = 0; j < width - 1; j++) vec_store(c + j * VEC_LANES, acc[i * width + j]);
        vec_store_mask(tail, c + (width - 1) * VEC_LANES, acc[i * width + width - 1]);
    }
}

/* One pointer for every four rows: what the addressing modes reach with the stride and its multiples. */
INLINE void pointers(const float *p[4], const float *first, size_t stride, const int rows) {
    UNROLL for (int q = 0; q < 4; q++) {
        p[q] = first + (size_t)(q * 4 < rows ? q * 4 : 0) * stride;
        __asm__("" : "+r"(p[q])); /* or the compiler derives each from the first again, through the stack */
    }
}

/* How a tile finds B: in panels; in panels of a product so large that the next ones are fetched meanwhile; in place. */
enum source { PANELS, FAR_PANELS, IN_PLACE };

/* Compile-time rows and registers of B per step: a panel each, or one after the other in a row of B in place. The smaller side
 * of the outer product stays in registers while the larger passes by. */
INLINE void tile_run(const struct tile *t, const int rows, const int width, const enum source source) {
    vec acc[28];
    tile_begin(t, acc, rows, width);
    const float *b = t->b, *a[4];
    size_t k = t->k, stride = t->a_stride;
    size_t step = source == IN_PLACE ? t->b_stride : COLS, next = source == IN_PLACE ? VEC_LANES : t->b_stride;
    vec_mask tail = source == IN_PLACE ? t->tail : (vec_mask)-1; /* panels are full */
    pointers(a, t->a, stride, rows);
    const float *ahead = t->ahead;
    size_t ahead_step = t->ahead_step, fetch = source == IN_PLACE ? IN_PLACE_PREFETCH * step : t->fetch;
    for (size_t p = 0; p < k; p++, b += step) {
        if (rows < width) {
            vec av[ROWS];
            UNROLL for (int i = 0; i < rows; i++) av[i] = vec_set(a[i / 4][(size_t)(i % 4) * stride]);
            UNROLL for (int j = 0; j < width; j++) {
                vec bv = vec_load_mask(j == width - 1 ? tail : (vec_mask)-1, b + (size_t)j * next);
                UNROLL for (int i = 0; i < rows; i++) acc[i * width + j] = vec_fma(av[i], bv, acc[i * width + j]);
            }
        } else {
            vec bv[MAX_WIDTH];
            UNROLL for (int j = 0; j < width; j++) bv[j] =
                vec_load_mask(j == width - 1 ? tail : (vec_mask)-1, b + (size_t)j * next);
            UNROLL for (int i = 0; i < rows; i++) {
                vec av = vec_set(a[i / 4][(size_t)(i % 4) * stride]);
                UNROLL for (int j = 0; j < width; j++) acc[i * width + j] = vec_fma(av, bv[j], acc[i * width + j]);
            }
        }
        if (source == IN_PLACE)
            UNROLL for (int j = 0; j < width; j++) vec_prefetch(b, fetch + (size_t)j * next);
        if (source == PANELS && rows > 2 && FETCHES(fetch))
            UNROLL for (int j = 0; j < width; j++) vec_prefetch_l2(b + fetch + (size_t)j * next);
        if (source == FAR_PANELS) {
            vec_prefetch_l2(ahead);
            ahead += ahead_step;
        }
        UNROLL for (int q = 0; q < 4; q++) a[q]++;
    }
    tile_end(t, acc, rows, width);
}

/* Compile-time rows and registers of columns in place, DEPTH elements of each at a time: transposed they stay in registers while
 * the rows of A pass by. That takes 24 shuffles next to 8 multiply-adds a row, which wait for each other: two registers have
 * twice as many chains. Meanwhile a line of some columns further on is fetched, so that in 16 elements it is the turn of each. */
INLINE void tile_columns_run(const struct tile *t, const int rows, const int width) {
    vec acc[2 * ROWS];
    tile_begin(t, acc, rows, width);
    const float *b = t->b, *a[4];
    const size_t turns = (size_t)width * VEC_LANES * DEPTH / LINE;
    size_t k = t->k, stride = t->a_stride, b_stride = t->b_stride;
    pointers(a, t->a, stride, rows);
    for (size_t p = 0; p < k; p += DEPTH, b += DEPTH) {
        size_t turn = IN_PLACE_PREFETCH + p % LINE / DEPTH * turns;
        UNROLL for (size_t i = 0; i < turns; i++) vec_prefetch(b, (turn + i) * b_stride);
        UNROLL for (int j = 0; j < width; j++) {
            vec bv[DEPTH];
            vec_load_columns(b + (size_t)j * VEC_LANES * b_stride, b_stride, bv);
            __asm__("" : "+r"(stride)); /* or each of the addresses below is kept on the stack */
            UNROLL for (int l = 0; l < DEPTH; l++) UNROLL for (int i = 0; i < rows; i++) acc[i * width + j] =
                vec_fma(vec_set(a[i / 4][(size_t)(i % 4) * stride + (size_t)l]), bv[l], acc[i * width + j]);
            if (rows > 1 && width > 1) /* or what is read of A is kept for the next register, on the stack */
                __asm__ volatile("" : : : "memory");
        }
        UNROLL for (int q = 0; q < 4; q++) a[q] += DEPTH;
    }
    tile_end(t, acc, rows, width);
}

typedef void tile_function(const struct tile *t);

/* A tile for each number of rows and each width up to the widest whose accumulators, smaller side and one more register fit
 * in 32; one for far panels, one for columns in place. */
#define TILE(rows, width)                                                                                              \
    static void tile_##rows##_##width(const struct tile *t) {                                                          \
        tile_run(t, rows, width, PANELS);                                                                              \
    }                                                                                                                  \
    static void tile_rows_##rows##_##width(const struct tile *t) {                                                     \
        tile_run(t, rows, width, IN_PLACE);                                                                            \
    }
#define TILE_OTHERS(rows)                                                                                              \
    static void tile_far_##rows##_2(const struct tile *t) {                                                            \
        tile_run(t, rows, WIDTH, FAR_PANELS);                                                                          \
    }                                                                                                                  \
    static void tile_columns_##rows##_1_8(const struct tile *t) {                                                      \
        tile_columns_run(t, rows, 1);                                                                                  \
    }                                                                                                                  \
    static void tile_columns_##rows##_2_8(const struct tile *t) {                                                      \
        tile_columns_run(t, rows, 2);                                                                                  \
    }
#define ENTRY(rows, width)      tile_##rows##_##width,
#define ROWS_ENTRY(rows, width) tile_rows_##rows##_##width,
#define UP_TO_2(X, rows)        X(rows, 1) X(rows, 2)
#define UP_TO_3(X, rows)        UP_TO_2(X, rows) X(rows, 3)
#define UP_TO_4(X, rows)        UP_TO_3(X, rows) X(rows, 4)
#define UP_TO_5(X, rows)        UP_TO_4(X, rows) X(rows, 5)
#define UP_TO_6(X, rows)        UP_TO_5(X, rows) X(rows, 6)
#define UP_TO_8(X, rows)        UP_TO_6(X, rows) X(rows, 7) X(rows, 8)
#define EACH_ROW_COUNT(X)                                                                                              \
    X(1, 8) X(2, 8) X(3, 8) X(4, 6) X(5, 5) X(6, 4) X(7, 3) X(8, 3) X(9, 3) X(10, 2) X(11, 2) X(12, 2) X(13, 2) X(14, 2)

#define TILES(rows, widest) UP_TO_##widest(TILE, rows) TILE_OTHERS(rows)
#define ENTRIES(rows, widest)                                                                                          \
    {widest,                                                                                                           \
     {UP_TO_##widest(ENTRY, rows)},                                                                                    \
     {UP_TO_##widest(ROWS_ENTRY, rows)},                                                                               \
     tile_far_##rows##_2,                                                                                              \
     {tile_columns_##rows##_1_8, rows <= PAIR_ROWS ? tile_columns_##rows##_2_8 : NULL}},
EACH_ROW_COUNT(TILES)
static const struct {
    size_t widest;
    tile_function *run[MAX_WIDTH], *run_rows[MAX_WIDTH], *run_far, *run_columns[2];
} tiles[ROWS] = {EACH_ROW_COUNT(ENTRIES)};

/* Where nothing is to be scaled. */
static const float ones[ROWS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

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

/* Floats from a row of a panel to what is fetched meanwhile: of keys, panels that follow each other, the same row as many panels
 * later as are read at once; of values rows further on. The processor's own prefetching is level or better for longer panels,
 * and for one or two rows, which read eight panels at once. */
static size_t fetch_distance(const struct tile *t, size_t vecs) {
    if (t->k > SHORT)
        return 0;
    return t->b_stride == t->k * COLS ? vecs * t->b_stride : FETCH_ROWS * COLS;
}

/* One or two rows wait for memory alone: the beginnings of the next short panels start the processor's own prefetching, which
 * ends with each panel. */
static void fetch_beginnings(const struct tile *t, size_t vecs) {
    enum { LINES = 4 };
    if (t->k > SHORT || t->b_stride != t->k * COLS || vecs < MAX_WIDTH)
        return;
    for (size_t v = vecs; v < 2 * vecs; v++)
        for (size_t l = 0; l < LINES; l++)
            vec_prefetch_l2(t->b + v * t->b_stride + l * LINE);
    __asm__ volatile(""); /* or gcc takes a function that only fetches for one that does nothing */
}

/* One row tile over n columns, as many registers at once as fit, in nearly equal parts. */
INLINE void few_rows(struct tile *t, size_t rows, size_t n, const struct attn_gemm_args *args, const float *b,
                     const int in_place) {
    tile_function *const *run = in_place ? tiles[rows - 1].run_rows : tiles[rows - 1].run;
    size_t widest = tiles[rows - 1].widest, left = (n + VEC_LANES - 1) / VEC_LANES;
    float *c = t->c;
    for (size_t j = 0, vecs; j < n; j += vecs * VEC_LANES, left -= vecs) {
        size_t parts = (left + widest - 1) / widest;
        vecs = (left + parts - 1) / parts;
        t->b = b + (in_place ? j : j / COLS * args->panel_stride);
        t->bias = args->bias ? args->bias + j : NULL;
        t->c = c + j;
        t->tail = vec_lanes(0, parts == 1 ? n - j - (vecs - 1) * VEC_LANES : VEC_LANES);
        t->fetch = fetch_distance(t, vecs);
        if (rows <= 2 && !in_place)
            fetch_beginnings(t, vecs);
        run[vecs - 1](t);
    }
}

/* Up to WIDTH panels over all rows, in tiles of nearly equal height. Where panels are long each tile fetches its share of the
 * next two: the first half of the tiles that of the one, the second half that of the other. */
static void some_panels(struct tile *t, size_t m, size_t cols) {
    size_t most = t->a_stride % ALIAS ? ROWS : ALIASED_ROWS, count = (m + most - 1) / most, half = (count + 1) / 2;
    size_t vecs = (cols + VEC_LANES - 1) / VEC_LANES;
    bool far = t->k >= FAR && vecs == WIDTH;
    t->tail = vec_lanes(0, cols - (vecs - 1) * VEC_LANES);
    t->ahead = t->b + WIDTH * t->b_stride;
    t->ahead_step = far ? (COLS + half - 1) / half : 0;
    t->fetch = count <= 2 ? fetch_distance(t, vecs) : PREFETCH * COLS;
    for (size_t i = 0, height = m / count, taller = m % count; i < count; i++) {
        size_t rows = height + (i < taller);
        for (size_t r = rows; far && t->scale && r < 2 * rows; r++) { /* what the next tile starts from */
            vec_prefetch_l2(t->c + r * t->c_stride);
            vec_prefetch_l2(t->c + r * t->c_stride + VEC_LANES);
        }
        (far ? tiles[rows - 1].run_far : tiles[rows - 1].run[vecs - 1])(t);
        t->a += rows * t->a_stride;
        t->c += rows * t->c_stride;
        t->scale = next_scale(t->scale, rows);
        t->ahead += t->ahead_step * t->k;
        if (i + 1 == half)
            t->ahead = t->b + (WIDTH + 1) * t->b_stride;
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
    for (size_t j = 0; j < args->n; j += WIDTH * COLS) {
        t.a = a;
        t.b = b + j / COLS * args->panel_stride;
        t.bias = args->bias ? args->bias + j : NULL;
        t.c = c + j;
        t.scale = first_scale(args, i, p);
        some_panels(&t, m, args->n - j < WIDTH * COLS ? args->n - j : WIDTH * COLS);
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

/* k rows of b that lie contiguous: compile-time panels at a time, the last of `cols` columns. */
INLINE void pack_rows(const struct attn_pack_args *args, size_t j, size_t cols, const int panels) {
    vec_mask mask = vec_lanes(0, cols);
    const float *b = args->b + j;
    float *packed = args->packed + j / COLS * args->panel_stride;
    for (size_t p = 0; p < args->k; p++, b += args->k_stride, packed += COLS)
        UNROLL for (int v = 0; v < panels; v++)
            vec_store(packed + (size_t)v * args->panel_stride,
                      vec_load_mask(v == panels - 1 ? mask : (vec_mask)-1, b + v * VEC_LANES));
}

/* A panel's columns that lie contiguous, DEPTH elements of each at a time, the next panel's fetched. Returns how many of them are
 * done. */
static size_t pack_whole_columns(const struct attn_pack_args *args, const float *b, float *packed) {
    size_t p = 0;
    for (; p + DEPTH <= args->k; p += DEPTH) {
        vec r[DEPTH];
        UNROLL for (size_t i = 0; i < DEPTH; i++) vec_prefetch(b + p, (COLS + p % LINE + i) * args->n_stride);
        vec_load_columns(b + p, args->n_stride, r);
        UNROLL for (size_t i = 0; i < DEPTH; i++) vec_store(packed + (p + i) * COLS, r[i]);
    }
    return p;
}

/* The same where there may be fewer columns or elements: 16 x 16 transposed at a time. */
static void pack_columns(const struct attn_pack_args *args, size_t j, size_t cols) {
    const float *b = args->b + j * args->n_stride;
    float *packed = args->packed + j / COLS * args->panel_stride;
    for (size_t p = cols == COLS ? pack_whole_columns(args, b, packed) : 0; p < args->k; p += VEC_LANES) {
        size_t depth = args->k - p < VEC_LANES ? args->k - p : VEC_LANES;
        vec_mask mask = vec_lanes(0, depth);
        vec r[VEC_LANES];
        UNROLL for (size_t i = 0; i < VEC_LANES; i++) {
            /* Absent columns are read from the last one, under an empty mask. */
            const float *column = b + (i < cols ? i : cols - 1) * args->n_stride + p;
            r[i] = vec_load_mask(i < cols ? mask : 0, column);
        }
        vec_transpose(r);
        UNROLL for (size_t i = 0; i < VEC_LANES; i++) if (i < depth) vec_store(packed + (p + i) * COLS, r[i]);
    }
}

static void pack_any(const struct attn_pack_args *args, size_t j, size_t cols) {
    float *packed = args->packed + j / COLS * args->panel_stride;
    for (size_t p = 0; p < args->k; p++)
        for (size_t i = 0; i < COLS; i++)
            packed[p * COLS + i] = i < cols ? args->b[p * args->k_stride + (j + i) * args->n_stride] : 0.0f;
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
                         .c_stride = args->c_stride,
                         .tail = (vec_mask)-1};
}

/* n columns from j on, at most a panel's, their elements from p on: what does not fill a transposition. */
static void run_through_panel(const struct attn_gemm_args *args, size_t j, size_t n, size_t p) {
    float panel[PANEL_DEPTH * COLS];
    do {
        size_t k = args->k - p < PANEL_DEPTH ? args->k - p : PANEL_DEPTH;
        pack(&(struct attn_pack_args){.k = k,
                                      .n = n,
                                      .b = args->b + j * args->b_stride + p,
                                      .k_stride = 1,
                                      .n_stride = args->b_stride,
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

static void run_rows(const struct attn_gemm_args *args) {
    struct tile t = tile_in_place(args, args->k);
    if (args->m > 0)
        few_rows(&t, args->m, args->n, args, args->b, 1);
}

static void run_columns(const struct attn_gemm_args *args) {
    size_t k = args->k / DEPTH * DEPTH, j = 0, vecs;
    struct tile t = tile_in_place(args, k);
    if (args->m == 0)
        return;
    for (; args->n - j >= COLS; j += vecs * COLS) {
        vecs = args->m <= PAIR_ROWS && k <= PAIR_DEPTH && args->n - j >= 2 * COLS ? 2 : 1;
        t.b = args->b + j * args->b_stride;
        t.bias = args->bias ? args->bias + j : NULL;
        t.c = args->c + j;
        if (k > 0 || args->k == 0)
            tiles[args->m - 1].run_columns[vecs - 1](&t);
        for (size_t v = 0; k < args->k && v < vecs; v++)
            run_through_panel(args, j + v * COLS, COLS, k);
    }
    if (j < args->n)
        run_through_panel(args, j, args->n - j, 0);
}

const struct attn_gemm_kernel attn_avx512_gemm = {.name = "avx512_14x32",
                                                  .rows = ROWS,
                                                  .cols = COLS,
                                                  .width = WIDTH * COLS,
                                                  .pack = pack,
                                                  .run = run,
                                                  .run_rows = run_rows,
                                                  .run_columns = run_columns,
                                                  .dense_cols = 4 * COLS};
