/* Steps of the attention loop for AVX2. The scores tile (6 rows of 256 floats) lies in L1: a pass of loads finds the maximum,
 * a second one replaces logits by probabilities, two registers at a time, one for each half of the 16 lanes. Both passes need
 * no mask: invisible logits in the registers at the ends are made -inf first, whose probability is the +0 asked for. */
#include <math.h>

#include "exp.h"
#include "kernels.h"

INLINE float shift_of(float max) {
    return max == -INFINITY ? 0.0f : max;
}

INLINE float exp_one(float x) {
    return _mm256_cvtss_f32(vec_exp_low(vec_set(x)));
}

/* Lanes of the vector at column c that lie in [lo, hi). */
INLINE vec_mask visible(size_t c, size_t lo, size_t hi) {
    size_t first = lo > c ? lo - c : 0, last = hi > c ? hi - c : 0;
    return vec_lanes(first < VEC_LANES ? first : VEC_LANES, last < VEC_LANES ? last : VEC_LANES);
}

/* -inf over the invisible ones of the 16 logits at column c. */
INLINE void hide(float *p, size_t c, size_t lo, size_t hi) {
    UNROLL for (size_t end = c + ATTN_LANES; c < end; c += VEC_LANES)
        vec_store(p + c, vec_select(visible(c, lo, hi), vec_load(p + c), vec_set(-INFINITY)));
}

INLINE void clear(float *p, size_t lo, size_t hi) {
    for (size_t c = lo; c < hi; c += VEC_LANES)
        vec_store_first(hi - c, p + c, vec_zero());
}

static void scale(const float *x, float factor, float *y, size_t n) {
    vec f = vec_set(factor);
    for (size_t j = 0; j < n; j += VEC_LANES)
        vec_store_first(n - j, y + j, vec_mul(vec_load_first(n - j, x + j), f));
}

/* lo and hi are multiples of 16 here. */
static float row_max(const float *p, size_t lo, size_t hi, float max) {
    vec m0 = vec_set(max), m1 = m0;
    for (size_t c = lo; c < hi; c += ATTN_LANES) {
        m0 = vec_max(m0, vec_load(p + c));
        m1 = vec_max(m1, vec_load(p + c + VEC_LANES));
    }
    return vec_lane_max(vec_max(m0, m1)) + 0.0f;
}

static void block_row(const struct attn_block_args *args, size_t r) {
    float *p = args->scores + r * args->score_stride;
    size_t lo = args->lo[r], hi = args->hi[r];
    size_t first = lo / ATTN_LANES * ATTN_LANES, last = (hi + ATTN_LANES - 1) / ATTN_LANES * ATTN_LANES;
    if (first < lo)
        hide(p, first, lo, hi);
    if (hi < last)
        hide(p, last - ATTN_LANES, lo, hi);
    float max = row_max(p, first, last, args->max[r]), shift = shift_of(max),
          correction = exp_one(args->max[r] - shift);
    float *output = args->output + r * args->output_stride, *lane = args->lanes + r * ATTN_LANES;
    args->max[r] = max;
    if (correction != 1.0f)
        scale(output, correction, output, args->size);

    vec lanes0 = vec_mul(vec_load(lane), vec_set(correction)), s = vec_set(shift);
    vec lanes1 = vec_mul(vec_load(lane + VEC_LANES), vec_set(correction));
    clear(p, args->begin, first);
    for (size_t c = first; c < last; c += ATTN_LANES) {
        vec e0 = vec_exp_low(vec_sub(vec_load(p + c), s));
        vec e1 = vec_exp_low(vec_sub(vec_load(p + c + VEC_LANES), s));
        lanes0 = vec_add(lanes0, e0);
        lanes1 = vec_add(lanes1, e1);
        vec_store(p + c, e0);
        vec_store(p + c + VEC_LANES, e1);
    }
    clear(p, last, args->end);
    vec_store(lane, lanes0);
    vec_store(lane + VEC_LANES, lanes1);
}

static void block(const struct attn_block_args *args) {
    for (size_t r = 0; r < args->rows; r++) {
        if (args->lo[r] < args->hi[r])
            block_row(args, r);
        else
            clear(args->scores + r * args->score_stride, args->begin, args->end);
    }
}

static void merge(size_t rows, size_t size, float *max0, float *sum0, float *output0, const float *max1,
                  const float *sum1, const float *output1, size_t output_stride) {
    for (size_t r = 0; r < rows; r++) {
        float max = max1[r] > max0[r] ? max1[r] : max0[r], shift = shift_of(max);
        vec f0 = vec_exp_low(vec_set(max0[r] - shift)), f1 = vec_exp_low(vec_set(max1[r] - shift));
        max0[r] = max + 0.0f;
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

static void finish(const float *output, float inverse, float *out, size_t size) {
    for (size_t j = 0; j < size; j += VEC_LANES) {
        size_t n = size - j;
        vec_store_first(n, out + j, vec_add(vec_mul(vec_load_first(n, output + j), vec_set(inverse)), vec_zero()));
    }
}

static void weights(const float *x, size_t lo, size_t hi, size_t cols, float shift, float inverse, float *y) {
    hi = hi < cols ? hi : cols;
    lo = lo < hi ? lo : hi;
    for (size_t c = lo; c < hi; c += VEC_LANES) {
        vec e = vec_exp_low(vec_sub(vec_load_first(hi - c, x + c), vec_set(shift)));
        vec_store_first(hi - c, y + c, vec_mul(e, vec_set(inverse)));
    }
    clear(y, 0, lo);
    clear(y, hi, cols);
}

static int all_finite(const float *x, size_t n) {
    for (size_t j = 0; j < n; j += VEC_LANES)
        if (!vec_all_finite(vec_load_first(n - j, x + j)))
            return 0;
    return 1;
}

const struct attn_attention_kernel attn_avx2_attention = {.name = "avx2",
                                                          .block = block,
                                                          .merge = merge,
                                                          .sum = sum,
                                                          .finish = finish,
                                                          .weights = weights,
                                                          .scale = scale,
                                                          .all_finite = all_finite};
