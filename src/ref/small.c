/* Reference attention over few keys: a row at a time. */
#include "kernels.h"
#include "ref/elementary.h"
#include "types.h"

extern const struct attn_gemm_kernel attn_ref_gemm_f32, attn_ref_gemm_bf16;
extern const struct attn_bf16_kernel attn_ref_bf16;
extern const struct attn_convert_kernel attn_ref_convert;

static const struct attn_gemm_kernel *gemm_of(const struct attn_small_args *args) {
    return args->arithmetic == ATTN_CLASS_BF16 ? &attn_ref_gemm_bf16 : &attn_ref_gemm_f32;
}

/* y[i] = element x[offset + i] of a type, as a number of another one, i < n. */
static void take(attn_type from, const void *x, size_t offset, size_t n, attn_type to, void *y) {
    for (size_t i = 0; i < n; i++) {
        float element;
        attn_ref_convert.widen(from, 1, (const char *)x + (offset + i) * attn_type_size(from), &element);
        attn_ref_convert.narrow(to, 1, &element, (char *)y + i * attn_type_size(to));
    }
}

/* The class' chain over n products. */
static float chain(const struct attn_small_args *args, size_t n, const float *a, void *b) {
    float c;
    gemm_of(args)->run(&(struct attn_gemm_args){.m = 1, .n = 1, .k = n, .a = a, .b = {b, 1, 0}, .c = &c});
    return c;
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

/* The same of products, as class BF16 does it. */
static float softmax_bf16(float *p, size_t n, float scale) {
    uint32_t lo = 0, hi = (uint32_t)n;
    float max = -INFINITY, rescale, lanes[ATTN_LANES] = {0};
    attn_ref_bf16.online_softmax(&(struct attn_online_softmax_args){.rows = 1,
                                                                    .scores = p,
                                                                    .score_stride = ATTN_SMALL_KEYS,
                                                                    .lo = &lo,
                                                                    .hi = &hi,
                                                                    .end = ATTN_SMALL_KEYS,
                                                                    .max = &max,
                                                                    .lanes = lanes,
                                                                    .rescale = &rescale,
                                                                    .scale = scale});
    return attn_lane_sum(lanes);
}

/* `b` is a key, or a column of values, as the product takes it. */
struct scratch {
    float p[ATTN_SMALL_KEYS], q[ATTN_SMALL_SIZE], b[ATTN_SMALL_SIZE];
};

static void run_row(const struct attn_small_args *args, size_t h, size_t i) {
    struct scratch *s = args->scratch;
    attn_type type = gemm_of(args)->b.type;
    size_t kv_head = h / args->group, n = args->hi ? args->hi[i] : args->keys, size = args->head_size;
    size_t k = kv_head * args->k_head_stride, v = kv_head * args->v_head_stride;
    size_t o = h * args->o_head_stride + i * args->o_row_stride;
    take(args->q_type, args->q, h * args->q_head_stride + i * args->q_row_stride, size, ATTN_F32, s->q);
    if (type == ATTN_BF16)
        attn_ref_convert.round_bf16(size, s->q, s->q);
    for (size_t d = 0; d < size && type == ATTN_F32; d++)
        s->q[d] *= args->scale;
    for (size_t c = 0; c < n; c++) {
        take(args->kv_type, args->k, k + c * args->k_row_stride, size, type, s->b);
        s->p[c] = chain(args, size, s->q, s->b);
    }
    float sum = type == ATTN_BF16 ? softmax_bf16(s->p, n, args->scale) : softmax(s->p, n);
    float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    for (size_t j = 0; j < args->value_size; j++) {
        for (size_t c = 0; c < n; c++)
            take(args->kv_type, args->v, v + c * args->v_row_stride + j, 1, type,
                 (char *)s->b + c * attn_type_size(type));
        float y = chain(args, n, s->p, s->b) * inverse + 0.0f; /* -0, also one that underflowed, becomes +0 */
        take(ATTN_F32, &y, 0, 1, args->o_type, (char *)args->o + (o + j) * attn_type_size(args->o_type));
    }
}

static void run(const struct attn_small_args *args) {
    for (size_t h = 0; h < args->heads; h++)
        for (size_t i = 0; i < args->rows; i++)
            run_row(args, h, i);
}

const struct attn_small_kernel attn_ref_small = {
    .name = "scalar", .scratch_bytes = sizeof(struct scratch), .has_bf16 = true, .run = run};
