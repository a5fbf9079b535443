/* GEMM for AVX-512.
 *
 * Tile 14 x 32: 28 accumulators, two registers of B, one broadcast of A, 31 of 32 registers. Per step of k two loads of B and
 * 14 broadcasts feed 28 multiply-adds: 16 loads in the 14 cycles that two multiply-add pipes need. Each accumulator is used
 * again after 14 cycles, far above the latency of 4. Fewer rows take more registers of B at once, across panels, so that there
 * are more chains: 1 x 64, 6 x 64, 8 x 48. A panel is as wide as the tile: few rows wait for memory, which answers soonest where
 * what is read follows each other. */
#include <stdbool.h>

#include "body/objects.h"

enum { ROWS = 14, COLS = 32, VECS = COLS / VEC_LANES, MAX_WIDTH = 8 };

/* Rows that pass over a panel of B, and how long panels may be: one, 512 KiB, and the next one that is fetched meanwhile stay
 * in an L2 of 1 MiB. A comes from L3 where it is that long, in time, since each row is read in one go; blocks of k that would keep
 * it in L2 cost more, a round trip of C each. */
enum { K_BLOCK = 4096, ROW_BLOCK = 128 };

/* Rows of A that lie a multiple of 4 KiB apart compete for the 12 lines of one cache set, B with them: fewer rows then share a
 * tile. */
enum { ALIAS = 4096 / sizeof(float), ALIASED_ROWS = 10 };

/* From so many rows on a panel's successor is worth fetching. */
enum { FAR = 384 };

/* So few floats are at home in L1. The first lines of their 12 pages are fetched at once, as many as fit in the one set to which
 * they belong: from memory the processor itself fetches ahead within a page only. */
enum { HOME_PAGES = 12 * 1024 };

/* Floats of a panel that are fetched ahead, 1 KiB, or 4 where not all are in a cache: also of the next one, which mostly follows.
 * In place as many rows or columns as memory takes to answer, which the processor does not foresee where they lie far apart; of
 * rows for a strip that a cache holds, fewer. */
enum { NEAR = 256, FURTHER = 1024, IN_PLACE_PREFETCH = 32, IN_PLACE_NEAR = 8, LINE = 16 };

/* Rows of a panel fetched ahead by more rows than wait for memory alone, up to two tiles of them and more; of long panels. Not of
 * so few floats that L1 surely holds them, and of long panels only where L2 does not. */
enum { FETCH_ROWS = 64, FETCH_TALL = 16, FETCH_LONG = 32, HOME = 8192, LARGE = 1 << 18 };

/* Elements of columns in place that are transposed at a time; of those that do not fill a transposition, in a panel. */
enum { DEPTH = 8, PANEL_DEPTH = 64 };

/* Rows fetched ahead of what is packed. */
enum { PACK_PREFETCH = 8 };

/* Tiles of half the height, of which products of 15 to 18 rows are made: their loop is unrolled by four, so that where k is short
 * the processor foresees its end. Tiles of more or fewer rows are slower for it. */
enum { HALF_LEAST = 7, HALF_MOST = 9 };

/* Up to so many rows take two registers of columns at a time, where columns are so short that two times 32 of them are at home
 * in L1. */
enum { PAIR_ROWS = 2, PAIR_DEPTH = 64 };

/* How the columns of B lie, a register each: floats from one step of k to the next, from an even register to the odd one after
 * it, and to the next even one. */
struct layout {
    size_t step, half, pair;
};

/* So few rows wait for B alone; panels of at most so many rows are short. */
enum { STRIP_ROWS = 2, STRIP_WIDTH = 4, SHORT = 256 };

/* A tile's place: rows from a and c, columns from b; the last register of each row ends at `tail` lanes. */
struct tile {
    size_t k;
    const float *a;
    size_t a_stride;
    const float *b;
    struct layout layout; /* of panels, or of rows in place */
    size_t b_stride;      /* of columns in place */
    const float *bias;
    const float *scale;  /* NULL, or what c, from which the chains then start, is multiplied by in each row */
    size_t block;        /* a strip's chains are multiplied again after so many steps, */
    const float *again;  /* by what is here for the first time, */
    size_t again_stride; /* and floats further on the next */
    float *c;
    size_t c_stride;
    vec_mask tail;
    const float *ahead; /* what the next tiles read, brought to L2: with each step of k so many floats more */
    size_t ahead_step;
    size_t fetch; /* floats from what is read to what is fetched meanwhile; in panels, or 0 */
};

