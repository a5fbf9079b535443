/* One or two query rows over a stretch of keys, in place up to four at a time: the loops of every class. Each key and
 * value is used a few times, so that both products wait for memory: what follows is fetched meanwhile.
 *
 * What lies in a lane of packed B is a unit: an element, or a pair of class BF16. The file that includes this says
 * before
 *
 *     UNIT, STEPS              elements of x that a unit is multiplied by, and multiply-adds that it takes
 *     decode_x                 the type of x's elements
 *     decode_bytes             of a unit
 *     decode_at_once           how many registers of units are loaded at once of a row of so many
 *     decode_load              so many registers of units, or fewer
 *     decode_load_rows         the first n units of a register that a row in place, or two, make
 *     decode_a, decode_b       operands of multiply-add number s, where `part` of a unit is there
 *     decode_multiply_add
 *
 * and decode.h gives, for each ISA,
 *
 *     FETCH_LINES              whether steps prefetch
 *     NEAR, FURTHER            the distance in floats where a cache holds keys and values, and where it does not
 *
 * `type`, of the elements of b, is a literal. */
#ifndef ATTN_BODY_DECODE_LOOPS_H
#define ATTN_BODY_DECODE_LOOPS_H

#include <stdbool.h>

#include "body/fetch.h"
#include "body/objects.h"

/* The most rows of a loop: over panels, and over keys and values of 16 bits in place. */
enum { MOST_ROWS = 2, MOST_ROWS_IN_PLACE = 4 };

/* attn_decode_args in elements. */
struct stretch {
    size_t rows, keys, size;
    const decode_x *x;
    size_t x_stride;
    const char *b;      /* the first key's panel, or the first value's row in its panel; in place the first row */
    size_t step, panel; /* in units: from a panel's row to the next, or from row to row in place; from panel to panel */
    size_t before;      /* values: elements of the first unit that belong to earlier keys */
    size_t fetch;       /* how far ahead, in bytes */
    enum attn_start start;
    const float *factors;
    size_t factor_stride;
    float *y;
    size_t y_stride;
    size_t columns; /* values in place: of a register that is taken alone */
};

INLINE struct stretch stretch_of(const attn_type type, const struct attn_decode_args *args) {
    return (struct stretch){.rows = args->rows,
                            .keys = args->keys,
                            .size = args->size,
                            .x = args->x,
                            .x_stride = args->x_stride / sizeof(decode_x),
                            .b = args->b.data,
                            .step = args->b.cols,
                            .panel = args->b.stride / decode_bytes(type),
                            .fetch = (args->fetched   ? 0
                                      : args->distant ? FURTHER
                                                      : NEAR) *
                                     sizeof(float),
                            .start = args->start,
                            .factors = args->factors,
                            .factor_stride = args->factor_stride,
                            .y = args->y,
                            .y_stride = args->y_stride};
}

/* ---- Rows ---- */

/* Row number r of `rows`, a literal. Loops of four take three rows too: the last one is computed and stored twice. */
INLINE size_t row_at(const struct stretch *s, const int r, const int rows) {
    return rows > 2 && r == rows - 1 ? s->rows - 1 : (size_t)r;
}

INLINE void take_rows(const struct stretch *s, const decode_x **x, const int rows) {
    UNROLL for (int r = 0; r < rows; r++) x[r] = s->x + row_at(s, r, rows) * s->x_stride;
}

/* ---- Chains ---- */

/* Registers v to v + n - 1 of a row of panels that have `registers` of them. */
INLINE void from_panels(const attn_type type, const struct stretch *s, const char *b, const int v, const int n,
                        const int registers, vec *units) {
    const size_t size = decode_bytes(type);
    const char *from = b + ((size_t)(v / registers) * s->panel + (size_t)(v % registers * VEC_LANES)) * size;
    if (FETCH_LINES && (size_t)(v % registers * VEC_LANES) * size % (LINE * sizeof(float)) == 0)
        vec_prefetch((const float *)(const void *)(from + s->fetch), 0);
    decode_load(type, from, units, n);
}

/* Which elements of a unit are there. */
enum part { WHOLE, FIRST_MISSING, LAST_MISSING };

/* The registers of a panel, if there is none: values in place make units, or end within a register. */
enum { OF_ROWS = 0 };

/* Register v of the units that a row in place makes, of pairs with the next row. A row that is not there is not read. */
INLINE void from_rows(const attn_type type, const struct stretch *s, const char *b, const int v, const int width,
                      const enum part part, vec *unit) {
    const size_t offset = (size_t)(v * VEC_LANES) * decode_bytes(type) / UNIT;
    const char *first = b + offset, *second = first + s->step * decode_bytes(type) / UNIT;
    if (FETCH_LINES && offset % (LINE * sizeof(float)) == 0) {
        vec_prefetch((const float *)(const void *)(first + s->fetch), 0);
        if (UNIT > 1)
            vec_prefetch((const float *)(const void *)(second + s->fetch), 0);
    }
    *unit = decode_load_rows(part == FIRST_MISSING ? second : first, part == LAST_MISSING ? first : second,
                             width > 1 ? VEC_LANES : s->columns);
}

