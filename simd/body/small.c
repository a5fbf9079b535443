/* Attention over few keys.
 *
 * Query rows are taken in strips of four. A register of the score tile holds quads, one for each of KEYS keys, with a
 * lane for each row: maximum, exp and sum work on all rows at once, with a shuffle or two where quads meet. Per element
 * d of the head a strip's four queries are broadcast to every quad, and multiplied by what the keys have at d, a lane
 * of each quad of a register that holds four elements of each key.
 *
 * Strips of any heads are collected into a batch before their softmax, so that its dependent steps overlap, and the
 * values of one head are read by two strips at a time where there are few columns. */
#include <math.h>

#include "body/objects.h"
#include "body/rows.h"
#include "quad.h"

enum { STRIPS = 4, MAX_ROWS = STRIPS * ROWS, BATCH = 8 };

/* Registers of the 16 lanes of a sum. */
enum { LANE_VECS = ATTN_LANES / KEYS };

/* Of a strip. */
enum { QUERY_FLOATS = ROWS * ATTN_SMALL_SIZE, SCORE_FLOATS = ROWS * ATTN_SMALL_KEYS };

/* `n` rows from p on, of which there are to be `count`: the last one stands in for those that are absent. */
INLINE void rows_from(const float *p, size_t stride, size_t n, const float *row[], size_t count) {
    row[0] = p;
    UNROLL for (size_t i = 1; i < count; i++) row[i] = i < n ? row[i - 1] + stride : row[i - 1];
}

/* Elements d .. d + 3 of KEYS keys are one register; those of all d follow each other. */
static void ISA_FN(small_pack_keys)(const float *k, size_t stride, size_t keys, size_t size, float *packed) {
    size_t whole = size / 4 * 4;
    for (size_t key = 0; key < keys; key += KEYS, k += KEYS * stride) {
        const float *row[KEYS];
        rows_from(k, stride, keys - key, row, KEYS);
        for (size_t d = 0; d < whole; d += 4, packed += VEC_LANES)
            vec_store(packed, quad_join(row, d));
        if (whole < size) {
            vec_store(packed, quad_join_first(row, whole, size - whole));
            packed += VEC_LANES;
        }
    }
}