static struct layout layout_of(size_t panel_stride, int narrow) {
    return narrow ? (struct layout){VEC_LANES, panel_stride, 2 * panel_stride}
                  : (struct layout){COLS, VEC_LANES, panel_stride};
}

static struct layout layout_in_place(size_t row_stride) {
    return (struct layout){row_stride, VEC_LANES, COLS};
}

/* Where register v begins. */
INLINE size_t place(struct layout layout, size_t v) {
    return v / VECS * layout.pair + v % VECS * layout.half;
}

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
    /* Few rows soon go on from what they store, and a masked store is not forwarded. */
    bool whole = rows <= STRIP_ROWS && tail == (vec_mask)-1;
    UNROLL for (int i = 0; i < rows; i++, c += c_stride) {
        UNROLL for (int j = 0; j < width - 1; j++) vec_store(c + j * VEC_LANES, acc[i * width + j]);
        float *last = c + (width - 1) * VEC_LANES;
        if (whole)
            vec_store(last, acc[i * width + width - 1]);
        else
            vec_store_mask(tail, last, acc[i * width + width - 1]);
    }
}

/* One pointer for every four rows: what the addressing modes reach with the stride and its multiples. */
INLINE void pointers(const float *p[4], const float *first, size_t stride, const int rows) {
    UNROLL for (int q = 0; q < 4; q++) {
        p[q] = first + (size_t)(q * 4 < rows ? q * 4 : 0) * stride;
        __asm__("" : "+r"(p[q])); /* or the compiler derives each from the first again, through the stack */
    }
}

/* Chains go on from what they are, scaled: where a block of a strip begins. */
INLINE void tile_rescale(vec *acc, const float *scale, const int rows, const int width) {
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < width; j++) acc[i * width + j] =
        vec_mul(acc[i * width + j], vec_set(scale[i]));
}

/* How a tile finds B: in panels; in panels whose rows further on are fetched meanwhile; in a panel of a product so large that the
 * next one is fetched meanwhile; in place. */
enum source { PANELS, FETCHED_PANELS, FAR_PANELS, IN_PLACE };

/* Where a tile has come to in k. */
struct walk {
    const float *a[4], *b, *ahead;
    size_t step, border;
    const float *again;
};

INLINE struct walk walk_begin(const struct tile *t, const int rows) {
    struct walk w = {.b = t->b, .ahead = t->ahead, .border = t->block - 1, .again = t->again};
    pointers(w.a, t->a, t->a_stride, rows);
    return w;
}

/* What a step fetches for later ones. */
INLINE void tile_fetch(const struct tile *t, struct layout layout, struct walk *w, const int rows, const int width,
                       const enum source source) {
    if (source == IN_PLACE || source == FETCHED_PANELS)
        UNROLL for (int j = 0; j < width; j++) {
            const float *next = w->b + t->fetch + place(layout, (size_t)j);
            if (source == IN_PLACE || rows <= STRIP_ROWS)
                vec_prefetch(next, 0);
            else
                vec_prefetch_l2(next);
        }
    if (source == FAR_PANELS) {
        vec_prefetch_l2(w->ahead);
        w->ahead += t->ahead_step;
    }
}

/* One step of k: compile-time rows and registers of B, which may come from several panels or follow each other in a row of B in
 * place. The smaller side of the outer product stays in registers while the larger passes by. */
