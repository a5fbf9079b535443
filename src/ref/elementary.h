/* Elementary functions of the reference: the operation sequences of SLEEF 3.5's Sleef_finz_expf1_u10purecfma and its
 * likes for log, tanh, sin and cos (1.0 ULP), step by step, so that every machine gives their bits. Of the C library
 * only functions whose result is exact are called: rintf, lrintf. */
#ifndef ATTN_REF_ELEMENTARY_H
#define ATTN_REF_ELEMENTARY_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "arithmetic.h"

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

/* x = q ln2 + s, ln2 in two words; exp(s) by a polynomial of degree 6; times 2^q in two steps, so that a denormal
 * result is rounded once. */
static inline float ref_exp(float x) {
    if (isnan(x))
        return x;
    if (x < -104.0f)
        return 0.0f;
    if (x > 101.0f) /* that overflows, too */
        x = 101.0f;
    int q = (int)lrintf(x * 0x1.715476p+0f);
    float s = attn_fmaf((float)q, -0x1.62e4p-1f, x);
    s = attn_fmaf((float)q, -0x1.7f7d1cp-20f, s);
    float u = 0x1.a057b4p-13f;
    u = attn_fmaf(u, s, 0x1.6d2d92p-10f);
    u = attn_fmaf(u, s, 0x1.11114cp-7f);
    u = attn_fmaf(u, s, 0x1.5554f4p-5f);
    u = attn_fmaf(u, s, 0x1.555556p-3f);
    u = attn_fmaf(u, s, 0.5f);
    u = attn_fmaf(s * s, u, s) + 1.0f;
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

static inline struct ref_pair ref_add(struct ref_pair a, struct ref_pair b) {
    struct ref_pair s = ref_two_sum(a.hi, b.hi);
    return (struct ref_pair){s.hi, s.lo + (a.lo + b.lo)};
}

static inline struct ref_pair ref_add_float(struct ref_pair a, float b) {
    return ref_add(a, (struct ref_pair){b, 0.0f});
}

static inline struct ref_pair ref_multiply(struct ref_pair a, struct ref_pair b) {
    float p = a.hi * b.hi;
    return (struct ref_pair){p, attn_fmaf(a.hi, b.lo, attn_fmaf(a.lo, b.hi, attn_fmaf(a.hi, b.hi, -p)))};
}

static inline struct ref_pair ref_square(struct ref_pair a) {
    float p = a.hi * a.hi;
    return (struct ref_pair){p, attn_fmaf(a.hi + a.hi, a.lo, attn_fmaf(a.hi, a.hi, -p))};
}

static inline struct ref_pair ref_divide(struct ref_pair n, struct ref_pair d) {
    float t = 1.0f / d.hi, s = n.hi * t;
    float u = attn_fmaf(t, n.hi, -s);
    float v = attn_fmaf(-d.lo, t, attn_fmaf(-d.hi, t, 1.0f));
    return (struct ref_pair){s, attn_fmaf(s, v, attn_fmaf(n.lo, t, u))};
}

/* x = 2^e m with m in [0.75, 1.5); log(m) = 2 artanh((m - 1) / (m + 1)) as an odd polynomial of a double-float
 * quotient. */
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
    struct ref_pair s = {hi, attn_fmaf(-0x1.05c61p-29f, scale, attn_fmaf(0x1.62e43p-1f, scale, -hi))};
    struct ref_pair y = ref_divide(ref_two_sum(-1.0f, m), ref_two_sum(1.0f, m));
    float y2 = y.hi * y.hi;
    float t = attn_fmaf(attn_fmaf(0x1.35feb8p-2f, y2, 0x1.993394p-2f), y2, 0x1.5555b4p-1f);

    float sum = s.hi + 2.0f * y.hi;
    float low = 2.0f * y.lo + (s.lo + ((s.hi - sum) + 2.0f * y.hi));
    float tail = y2 * y.hi * t;
    float total = sum + tail;
    return total + (low + ((sum - total) + tail));
}