/* Rows and registers are literals, here and below. */
INLINE void take_unit(const attn_type type, const struct stretch *s, const decode_x *const *x, size_t k, const char *b,
                      vec *acc, const int rows, const int width, const int registers, const enum part part) {
    vec av[MOST_ROWS_IN_PLACE * STEPS];
    UNROLL for (int i = 0; i < rows * STEPS; i++) av[i] = decode_a(x[i / STEPS] + k, i % STEPS, (int)part);
    const int most = decode_at_once(type, registers);
    vec units[2];
    UNROLL for (int v = 0; v < width; v++) {
        if (registers == OF_ROWS)
            from_rows(type, s, b, v, width, part, units);
        else if (v % most == 0)
            from_panels(type, s, b, v, width - v < most ? width - v : most, registers, units);
        UNROLL for (int i = 0; i < STEPS; i++) {
            vec bv = decode_b(units[v % most], i, (int)part);
            UNROLL for (int r = 0; r < rows; r++) acc[r * width + v] =
                decode_multiply_add(av[r * STEPS + i], bv, acc[r * width + v]);
        }
    }
}

/* Chains go on with the n / UNIT units from b on. Returns where the next one lies. */
INLINE const char *take_units(const attn_type type, const struct stretch *s, const decode_x *const *x, size_t n,
                              const char *b, size_t step, vec *acc, const int rows, const int width,
                              const int registers) {
    for (size_t k = 0; k + UNIT <= n; k += UNIT, b += step)
        take_unit(type, s, x, k, b, acc, rows, width, registers, WHOLE);
    return b;
}

INLINE void store_chains(const struct stretch *s, const vec *acc, const int rows, const int width) {
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < width; v++)
        vec_store(s->y + row_at(s, r, rows) * s->y_stride + v * VEC_LANES, acc[r * width + v]);
}

/* ---- Scores ---- */

/* Panels side by side, of `registers` each. What of a key makes whole units. */
INLINE void scores_run(const attn_type type, const struct stretch *s, const int rows, const int panels,
                       const int registers) {
    const int width = panels * registers;
    vec acc[16];
    UNROLL for (int i = 0; i < rows * width; i++) acc[i] = vec_zero();
    const decode_x *x[MOST_ROWS_IN_PLACE];
    take_rows(s, x, rows);
    take_units(type, s, x, s->size, s->b, (size_t)(registers * VEC_LANES) * decode_bytes(type), acc, rows, width,
               registers);
    store_chains(s, acc, rows, width);
}

/* Whole panels, `panels` at once as long as there are so many. */
INLINE void scores_of_panels(const attn_type type, struct stretch s, bool distant, const int rows, const int panels,
                             const int registers) {
    const size_t cols = (size_t)registers * VEC_LANES, panel = s.panel * decode_bytes(type);
    size_t left = (s.keys + cols - 1) / cols;
    for (size_t taken; left > 0; left -= taken, s.b += taken * panel, s.y += taken * cols) {
        taken = left < (size_t)panels ? 1 : (size_t)panels;
        if (distant)
            fetch_pages((const float *)(const void *)(s.b + taken * panel), taken * panel / sizeof(float));
        if (taken == 1)
            scores_run(type, &s, rows, 1, registers);
        else
            scores_run(type, &s, rows, panels, registers);
    }
}

/* One row, or two, read so many panels side by side. */
INLINE void scores_of(const attn_type type, const struct attn_decode_args *args, const int panels_1,
                      const int panels_2) {
    enum { WIDE = COLS / VEC_LANES, NARROW = ATTN_LANES / VEC_LANES };
    struct stretch s = stretch_of(type, args);
    s.b += args->first / args->b.cols * args->b.stride;
    bool distant = args->distant > 1 && !args->fetched, narrow = COLS > ATTN_LANES && args->b.cols < COLS;
    if (narrow && args->rows == 1)
        scores_of_panels(type, s, distant, 1, 2 * panels_1, NARROW);
    else if (narrow)
        scores_of_panels(type, s, distant, 2, 2 * panels_2, NARROW);
    else if (args->rows == 1)
        scores_of_panels(type, s, distant, 1, panels_1, WIDE);
    else
        scores_of_panels(type, s, distant, 2, panels_2, WIDE);
}

/* ---- Values ---- */

