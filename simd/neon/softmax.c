/* Masked softmax for NEON: four registers hold the 16 lanes of the sum, and as many exp are in flight. */
#include <math.h>

#include "exp.h"
#include "kernels.h"

/* What is left of n columns from register v on. */
INLINE size_t left_of(size_t n, size_t v) {
    return v * VEC_LANES < n ? n - v * VEC_LANES : 0;
}

INLINE void max_of_16(size_t n, const float *x, vec max[SUM_VECS]) {
    UNROLL for (size_t v = 0; v < SUM_VECS; v++) max[v] =
        vec_max(max[v], vec_load_logits(left_of(n, v), x + v * VEC_LANES));
}

static float row_max(const float *x, size_t n) {
    vec max[SUM_VECS];
    UNROLL for (size_t v = 0; v < SUM_VECS; v++) max[v] = vec_set(-INFINITY);
    size_t c = 0;
    for (; c + ATTN_LANES <= n; c += ATTN_LANES)
        max_of_16(ATTN_LANES, x + c, max);
    max_of_16(n - c, x + c, max);
    return vec_lane_max(max);
}

INLINE void exp_of_16(size_t n, const float *x, float *y, vec shift, vec lanes[SUM_VECS]) {
    UNROLL for (size_t v = 0; v < SUM_VECS; v++) {
        vec p = vec_exp_low(vec_sub(vec_load_logits(left_of(n, v), x + v * VEC_LANES), shift));
        vec_store_first(left_of(n, v), y + v * VEC_LANES, p);
        lanes[v] = vec_add(lanes[v], p);
    }
}

static void softmax_row(const float *x, size_t valid, size_t cols, float *y) {
    float max = row_max(x, valid);
    vec shift = vec_set(max == -INFINITY ? 0.0f : max), lanes[SUM_VECS];
    UNROLL for (size_t v = 0; v < SUM_VECS; v++) lanes[v] = vec_zero();
    size_t whole = 0;
    for (; whole + ATTN_LANES <= valid; whole += ATTN_LANES)
        exp_of_16(ATTN_LANES, x + whole, y + whole, shift, lanes);
    exp_of_16(valid - whole, x + whole, y + whole, shift, lanes);
    float sum = vec_lane_sum(lanes);
    vec inverse = vec_set(sum == 0.0f ? 0.0f : 1.0f / sum);
    for (size_t c = 0; c < valid; c += VEC_LANES)
        vec_store_first(valid - c, y + c, vec_mul(vec_load_first(valid - c, y + c), inverse));
    for (size_t c = valid; c < cols; c += VEC_LANES)
        vec_store_first(cols - c, y + c, vec_zero());
}

const struct attn_softmax_kernel attn_neon_softmax = {.name = "neon", .row = softmax_row};
