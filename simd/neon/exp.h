/* exp with the bits of Sleef_finz_expf4_u10advsimd on every input, inlined: a call would spill the accumulators around it.
 * The first of SLEEF's two multiplications by powers of two, which is exact, is an addition to the exponent here. */
#ifndef ATTN_NEON_EXP_H
#define ATTN_NEON_EXP_H

#include "vec.h"

/* -105 <= x <= 101, or NaN. */
INLINE vec vec_exp_clamped(vec x) {
    vec q = vrndnq_f32(vec_mul(x, vec_set(0x1.715476p+0f)));
    vec s = vec_fma(q, vec_set(-0x1.62e4p-1f), x);
    s = vec_fma(q, vec_set(-0x1.7f7d1cp-20f), s);
    vec u = vec_set(0x1.a057b4p-13f);
    u = vec_fma(u, s, vec_set(0x1.6d2d92p-10f));
    u = vec_fma(u, s, vec_set(0x1.11114cp-7f));
    u = vec_fma(u, s, vec_set(0x1.5554f4p-5f));
    u = vec_fma(u, s, vec_set(0x1.555556p-3f));
    u = vec_fma(u, s, vec_set(0.5f));
    u = vec_add(vec_fma(vec_mul(s, s), u, s), vec_set(1.0f));

    /* q and half of q, rounded down, in the place of the exponent; 0 for NaN. */
    int32x4_t e = vcvtq_n_s32_f32(q, 23), half = vandq_s32(vshrq_n_s32(e, 1), vdupq_n_s32(~0x400000));
    int32x4_t rest = vaddq_s32(vsubq_s32(e, half), vreinterpretq_s32_f32(vec_set(1.0f)));
    u = vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(u), half));
    return vec_mul(u, vreinterpretq_f32_s32(rest));
}

/* Everything below -104 gives +0; fmax and fmin keep NaN. */
INLINE vec vec_exp_low(vec x) {
    return vec_exp_clamped(vmaxq_f32(x, vec_set(-105.0f)));
}

INLINE vec vec_exp(vec x) {
    return vec_exp_low(vminq_f32(x, vec_set(101.0f)));
}

INLINE void vec_exp_each(vec *x, const int n) {
    UNROLL for (int i = 0; i < n; i++) x[i] = vec_exp(x[i]);
}

#endif
