/* Attention over few keys for AVX2.
 *
 * Query rows are taken in strips of four. A register of the score tile is then two quads, one for each of two keys, with a
 * lane for each row: the logits of six keys and four rows take three registers, and maximum, exp and sum work on all rows at
 * once, with one shuffle where quads meet. Per element d of the head a strip's four queries are broadcast to both quads by
 * the load; what the two keys have at d is one permutation of a register that holds four elements of each.
 *
 * Two key registers over four strips make eight chains; fewer strips take four key registers. Strips of any heads are
 * collected into a batch before their softmax, so that its dependent steps overlap, and the values of one head are read by
 * two strips at a time where there are few columns. */
#include <math.h>

#include "exp.h"
#include "kernels.h"

enum { ROWS = 4, KEYS = VEC_LANES / ROWS, STRIPS = 4, MAX_ROWS = STRIPS * ROWS, BATCH = 8 };

/* Registers: of keys in a tile, of value columns that one strip or two take at a time, of the 16 lanes of a sum. */
enum { KEY_VECS = 4, VALUE_VECS = 3, PAIR_VECS = 1, LANE_VECS = ATTN_LANES / KEYS };

/* Of a strip. */
enum { QUERY_FLOATS = ROWS * ATTN_SMALL_SIZE, SCORE_FLOATS = ROWS * ATTN_SMALL_KEYS };

/* Four floats in each quad. */
INLINE vec quad_broadcast(const float *p) {
    return _mm256_broadcast_ps((const __m128 *)p);
}

/* Lane i, a literal, of each quad in all of the quad. */
#define quad_lane(x, i) _mm256_permute_ps(x, (i)*0x55)

/* Quad i holds four floats from p[i] + d on. */
INLINE vec quad_join(const float *const p[KEYS], size_t d) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p[0] + d)), _mm_loadu_ps(p[1] + d), 1);
}

/* The same of n < 4 floats, +0 beyond. */
INLINE vec quad_join_first(const float *const p[KEYS], size_t d, size_t n) {
    return _mm256_permute2f128_ps(vec_load_first(n, p[0] + d), vec_load_first(n, p[1] + d), 0x20);
}

/* Lane j of quad i of register r becomes lane r of quad i of register j. */
INLINE void quad_transpose(vec r[4]) {
    vec t0 = _mm256_unpacklo_ps(r[0], r[1]), t1 = _mm256_unpackhi_ps(r[0], r[1]);
    vec t2 = _mm256_unpacklo_ps(r[2], r[3]), t3 = _mm256_unpackhi_ps(r[2], r[3]);
    r[0] = _mm256_shuffle_ps(t0, t2, 0x44);
    r[1] = _mm256_shuffle_ps(t0, t2, 0xee);
    r[2] = _mm256_shuffle_ps(t1, t3, 0x44);
    r[3] = _mm256_shuffle_ps(t1, t3, 0xee);
}

/* The quads from n on of the register at p become -inf. */
INLINE void quad_hide_absent(float *p, size_t n) {
    _mm_storeu_ps(p + n * ROWS, _mm_set1_ps(-INFINITY));
}

/* Numbers of keys, one for each row, in each quad. */
typedef __m256i quad_count;

/* x, and -inf for the rows that do not see the key of their quad, which for quad i is key `key` + i. */
INLINE vec quad_hide(vec x, size_t key, quad_count hi) {
    __m256i keys = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    quad_count left = _mm256_sub_epi32(hi, _mm256_set1_epi32((int)key));
    return vec_select(_mm256_cmpgt_epi32(left, keys), x, vec_set(-INFINITY));
}

/* Of n <= ROWS rows; 0 for the others. */
INLINE quad_count quad_visible(const uint32_t *hi, size_t n) {
    if (n == ROWS)
        return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)hi));
    uint32_t counts[ROWS] = {0};
    UNROLL for (size_t r = 0; r < ROWS; r++) if (r < n) counts[r] = hi[r];
    return _mm256_broadcastsi128_si256(_mm_setr_epi32((int)counts[0], (int)counts[1], (int)counts[2], (int)counts[3]));
}