INLINE void tile_step(const struct tile *t, struct layout layout, struct walk *w, vec *acc, const int rows,
                      const int width, const enum source source) {
    vec_mask tail = source == IN_PLACE ? t->tail : (vec_mask)-1; /* panels are full */
    size_t stride = t->a_stride;
    if (rows < width) {
        vec av[ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = vec_set(w->a[i / 4][(size_t)(i % 4) * stride]);
        UNROLL for (int j = 0; j < width; j++) {
            vec bv = vec_load_mask(j == width - 1 ? tail : (vec_mask)-1, w->b + place(layout, (size_t)j));
            UNROLL for (int i = 0; i < rows; i++) acc[i * width + j] = vec_fma(av[i], bv, acc[i * width + j]);
        }
    } else {
        vec bv[MAX_WIDTH];
        UNROLL for (int j = 0; j < width; j++) bv[j] =
            vec_load_mask(j == width - 1 ? tail : (vec_mask)-1, w->b + place(layout, (size_t)j));
        UNROLL for (int i = 0; i < rows; i++) {
            vec av = vec_set(w->a[i / 4][(size_t)(i % 4) * stride]);
            UNROLL for (int j = 0; j < width; j++) acc[i * width + j] = vec_fma(av, bv[j], acc[i * width + j]);
        }
    }
    tile_fetch(t, layout, w, rows, width, source);
    UNROLL for (int q = 0; q < 4; q++) w->a[q]++;
    w->b += layout.step;
    if (rows <= STRIP_ROWS && source != FAR_PANELS && __builtin_expect(w->step == w->border, 0)) {
        tile_rescale(acc, w->again, rows, width);
        w->again += t->again_stride;
        w->border = t->k - 1 - w->border > t->block ? w->border + t->block : SIZE_MAX;
    }
    w->step++;
}

INLINE void tile_run(const struct tile *t, const int rows, const int width, const enum source source) {
    vec acc[28];
    tile_begin(t, acc, rows, width);
    struct walk w = walk_begin(t, rows);
    struct layout layout = source == IN_PLACE     ? layout_in_place(t->layout.step)
                           : source == FAR_PANELS ? layout_of(0, 0)
                                                  : t->layout;
    size_t k = t->k;
    if (source == PANELS && width == VECS && rows >= HALF_LEAST && rows <= HALF_MOST) {
        _Pragma("GCC unroll 4") for (size_t p = 0; p < k; p++) tile_step(t, layout, &w, acc, rows, width, source);
    } else {
        for (size_t p = 0; p < k; p++)
            tile_step(t, layout, &w, acc, rows, width, source);
    }
    tile_end(t, acc, rows, width);
}

/* Of panels, whether or not there is something to fetch: a loop for either, not a branch in each step. */
INLINE void tile_run_panels(const struct tile *t, const int rows, const int width) {
    if (t->fetch)
        tile_run(t, rows, width, FETCHED_PANELS);
    else
        tile_run(t, rows, width, PANELS);
}

/* Compile-time rows and registers of columns in place, DEPTH elements of each at a time: transposed they stay in registers while
 * the rows of A pass by. That takes 24 shuffles next to 8 multiply-adds a row, which wait for each other: two registers have
 * twice as many chains. Meanwhile a line of some columns further on is fetched, so that in 16 elements it is the turn of each;
 * where columns follow each other (`dense`), those that the next tile reads, in the order in which they lie. */
INLINE void tile_columns_run(const struct tile *t, const int rows, const int width, const int dense) {
    vec acc[2 * ROWS];
    tile_begin(t, acc, rows, width);
    const float *b = t->b, *a[4];
    const size_t turns = (size_t)width * VEC_LANES * DEPTH / LINE;
    size_t k = t->k, stride = t->a_stride, b_stride = t->b_stride;
    const float *next = b + (size_t)width * VEC_LANES * k;
    pointers(a, t->a, stride, rows);
    for (size_t p = 0; p < k; p += DEPTH, b += DEPTH, next += turns * LINE) {
        size_t turn = IN_PLACE_PREFETCH + p % LINE / DEPTH * turns;
        UNROLL for (size_t i = 0; i < turns; i++) {
            if (dense)
                vec_prefetch(next, i * LINE);
            else
                vec_prefetch(b, (turn + i) * b_stride);
        }
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
        tile_run_panels(t, rows, width);                                                                               \
    }                                                                                                                  \
    static void tile_rows_##rows##_##width(const struct tile *t) {                                                     \
        tile_run(t, rows, width, IN_PLACE);                                                                            \
    }
#define TILE_OTHERS(rows)                                                                                              \
    static void tile_far_##rows##_2(const struct tile *t) {                                                            \
        tile_run(t, rows, VECS, FAR_PANELS);                                                                           \
    }                                                                                                                  \
    static void tile_columns_##rows##_1_8(const struct tile *t) {                                                      \
        tile_columns_run(t, rows, 1, 0);                                                                               \
    }                                                                                                                  \
    static void tile_columns_##rows##_2_8(const struct tile *t) {                                                      \
        tile_columns_run(t, rows, 2, 0);                                                                               \
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

