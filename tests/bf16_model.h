/* The arithmetic of class BF16 in doubles: shares nothing with the library. */
#ifndef ATTN_TESTS_BF16_MODEL_H
#define ATTN_TESTS_BF16_MODEL_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define MODEL_API static inline __attribute__((unused))

MODEL_API uint32_t model_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

MODEL_API float model_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The float that is the BF16 number with these bits. */
MODEL_API float model_widened(uint16_t bits) {
    return model_float((uint32_t)bits << 16);
}

/* x, or the zero of its sign where its exponent is that of denormal numbers. */
MODEL_API double model_flushed(float x) {
    return (model_bits(x) & 0x7f800000) == 0 ? copysign(0, (double)x) : (double)x;
}

/* sum + rest, where rest is less than the last place of sum, as a float: rounded to 24 bits as if exponents had no
 * end, then a zero of its sign where it is below 2^-126. The rest only has to say on which side of sum the result
 * lies: it is less than a last place of 53 bits, and halfway between two numbers of 24 bits lies a number of 25. */
MODEL_API float model_rounded(double sum, double rest) {
    uint64_t bits;
    int exponent;
    if (!isfinite(sum) || sum == 0)
        return (float)sum;
    memcpy(&bits, &sum, sizeof bits);
    if (rest != 0 && bits % 2 == 0) {
        bits += (rest > 0) == (sum > 0) ? 1 : (uint64_t)-1;
        memcpy(&sum, &bits, sizeof sum);
    }
    double y = ldexp(frexp(sum, &exponent), 24);
    y = ldexp(rint(y), exponent - 24);
    return fabs(y) < 0x1p-126 ? (float)copysign(0, y) : (float)y;
}

/* fma(a, b, c): the product of floats is exact, and so are the sum of two doubles and the rest that it loses,
 * together. */
MODEL_API float model_fma(float a, float b, float c) {
    double product = model_flushed(a) * model_flushed(b), z = model_flushed(c), sum = product + z;
    double from_z = sum - product, rest = (product - (sum - from_z)) + (z - from_z);
    return model_rounded(sum, rest);
}

MODEL_API float model_add(float a, float b) {
    return model_fma(1.0f, a, b);
}

MODEL_API float model_mul(float a, float b) {
    return model_rounded(model_flushed(a) * model_flushed(b), 0);
}

/* x rounded to BF16, of two neighbours as near to the even one, denormal numbers to a zero; any quiet NaN for a NaN. */
MODEL_API uint16_t model_narrowed(float x) {
    uint32_t bits = model_bits(x), low = bits & 0xffff, high = bits >> 16;
    if (isnan(x))
        return 0x7fc0;
    if ((bits & 0x7f800000) == 0)
        return (uint16_t)(high & 0x8000);
    if (low > 0x8000 || (low == 0x8000 && high % 2))
        high++; /* into the exponent, up to infinity */
    return (uint16_t)high;
}

MODEL_API float model_rounded_bf16(float x) {
    return isnan(x) ? x : model_widened(model_narrowed(x));
}

#endif
