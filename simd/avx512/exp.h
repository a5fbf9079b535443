/* exp with the bits of Sleef_finz_expf16_u10avx512f on every input, inlined: a call would spill the accumulators around it.
 * vscalefps replaces SLEEF's two multiplications by powers of two: each way a denormal result is rounded once. */
#ifndef ATTN_AVX512_EXP_H
#define ATTN_AVX512_EXP_H

#include "vec.h"

/* x <= 101, or NaN. Below -104 the result is +0, by a mask: scaling those lanes into denormals would cost a microcode assist
 * each time that -inf goes by. */
INLINE vec vec_exp_low(vec x) {
    vec q = _mm512_roundscale_ps(vec_mul(x, vec_set(0x1.715476p+0f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    vec s = vec_fma(q, vec_set(-0x1.62e4p-1f), x);
    s = vec_fma(q, vec_set(-0x1.7f7d1cp-20f), s);
    vec u = vec_set(0x1.a057b4p-13f);
    u = vec_fma(u, s, vec_set(0x1.6d2d92p-10f));
    u = vec_fma(u, s, vec_set(0x1.11114cp-7f));
    u = vec_fma(u, s, vec_set(0x1.5554f4p-5f));
    u = vec_fma(u, s, vec_set(0x1.555556p-3f));
    u = vec_fma(u, s, vec_set(0.5f));
    u = vec_add(vec_fma(vec_mul(s, s), u, s), vec_set(1.0f));
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, vec_set(-104.0f), _CMP_NLT_UQ), u, q);
}

/* Everything above 100 gives infinity; vminps returns the second operand where it is NaN. */
INLINE vec vec_exp(vec x) {
    return vec_exp_low(_mm512_min_ps(vec_set(101.0f), x));
}

#endif
