/* Attention over few keys for AVX-512.
 *
 * Query rows are taken in strips of four. A register of the score tile is then four quads, one for each of four keys, with
 * a lane for each row: the logits of six keys and four rows take two registers, and maximum, exp and sum work on all rows at
 * once, with two shuffles where quads meet. Per element d of the head a strip's four queries are broadcast to every quad by
 * the load; what the four keys have at d is one permutation of a register that holds four elements of each.
 *
 * Four key registers over up to four strips make up to sixteen chains. Strips of any heads are collected into a batch before
 * their softmax, so that its dependent steps overlap, and the values of one head are read by two strips at a time where there
 * are few columns. */
#include <math.h>

#include "exp.h"
#include "kernels.h"

enum { ROWS = 4, KEYS = VEC_LANES / ROWS, STRIPS = 4, MAX_ROWS = STRIPS * ROWS, BATCH = 8 };

/* Registers: of keys in a tile, of value columns that one strip or two take at a time, of the 16 lanes of a sum. */
enum { KEY_VECS = 4, VALUE_VECS = 4, PAIR_VECS = 2, LANE_VECS = ATTN_LANES / KEYS };

/* Of a strip. */
enum { QUERY_FLOATS = ROWS * ATTN_SMALL_SIZE, SCORE_FLOATS = ROWS * ATTN_SMALL_KEYS };

/* Four floats in each quad. */
INLINE vec quad_broadcast(const float *p) {
    return _mm512_broadcast_f32x4(_mm_loadu_ps(p));
}

/* Lane i, a literal, of each quad in all of the quad. */
#define quad_lane(x, i) _mm512_permute_ps(x, (i)*0x55)

/* Quad i holds four floats from p[i] + d on. */
INLINE vec quad_join(const float *const p[KEYS], size_t d) {
    vec x = _mm512_castps128_ps512(_mm_loadu_ps(p[0] + d));
    x = _mm512_insertf32x4(x, _mm_loadu_ps(p[1] + d), 1);
    x = _mm512_insertf32x4(x, _mm_loadu_ps(p[2] + d), 2);
    return _mm512_insertf32x4(x, _mm_loadu_ps(p[3] + d), 3);
}

/* The same of n < 4 floats, +0 beyond. */
INLINE vec quad_join_first(const float *const p[KEYS], size_t d, size_t n) {
    __mmask8 mask = (__mmask8)vec_lanes(0, n);
    vec x = _mm512_castps128_ps512(_mm_maskz_loadu_ps(mask, p[0] + d));
    x = _mm512_insertf32x4(x, _mm_maskz_loadu_ps(mask, p[1] + d), 1);
    x = _mm512_insertf32x4(x, _mm_maskz_loadu_ps(mask, p[2] + d), 2);
    return _mm512_insertf32x4(x, _mm_maskz_loadu_ps(mask, p[3] + d), 3);
}

/* Lane j of quad i of register r becomes lane r of quad i of register j. */
INLINE void quad_transpose(vec r[4]) {
    vec t0 = _mm512_unpacklo_ps(r[0], r[1]), t1 = _mm512_unpackhi_ps(r[0], r[1]);
    vec t2 = _mm512_unpacklo_ps(r[2], r[3]), t3 = _mm512_unpackhi_ps(r[2], r[3]);
    r[0] = _mm512_shuffle_ps(t0, t2, 0x44);
    r[1] = _mm512_shuffle_ps(t0, t2, 0xee);
    r[2] = _mm512_shuffle_ps(t1, t3, 0x44);
    r[3] = _mm512_shuffle_ps(t1, t3, 0xee);
}

/* The quads from n on of the register at p become -inf. */
INLINE void quad_hide_absent(float *p, size_t n) {
    vec_store_mask(vec_lanes(n * ROWS, VEC_LANES), p, vec_set(-INFINITY));
}

/* Numbers of keys, one for each row, in each quad. */
typedef __m512i quad_count;

/* x, and -inf for the rows that do not see the key of their quad, which for quad i is key `key` + i. */
INLINE vec quad_hide(vec x, size_t key, quad_count hi) {
    __m512i keys = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    quad_count left = _mm512_sub_epi32(hi, _mm512_set1_epi32((int)key));
    return vec_select(_mm512_cmplt_epi32_mask(keys, left), x, vec_set(-INFINITY));
}

/* Of n <= ROWS rows; 0 for the others. */
INLINE quad_count quad_visible(const uint32_t *hi, size_t n) {
    return _mm512_broadcast_i32x4(_mm_maskz_loadu_epi32((__mmask8)vec_lanes(0, n), hi));
}

/* The largest of each row, in every quad. */
INLINE vec quad_max(vec x) {
    x = vec_max(x, _mm512_shuffle_f32x4(x, x, 0x4e));
    return vec_max(x, _mm512_shuffle_f32x4(x, x, 0xb1));
}

/* The last steps of the tree of attn_lane_sum, from four lanes on: lane i is quad i of each row. */
INLINE vec quad_sum(vec x) {
    x = vec_add(x, _mm512_shuffle_f32x4(x, x, 0x4e));
    return vec_add(x, _mm512_shuffle_f32x4(x, x, 0xb1));
}

/* +0 instead of -inf. */
INLINE vec shift_of(vec max) {
    return vec_select(_mm512_cmp_ps_mask(max, vec_set(-INFINITY), _CMP_NEQ_UQ), max, vec_zero());
}

