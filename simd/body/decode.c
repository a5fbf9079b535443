/* Decode of class F32: keys and values of floats, packed or in place, and of elements that are widened. decode_loops.h
 * has the loops; decode.h gives, for each ISA, beside what these ask for
 *
 *     KEY_PANELS_1, _2     panels of keys that one row, or two, read side by side
 *     EACH_WIDTH_1, _2     registers of a value that one row, or two, accumulate at once
 *     ROWS_AHEAD           the prefetch distance in rows of values in place
 *     COLUMNS_1, _2        registers of keys in place that one row, or two, take at once; EACH_COLUMNS and
 *                          DECODE_COLUMNS name these tiles */
#include "decode.h"

#include "body/objects.h"
#include "body/stored.h"
#include "tile.h"

enum { UNIT = 1, STEPS = 1 };

typedef float decode_x;

INLINE size_t decode_bytes(const attn_type type) {
    return type == ATTN_F32 ? sizeof(float) : stored_bytes(type);
}
INLINE int decode_at_once(const attn_type type, const int registers) {
    return stored_at_once(type, registers);
}
INLINE void decode_load(const attn_type type, const char *b, vec *x, const int n) {
    if (type == ATTN_F32)
        *x = vec_load((const float *)(const void *)b);
    else
        stored_load(type, b, x, n);
}
INLINE vec decode_a(const float *x, const int s, const int part) {
    (void)s, (void)part;
    return vec_set(*x);
}
INLINE vec decode_b(vec unit, const int s, const int part) {
    (void)s, (void)part;
    return unit;
}
INLINE vec decode_multiply_add(vec a, vec b, vec acc) {
    return vec_fma(a, b, acc);
}

#include "body/decode_loops.h"

/* ---- Floats, packed ---- */

static void ISA_FN(decode_scores)(const struct attn_decode_args *args) {
    scores_of(ATTN_F32, args, KEY_PANELS_1, KEY_PANELS_2);
}

#define F32_VALUES(rows, width) VALUES(values, ATTN_F32, rows, width)
#define F32_ENTRY(rows, width)  VALUES_ENTRY(values, rows, width)
EACH_WIDTH_1(F32_VALUES, 1)
EACH_WIDTH_2(F32_VALUES, 2)
#define ONE_MORE(rows, width) +1
enum { WIDEST_1 = 0 EACH_WIDTH_1(ONE_MORE, 1), WIDEST_2 = 0 EACH_WIDTH_2(ONE_MORE, 2) };
static values_function *const values_1[WIDEST_1] = {EACH_WIDTH_1(F32_ENTRY, 1)};
static values_function *const values_2[WIDEST_2] = {EACH_WIDTH_2(F32_ENTRY, 2)};

static void ISA_FN(decode_parts)(const struct stretch *s, bool two_rows, size_t total) {
    if (two_rows)
        values_of_parts(ATTN_F32, *s, values_2, WIDEST_2, total);
    else
        values_of_parts(ATTN_F32, *s, values_1, WIDEST_1, total);
}

static void ISA_FN(decode_values)(const struct attn_decode_args *args) {
    struct stretch s = stretch_of_values(ATTN_F32, args);
    ISA_FN(decode_parts)(&s, args->rows > 1, registers_of(args->size));
}

/* ---- Floats in place ---- */

#define COLUMNS(rows, registers, dense)                                                                                \
    static void ISA_FN(decode_columns_##rows##_##registers##_##dense)(const struct tile *t) {                          \
        tile_columns_run(t, rows, registers, dense);                                                                   \
    }
EACH_COLUMNS(COLUMNS)

/* The rest of a product in place: keys from `key` on, their elements from `element` on. */
static void ISA_FN(decode_rest)(const struct attn_decode_args *args, size_t key, size_t keys, size_t element) {
    struct attn_panels b = args->b;
    b.data = (char *)b.data + key * b.stride + element * sizeof(float);
    ISA_OBJECT(gemm_f32).run_columns(&(struct attn_gemm_args){.m = args->rows,
                                                              .n = keys,
                                                              .k = args->size - element,
                                                              .a = (const float *)args->x + element,
                                                              .a_stride = args->x_stride,
                                                              .b = b,
                                                              .start = element > 0 ? ATTN_START_C : ATTN_START_ZERO,
                                                              .c = args->y + key,
                                                              .c_stride = args->y_stride * sizeof(float)});
}

/* Keys that fill registers, and of those the elements that fill transpositions. Where keys follow each other
 * (`dense`) they are fetched in the order in which they lie; from memory as many streams as there are keys come
 * sooner. */
