/* Numbers of 8 bits from and to floats: E4M3 and E5M2. */
#ifndef ATTN_BODY_F8_H
#define ATTN_BODY_F8_H

#include "vec.h"

/* E5M2 is the upper half of an F16. */
INLINE vec vec_from_e5m2(const int8_t *p) {
    return vec_from_f16(vec_u16_shift_left(vec_load_s8_u16(p), 8));
}

/* All bits but the sign moved to those of an F16 are the number divided by 2^8, denormal ones too, which a processor
 * converts from F16 as fast as others. What would be 480 is NaN. */
INLINE vec vec_from_e4m3(const int8_t *p) {
    const int32_t largest = 0x43e00000, infinity = 0x7f800000; /* 448 */
    vec x = vec_mul(vec_from_f16(vec_u16_and(vec_u16_shift_left(vec_load_s8_u16(p), 7), 0xbf80)), vec_set(256.0f));
    vec_int bits = vec_bits(x), magnitude = vec_int_and(bits, vec_int_set(INT32_MAX));
    vec_mask nan = vec_int_greater(magnitude, vec_int_set(largest));
    return vec_select(nan, vec_from_bits(vec_int_or(bits, vec_int_set(infinity))), x);
}

/* x in the mask, other outside. */
INLINE vec_int vec_int_select(vec_mask mask, vec_int x, vec_int other) {
    return vec_bits(vec_select(mask, vec_from_bits(x), vec_from_bits(other)));
}

/* NAME(x): a register of floats as bytes, in the lowest bits of each lane. `fraction` bits of fraction, exponents
 * 127 - bias less, `largest` the largest number's bits as a float, `nan` those of a NaN to which its fraction comes.
 * Numbers are rounded as integers, and denormal results by a sum with 2^23 of their units. Shifts must be constants. */
#define VEC_TO_F8(NAME, fraction, bias, largest, nan)                                                                  \
    INLINE vec_int NAME(vec x) {                                                                                       \
        enum { SHIFT = 23 - fraction, REBIAS = (127 - bias) << 23, LOWEST = (128 - bias) << 23 };                      \
        enum { UNITS = (127 + 23 + 1 - bias - fraction) << 23, INFINITY_BITS = 0x7f800000 };                           \
        vec_int bits = vec_bits(x), magnitude = vec_int_and(bits, vec_int_set(INT32_MAX));                             \
        vec_mask is_nan = vec_int_greater(magnitude, vec_int_set(INFINITY_BITS));                                      \
        vec_int left = vec_int_and(vec_int_shift_right(magnitude, SHIFT), vec_int_set((1 << fraction) - 1));           \
        vec_mask is_beyond = vec_int_greater(magnitude, vec_int_set(largest));                                         \
        vec_int m = vec_int_select(is_beyond, vec_int_set(largest), magnitude);                                        \
        vec_int odd = vec_int_and(vec_int_shift_right(m, SHIFT), vec_int_set(1));                                      \
        vec_int normal = vec_int_add(vec_int_add(m, odd), vec_int_set((1 << (SHIFT - 1)) - 1 - REBIAS));               \
        vec_mask is_denormal = vec_int_greater(vec_int_set(LOWEST), m);                                                \
        vec_int small = vec_int_select(is_denormal, m, vec_int_set(0));                                                \
        vec sum = vec_add(vec_from_bits(small), vec_from_bits(vec_int_set(UNITS)));                                    \
        vec_int units = vec_int_sub(vec_bits(sum), vec_int_set(UNITS));                                                \
        vec_int y = vec_int_select(is_denormal, units, vec_int_shift_right(normal, SHIFT));                            \
        y = vec_int_select(is_nan, vec_int_or(left, vec_int_set(nan)), y);                                             \
        return vec_int_or(y, vec_int_and(vec_int_shift_right(bits, 24), vec_int_set(0x80)));                           \
    }
VEC_TO_F8(vec_to_e4m3, 3, 7, 0x43e00000, 0x7f)  /* 448 */
VEC_TO_F8(vec_to_e5m2, 2, 15, 0x47600000, 0x7e) /* 57344 */

#endif
