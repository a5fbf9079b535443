/* exp with the bits of Sleef_finz_expf8_u10avx2 on every input, inlined: a call would spill the accumulators around it.
 * SLEEF multiplies by 2^q in two steps, the first of them exact, so that a denormal result is rounded once. Any split of q
 * with an exact first step gives the same bits. */
#ifndef ATTN_AVX2_EXP_H
#define ATTN_AVX2_EXP_H

#include "vec.h"

/* exp(x) = (t + 1) 2^q; -105 <= x <= 101, or NaN with an undefined q. */
INLINE vec vec_exp_steps(vec x, __m256i *q) {
    *q = _mm256_cvtps_epi32(vec_mul(x, vec_set(0x1.715476p+0f)));
    vec qf = _mm256_cvtepi32_ps(*q);
    vec s = vec_fma(qf, vec_set(-0x1.62e4p-1f), x);
    s = vec_fma(qf, vec_set(-0x1.7f7d1cp-20f), s);
    vec u = vec_set(0x1.a057b4p-13f);
    u = vec_fma(u, s, vec_set(0x1.6d2d92p-10f));
    u = vec_fma(u, s, vec_set(0x1.11114cp-7f));
    u = vec_fma(u, s, vec_set(0x1.5554f4p-5f));
    u = vec_fma(u, s, vec_set(0x1.555556p-3f));
    u = vec_fma(u, s, vec_set(0.5f));
    return vec_fma(vec_mul(s, s), u, s);
}

/* 2^q for -127 < q < 128; +0 for -127. */
INLINE vec vec_pow2(__m256i q) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(q, _mm256_set1_epi32(127)), 23));
}

/* Everything below -104 gives +0; vmaxps and vminps return the second operand where it is NaN. */
INLINE vec vec_above(vec x) {
    return _mm256_max_ps(vec_set(-105.0f), x);
}

/* x <= 70, or NaN. The first step, 2^-24, is part of the addition. That leaves 2^(q + 24), which for -105 (q is -151) is +0:
 * hidden logits give +0 times a number and not an underflow, for which many processors need 150 cycles. */
INLINE vec vec_exp_low(vec x) {
    __m256i q;
    vec t = vec_exp_steps(vec_above(x), &q);
    return vec_mul(vec_fma(t, vec_set(0x1p-24f), vec_set(0x1p-24f)),
                   vec_pow2(_mm256_add_epi32(q, _mm256_set1_epi32(24))));
}

INLINE vec vec_exp(vec x) {
    __m256i q;
    vec t = vec_exp_steps(vec_above(_mm256_min_ps(vec_set(101.0f), x)), &q);
    __m256i half = _mm256_srai_epi32(q, 1);
    return vec_mul(vec_mul(vec_add(t, vec_set(1.0f)), vec_pow2(half)), vec_pow2(_mm256_sub_epi32(q, half)));
}

#endif
