/* Steps of the attention loop for AVX-512. The scores tile (28 rows of 256 floats) lies in L1: a pass of loads finds the
 * maximum, a second one replaces logits by probabilities. Rows are independent, so that the reductions of one overlap the
 * vectors of the next. */
#include <math.h>

#include "body/elementary.h"
#include "exp.h"
#include "kernels.h"

INLINE float shift_of(float max) {
    return max == -INFINITY ? 0.0f : max;
}

INLINE vec shifts_of(vec max) {
    return vec_select(vec_equal(max, vec_set(-INFINITY)), vec_zero(), max);
}

INLINE float exp_one(float x) {
    return _mm512_cvtss_f32(vec_exp_low(vec_set(x)));
}

/* Lanes of the vector at column c that lie in [lo, hi). */
INLINE vec_mask visible(size_t c, size_t lo, size_t hi) {
    size_t first = lo > c ? lo - c : 0, last = hi > c ? hi - c : 0;
    return vec_lanes(first < VEC_LANES ? first : VEC_LANES, last < VEC_LANES ? last : VEC_LANES);
}

INLINE void scale_row(const float *x, vec f, float *y, size_t n) {
    size_t j = 0;
    for (; j + VEC_LANES <= n; j += VEC_LANES)
        vec_store(y + j, vec_mul(vec_load(x + j), f));
    if (j < n)
        vec_store_mask(below(j, n), y + j, vec_mul(vec_load_mask(below(j, n), x + j), f));
}

static void scale(size_t rows, size_t size, const float *x, size_t x_stride, float factor, float *y, size_t y_stride) {
    vec f = vec_set(factor);
    for (size_t r = 0; r < rows; r++)
        scale_row(x + r * x_stride, f, y + r * y_stride, size);
}

/* In passes, so that no factor has to live through vec_tanh. */
static void soft_cap(float *x, size_t n, float cap, float inverse) {
    scale(1, n, x, 0, inverse, x, 0);
    for (size_t c = 0; c < n; c += VEC_LANES)
        vec_store_mask(below(c, n), x + c, vec_tanh(vec_load_mask(below(c, n), x + c)));
    scale(1, n, x, 0, cap, x, 0);
}

INLINE vec add_slope(vec x, vec slope, int32_t distance) {
    return vec_fma(slope, vec_distances(distance), x);
}

static void bias_slope(float *x, size_t n, float slope, int32_t distance) {
    vec factor = vec_set(-slope);
    size_t c = 0;
    for (; c + VEC_LANES <= n; c += VEC_LANES)
        vec_store(x + c, add_slope(vec_load(x + c), factor, distance + (int32_t)c));
    if (c < n) {
        vec_mask mask = below(c, n);
        vec_store_mask(mask, x + c, add_slope(vec_load_mask(mask, x + c), factor, distance + (int32_t)c));
    }
}

/* -inf hides, whatever the logit is: it is added to +0. */
INLINE vec add_bias(vec x, vec add) {
    return vec_add(vec_select(vec_equal(add, vec_set(-INFINITY)), vec_zero(), x), add);
}

static void bias_add(float *x, size_t n, const float *add) {
    size_t c = 0;
    for (; c + VEC_LANES <= n; c += VEC_LANES)
        vec_store(x + c, add_bias(vec_load(x + c), vec_load(add + c)));
    if (c < n) {
        vec_mask mask = below(c, n);
        vec_store_mask(mask, x + c, add_bias(vec_load_mask(mask, x + c), vec_load_mask(mask, add + c)));
    }
}

INLINE vec hide_lanes(vec x, vec_mask hidden) {
    return vec_select(hidden, vec_set(-INFINITY), x);
}

static void bias_visible(float *x, size_t n, const uint8_t *visible) {
    size_t c = 0;
    for (; c + VEC_LANES <= n; c += VEC_LANES)
        vec_store(x + c, hide_lanes(vec_load(x + c), vec_zero_bytes((vec_mask)-1, visible + c)));
    if (c < n) {
        vec_mask mask = below(c, n);
        vec_store_mask(mask, x + c, hide_lanes(vec_load_mask(mask, x + c), vec_zero_bytes(mask, visible + c)));
    }
}