/* The largest of each row, in every quad. */
INLINE vec quad_max(vec x) {
    return vec_max(x, _mm256_permute2f128_ps(x, x, 0x01));
}

/* The last step of the tree of attn_lane_sum, from two lanes on: lane i is quad i of each row. */
INLINE vec quad_sum(vec x) {
    return vec_add(x, _mm256_permute2f128_ps(x, x, 0x01));
}

/* +0 instead of -inf. */
INLINE vec shift_of(vec max) {
    return _mm256_and_ps(_mm256_cmp_ps(max, vec_set(-INFINITY), _CMP_NEQ_UQ), max);
}

/* 1 / x, or 0 where x is 0, of the first quad. */
INLINE void quad_inverse(vec x, float inverse[ROWS]) {
    __m128 low = _mm256_castps256_ps128(x), one = _mm_set1_ps(1.0f), none = _mm_cmpeq_ps(low, _mm_setzero_ps());
    _mm_storeu_ps(inverse, _mm_andnot_ps(none, _mm_div_ps(one, _mm_blendv_ps(low, one, none))));
}

/* `n` rows from p on, of which there are to be `count`: the last one stands in for those that are absent. */
INLINE void rows_from(const float *p, size_t stride, size_t n, const float *row[], size_t count) {
    row[0] = p;
    UNROLL for (size_t i = 1; i < count; i++) row[i] = i < n ? row[i - 1] + stride : row[i - 1];
}

