/* GEMM of class BF16. Two elements of a column of B that follow each other in k, a pair, lie in 32 bits, as those of a
 * row of A do. A panel of pairs looks like a panel of floats with half as many rows, and is packed as one.
 *
 * pairs.h gives, for each ISA:
 *
 *     PAIRS_NAME, ROWS, COLS                     the kernel's name, the largest tile
 *     EACH_ROW_COUNT(X)                          X(rows, registers) for each number of rows up to ROWS
 *     PAIR_A, struct a_row                       the type of A's elements
 *     PAIR_STEPS                                 multiply-adds that a pair takes
 *     pair_b, pair_a                             operands of multiply-add number s
 *     pair_b_few                                 pair_b of a whole pair where registers are left
 *     pair_multiply_add
 *     TAILS                                      1 where loads and stores of the first lanes are as fast as whole ones
 *     NARROWS, pair_store_narrow                 whether C may be BF16
 *     flush_begin, flush_end                     around all arithmetic: denormal numbers count as 0
 *     PAIRS_FLUSH                                1 where multiply-adds take denormal numbers for 0 by themselves, and only a
 *                                                product that starts from C needs these; else not defined
 *
 * Where A is multiplied by lane (PAIRS_BY_LANE) pairs_lanes.h has the tiles, and asks for others. Where taking pairs
 * apart keeps ports from the multiply-adds (PAIRS_WIDE), many rows read B as floats: pairs_wide.h. */
#include <stdbool.h>
#include <stdint.h>

#include "pairs.h"

#define TILES_FN(name) ISA_FN(pairs_##name)
#define MOST_ROWS      ROWS
#define EACH_TILE      EACH_ROW_COUNT
typedef PAIR_A tile_element;

#include "body/gemm_tiles.h"
#include "body/panel.h"

#ifndef PAIRS_FLUSH
#define PAIRS_FLUSH 0
#endif

/* Pairs that rows take at once: as many bytes as the kernel of class F32 takes. */
enum { PAIR_BLOCK = 1024 };

/* Prefetch distances in panels, in units of 32 bits: few rows, which wait for B; and where B is not in L1. */
enum { AHEAD = 256, AHEAD_ROWS = 16 };

/* The prefetch distance of packing, in rows that follow each other in memory or not. Arm's processors fetch by
 * themselves. */
#ifdef PAIRS_BY_LANE
enum { PACK_AHEAD = 0 };
#else
enum { PACK_AHEAD = 32 };
#endif

/* How panels lie, in units of 32 bits: from pair to pair, and from panel to panel. A panel of ATTN_LANES columns,
 * which is narrower than the kernel's, counts as half of one: `next` is the distance of the halves. */
struct layout {
    size_t step, next, panel;
};

INLINE struct layout layout_of(const struct attn_panels *b) {
    size_t stride = b->stride / sizeof(float);
    return b->cols < COLS ? (struct layout){b->cols, stride, 2 * stride}
                          : (struct layout){COLS, ATTN_LANES < COLS ? ATTN_LANES : 0, stride};
}

/* The unit of row `row` and column `column`. */
INLINE float *unit_at(const struct attn_panels *b, size_t row, size_t column) {
    size_t panel = panel_number(b, column);
    return (float *)((char *)b->data + panel * b->stride) + row / 2 * b->cols + (column - panel * b->cols);
}

/* Compile-time rows and registers, every column there. */
struct tile {
    size_t pairs;     /* whole ones */
    bool first, last; /* before them the second half of one, after them the first half of one */
    const PAIR_A *a;  /* the first element of the product */
    size_t a_stride;  /* elements */
    const float *b;   /* the first unit */
    struct layout layout;
    const float *bias, *scale; /* each may be NULL; scale: chains start from c */
    void *c;                   /* floats; BF16 where narrow */
    size_t c_stride;           /* elements */
    bool narrow;
    bool wide;      /* b has floats, a row after the other */
    float *widened; /* where PAIRS_WIDE: where b's pairs are left as floats, `widened_step` from one to the next */
    size_t widened_step;
    vec_tail tail[VECS];     /* where TAILS: the columns that are there */
    size_t fetch;            /* units ahead */
    const struct tile *next; /* more pairs of the same rows and columns, which only say where these lie; or NULL */
};

