/* Elements of 16 and of 8 bits from and to floats, in integers. Floats are given as their bits: where they are
 * passed in registers of the x87, a signalling NaN would not arrive as such. */
#ifndef ATTN_REF_CONVERT_H
#define ATTN_REF_CONVERT_H

#include <stdint.h>

/* Bits of a float. */
#define REF_SIGN     UINT32_C(0x80000000)
#define REF_INFINITY UINT32_C(0x7f800000) /* beyond it is NaN */
#define REF_QUIET    UINT32_C(0x00400000) /* of a NaN */
#define REF_FRACTION UINT32_C(0x007fffff)
#define REF_ONE      UINT32_C(0x00800000) /* of the exponent; the smallest normal number */

/* x / 2^shift, shift from 1 to 31, rounded to nearest, of two to the even one. */
static inline uint32_t ref_round_shift(uint32_t x, unsigned shift) {
    uint32_t quotient = x >> shift, rest = x & ((UINT32_C(1) << shift) - 1), half = UINT32_C(1) << (shift - 1);
    return quotient + (rest > half || (rest == half && quotient % 2 == 1));
}

/* A float is a BF16 with 16 bits more of fraction. */
static inline uint32_t ref_widen_bf16(uint16_t x) {
    return (uint32_t)x << 16;
}

/* A carry out of the fraction goes into the exponent, from the largest number to infinity's. */
static inline uint16_t ref_narrow_bf16(uint32_t x) {
    uint32_t magnitude = x & ~REF_SIGN;
    if (magnitude < REF_ONE)
        return (uint16_t)((x & REF_SIGN) >> 16);
    if (magnitude > REF_INFINITY)
        return (uint16_t)((x | REF_QUIET) >> 16);
    return (uint16_t)ref_round_shift(x, 16);
}

/* F16 has 13 bits less of fraction, and exponents that are 127 - 15 = 112 less. */
static inline uint32_t ref_widen_f16(uint16_t x) {
    uint32_t sign = (uint32_t)(x & 0x8000) << 16, exponent = x >> 10 & 0x1f, fraction = x & 0x3ff;
    if (exponent == 0x1f)
        return sign | REF_INFINITY | (fraction ? REF_QUIET : 0) | fraction << 13;
    if (exponent > 0)
        return sign | (exponent + 112) << 23 | fraction << 13;
    if (fraction == 0)
        return sign;
    /* Denormal: fraction * 2^-24. Bit 10 would be the leading one of 2^-14, whose exponent in a float is 113. */
    exponent = 113;
    for (; !(fraction & 0x400); fraction *= 2)
        exponent--;
    return sign | exponent << 23 | (fraction & 0x3ff) << 13;
}

static inline uint16_t ref_narrow_f16(uint32_t x) {
    uint32_t magnitude = x & ~REF_SIGN, exponent = magnitude >> 23, sign = (x & REF_SIGN) >> 16, y;
    if (magnitude > REF_INFINITY)
        y = 0x7e00 | (magnitude & REF_FRACTION) >> 13;
    else if (exponent > 127 + 15)
        y = 0x7c00;
    else if (exponent >= 127 - 14)
        y = ref_round_shift(magnitude - (UINT32_C(112) << 23), 13); /* as in BF16, up to infinity */
    else if (exponent >= 127 - 25)
        y = ref_round_shift((magnitude & REF_FRACTION) | REF_ONE, 126 - exponent); /* in units of 2^-24 */
    else
        y = 0; /* less than half a unit */
    return (uint16_t)(sign | y);
}

/* The first half of an F16. */
static inline uint32_t ref_widen_e5m2(uint8_t x) {
    return ref_widen_f16((uint16_t)(x << 8));
}

/* Exponents are 127 - 7 = 120 less than a float's. The largest one is of numbers too, but where the fraction is 7. */
static inline uint32_t ref_widen_e4m3(uint8_t x) {
    uint32_t sign = (uint32_t)(x & 0x80) << 24, exponent = x >> 3 & 0xf, fraction = x & 7;
    if (exponent == 0xf && fraction == 7)
        return sign | REF_INFINITY | fraction << 20;
    if (exponent > 0)
        return sign | (exponent + 120) << 23 | fraction << 20;
    if (fraction == 0)
        return sign;
    /* Denormal: fraction * 2^-9. Bit 3 would be the leading one of 2^-6, whose exponent in a float is 121. */
    exponent = 121;
    for (; !(fraction & 8); fraction *= 2)
        exponent--;
    return sign | exponent << 23 | (fraction & 7) << 20;
}

/* A float to a byte that has so many bits of fraction; `largest` is the largest number as a float, `nan` the byte of
 * a NaN, to which the upper bits of the fraction come. Exponents are 127 - bias less. */
static inline uint8_t ref_narrow_f8(uint32_t x, unsigned fraction_bits, unsigned bias, uint32_t largest, uint8_t nan) {
    uint32_t magnitude = x & ~REF_SIGN, exponent = magnitude >> 23, sign = (x & REF_SIGN) >> 24, y;
    unsigned shift = 23 - fraction_bits, lowest = 128 - bias; /* lowest: of normal numbers, as a float has it */
    if (magnitude > REF_INFINITY)
        y = nan | (magnitude & REF_FRACTION) >> shift;
    else if (magnitude > largest)
        y = ref_round_shift(largest - ((127 - bias) << 23), shift);
    else if (exponent >= lowest)
        y = ref_round_shift(magnitude - ((127 - bias) << 23), shift);
    else if (exponent + fraction_bits + 1 >= lowest)
        y = ref_round_shift((magnitude & REF_FRACTION) | REF_ONE, shift + lowest - exponent); /* units of a denormal */
    else
        y = 0; /* less than half a unit */
    return (uint8_t)(sign | y);
}

static inline uint8_t ref_narrow_e4m3(uint32_t x) {
    return ref_narrow_f8(x, 3, 7, UINT32_C(0x43e00000), 0x7f); /* 448 */
}

static inline uint8_t ref_narrow_e5m2(uint32_t x) {
    return ref_narrow_f8(x, 2, 15, UINT32_C(0x47600000), 0x7e); /* 57344 */
}

#endif