/* Elements d .. d + 3 of KEYS keys are one register; those of all d follow each other. */
static void pack_keys(const float *k, size_t stride, size_t keys, size_t size, float *packed) {
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

/* Scaled; element d of a strip's rows is a quad, in the order in which quad_transpose leaves them. */
static void pack_queries(const float *q, size_t stride, size_t rows, size_t size, float scale, float *packed) {
    const float *row[ROWS];
    rows_from(q, stride, rows, row, ROWS);
    size_t whole = size / VEC_LANES * VEC_LANES;
    vec r[ROWS], factor = vec_set(scale);
    for (size_t d = 0; d < whole; d += VEC_LANES, packed += ROWS * VEC_LANES) {
        UNROLL for (size_t i = 0; i < ROWS; i++) r[i] = vec_mul(vec_load(row[i] + d), factor);
        quad_transpose(r);
        UNROLL for (size_t i = 0; i < ROWS; i++) vec_store(packed + i * VEC_LANES, r[i]);
    }
    if (whole < size) {
        size_t tail = size - whole;
        UNROLL for (size_t i = 0; i < ROWS; i++) r[i] = vec_mul(vec_load_first(tail, row[i] + whole), factor);
        quad_transpose(r);
        UNROLL for (size_t i = 0; i < ROWS; i++) vec_store(packed + i * VEC_LANES, r[i]);
    }
}

/* Element d + i of four. */
#define STEP(i)                                                                                                        \
    {                                                                                                                  \
        vec qv[STRIPS];                                                                                                \
        UNROLL for (int s = 0; s < strips; s++) qv[s] = quad_broadcast(q + s * QUERY_FLOATS + i * VEC_LANES);          \
        UNROLL for (int w = 0; w < width; w++) {                                                                       \
            vec kv = quad_lane(vec_load(keys + (size_t)w * stride), i);                                                \
            UNROLL for (int s = 0; s < strips; s++) acc[s * width + w] = vec_fma(qv[s], kv, acc[s * width + w]);       \
        }                                                                                                              \
        __asm__ volatile("" : : : "memory"); /* or clang begins the next step in registers that there are not */       \
    }

/* Logits of compile-time strips and registers of keys. depth counts elements in fours. */
INLINE void tile_run(const float *queries, const float *keys, size_t depth, float *scores, const int strips,
                     const int width) {
    size_t stride = depth * VEC_LANES;
    vec acc[STRIPS * KEY_VECS];
    UNROLL for (int i = 0; i < strips * width; i++) acc[i] = vec_zero();
    for (size_t d = 0; d < depth; d++, keys += VEC_LANES) {
        const float *q = queries + d / KEYS * ROWS * VEC_LANES + d % KEYS * ROWS;
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
    size_t g = score_by(queries, keys, depth, scores, 0, vecs, strips, strips > 2 ? 2 : KEY_VECS);
    g = score_by(queries, keys, depth, scores, g, vecs, strips, 2);
    score_by(queries, keys, depth, scores, g, vecs, strips, 1);
}

/* Up to four rows of one head. */
struct strip {
    size_t rows;
    size_t row;    /* the first */
    size_t state;  /* its place in max and sum */
    size_t common; /* keys that all its rows see */
    const float *v;
    float *o;
};

/* Strips of any heads, so that their steps overlap, and the packed keys of one kv head. In the caller's scratch: twice what a
 * call should take of the stack. */
struct batch {
    const struct attn_small_args *args;
    size_t count;
    struct strip strip[BATCH];
    _Alignas(64) float keys[ATTN_SMALL_KEYS * ATTN_SMALL_SIZE];
    float queries[STRIPS * QUERY_FLOATS];
    float scores[BATCH * SCORE_FLOATS];
    float shift[BATCH * VEC_LANES];
    float inverse[BATCH * ROWS];
    float tail[ATTN_SMALL_KEYS * VEC_LANES];
};

/* The rows' maxima. Logits that a row does not see are made -inf: their probability is the +0 asked for. Absent keys are the
 * last once more, which changes no maximum. */
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
static void softmax(struct batch *batch) {
    const struct attn_small_args *args = batch->args;
    size_t keys = args->keys, vecs = (keys + KEYS - 1) / KEYS;
    for (size_t s = 0; s < batch->count; s++) {
        const struct strip *strip = &batch->strip[s];
        const uint32_t *hi = args->hi ? args->hi + strip->row : NULL;
        vec max = hide(batch->scores + s * SCORE_FLOATS, keys, hi, strip->rows);
        vec_store(batch->shift + s * VEC_LANES, shift_of(max));
        if (args->max)
            vec_store_first(strip->rows, args->max + strip->state, vec_add(max, vec_zero()));
    }
    for (size_t s = 0; s < batch->count; s++) {
        const struct strip *strip = &batch->strip[s];
        vec sum = exponentials(batch->scores + s * SCORE_FLOATS, vecs, vec_load(batch->shift + s * VEC_LANES));
        quad_inverse(sum, batch->inverse + s * ROWS);
        if (args->sum)
            vec_store_first(strip->rows, args->sum + strip->state, sum);
    }
}

/* A register of value columns for each key. */
struct column {
    const float *v;
    size_t stride;
};

/* The one at v, or where it has no more than `tail` lanes, a copy that has them all: no loop over keys need ask. */
INLINE struct column whole_column(struct batch *batch, const float *v, size_t tail) {
    size_t keys = batch->args->keys, stride = batch->args->v_row_stride;
    if (tail == VEC_LANES)
        return (struct column){v, stride};
    for (size_t key = 0; key < keys; key++, v += stride)
        vec_store(batch->tail + key * VEC_LANES, vec_load_first(tail, v));
    return (struct column){batch->tail, VEC_LANES};
}

/* Strips s .. s + strips - 1, of one head, times registers of value columns from j on, `last` the last of them, of which
 * `tail` lanes are stored; strips and registers known to the compiler. */
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
        UNROLL for (int w = 0; w < width - 1; w++) vv[w] = vec_load(v + w * VEC_LANES);
        vv[width - 1] = vec_load(last.v);
        UNROLL for (int r = 0; r < rows; r++) {
            vec pv = vec_set(p[r / ROWS * SCORE_FLOATS + r % ROWS]);
            UNROLL for (int w = 0; w < width; w++) {
                acc[r * width + w] = vec_fma(pv, vv[w], acc[r * width + w]);
                if (width == VALUE_VECS) /* no register is left */
                    vec_settle(acc[r * width + w]);
            }
        }
    }
    if (args->hi)
        UNROLL for (int r = 0; r < rows; r++) if ((size_t)r < present) {
            const float *more = v, *more_last = last.v, *pr = p + r / ROWS * SCORE_FLOATS + r % ROWS;
            for (size_t key = common; key < args->hi[strip->row + (size_t)r]; key++, pr += ROWS) {
                vec pv = vec_set(*pr);
                UNROLL for (int w = 0; w < width - 1; w++) acc[r * width + w] =
                    vec_fma(pv, vec_load(more + w * VEC_LANES), acc[r * width + w]);
                acc[r * width + width - 1] = vec_fma(pv, vec_load(more_last), acc[r * width + width - 1]);
                more += v_stride;
                more_last += last.stride;
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
            last = whole_column(batch, strip->v + j + (width - 1) * VEC_LANES, tail);
        if (width <= PAIR_VECS && s + 1 < batch->count && strip[1].row > strip->row) {
            add_values(batch, s, j, last, tail, 2, width);
            s++;
        } else {
            add_values(batch, s, j, last, tail, 1, width);
        }
    }
}

static void output(struct batch *batch) {
    size_t size = batch->args->value_size;
    for (size_t j = 0, taken; j < size; j += taken) {
        size_t left = size - j, vecs = (left + VEC_LANES - 1) / VEC_LANES;
        vecs = vecs < VALUE_VECS ? vecs : VALUE_VECS;
        taken = left < vecs * VEC_LANES ? left : vecs * VEC_LANES;
        size_t tail = taken - (vecs - 1) * VEC_LANES;
        switch (vecs) {
        case 1:
            add_columns(batch, j, tail, 1);
            break;
        case 2:
            add_columns(batch, j, tail, 2);
            break;
        default:
            add_columns(batch, j, tail, 3);
        }
    }
}

static void finish(struct batch *batch) {
    softmax(batch);
    output(batch);
    batch->count = 0;
}

/* Keys that all of n rows see. */
static size_t common_keys(const struct attn_small_args *args, size_t row, size_t n) {
    size_t common = args->keys;
    for (size_t r = 0; args->hi && r < n; r++)
        common = args->hi[row + r] < common ? args->hi[row + r] : common;
    return common;
}

/* Logits of up to STRIPS strips of head h. */
static void add_strips(struct batch *batch, size_t h, const float *v, size_t row, size_t strips) {
    const struct attn_small_args *args = batch->args;
    size_t depth = (args->head_size + 3) / 4, vecs = (args->keys + KEYS - 1) / KEYS;
    const float *q = args->q + h * args->q_head_stride + row * args->q_row_stride;
    float *o = args->o + h * args->o_head_stride + row * args->o_row_stride;
    float *scores = batch->scores + batch->count * SCORE_FLOATS;
    for (size_t s = 0; s < strips; s++, row += ROWS, q += ROWS * args->q_row_stride, o += ROWS * args->o_row_stride) {
        size_t rows = args->rows - row < ROWS ? args->rows - row : ROWS;
        pack_queries(q, args->q_row_stride, rows, args->head_size, args->scale, batch->queries + s * QUERY_FLOATS);
        size_t state = h * args->state_stride + row, common = common_keys(args, row, rows);
        batch->strip[batch->count++] = (struct strip){rows, row, state, common, v, o};
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

static void run_head(struct batch *batch, size_t h, const float *v) {
    size_t rows = batch->args->rows;
    for (size_t row = 0; row < rows; row += MAX_ROWS) {
        size_t strips = rows - row < MAX_ROWS ? (rows - row + ROWS - 1) / ROWS : STRIPS;
        if (batch->count + strips > BATCH)
            finish(batch);
        add_strips(batch, h, v, row, strips);
    }
}

static void run(const struct attn_small_args *args) {
    struct batch *batch = args->scratch;
    const float *k = args->k, *v = args->v;
    batch->args = args;
    batch->count = 0;
    for (size_t h = 0; h < args->heads; k += args->k_head_stride, v += args->v_head_stride) {
        pack_keys(k, args->k_row_stride, args->keys, args->head_size, batch->keys);
        for (size_t end = h + args->group; h < end; h++)
            run_head(batch, h, v);
    }
    finish(batch);
}

const struct attn_small_kernel attn_avx2_small = {.name = "avx2", .scratch_bytes = sizeof(struct batch), .run = run};
