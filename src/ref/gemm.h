/* What the references of class F32 share. */
#ifndef ATTN_REF_GEMM_H
#define ATTN_REF_GEMM_H

#include "kernels.h"

/* Where the chain of element [i][j] starts; c is its row. */
static inline float ref_start(const struct attn_gemm_args *args, const float *c, size_t i, size_t j) {
    switch (args->start) {
    case ATTN_START_BIAS:
        return args->factors[j];
    case ATTN_START_C:
        return c[j];
    case ATTN_START_SCALE:
        return c[j] * args->factors[i];
    case ATTN_START_ZERO:
        break;
    }
    return 0.0f;
}

#endif
