/* Attention over few keys.
 *
 * Query rows are taken in strips of four. A register of the score tile holds quads, one for each of KEYS keys, with a
 * lane for each row: maximum, exp and sum work on all rows at once, with a shuffle or two where quads meet. Per element
 * d of the head a strip's four queries are broadcast to every quad, and multiplied by what the keys have at d, a lane
 * of each quad of a register that holds four elements of each key.
 *
 * Strips of any heads are collected into a batch before their softmax, so that its dependent steps overlap, and the
 * values of one head are read by two strips at a time where there are few columns.
 *
 * Queries and keys of other types are widened while they are packed, values into scratch memory, and outputs narrowed
 * from there. Class BF16 takes the second element of a pair first: the two change places in every query and key, and so
 * do the values of two keys, and their probabilities. Its products alone take denormal numbers for 0.
 *
 * Where TAILS_OVERLAP the last register of a row of values ends with the row, and some of its columns are computed
 * twice; values and outputs that are less than a register go through scratch memory. */
#include <math.h>
#include <string.h>

#include "body/bf16.h"
#include "body/exp2.h"
#include "body/objects.h"
#include "body/rows.h"
#include "quad.h"

enum { STRIPS = 4, MAX_ROWS = STRIPS * ROWS, BATCH = 8 };

/* For what would be there once in each tile, and for other types, which floats should not make room for. */
#define NOINLINE __attribute__((noinline))

/* Registers of the 16 lanes of a sum. */
enum { LANE_VECS = ATTN_LANES / KEYS };

/* Of a strip; of a row of value columns that are taken at a time. */
enum {
    QUERY_FLOATS = ROWS * ATTN_SMALL_SIZE,
    SCORE_FLOATS = ROWS * ATTN_SMALL_KEYS,
    COLUMN_FLOATS = VALUE_VECS * VEC_LANES
};

/* The least multiple of n, a power of two. */
INLINE size_t up_to(size_t x, size_t n) {
    return (x + n - 1) & ~(n - 1);
}

/* ---- Other types ---- */

INLINE size_t bytes_of(attn_type type, size_t elements) {
    return elements * (type == ATTN_F32 ? sizeof(float) : sizeof(uint16_t));
}

INLINE const void *element_at(const void *x, attn_type type, size_t i) {
    return (const char *)x + bytes_of(type, i);
}

/* n elements of `rows` rows become floats. Row i becomes row i ^ other. */
struct widening {
    size_t rows, n;
    const void *x;
    size_t x_stride;
    float *y;
    size_t y_stride, other;
};

/* A register of x from element i on. `type` is a literal, here and below. */
INLINE vec load_elements(const attn_type type, const void *x, size_t i) {
    return type == ATTN_F32 ? vec_load((const float *)x + i)
                            : vec_from_u16(type, vec_load_u16((const uint16_t *)x + i));
}

/* n of its elements, +0 beyond. */
INLINE vec load_first(const attn_type type, size_t n, const void *x, size_t i) {
    return type == ATTN_F32 ? vec_load_first(n, (const float *)x + i)
                            : vec_from_u16(type, vec_load_u16_first(n, (const uint16_t *)x + i));
}

/* A row's last register ends with it. Sizes are read once: what is stored might be one of them. */
INLINE void widen_rows(const attn_type type, const struct widening *w) {
    size_t rows = w->rows, last = w->n - VEC_LANES, x_stride = w->x_stride, y_stride = w->y_stride, other = w->other;
    const uint16_t *x = w->x;
    float *to = w->y;
    for (size_t i = 0; i < rows; i++, x += x_stride) {
        float *y = to + (i ^ other) * y_stride;
        for (size_t j = 0; j < last; j += VEC_LANES)
            vec_store(y + j, load_elements(type, x, j));
        vec_store(y + last, load_elements(type, x, last));
    }
}

static NOINLINE void ISA_FN(small_widen)(attn_type type, struct widening *w) {
    if (w->x_stride == w->n && w->y_stride == w->n && !w->other)
        w->n *= w->rows, w->rows = 1;
    if (w->n >= VEC_LANES && type == ATTN_BF16)
        widen_rows(ATTN_BF16, w);
    else if (w->n >= VEC_LANES && type == ATTN_F16)
        widen_rows(ATTN_F16, w);
    else
        for (size_t i = 0; i < w->rows; i++)
            ISA_OBJECT(convert).widen(type, w->n, element_at(w->x, type, i * w->x_stride),
                                      w->y + (i ^ w->other) * w->y_stride);
}

/* ---- Logits ---- */

/* `n` rows from p on, of which there are to be `count`, `stride` bytes apart: the last one stands in for those that are
 * absent. */