static void ISA_FN(decode_scores_in_place)(const struct attn_decode_args *args) {
    const bool pair = args->rows > 1;
    const size_t at_once = (size_t)(pair ? COLUMNS_2 : COLUMNS_1) * VEC_LANES;
    size_t depth = args->size / DEPTH * DEPTH, keys = args->keys / at_once * at_once;
    struct tile t = {.k = depth,
                     .a = args->x,
                     .a_stride = args->x_stride / sizeof(float),
                     .b = args->b.data,
                     .b_stride = args->b.stride / sizeof(float),
                     .c = args->y,
                     .c_stride = args->y_stride,
                     .tail = VEC_WHOLE};
    bool dense = t.b_stride == depth && !args->distant;
    for (size_t j = 0; j < keys && depth > 0; j += at_once) {
        if (pair)
            DECODE_COLUMNS(2, 0)(&t);
        else if (dense)
            DECODE_COLUMNS(1, 1)(&t);
        else
            DECODE_COLUMNS(1, 0)(&t);
        t.b += at_once * t.b_stride;
        t.c += at_once;
    }
    if (depth < args->size)
        ISA_FN(decode_rest)(args, 0, keys, depth);
    if (keys < args->keys)
        ISA_FN(decode_rest)(args, keys, args->keys - keys, 0);
}

/* The last columns of values in place, from `column` on, block by block. */
static void ISA_FN(decode_last_columns)(const struct attn_decode_args *args, size_t column) {
    for (size_t key = 0, n; key < args->keys; key += n) {
        const float *factors =
            key > 0 || args->start == ATTN_START_SCALE ? args->factors + key / ATTN_BLOCK * args->factor_stride : NULL;
        struct attn_panels b = args->b;
        b.data = (char *)b.data + key * b.stride + column * sizeof(float);
        n = args->keys - key < ATTN_BLOCK ? args->keys - key : ATTN_BLOCK;
        ISA_OBJECT(gemm_f32).run_rows(&(struct attn_gemm_args){.m = args->rows,
                                                               .n = args->size - column,
                                                               .k = n,
                                                               .a = (const float *)args->x + key,
                                                               .a_stride = args->x_stride,
                                                               .b = b,
                                                               .start = factors ? ATTN_START_SCALE : args->start,
                                                               .factors = factors,
                                                               .c = args->y + column,
                                                               .c_stride = args->y_stride * sizeof(float)});
    }
}

static void ISA_FN(decode_values_in_place)(const struct attn_decode_args *args) {
    struct stretch s = stretch_of(ATTN_F32, args);
    size_t whole = args->size / VEC_LANES;
    s.step = s.panel; /* rows in place are panels side by side */
    s.panel = COLS;
    s.fetch = ROWS_AHEAD * s.step * sizeof(float);
    ISA_FN(decode_parts)(&s, args->rows > 1, whole);
    if (whole * VEC_LANES < args->size)
        ISA_FN(decode_last_columns)(args, whole * VEC_LANES);
}

const struct attn_decode_kernel ISA_OBJECT(decode) = {.name = ISA_NAME,
                                                      .type = ATTN_F32,
                                                      .rows = MOST_ROWS,
                                                      .scores = ISA_FN(decode_scores),
                                                      .scores_in_place = ISA_FN(decode_scores_in_place),
                                                      .values = ISA_FN(decode_values),
                                                      .values_in_place = ISA_FN(decode_values_in_place)};

/* ---- Keys and values that are widened ---- */

/* Registers of a value that one row, or two, accumulate at once: whole panels, and what fills part of one. */
enum { STORED_WIDEST = 4 };
_Static_assert(STORED_WIDEST % (COLS / VEC_LANES) == 0, "parts are whole panels");
#define EACH_STORED_WIDTH(X, ...) X(__VA_ARGS__, 1) X(__VA_ARGS__, 2) X(__VA_ARGS__, 3) X(__VA_ARGS__, 4)

#define STORED(name_, type_)                                                                                           \
    static void ISA_FN(decode_##name_##_scores)(const struct attn_decode_args *args) {                                 \
        scores_of(type_, args, KEY_PANELS_1, KEY_PANELS_2);                                                            \
    }                                                                                                                  \
    EACH_STORED_WIDTH(VALUES, name_##_values, type_, 1)                                                                \
    EACH_STORED_WIDTH(VALUES, name_##_values, type_, 2)                                                                \
    static values_function *const name_##_values[MOST_ROWS][STORED_WIDEST] = {                                         \
        {EACH_STORED_WIDTH(VALUES_ENTRY, name_##_values, 1)}, {EACH_STORED_WIDTH(VALUES_ENTRY, name_##_values, 2)}};   \
    static void ISA_FN(decode_##name_##_values)(const struct attn_decode_args *args) {                                 \
        values_of_parts(type_, stretch_of_values(type_, args), name_##_values[args->rows - 1], STORED_WIDEST,          \
                        registers_of(args->size));                                                                     \
    }                                                                                                                  \
    const struct attn_decode_kernel ISA_OBJECT(decode_##name_) = {.name = ISA_NAME "_" #name_,                         \
                                                                  .type = type_,                                       \
                                                                  .rows = MOST_ROWS,                                   \
                                                                  .scores = ISA_FN(decode_##name_##_scores),           \
                                                                  .values = ISA_FN(decode_##name_##_values)};
STORED(f16, ATTN_F16)
STORED(s8, ATTN_INT8)
STORED(e4m3, ATTN_F8_E4M3)
STORED(e5m2, ATTN_F8_E5M2)
