/* The scores of a few query rows over keys in place, whose elements follow each other: units of several keys are
 * transposed in registers on their way into decode_loops.h's chains. The file that includes this says before
 *
 *     DEPTH             units of a key that are transposed at once
 *     decode_columns    loads so many of VEC_LANES keys that lie so many bytes apart, a register of each
 *
 * and decode.h gives, for each ISA,
 *
 *     KEYS_AHEAD             the prefetch distance in keys
 *     VALUES_AHEAD           likewise of values in place, which pairs and F16 take in decode_loops.h's loops
 *     UNIT_COLUMNS_1, _2     registers of keys that one row, or more, take at once
 *     UNITS_AT_ONCE          how many of them are transposed before the first is multiplied
 *     ROWS_IN_PLACE          the most rows of a kernel */
#ifndef ATTN_BODY_DECODE_COLUMNS_H
#define ATTN_BODY_DECODE_COLUMNS_H

#include <string.h>

#include "body/decode_loops.h"

/* Elements of x that a unit is multiplied by, and its multiply-adds, of register v: as take_unit's, whose packed units gcc
 * takes less well in this form (scores over INT8 0.88). */
INLINE void take_x(const decode_x *const *x, size_t k, vec *a, const int rows, const enum part part) {
    UNROLL for (int i = 0; i < rows * STEPS; i++) a[i] = decode_a(x[i / STEPS] + k, i % STEPS, (int)part);
}

INLINE void add_unit(const vec *a, vec unit, vec *acc, const int rows, const int width, const int v,
                     const enum part part) {
    UNROLL for (int i = 0; i < STEPS; i++) {
        vec b = decode_b(unit, i, (int)part);
        UNROLL for (int r = 0; r < rows; r++) acc[r * width + v] =
            decode_multiply_add(a[r * STEPS + i], b, acc[r * width + v]);
    }
}

/* Four rows' operands for the units of a register are not kept for the next: there is no room but on the stack. */
INLINE void forget_units(const decode_x **x) {
    __asm__("" : "+r"(*x));
}

/* `width` registers of keys, `stride` bytes apart: `depth` elements of each, DEPTH units at a time. Meanwhile as many keys
 * that come later are fetched, one after the other. A line of each key in turn, as the units are taken, would touch a page
 * with each line: rows over 6 MiB and more took 1.4 to 1.6 times as long. */
INLINE void columns_run(const attn_type type, const struct stretch *s, size_t stride, size_t depth, const int rows,
                        const int width) {
    const int at_once = UNITS_AT_ONCE < width ? UNITS_AT_ONCE : width;
    const size_t bytes = DEPTH * decode_bytes(type), line = LINE * sizeof(float), keys = (size_t)(width * VEC_LANES);
    const size_t turns = keys * bytes / line;
    vec acc[16];
    UNROLL for (int i = 0; i < rows * width; i++) acc[i] = vec_zero();
    const decode_x *x[MOST_ROWS_IN_PLACE];
    take_rows(s, x, rows);
    const char *b = s->b, *ahead = b + KEYS_AHEAD * stride;
    const size_t row = depth / UNIT * decode_bytes(type);
    size_t offset = 0;
    for (size_t k = 0; k < depth; k += DEPTH * UNIT, b += bytes) {
        _Pragma("GCC unroll 4") for (size_t i = 0; i < turns; i++) {
            vec_prefetch((const float *)(const void *)(ahead + offset), 0);
            offset += line;
            ahead += offset < row ? 0 : stride;
            offset = offset < row ? offset : 0;
        }
        UNROLL for (int v = 0; v < width; v += at_once) {
            vec units[4][DEPTH];
            UNROLL for (int i = 0; i < at_once; i++)
                decode_columns(type, b + (size_t)((v + i) * VEC_LANES) * stride, stride, units[i]);
            if (rows > MOST_ROWS && at_once < width)
                UNROLL for (int r = 0; r < rows; r++) forget_units(&x[r]);
            UNROLL for (int l = 0; l < DEPTH; l++) {
                vec a[MOST_ROWS_IN_PLACE * STEPS];
                take_x(x, k + (size_t)(l * UNIT), a, rows, WHOLE);
                UNROLL for (int i = 0; i < at_once; i++) add_unit(a, units[i][l], acc, rows, width, v + i, WHOLE);
            }
        }
    }
    store_chains(s, acc, rows, width);
}

