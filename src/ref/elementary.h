/* exp and log of the reference: the operation sequences of SLEEF 3.5's Sleef_finz_expf1_u10purecfma and
 * Sleef_finz_logf1_u10purecfma (at most 1.0 ULP), step by step, so that every machine gives their bits.
 * fmaf is libm's: one rounding with or without an instruction for it. */
#ifndef ATTN_REF_ELEMENTARY_H
#define ATTN_REF_ELEMENTARY_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t ref_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float ref_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* 2^e for -127 < e < 128. */
static inline float ref_pow2(int e) {
    return ref_float((uint32_t)(e + 127) << 23);
}

/* x = q ln2 + s, ln2 in two words; exp(s) by a polynomial of degree 6; times 2^q in two steps, so that a denormal result is
 * rounded once. */
static inline float ref_exp(float x) {
    if (isnan(x))
        return x;
    if (x < -104.0f)
        return 0.0f;
    if (x > 100.0f)
        return INFINITY;
    int q = (int)lrintf(x * 0x1.715476p+0f);
    float s = fmaf((float)q, -0x1.62e4p-1f, x);
    s = fmaf((float)q, -0x1.7f7d1cp-20f, s);
    float u = 0x1.a057b4p-13f;
    u = fmaf(u, s, 0x1.6d2d92p-10f);
    u = fmaf(u, s, 0x1.11114cp-7f);
    u = fmaf(u, s, 0x1.5554f4p-5f);
    u = fmaf(u, s, 0x1.555556p-3f);
    u = fmaf(u, s, 0.5f);
    u = fmaf(s * s, u, s) + 1.0f;
    int half = q >> 1;
    return u * ref_pow2(half) * ref_pow2(q - half);
}

/* An unevaluated sum hi + lo. */
struct ref_pair {
    float hi, lo;
};

/* a + b exactly (Knuth's two-sum). */
static inline struct ref_pair ref_two_sum(float a, float b) {
    float s = a + b, v = s - a;
    return (struct ref_pair){s, (a - (s - v)) + (b - v)};
}

static inline struct ref_pair ref_divide(struct ref_pair n, struct ref_pair d) {
    float t = 1.0f / d.hi, s = n.hi * t;
    float u = fmaf(t, n.hi, -s);
    float v = fmaf(-d.lo, t, fmaf(-d.hi, t, 1.0f));
    return (struct ref_pair){s, fmaf(s, v, fmaf(n.lo, t, u))};
}

/* x = 2^e m with m in [0.75, 1.5); log(m) = 2 artanh((m - 1) / (m + 1)) as an odd polynomial of a double-float quotient. */
static inline float ref_log(float x) {
    if (isnan(x) || x < 0.0f)
        return NAN;
    if (x == 0.0f)
        return -INFINITY;
    if (isinf(x))
        return x;
    int denormal = x < 0x1p-126f;
    if (denormal)
        x *= 0x1p64f;
    int e = (int)(ref_bits(x * (1.0f / 0.75f)) >> 23 & 0xff) - 127;
    float m = ref_float(ref_bits(x) - ((uint32_t)e << 23));
    float scale = (float)(denormal ? e - 64 : e);

    float hi = 0x1.62e43p-1f * scale;
    struct ref_pair s = {hi, fmaf(-0x1.05c61p-29f, scale, fmaf(0x1.62e43p-1f, scale, -hi))};
    struct ref_pair y = ref_divide(ref_two_sum(-1.0f, m), ref_two_sum(1.0f, m));
    float y2 = y.hi * y.hi;
    float t = fmaf(fmaf(0x1.35feb8p-2f, y2, 0x1.993394p-2f), y2, 0x1.5555b4p-1f);

    float sum = s.hi + 2.0f * y.hi;
    float low = 2.0f * y.lo + (s.lo + ((s.hi - sum) + 2.0f * y.hi));
    float tail = y2 * y.hi * t;
    float total = sum + tail;
    return total + (low + ((sum - total) + tail));
}

#endif