/* A pass for each part: the row lies in L1, and a logit seldom has more than one. */
static void bias(const struct attn_bias_args *args) {
    if (args->lo >= args->hi)
        return;
    size_t lo = args->lo, n = args->hi - lo;
    if (args->slope != 0.0f)
        bias_slope(args->x + lo, n, args->slope, args->distance + (int32_t)lo);
    if (args->add)
        bias_add(args->x + lo, n, args->add + lo);
    if (args->visible)
        bias_visible(args->x + lo, n, args->visible + lo);
}

INLINE vec turn(vec x, vec partner, vec cos, vec sin) {
    return vec_fma(partner, sin, vec_mul(x, cos));
}

static void rotate_pairs(const float *x, const float *cos, const float *sin, size_t dims, float *y) {
    for (size_t j = 0; j < dims; j += VEC_LANES) {
        vec_mask mask = below(j, dims);
        vec v = vec_load_mask(mask, x + j);
        v = turn(v, vec_swap_pairs(v), vec_load_mask(mask, cos + j), vec_load_mask(mask, sin + j));
        vec_store_mask(mask, y + j, v);
    }
}

static void rotate_halves(const float *x, const float *cos, const float *sin, size_t half, float *y) {
    for (size_t j = 0; j < half; j += VEC_LANES) {
        vec_mask mask = below(j, half);
        size_t k = j + half;
        vec x0 = vec_load_mask(mask, x + j), x1 = vec_load_mask(mask, x + k);
        vec_store_mask(mask, y + j, turn(x0, x1, vec_load_mask(mask, cos + j), vec_load_mask(mask, sin + j)));
        vec_store_mask(mask, y + k, turn(x1, x0, vec_load_mask(mask, cos + k), vec_load_mask(mask, sin + k)));
    }
}

static void rotate(const float *x, const float *cos, const float *sin, size_t dims, int interleaved, float *y) {
    if (interleaved)
        rotate_pairs(x, cos, sin, dims, y);
    else
        rotate_halves(x, cos, sin, dims / 2, y);
}

/* The maximum of a row's visible logits is that of these lanes. */
static vec row_maxima(const float *p, size_t lo, size_t hi) {
    size_t c = lo / VEC_LANES * VEC_LANES;
    vec m[4];
    UNROLL for (int i = 0; i < 4; i++) m[i] = vec_set(-INFINITY);
    if (lo > c) {
        m[0] = vec_max(m[0], vec_select(visible(c, lo, hi), vec_load(p + c), m[0]));
        c += VEC_LANES;
    }
    for (; c + 4 * VEC_LANES <= hi; c += 4 * VEC_LANES)
        UNROLL for (int i = 0; i < 4; i++) m[i] = vec_max(m[i], vec_load(p + c + i * VEC_LANES));
    for (; c + VEC_LANES <= hi; c += VEC_LANES)
        m[1] = vec_max(m[1], vec_load(p + c));
    if (c < hi)
        m[2] = vec_max(m[2], vec_select(below(c, hi), vec_load(p + c), m[2]));
    return vec_max(vec_max(m[0], m[1]), vec_max(m[2], m[3]));
}

/* Probabilities of one vector of logits, +0 outside the mask. */
INLINE vec probabilities(float *p, vec_mask mask, vec shift) {
    vec e = vec_select(mask, vec_exp_low(vec_sub_mask(mask, vec_load(p), shift)), vec_zero());
    vec_store(p, e);
    return e;
}

static void clear(float *p, size_t begin, size_t end) {
    for (size_t c = begin; c < end; c += VEC_LANES)
        vec_store(p + c, vec_zero());
}

/* The same of columns c .. hi - 1 of a row, c the first of a vector, added to the lanes. */
INLINE vec columns_exp(float *p, size_t c, size_t hi, vec shift, vec lanes) {
    for (; c + 4 * VEC_LANES <= hi; c += 4 * VEC_LANES)
        lanes = vec_exp_four(p + c, shift, p + c, lanes);
    for (; c + VEC_LANES <= hi; c += VEC_LANES)
        lanes = vec_add(lanes, probabilities(p + c, (vec_mask)-1, shift));
    if (c < hi)
        lanes = vec_add(lanes, probabilities(p + c, below(c, hi), shift));
    return lanes;
}