INLINE void rows_from(const void *p, size_t stride, size_t n, const void *row[], size_t count) {
    row[0] = p;
    UNROLL for (size_t i = 1; i < count; i++) row[i] = i < n ? (const char *)row[i - 1] + stride : row[i - 1];
}

INLINE vec in_turn(vec x, bool swapped) {
    return HAS_PAIRS && swapped ? vec_swap_pairs(x) : x;
}

/* Elements d .. d + 3 of KEYS keys, or the first n of these, +0 beyond. */
INLINE vec join(const attn_type type, const void *const row[], size_t d, size_t n) {
    if (type == ATTN_F32) {
        const float *x[KEYS];
        UNROLL for (size_t i = 0; i < KEYS; i++) x[i] = row[i];
        return n == 4 ? quad_join(x, d) : quad_join_first(x, d, n);
    }
    const uint16_t *x[KEYS];
    UNROLL for (size_t i = 0; i < KEYS; i++) x[i] = row[i];
    if (n == 4)
        return vec_from_u16(type, quad_join_u16(x, d));
    uint16_t some[VEC_LANES] = {0};
    for (size_t i = 0; i < KEYS * n; i++)
        some[i / n * 4 + i % n] = x[i / n][d + i % n];
    return vec_from_u16(type, vec_load_u16(some));
}

/* Elements d .. d + 3 of KEYS keys are one register; those of all d follow each other. Where they are swapped 2 i and
 * 2 i + 1 change places. */
INLINE void pack_keys(const attn_type type, const void *k, size_t stride, size_t keys, size_t size, bool swapped,
                      float *packed) {
    size_t whole = size / 4 * 4;
    for (size_t key = 0; key < keys; key += KEYS, k = (const char *)k + KEYS * stride) {
        const void *row[KEYS];
        rows_from(k, stride, keys - key, row, KEYS);
        for (size_t d = 0; d < whole; d += 4, packed += VEC_LANES)
            vec_store(packed, in_turn(join(type, row, d, 4), swapped));
        if (whole < size) {
            vec_store(packed, in_turn(join(type, row, whole, size - whole), swapped));
            packed += VEC_LANES;
        }
    }
}

/* Elements d .. d + 3 of four rows, for each quad of these registers. */
INLINE void store_quads(vec r[ROWS], float *even, float *odd) {
    vec_transpose_quads(r);
    UNROLL for (size_t i = 0; i < ROWS; i++) vec_store((i % 2 ? odd : even) + i / 2 * 2 * VEC_LANES, r[i]);
}

/* Scaled; element d of a strip's rows is a quad, in the order in which vec_transpose_quads leaves them, or swapped. */
INLINE void pack_queries(const attn_type type, const void *q, size_t stride, size_t rows, size_t size, float scale,
                         bool swapped, float *packed) {
    const void *row[ROWS];
    rows_from(q, stride, rows, row, ROWS);
    size_t whole = size / VEC_LANES * VEC_LANES, other = HAS_PAIRS && swapped ? VEC_LANES : 0;
    float *even = packed + other, *odd = packed + VEC_LANES - other;
    vec r[ROWS], factor = vec_set(scale);
    for (size_t d = 0; d < whole; d += VEC_LANES, even += ROWS * VEC_LANES, odd += ROWS * VEC_LANES) {
        UNROLL for (size_t i = 0; i < ROWS; i++) r[i] = vec_mul(load_elements(type, row[i], d), factor);
        store_quads(r, even, odd);
    }
    if (whole < size) {
        size_t tail = size - whole;
        UNROLL for (size_t i = 0; i < ROWS; i++) r[i] = vec_mul(load_first(type, tail, row[i], whole), factor);
        store_quads(r, even, odd);
    }
}

/* Element d + i of four. */
#define STEP(i)                                                                                                        \
    {                                                                                                                  \
        vec qv[STRIPS];                                                                                                \
        UNROLL for (int s = 0; s < strips; s++) qv[s] = quad_broadcast(q + s * QUERY_FLOATS + i * VEC_LANES);          \
        UNROLL for (int w = 0; w < width; w++) {                                                                       \
            vec kv = KEYS_STAY ? k[w] : vec_load(keys + (size_t)w * stride);                                           \
            UNROLL for (int s = 0; s < strips; s++) quad_fma(acc[s * width + w], qv[s], kv, i);                        \
        }                                                                                                              \
        __asm__ volatile("" : : : "memory"); /* else clang starts the next step early and spills */                    \
    }

