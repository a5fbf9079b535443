/* One or two query rows over a stretch of keys. Each key and value is used once or twice, so that both products wait for
 * memory: what follows is fetched meanwhile.
 *
 * decode.h gives, for each ISA,
 *
 *     KEY_PANELS_1, _2        panels of keys that one row, or two, read side by side
 *     EACH_WIDTH_1, _2        registers of a value that one row, or two, accumulate at once
 *     FETCH_LINES             whether steps prefetch; NEAR, FURTHER: the distance in floats where a cache holds keys and values, or not
 *     ROWS_AHEAD              the prefetch distance in rows of values in place
 *     COLUMNS_1, _2           registers of keys in place that one row, or two, take at once; EACH_COLUMNS and DECODE_COLUMNS name
 *                             these tiles */
#include "decode.h"

#include "body/objects.h"
#include "body/stored.h"
#include "tile.h"

enum { MOST_ROWS = 2 };

/* attn_decode_args in elements. */
struct stretch {
    size_t keys, size;
    const float *x;
    size_t x_stride;
    const char *b;      /* the first key's panel, or the first value's row in its panel; in place the first row */
    size_t step, panel; /* from a panel's row to the next, or from row to row in place; from panel to panel */
    size_t fetch;       /* how far ahead, in bytes */
    enum attn_start start;
    const float *factors;
    size_t factor_stride;
    float *y;
    size_t y_stride;
};

/* Elements of b and a register of them. `type` is a literal, here and below. */
INLINE size_t decode_bytes(const attn_type type) {
    return type == ATTN_F32 ? sizeof(float) : stored_bytes(type);
}
INLINE vec decode_load(const attn_type type, const char *b) {
    return type == ATTN_F32 ? vec_load((const float *)(const void *)b) : stored_load(type, b);
}