static void row_exp(const struct attn_block_args *args, size_t r, float max, float correction) {
    float *p = args->scores + r * args->score_stride, *lane = args->lanes + r * ATTN_LANES;
    size_t lo = args->lo[r], hi = args->hi[r], c = lo / VEC_LANES * VEC_LANES;
    vec shift = vec_set(max), lanes = vec_mul(vec_load(lane), vec_set(correction));
    clear(p, args->begin, c);
    if (lo > c) {
        lanes = vec_add(lanes, probabilities(p + c, visible(c, lo, hi), shift));
        c += VEC_LANES;
    }
    vec_store(lane, columns_exp(p, c, hi, shift, lanes));
    clear(p, (hi + VEC_LANES - 1) / VEC_LANES * VEC_LANES, args->end);
}

/* Up to 16 rows. All maxima first: their reductions and corrections are those of one register, with a lane for each row. */
static void block_rows(const struct attn_block_args *args, size_t first, size_t count) {
    const uint32_t *lo = args->lo + first, *hi = args->hi + first;
    float *scores = args->scores + first * args->score_stride;
    vec maxima[VEC_LANES];
    float shift[VEC_LANES], correction[VEC_LANES];
    for (size_t r = 0; r < VEC_LANES; r++)
        maxima[r] =
            r < count && lo[r] < hi[r] ? row_maxima(scores + r * args->score_stride, lo[r], hi[r]) : vec_set(-INFINITY);
    vec_mask rows = vec_lanes(0, count), seen = vec_less(rows, lo, hi);
    vec old = vec_load_mask(rows, args->max + first),
        max = vec_add(vec_max(old, vec_lane_max_each(maxima)), vec_zero());
    vec shifts = shifts_of(max);
    vec corrections = vec_exp_low(vec_sub_mask(seen, old, shifts)); /* 1 where nothing is seen */
    vec_store_mask(seen, args->max + first, max);
    vec_store_mask(rows, args->correction + first, corrections);
    vec_store(shift, shifts);
    vec_store(correction, corrections);
    for (size_t r = 0; r < count; r++) {
        if (lo[r] < hi[r])
            row_exp(args, first + r, shift[r], correction[r]);
        else
            clear(scores + r * args->score_stride, args->begin, args->end);
    }
}

static void block(const struct attn_block_args *args) {
    for (size_t first = 0; first < args->rows; first += VEC_LANES)
        block_rows(args, first, args->rows - first < VEC_LANES ? args->rows - first : VEC_LANES);
}

INLINE size_t columns_of(const struct attn_row_args *args, size_t block) {
    size_t left = args->n - block * ATTN_BLOCK;
    return left < ATTN_BLOCK ? left : ATTN_BLOCK;
}

/* All maxima first, a lane for each block: with each the larger ones before it, and the corrections are one exp. */
static void row(const struct attn_row_args *args) {
    size_t blocks = (args->n + ATTN_BLOCK - 1) / ATTN_BLOCK;
    vec maxima[VEC_LANES], first = vec_set(*args->max);
    float shift[VEC_LANES], correction[VEC_LANES];
    UNROLL for (size_t i = 0; i < VEC_LANES; i++) maxima[i] = first;
    for (size_t i = 0; i < blocks; i++)
        maxima[i] = row_maxima(args->scores + i * ATTN_BLOCK, 0, columns_of(args, i));
    vec max = vec_add(vec_running_max(vec_max(first, vec_lane_max_each(maxima))), vec_zero());
    vec shifts = shifts_of(max);
    vec corrections = vec_exp_low(vec_sub(vec_after(first, max), shifts));
    vec_store_mask(vec_lanes(0, blocks), args->correction, corrections);
    vec_store(shift, shifts);
    vec_store(correction, corrections);
    *args->max = vec_lane_max(max);
    vec lanes = vec_load(args->lanes);
    for (size_t i = 0; i < blocks; i++) {
        float *p = args->scores + i * ATTN_BLOCK;
        lanes = vec_mul(lanes, vec_set(correction[i]));
        lanes = columns_exp(p, 0, columns_of(args, i), vec_set(shift[i]), lanes);
    }
    vec_store(args->lanes, lanes);
}