/* Logits of compile-time strips and registers of keys. depth counts elements in fours. */
INLINE void tile_run(const float *queries, const float *keys, size_t depth, float *scores, const int strips,
                     const int width) {
    size_t stride = depth * VEC_LANES;
    vec acc[STRIPS * KEY_VECS];
    UNROLL for (int i = 0; i < strips * width; i++) acc[i] = vec_zero();
    for (size_t d = 0; d < depth; d++, keys += VEC_LANES) {
        const float *q = queries + d / KEYS * ROWS * VEC_LANES + d % KEYS * ROWS;
        vec k[KEY_VECS];
        UNROLL for (int w = 0; w < width; w++) k[w] = vec_load(keys + (size_t)w * stride);
        STEP(0)
        STEP(1)
        STEP(2)
        STEP(3)
    }
    UNROLL for (int s = 0; s < strips; s++) UNROLL for (int w = 0; w < width; w++)
        vec_store(scores + s * SCORE_FLOATS + w * VEC_LANES, acc[s * width + w]);
}

/* From register g of `vecs` on, `width` registers at a time. Returns the first that is left. */
INLINE size_t score_by(const float *queries, const float *keys, size_t depth, float *scores, size_t g, size_t vecs,
                       const int strips, const int width) {
    for (; g + (size_t)width <= vecs; g += (size_t)width)
        tile_run(queries, keys + g * depth * VEC_LANES, depth, scores + g * VEC_LANES, strips, width);
    return g;
}

/* Logits of compile-time strips and all keys. */
INLINE void score(const float *queries, const float *keys, size_t depth, float *scores, size_t vecs, const int strips) {
    const int width = strips >= MANY_STRIPS ? KEY_VECS_OF_MANY : KEY_VECS;
    size_t g = score_by(queries, keys, depth, scores, 0, vecs, strips, width);
    g = score_by(queries, keys, depth, scores, g, vecs, strips, 2);
    score_by(queries, keys, depth, scores, g, vecs, strips, 1);
}

/* Up to four rows of one head. */
struct strip {
    size_t rows;
    size_t row;        /* the first */
    size_t common;     /* keys that all its rows see */
    size_t most;       /* that any of them sees */
    uint32_t hi[ROWS]; /* that each sees, where they differ from `common` to `most` */
    const void *v;
    void *to; /* of o's type */
};

/* Strips of any heads, so that their steps overlap, and the packed keys of one kv head. In the caller's scratch:
 * twice what a call should take of the stack. */
struct batch {
    const struct attn_small_args *args;
    bool bf16;            /* the class: products take denormal numbers for 0 */
    bool copies_values;   /* to scratch memory, widened */
    bool narrows;         /* outputs, from scratch memory */
    flush_state state;    /* outside of products */
    float scale;          /* of queries */
    const float *factors; /* of outputs: ones where they are narrowed, which divides them */
    size_t o_row_stride;  /* of strips' o */
    size_t count;
    struct strip strip[BATCH];
    _Alignas(64) float keys[ATTN_SMALL_KEYS * ATTN_SMALL_SIZE];
    float queries[STRIPS * QUERY_FLOATS];
    float scores[BATCH * SCORE_FLOATS];
    float shift[BATCH * VEC_LANES];
    float inverse[BATCH * ROWS];
    float values[ATTN_SMALL_KEYS * COLUMN_FLOATS]; /* columns that are copied, whole or the last register of each */
    /* Of tensors of other types: outputs, queries or keys that class BF16 rounds, factors of 1. */
    float outputs[BATCH * ROWS * COLUMN_FLOATS];
    float rows[MAX_ROWS * ATTN_SMALL_SIZE];
    float ones[BATCH * ROWS];
};

/* Where strip s puts value columns that are narrowed. */
INLINE float *outputs_of(struct batch *batch, size_t s) {
    return batch->outputs + s * ROWS * COLUMN_FLOATS;
}

/* Whether elements of a tensor are what the kernel computes with. */
INLINE bool is_plain(const struct batch *batch, attn_type type) {
    return type == ATTN_F32 && !batch->bf16;
}

/* Around products, and around what is between them. */
INLINE void flush_denormals(const struct batch *batch) {
    if (HAS_PAIRS && batch->bf16)
        flush_begin();
}
INLINE void keep_denormals(const struct batch *batch) {
    if (HAS_PAIRS && batch->bf16)
        flush_end(batch->state);
}

/* ---- Softmax ---- */

/* The rows' maxima. Logits that a row does not see are made -inf: their probability is the +0 asked for. Absent keys
 * are the last once more, which changes no maximum. */
