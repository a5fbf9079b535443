/* Masked softmax for AVX2: two registers hold the 16 lanes of the sum. */
#include <math.h>

#include "exp.h"
#include "kernels.h"

/* The first n lanes, -inf beyond: that changes no maximum, and its exp, +0, changes no sum. */
INLINE vec load_logits(size_t n, const float *x) {
    return n < VEC_LANES ? vec_select(vec_lanes(0, n), vec_load_first(n, x), vec_set(-INFINITY)) : vec_load(x);
}

static float row_max(const float *x, size_t n) {
    vec max = vec_set(-INFINITY), other = max;
    for (size_t c = 0; c < n; c += VEC_LANES) {
        vec next = vec_max(max, load_logits(n - c, x + c));
        max = other;
        other = next;
    }
    return vec_lane_max(vec_max(max, other));
}

static void softmax_row(const float *x, size_t valid, size_t cols, float *y) {
    float max = row_max(x, valid);
    vec shift = vec_set(max == -INFINITY ? 0.0f : max), lanes = vec_zero(), other = vec_zero();
    for (size_t c = 0; c < valid; c += VEC_LANES) {
        vec p = vec_exp_low(vec_sub(load_logits(valid - c, x + c), shift));
        vec_store_first(valid - c, y + c, p);
        vec next = vec_add(lanes, p); /* every other vector belongs to the other eight lanes */
        lanes = other;
        other = next;
    }
    float sum = vec_lane_sum(lanes, other);
    vec inverse = vec_set(sum == 0.0f ? 0.0f : 1.0f / sum);
    for (size_t c = 0; c < valid; c += VEC_LANES)
        vec_store_first(valid - c, y + c, vec_mul(vec_load_first(valid - c, y + c), inverse));
    for (size_t c = valid; c < cols; c += VEC_LANES)
        vec_store_first(cols - c, y + c, vec_zero());
}

const struct attn_softmax_kernel attn_avx2_softmax = {.name = "avx2", .row = softmax_row};