static void merge(size_t rows, size_t size, float *max0, float *sum0, float *output0, const float *max1,
                  const float *sum1, const float *output1, size_t output_stride) {
    for (size_t r = 0; r < rows; r++) {
        float max = max1[r] > max0[r] ? max1[r] : max0[r], shift = shift_of(max);
        float f0 = exp_one(max0[r] - shift), f1 = exp_one(max1[r] - shift);
        max0[r] = max + 0.0f;
        sum0[r] = attn_fmaf(sum1[r], f1, sum0[r] * f0);
        float *o0 = output0 + r * output_stride;
        const float *o1 = output1 + r * output_stride;
        for (size_t j = 0; j < size; j += VEC_LANES) {
            vec_mask mask = below(j, size);
            vec kept = vec_mul(vec_load_mask(mask, o0 + j), vec_set(f0));
            vec_store_mask(mask, o0 + j, vec_fma(vec_load_mask(mask, o1 + j), vec_set(f1), kept));
        }
    }
}

static void sum(size_t rows, const float *lanes, float *sum) {
    for (size_t r = 0; r < rows; r++)
        sum[r] = vec_lane_sum(vec_load(lanes + r * ATTN_LANES));
}

INLINE void finish_row(const float *output, vec f, float *out, size_t size) {
    size_t j = 0;
    for (; j + VEC_LANES <= size; j += VEC_LANES)
        vec_store(out + j, vec_add(vec_mul(vec_load(output + j), f), vec_zero()));
    if (j < size) {
        vec_mask mask = below(j, size);
        vec_store_mask(mask, out + j, vec_add(vec_mul(vec_load_mask(mask, output + j), f), vec_zero()));
    }
}

static void finish(size_t rows, size_t size, const float *output, size_t output_stride, const float *inverse,
                   float *out, size_t out_stride) {
    for (size_t r = 0; r < rows; r++)
        finish_row(output + r * output_stride, vec_set(inverse[r]), out + r * out_stride, size);
}

static void weights(const float *x, size_t lo, size_t hi, size_t cols, float shift, float inverse, float *y) {
    for (size_t c = 0; c < cols; c += VEC_LANES) {
        vec_mask mask = visible(c, lo, hi);
        vec w = vec_mul(vec_exp_low(vec_sub_mask(mask, vec_load_mask(mask, x + c), vec_set(shift))), vec_set(inverse));
        vec_store_mask(below(c, cols), y + c, vec_select(mask, w, vec_zero()));
    }
}

static int all_finite(const float *x, size_t n) {
    vec_magnitude m[4];
    UNROLL for (int i = 0; i < 4; i++) m[i] = vec_magnitude_of(vec_zero());
    size_t j = 0;
    for (; j + 4 * VEC_LANES <= n; j += 4 * VEC_LANES)
        UNROLL for (int i = 0; i < 4; i++) m[i] = vec_larger(m[i], vec_magnitude_of(vec_load(x + j + i * VEC_LANES)));
    for (; j < n; j += VEC_LANES)
        m[0] = vec_larger(m[0], vec_magnitude_of(vec_load_mask(below(j, n), x + j)));
    UNROLL for (int i = 1; i < 4; i++) m[0] = vec_larger(m[0], m[i]);
    return vec_all_finite(m[0]);
}

const struct attn_attention_kernel attn_avx512_attention = {.name = "avx512",
                                                            .soft_cap = soft_cap,
                                                            .bias = bias,
                                                            .rotate = rotate,
                                                            .block = block,
                                                            .row = row,
                                                            .merge = merge,
                                                            .sum = sum,
                                                            .finish = finish,
                                                            .weights = weights,
                                                            .scale = scale,
                                                            .all_finite = all_finite};
