/* Units of two bf16 in NEON's registers, for pairs.h of each ISA that has them. */
#ifndef ATTN_NEON_UNITS_H
#define ATTN_NEON_UNITS_H

#include "vec.h"

INLINE int pair_any(vec_mask mask) {
    return vmaxvq_u32(mask) != 0;
}
/* 4 bf16 of each row. */
INLINE vec pair_interleave(const void *even, const void *odd) {
    uint16x4_t low, high;
    memcpy(&low, even, sizeof low);
    memcpy(&high, odd, sizeof high);
    return vreinterpretq_f32_u16(vcombine_u16(vzip1_u16(low, high), vzip2_u16(low, high)));
}

#endif