typedef void tile_function(const struct tile *t);

INLINE vec_tail tail_of(const struct tile *t, const int j, const int width) {
    return TAILS && width == VECS ? t->tail[j] : VEC_WHOLE;
}

INLINE void tile_begin(const struct tile *t, vec *acc, const int rows, const int width) {
    const float *c = t->c;
    UNROLL for (int j = 0; j < width; j++) {
        vec start = t->bias ? vec_load_tail(tail_of(t, j, width), t->bias + j * VEC_LANES) : vec_zero();
        UNROLL for (int i = 0; i < rows; i++) acc[i * width + j] = start;
    }
    if (t->scale)
        UNROLL for (int i = 0; i < rows; i++) {
            vec scale = vec_set(t->scale[i]);
            UNROLL for (int j = 0; j < width; j++) acc[i * width + j] =
                vec_mul(vec_load_tail(tail_of(t, j, width), c + (size_t)i * t->c_stride + j * VEC_LANES), scale);
        }
}

INLINE void tile_end(const struct tile *t, const vec *acc, const int rows, const int width) {
    if (NARROWS && t->narrow) {
        uint16_t *c = t->c;
        UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < width; j++)
            pair_store_narrow(tail_of(t, j, width), c + (size_t)i * t->c_stride + j * VEC_LANES, acc[i * width + j]);
        return;
    }
    float *c = t->c;
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < width; j++)
        vec_store_tail(tail_of(t, j, width), c + (size_t)i * t->c_stride + j * VEC_LANES, acc[i * width + j]);
}

#ifdef PAIRS_BY_LANE
#include "body/pairs_lanes.h"
#else
/* Where register v begins: of ATTN_LANES columns in turn. */
INLINE size_t place(struct layout layout, size_t v) {
    const size_t half = ATTN_LANES / VEC_LANES;
    size_t panel = v / VECS * layout.panel, within = v % VECS;
    return panel + (VECS > half ? within / half * layout.next + within % half * VEC_LANES : within * VEC_LANES);
}

/* Leaves a half of a pair as floats. */
INLINE void leave_widened(float *widened, const int s, const vec *x) {
#ifdef PAIRS_WIDE
    UNROLL for (int j = 0; j < VECS; j++) vec_store(widened + (s == 0 ? COLS : 0) + j * VEC_LANES, x[j]);
#else
    (void)widened, (void)s, (void)x;
#endif
}

/* One pair of each row and column. */
INLINE void tile_step(const PAIR_A *const *a, size_t a_stride, const float *b, struct layout layout, float *widened,
                      vec *acc, const int rows, const int width) {
    if (rows <= FEW_ROWS) { /* registers are left: each of B is read once */
        vec av[FEW_ROWS * PAIR_STEPS];
        UNROLL for (int i = 0; i < rows * PAIR_STEPS; i++) av[i] =
            pair_a(a[0] + (size_t)(i / PAIR_STEPS) * a_stride, i % PAIR_STEPS, 0);
        UNROLL for (int j = 0; j < width; j++) {
            vec unit = vec_load(b + place(layout, (size_t)j));
            UNROLL for (int s = 0; s < PAIR_STEPS; s++) {
                vec bv = pair_b_few(unit, s);
                UNROLL for (int i = 0; i < rows; i++) acc[i * width + j] =
                    pair_multiply_add(av[i * PAIR_STEPS + s], bv, acc[i * width + j]);
            }
        }
        return;
    }
    UNROLL for (int s = 0; s < PAIR_STEPS; s++) {
        vec bv[WIDEST];
        UNROLL for (int j = 0; j < width; j++) bv[j] = pair_b(vec_load(b + place(layout, (size_t)j)), s, 0);
        leave_widened(widened, s, bv);
        UNROLL for (int i = 0; i < rows; i++) {
            vec av = pair_a(a[i / 4] + (size_t)(i % 4) * a_stride, s, 0);
            UNROLL for (int j = 0; j < width; j++) acc[i * width + j] =
                pair_multiply_add(av, bv[j], acc[i * width + j]);
#if defined(__clang__) && defined(__x86_64__) /* which else reads all of A first, and keeps it on the stack */
            UNROLL for (int j = 0; j < width; j++) __asm__ volatile("" : "+v"(acc[i * width + j]) : : "memory");
#endif
        }
        if (s + 1 < PAIR_STEPS) /* else gcc keeps operands of both on the stack */
            __asm__ volatile("" : : : "memory");
    }
}

