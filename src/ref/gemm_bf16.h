/* What the references of classes BF16 and BF16_TILE share: how packed B lies, and one multiply-add. */
#ifndef ATTN_REF_GEMM_BF16_H
#define ATTN_REF_GEMM_BF16_H

#include <math.h>
#include <string.h>

#include "kernels.h"

/* bf16 is the upper half of an f32. */
static inline float load(const char *element) {
    uint16_t half;
    memcpy(&half, element, sizeof half);
    uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Row `row` of a column of packed B. */
static inline char *row_at(const struct attn_panels *b, size_t column, size_t row) {
    return (char *)b->data + column * b->stride + row * sizeof(uint16_t);
}

static inline void pack(const struct attn_pack_args *args) {
    const char *b = args->b;
    for (size_t j = 0; j < args->n; j++)
        for (size_t p = 0; p < args->k; p++)
            memcpy(row_at(&args->packed, args->column + j, args->row + p), b + p * args->k_stride + j * args->n_stride,
                   sizeof(uint16_t));
}

static inline int finite(const struct attn_panels *b, size_t row, size_t k, size_t n) {
    for (size_t j = 0; j < n; j++)
        for (size_t p = 0; p < k; p++)
            if (!isfinite(load(row_at(b, j, row + p))))
                return 0;
    return 1;
}

static inline float start(const struct attn_gemm_args *args, const float *c, size_t i, size_t j) {
    switch (args->start) {
    case ATTN_START_BIAS:
        return args->factors[j];
    case ATTN_START_C:
        return c[j];
    case ATTN_START_SCALE:
        return attn_mul_flushed(c[j], args->factors[i]);
    case ATTN_START_ZERO:
        break;
    }
    return 0.0f;
}

/* Element `p` of a row of A, or of a column of B; +0 outside the product. */
struct side {
    const float *a;
    const char *b;
    size_t k;
};

static inline float multiply_add(const struct side *side, size_t p, float acc) {
    bool inside = p < side->k; /* also false where p has wrapped below 0 */
    return attn_fmaf_flushed(inside ? side->a[p] : 0.0f, inside ? load(side->b + p * sizeof(uint16_t)) : 0.0f, acc);
}

#endif
