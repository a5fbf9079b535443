/* Steps of the attention loop for AVX2. The scores tile (30 rows of 256 floats) lies in L1: a pass of loads finds the maximum,
 * a second one replaces logits by probabilities, two registers at a time, one for each half of the 16 lanes. Both passes need
 * no mask: invisible logits in the registers at the ends are made -inf first, whose probability is the +0 asked for. */
#include <math.h>

#include "body/elementary.h"
#include "exp.h"
#include "kernels.h"

INLINE float shift_of(float max) {
    return max == -INFINITY ? 0.0f : max;
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
        vec_store_first(n - j, y + j, vec_mul(vec_load_first(n - j, x + j), f));
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
        vec_store_first(n - c, x + c, vec_tanh(vec_load_first(n - c, x + c)));
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
        size_t left = n - c;
        vec_store_first(left, x + c, add_slope(vec_load_first(left, x + c), factor, distance + (int32_t)c));
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
        size_t left = n - c;
        vec_store_first(left, x + c, add_bias(vec_load_first(left, x + c), vec_load_first(left, add + c)));
    }
}

INLINE vec hide_lanes(vec x, vec_mask hidden) {
    return vec_select(hidden, vec_set(-INFINITY), x);
}

static void bias_visible(float *x, size_t n, const uint8_t *visible) {
    size_t c = 0;
    for (; c + VEC_LANES <= n; c += VEC_LANES)
        vec_store(x + c, hide_lanes(vec_load(x + c), vec_zero_bytes(VEC_LANES, visible + c)));
    if (c < n) {
        size_t left = n - c;
        vec_store_first(left, x + c, hide_lanes(vec_load_first(left, x + c), vec_zero_bytes(left, visible + c)));
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
        size_t left = dims - j;
        vec v = vec_load_first(left, x + j);
        v = turn(v, vec_swap_pairs(v), vec_load_first(left, cos + j), vec_load_first(left, sin + j));
        vec_store_first(left, y + j, v);
    }
}

static void rotate_halves(const float *x, const float *cos, const float *sin, size_t half, float *y) {
    for (size_t j = 0; j < half; j += VEC_LANES) {
        size_t left = half - j;
        size_t k = j + half;
        vec x0 = vec_load_first(left, x + j), x1 = vec_load_first(left, x + k);
        vec_store_first(left, y + j, turn(x0, x1, vec_load_first(left, cos + j), vec_load_first(left, sin + j)));
        vec_store_first(left, y + k, turn(x1, x0, vec_load_first(left, cos + k), vec_load_first(left, sin + k)));
    }
}

static void rotate(const float *x, const float *cos, const float *sin, size_t dims, int interleaved, float *y) {
    if (interleaved)
        rotate_pairs(x, cos, sin, dims, y);
    else
        rotate_halves(x, cos, sin, dims / 2, y);
}

/* -inf over the invisible ones of the 16 logits at column c. */
static void hide(float *p, size_t c, size_t lo, size_t hi) {
    for (size_t end = c + ATTN_LANES; c < end; c += VEC_LANES)
        vec_store(p + c, vec_select(visible(c, lo, hi), vec_load(p + c), vec_set(-INFINITY)));
}

/* Hides the invisible logits at the ends first, from row_exp as well. */
static float row_max(float *p, size_t lo, size_t hi, float max) {
    size_t c = lo / ATTN_LANES * ATTN_LANES, end = (hi + ATTN_LANES - 1) / ATTN_LANES * ATTN_LANES;
    if (c < lo)
        hide(p, c, lo, hi);
    if (hi < end)
        hide(p, end - ATTN_LANES, lo, hi);
    vec m[4];
    UNROLL for (int i = 0; i < 4; i++) m[i] = vec_set(max);
    for (; c + 4 * VEC_LANES <= end; c += 4 * VEC_LANES)
        UNROLL for (int i = 0; i < 4; i++) m[i] = vec_max(m[i], vec_load(p + c + i * VEC_LANES));
    if (c < end)
        UNROLL for (int i = 0; i < 2; i++) m[i] = vec_max(m[i], vec_load(p + c + i * VEC_LANES));
    return vec_lane_max(vec_max(vec_max(m[0], m[1]), vec_max(m[2], m[3]))) + 0.0f;
}

INLINE void clear(float *p, size_t begin, size_t end) {
    for (size_t c = begin; c < end; c += VEC_LANES)
        vec_store_first(end - c, p + c, vec_zero());
}

static void row_exp(const struct attn_block_args *args, size_t r, float max, float correction) {
    float *p = args->scores + r * args->score_stride, *lane = args->lanes + r * ATTN_LANES;
    size_t c = args->lo[r] / ATTN_LANES * ATTN_LANES, end = (args->hi[r] + ATTN_LANES - 1) / ATTN_LANES * ATTN_LANES;
    vec shift = vec_set(max), factor = vec_set(correction);
    vec lanes[] = {vec_mul(vec_load(lane), factor), vec_mul(vec_load(lane + VEC_LANES), factor)};
    clear(p, args->begin, c);
    for (; c + 2 * ATTN_LANES <= end; c += 2 * ATTN_LANES)
        vec_exp_add(p + c, shift, p + c, lanes, 4);
    if (c < end) {
        vec_exp_add(p + c, shift, p + c, lanes, 2);
        c += ATTN_LANES;
    }
    clear(p, c, args->end);
    vec_store(lane, lanes[0]);
    vec_store(lane + VEC_LANES, lanes[1]);
}

