/* Masked softmax of a row. */
#include <math.h>

#include "body/objects.h"
#include "body/rows.h"

/* Floats ahead of what is read: a row or two. While exp takes the processor's time, its own prefetching ends at each
 * page. */
enum { AHEAD = 1024, LINE = 16 };

INLINE float row_max(const float *x, size_t n) {
    size_t c = 0;
    vec max = vec_set(-INFINITY);
    if (n >= EXP_VECS * VEC_LANES) {
        vec m[EXP_VECS];
        UNROLL for (int i = 0; i < EXP_VECS; i++) m[i] = max;
        for (; c + EXP_VECS * VEC_LANES <= n; c += EXP_VECS * VEC_LANES)
            UNROLL for (int i = 0; i < EXP_VECS; i++) m[i] = vec_max(m[i], vec_load(x + c + i * VEC_LANES));
        max = vec_max(vec_max(m[0], m[1]), vec_max(m[2], m[3]));
    }
    for (; c < n; c += VEC_LANES)
        max = vec_max(max, vec_load_logits(n - c, x + c));
    return vec_lane_max(max);
}

/* y = exp(x - shift); returns the sum. */
INLINE float row_exp(const float *x, size_t n, vec shift, float *y) {
    vec lanes[SUM_VECS];
    UNROLL for (int i = 0; i < SUM_VECS; i++) lanes[i] = vec_zero();
    size_t c = 0;
    for (; c + EXP_VECS * VEC_LANES <= n; c += EXP_VECS * VEC_LANES) {
        UNROLL for (size_t i = 0; i < EXP_VECS * VEC_LANES; i += LINE) vec_prefetch(x + c, AHEAD + i);
        exp_columns(x + c, shift, y + c, lanes, EXP_VECS);
    }
    for (; c < n; c += VEC_LANES) {
        vec p = vec_exp_low(vec_sub(vec_load_logits(n - c, x + c), shift));
        vec_store_first(n - c, y + c, p);
        vec next = vec_add(lanes[0], p); /* each register's columns belong to the next of the lanes */
        UNROLL for (int i = 0; i < SUM_VECS - 1; i++) lanes[i] = lanes[i + 1];
        lanes[SUM_VECS - 1] = next;
    }
    return vec_lane_sum(lanes);
}

static float ISA_FN(softmax_max)(const float *x, size_t n) {
    return row_max(x, n);
}

static void ISA_FN(softmax_row)(const float *x, size_t valid, size_t cols, float *y) {
    float max = row_max(x, valid);
    float sum = row_exp(x, valid, vec_set(max == -INFINITY ? 0.0f : max), y);
    scale_row(y, vec_set(sum == 0.0f ? 0.0f : 1.0f / sum), y, valid);
    clear_columns(y, valid, cols);
}

const struct attn_softmax_kernel ISA_OBJECT(softmax) = {
    .name = ISA_NAME, .max = ISA_FN(softmax_max), .row = ISA_FN(softmax_row)};