static void tile_columns_dense_1_2_8(const struct tile *t) {
    tile_columns_run(t, 1, 2, 1);
}

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

/* The first lines of the pages of n floats that are needed soon: the processor's own prefetching ends with each. */
INLINE void fetch_pages(const float *b, size_t n) {
    enum { PAGE = 1024 };
    for (size_t i = 0; i < n; i += PAGE)
        vec_prefetch(b, i);
    __asm__ volatile(""); /* or gcc takes a function that only fetches for one that does nothing */
}

/* Tiles side by side over columns 0 .. n - 1, whole panels. */
INLINE void strip_run(struct tile t, size_t n, bool from_memory, const int rows) {
    for (size_t j = 0; j < n; j += COLS) {
        if (from_memory)
            fetch_pages(t.b + t.layout.pair, t.layout.pair);
        tile_run(&t, rows, VECS, FETCHED_PANELS);
        t.b += t.layout.pair;
        t.bias = t.bias ? t.bias + COLS : NULL;
        t.c += COLS;
    }
}

/* One or two rows wait for B alone, from L2 on. */
static bool waits(size_t rows, size_t n, size_t k) {
    return rows <= STRIP_ROWS && n * k > HOME_PAGES;
}

/* How far ahead of them, in floats. */
static size_t wait_distance(const struct attn_gemm_args *args) {
    return args->distant ? FURTHER : NEAR;
}

/* Short panels that follow each other they then read one after the other, in the order in which they lie. Returns the first
 * column that is not done. */
static size_t strip(struct tile *t, size_t rows, const struct attn_gemm_args *args) {
    size_t n = args->n / COLS * COLS;
    bool in_order = t->k <= SHORT && !args->narrow && t->layout.pair == t->k * COLS;
    if (!waits(rows, n, t->k) || !in_order || n <= STRIP_WIDTH * VEC_LANES)
        return 0;
    t->bias = args->bias;
    t->tail = (vec_mask)-1;
    t->fetch = wait_distance(args);
    if (rows == 1)
        strip_run(*t, n, args->distant > 1, 1);
    else
        strip_run(*t, n, args->distant > 1, 2);
    return n;
}

/* Floats from a row of a panel to what rows that do not wait for B alone fetch meanwhile: nothing where there are few; of keys,
 * panels that follow each other, the same row of those that are read next; of values, and of weights that may come from memory,
 * rows further on. The processor's own prefetching is level or better for other long panels. */
static size_t fetch_distance(const struct tile *t, size_t rows, size_t n, size_t vecs) {
    if (rows <= STRIP_ROWS)
        return 0;
    if (t->k > SHORT)
        return n * t->k >= LARGE ? FETCH_LONG * t->layout.step : 0;
    if (n * t->k <= HOME)
        return 0;
    return t->layout.pair == t->k * COLS ? vecs * VEC_LANES * t->k : FETCH_ROWS * t->layout.step;
}

/* The layout as seen from register v on: an odd one is a panel's second, and the next one the next panel's first. */
static struct layout layout_from(struct layout layout, size_t v) {
    if (v % VECS)
        layout.half = layout.pair - layout.half;
    return layout;
}

/* One row tile over columns j .. n - 1, as many registers at once as fit, in nearly equal parts. */
INLINE void few_rows(struct tile *t, size_t rows, size_t j, const struct attn_gemm_args *args, const int in_place) {
    tile_function *const *run = in_place ? tiles[rows - 1].run_rows : tiles[rows - 1].run;
    size_t n = args->n, left = (n - j + VEC_LANES - 1) / VEC_LANES;
    bool waiting = waits(rows, n, t->k);
    size_t widest = waiting && !in_place ? STRIP_WIDTH : tiles[rows - 1].widest;
    struct layout layout = t->layout;
    const float *b = t->b;
    float *c = t->c;
    for (size_t vecs; j < n; j += vecs * VEC_LANES, left -= vecs) {
        size_t parts = (left + widest - 1) / widest, first = j / VEC_LANES;
        vecs = (left + parts - 1) / parts;
        t->b = b + place(layout, first);
        t->layout = layout_from(layout, first);
        t->bias = args->bias ? args->bias + j : NULL;
        t->c = c + j;
        t->tail = vec_lanes(0, parts == 1 ? n - j - (vecs - 1) * VEC_LANES : VEC_LANES);
        if (in_place)
            t->fetch = (rows <= STRIP_ROWS && !args->distant ? IN_PLACE_NEAR : IN_PLACE_PREFETCH) * layout.step;
        else
            t->fetch = waiting ? wait_distance(args) : fetch_distance(t, rows, n, vecs);
        if (rows <= STRIP_ROWS && !in_place && args->distant > 1)
            for (size_t v = 0; v < vecs; v += VECS)
                fetch_pages(t->b + place(layout, v) + COLS * t->k, COLS * t->k);
        run[vecs - 1](t);
    }
}

