/* What every source asks of floating-point arithmetic: operations are those that are written, each rounded once to its
 * type, and a fused multiply-add is one whatever machine and C library there are. */
#ifndef ATTN_ARITHMETIC_H
#define ATTN_ARITHMETIC_H

#include <float.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) ||                               \
    defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__)
#error "libattn cannot be compiled with -ffast-math, -Ofast or parts of them: results would differ and NaN be lost"
#endif

/* Both values mean that float and double are evaluated in their own type; they differ for _Float16 only. */
#if FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16
#error "libattn needs arithmetic in float and double as declared; on i386 -msse2 -mfpmath=sse gives it"
#endif

/* product + c rounded once to a float, from their sum rounded to a double: where this is even and inexact it is made
 * odd, towards what it lost. Out of line: it is rare, and functions of the reference have up to 40 multiply-adds. */
static __attribute__((noinline, unused)) float attn_round_odd(double product, double c, double sum) {
    double rest = sum - product, lost = (product - (sum - rest)) + (c - rest);
    uint64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    if (lost != 0 && !(bits & 1)) {
        bits = (lost > 0) == (sum > 0) ? bits + 1 : bits - 1;
        memcpy(&sum, &bits, sizeof sum);
    }
    return (float)sum;
}

/* a * b + c rounded once, of doubles without an instruction for it. The product is exact. The sum is rounded to a
 * double and then to a float. Two roundings differ from one only where the double is inexact and lies halfway between
 * two floats: made odd it is not halfway any more. A double is halfway if its low 29 bits say so; where the float is
 * denormal more bits count, and every double is treated so. */
static inline float attn_fmaf_emulated(float a, float b, float c) {
    double product = (double)a * (double)b, sum = product + (double)c;
    uint64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    const uint64_t low = (UINT64_C(1) << 29) - 1, half = UINT64_C(1) << 28, normal = UINT64_C(1023 - 126);
    if ((bits & low) != half && (bits >> 52 & 0x7ff) >= normal)
        return (float)sum;
    return attn_round_odd(product, (double)c, sum);
}

/* Not the C library's fmaf where that may be a call: mingw's rounds twice, musl's does where the result is denormal,
 * glibc's takes 20 times as long as the function above on processors without the instruction. */
static inline float attn_fmaf(float a, float b, float c) {
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__riscv_flen) ||              \
    defined(__s390x__) || defined(__powerpc64__)
    return __builtin_fmaf(a, b, c);
#else
    return attn_fmaf_emulated(a, b, c);
#endif
}

/* x, or a zero of its sign where x is denormal. */
static inline float attn_flush(float x) {
    return x > -FLT_MIN && x < FLT_MIN ? x * 0.0f : x;
}

/* Whether y, which was computed 2^64 times as large, is tiny: it is below 2^-126 once it is divided by that. */
static inline bool attn_is_tiny_enlarged(float y) {
    return y > -0x1p-62f && y < 0x1p-62f;
}

/* attn_fmaf that takes denormal operands for zeros, and returns a zero of the result's sign where the result is tiny
 * after rounding: below 2^-126 in magnitude when it is rounded to 24 bits as if exponents had no end. x86 does so
 * under FTZ and DAZ. Only a result that is 2^-126 as it stands may have come from below: the last bit of a denormal
 * number is coarser. It is computed again, 2^64 times as large. */
static inline float attn_fmaf_flushed(float a, float b, float c) {
    a = attn_flush(a), b = attn_flush(b), c = attn_flush(c);
    float y = attn_fmaf(a, b, c), scale = 0x1p64f;
    if (y == FLT_MIN || y == -FLT_MIN) {
        bool a_is_less = (a < 0 ? -a : a) < (b < 0 ? -b : b);
        float larger = attn_fmaf(a_is_less ? a * scale : a, a_is_less ? b : b * scale, c * scale);
        return attn_is_tiny_enlarged(larger) ? y * 0.0f : y;
    }
    return attn_flush(y);
}

/* a * b likewise. */
static inline float attn_mul_flushed(float a, float b) {
    a = attn_flush(a), b = attn_flush(b);
    float y = a * b;
    if (y == FLT_MIN || y == -FLT_MIN) {
        bool a_is_less = (a < 0 ? -a : a) < (b < 0 ? -b : b);
        return attn_is_tiny_enlarged(a_is_less ? a * 0x1p64f * b : a * (b * 0x1p64f)) ? y * 0.0f : y;
    }
    return attn_flush(y);
}

/* Whether the calling thread computes with denormal numbers, as the promise of equal bits asks, or takes them for 0:
 * threads of programs linked with -ffast-math or -Ofast do. Halves and doubles the smallest normal number at run
 * time. */
static inline bool attn_denormals_are_kept(void) {
    volatile float x = FLT_MIN;
    x *= 0.5f;
    x *= 2.0f;
    return x == FLT_MIN;
}

#endif