/* Scaled; element d of a strip's rows is a quad, in the order in which vec_transpose_quads leaves them. */
static void ISA_FN(small_pack_queries)(const float *q, size_t stride, size_t rows, size_t size, float scale,
                                       float *packed) {
    const float *row[ROWS];
    rows_from(q, stride, rows, row, ROWS);
    size_t whole = size / VEC_LANES * VEC_LANES;
    vec r[ROWS], factor = vec_set(scale);
    for (size_t d = 0; d < whole; d += VEC_LANES, packed += ROWS * VEC_LANES) {
        UNROLL for (size_t i = 0; i < ROWS; i++) r[i] = vec_mul(vec_load(row[i] + d), factor);
        vec_transpose_quads(r);
        UNROLL for (size_t i = 0; i < ROWS; i++) vec_store(packed + i * VEC_LANES, r[i]);
    }
    if (whole < size) {
        size_t tail = size - whole;
        UNROLL for (size_t i = 0; i < ROWS; i++) r[i] = vec_mul(vec_load_first(tail, row[i] + whole), factor);
        vec_transpose_quads(r);
        UNROLL for (size_t i = 0; i < ROWS; i++) vec_store(packed + i * VEC_LANES, r[i]);
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
    size_t row;    /* the first */
    size_t common; /* keys that all its rows see */
    const float *v;
    float *o;
};

/* Strips of any heads, so that their steps overlap, and the packed keys of one kv head. In the caller's scratch:
 * twice what a call should take of the stack. */
struct batch {
    const struct attn_small_args *args;
    size_t count;
    struct strip strip[BATCH];
    _Alignas(64) float keys[ATTN_SMALL_KEYS * ATTN_SMALL_SIZE];
    float queries[STRIPS * QUERY_FLOATS];
    float scores[BATCH * SCORE_FLOATS];
    float shift[BATCH * VEC_LANES];
    float inverse[BATCH * ROWS];
    float tail[TAILS_ARE_COPIED ? ATTN_SMALL_KEYS * VEC_LANES : VEC_LANES];
};

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

/* Logits become probabilities, yet to be divided by their sum, which is returned. */
INLINE vec exponentials(float *p, size_t vecs, vec shift) {
    size_t g = 0;
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

/* All maxima first: their reductions overlap each other. */
static void ISA_FN(small_softmax)(struct batch *batch) {
    const struct attn_small_args *args = batch->args;
    size_t keys = args->keys, vecs = (keys + KEYS - 1) / KEYS;
    for (size_t s = 0; s < batch->count; s++) {
        const struct strip *strip = &batch->strip[s];
        const uint32_t *hi = args->hi ? args->hi + strip->row : NULL;
        vec max = hide(batch->scores + s * SCORE_FLOATS, keys, hi, strip->rows);
        vec_store(batch->shift + s * VEC_LANES, shifts_of(max));
    }
    for (size_t s = 0; s < batch->count; s++) {
        vec sum = exponentials(batch->scores + s * SCORE_FLOATS, vecs, vec_load(batch->shift + s * VEC_LANES));
        quad_inverse(sum, batch->inverse + s * ROWS);
    }
}

/* The last register of value columns of each key. */
struct column {
    const float *v;
    size_t stride;
};

/* The one at v, or where TAILS_ARE_COPIED and it has no more than `tail` lanes, a copy that has them all. */
INLINE struct column last_column(struct batch *batch, const float *v, size_t tail) {
    size_t keys = batch->args->keys, stride = batch->args->v_row_stride;
    if (!TAILS_ARE_COPIED || tail == VEC_LANES)
        return (struct column){v, stride};
    for (size_t key = 0; key < keys; key++, v += stride)
        vec_store(batch->tail + key * VEC_LANES, vec_load_first(tail, v));
    return (struct column){batch->tail, VEC_LANES};
}

/* Register w of `width` of one key's value columns, which begin at v. */
INLINE vec value_at(const float *v, struct column last, size_t tail, int w, const int width) {
    if (w < width - 1)
        return vec_load(v + w * VEC_LANES);
    return TAILS_ARE_COPIED ? vec_load(last.v) : vec_load_first(tail, v + w * VEC_LANES);
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

/* Strips s .. s + strips - 1, of one head, times registers of value columns from j on, `last` the last of them, of
 * which `tail` lanes are stored; strips and registers known to the compiler. */
INLINE void add_values(const struct batch *batch, size_t s, size_t j, struct column last, size_t tail, const int strips,
                       const int width) {
    const struct attn_small_args *args = batch->args;
    const struct strip *strip = &batch->strip[s];
    const int rows = strips * ROWS;
    vec acc[2 * ROWS * VALUE_VECS];
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int w = 0; w < width; w++) acc[r * width + w] = vec_zero();
    const float *v = strip->v + j, *p = batch->scores + s * SCORE_FLOATS;
    size_t v_stride = args->v_row_stride;
    size_t present = strip->rows, common = strip->common;
    if (strips == 2) {
        present = ROWS + strip[1].rows;
        common = strip[1].common < common ? strip[1].common : common;
    }
    for (const float *end = p + common * ROWS; p < end; v += v_stride, last.v += last.stride, p += ROWS) {
        vec vv[VALUE_VECS];
        UNROLL for (int w = 0; w < width; w++) vv[w] = value_at(v, last, tail, w, width);
        UNROLL for (int q = 0; q < strips; q++) {
            ROW(0)
            ROW(1)
            ROW(2)
            ROW(3)
        }
    }
    if (args->hi)
        UNROLL for (int r = 0; r < rows; r++) if ((size_t)r < present) {
            const float *more = v, *pr = p + r / ROWS * SCORE_FLOATS + r % ROWS;
            struct column more_last = last;
            for (size_t key = common; key < args->hi[strip->row + (size_t)r]; key++, pr += ROWS) {
                vec pv = vec_set(*pr);
                UNROLL for (int w = 0; w < width; w++) acc[r * width + w] =
                    vec_fma(pv, value_at(more, more_last, tail, w, width), acc[r * width + w]);
                more += v_stride;
                more_last.v += more_last.stride;
            }
        }
    float *o = strip->o + j;
    const float *inverse = batch->inverse + s * ROWS;
    UNROLL for (int r = 0; r < rows; r++) {
        if ((size_t)r == present)
            return;
        vec factor = vec_set(inverse[r]);
        UNROLL for (int w = 0; w < width - 1; w++)
            vec_store(o + w * VEC_LANES, vec_add(vec_mul(acc[r * width + w], factor), vec_zero()));
        vec_store_first(tail, o + (width - 1) * VEC_LANES,
                        vec_add(vec_mul(acc[r * width + width - 1], factor), vec_zero()));
        o += args->o_row_stride;
    }
}

/* All strips; those of one head two at a time, where one has too few chains. */
INLINE void add_columns(struct batch *batch, size_t j, size_t tail, const int width) {
    struct column last = {0};
    for (size_t s = 0; s < batch->count; s++) {
        const struct strip *strip = &batch->strip[s];
        if (s == 0 || strip->v != strip[-1].v)
            last = last_column(batch, strip->v + j + (width - 1) * VEC_LANES, tail);
        if (width <= PAIR_VECS && s + 1 < batch->count && strip[1].row > strip->row) {
            add_values(batch, s, j, last, tail, 2, width);
            s++;
        } else {
            add_values(batch, s, j, last, tail, 1, width);
        }
    }
}

#define COLUMNS(n)                                                                                                     \
    case n:                                                                                                            \
        if (n <= VALUE_VECS)                                                                                           \
            add_columns(batch, j, tail, n <= VALUE_VECS ? n : VALUE_VECS);                                             \
        break;
_Static_assert(VALUE_VECS <= 6, "a case of output is missing");

static void ISA_FN(small_output)(struct batch *batch) {
    size_t size = batch->args->value_size;
    for (size_t j = 0, taken; j < size; j += taken) {
        size_t left = size - j, vecs = (left + VEC_LANES - 1) / VEC_LANES;
        vecs = vecs < VALUE_VECS ? vecs : VALUE_VECS;
        taken = left < vecs * VEC_LANES ? left : vecs * VEC_LANES;
        size_t tail = taken - (vecs - 1) * VEC_LANES;
        switch (vecs) {
            COLUMNS(1)
            COLUMNS(2)
            COLUMNS(3)
            COLUMNS(4)
            COLUMNS(5)
            COLUMNS(6)
        }
    }
}

static void ISA_FN(small_finish)(struct batch *batch) {
    ISA_FN(small_softmax)(batch);
    ISA_FN(small_output)(batch);
    batch->count = 0;
}

/* Keys that all of n rows see. */
INLINE size_t common_keys(const struct attn_small_args *args, size_t row, size_t n) {
    size_t common = args->keys;
    for (size_t r = 0; args->hi && r < n; r++)
        common = args->hi[row + r] < common ? args->hi[row + r] : common;
    return common;
}

/* Logits of up to STRIPS strips of head h. */
static void ISA_FN(small_add_strips)(struct batch *batch, size_t h, const float *v, size_t row, size_t strips) {
    const struct attn_small_args *args = batch->args;
    size_t depth = (args->head_size + 3) / 4, vecs = (args->keys + KEYS - 1) / KEYS;
    const float *q = args->q + h * args->q_head_stride + row * args->q_row_stride;
    float *o = args->o + h * args->o_head_stride + row * args->o_row_stride;
    float *scores = batch->scores + batch->count * SCORE_FLOATS;
    for (size_t s = 0; s < strips; s++, row += ROWS, q += ROWS * args->q_row_stride, o += ROWS * args->o_row_stride) {
        size_t rows = args->rows - row < ROWS ? args->rows - row : ROWS;
        ISA_FN(small_pack_queries)
        (q, args->q_row_stride, rows, args->head_size, args->scale, batch->queries + s * QUERY_FLOATS);
        batch->strip[batch->count++] = (struct strip){rows, row, common_keys(args, row, rows), v, o};
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

static void ISA_FN(small_run_head)(struct batch *batch, size_t h, const float *v) {
    size_t rows = batch->args->rows;
    for (size_t row = 0; row < rows; row += MAX_ROWS) {
        size_t strips = rows - row < MAX_ROWS ? (rows - row + ROWS - 1) / ROWS : STRIPS;
        if (batch->count + strips > BATCH)
            ISA_FN(small_finish)(batch);
        ISA_FN(small_add_strips)(batch, h, v, row, strips);
    }
}

static void ISA_FN(small_run)(const struct attn_small_args *args) {
    struct batch *batch = args->scratch;
    const float *k = args->k, *v = args->v;
    batch->args = args;
    batch->count = 0;
    for (size_t h = 0; h < args->heads; k += args->k_head_stride, v += args->v_head_stride) {
        ISA_FN(small_pack_keys)(k, args->k_row_stride, args->keys, args->head_size, batch->keys);
        for (size_t end = h + args->group; h < end; h++)
            ISA_FN(small_run_head)(batch, h, v);
    }
    ISA_FN(small_finish)(batch);
}

const struct attn_small_kernel ISA_OBJECT(small) = {
    .name = ISA_NAME, .scratch_bytes = sizeof(struct batch), .run = ISA_FN(small_run)};