INLINE vec hide(float *p, size_t keys, const uint32_t *hi, size_t rows) {
    size_t vecs = (keys + KEYS - 1) / KEYS;
    if (hi) {
        quad_count visible = quad_visible(hi, rows);
        for (size_t g = 0; g < vecs; g++)
            vec_store(p + g * VEC_LANES, quad_hide(vec_load(p + g * VEC_LANES), g * KEYS, visible));
    }
    vec m = vec_set(-INFINITY);
    for (size_t g = 0; g < vecs; g++)
        m = vec_max(m, vec_load(p + g * VEC_LANES));
    if (keys % KEYS)
        quad_hide_absent(p + (vecs - 1) * VEC_LANES, keys % KEYS);
    return quad_max(m);
}

INLINE void scale_logits(float *p, size_t vecs, float scale) {
    for (size_t g = 0; g < vecs; g++)
        vec_store(p + g * VEC_LANES, vec_mul(vec_load(p + g * VEC_LANES), vec_set(scale)));
}

INLINE void exponentials_bf16(float *p, size_t vecs, vec shift) {
    for (size_t g = 0; g < vecs; g++) {
        vec x = vec_mul(vec_sub(vec_load(p + g * VEC_LANES), shift), vec_set(ATTN_LOG2_E));
        exp2_each(&x, 1);
        vec_store(p + g * VEC_LANES, x);
    }
}

/* Logits become probabilities, yet to be divided by their sum, which is returned. */
INLINE vec exponentials(float *p, size_t vecs, vec shift, bool bf16) {
    size_t g = bf16 ? vecs : 0;
    if (bf16)
        exponentials_bf16(p, vecs, shift);
    for (; g < vecs; g++)
        vec_store(p + g * VEC_LANES, vec_exp_low(vec_sub(vec_load(p + g * VEC_LANES), shift)));
    for (; g % LANE_VECS; g++)
        vec_store(p + g * VEC_LANES, vec_zero());
    vec lanes[LANE_VECS];
    UNROLL for (size_t i = 0; i < LANE_VECS; i++) lanes[i] = vec_load(p + i * VEC_LANES);
    for (g = LANE_VECS; g < vecs; g += LANE_VECS)
        UNROLL for (size_t i = 0; i < LANE_VECS; i++) lanes[i] = vec_add(lanes[i], vec_load(p + (g + i) * VEC_LANES));
    UNROLL for (size_t half = LANE_VECS / 2; half > 0; half /= 2) UNROLL for (size_t i = 0; i < half; i++) lanes[i] =
        vec_add(lanes[i], lanes[i + half]);
    return quad_sum(lanes[0]);
}

/* As the product with the values takes them. A function of its own: its constants would wait on the stack. */
static NOINLINE void ISA_FN(small_round)(struct batch *batch, size_t vecs) {
    for (size_t s = 0; s < batch->count; s++) {
        float *p = batch->scores + s * SCORE_FLOATS;
        for (size_t g = 0; g < vecs; g++)
            vec_store(p + g * VEC_LANES, quad_swap(vec_round_probability(vec_load(p + g * VEC_LANES))));
    }
}

/* All maxima first: their reductions overlap each other. */
static void ISA_FN(small_softmax)(struct batch *batch) {
    const struct attn_small_args *args = batch->args;
    size_t keys = args->keys, vecs = (keys + KEYS - 1) / KEYS;
    bool bf16 = HAS_PAIRS && batch->bf16;
    keep_denormals(batch);
    for (size_t s = 0; bf16 && s < batch->count; s++)
        scale_logits(batch->scores + s * SCORE_FLOATS, vecs, args->scale);
    for (size_t s = 0; s < batch->count; s++) {
        const struct strip *strip = &batch->strip[s];
        const uint32_t *hi = args->hi ? args->hi + strip->row : NULL;
        vec max = hide(batch->scores + s * SCORE_FLOATS, keys, hi, strip->rows);
        vec_store(batch->shift + s * VEC_LANES, shifts_of(max));
    }
    for (size_t s = 0; s < batch->count; s++) {
        vec sum = exponentials(batch->scores + s * SCORE_FLOATS, vecs, vec_load(batch->shift + s * VEC_LANES), bf16);
        quad_inverse(sum, batch->inverse + s * ROWS);
    }
    if (bf16)
        ISA_FN(small_round)(batch, vecs);
    flush_denormals(batch);
}

/* ---- Output ---- */

/* `width` registers of value columns of each key. The last begins at `last`, and has `tail` lanes. */
struct columns {
    const float *v;
    size_t stride, width, last, tail;
};

