/* Elements that class F32 widens on their way into a product. */
#ifndef ATTN_BODY_STORED_H
#define ATTN_BODY_STORED_H

#include "body/f8.h"

INLINE size_t stored_bytes(const attn_type type) {
    return type == ATTN_F16 ? sizeof(uint16_t) : 1;
}

/* How many registers of a row of `registers` are widened at once. `type` is a literal, here and below. */
INLINE int stored_at_once(const attn_type type, const int registers) {
    return (type == ATTN_F8_E4M3 || type == ATTN_F8_E5M2) && registers % 2 == 0 ? 2 : 1;
}

/* n registers of them, at most as many as are widened at once. */
INLINE void stored_load(const attn_type type, const char *b, vec *x, const int n) {
    const int8_t *bytes = (const int8_t *)(const void *)b;
    if (type == ATTN_F16)
        *x = vec_from_f16(vec_load_u16((const uint16_t *)(const void *)b));
    else if (type == ATTN_INT8)
        *x = vec_from_int(vec_load_s8(bytes));
    else if (type == ATTN_F8_E4M3)
        vec_from_e4m3(bytes, x, n);
    else
        vec_from_e5m2(bytes, x, n);
}

#endif
