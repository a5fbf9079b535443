/* exp with the bits of Sleef_finz_expf4_u10advsimd on every input, inlined: a call would spill the accumulators
 * around it. SLEEF multiplies by 2^q in two steps, the first of them exact, so that a denormal result is rounded
 * once. Any split of q with an exact first step gives the same bits. */
#ifndef ATTN_NEON_EXP_H
#define ATTN_NEON_EXP_H

#include "vec.h"

/* exp(x) = (t + 1) 2^q. */
INLINE vec vec_exp_steps(vec x, vec q) {
    vec s = vec_fma(q, vec_set(-0x1.62e4p-1f), x);
    s = vec_fma(q, vec_set(-0x1.7f7d1cp-20f), s);
    vec u = vec_set(0x1.a057b4p-13f);
    u = vec_fma(u, s, vec_set(0x1.6d2d92p-10f));
    u = vec_fma(u, s, vec_set(0x1.11114cp-7f));
    u = vec_fma(u, s, vec_set(0x1.5554f4p-5f));
    u = vec_fma(u, s, vec_set(0x1.555556p-3f));
    u = vec_fma(u, s, vec_set(0.5f));
    return vec_fma(vec_mul(s, s), u, s);
}

INLINE vec vec_exp_exponent(vec x) {
    return vrndnq_f32(vec_mul(x, vec_set(0x1.715476p+0f)));
}

/* x <= 70, or NaN, whose conversion raises an exception: the search for the maximum has done so already. Everything
 * below -104 gives +0; fmax keeps NaN. The first step is 2^-24. That leaves 2^(q + 24), which for -105 (q is -151)
 * is +0, however numbers are rounded: an underflow might be rounded up. */
INLINE vec vec_exp_low(vec x) {
    x = vmaxq_f32(x, vec_set(-105.0f));
    vec q = vec_exp_exponent(x), t = vec_exp_steps(x, q);
    int32x4_t power = vaddq_s32(vcvtq_n_s32_f32(q, 23), vdupq_n_s32((127 + 24) << 23));
    return vec_mul(vec_mul(vec_add(t, vec_set(1.0f)), vec_set(0x1p-24f)), vreinterpretq_f32_s32(power));
}

INLINE void vec_exp_low_each(vec *x, const int n) {
    UNROLL for (int i = 0; i < n; i++) x[i] = vec_exp_low(x[i]);
}

/* Where nobody has looked at x: NaN raises no exception. */
INLINE vec vec_exp_low_quiet(vec x) {
    vec_mask number = vec_equal(x, x);
    return vec_select(number, vec_exp_low(vec_select(number, x, vec_zero())), x);
}

/* Any x; NaN raises no exception. */
INLINE vec vec_exp(vec x) {
    vec_mask number = vec_equal(x, x);
    vec c = vmaxq_f32(vminq_f32(vec_select(number, x, vec_zero()), vec_set(101.0f)), vec_set(-105.0f));
    vec q = vec_exp_exponent(c), u = vec_add(vec_exp_steps(c, q), vec_set(1.0f));
    /* q and half of q, rounded down, in the place of the exponent. */
    int32x4_t e = vcvtq_n_s32_f32(q, 23), half = vandq_s32(vshrq_n_s32(e, 1), vdupq_n_s32(~0x400000));
    int32x4_t rest = vaddq_s32(vsubq_s32(e, half), vreinterpretq_s32_f32(vec_set(1.0f)));
    u = vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(u), half));
    return vec_select(number, vec_mul(u, vreinterpretq_f32_s32(rest)), x);
}

INLINE void vec_exp_each(vec *x, const int n) {
    UNROLL for (int i = 0; i < n; i++) x[i] = vec_exp(x[i]);
}

/* ---- 2^t, for class BF16 (body/exp2.h) ---- */

/* Below -126 t counts as that: -inf has no integer. NaN stays. */
INLINE vec vec_exp2_split(vec *t, vec *n) {
    *t = vmaxq_f32(*t, vec_set(-126.0f));
    *n = vec_round(*t);
    return vec_sub(*t, *n);
}
/* u * 2^n, +0 where t < -125. */
INLINE vec vec_exp2_scale(vec u, vec n, vec t) {
    uint32x4_t y = vreinterpretq_u32_s32(vec_int_add(vec_bits(u), vec_int_shift_left(vec_to_int(n), 23)));
    return vreinterpretq_f32_u32(vbicq_u32(y, vcltq_f32(t, vec_set(-125.0f))));
}

#endif