/* Rows in tiles of nearly equal height, the first of them one row taller. */
struct tiling {
    size_t count, height, taller;
};

static struct tiling tiling_of(size_t m, size_t a_stride) {
    size_t most = a_stride % ALIAS ? ROWS : ALIASED_ROWS, count = (m + most - 1) / most;
    return (struct tiling){count, m / count, m % count};
}

/* Up to a panel's columns over all rows. Where panels are long each tile fetches its share of the next one. */
static void one_panel(struct tile *t, const struct tiling *tiling, size_t n, size_t cols) {
    size_t count = tiling->count, vecs = (cols + VEC_LANES - 1) / VEC_LANES;
    bool far = t->k >= FAR && vecs == VECS && t->layout.step == COLS;
    t->tail = vec_lanes(0, cols - (vecs - 1) * VEC_LANES);
    t->ahead = t->b + t->layout.pair;
    t->ahead_step = far ? (COLS + count - 1) / count : 0;
    t->fetch = count <= 2 ? fetch_distance(t, ROWS, n, vecs) : FETCH_TALL * t->layout.step;
    for (size_t i = 0; i < count; i++) {
        size_t rows = tiling->height + (i < tiling->taller);
        for (size_t r = rows; far && t->scale && r < 2 * rows; r++) { /* what the next tile starts from */
            vec_prefetch_l2(t->c + r * t->c_stride);
            vec_prefetch_l2(t->c + r * t->c_stride + VEC_LANES);
        }
        (far ? tiles[rows - 1].run_far : tiles[rows - 1].run[vecs - 1])(t);
        t->a += rows * t->a_stride;
        t->c += rows * t->c_stride;
        t->scale = next_scale(t->scale, rows);
        t->ahead += t->ahead_step * t->k;
    }
}

/* Where a strip's chains are scaled on the way. */
static void chain(struct tile *t, const struct attn_gemm_args *args) {
    bool several = args->block && args->block < args->k;
    t->block = several ? args->block : 0;
    t->again = several ? args->scale + args->scale_stride : NULL;
    t->again_stride = args->scale_stride;
}

static void block(const struct attn_gemm_args *args, size_t i, size_t m, size_t p, size_t k) {
    struct tile t = {.k = k,
                     .a = args->a + i * args->a_stride + p,
                     .a_stride = args->a_stride,
                     .layout = layout_of(args->panel_stride, args->narrow),
                     .scale = first_scale(args, i, p),
                     .c = args->c + i * args->c_stride,
                     .c_stride = args->c_stride};
    chain(&t, args);
    t.b = args->b + p * t.layout.step;
    if (args->n * k <= HOME_PAGES)
        fetch_pages(t.b, (args->n + COLS - 1) / COLS * t.layout.pair);
    if (m <= ROWS) {
        few_rows(&t, m, strip(&t, m, args), args, 0);
        return;
    }
    const float *b = t.b;
    struct tiling tiling = tiling_of(m, t.a_stride);
    for (size_t j = 0; j < args->n; j += COLS) {
        t.a = args->a + i * args->a_stride + p;
        t.b = b + j / COLS * t.layout.pair;
        t.bias = args->bias ? args->bias + j : NULL;
        t.scale = first_scale(args, i, p);
        t.c = args->c + i * args->c_stride + j;
        one_panel(&t, &tiling, args->n, args->n - j < COLS ? args->n - j : COLS);
    }
}

