/* exp with the bits of Sleef_finz_expf16_u10avx512f on every input, inlined: a call would spill the accumulators
 * around it. vscalefps replaces SLEEF's two multiplications by powers of two: each way a denormal result is rounded
 * once. */
#ifndef ATTN_AVX512_EXP_H
#define ATTN_AVX512_EXP_H

#include "vec.h"

/* n vectors of x <= 101, or NaN, each step for all of them: one alone takes 60 cycles, of which the processor sees
 * some ten vectors ahead. Below -104 the result is +0, by a mask: scaling those lanes into denormals would cost a
 * microcode assist each time that -inf goes by. There q and s are 0 under the same mask, for infinity less infinity,
 * and powers of what is far below, would raise exceptions. */
INLINE void vec_exp_low_each(vec *x, const int n) {
    enum { MOST = 4 };
    vec q[MOST], s[MOST], u[MOST];
    vec_mask seen[MOST];
    UNROLL for (int i = 0; i < n; i++) seen[i] = _mm512_cmp_ps_mask(x[i], vec_set(-104.0f), _CMP_NLT_UQ);
    UNROLL for (int i = 0; i < n; i++) q[i] = vec_mul_mask(seen[i], x[i], vec_set(0x1.715476p+0f));
    UNROLL for (int i = 0; i < n; i++) q[i] = _mm512_roundscale_ps(q[i], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    UNROLL for (int i = 0; i < n; i++) s[i] = vec_fma(q[i], vec_set(-0x1.62e4p-1f), x[i]);
    UNROLL for (int i = 0; i < n; i++) s[i] = _mm512_maskz_fmadd_ps(seen[i], q[i], vec_set(-0x1.7f7d1cp-20f), s[i]);
    UNROLL for (int i = 0; i < n; i++) u[i] = vec_fma(vec_set(0x1.a057b4p-13f), s[i], vec_set(0x1.6d2d92p-10f));
    UNROLL for (int i = 0; i < n; i++) u[i] = vec_fma(u[i], s[i], vec_set(0x1.11114cp-7f));
    UNROLL for (int i = 0; i < n; i++) u[i] = vec_fma(u[i], s[i], vec_set(0x1.5554f4p-5f));
    UNROLL for (int i = 0; i < n; i++) u[i] = vec_fma(u[i], s[i], vec_set(0x1.555556p-3f));
    UNROLL for (int i = 0; i < n; i++) u[i] = vec_fma(u[i], s[i], vec_set(0.5f));
    UNROLL for (int i = 0; i < n; i++) u[i] = vec_fma(vec_mul(s[i], s[i]), u[i], s[i]);
    UNROLL for (int i = 0; i < n; i++) u[i] = vec_add(u[i], vec_set(1.0f));
    UNROLL for (int i = 0; i < n; i++) x[i] = _mm512_maskz_scalef_ps(seen[i], u[i], q[i]);
}

INLINE vec vec_exp_low(vec x) {
    vec_exp_low_each(&x, 1);
    return x;
}

/* Nobody need have looked at x: NaN raises no exception. */
INLINE vec vec_exp_low_quiet(vec x) {
    return vec_exp_low(x);
}

/* What stands for x where x may be above 100, which gives infinity. NaN, which stays, raises no exception as it
 * would in vminps. */
INLINE vec vec_exp_clamp(vec x) {
    return vec_select(_mm512_cmp_ps_mask(x, vec_set(101.0f), _CMP_GT_OQ), vec_set(101.0f), x);
}

/* exp of n registers of any x, at most four. */
INLINE void vec_exp_each(vec *x, const int n) {
    UNROLL for (int i = 0; i < n; i++) x[i] = vec_exp_clamp(x[i]);
    vec_exp_low_each(x, n);
}

/* ---- 2^t, for class BF16 (body/exp2.h) ---- */

INLINE vec vec_exp2_split(vec *t, vec *n) {
    *n = vec_round(*t);
    return _mm512_maskz_sub_ps(_mm512_cmp_ps_mask(*t, vec_set(-125.0f), _CMP_NLT_UQ), *t, *n);
}

/* u * 2^n, +0 where t < -125. */
INLINE vec vec_exp2_scale(vec u, vec n, vec t) {
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(t, vec_set(-125.0f), _CMP_NLT_UQ), u, n);
}

#endif
