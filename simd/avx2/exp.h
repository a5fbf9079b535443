/* exp with the bits of Sleef_finz_expf8_u10avx2 on every input, inlined: a call would spill the accumulators around it.
 * SLEEF multiplies by 2^(q / 2) and by 2^(q - q / 2), so that a denormal result is rounded once. The first product is exact:
 * here it is an addition to the exponent. */
#ifndef ATTN_AVX2_EXP_H
#define ATTN_AVX2_EXP_H

#include "vec.h"

/* u times 2^q; u is in [0.5, 2), |q| <= 254, or u is NaN and q is INT_MIN, the conversion of NaN, whose lower bits are 0. */
INLINE vec vec_scale(vec u, __m256i q) {
    __m256i half = _mm256_srai_epi32(q, 1), rest = _mm256_sub_epi32(q, half);
    __m256i low = _mm256_add_epi32(_mm256_castps_si256(u), _mm256_slli_epi32(half, 23));
    __m256i power = _mm256_slli_epi32(_mm256_add_epi32(rest, _mm256_set1_epi32(127)), 23);
    return vec_mul(_mm256_castsi256_ps(low), _mm256_castsi256_ps(power));
}

/* -105 <= x <= 101, or NaN. */
INLINE vec vec_exp_clamped(vec x) {
    __m256i n = _mm256_cvtps_epi32(vec_mul(x, vec_set(0x1.715476p+0f)));
    vec q = _mm256_cvtepi32_ps(n);
    vec s = vec_fma(q, vec_set(-0x1.62e4p-1f), x);
    s = vec_fma(q, vec_set(-0x1.7f7d1cp-20f), s);
    vec u = vec_set(0x1.a057b4p-13f);
    u = vec_fma(u, s, vec_set(0x1.6d2d92p-10f));
    u = vec_fma(u, s, vec_set(0x1.11114cp-7f));
    u = vec_fma(u, s, vec_set(0x1.5554f4p-5f));
    u = vec_fma(u, s, vec_set(0x1.555556p-3f));
    u = vec_fma(u, s, vec_set(0.5f));
    u = vec_add(vec_fma(vec_mul(s, s), u, s), vec_set(1.0f));
    return vec_scale(u, n);
}

/* Everything below -104 gives +0; vmaxps and vminps return the second operand where it is NaN. */
INLINE vec vec_exp_low(vec x) {
    return vec_exp_clamped(_mm256_max_ps(vec_set(-105.0f), x));
}

INLINE vec vec_exp(vec x) {
    return vec_exp_low(_mm256_min_ps(vec_set(101.0f), x));
}

#endif
