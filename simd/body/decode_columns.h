/* The scores of one or two query rows over keys in place, whose elements follow each other: units of several keys are
 * transposed in registers on their way into decode_loops.h's chains. The file that includes this says before
 *
 *     DEPTH             units of a key that are transposed at once
 *     decode_columns    loads so many of VEC_LANES keys that lie so many bytes apart, a register of each
 *
 * and decode.h gives, for each ISA,
 *
 *     KEYS_AHEAD             the prefetch distance in keys
 *     VALUES_AHEAD           likewise of values in place, which pairs and F16 take in decode_loops.h's loops
 *     UNIT_COLUMNS_1, _2     registers of keys that one row, or two, take at once */
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

/* `width` registers of keys, `stride` bytes apart: `depth` elements of each, DEPTH units at a time. Meanwhile as many keys
 * that come later are fetched, one after the other. A line of each key in turn, as the units are taken, would touch a page
 * with each line: rows over 6 MiB and more took 1.4 to 1.6 times as long. */
INLINE void columns_run(const attn_type type, const struct stretch *s, size_t stride, size_t depth, const int rows,
                        const int width) {
    const size_t bytes = DEPTH * decode_bytes(type), line = LINE * sizeof(float), keys = (size_t)(width * VEC_LANES);
    const size_t turns = keys * bytes / line;
    vec acc[16];
    UNROLL for (int i = 0; i < rows * width; i++) acc[i] = vec_zero();
    const decode_x *x[MOST_ROWS] = {s->x, rows > 1 ? s->x + s->x_stride : s->x};
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
        UNROLL for (int v = 0; v < width; v++) {
            vec units[DEPTH];
            decode_columns(type, b + (size_t)(v * VEC_LANES) * stride, stride, units);
            UNROLL for (int l = 0; l < DEPTH; l++) {
                vec a[MOST_ROWS * STEPS];
                take_x(x, k + (size_t)(l * UNIT), a, rows, WHOLE);
                add_unit(a, units[l], acc, rows, width, v, WHOLE);
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

/* Chains of all keys go on with the elements from `depth` on, unit by unit: what does not fill transpositions. */
INLINE void columns_rest(const attn_type type, const struct stretch *s, size_t stride, size_t depth, size_t row) {
    const decode_x *x = s->x + row * s->x_stride;
    for (size_t j = 0; j < s->keys; j += VEC_LANES) {
        const char *b = s->b + j * stride + depth / UNIT * decode_bytes(type);
        size_t n = s->keys - j < VEC_LANES ? s->keys - j : VEC_LANES, k = depth;
        float *y = s->y + row * s->y_stride + j;
        vec acc = depth > 0 ? vec_load(y) : vec_zero(), a[STEPS];
        for (; k + UNIT <= s->size; k += UNIT, b += decode_bytes(type)) {
            take_x(&x, k, a, 1, WHOLE);
            add_unit(a, gather_unit(type, b, stride, n, decode_bytes(type)), &acc, 1, 1, 0, WHOLE);
        }
        if (UNIT > 1 && k < s->size) {
            take_x(&x, k, a, 1, LAST_MISSING);
            add_unit(a, gather_unit(type, b, stride, n, decode_bytes(type) / UNIT), &acc, 1, 1, 0, LAST_MISSING);
        }
        vec_store(y, acc);
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

typedef void columns_function(const struct stretch *s, size_t stride, size_t depth);

/* Elements of keys in place that fill transpositions; those of fewer keys than a register has go one by one. */
INLINE size_t depth_of(const attn_type type, const struct attn_decode_args *args) {
    bool aligned = args->b.stride % decode_bytes(type) == 0;
    return aligned && args->keys >= VEC_LANES ? args->size / (DEPTH * UNIT) * DEPTH * UNIT : 0;
}

/* So many registers of keys at once, then one, row by row; the last one begins among keys that are done already. */
static __attribute__((noinline)) void ISA_FN(decode_columns_of)(size_t stride, struct stretch *s, size_t depth,
                                                                size_t rows, columns_function *several, size_t width,
                                                                columns_function *one) {
    for (size_t left = s->keys, taken; left > 0; left -= taken, s->b += taken * stride, s->y += taken) {
        if (left < VEC_LANES) {
            s->b -= (VEC_LANES - left) * stride;
            s->y -= VEC_LANES - left;
            left = VEC_LANES;
        }
        taken = left < width * VEC_LANES ? VEC_LANES : width * VEC_LANES;
        if (taken > VEC_LANES) {
            several(s, stride, depth);
            continue;
        }
        struct stretch row = *s;
        for (size_t r = 0; r < rows; r++, row.x += row.x_stride, row.y += row.y_stride)
            one(&row, stride, depth);
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
    static __attribute__((noinline)) void ISA_FN(decode_##name##_rest)(const struct stretch *s, size_t stride,         \
                                                                       size_t depth, size_t row) {                     \
        columns_rest(type, s, stride, depth, row);                                                                     \
    }                                                                                                                  \
    static void ISA_FN(decode_##name##_columns)(const struct attn_decode_args *args) {                                 \
        struct stretch s = stretch_of(type, args);                                                                     \
        const char *b = s.b;                                                                                           \
        const size_t depth = depth_of(type, args), stride = args->b.stride;                                            \
        bool two = args->rows > 1;                                                                                     \
        if (depth > 0)                                                                                                 \
            ISA_FN(decode_columns_of)                                                                                  \
        (stride, &s, depth, args->rows, two ? COLUMNS_FN(name, 2, several) : COLUMNS_FN(name, 1, several),             \
         two ? UNIT_COLUMNS_2 : UNIT_COLUMNS_1, COLUMNS_FN(name, 1, one));                                             \
        s.b = b;                                                                                                       \
        s.y = args->y;                                                                                                 \
        for (size_t row = 0; depth < args->size && row < args->rows; row++)                                            \
            ISA_FN(decode_##name##_rest)(&s, stride, depth, row);                                                      \
    }

#endif
