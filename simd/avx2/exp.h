/* exp with the bits of Sleef_finz_expf8_u10avx2 on every input, inlined: a call would spill the accumulators around
 * it. SLEEF multiplies by 2^q in two steps, the first of them exact, so that a denormal result is rounded once. Any
 * split of q with an exact first step gives the same bits. */
#ifndef ATTN_AVX2_EXP_H
#define ATTN_AVX2_EXP_H

#include "vec.h"

/* Registers that are worked on in step. */
enum { VEC_EXP_MOST = 4 };

/* exp(x[i]) = (t[i] + 1) 2^q of n registers, each step for all of them: one alone waits for each of its steps. -105
 * <= x[i] <= 101, or NaN. bits[i] are those of 1.5 2^23 + VEC_EXP_OFFSET + q: a float that is rounded to an integer,
 * which its low bits are, and that way not even NaN raises an exception, as it does in a conversion. */
enum { VEC_EXP_OFFSET = 1024 };
INLINE void vec_exp_steps(const vec *x, vec *t, __m256i *bits, const int n) {
    const vec integers = vec_set(0x1.8p+23f + VEC_EXP_OFFSET);
    vec s[VEC_EXP_MOST];
    UNROLL for (int i = 0; i < n; i++) t[i] = vec_add(vec_mul(x[i], vec_set(0x1.715476p+0f)), integers);
    UNROLL for (int i = 0; i < n; i++) bits[i] = _mm256_castps_si256(t[i]);
    UNROLL for (int i = 0; i < n; i++) t[i] = vec_sub(t[i], integers);
    UNROLL for (int i = 0; i < n; i++) s[i] = vec_fma(t[i], vec_set(-0x1.62e4p-1f), x[i]);
    UNROLL for (int i = 0; i < n; i++) s[i] = vec_fma(t[i], vec_set(-0x1.7f7d1cp-20f), s[i]);
    UNROLL for (int i = 0; i < n; i++) t[i] = vec_fma(vec_set(0x1.a057b4p-13f), s[i], vec_set(0x1.6d2d92p-10f));
    UNROLL for (int i = 0; i < n; i++) t[i] = vec_fma(t[i], s[i], vec_set(0x1.11114cp-7f));
    UNROLL for (int i = 0; i < n; i++) t[i] = vec_fma(t[i], s[i], vec_set(0x1.5554f4p-5f));
    UNROLL for (int i = 0; i < n; i++) t[i] = vec_fma(t[i], s[i], vec_set(0x1.555556p-3f));
    UNROLL for (int i = 0; i < n; i++) t[i] = vec_fma(t[i], s[i], vec_set(0.5f));
    UNROLL for (int i = 0; i < n; i++) t[i] = vec_fma(vec_mul(s[i], s[i]), t[i], s[i]);
}

/* n registers of -105 <= x <= 70, or NaN. The first step, 2^-24, is part of the addition. That leaves 2^(q + 24),
 * which for -105 (q is -151, or -152 where numbers are rounded down) is +0, by a subtraction that does not go below
 * 0: hidden logits give +0 times a number and not an underflow, for which many processors need 150 cycles, and which
 * might be rounded up. */
INLINE void vec_exp_clamped_each(vec *x, const int n) {
    const __m256i least = _mm256_set1_epi32(VEC_EXP_OFFSET - 127 - 24);
    __m256i bits[VEC_EXP_MOST];
    vec t[VEC_EXP_MOST];
    vec_exp_steps(x, t, bits, n);
    UNROLL for (int i = 0; i < n; i++) t[i] = vec_fma(t[i], vec_set(0x1p-24f), vec_set(0x1p-24f));
    UNROLL for (int i = 0; i < n; i++) bits[i] = _mm256_slli_epi32(_mm256_subs_epu16(bits[i], least), 23);
    UNROLL for (int i = 0; i < n; i++) x[i] = vec_mul(t[i], _mm256_castsi256_ps(bits[i]));
}

/* Everything below -104 gives +0. */
#define VEC_EXP_LEAST vec_set(-105.0f)

/* The same of any x <= 70, or NaN, which vmaxps returns, as the second operand, but not without an exception: the
 * search for the maximum has raised it already. */
INLINE void vec_exp_low_each(vec *x, const int n) {
    UNROLL for (int i = 0; i < n; i++) x[i] = _mm256_max_ps(VEC_EXP_LEAST, x[i]);
    vec_exp_clamped_each(x, n);
}

INLINE vec vec_exp_low(vec x) {
    vec_exp_low_each(&x, 1);
    return x;
}

/* Where nobody has looked at x: NaN raises no exception. */
INLINE vec vec_exp_quiet_above(vec x) {
    return vec_select(vec_less(x, VEC_EXP_LEAST), VEC_EXP_LEAST, x);
}

INLINE vec vec_exp_low_quiet(vec x) {
    x = vec_exp_quiet_above(x);
    vec_exp_clamped_each(&x, 1);
    return x;
}

/* 2^q of q + `offset`, whose higher bits are shifted out. */
INLINE vec vec_pow2(__m256i q, const int offset) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(q, _mm256_set1_epi32(127 - offset)), 23));
}

/* exp of n registers of any x. NaN raises no exception. */
INLINE void vec_exp_each(vec *x, const int n) {
    __m256i bits[VEC_EXP_MOST];
    vec t[VEC_EXP_MOST];
    UNROLL for (int i = 0; i < n; i++) x[i] =
        vec_exp_quiet_above(vec_select(vec_less(vec_set(101.0f), x[i]), vec_set(101.0f), x[i]));
    vec_exp_steps(x, t, bits, n);
    UNROLL for (int i = 0; i < n; i++) {
        __m256i half = _mm256_srai_epi32(bits[i], 1), rest = _mm256_sub_epi32(bits[i], half);
        vec first = vec_mul(vec_add(t[i], vec_set(1.0f)), vec_pow2(half, VEC_EXP_OFFSET / 2));
        x[i] = vec_mul(first, vec_pow2(rest, VEC_EXP_OFFSET / 2));
    }
}

/* ---- 2^t, for class BF16 (body/exp2.h) ---- */

/* Below -126 t counts as that: -inf has no integer. NaN stays, as the second operand. */
INLINE vec vec_exp2_split(vec *t, vec *n) {
    *t = _mm256_max_ps(vec_set(-126.0f), *t);
    *n = vec_round(*t);
    return vec_sub(*t, *n);
}

/* u * 2^n, +0 where t < -125. */
INLINE vec vec_exp2_scale(vec u, vec n, vec t) {
    vec y = vec_from_bits(vec_int_add(vec_bits(u), vec_int_shift_left(vec_to_int(n), 23)));
    return _mm256_and_ps(_mm256_cmp_ps(t, vec_set(-125.0f), _CMP_NLT_UQ), y);
}

#endif