INLINE void tile_run(const struct tile *t, const int rows, const int width) {
    vec acc[MOST_VECS];
    const PAIR_A *a[POINTERS];
    const struct tile *from = t;
    tile_begin(t, acc, rows, width);
    do {
        const float *b = from->b;
        size_t a_stride = from->a_stride, step = from->layout.step, pairs = from->pairs, fetch = from->fetch;
        struct layout layout = from->layout;
        float *widened = from->widened;
        size_t widened_step = from->widened_step;
        point_to_rows(a, from->a, a_stride, rows);
        for (size_t p = 0; p < pairs; p++) {
            tile_step(a, a_stride, b, layout, widened, acc, rows, width);
            UNROLL for (int j = 0; j < width * VEC_LANES; j += 16)
                vec_prefetch(b + place(layout, (size_t)(j / VEC_LANES)), fetch);
            UNROLL for (int q = 0; q < POINTERS; q++) a[q] += 2;
            b += step;
            widened += widened_step;
        }
        from = from->next;
    } while (from);
    tile_end(t, acc, rows, width);
}
#endif

#ifdef PAIRS_WIDE
#include "body/pairs_wide.h"
#else
enum { WIDE_BLOCK = 0 };
#endif

/* ---- A product ---- */

/* Where nothing is to be scaled. */
static const float ones[ATTN_MAX_ROWS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                          1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

/* Pairs p .. p + count - 1 of the pairs that the product's rows of B lie in. */
struct stretch {
    size_t p, count;
    bool first, last; /* of its first pair the second half only; of its last one the first half only */
};

struct product {
    const struct attn_gemm_args *args;
    const float *b; /* the first pair of its rows and columns */
    struct layout layout;
    size_t before; /* 1 where the product's first row of B is the second of a pair */
    size_t pairs;  /* that its rows lie in */
    size_t depth;  /* of them, taken at once */
    bool last;     /* of the last pair the first half only */
    bool wide;     /* B has floats */
    /* Where PAIRS_WIDE: memory for floats of `depth` pairs of a panel, which its first tile leaves for those below, and
     * floats from pair to pair; or for those of one pair, and 0: then all tiles widen. */
    float *widened;
    size_t widened_step;
    struct stretch stretch;
};

/* Member by member and in place: what an initialiser leaves out gcc clears first, and a result it copies, in loads that
 * wait for the stores of its members; either takes 30 cycles. */
static __attribute__((noinline)) void ISA_FN(pairs_place)(struct tile *t, const struct product *product, size_t i,
                                                          size_t j) {
    const struct attn_gemm_args *args = product->args;
    const struct stretch *stretch = &product->stretch;
    size_t element = 2 * stretch->p - (stretch->p > 0 ? product->before : 0);
    size_t c_bytes = args->c_type != ATTN_F32 ? sizeof(uint16_t) : sizeof(float);
    bool starts_from_c = stretch->p > 0 || args->start == ATTN_START_C;
    t->pairs = stretch->count - stretch->first - stretch->last;
    t->first = stretch->first;
    t->last = stretch->last;
    t->a = (const PAIR_A *)((const char *)args->a + i * args->a_stride) + element;
    t->a_stride = args->a_stride / sizeof(PAIR_A);
    t->b = product->b + j / COLS * product->layout.panel + stretch->p * product->layout.step;
    t->layout = product->layout;
    t->bias = !starts_from_c && args->start == ATTN_START_BIAS ? args->factors + j : NULL;
    t->scale = starts_from_c ? ones : args->start == ATTN_START_SCALE ? args->factors + i : NULL;
    t->c = (char *)args->c + i * args->c_stride + j * c_bytes;
    t->c_stride = args->c_stride / c_bytes;
    t->narrow = args->c_type != ATTN_F32;
    t->wide = product->wide;
    t->widened = product->widened;
    t->widened_step = product->widened_step;
    UNROLL for (int v = 0; v < VECS; v++) t->tail[v] = VEC_WHOLE;
    t->fetch = product->widened_step ? product->layout.panel : AHEAD_ROWS * product->layout.step;
    t->next = NULL;
}

INLINE void tile_place(struct tile *t, const struct product *product, size_t i, size_t j) {
    ISA_FN(pairs_place)(t, product, i, j);
}

#ifdef PAIRS_BY_LANE
INLINE void run_tile(const struct tile *t, tile_function *run, size_t rows, size_t cols) {
    (void)rows, (void)cols;
    run(t);
}
#else
/* Half a pair of each row and column, as a whole one whose other half is +0 on both sides. */
struct half {
    PAIR_A a[2 * MOST_ROWS];
    float b[WIDEST * VEC_LANES];
};

/* Where the pairs of `to` lie: in `half`, which takes element `number` of the pair whose element of A is at a and whose
 * units are at b. */
static __attribute__((noinline)) void ISA_FN(pairs_take_half)(struct half *half, const struct tile *t, const PAIR_A *a,
                                                              const float *b, size_t rows, size_t cols, size_t number,
                                                              struct tile *to) {
    const vec_int kept = vec_int_set(number ? -0x10000 : 0xffff);
    for (size_t i = 0; i < rows; i++) {
        half->a[2 * i + !number] = 0;
        half->a[2 * i + number] = a[i * t->a_stride];
    }
    for (size_t j = 0; j < cols / VEC_LANES; j++)
        vec_store(half->b + j * VEC_LANES,
                  vec_from_bits(vec_int_and(vec_bits(vec_load(b + place(t->layout, j))), kept)));
    to->pairs = 1;
    to->a = half->a;
    to->a_stride = 2;
    to->b = half->b;
    to->layout = (struct layout){COLS, ATTN_LANES, COLS};
    to->fetch = 0;
}

/* A tile that begins or ends within a pair. */
static __attribute__((noinline)) void ISA_FN(pairs_run_halves)(const struct tile *t, tile_function *run, size_t rows,
                                                               size_t cols) {
    struct half first_half, last_half;
    struct tile whole = *t, first = *t, last = *t;
    whole.a += t->first;
    whole.b += t->first ? t->layout.step : 0;
    whole.widened += t->first * t->widened_step;
    whole.next = t->last ? &last : NULL;
    first.next = &whole;
    last.widened = whole.widened + t->pairs * t->widened_step;
    if (t->first)
        ISA_FN(pairs_take_half)(&first_half, t, t->a, t->b, rows, cols, 1, &first);
    const PAIR_A *a = whole.a + 2 * t->pairs;
    const float *b = whole.b + t->pairs * t->layout.step;
    if (t->last)
        ISA_FN(pairs_take_half)(&last_half, t, a, b, rows, cols, 0, &last);
    run(t->first ? &first : &whole);
}

INLINE void run_tile(const struct tile *t, tile_function *run, size_t rows, size_t cols) {
#ifdef PAIRS_WIDE
    if (t->wide) {
        ISA_FN(pairs_run_wide)(t, rows, cols);
        return;
    }
#endif
    if (t->first || t->last)
        ISA_FN(pairs_run_halves)(t, run, rows, cols);
    else
        run(t);
}
#endif

INLINE bool tile_starts_from_c(const struct tile *t) {
    return t->scale != NULL;
}

INLINE void tile_leave_columns(struct tile *t, size_t cols) {
    if (cols <= ATTN_LANES) /* the other half of a narrow panel is not there */
        t->layout.next = 0;
    for (size_t v = 0; TAILS && v < VECS; v++) {
        size_t left = cols - (cols < v * VEC_LANES ? cols : v * VEC_LANES);
        t->tail[v] = vec_tail_of(left < VEC_LANES ? left : VEC_LANES);
    }
}

INLINE void tile_go_down(struct tile *t, size_t rows) {
    size_t c_bytes = t->narrow ? sizeof(uint16_t) : sizeof(float);
    t->a += rows * t->a_stride;
    t->c = (char *)t->c + rows * t->c_stride * c_bytes;
    t->scale = t->scale && t->scale != ones ? t->scale + rows : t->scale;
    if (t->widened_step > 0) {
        t->b = t->widened;
        t->wide = true;
    }
}

/* Pairs from p on. */
INLINE void take_stretch(struct product *product, size_t p) {
    size_t left = product->pairs - p, count = left < product->depth ? left : product->depth;
    product->stretch = (struct stretch){
        .p = p, .count = count, .first = p == 0 && product->before, .last = product->last && count == left};
}

INLINE void product_begin(struct product *product) {
    take_stretch(product, 0);
}

INLINE bool product_go_on(struct product *product) {
    size_t p = product->stretch.p + product->stretch.count;
    if (p == product->pairs)
        return false;
    take_stretch(product, p);
    return true;
}

#include "body/gemm_loops.h"

INLINE struct product product_of(const struct attn_gemm_args *args, size_t block) {
    size_t before = args->k > 0 ? args->row % 2 : 0, end = before + args->k, pairs = (end + 1) / 2;
    return (struct product){.args = args,
                            .b = unit_at(&args->b, args->row, args->column),
                            .layout = layout_of(&args->b),
                            .before = before,
                            .pairs = pairs,
                            .depth = share(pairs, block + before),
                            .last = end % 2};
}

INLINE void multiply_flushed(struct product *product) {
    const struct attn_gemm_args *args = product->args;
    if (args->k == 0 && args->start == ATTN_START_C)
        return; /* denormal numbers too stay as they are */
    bool starts_from_c = args->start == ATTN_START_C || args->start == ATTN_START_SCALE;
    bool goes_on = product->depth < product->pairs; /* from C, after the first block of k */
    if (PAIRS_FLUSH && !starts_from_c && !goes_on) {
        ISA_FN(pairs_multiply)(product);
        return;
    }
    flush_state state = flush_begin();
    ISA_FN(pairs_multiply)(product);
    flush_end(state);
}

static void ISA_FN(pairs_run)(const struct attn_gemm_args *args) {
    bool widens = WIDE_BLOCK > 0 && args->widened && args->m > ROWS;
    struct product product = product_of(args, widens ? WIDE_BLOCK : PAIR_BLOCK);
    float pair[2 * COLS];
    product.widened = widens ? args->widened : pair;
    product.widened_step = widens ? 2 * COLS : 0;
    multiply_flushed(&product);
}

/* ---- Packing ---- */

/* One element after the other: a half of a unit. */
static void ISA_FN(pairs_pack_any)(const struct attn_pack_args *args, size_t p0, size_t p1, size_t j0, size_t j1) {
    if (p0 == p1)
        return;
    for (size_t j = j0; j < j1; j++) {
        uint16_t *column = (uint16_t *)unit_at(&args->packed, 0, args->column + j);
        for (size_t p = p0; p < p1; p++) {
            size_t row = args->row + p;
            memcpy(column + row / 2 * 2 * args->packed.cols + row % 2,
                   (const char *)args->b + p * args->k_stride + j * args->n_stride, sizeof *column);
        }
    }
}

/* Copies of the last column, which is packed, fill up its panel, if that begins here: what was there, infinities
 * perhaps, is multiplied too. */
static void ISA_FN(pairs_pack_beyond)(const struct attn_pack_args *args) {
    size_t cols = args->packed.cols, end = args->column + args->n, within = end % cols;
    if (args->n == 0 || args->k == 0 || within == 0 || end - within < args->column)
        return;
    const size_t pairs = (args->row % 2 + args->k + 1) / 2;
    float *unit = unit_at(&args->packed, args->row, end - 1);
    for (size_t p = 0; p < pairs; p++, unit += cols)
        for (size_t i = 1; i <= cols - within; i++)
            memcpy(unit + i, unit, sizeof *unit);
}

/* Columns whose elements follow each other: pairs that are already there, as floats of a transposition are. The first
 * column begins a panel. */
static void ISA_FN(pairs_pack_columns)(const struct attn_pack_args *args, size_t j, size_t n) {
    struct attn_panels panels = args->packed;
    panels.data = unit_at(&panels, args->row, args->column + j);
    PAIRS_PACK(&(struct attn_pack_args){.k = args->k / 2,
                                        .n = n,
                                        .b = (const char *)args->b + j * args->n_stride,
                                        .k_stride = sizeof(float),
                                        .n_stride = args->n_stride,
                                        .packed = panels});
}

/* Rows p, p + 1 and so on, whose columns follow each other: two at a time, whole registers of the first n columns. The
 * first column begins a narrow panel, or half of a wide one. What is read so many rows later is fetched. */
static void ISA_FN(pairs_pack_rows)(const struct attn_pack_args *args, size_t p, size_t n) {
    enum { LINE_ELEMENTS = 64 / sizeof(uint16_t) };
    const size_t cols = args->packed.cols, stride = args->k_stride, ahead = PACK_AHEAD * stride;
    const size_t next = args->packed.stride / sizeof(float) - cols, first = args->column % cols;
    float *pair = unit_at(&args->packed, args->row + p, args->column);
    for (; p + 2 <= args->k; p += 2, pair += cols) {
        const uint16_t *even = (const uint16_t *)((const char *)args->b + p * stride);
        const uint16_t *odd = (const uint16_t *)((const char *)even + stride);
        float *unit = pair;
        size_t column = first, j = 0;
        for (; j + ATTN_LANES <= n; j += ATTN_LANES) {
            if (PACK_AHEAD > 0 && j % LINE_ELEMENTS == 0) {
                vec_prefetch((const float *)(const void *)((const char *)(even + j) + ahead), 0);
                vec_prefetch((const float *)(const void *)((const char *)(odd + j) + ahead), 0);
            }
            UNROLL for (size_t v = 0; v < ATTN_LANES; v += VEC_LANES)
                vec_store(unit + v, pair_interleave(even + j + v, odd + j + v));
            unit += ATTN_LANES;
            column += ATTN_LANES;
            if (column == cols) {
                unit += next;
                column = 0;
            }
        }
        for (; j < n; j += VEC_LANES, unit += VEC_LANES)
            vec_store(unit, pair_interleave(even + j, odd + j));
    }
}

static void ISA_FN(pairs_pack)(const struct attn_pack_args *args) {
    size_t cols = args->packed.cols, k = args->k, n = args->n;
    if (args->k_stride == sizeof(uint16_t) && args->row % 2 == 0 && args->n_stride % sizeof(float) == 0) {
        size_t beside = (cols - args->column % cols) % cols, last = k / 2 * 2;
        beside = beside < n ? beside : n;
        ISA_FN(pairs_pack_any)(args, 0, k, 0, beside);
        if (beside < n && last > 0)
            ISA_FN(pairs_pack_columns)(args, beside, n - beside);
        ISA_FN(pairs_pack_any)(args, last, k, beside, n);
    } else if (args->n_stride == sizeof(uint16_t) && args->column % ATTN_LANES == 0) {
        size_t p = args->row % 2 < k ? args->row % 2 : k, end = p + (k - p) / 2 * 2, whole = n / VEC_LANES * VEC_LANES;
        ISA_FN(pairs_pack_any)(args, 0, p, 0, n);
        ISA_FN(pairs_pack_rows)(args, p, whole);
        ISA_FN(pairs_pack_any)(args, p, end, whole, n);
        ISA_FN(pairs_pack_any)(args, end, k, 0, n);
    } else {
        ISA_FN(pairs_pack_any)(args, 0, k, 0, n);
    }
    ISA_FN(pairs_pack_beyond)(args);
}

/* Both elements of the units of a register; that of a row outside the range, and lanes outside the mask, count as 0. */
INLINE vec_magnitude larger_of_pair(vec_magnitude m, const float *units, vec_mask mask, bool even, bool odd) {
    vec x = vec_select(mask, vec_load(units), vec_zero());
    vec_magnitude low = vec_magnitude_of(vec_from_bits(vec_int_shift_left(vec_bits(x), 16)));
    vec high = vec_from_bits(vec_int_and(vec_bits(x), vec_int_set(-0x10000)));
    m = odd ? vec_larger(m, vec_magnitude_of(high)) : m;
    return even ? vec_larger(m, low) : m;
}

static int ISA_FN(pairs_finite)(const struct attn_panels *b, size_t row, size_t k, size_t n) {
    size_t end = row + k;
    for (size_t j = 0; k > 0 && j < n; j += VEC_LANES) {
        const float *units = unit_at(b, row, j);
        vec_mask mask = vec_lanes(0, n - j < VEC_LANES ? n - j : VEC_LANES);
        vec_magnitude m = vec_magnitude_of(vec_zero());
        for (size_t p = row / 2 * 2; p < end; p += 2, units += b->cols)
            m = larger_of_pair(m, units, mask, p >= row, p + 1 < end);
        if (!vec_all_finite(m))
            return 0;
    }
    return 1;
}

#ifdef PAIRS_WIDE
/* ---- B of floats ---- */

static void ISA_FN(pairs_wide_run)(const struct attn_gemm_args *args) {
    struct product product = product_of(args, WIDE_BLOCK);
    product.wide = true;
    product.layout.step = 2 * COLS;
    product.b += args->row / 2 * COLS;
    multiply_flushed(&product);
}

INLINE float *float_at(const struct attn_panels *b, size_t row, size_t column) {
    return (float *)((char *)b->data + column / COLS * b->stride) + row * COLS + column % COLS;
}

static __attribute__((noinline)) void ISA_FN(pairs_wide_pack_any)(const struct attn_pack_args *args, size_t p0,
                                                                  size_t p1, size_t j0, size_t j1) {
    for (size_t j = j0; j < j1; j++) {
        const char *b = (const char *)args->b + j * args->n_stride;
        float *column = float_at(&args->packed, args->row, args->column + j);
        for (size_t p = p0; p < p1; p++) {
            uint16_t x;
            memcpy(&x, b + p * args->k_stride, sizeof x);
            uint32_t bits = (uint32_t)x << 16;
            memcpy(column + p * COLS, &bits, sizeof bits);
        }
    }
}

/* A register's columns from j on, whose elements follow each other: pairs are transposed, then taken apart. */
static void ISA_FN(pairs_wide_pack_columns)(const struct attn_pack_args *args, size_t j) {
    enum { DEPTH = 2 * VEC_LANES };
    const char *b = (const char *)args->b + j * args->n_stride;
    float *to = float_at(&args->packed, args->row, args->column + j);
    size_t p = 0;
    for (; p + DEPTH <= args->k; p += DEPTH, b += DEPTH * sizeof(uint16_t)) {
        vec r[VEC_LANES];
        UNROLL for (size_t i = 0; i < VEC_LANES; i++) {
            const float *pairs = (const float *)(const void *)(b + i * args->n_stride);
            vec_prefetch(pairs, VEC_LANES * args->n_stride / sizeof(float));
            r[i] = vec_load(pairs);
        }
        vec_transpose(r);
        UNROLL for (size_t i = 0; i < VEC_LANES; i++, to += 2 * COLS) {
            vec_store(to, pair_lower(r[i]));
            vec_store(to + COLS, pair_upper(r[i]));
        }
    }
    ISA_FN(pairs_wide_pack_any)(args, p, args->k, j, j + VEC_LANES);
}

/* A panel's columns from j on, of rows whose columns follow each other. */
static void ISA_FN(pairs_wide_pack_rows)(const struct attn_pack_args *args, size_t j) {
    const char *b = (const char *)args->b + j * sizeof(uint16_t);
    float *to = float_at(&args->packed, args->row, args->column + j);
    for (size_t p = 0; p < args->k; p++, b += args->k_stride, to += COLS) {
        vec_prefetch((const float *)(const void *)b, WIDE_FETCH * args->k_stride / sizeof(float));
        UNROLL for (size_t v = 0; v < VECS; v++) vec_store(
            to + v * VEC_LANES, vec_from_bf16(vec_load_u16((const uint16_t *)(const void *)b + v * VEC_LANES)));
    }
}

/* As pairs_pack_beyond. */
static void ISA_FN(pairs_wide_pack_beyond)(const struct attn_pack_args *args) {
    size_t end = args->column + args->n, within = end % COLS;
    if (args->n == 0 || args->k == 0 || within == 0 || end - within < args->column)
        return;
    float *last = float_at(&args->packed, args->row, end - 1);
    for (size_t p = 0; p < args->k; p++, last += COLS)
        for (size_t i = 1; i <= COLS - within; i++)
            memcpy(last + i, last, sizeof *last);
}

static void ISA_FN(pairs_wide_pack)(const struct attn_pack_args *args) {
    bool columns = args->k_stride == sizeof(uint16_t), rows = args->n_stride == sizeof(uint16_t);
    size_t n = args->n, width = columns ? VEC_LANES : COLS, j = (COLS - args->column % COLS) % width;
    j = j < n ? j : n;
    ISA_FN(pairs_wide_pack_any)(args, 0, args->k, 0, j);
    for (; (columns || rows) && j + width <= n; j += width)
        (columns ? ISA_FN(pairs_wide_pack_columns) : ISA_FN(pairs_wide_pack_rows))(args, j);
    ISA_FN(pairs_wide_pack_any)(args, 0, args->k, j, n);
    ISA_FN(pairs_wide_pack_beyond)(args);
}

static int ISA_FN(pairs_wide_finite)(const struct attn_panels *b, size_t row, size_t k, size_t n) {
    return ISA_OBJECT(gemm_f32).finite(b, row, k, n);
}

const struct attn_gemm_kernel ISA_OBJECT(gemm_bf16_wide) = {
    .name = PAIRS_NAME "_wide",
    .arithmetic = ATTN_CLASS_BF16,
    .a = PAIR_A_TYPE,
    .c = ATTN_F32,
    .b = {.type = ATTN_BF16, .cols = COLS, .k_unit = 1, .wide = 1},
    .rows = ROWS,
    .pack = ISA_FN(pairs_wide_pack),
    .finite = ISA_FN(pairs_wide_finite),
    .run = ISA_FN(pairs_wide_run)};
#define PAIRS_OF_FLOATS &ISA_OBJECT(gemm_bf16_wide)
#else
#define PAIRS_OF_FLOATS NULL
#endif

const struct attn_gemm_kernel ISA_OBJECT(gemm_bf16) = {.name = PAIRS_NAME,
                                                       .arithmetic = ATTN_CLASS_BF16,
                                                       .a = PAIR_A_TYPE,
                                                       .c = NARROWS ? ATTN_BF16 : ATTN_F32,
                                                       .c_most = 2 * PAIR_BLOCK,
                                                       .b = {.type = ATTN_BF16, .cols = COLS, .k_unit = 2},
                                                       .rows = ROWS,
                                                       .widened_row = WIDE_BLOCK > 0 ? sizeof(float[COLS]) : 0,
                                                       .widened_rows = 2 * WIDE_BLOCK,
                                                       .of_floats = PAIRS_OF_FLOATS,
                                                       .pack = ISA_FN(pairs_pack),
                                                       .finite = ISA_FN(pairs_finite),
                                                       .run = ISA_FN(pairs_run)};