/* n columns from v on, copied. A key that its pair lacks has values of +0, and so has a register's end. */
static NOINLINE void ISA_FN(small_copy_values)(struct batch *batch, const void *v, size_t n) {
    const struct attn_small_args *args = batch->args;
    size_t stride = up_to(n, VEC_LANES), cleared = n < VEC_LANES ? 0 : args->keys - 1;
    if (n < VEC_LANES || args->keys % 2)
        memset(batch->values + cleared * stride, 0, (args->keys + 1 - cleared) * stride * sizeof(float));
    ISA_FN(small_widen)
    (args->kv_type, &(struct widening){.rows = args->keys,
                                       .n = n,
                                       .x = v,
                                       .x_stride = args->v_row_stride,
                                       .y = batch->values,
                                       .y_stride = stride,
                                       .other = batch->bf16});
}

/* n columns from v on. */
INLINE struct columns columns_from(struct batch *batch, const void *v, size_t n, const int width) {
    size_t before = (size_t)(width - 1) * VEC_LANES, last = TAILS_OVERLAP && width > 1 ? n - VEC_LANES : before;
    size_t tail = TAILS_OVERLAP ? VEC_LANES : n - before;
    if (!batch->copies_values)
        return (struct columns){v, batch->args->v_row_stride, (size_t)width, last, tail};
    ISA_FN(small_copy_values)(batch, v, n);
    return (struct columns){batch->values, before + VEC_LANES, (size_t)width, last, tail};
}

/* Register w. */
INLINE vec value_at(const float *v, const struct columns *columns, int w, const int width) {
    if (w < width - 1)
        return vec_load(v + w * VEC_LANES);
    return TAILS_OVERLAP ? vec_load(v + columns->last) : vec_load_first(columns->tail, v + w * VEC_LANES);
}

/* Row i of strip q. */
#define ROW(i)                                                                                                         \
    {                                                                                                                  \
        vec row = quad_row(p + q * SCORE_FLOATS, i);                                                                   \
        UNROLL for (int w = 0; w < width; w++) {                                                                       \
            quad_fma_row(acc[(q * ROWS + i) * width + w], vv[w], row, i);                                              \
            if (width == VALUE_VECS) /* no register is left */                                                         \
                vec_settle(acc[(q * ROWS + i) * width + w]);                                                           \
        }                                                                                                              \
    }

/* Strips s .. s + strips - 1, of one head, times registers of value columns; strips and registers known to the
 * compiler. */
INLINE void add_values(struct batch *batch, size_t s, size_t j, struct columns columns, const int strips,
                       const int width) {
    const struct strip *strip = &batch->strip[s];
    const int rows = strips * ROWS;
    vec acc[2 * ROWS * VALUE_VECS];
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int w = 0; w < width; w++) acc[r * width + w] = vec_zero();
    const float *p = batch->scores + s * SCORE_FLOATS;
    size_t present = strip->rows, common = strip->common, most = strip->most, other = HAS_PAIRS && batch->bf16;
    if (strips == 2) {
        present = ROWS + strip[1].rows;
        common = strip[1].common < common ? strip[1].common : common;
        most = strip[1].most > most ? strip[1].most : most;
    }
    for (const float *end = p + common * ROWS; p < end; columns.v += columns.stride, p += ROWS) {
        vec vv[VALUE_VECS];
        UNROLL for (int w = 0; w < width; w++) vv[w] = value_at(columns.v, &columns, w, width);
        UNROLL for (int q = 0; q < strips; q++) {
            ROW(0)
            ROW(1)
            ROW(2)
            ROW(3)
        }
    }
    for (size_t key = common; key < most; key++, columns.v += columns.stride, p += ROWS) {
        vec vv[VALUE_VECS]; /* a part of a register, once; else each is an operand */
        UNROLL for (int w = 0; w < width && !TAILS_OVERLAP; w++) vv[w] = value_at(columns.v, &columns, w, width);
        UNROLL for (int r = 0; r < rows; r++) if ((key ^ other) < strip[r / ROWS].hi[r % ROWS]) {
            vec pv = vec_set(p[r / ROWS * SCORE_FLOATS + r % ROWS]);
            UNROLL for (int w = 0; w < width; w++) acc[r * width + w] =
                vec_fma(pv, TAILS_OVERLAP ? value_at(columns.v, &columns, w, width) : vv[w], acc[r * width + w]);
        }
    }
    size_t stored = batch->narrows ? VEC_LANES : columns.tail;
    float *o = batch->narrows ? outputs_of(batch, s) : (float *)strip->to + j;
    const float *factors = batch->factors + s * ROWS;
    UNROLL for (int r = 0; r < rows; r++) {
        if ((size_t)r == present)
            return;
        vec factor = vec_set(factors[r]);
        UNROLL for (int w = 0; w < width; w++) {
            vec y = vec_add(vec_mul(acc[r * width + w], factor), vec_zero());
            if (w < width - 1)
                vec_store(o + w * VEC_LANES, y);
            else if (TAILS_OVERLAP)
                vec_store(o + columns.last, y);
            else
                vec_store_first(stored, o + w * VEC_LANES, y);
        }
        o += batch->o_row_stride;
    }
}

