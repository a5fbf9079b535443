/* Units of two bf16 in NEON's registers, for pairs.h of each ISA that has them. */
#ifndef ATTN_NEON_UNITS_H
#define ATTN_NEON_UNITS_H

#include "vec.h"

INLINE int pair_any(vec_mask mask) {
    return vmaxvq_u32(mask) != 0;
}
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
/* 4 bf16 of each row. */
INLINE vec pair_interleave(const void *even, const void *odd) {
    uint16x4_t low, high;
    memcpy(&low, even, sizeof low);
    memcpy(&high, odd, sizeof high);
    return vreinterpretq_f32_u16(vcombine_u16(vzip1_u16(low, high), vzip2_u16(low, high)));
}

#endif