/* exp(x) as a pair, 0 <= x < 9: x = q ln2 + s, exp(s) = 1 + s + s^2 (1/2 + s (1/6 + s u)) with a cubic u. */
static inline struct ref_pair ref_exp_pair(float x) {
    float q = rintf(x * 0x1.715476p+0f);
    struct ref_pair s = ref_add_float(ref_two_sum(x, q * -0x1.62e4p-1f), q * -0x1.7f7d1cp-20f);
    float u = 0x1.9f6ffep-13f;
    u = attn_fmaf(u, s.hi, 0x1.6d7ef8p-10f);
    u = attn_fmaf(u, s.hi, 0x1.11121ap-7f);
    u = attn_fmaf(u, s.hi, 0x1.5554b8p-5f);
    struct ref_pair t = ref_add_float(ref_multiply(s, (struct ref_pair){u, 0.0f}), 0x1.555554p-3f);
    t = ref_add_float(ref_multiply(s, t), 0.5f);
    t = ref_add(s, ref_multiply(ref_square(s), t));
    t = ref_add_float(t, 1.0f);
    float scale = ref_pow2((int)q);
    return (struct ref_pair){t.hi * scale, t.lo * scale};
}

/* a + b where abs(a.hi) >= abs(b.hi), its low words added one after the other. */
static inline struct ref_pair ref_add_smaller(struct ref_pair a, struct ref_pair b) {
    float s = a.hi + b.hi;
    return (struct ref_pair){s, (((a.hi - s) + b.hi) + a.lo) + b.lo};
}

/* (e - 1 / e) / (e + 1 / e) with e = exp(abs(x)); 1 from where that rounds to 1. */
static inline float ref_tanh(float x) {
    if (isnan(x))
        return x;
    if (fabsf(x) > 0x1.154246p+3f)
        return copysignf(1.0f, x);
    struct ref_pair e = ref_exp_pair(fabsf(x)), inverse = ref_divide((struct ref_pair){1.0f, 0.0f}, e);
    struct ref_pair sinh2 = ref_add_smaller(e, (struct ref_pair){-inverse.hi, -inverse.lo});
    struct ref_pair cosh2 = ref_add_smaller(e, inverse), y = ref_divide(sinh2, cosh2);
    return copysignf(y.hi + y.lo, x);
}

/* sin(s) = s (1 + s^2 (-1/6 + s^2 u)) with a linear u, abs(s) <= pi / 2. */
static inline float ref_sin_pair(struct ref_pair s) {
    struct ref_pair s2 = ref_square(s);
    float u = 0x1.5e150ep-19f;
    u = attn_fmaf(u, s2.hi, -0x1.9f75d6p-13f);
    u = attn_fmaf(u, s2.hi, 0x1.110eeep-7f);
    struct ref_pair t = ref_multiply(ref_two_sum(-0x1.55554cp-3f, u * s2.hi), s2);
    t = ref_add_float(t, 1.0f);
    return attn_fmaf(s.hi, t.hi, attn_fmaf(s.lo, t.hi, s.hi * t.lo));
}

/* abs(x) <= 4, for which SLEEF takes the short of its two reductions: x = q pi + s, pi in three words. */
static inline float ref_sin(float x) {
    if (x == 0.0f)
        return x;
    float q = rintf(x * 0x1.45f306p-2f);
    struct ref_pair s = ref_two_sum(attn_fmaf(q, -0x1.921cp+1f, x), q * -0x1.daap-14f);
    float y = ref_sin_pair(ref_add_float(s, q * -0x1.10b462p-29f));
    return (int)q & 1 ? -y : y;
}

/* Likewise: x = q pi / 2 + s with an odd q. */
static inline float ref_cos(float x) {
    float q = attn_fmaf(rintf(attn_fmaf(x, 0x1.45f306p-2f, -0.5f)), 2.0f, 1.0f);
    struct ref_pair s = ref_add_float(ref_two_sum(x, q * -0x1.921cp+0f), q * -0x1.daap-15f);
    float y = ref_sin_pair(ref_add_float(s, q * -0x1.10b462p-30f));
    return (int)q & 2 ? y : -y;
}

#endif