/* The part of `total` that each pass takes: nearly equal ones of at most `most`; at least 1. */
static size_t share(size_t total, size_t most) {
    if (total <= most) /* as it mostly is: two divisions less */
        return total ? total : 1;
    size_t parts = (total + most - 1) / most;
    return (total + parts - 1) / parts;
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

/* `cols` columns of a row, then the last one again. */
INLINE vec columns_from(const float *b, size_t cols) {
    vec_mask mask = vec_lanes(0, cols);
    return cols == VEC_LANES ? vec_load(b) : vec_select(mask, vec_load_mask(mask, b), vec_set(b[cols - 1]));
}

/* k rows of b that lie contiguous: compile-time registers at a time, the last of `cols` columns. */
INLINE void pack_rows(const struct attn_pack_args *args, struct layout layout, size_t j, size_t cols, const int vecs) {
    const float *b = args->b + j;
    float *packed = args->packed + place(layout, j / VEC_LANES);
    for (size_t p = 0; p < args->k; p++, b += args->k_stride, packed += layout.step) {
        UNROLL for (int v = 0; v < vecs; v++) vec_prefetch(b, PACK_PREFETCH * args->k_stride + (size_t)v * VEC_LANES);
        UNROLL for (int v = 0; v < vecs; v++) vec_store(
            packed + place(layout, (size_t)v), columns_from(b + v * VEC_LANES, v == vecs - 1 ? cols : VEC_LANES));
    }
}

/* A register's worth of columns of which there is none: the last one. */
static void pack_last(const struct attn_pack_args *args, struct layout layout, size_t j) {
    const float *b = args->b + (args->n - 1) * args->n_stride;
    float *packed = args->packed + place(layout, j / VEC_LANES);
    for (size_t p = 0; p < args->k; p++)
        vec_store(packed + p * layout.step, vec_set(b[p * args->k_stride]));
}

/* A register's columns that lie contiguous, DEPTH elements of each at a time, the next register's fetched. Returns how many of
 * them are done. */
static size_t pack_whole_columns(const struct attn_pack_args *args, const float *b, float *packed, size_t step) {
    size_t p = 0;
    for (; p + DEPTH <= args->k; p += DEPTH) {
        vec r[DEPTH];
        UNROLL for (size_t i = 0; i < DEPTH; i++) vec_prefetch(b + p, (VEC_LANES + p % LINE + i) * args->n_stride);
        vec_load_columns(b + p, args->n_stride, r);
        UNROLL for (size_t i = 0; i < DEPTH; i++) vec_store(packed + (p + i) * step, r[i]);
    }
    return p;
}

/* The same where there may be fewer columns or elements: 16 x 16 transposed at a time. */
static void pack_columns(const struct attn_pack_args *args, struct layout layout, size_t j, size_t cols) {
    const float *b = args->b + j * args->n_stride;
    float *packed = args->packed + place(layout, j / VEC_LANES);
    size_t p = cols == VEC_LANES ? pack_whole_columns(args, b, packed, layout.step) : 0;
    for (; p < args->k; p += VEC_LANES) {
        size_t depth = args->k - p < VEC_LANES ? args->k - p : VEC_LANES;
        vec_mask mask = vec_lanes(0, depth);
        vec r[VEC_LANES];
        UNROLL for (size_t i = 0; i < VEC_LANES; i++) {
            const float *column = b + (i < cols ? i : cols - 1) * args->n_stride + p;
            r[i] = vec_load_mask(mask, column);
        }
        vec_transpose(r);
        UNROLL for (size_t i = 0; i < VEC_LANES; i++) if (i < depth) vec_store(packed + (p + i) * layout.step, r[i]);
    }
}

static void pack_any(const struct attn_pack_args *args, struct layout layout, size_t j, size_t cols) {
    float *packed = args->packed + place(layout, j / VEC_LANES);
    for (size_t p = 0; p < args->k; p++)
        for (size_t i = 0; i < VEC_LANES; i++)
            packed[p * layout.step + i] =
                args->b[p * args->k_stride + (j + (i < cols ? i : cols - 1)) * args->n_stride];
}

static void pack(const struct attn_pack_args *args) {
    struct layout layout = layout_of(args->panel_stride, args->narrow);
    size_t j = 0;
    for (; args->n_stride == 1 && j + 8 * VEC_LANES <= args->n; j += 8 * VEC_LANES)
        pack_rows(args, layout, j, VEC_LANES, 8);
    for (; args->n_stride == 1 && j + 4 * VEC_LANES <= args->n; j += 4 * VEC_LANES)
        pack_rows(args, layout, j, VEC_LANES, 4);
    for (; j < args->n; j += VEC_LANES) {
        size_t cols = args->n - j < VEC_LANES ? args->n - j : VEC_LANES;
        if (args->n_stride == 1)
            pack_rows(args, layout, j, cols, 1);
        else if (args->k_stride == 1)
            pack_columns(args, layout, j, cols);
        else
            pack_any(args, layout, j, cols);
    }
    if (j % layout.step) /* the other half of the last panel */
        pack_last(args, layout, j);
}

static struct tile tile_in_place(const struct attn_gemm_args *args, size_t k) {
    return (struct tile){.k = k,
                         .a = args->a,
                         .a_stride = args->a_stride,
                         .b = args->b,
                         .layout = layout_in_place(args->b_stride),
                         .b_stride = args->b_stride,
                         .scale = first_scale(args, 0, 0),
                         .c = args->c,
                         .c_stride = args->c_stride,
                         .tail = (vec_mask)-1};
}

/* n columns from j on, at most a register's, their elements from p on: what does not fill a transposition. Out of line,
 * or the panels of several calls of it are on the stack at once. */
static __attribute__((noinline)) void run_through_panel(const struct attn_gemm_args *args, size_t j, size_t n,
                                                        size_t p) {
    float panel[PANEL_DEPTH * VEC_LANES];
    do {
        size_t k = args->k - p < PANEL_DEPTH ? args->k - p : PANEL_DEPTH;
        pack(&(struct attn_pack_args){.k = k,
                                      .n = n,
                                      .b = args->b + j * args->b_stride + p,
                                      .k_stride = 1,
                                      .n_stride = args->b_stride,
                                      .packed = panel,
                                      .narrow = 1});
        run(&(struct attn_gemm_args){.m = args->m,
                                     .n = n,
                                     .k = k,
                                     .a = args->a + p,
                                     .a_stride = args->a_stride,
                                     .b = panel,
                                     .narrow = 1,
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
    chain(&t, args);
    if (args->m > 0)
        few_rows(&t, args->m, 0, args, 1);
}

/* `vecs` registers of whole columns at a time. More rows than one do not wait for the order in which lines come; from memory as
 * many streams as there are columns come sooner. */
static tile_function *columns_tile(const struct attn_gemm_args *args, size_t vecs) {
    bool dense = args->b_stride == args->k && args->k % DEPTH == 0 && !args->distant;
    return args->m == 1 && vecs == 2 && dense ? tile_columns_dense_1_2_8 : tiles[args->m - 1].run_columns[vecs - 1];
}

static void run_columns(const struct attn_gemm_args *args) {
    size_t k = args->k / DEPTH * DEPTH, j = 0, vecs;
    struct tile t = tile_in_place(args, k);
    if (args->m == 0)
        return;
    for (; args->n - j >= VEC_LANES; j += vecs * VEC_LANES) {
        vecs = args->m <= PAIR_ROWS && k <= PAIR_DEPTH && args->n - j >= 2 * VEC_LANES ? 2 : 1;
        t.b = args->b + j * args->b_stride;
        t.bias = args->bias ? args->bias + j : NULL;
        t.c = args->c + j;
        if (k > 0 || args->k == 0)
            columns_tile(args, vecs)(&t);
        for (size_t v = 0; k < args->k && v < vecs; v++)
            run_through_panel(args, j + v * VEC_LANES, VEC_LANES, k);
    }
    if (j < args->n)
        run_through_panel(args, j, args->n - j, 0);
}

const struct attn_gemm_kernel attn_avx512_gemm = {.name = "avx512_14x32",
                                                  .rows = ROWS,
                                                  .cols = COLS,
                                                  .pack = pack,
                                                  .run = run,
                                                  .run_rows = run_rows,
                                                  .run_columns = run_columns,
                                                  .dense_cols = 8 * VEC_LANES,
                                                  .chained_rows = STRIP_ROWS};