/* All strips; those of one head two at a time, where one has too few chains. */
INLINE void add_columns(struct batch *batch, size_t j, size_t n, const int width) {
    struct columns columns = {0};
    for (size_t s = 0; s < batch->count; s++) {
        const struct strip *strip = &batch->strip[s];
        if (s == 0 || strip->v != strip[-1].v)
            columns = columns_from(batch, element_at(strip->v, batch->args->kv_type, j), n, width);
        if (width <= PAIR_VECS && s + 1 < batch->count && strip[1].row > strip->row) {
            add_values(batch, s, j, columns, 2, width);
            s++;
        } else {
            add_values(batch, s, j, columns, 1, width);
        }
    }
}

INLINE void narrow_register(const attn_type type, const float *x, vec factor, uint16_t *y) {
    vec o = vec_add(vec_mul(vec_load(x), factor), vec_zero());
    vec_store_u16(y, type == ATTN_F16 ? vec_to_f16(o) : vec_to_bf16(o));
}

/* Where row r of a strip begins, in column j. */
INLINE void *output_at(const struct batch *batch, size_t s, size_t r, size_t j) {
    attn_type type = batch->args->o_type;
    return (char *)batch->strip[s].to + bytes_of(type, r * batch->args->o_row_stride + j);
}

INLINE void narrow_strips(const attn_type type, struct batch *batch, size_t j, size_t n) {
    size_t last = n - VEC_LANES;
    for (size_t s = 0; s < batch->count; s++) {
        const float *x = outputs_of(batch, s), *factors = batch->inverse + s * ROWS;
        uint16_t *y = output_at(batch, s, 0, j);
        for (const float *end = factors + batch->strip[s].rows; factors < end; factors++) {
            vec factor = vec_set(*factors);
            __asm__("" : "+r"(last)); /* else gcc writes the loop out */
            for (size_t c = 0; c < last; c += VEC_LANES)
                narrow_register(type, x + c, factor, y + c);
            narrow_register(type, x + last, factor, y + last);
            x += COLUMN_FLOATS;
            y += batch->args->o_row_stride;
        }
    }
}

/* Floats, or less than a register. */
INLINE void convert_strips(struct batch *batch, size_t j, size_t n) {
    for (size_t s = 0; s < batch->count; s++) {
        float *o = outputs_of(batch, s);
        size_t rows = batch->strip[s].rows;
        ISA_OBJECT(attention).normalize(rows, n, o, COLUMN_FLOATS, batch->inverse + s * ROWS, o, COLUMN_FLOATS);
        for (size_t r = 0; r < rows; r++)
            ISA_OBJECT(convert).narrow(batch->args->o_type, n, o + r * COLUMN_FLOATS, output_at(batch, s, r, j));
    }
}

/* n columns from column j on, divided, from scratch memory to where the caller wants them. */
static NOINLINE void ISA_FN(small_narrow)(struct batch *batch, size_t j, size_t n) {
    attn_type type = batch->args->o_type;
    keep_denormals(batch);
    if (n >= VEC_LANES && type == ATTN_BF16)
        narrow_strips(ATTN_BF16, batch, j, n);
    else if (n >= VEC_LANES && type == ATTN_F16)
        narrow_strips(ATTN_F16, batch, j, n);
    else
        convert_strips(batch, j, n);
    flush_denormals(batch);
}

#define COLUMNS(n)                                                                                                     \
    case n:                                                                                                            \
        if (n <= VALUE_VECS)                                                                                           \
            add_columns(batch, j, taken, n <= VALUE_VECS ? n : VALUE_VECS);                                            \
        break;
_Static_assert(VALUE_VECS <= 6, "a case of output is missing");

static void ISA_FN(small_output)(struct batch *batch) {
    size_t size = batch->args->value_size;
    for (size_t j = 0, taken; j < size; j += taken) {
        if (TAILS_OVERLAP && size >= VEC_LANES && size - j < VEC_LANES)
            j = size - VEC_LANES; /* some columns once more */
        size_t left = size - j, vecs = (left + VEC_LANES - 1) / VEC_LANES;
        vecs = vecs < VALUE_VECS ? vecs : VALUE_VECS;
        taken = left < vecs * VEC_LANES ? left : vecs * VEC_LANES;
        switch (vecs) {
            COLUMNS(1)
            COLUMNS(2)
            COLUMNS(3)
            COLUMNS(4)
            COLUMNS(5)
            COLUMNS(6)
        }
        if (batch->narrows)
            ISA_FN(small_narrow)(batch, j, taken);
    }
}

