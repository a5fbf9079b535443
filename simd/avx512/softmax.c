/* Masked softmax for AVX-512: one register holds the 16 lanes of the sum. */
#include <math.h>

#include "exp.h"
#include "kernels.h"

/* Floats ahead of what is read: a row or two. While exp takes the processor's time, its own prefetching ends at each page. */
enum { AHEAD = 1024 };

static float row_max(const float *x, size_t n) {
    size_t c = 0;
    vec max = vec_set(-INFINITY);
    if (n >= 4 * VEC_LANES) {
        vec m[4];
        UNROLL for (int i = 0; i < 4; i++) m[i] = max;
        for (; c + 4 * VEC_LANES <= n; c += 4 * VEC_LANES)
            UNROLL for (int i = 0; i < 4; i++) m[i] = vec_max(m[i], vec_load(x + c + i * VEC_LANES));
        max = vec_max(vec_max(m[0], m[1]), vec_max(m[2], m[3]));
    }
    for (; c < n; c += VEC_LANES) {
        vec_mask mask = below(c, n);
        max = vec_max(max, vec_select(mask, vec_load_mask(mask, x + c), max));
    }
    return vec_lane_max(max);
}

/* y = exp(x - shift), four registers in step; returns the lanes of the sum. */
static vec row_exp(const float *x, size_t n, vec shift, float *y) {
    vec lanes = vec_zero();
    size_t c = 0;
    for (; c + 4 * VEC_LANES <= n; c += 4 * VEC_LANES) {
        UNROLL for (size_t i = 0; i < 4; i++) vec_prefetch(x + c, AHEAD + i * VEC_LANES);
        lanes = vec_exp_four(x + c, shift, y + c, lanes);
    }
    for (; c < n; c += VEC_LANES) {
        vec_mask mask = below(c, n);
        vec p = vec_exp_low(vec_sub_mask(mask, vec_load_mask(mask, x + c), shift));
        vec_store_mask(mask, y + c, p);
        lanes = vec_add(lanes, vec_select(mask, p, vec_zero()));
    }
    return lanes;
}

static void scale(float *y, size_t n, vec factor) {
    size_t c = 0;
    for (; c + VEC_LANES <= n; c += VEC_LANES)
        vec_store(y + c, vec_mul(vec_load(y + c), factor));
    if (c < n)
        vec_store_mask(below(c, n), y + c, vec_mul(vec_load_mask(below(c, n), y + c), factor));
}

static void softmax_row(const float *x, size_t valid, size_t cols, float *y) {
    float max = row_max(x, valid);
    float sum = vec_lane_sum(row_exp(x, valid, vec_set(max == -INFINITY ? 0.0f : max), y));
    scale(y, valid, vec_set(sum == 0.0f ? 0.0f : 1.0f / sum));
    for (size_t c = valid; c < cols; c += VEC_LANES)
        vec_store_mask(below(c, cols), y + c, vec_zero());
}

const struct attn_softmax_kernel attn_avx512_softmax = {.name = "avx512", .row = softmax_row};