/* 1 / x, or 0 where x is 0, of the first quad. */
INLINE void quad_inverse(vec x, float inverse[ROWS]) {
    __m128 low = _mm512_castps512_ps128(x);
    __mmask8 any = _mm_cmp_ps_mask(low, _mm_setzero_ps(), _CMP_NEQ_UQ);
    _mm_storeu_ps(inverse, _mm_maskz_div_ps(any, _mm_set1_ps(1.0f), low));
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
        vec_mask tail = vec_lanes(0, size - whole);
        UNROLL for (size_t i = 0; i < ROWS; i++) r[i] = vec_mul(vec_load_mask(tail, row[i] + whole), factor);
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
            vec kv = quad_lane(k[w], i);                                                                               \
            UNROLL for (int s = 0; s < strips; s++) acc[s * width + w] = vec_fma(qv[s], kv, acc[s * width + w]);       \
        }                                                                                                              \
        __asm__ volatile("" : : : "memory"); /* or clang begins the next step in registers that there are not */       \
    }

/* Logits of compile-time strips and registers of keys. depth counts elements in fours. */
INLINE void tile_run(const float *queries, const float *keys, size_t depth, float *scores, const int strips,
                     const int width) {
    vec acc[STRIPS * KEY_VECS];
    UNROLL for (int i = 0; i < strips * width; i++) acc[i] = vec_zero();
    for (size_t d = 0; d < depth; d++, keys += VEC_LANES) {
        const float *q = queries + d / KEYS * ROWS * VEC_LANES + d % KEYS * ROWS;
        vec k[KEY_VECS];
        UNROLL for (int w = 0; w < width; w++) k[w] = vec_load(keys + (size_t)w * depth * VEC_LANES);
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
    size_t g = score_by(queries, keys, depth, scores, 0, vecs, strips, 4);
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
            vec_store_mask(vec_lanes(0, strip->rows), args->max + strip->state, vec_add(max, vec_zero()));
    }
    for (size_t s = 0; s < batch->count; s++) {
        const struct strip *strip = &batch->strip[s];
        vec sum = exponentials(batch->scores + s * SCORE_FLOATS, vecs, vec_load(batch->shift + s * VEC_LANES));
        quad_inverse(sum, batch->inverse + s * ROWS);
        if (args->sum)
            vec_store_mask(vec_lanes(0, strip->rows), args->sum + strip->state, sum);
    }
}

/* Strips s .. s + strips - 1, of one head, times registers of value columns from j on, the last of `tail` lanes; strips and
 * registers known to the compiler. */
INLINE void add_values(const struct batch *batch, size_t s, size_t j, vec_mask tail, const int strips,
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
    for (const float *end = p + common * ROWS; p < end; v += v_stride, p += ROWS) {
        vec vv[VALUE_VECS];
        UNROLL for (int w = 0; w < width; w++) vv[w] =
            vec_load_mask(w == width - 1 ? tail : (vec_mask)-1, v + w * VEC_LANES);
        UNROLL for (int r = 0; r < rows; r++) {
            vec pv = vec_set(p[r / ROWS * SCORE_FLOATS + r % ROWS]);
            UNROLL for (int w = 0; w < width; w++) acc[r * width + w] = vec_fma(pv, vv[w], acc[r * width + w]);
        }
    }
    if (args->hi)
        UNROLL for (int r = 0; r < rows; r++) if ((size_t)r < present) {
            const float *more = v, *pr = p + r / ROWS * SCORE_FLOATS + r % ROWS;
            for (size_t key = common; key < args->hi[strip->row + (size_t)r]; key++, more += v_stride, pr += ROWS) {
                vec pv = vec_set(*pr);
                UNROLL for (int w = 0; w < width; w++) acc[r * width + w] = vec_fma(
                    pv, vec_load_mask(w == width - 1 ? tail : (vec_mask)-1, more + w * VEC_LANES), acc[r * width + w]);
            }
        }
    float *o = strip->o + j;
    const float *inverse = batch->inverse + s * ROWS;
    UNROLL for (int r = 0; r < rows; r++) {
        if ((size_t)r == present)
            return;
        vec factor = vec_set(inverse[r]);
        UNROLL for (int w = 0; w < width; w++) vec_store_mask(w == width - 1 ? tail : (vec_mask)-1, o + w * VEC_LANES,
                                                              vec_add(vec_mul(acc[r * width + w], factor), vec_zero()));
        o += args->o_row_stride;
    }
}

/* All strips; those of one head two at a time, where one has too few chains. */
INLINE void add_columns(const struct batch *batch, size_t j, vec_mask tail, const int width) {
    for (size_t s = 0; s < batch->count; s++) {
        if (width <= PAIR_VECS && s + 1 < batch->count && batch->strip[s + 1].row > batch->strip[s].row) {
            add_values(batch, s, j, tail, 2, width);
            s++;
        } else {
            add_values(batch, s, j, tail, 1, width);
        }
    }
}

static void output(const struct batch *batch) {
    size_t size = batch->args->value_size;
    for (size_t j = 0, taken; j < size; j += taken) {
        size_t left = size - j, vecs = (left + VEC_LANES - 1) / VEC_LANES;
        vecs = vecs < VALUE_VECS ? vecs : VALUE_VECS;
        taken = left < vecs * VEC_LANES ? left : vecs * VEC_LANES;
        vec_mask tail = vec_lanes(0, taken - (vecs - 1) * VEC_LANES);
        switch (vecs) {
        case 1:
            add_columns(batch, j, tail, 1);
            break;
        case 2:
            add_columns(batch, j, tail, 2);
            break;
        case 3:
            add_columns(batch, j, tail, 3);
            break;
        default:
            add_columns(batch, j, tail, 4);
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

const struct attn_small_kernel attn_avx512_small = {
    .name = "avx512", .scratch_bytes = sizeof(struct batch), .run = run};
