/* Masked softmax for AVX-512: one register holds the 16 lanes of the sum. */
#include <math.h>

#include "exp.h"
#include "kernels.h"

static float row_max(const float *x, size_t n) {
    vec max = vec_set(-INFINITY);
    for (size_t c = 0; c < n; c += VEC_LANES) {
        vec_mask mask = below(c, n);
        max = vec_max(max, vec_select(mask, vec_load_mask(mask, x + c), max));
    }
    return vec_lane_max(max);
}

static void softmax_row(const float *x, size_t valid, size_t cols, float *y) {
    float max = row_max(x, valid);
    vec shift = vec_set(max == -INFINITY ? 0.0f : max), lanes = vec_zero();
    for (size_t c = 0; c < valid; c += VEC_LANES) {
        vec_mask mask = below(c, valid);
        vec p = vec_exp_low(vec_sub(vec_load_mask(mask, x + c), shift));
        vec_store_mask(mask, y + c, p);
        lanes = vec_add(lanes, vec_select(mask, p, vec_zero()));
    }
    float sum = vec_lane_sum(lanes);
    vec inverse = vec_set(sum == 0.0f ? 0.0f : 1.0f / sum);
    for (size_t c = 0; c < valid; c += VEC_LANES) {
        vec_mask mask = below(c, valid);
        vec_store_mask(mask, y + c, vec_mul(vec_load_mask(mask, y + c), inverse));
    }
    for (size_t c = valid; c < cols; c += VEC_LANES)
        vec_store_mask(below(c, cols), y + c, vec_zero());
}

const struct attn_softmax_kernel attn_avx512_softmax = {.name = "avx512", .row = softmax_row};
