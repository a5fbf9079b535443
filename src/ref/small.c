/* Reference attention over few keys: a row at a time. */
#include "kernels.h"
#include "ref/elementary.h"

static float logit(const float *q, const float *k, size_t size, float scale) {
    float acc = 0.0f;
    for (size_t d = 0; d < size; d++)
        acc = attn_fmaf(q[d] * scale, k[d], acc);
    return acc;
}

/* Replaces n logits by exp(logit - maximum) and returns the sum of these. */
static float softmax(float *p, size_t n) {
    float m = -INFINITY, lanes[ATTN_LANES] = {0};
    for (size_t c = 0; c < n; c++)
        m = p[c] > m ? p[c] : m;
    float shift = m == -INFINITY ? 0.0f : m;
    for (size_t c = 0; c < n; c++) {
        p[c] = ref_exp(p[c] - shift);
        lanes[c % ATTN_LANES] += p[c];
    }
    return attn_lane_sum(lanes);
}

static void run_row(const struct attn_small_args *args, size_t h, size_t i) {
    const float *q = args->q + h * args->q_head_stride + i * args->q_row_stride;
    const float *k = args->k + h / args->group * args->k_head_stride;
    const float *v = args->v + h / args->group * args->v_head_stride;
    float *o = args->o + h * args->o_head_stride + i * args->o_row_stride;
    size_t n = args->hi ? args->hi[i] : args->keys;
    float *p = args->scratch;
    for (size_t c = 0; c < n; c++)
        p[c] = logit(q, k + c * args->k_row_stride, args->head_size, args->scale);
    float sum = softmax(p, n);
    float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    for (size_t j = 0; j < args->value_size; j++) {
        float acc = 0.0f;
        for (size_t c = 0; c < n; c++)
            acc = attn_fmaf(p[c], v[c * args->v_row_stride + j], acc);
        o[j] = acc * inverse + 0.0f; /* -0, also one that underflowed, becomes +0 */
    }
}

static void run(const struct attn_small_args *args) {
    for (size_t h = 0; h < args->heads; h++)
        for (size_t i = 0; i < args->rows; i++)
            run_row(args, h, i);
}

const struct attn_small_kernel attn_ref_small = {
    .name = "scalar", .scratch_bytes = ATTN_SMALL_KEYS * sizeof(float), .run = run};
