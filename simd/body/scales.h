/* Scales of blocks of INT4 and INT8, of type F16 or F32: those of a panel's columns lie side by side. */
#ifndef ATTN_BODY_SCALES_H
#define ATTN_BODY_SCALES_H

#include "vec.h"

INLINE size_t scale_bytes(attn_type type) {
    return type == ATTN_F16 ? sizeof(uint16_t) : sizeof(float);
}

/* Those of a register's columns. */
INLINE vec scales_load(attn_type type, const void *p) {
    return type == ATTN_F16 ? vec_from_f16(vec_load_u16(p)) : vec_load(p);
}

#endif
