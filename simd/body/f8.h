/* Numbers of 8 bits from and to floats: E4M3 and E5M2. */
#ifndef ATTN_BODY_F8_H
#define ATTN_BODY_F8_H

#include "vec.h"

/* Both widen bytes to F16, which a processor converts to floats, denormal numbers as fast as others. `n` registers, 1
 * or 2, a literal: two take as many operations on F16 as one. */

/* E5M2 is the upper half of an F16. */
INLINE void vec_from_e5m2(const int8_t *p, vec *x, const int n) {
    vec_f16s_widen(vec_u16s_shift_left(vec_u16s_load_s8(p, n), 8), x, n);
}

/* Moved by 7 bits a number is an F16 of 2^-8 times its value, but that the sign is in bit 14 too. One unit more carries
 * into that bit where all bits of the magnitude are ones, which is NaN: so the sum's bit 14 is to be taken away, and
 * what is left of it is the exponent of an F16's NaN. */
INLINE void vec_from_e4m3(const int8_t *p, vec *x, const int n) {
    vec_u16s moved = vec_u16s_shift_left(vec_u16s_load_s8(p, n), 7);
    vec_f16s_widen(vec_u16s_flip(moved, vec_u16s_add(moved, 1 << 7), 1 << 14), x, n);
    UNROLL for (int i = 0; i < n; i++) x[i] = vec_mul(x[i], vec_set(256.0f));
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