static void ISA_FN(small_finish)(struct batch *batch) {
    ISA_FN(small_softmax)(batch);
    ISA_FN(small_output)(batch);
    batch->count = 0;
}

/* ---- Rows and heads ---- */

/* Which keys a strip's rows see. In class BF16 `common` and `most` are whole pairs; where all rows see all keys the last
 * pair may lack one, whose probability and values are +0. */
INLINE void find_seen(const struct batch *batch, struct strip *strip) {
    const uint32_t *hi = batch->args->hi;
    size_t keys = batch->args->keys, other = HAS_PAIRS && batch->bf16;
    strip->common = strip->most = keys + (keys & other);
    if (!hi)
        return;
    strip->common = keys;
    strip->most = 0;
    for (size_t r = 0; r < ROWS; r++) {
        size_t seen = strip->hi[r] = r < strip->rows ? hi[strip->row + r] : 0;
        strip->common = r < strip->rows && seen < strip->common ? seen : strip->common;
        strip->most = seen > strip->most ? seen : strip->most;
    }
    strip->common &= ~other;
    strip->most += strip->most & other;
}

/* n rows of queries or keys, at most MAX_ROWS, `stride` bytes apart, as class BF16 rounds them. */
static const uint16_t *ISA_FN(small_round_rows)(struct batch *batch, attn_type type, const char *x, size_t stride,
                                                size_t n) {
    size_t size = batch->args->head_size;
    uint16_t *rounded = (uint16_t *)(batch->rows + size);
    for (size_t i = 0; i < n; i++, x += stride) {
        const void *row = x;
        if (type != ATTN_F32) {
            ISA_OBJECT(convert).widen(type, size, row, batch->rows);
            row = batch->rows;
        }
        ISA_OBJECT(convert).narrow(ATTN_BF16, size, row, rounded + i * size);
    }
    return rounded;
}

/* Queries of other types, all strips of so many rows. */
static NOINLINE void ISA_FN(small_widen_queries)(struct batch *batch, const char *q, size_t rows) {
    attn_type type = batch->args->q_type;
    size_t size = batch->args->head_size, stride = bytes_of(type, batch->args->q_row_stride);
    bool bf16 = HAS_PAIRS && batch->bf16;
    if (bf16 && type != ATTN_BF16) {
        q = (const char *)ISA_FN(small_round_rows)(batch, type, q, stride, rows);
        type = ATTN_BF16, stride = bytes_of(type, size);
    }
    for (size_t row = 0; row < rows; row += ROWS, q += ROWS * stride) {
        float *packed = batch->queries + row / ROWS * QUERY_FLOATS;
        if (type == ATTN_BF16)
            pack_queries(ATTN_BF16, q, stride, rows - row, size, batch->scale, bf16, packed);
        else
            pack_queries(ATTN_F16, q, stride, rows - row, size, batch->scale, bf16, packed);
    }
}

/* A head's keys, of other types. */
static NOINLINE void ISA_FN(small_widen_keys)(struct batch *batch, const char *k) {
    attn_type type = batch->args->kv_type;
    size_t size = batch->args->head_size, keys = batch->args->keys, depth = (size + 3) / 4;
    size_t stride = bytes_of(type, batch->args->k_row_stride);
    bool bf16 = HAS_PAIRS && batch->bf16;
    if (type == ATTN_F16 && !bf16) {
        pack_keys(ATTN_F16, k, stride, keys, size, false, batch->keys);
        return;
    }
    size_t most = type == ATTN_BF16 ? keys : MAX_ROWS;
    for (size_t key = 0, n; key < keys; key += n, k += n * stride) {
        n = keys - key < most ? keys - key : most;
        const uint16_t *rounded =
            type == ATTN_BF16 ? (const uint16_t *)k : ISA_FN(small_round_rows)(batch, type, k, stride, n);
        pack_keys(ATTN_BF16, rounded, type == ATTN_BF16 ? stride : bytes_of(ATTN_BF16, size), n, size, bf16,
                  batch->keys + key / KEYS * depth * VEC_LANES);
    }
}

/* Floats. */
static NOINLINE void ISA_FN(small_pack_keys)(struct batch *batch, const void *k) {
    const struct attn_small_args *args = batch->args;
    pack_keys(ATTN_F32, k, args->k_row_stride * sizeof(float), args->keys, args->head_size, false, batch->keys);
}

