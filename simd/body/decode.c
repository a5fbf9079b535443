/* Decode of class F32: keys and values of floats, packed or in place, and of elements that are widened. decode_loops.h
 * has the loops; decode.h gives, for each ISA, beside what these ask for
 *
 *     KEY_PANELS_1, _2     panels of keys that one row, or two, read side by side
 *     EACH_WIDTH_1, _2     registers of a value that one row, or two, accumulate at once: multiples of LANES_VECS
 *     ROWS_AHEAD           the prefetch distance in rows of values in place
 *     F16_IN_PLACE         where keys and values of F16 are read in place too; then also
 *     EACH_F16_WIDTH_4     as EACH_WIDTH_1, of four rows, and what decode_columns.h asks for
 *     COLUMNS_1, _2        registers of keys in place that one row, or two, take at once; EACH_COLUMNS and
 *                          DECODE_COLUMNS name these tiles */
#include "decode.h"

#include <string.h>

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
/* Of F16: rows of floats go another way. */
static __attribute__((noinline)) vec ISA_FN(decode_some_of_row)(const char *row, size_t n) {
    uint16_t halves[VEC_LANES] = {0};
    memcpy(halves, row, n * sizeof *halves);
    return vec_from_f16(vec_load_u16(halves));
}
INLINE vec decode_load_rows(const char *first, const char *second, size_t n) {
    (void)second;
    return ISA_FN(decode_some_of_row)(first, n);
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
static values_function *const values_1[] = {EACH_WIDTH_1(F32_ENTRY, 1)};
static values_function *const values_2[] = {EACH_WIDTH_2(F32_ENTRY, 2)};
enum { WIDEST_1 = WIDEST_OF(values_1), WIDEST_2 = WIDEST_OF(values_2) };

static void ISA_FN(decode_parts)(struct stretch *s, bool two_rows, size_t total) {
    values_of_parts(ATTN_F32, s, two_rows ? values_2 : values_1, two_rows ? WIDEST_2 : WIDEST_1, total);
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
    size_t whole = args->size / ATTN_LANES * ATTN_LANES;
    s.step = s.panel; /* rows in place are panels side by side */
    s.panel = COLS;
    s.fetch = ROWS_AHEAD * s.step * sizeof(float);
    ISA_FN(decode_parts)(&s, args->rows > 1, whole / VEC_LANES);
    if (whole < args->size)
        ISA_FN(decode_last_columns)(args, whole);
}

const struct attn_decode_kernel ISA_OBJECT(decode) = {.name = ISA_NAME,
                                                      .type = ATTN_F32,
                                                      .rows = MOST_ROWS,
                                                      .rows_in_turns = MOST_ROWS,
                                                      .rows_in_place = MOST_ROWS,
                                                      .scores = ISA_FN(decode_scores),
                                                      .scores_in_place = ISA_FN(decode_scores_in_place),
                                                      .values = ISA_FN(decode_values),
                                                      .values_in_place = ISA_FN(decode_values_in_place)};

/* ---- Keys and values that are widened ---- */

/* Registers of a value that one row, or two, accumulate at once: whole panels, and what fills part of one. */
enum { STORED_WIDEST = 4 };
_Static_assert(STORED_WIDEST % (COLS / VEC_LANES) == 0, "parts are whole panels");

#define STORED_PRODUCTS(name_, type_)                                                                                  \
    static void ISA_FN(decode_##name_##_scores)(const struct attn_decode_args *args) {                                 \
        scores_of(type_, args, KEY_PANELS_1, KEY_PANELS_2);                                                            \
    }                                                                                                                  \
    EACH_WHOLE_WIDTH(VALUES, name_##_values, type_, 1)                                                                 \
    EACH_WHOLE_WIDTH(VALUES, name_##_values, type_, 2)                                                                 \
    static values_function *const name_##_values[MOST_ROWS][STORED_WIDEST / LANES_VECS] = {                            \
        {EACH_WHOLE_WIDTH(VALUES_ENTRY, name_##_values, 1)}, {EACH_WHOLE_WIDTH(VALUES_ENTRY, name_##_values, 2)}};     \
    static void ISA_FN(decode_##name_##_values)(const struct attn_decode_args *args) {                                 \
        struct stretch s = stretch_of_values(type_, args);                                                             \
        values_of_parts(type_, &s, name_##_values[args->rows - 1], STORED_WIDEST, registers_of(args->size));           \
    }

STORED_PRODUCTS(s8, ATTN_INT8)
STORED_PRODUCTS(e4m3, ATTN_F8_E4M3)
STORED_PRODUCTS(e5m2, ATTN_F8_E5M2)
STORED_PRODUCTS(f16, ATTN_F16)

/* ---- F16 in place ---- */

#ifdef F16_IN_PLACE
INLINE void decode_columns(const attn_type type, const char *b, size_t stride, vec *units) {
    (void)type;
    vec_load_columns_f16(b, stride, units);
}

#include "body/decode_columns.h"

SCORES_IN_PLACE(f16, ATTN_F16)
VALUES_OF_ROWS(f16_rows, ATTN_F16, 1, 1)
VALUES_OF_ROWS(f16_rows, ATTN_F16, 2, 1)

/* Of one row twice as many registers: a value of 128 on AVX-512. */
enum { F16_WIDEST = 2 * STORED_WIDEST };
VALUES(f16_values, ATTN_F16, 1, 8)
static values_function *const f16_rows_1[F16_WIDEST / LANES_VECS] = {EACH_WHOLE_WIDTH(VALUES_ENTRY, f16_values, 1)
                                                                         VALUES_ENTRY(f16_values, 1, 8)};

EACH_F16_WIDTH_4(VALUES, f16_values, ATTN_F16, 4)
static values_function *const f16_rows_4[] = {EACH_F16_WIDTH_4(VALUES_ENTRY, f16_values, 4)};

static void ISA_FN(decode_f16_values_in_place)(const struct attn_decode_args *args) {
    static const struct values_of f16_rows[MOST_ROWS_IN_PLACE] = {{f16_rows_1, F16_WIDEST},
                                                                  {f16_values[1], STORED_WIDEST},
                                                                  {f16_rows_4, WIDEST_OF(f16_rows_4)},
                                                                  {f16_rows_4, WIDEST_OF(f16_rows_4)}};
    struct stretch all = stretch_in_place(ATTN_F16, args);
    for (size_t row = 0; row < all.rows; row += MOST_ROWS_IN_PLACE) {
        struct stretch s;
        ISA_FN(decode_some_rows)(&all, row, MOST_ROWS_IN_PLACE, &s);
        values_of_rows(ATTN_F16, &s, f16_rows, ISA_FN(decode_f16_rows_2_1), ISA_FN(decode_f16_rows_1_1));
    }
}

#define F16_PLACES                                                                                                     \
    .rows_in_place = ROWS_IN_PLACE, .scores_in_place = ISA_FN(decode_f16_columns),                                     \
    .values_in_place = ISA_FN(decode_f16_values_in_place)
#else
#define F16_PLACES .scores_in_place = NULL
#endif

#define STORED_KERNEL(name_, type_, ...)                                                                               \
    const struct attn_decode_kernel ISA_OBJECT(decode_##name_) = {.name = ISA_NAME "_" #name_,                         \
                                                                  .type = type_,                                       \
                                                                  .rows = MOST_ROWS,                                   \
                                                                  .scores = ISA_FN(decode_##name_##_scores),           \
                                                                  .values = ISA_FN(decode_##name_##_values),           \
                                                                  __VA_ARGS__};

/* Two rows of a call widen each element once, so that eight rows widen it four times, from L2 after the first time. A
 * product widens it once, into memory. Calls for four rows of F16 take up to 1.06 times as long as the product, of E4M3
 * 1.1 times, for eight rows of E5M2 1.18 times. */
STORED_KERNEL(f16, ATTN_F16, .rows_in_turns = MOST_ROWS, F16_PLACES)
STORED_KERNEL(s8, ATTN_INT8, .rows_in_turns = 8)
STORED_KERNEL(e4m3, ATTN_F8_E4M3, .rows_in_turns = MOST_ROWS)
STORED_KERNEL(e5m2, ATTN_F8_E5M2, .rows_in_turns = 4)
