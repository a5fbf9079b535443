/* Reference GEMM of class INT8: one column a panel, whose scale stands behind its elements. */
#include "ref/quantise.h"

/* Elements come in fours. */
static size_t padded(size_t k) {
    return (k + 3) / 4 * 4;
}

static void pack(const struct attn_pack_args *args) {
    for (size_t j = 0; j < args->n; j++) {
        char *panel = (char *)args->packed.data + j * args->packed.stride;
        const char *column = (const char *)args->b + j * args->n_stride;
        memset(panel, 0, padded(args->k));
        for (size_t p = 0; p < args->k; p++)
            panel[p] = column[p * args->k_stride];
        memcpy(panel + padded(args->k), (const float *)args->scales + j, sizeof(float));
    }
}

/* Elements p0 .. p1 - 1. */
static int32_t dot(const int8_t *a, const int8_t *b, size_t p0, size_t p1) {
    int32_t sum = 0;
    for (size_t p = p0; p < p1; p++)
        sum += (int32_t)a[p] * b[p];
    return sum;
}

static float element(const struct attn_gemm_args *args, size_t i, size_t j) {
    const int8_t *a = (const int8_t *)args->a + i * args->a_stride;
    const int8_t *b = (const int8_t *)args->b.data + (args->column + j) * args->b.stride;
    float t = 0.0f, scale, start = args->start == ATTN_START_BIAS ? args->factors[j] : 0.0f;
    size_t k = args->k;
    memcpy(&scale, b + padded(k), sizeof scale);
    for (size_t p = 0; p < k; p += ATTN_INT8_PART) {
        float part = (float)dot(a, b, p, k - p < ATTN_INT8_PART ? k : p + ATTN_INT8_PART);
        t = p == 0 ? part : t + part;
    }
    return attn_fmaf(t, attn_quantised_scale(a, k) * scale, start);
}

static void run(const struct attn_gemm_args *args) {
    for (size_t i = 0; i < args->m; i++)
        for (size_t j = 0; j < args->n; j++)
            ((float *)((char *)args->c + i * args->c_stride))[j] = element(args, i, j);
}

const struct attn_gemm_kernel attn_ref_gemm_int8 = {
    .name = "scalar_int8_1x1",
    .arithmetic = ATTN_CLASS_INT8,
    .a = ATTN_INT8,
    .b = {.type = ATTN_INT8, .cols = 1, .k_unit = 4, .beside = sizeof(float)},
    .rows = 1,
    .pack = pack,
    .pack_a = attn_ref_quantise,
    .run = run};