/* A unit of each of n keys, at most VEC_LANES, and again of the last one; `bytes` of it are there. */
INLINE vec gather_unit(const attn_type type, const char *b, size_t stride, size_t n, size_t bytes) {
    char units[VEC_LANES * sizeof(float)] = {0};
    vec unit;
    _Pragma("GCC unroll 1") for (size_t i = 0; i < VEC_LANES; i++)
        memcpy(units + i * decode_bytes(type), b + (i < n ? i : n - 1) * stride, bytes);
    decode_load(type, units, &unit, 1);
    return unit;
}

/* Chains of n keys go on with element k of their rows, or UNIT of them, which are at b. */
INLINE void rest_unit(const attn_type type, const struct stretch *s, const char *b, size_t stride, size_t n, size_t k,
                      float *y, const enum part part) {
    size_t bytes = part == WHOLE ? decode_bytes(type) : decode_bytes(type) / UNIT;
    vec unit = gather_unit(type, b, stride, n, bytes), a[STEPS];
    for (size_t r = 0; r < s->rows; r++, y += s->y_stride) {
        const decode_x *x = s->x + r * s->x_stride;
        vec acc = k > 0 ? vec_load(y) : vec_zero();
        take_x(&x, k, a, 1, part);
        add_unit(a, unit, &acc, 1, 1, 0, part);
        vec_store(y, acc);
    }
}

/* Chains of all keys go on with the elements from `depth` on: what does not fill transpositions. */
INLINE void columns_rest(const attn_type type, const struct stretch *s, size_t stride, size_t depth) {
    for (size_t j = 0; j < s->keys; j += VEC_LANES) {
        const char *b = s->b + j * stride + depth / UNIT * decode_bytes(type);
        size_t n = s->keys - j < VEC_LANES ? s->keys - j : VEC_LANES, k = depth;
        for (; k + UNIT <= s->size; k += UNIT, b += decode_bytes(type))
            rest_unit(type, s, b, stride, n, k, s->y + j, WHOLE);
        if (UNIT > 1 && k < s->size)
            rest_unit(type, s, b, stride, n, k, s->y + j, LAST_MISSING);
    }
}

/* Values in place: rows are parts of panels side by side, UNIT of them a step. */
INLINE struct stretch stretch_in_place(const attn_type type, const struct attn_decode_args *args) {
    struct stretch s = stretch_of(type, args);
    s.before = args->first % UNIT;
    s.b -= s.before * args->b.stride;
    s.step = args->b.stride * UNIT / decode_bytes(type);
    s.panel = COLS / UNIT;
    s.fetch = VALUES_AHEAD * args->b.stride;
    s.columns = VEC_LANES;
    return s;
}

/* Rows from `first` on, `most` or fewer. */
static __attribute__((noinline)) void ISA_FN(decode_some_rows)(const struct stretch *all, size_t first, size_t most,
                                                               struct stretch *s) {
    *s = *all;
    s->x += first * s->x_stride;
    s->y += first * s->y_stride;
    s->factors += s->factors ? first : 0;
    s->rows = all->rows - first < most ? all->rows - first : most;
}

/* The columns from number `whole` on, which do not fill ATTN_LANES, register by register: by `two` rows, or `one`. */
static __attribute__((noinline)) void ISA_FN(decode_columns_left)(struct stretch *s, size_t element, size_t whole,
                                                                  values_function *two, values_function *one) {
    s->b += whole * element;
    s->y += whole;
    for (size_t left = s->size - whole; left > 0; left -= s->columns) {
        s->columns = left < VEC_LANES ? left : VEC_LANES;
        for (size_t row = 0; row < s->rows; row += 2) {
            struct stretch part;
            ISA_FN(decode_some_rows)(s, row, 2, &part);
            (part.rows == 2 ? two : one)(&part);
        }
        s->b += VEC_LANES * element;
        s->y += VEC_LANES;
    }
}

/* Functions as decode_values_of_parts takes them. */
struct values_of {
    values_function *const *values;
    size_t most;
};

/* Those of one row, two, three, four. */
INLINE void values_of_rows(const attn_type type, struct stretch *s, const struct values_of of[MOST_ROWS_IN_PLACE],
                           values_function *two, values_function *one) {
    const size_t element = decode_bytes(type) / UNIT, whole = s->size / ATTN_LANES * ATTN_LANES;
    struct stretch left = *s;
    values_of_parts(type, s, of[s->rows - 1].values, of[s->rows - 1].most, whole / VEC_LANES);
    if (whole < left.size)
        ISA_FN(decode_columns_left)(&left, element, whole, two, one);
}

