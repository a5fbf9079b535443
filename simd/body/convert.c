/* Rows of floats from and to other types of elements, a register at a time, the end of a row in part of one. */
#include "body/bf16.h"
#include "body/objects.h"

INLINE vec from_u16(attn_type type, vec_u16 x) {
    return type == ATTN_BF16 ? vec_from_bf16(x) : vec_from_f16(x);
}

INLINE vec_u16 to_u16(attn_type type, vec x) {
    return type == ATTN_BF16 ? vec_to_bf16(x) : vec_to_f16(x);
}

/* `type` is a literal in every call, here and below: one loop for each. */
INLINE void widen_u16(const attn_type type, size_t n, const uint16_t *x, float *y) {
    size_t j = 0;
    for (; j + VEC_LANES <= n; j += VEC_LANES)
        vec_store(y + j, from_u16(type, vec_load_u16(x + j)));
    if (j < n)
        vec_store_first(n - j, y + j, from_u16(type, vec_load_u16_first(n - j, x + j)));
}

INLINE void narrow_u16(const attn_type type, size_t n, const float *x, uint16_t *y) {
    size_t j = 0;
    for (; j + VEC_LANES <= n; j += VEC_LANES)
        vec_store_u16(y + j, to_u16(type, vec_load(x + j)));
    if (j < n)
        vec_store_u16_first(n - j, y + j, to_u16(type, vec_load_first(n - j, x + j)));
}

INLINE void copy_floats(size_t n, const float *x, float *y) {
    for (size_t j = 0; j < n; j += VEC_LANES)
        vec_store_first(n - j, y + j, vec_load_first(n - j, x + j));
}

static void ISA_FN(widen)(attn_type type, size_t n, const void *x, float *y) {
    if (type == ATTN_BF16)
        widen_u16(ATTN_BF16, n, x, y);
    else if (type == ATTN_F16)
        widen_u16(ATTN_F16, n, x, y);
    else
        copy_floats(n, x, y);
}

static void ISA_FN(narrow)(attn_type type, size_t n, const float *x, void *y) {
    if (type == ATTN_BF16)
        narrow_u16(ATTN_BF16, n, x, y);
    else if (type == ATTN_F16)
        narrow_u16(ATTN_F16, n, x, y);
    else
        copy_floats(n, x, y);
}

static void ISA_FN(round_bf16)(size_t n, const float *x, float *y) {
    size_t j = 0;
    for (; j + VEC_LANES <= n; j += VEC_LANES)
        vec_store(y + j, vec_round_bf16(vec_load(x + j)));
    if (j < n)
        vec_store_first(n - j, y + j, vec_round_bf16(vec_load_first(n - j, x + j)));
}

const struct attn_convert_kernel ISA_OBJECT(convert) = {
    .name = ISA_NAME, .widen = ISA_FN(widen), .narrow = ISA_FN(narrow), .round_bf16 = ISA_FN(round_bf16)};
