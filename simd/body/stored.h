/* Elements that class F32 widens on their way into a product. */
#ifndef ATTN_BODY_STORED_H
#define ATTN_BODY_STORED_H

#include "body/f8.h"

INLINE size_t stored_bytes(const attn_type type) {
    return type == ATTN_F16 ? sizeof(uint16_t) : 1;
}

/* A register of them; `type` is a literal. */
INLINE vec stored_load(const attn_type type, const char *b) {
    if (type == ATTN_F16)
        return vec_from_f16(vec_load_u16((const uint16_t *)(const void *)b));
    const int8_t *bytes = (const int8_t *)(const void *)b;
    if (type == ATTN_INT8)
        return vec_from_int(vec_load_s8(bytes));
    return type == ATTN_F8_E4M3 ? vec_from_e4m3(bytes) : vec_from_e5m2(bytes);
}

#endif
