/* Masked softmax for AVX2: two registers hold the 16 lanes of the sum. */
#include <math.h>

#include "exp.h"
#include "kernels.h"

/* Floats ahead of what is read: a row or two. While exp takes the processor's time, its own prefetching ends at each page. */
enum { AHEAD = 1024, LINE = 16 };

INLINE float row_max(const float *x, size_t n) {
    size_t c = 0;
    vec max = vec_set(-INFINITY);
    if (n >= 4 * VEC_LANES) {
        vec m[4];
        UNROLL for (int i = 0; i < 4; i++) m[i] = max;
        for (; c + 4 * VEC_LANES <= n; c += 4 * VEC_LANES)
            UNROLL for (int i = 0; i < 4; i++) m[i] = vec_max(m[i], vec_load(x + c + i * VEC_LANES));
        max = vec_max(vec_max(m[0], m[1]), vec_max(m[2], m[3]));
    }
    for (; c < n; c += VEC_LANES)
        max = vec_max(max, vec_load_logits(n - c, x + c));
    return vec_lane_max(max);
}

/* y = exp(x - shift); returns the sum. */
INLINE float row_exp(const float *x, size_t n, vec shift, float *y) {
    vec lanes[] = {vec_zero(), vec_zero()};
    size_t c = 0;
    for (; c + 4 * VEC_LANES <= n; c += 4 * VEC_LANES) {
        UNROLL for (size_t i = 0; i < 4 * VEC_LANES; i += LINE) vec_prefetch(x + c, AHEAD + i);
        vec_exp_add(x + c, shift, y + c, lanes, 4);
    }
    for (; c < n; c += VEC_LANES) {
        vec p = vec_exp_low(vec_sub(vec_load_logits(n - c, x + c), shift));
        vec_store_first(n - c, y + c, p);
        vec next = vec_add(lanes[0], p); /* every other vector belongs to the other eight lanes */
        lanes[0] = lanes[1];
        lanes[1] = next;
    }
    return vec_lane_sum(lanes[0], lanes[1]);
}

static void scale(float *y, size_t n, vec factor) {
    size_t c = 0;
    for (; c + VEC_LANES <= n; c += VEC_LANES)
        vec_store(y + c, vec_mul(vec_load(y + c), factor));
    if (c < n)
        vec_store_first(n - c, y + c, vec_mul(vec_load_first(n - c, y + c), factor));
}

static void softmax_row(const float *x, size_t valid, size_t cols, float *y) {
    float max = row_max(x, valid);
    float sum = row_exp(x, valid, vec_set(max == -INFINITY ? 0.0f : max), y);
    scale(y, valid, vec_set(sum == 0.0f ? 0.0f : 1.0f / sum));
    for (size_t c = valid; c < cols; c += VEC_LANES)
        vec_store_first(cols - c, y + c, vec_zero());
}

const struct attn_softmax_kernel attn_avx2_softmax = {.name = "avx2", .row = softmax_row};
