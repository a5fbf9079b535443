/* Steps of the attention loop for AVX-512. The scores tile (14 rows of 256 floats) lies in L1: a pass of loads finds the
 * maximum, a second one replaces logits by probabilities. Rows are independent, so that the reductions of one overlap the
 * vectors of the next. */
#include <math.h>

#include "exp.h"
#include "kernels.h"

INLINE float shift_of(float max) {
    return max == -INFINITY ? 0.0f : max;
}

INLINE float exp_one(float x) {
    return _mm512_cvtss_f32(vec_exp_low(vec_set(x)));
}

/* Lanes of the vector at column c that lie in [lo, hi). */
INLINE vec_mask visible(size_t c, size_t lo, size_t hi) {
    size_t first = lo > c ? lo - c : 0, last = hi > c ? hi - c : 0;
    return vec_lanes(first < VEC_LANES ? first : VEC_LANES, last < VEC_LANES ? last : VEC_LANES);
}

INLINE vec_mask below(size_t c, size_t end) {
    return visible(c, 0, end);
}

static void scale(const float *x, float factor, float *y, size_t n) {
    vec f = vec_set(factor);
    for (size_t j = 0; j < n; j += VEC_LANES)
        vec_store_mask(below(j, n), y + j, vec_mul(vec_load_mask(below(j, n), x + j), f));
}

static float row_max(const float *p, size_t lo, size_t hi, float max) {
    vec m = vec_set(max);
    for (size_t c = lo / VEC_LANES * VEC_LANES; c < hi; c += VEC_LANES)
        m = vec_max(m, vec_select(visible(c, lo, hi), vec_load(p + c), m));
    return vec_lane_max(m) + 0.0f;
}

static void block_row(const struct attn_block_args *args, size_t r) {
    float *p = args->scores + r * args->score_stride;
    size_t lo = args->lo[r], hi = args->hi[r];
    float max = row_max(p, lo, hi, args->max[r]), shift = shift_of(max), correction = exp_one(args->max[r] - shift);
    float *output = args->output + r * args->output_stride, *lane = args->lanes + r * ATTN_LANES;
    args->max[r] = max;
    if (correction != 1.0f)
        scale(output, correction, output, args->size);

    vec lanes = vec_mul(vec_load(lane), vec_set(correction)), s = vec_set(shift);
    size_t first = lo / VEC_LANES * VEC_LANES, c = args->begin;
    for (; c < first; c += VEC_LANES)
        vec_store(p + c, vec_zero());
    for (; c < hi; c += VEC_LANES) {
        vec e = vec_select(visible(c, lo, hi), vec_exp_low(vec_sub(vec_load(p + c), s)), vec_zero());
        lanes = vec_add(lanes, e);
        vec_store(p + c, e);
    }
    for (; c < args->end; c += VEC_LANES)
        vec_store(p + c, vec_zero());
    vec_store(lane, lanes);
}

static void block(const struct attn_block_args *args) {
    for (size_t r = 0; r < args->rows; r++) {
        if (args->lo[r] < args->hi[r])
            block_row(args, r);
        else
            for (size_t c = args->begin; c < args->end; c += VEC_LANES)
                vec_store(args->scores + r * args->score_stride + c, vec_zero());
    }
}

static void merge(size_t rows, size_t size, float *max0, float *sum0, float *output0, const float *max1,
                  const float *sum1, const float *output1, size_t output_stride) {
    for (size_t r = 0; r < rows; r++) {
        float max = max1[r] > max0[r] ? max1[r] : max0[r], shift = shift_of(max);
        float f0 = exp_one(max0[r] - shift), f1 = exp_one(max1[r] - shift);
        max0[r] = max + 0.0f;
        sum0[r] = fmaf(sum1[r], f1, sum0[r] * f0);
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

static void finish(const float *output, float inverse, float *out, size_t size) {
    for (size_t j = 0; j < size; j += VEC_LANES) {
        vec_mask mask = below(j, size);
        vec_store_mask(mask, out + j, vec_add(vec_mul(vec_load_mask(mask, output + j), vec_set(inverse)), vec_zero()));
    }
}

static void weights(const float *x, size_t lo, size_t hi, size_t cols, float shift, float inverse, float *y) {
    for (size_t c = 0; c < cols; c += VEC_LANES) {
        vec_mask mask = visible(c, lo, hi);
        vec w = vec_mul(vec_exp_low(vec_sub(vec_load_mask(mask, x + c), vec_set(shift))), vec_set(inverse));
        vec_store_mask(below(c, cols), y + c, vec_select(mask, w, vec_zero()));
    }
}

static int all_finite(const float *x, size_t n) {
    for (size_t j = 0; j < n; j += VEC_LANES)
        if (!vec_all_finite(vec_load_mask(below(j, n), x + j)))
            return 0;
    return 1;
}

const struct attn_attention_kernel attn_avx512_attention = {.name = "avx512",
                                                            .block = block,
                                                            .merge = merge,
                                                            .sum = sum,
                                                            .finish = finish,
                                                            .weights = weights,
                                                            .scale = scale,
                                                            .all_finite = all_finite};