typedef void columns_function(const struct stretch *s, size_t stride, size_t depth);

/* Elements of keys in place that fill transpositions; those of fewer keys than a register has go one by one. */
INLINE size_t depth_of(const attn_type type, const struct attn_decode_args *args) {
    bool aligned = args->b.stride % decode_bytes(type) == 0;
    return aligned && args->keys >= VEC_LANES ? args->size / (DEPTH * UNIT) * DEPTH * UNIT : 0;
}

/* Of loops for one row, two, four. */
enum { ONE_ROW, TWO_ROWS, FOUR_ROWS, ROW_COUNTS };

/* So many registers of keys at once, four rows after four while L1 holds them; then one, row by row; the last one
 * begins among keys that are done already. */
static __attribute__((noinline)) void ISA_FN(decode_columns_of)(size_t stride, struct stretch *s, size_t depth,
                                                                columns_function *const several[ROW_COUNTS],
                                                                columns_function *one) {
    const size_t width = s->rows > 1 ? UNIT_COLUMNS_2 : UNIT_COLUMNS_1;
    for (size_t left = s->keys, taken; left > 0; left -= taken, s->b += taken * stride, s->y += taken) {
        if (left < VEC_LANES) {
            s->b -= (VEC_LANES - left) * stride;
            s->y -= VEC_LANES - left;
            left = VEC_LANES;
        }
        taken = left < width * VEC_LANES ? VEC_LANES : width * VEC_LANES;
        if (taken > VEC_LANES && s->rows <= MOST_ROWS_IN_PLACE) {
            several[s->rows > 2 ? FOUR_ROWS : s->rows > 1 ? TWO_ROWS : ONE_ROW](s, stride, depth);
            continue;
        }
        for (size_t row = 0, most = taken > VEC_LANES ? MOST_ROWS_IN_PLACE : 1; row < s->rows; row += most) {
            struct stretch part;
            ISA_FN(decode_some_rows)(s, row, most, &part);
            if (taken > VEC_LANES && part.rows == 1) /* twice: loops of so many registers are for two */
                part.x_stride = part.y_stride = 0;
            (taken == VEC_LANES ? one : several[part.rows > 2 ? FOUR_ROWS : TWO_ROWS])(&part, stride, depth);
        }
    }
}

/* Defines decode_`name`_columns, which computes scores over keys in place. Out of line, so that no arithmetic leaves the
 * part of its caller in which denormal numbers may count as 0. */
#define COLUMNS_FN(name, rows, count) ISA_FN(decode_##name##_columns_##rows##_##count)
#define COLUMNS_RUN(name, type, rows, count, width)                                                                    \
    static __attribute__((noinline)) void COLUMNS_FN(name, rows, count)(const struct stretch *s, size_t stride,        \
                                                                        size_t depth) {                                \
        columns_run(type, s, stride, depth, rows, width);                                                              \
    }
#define SCORES_IN_PLACE(name, type)                                                                                    \
    COLUMNS_RUN(name, type, 1, one, 1)                                                                                 \
    COLUMNS_RUN(name, type, 1, several, UNIT_COLUMNS_1)                                                                \
    COLUMNS_RUN(name, type, 2, several, UNIT_COLUMNS_2)                                                                \
    COLUMNS_RUN(name, type, 4, several, UNIT_COLUMNS_2)                                                                \
    static __attribute__((noinline)) void ISA_FN(decode_##name##_rest)(const struct stretch *s, size_t stride,         \
                                                                       size_t depth) {                                 \
        columns_rest(type, s, stride, depth);                                                                          \
    }                                                                                                                  \
    static void ISA_FN(decode_##name##_columns)(const struct attn_decode_args *args) {                                 \
        static columns_function *const several[ROW_COUNTS] = {                                                         \
            COLUMNS_FN(name, 1, several), COLUMNS_FN(name, 2, several), COLUMNS_FN(name, 4, several)};                 \
        struct stretch s = stretch_of(type, args);                                                                     \
        const char *b = s.b;                                                                                           \
        const size_t depth = depth_of(type, args), stride = args->b.stride;                                            \
        if (depth > 0)                                                                                                 \
            ISA_FN(decode_columns_of)(stride, &s, depth, several, COLUMNS_FN(name, 1, one));                           \
        s.b = b;                                                                                                       \
        s.y = args->y;                                                                                                 \
        if (depth < args->size)                                                                                        \
            ISA_FN(decode_##name##_rest)(&s, stride, depth);                                                           \
    }

#endif
