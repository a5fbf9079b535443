/* Registers of floats that hold numbers of BF16. No operation here raises an exception. */
#ifndef ATTN_BODY_BF16_H
#define ATTN_BODY_BF16_H

#include "attn/attn.h"
#include "vec.h"

/* x rounded to BF16, in the upper 16 bits of each lane; the lower ones are open. Half a unit less one is added, and
 * one more where the result would be odd, so that of two neighbours as near the even one is reached; a carry goes on
 * into the exponent, from the largest number to infinity's. Not for denormal x and NaN. */
INLINE vec_int bf16_sum(vec x) {
    vec_int bits = vec_bits(x), odd = vec_int_and(vec_int_shift_right(bits, 16), vec_int_set(1));
    return vec_int_add(vec_int_add(bits, vec_int_set(0x7fff)), odd);
}

/* The same of any x. */
INLINE vec_int bf16_bits(vec x) {
    vec_int bits = vec_bits(x), magnitude = vec_int_and(bits, vec_int_set(INT32_MAX));
    vec y = vec_from_bits(bf16_sum(x));
    vec zero = vec_from_bits(vec_int_and(bits, vec_int_set(INT32_MIN)));
    vec quiet = vec_from_bits(vec_int_or(bits, vec_int_set(0x00400000)));
    y = vec_select(vec_int_greater(vec_int_set(0x00800000), magnitude), zero, y);
    return vec_bits(vec_select(vec_int_greater(magnitude, vec_int_set(0x7f800000)), quiet, y));
}

/* x rounded to BF16. */
INLINE vec vec_round_bf16(vec x) {
    return vec_from_bits(vec_int_and(bf16_bits(x), vec_int_set((int32_t)0xffff0000)));
}

INLINE vec vec_from_bf16(vec_u16 x) {
    return vec_from_bits(vec_from_upper(x));
}

/* Of BF16 or F16. */
INLINE vec vec_from_u16(attn_type type, vec_u16 x) {
    return type == ATTN_BF16 ? vec_from_bf16(x) : vec_from_f16(x);
}

/* Rounds. */
#ifndef VEC_TO_BF16 /* an instruction with the same bits */
INLINE vec_u16 vec_to_bf16(vec x) {
    return vec_to_upper(bf16_bits(x));
}
#else
INLINE vec_u16 vec_to_bf16(vec x) {
    return VEC_TO_BF16(x);
}
#endif

/* Rounds a probability: none is below 0, -0 or NaN. */
INLINE vec_u16 vec_probability_to_bf16(vec x) {
    vec_mask is_normal = vec_int_greater(vec_bits(x), vec_int_set(0x007fffff));
    return vec_to_upper(bf16_sum(vec_select(is_normal, x, vec_zero())));
}

/* Rounds what is 0, a normal number above 0, or a quiet NaN. */
INLINE vec vec_round_probability(vec x) {
    vec y = vec_from_bits(bf16_sum(x));
    return vec_from_bits(vec_int_and(vec_bits(vec_select(vec_equal(x, x), y, x)), vec_int_set((int32_t)0xffff0000)));
}

#endif
