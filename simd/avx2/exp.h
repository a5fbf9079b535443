/* exp with the bits of Sleef_finz_expf8_u10avx2 on every input, inlined: a call would spill the accumulators around it.
 * SLEEF multiplies by 2^q in two steps, the first of them exact, so that a denormal result is rounded once. Any split of q
 * with an exact first step gives the same bits. */
#ifndef ATTN_AVX2_EXP_H
#define ATTN_AVX2_EXP_H

#include "vec.h"

/* Registers that are worked on in step. */
enum { VEC_EXP_MOST = 4 };

/* exp(x[i]) = (t[i] + 1) 2^q[i] of n registers, each step for all of them: one alone waits for each of its steps.
 * -105 <= x[i] <= 101, or NaN with an undefined q[i]. */
INLINE void vec_exp_steps(const vec *x, vec *t, __m256i *q, const int n) {
    vec s[VEC_EXP_MOST];
    UNROLL for (int i = 0; i < n; i++) q[i] = _mm256_cvtps_epi32(vec_mul(x[i], vec_set(0x1.715476p+0f)));
    UNROLL for (int i = 0; i < n; i++) t[i] = _mm256_cvtepi32_ps(q[i]);
    UNROLL for (int i = 0; i < n; i++) s[i] = vec_fma(t[i], vec_set(-0x1.62e4p-1f), x[i]);
    UNROLL for (int i = 0; i < n; i++) s[i] = vec_fma(t[i], vec_set(-0x1.7f7d1cp-20f), s[i]);
    UNROLL for (int i = 0; i < n; i++) t[i] = vec_fma(vec_set(0x1.a057b4p-13f), s[i], vec_set(0x1.6d2d92p-10f));
    UNROLL for (int i = 0; i < n; i++) t[i] = vec_fma(t[i], s[i], vec_set(0x1.11114cp-7f));
    UNROLL for (int i = 0; i < n; i++) t[i] = vec_fma(t[i], s[i], vec_set(0x1.5554f4p-5f));
    UNROLL for (int i = 0; i < n; i++) t[i] = vec_fma(t[i], s[i], vec_set(0x1.555556p-3f));
    UNROLL for (int i = 0; i < n; i++) t[i] = vec_fma(t[i], s[i], vec_set(0.5f));
    UNROLL for (int i = 0; i < n; i++) t[i] = vec_fma(vec_mul(s[i], s[i]), t[i], s[i]);
}

/* 2^q for -127 < q < 128; +0 for -127. */
INLINE vec vec_pow2(__m256i q) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(q, _mm256_set1_epi32(127)), 23));
}

/* Everything below -104 gives +0; vmaxps and vminps return the second operand where it is NaN. */
INLINE vec vec_above(vec x) {
    return _mm256_max_ps(vec_set(-105.0f), x);
}

/* n registers of x <= 70, or NaN. The first step, 2^-24, is part of the addition. That leaves 2^(q + 24), which for -105 (q is
 * -151) is +0: hidden logits give +0 times a number and not an underflow, for which many processors need 150 cycles. */
INLINE void vec_exp_low_each(vec *x, const int n) {
    __m256i q[VEC_EXP_MOST];
    vec t[VEC_EXP_MOST];
    UNROLL for (int i = 0; i < n; i++) x[i] = vec_above(x[i]);
    vec_exp_steps(x, t, q, n);
    UNROLL for (int i = 0; i < n; i++) t[i] = vec_fma(t[i], vec_set(0x1p-24f), vec_set(0x1p-24f));
    UNROLL for (int i = 0; i < n; i++) x[i] = vec_mul(t[i], vec_pow2(_mm256_add_epi32(q[i], _mm256_set1_epi32(24))));
}

INLINE vec vec_exp_low(vec x) {
    vec_exp_low_each(&x, 1);
    return x;
}

/* y = exp(x - shift) of n registers, an even number, each of which is added to its half of the 16 lanes. */
INLINE void vec_exp_add(const float *x, vec shift, float *y, vec lanes[2], const int n) {
    vec e[VEC_EXP_MOST];
    UNROLL for (int i = 0; i < n; i++) e[i] = vec_sub(vec_load(x + i * VEC_LANES), shift);
    vec_exp_low_each(e, n);
    UNROLL for (int i = 0; i < n; i++) {
        vec_store(y + i * VEC_LANES, e[i]);
        lanes[i % 2] = vec_add(lanes[i % 2], e[i]);
    }
}

/* exp of n registers of any x. */
INLINE void vec_exp_each(vec *x, const int n) {
    __m256i q[VEC_EXP_MOST];
    vec t[VEC_EXP_MOST];
    UNROLL for (int i = 0; i < n; i++) x[i] = vec_above(_mm256_min_ps(vec_set(101.0f), x[i]));
    vec_exp_steps(x, t, q, n);
    UNROLL for (int i = 0; i < n; i++) {
        __m256i half = _mm256_srai_epi32(q[i], 1);
        x[i] = vec_mul(vec_mul(vec_add(t[i], vec_set(1.0f)), vec_pow2(half)), vec_pow2(_mm256_sub_epi32(q[i], half)));
    }
}

#endif