/* All maxima first: their reductions overlap each other, and the corrections of all rows are one exp. */
static void block(const struct attn_block_args *args) {
    float max[ATTN_MAX_ROWS], shift[ATTN_MAX_ROWS], correction[ATTN_MAX_ROWS];
    for (size_t r = 0; r < args->rows; r++) {
        correction[r] = 0.0f; /* yet to become exp of that */
        if (args->lo[r] >= args->hi[r])
            continue;
        max[r] = row_max(args->scores + r * args->score_stride, args->lo[r], args->hi[r], args->max[r]);
        shift[r] = shift_of(max[r]);
        correction[r] = args->max[r] - shift[r];
    }
    UNROLL for (size_t r = 0; r < ATTN_MAX_ROWS; r += VEC_LANES) if (r < args->rows)
        vec_store(correction + r, vec_exp_low(vec_load_first(args->rows - r, correction + r)));
    for (size_t r = 0; r < args->rows; r++) {
        args->correction[r] = correction[r];
        if (args->lo[r] >= args->hi[r]) {
            clear(args->scores + r * args->score_stride, args->begin, args->end);
            continue;
        }
        args->max[r] = max[r];
        row_exp(args, r, shift[r], correction[r]);
    }
}

static void merge(size_t rows, size_t size, float *max0, float *sum0, float *output0, const float *max1,
                  const float *sum1, const float *output1, size_t output_stride) {
    for (size_t r = 0; r < rows; r++) {
        float max = max1[r] > max0[r] ? max1[r] : max0[r], shift = shift_of(max);
        vec f0 = vec_exp_low(vec_set(max0[r] - shift)), f1 = vec_exp_low(vec_set(max1[r] - shift));
        max0[r] = max + 0.0f;
        /* In whole registers: where its operand lies in memory, fmaf reads more than that under emulation (QEMU 7.2). */
        vec_store_first(1, sum0 + r, vec_fma(vec_set(sum1[r]), f1, vec_mul(vec_set(sum0[r]), f0)));
        float *o0 = output0 + r * output_stride;
        const float *o1 = output1 + r * output_stride;
        for (size_t j = 0; j < size; j += VEC_LANES) {
            size_t n = size - j;
            vec_store_first(n, o0 + j, vec_fma(vec_load_first(n, o1 + j), f1, vec_mul(vec_load_first(n, o0 + j), f0)));
        }
    }
}

static void sum(size_t rows, const float *lanes, float *sum) {
    for (size_t r = 0; r < rows; r++, lanes += ATTN_LANES)
        sum[r] = vec_lane_sum(vec_load(lanes), vec_load(lanes + VEC_LANES));
}

INLINE void finish_row(const float *output, vec f, float *out, size_t size) {
    size_t j = 0;
    for (; j + VEC_LANES <= size; j += VEC_LANES)
        vec_store(out + j, vec_add(vec_mul(vec_load(output + j), f), vec_zero()));
    if (j < size)
        vec_store_first(size - j, out + j, vec_add(vec_mul(vec_load_first(size - j, output + j), f), vec_zero()));
}

static void finish(size_t rows, size_t size, const float *output, size_t output_stride, const float *inverse,
                   float *out, size_t out_stride) {
    for (size_t r = 0; r < rows; r++)
        finish_row(output + r * output_stride, vec_set(inverse[r]), out + r * out_stride, size);
}

static void weights(const float *x, size_t lo, size_t hi, size_t cols, float shift, float inverse, float *y) {
    hi = hi < cols ? hi : cols;
    lo = lo < hi ? lo : hi;
    for (size_t c = lo; c < hi; c += VEC_LANES) {
        vec e = vec_exp_low_quiet(vec_sub(vec_load_logits(hi - c, x + c), vec_set(shift)));
        vec_store_first(hi - c, y + c, vec_mul(e, vec_set(inverse)));
    }
    clear(y, 0, lo);
    clear(y, hi, cols);
}

static int all_finite(const float *x, size_t n) {
    vec_magnitude m[4];
    UNROLL for (int i = 0; i < 4; i++) m[i] = vec_magnitude_of(vec_zero());
    size_t j = 0;
    for (; j + 4 * VEC_LANES <= n; j += 4 * VEC_LANES)
        UNROLL for (int i = 0; i < 4; i++) m[i] = vec_larger(m[i], vec_magnitude_of(vec_load(x + j + i * VEC_LANES)));
    for (; j < n; j += VEC_LANES)
        m[0] = vec_larger(m[0], vec_magnitude_of(vec_load_first(n - j, x + j)));
    UNROLL for (int i = 1; i < 4; i++) m[0] = vec_larger(m[0], m[i]);
    return vec_all_finite(m[0]);
}

const struct attn_attention_kernel attn_avx2_attention = {.name = "avx2",
                                                          .soft_cap = soft_cap,
                                                          .bias = bias,
                                                          .rotate = rotate,
                                                          .block = block,
                                                          .merge = merge,
                                                          .sum = sum,
                                                          .finish = finish,
                                                          .weights = weights,
                                                          .scale = scale,
                                                          .all_finite = all_finite};