/* Logits of up to STRIPS strips of head h. */
static void ISA_FN(small_add_strips)(struct batch *batch, size_t h, const void *v, size_t row, size_t strips) {
    const struct attn_small_args *args = batch->args;
    size_t depth = (args->head_size + 3) / 4, vecs = (args->keys + KEYS - 1) / KEYS, left = args->rows - row;
    const char *q = element_at(args->q, args->q_type, h * args->q_head_stride + row * args->q_row_stride);
    size_t q_stride = args->q_row_stride * sizeof(float);
    bool plain = is_plain(batch, args->q_type);
    if (!plain)
        ISA_FN(small_widen_queries)(batch, q, left < MAX_ROWS ? left : MAX_ROWS);
    float *scores = batch->scores + batch->count * SCORE_FLOATS;
    char *to = (char *)args->o + bytes_of(args->o_type, h * args->o_head_stride + row * args->o_row_stride);
    size_t to_stride = bytes_of(args->o_type, ROWS * args->o_row_stride);
    for (size_t s = 0; s < strips; s++, row += ROWS, q += ROWS * q_stride, to += to_stride) {
        size_t rows = args->rows - row < ROWS ? args->rows - row : ROWS;
        if (plain)
            pack_queries(ATTN_F32, q, q_stride, rows, args->head_size, batch->scale, false,
                         batch->queries + s * QUERY_FLOATS);
        struct strip *strip = &batch->strip[batch->count++];
        strip->rows = rows, strip->row = row, strip->v = v, strip->to = to;
        find_seen(batch, strip);
    }
    switch (strips) {
    case 1:
        score(batch->queries, batch->keys, depth, scores, vecs, 1);
        break;
    case 2:
        score(batch->queries, batch->keys, depth, scores, vecs, 2);
        break;
    case 3:
        score(batch->queries, batch->keys, depth, scores, vecs, 3);
        break;
    default:
        score(batch->queries, batch->keys, depth, scores, vecs, 4);
    }
}

static void ISA_FN(small_run_head)(struct batch *batch, size_t h, const void *v) {
    size_t rows = batch->args->rows;
    for (size_t row = 0; row < rows; row += MAX_ROWS) {
        size_t strips = rows - row < MAX_ROWS ? (rows - row + ROWS - 1) / ROWS : STRIPS;
        if (batch->count + strips > BATCH)
            ISA_FN(small_finish)(batch);
        ISA_FN(small_add_strips)(batch, h, v, row, strips);
    }
}

static void ISA_FN(small_run_heads)(struct batch *batch) {
    const struct attn_small_args *args = batch->args;
    const void *k = args->k, *v = args->v;
    size_t k_stride = bytes_of(args->kv_type, args->k_head_stride);
    size_t v_stride = bytes_of(args->kv_type, args->v_head_stride);
    bool plain = is_plain(batch, args->kv_type);
    for (size_t h = 0; h < args->heads; k = (const char *)k + k_stride, v = (const char *)v + v_stride) {
        if (plain)
            ISA_FN(small_pack_keys)(batch, k);
        else
            ISA_FN(small_widen_keys)(batch, k);
        for (size_t end = h + args->group; h < end; h++)
            ISA_FN(small_run_head)(batch, h, v);
    }
    ISA_FN(small_finish)(batch);
}

static void ISA_FN(small_run)(const struct attn_small_args *args) {
    struct batch *batch = args->scratch;
    batch->args = args;
    batch->count = 0;
    batch->bf16 = HAS_PAIRS && args->arithmetic == ATTN_CLASS_BF16;
    bool short_values = TAILS_OVERLAP && args->value_size < VEC_LANES;
    batch->copies_values = short_values || !is_plain(batch, args->kv_type);
    batch->narrows = short_values || !is_plain(batch, args->o_type);
    batch->scale = batch->bf16 ? 1.0f : args->scale;
    batch->factors = batch->narrows ? batch->ones : batch->inverse;
    batch->o_row_stride = batch->narrows ? COLUMN_FLOATS : args->o_row_stride;
    for (size_t i = 0; batch->narrows && i < BATCH * ROWS; i++)
        batch->ones[i] = 1.0f;
    if (batch->bf16)
        batch->state = flush_begin();
    ISA_FN(small_run_heads)(batch);
    keep_denormals(batch);
}

const struct attn_small_kernel ISA_OBJECT(small) = {
    .name = ISA_NAME, .scratch_bytes = sizeof(struct batch), .has_bf16 = HAS_PAIRS, .run = ISA_FN(small_run)};