/* Where chains start, or go on after a block: c times the row's factor. */
INLINE void values_begin(const struct stretch *s, vec *acc, const int rows, const int width) {
    UNROLL for (int r = 0; r < rows; r++) {
        vec factor = vec_set(s->start == ATTN_START_SCALE ? s->factors[row_at(s, r, rows)] : 1.0f);
        UNROLL for (int v = 0; v < width; v++) {
            const float *y = s->y + row_at(s, r, rows) * s->y_stride + v * VEC_LANES;
            acc[r * width + v] = s->start == ATTN_START_ZERO ? vec_zero() : vec_mul(vec_load(y), factor);
        }
    }
}

/* Keys make whole units, and so do those of each block. */
INLINE void values_run(const attn_type type, const struct stretch *s, const int rows, const int width,
                       const int registers) {
    const size_t step = s->step * decode_bytes(type), block = ATTN_BLOCK * sizeof(float) / sizeof(decode_x);
    vec acc[16];
    values_begin(s, acc, rows, width);
    const decode_x *x[MOST_ROWS_IN_PLACE];
    take_rows(s, x, rows);
    const float *factors = s->factors;
    const char *b = s->b;
    for (size_t left = s->keys, n; left > 0; left -= n) {
        n = left < ATTN_BLOCK ? left : ATTN_BLOCK;
        b = take_units(type, s, x, n, b, step, acc, rows, width, registers);
        factors += s->factor_stride;
        UNROLL for (int r = 0; r < rows && n < left; r++) UNROLL for (int v = 0; v < width; v++) acc[r * width + v] =
            vec_mul(acc[r * width + v], vec_set(factors[row_at(s, r, rows)]));
        UNROLL for (int r = 0; r < rows; r++) x[r] += block;
    }
    store_chains(s, acc, rows, width);
}

typedef void values_function(const struct stretch *s);

#define VALUES(name, type, rows, width)                                                                                \
    static void ISA_FN(decode_##name##_##rows##_##width)(const struct stretch *s) {                                    \
        values_run(type, s, rows, width, COLS / VEC_LANES);                                                            \
    }
/* The same of rows in place that make units, or that end within a register. */
#define VALUES_OF_ROWS(name, type, rows, width)                                                                        \
    static __attribute__((noinline)) void ISA_FN(decode_##name##_##rows##_##width)(const struct stretch *s) {          \
        values_run(type, s, rows, width, OF_ROWS);                                                                     \
    }
#define VALUES_ENTRY(name, rows, width) [width / LANES_VECS - 1] = ISA_FN(decode_##name##_##rows##_##width),
#define WIDEST_OF(table)                ((int)(sizeof(table) / sizeof *(table)) * LANES_VECS)

/* Registers of ATTN_LANES columns. Panels have so many or a multiple, and y has room for them: values are taken in no
 * smaller parts. */
enum { LANES_VECS = ATTN_LANES / VEC_LANES };
#if VEC_LANES == 4
#define EACH_WHOLE_WIDTH(X, ...) X(__VA_ARGS__, 4)
#elif VEC_LANES == 8
#define EACH_WHOLE_WIDTH(X, ...) X(__VA_ARGS__, 2) X(__VA_ARGS__, 4)
#else
#define EACH_WHOLE_WIDTH(X, ...) X(__VA_ARGS__, 1) X(__VA_ARGS__, 2) X(__VA_ARGS__, 4)
#endif

/* `total` registers of a value, in nearly equal parts that begin with a panel, of `most` registers or fewer. Functions
 * are those of LANES_VECS registers and their multiples, of panels and 1 at least; where one is NULL a smaller one takes
 * its place. */
static __attribute__((noinline)) void ISA_FN(decode_values_of_parts)(struct stretch *s, size_t unit_bytes,
                                                                     values_function *const *values, size_t most,
                                                                     size_t total) {
    const size_t unit = COLS / VEC_LANES, parts = (total + most - 1) / most, panel = s->panel * unit_bytes;
    for (size_t done = 0, width; done < total; done += width) {
        width = ((total + parts - 1) / parts + unit - 1) / unit * unit;
        width = width < total - done ? width : total - done;
        while (!values[width / LANES_VECS - 1])
            width -= LANES_VECS;
        values[width / LANES_VECS - 1](s);
        s->b += width / unit * panel;
        s->y += width * VEC_LANES;
    }
}

INLINE void values_of_parts(const attn_type type, struct stretch *s, values_function *const *values, size_t most,
                            size_t total) {
    ISA_FN(decode_values_of_parts)(s, decode_bytes(type), values, most, total);
}

/* The stretch of values that begins with row `first` of its panels. */
INLINE struct stretch stretch_of_values(const attn_type type, const struct attn_decode_args *args) {
    struct stretch s = stretch_of(type, args);
    s.b += args->first / UNIT * s.step * decode_bytes(type);
    s.before = args->first % UNIT;
    return s;
}

INLINE size_t registers_of(size_t size) {
    return (size + ATTN_LANES - 1) / ATTN_LANES * LANES_VECS;
}

#endif