INLINE struct stretch stretch_of(const attn_type type, const struct attn_decode_args *args) {
    return (struct stretch){.keys = args->keys,
                            .size = args->size,
                            .x = args->x,
                            .x_stride = args->x_stride,
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

/* Register v of a row of panels that have `registers` of them. */
INLINE vec from_panels(const attn_type type, const struct stretch *s, const char *b, const int v, const int registers) {
    const size_t size = decode_bytes(type);
    const char *from = b + ((size_t)(v / registers) * s->panel + (size_t)(v % registers * VEC_LANES)) * size;
    if (FETCH_LINES && (size_t)(v % registers * VEC_LANES) * size % (LINE * sizeof(float)) == 0)
        vec_prefetch((const float *)(const void *)(from + s->fetch), 0);
    return decode_load(type, from);
}

/* ---- Scores ---- */

/* Compile-time rows and panels side by side, of `registers` each. */
INLINE void scores_run(const attn_type type, const struct stretch *s, const int rows, const int panels,
                       const int registers) {
    const int width = panels * registers;
    vec acc[16];
    UNROLL for (int i = 0; i < rows * width; i++) acc[i] = vec_zero();
    const float *x[MOST_ROWS] = {s->x, rows > 1 ? s->x + s->x_stride : s->x};
    const char *b = s->b;
    for (size_t p = 0; p < s->size; p++, b += (size_t)(registers * VEC_LANES) * decode_bytes(type)) {
        vec xv[MOST_ROWS];
        UNROLL for (int r = 0; r < rows; r++) xv[r] = vec_set(x[r][p]);
        UNROLL for (int v = 0; v < width; v++) {
            vec bv = from_panels(type, s, b, v, registers);
            UNROLL for (int r = 0; r < rows; r++) acc[r * width + v] = vec_fma(xv[r], bv, acc[r * width + v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < width; v++)
        vec_store(s->y + (size_t)r * s->y_stride + v * VEC_LANES, acc[r * width + v]);
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

INLINE void scores_of(const attn_type type, const struct attn_decode_args *args) {
    enum { WIDE = COLS / VEC_LANES, NARROW = ATTN_LANES / VEC_LANES };
    struct stretch s = stretch_of(type, args);
    s.b += args->first / args->b.cols * args->b.stride;
    bool distant = args->distant > 1 && !args->fetched, narrow = COLS > ATTN_LANES && args->b.cols < COLS;
    if (narrow && args->rows == 1)
        scores_of_panels(type, s, distant, 1, 2 * KEY_PANELS_1, NARROW);
    else if (narrow)
        scores_of_panels(type, s, distant, 2, 2 * KEY_PANELS_2, NARROW);
    else if (args->rows == 1)
        scores_of_panels(type, s, distant, 1, KEY_PANELS_1, WIDE);
    else
        scores_of_panels(type, s, distant, 2, KEY_PANELS_2, WIDE);
}

static void ISA_FN(decode_scores)(const struct attn_decode_args *args) {
    scores_of(ATTN_F32, args);
}

/* ---- Scores of keys in place ---- */

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
                                                              .a = args->x + element,
                                                              .a_stride = args->x_stride * sizeof(float),
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
                     .a_stride = args->x_stride,
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

/* ---- Values ---- */

/* Where chains start, or go on after a block: c times the row's factor. */
INLINE void values_begin(const struct stretch *s, vec *acc, const int rows, const int width) {
    UNROLL for (int r = 0; r < rows; r++) {
        vec factor = vec_set(s->start == ATTN_START_SCALE ? s->factors[r] : 1.0f);
        UNROLL for (int v = 0; v < width; v++) {
            const float *y = s->y + (size_t)r * s->y_stride + v * VEC_LANES;
            acc[r * width + v] = s->start == ATTN_START_ZERO ? vec_zero() : vec_mul(vec_load(y), factor);
        }
    }
}

/* Compile-time rows and registers of a value. */
INLINE void values_run(const attn_type type, const struct stretch *s, const int rows, const int width) {
    const int registers = COLS / VEC_LANES;
    vec acc[16];
    values_begin(s, acc, rows, width);
    const float *x[MOST_ROWS] = {s->x, rows > 1 ? s->x + s->x_stride : s->x}, *factors = s->factors;
    const char *b = s->b;
    const size_t step = s->step * decode_bytes(type);
    for (size_t key = 0; key < s->keys;) {
        size_t end = s->keys - key < ATTN_BLOCK ? s->keys : key + ATTN_BLOCK;
        for (; key < end; key++, b += step) {
            vec xv[MOST_ROWS];
            UNROLL for (int r = 0; r < rows; r++) xv[r] = vec_set(x[r][key]);
            UNROLL for (int v = 0; v < width; v++) {
                vec bv = from_panels(type, s, b, v, registers);
                UNROLL for (int r = 0; r < rows; r++) acc[r * width + v] = vec_fma(xv[r], bv, acc[r * width + v]);
            }
        }
        factors += s->factor_stride;
        UNROLL for (int r = 0; r < rows && key < s->keys; r++) UNROLL for (int v = 0; v < width; v++)
            acc[r * width + v] = vec_mul(acc[r * width + v], vec_set(factors[r]));
    }
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < width; v++)
        vec_store(s->y + (size_t)r * s->y_stride + v * VEC_LANES, acc[r * width + v]);
}

typedef void values_function(const struct stretch *s);

#define VALUES(name, type, rows, width)                                                                                \
    static void ISA_FN(decode_##name##_##rows##_##width)(const struct stretch *s) {                                    \
        values_run(type, s, rows, width);                                                                              \
    }
#define VALUES_ENTRY(name, rows, width) ISA_FN(decode_##name##_##rows##_##width),

#define F32_VALUES(rows, width)         VALUES(values, ATTN_F32, rows, width)
#define F32_ENTRY(rows, width)          VALUES_ENTRY(values, rows, width)
EACH_WIDTH_1(F32_VALUES, 1)
EACH_WIDTH_2(F32_VALUES, 2)
#define ONE_MORE(rows, width) +1
enum { WIDEST_1 = 0 EACH_WIDTH_1(ONE_MORE, 1), WIDEST_2 = 0 EACH_WIDTH_2(ONE_MORE, 2) };
static values_function *const values_1[WIDEST_1] = {EACH_WIDTH_1(F32_ENTRY, 1)};
static values_function *const values_2[WIDEST_2] = {EACH_WIDTH_2(F32_ENTRY, 2)};

/* `total` registers of a value, in nearly equal parts that begin with a panel, of `most` registers or fewer. */
INLINE void values_of_parts(const attn_type type, struct stretch s, values_function *const *values, size_t most,
                            size_t total) {
    const size_t unit = COLS / VEC_LANES, parts = (total + most - 1) / most, panel = s.panel * decode_bytes(type);
    for (size_t done = 0, width; done < total; done += width) {
        width = ((total + parts - 1) / parts + unit - 1) / unit * unit;
        width = width < total - done ? width : total - done;
        values[width - 1](&s);
        s.b += width / unit * panel;
        s.y += width * VEC_LANES;
    }
}

static void ISA_FN(decode_parts)(const struct stretch *s, bool two_rows, size_t total) {
    if (two_rows)
        values_of_parts(ATTN_F32, *s, values_2, WIDEST_2, total);
    else
        values_of_parts(ATTN_F32, *s, values_1, WIDEST_1, total);
}

static void ISA_FN(decode_values)(const struct attn_decode_args *args) {
    struct stretch s = stretch_of(ATTN_F32, args);
    s.b += args->first * s.step * sizeof(float);
    ISA_FN(decode_parts)(&s, args->rows > 1, (args->size + VEC_LANES - 1) / VEC_LANES);
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
                                                               .a = args->x + key,
                                                               .a_stride = args->x_stride * sizeof(float),
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
        scores_of(type_, args);                                                                                        \
    }                                                                                                                  \
    EACH_STORED_WIDTH(VALUES, name_##_values, type_, 1)                                                                \
    EACH_STORED_WIDTH(VALUES, name_##_values, type_, 2)                                                                \
    static values_function *const name_##_values[MOST_ROWS][STORED_WIDEST] = {                                         \
        {EACH_STORED_WIDTH(VALUES_ENTRY, name_##_values, 1)}, {EACH_STORED_WIDTH(VALUES_ENTRY, name_##_values, 2)}};   \
    static void ISA_FN(decode_##name_##_values)(const struct attn_decode_args *args) {                                 \
        struct stretch s = stretch_of(type_, args);                                                                    \
        s.b += args->first * s.step * decode_bytes(type_);                                                             \
        values_of_parts(type_, s, name_##_values[args->rows - 1], STORED_WIDEST,                                       \
                        (args->size + VEC_LANES - 1) / VEC_LANES);                                                     \
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
