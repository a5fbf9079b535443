/* 2^t of class BF16. exp.h of each ISA has
 *
 *     vec_exp2_split   t less the nearest integer, which it gives too; nothing is raised for -inf, a hidden key's
 *     vec_exp2_scale   u * 2^n, +0 where t < -125 */
#ifndef ATTN_BODY_EXP2_H
#define ATTN_BODY_EXP2_H

#include "body/rows.h"
#include "kernels.h"

/* x[i] = 2^x[i] of n registers, each step for all of them; no x is above 0. */
INLINE void exp2_each(vec *x, const int n) {
    vec t[EXP_VECS], whole[EXP_VECS], f[EXP_VECS];
    UNROLL for (int i = 0; i < n; i++) t[i] = x[i];
    UNROLL for (int i = 0; i < n; i++) f[i] = vec_exp2_split(&t[i], &whole[i]);
    UNROLL for (int i = 0; i < n; i++) x[i] = vec_fma(vec_set(ATTN_EXP2_C3), f[i], vec_set(ATTN_EXP2_C2));
    UNROLL for (int i = 0; i < n; i++) x[i] = vec_fma(x[i], f[i], vec_set(ATTN_EXP2_C1));
    UNROLL for (int i = 0; i < n; i++) x[i] = vec_fma(x[i], f[i], vec_set(1.0f));
    UNROLL for (int i = 0; i < n; i++) x[i] = vec_exp2_scale(x[i], whole[i], t[i]);
}

#endif
