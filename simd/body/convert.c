/* Rows of floats from and to other types of elements, a register at a time, the end of a row in part of one. */
#include <stdbool.h>
#include <string.h>

#include "body/bf16.h"
#include "body/f8.h"
#include "body/objects.h"
#include "body/stored.h"

INLINE vec_u16 to_u16(attn_type type, vec x) {
    return type == ATTN_BF16 ? vec_to_bf16(x) : vec_to_f16(x);
}

/* `type` is a literal in every call, here and below: one loop for each. */
INLINE void widen_u16(const attn_type type, size_t n, const uint16_t *x, float *y) {
    size_t j = 0;
    for (; j + VEC_LANES <= n; j += VEC_LANES)
        vec_store(y + j, vec_from_u16(type, vec_load_u16(x + j)));
    if (j < n)
        vec_store_first(n - j, y + j, vec_from_u16(type, vec_load_u16_first(n - j, x + j)));
}

#ifdef VEC_U16_TWO
/* Two registers to BF16. Denormal numbers and NaN, which bf16_sum is not for, are looked for in both at once. */
INLINE void narrow_two(vec a, vec b, uint16_t *y) {
    if (__builtin_expect(vec_any_extreme(a, b), 0))
        vec_store_upper_two(y, bf16_bits(a), bf16_bits(b));
    else
        vec_store_upper_two(y, bf16_sum(a), bf16_sum(b));
}
#endif

/* x, or normalized: times a factor, and -0 made +0. */
INLINE vec normalized(vec x, const bool normalizes, vec factor) {
    return normalizes ? vec_add(vec_mul(x, factor), vec_zero()) : x;
}

INLINE void narrow_u16(const attn_type type, size_t n, const float *x, uint16_t *y, const bool normalizes, vec factor) {
    size_t j = 0;
#ifdef VEC_U16_TWO
    for (; type == ATTN_BF16 && j + 2 * VEC_LANES <= n; j += 2 * VEC_LANES)
        narrow_two(normalized(vec_load(x + j), normalizes, factor),
                   normalized(vec_load(x + j + VEC_LANES), normalizes, factor), y + j);
#endif
    for (; j + VEC_LANES <= n; j += VEC_LANES)
        vec_store_u16(y + j, to_u16(type, normalized(vec_load(x + j), normalizes, factor)));
    if (j < n)
        vec_store_u16_first(n - j, y + j, to_u16(type, normalized(vec_load_first(n - j, x + j), normalizes, factor)));
}

INLINE void store_widened(const attn_type type, const int8_t *x, float *y, const int registers) {
    vec widened[2];
    stored_load(type, (const char *)x, widened, registers);
    UNROLL for (int i = 0; i < registers; i++) vec_store(y + i * VEC_LANES, widened[i]);
}

/* The end of a row of bytes goes through memory of a register's width. */
INLINE void widen_s8(const attn_type type, size_t n, const int8_t *x, float *y) {
    const int most = stored_at_once(type, 2);
    int8_t last[VEC_LANES] = {0};
    size_t j = 0;
    for (; j + (size_t)most * VEC_LANES <= n; j += (size_t)most * VEC_LANES)
        store_widened(type, x + j, y + j, most);
    for (; j + VEC_LANES <= n; j += VEC_LANES)
        store_widened(type, x + j, y + j, 1);
    if (j == n)
        return;
    vec rest;
    memcpy(last, x + j, n - j);
    stored_load(type, (const char *)last, &rest, 1);
    vec_store_first(n - j, y + j, rest);
}

INLINE vec_int to_s8(attn_type type, vec x) {
    return type == ATTN_F8_E4M3 ? vec_to_e4m3(x) : vec_to_e5m2(x);
}

INLINE void narrow_s8(const attn_type type, size_t n, const float *x, int8_t *y) {
    int8_t last[VEC_LANES];
    size_t j = 0;
    for (; j + VEC_LANES <= n; j += VEC_LANES)
        vec_store_s8(y + j, to_s8(type, vec_load(x + j)));
    if (j == n)
        return;
    vec_store_s8(last, to_s8(type, vec_load_first(n - j, x + j)));
    memcpy(y + j, last, n - j);
}

INLINE void copy_floats(size_t n, const float *x, float *y) {
    for (size_t j = 0; j < n; j += VEC_LANES)
        vec_store_first(n - j, y + j, vec_load_first(n - j, x + j));
}

/* Out of line, so that short rows do not wait for what the other types take of the stack. */
static __attribute__((noinline)) void ISA_FN(widen_bf16)(size_t n, const uint16_t *x, float *y) {
    widen_u16(ATTN_BF16, n, x, y);
}

static __attribute__((noinline)) void ISA_FN(narrow_bf16)(size_t n, const float *x, uint16_t *y) {
    narrow_u16(ATTN_BF16, n, x, y, false, vec_zero());
}

static __attribute__((noinline)) void ISA_FN(widen_others)(attn_type type, size_t n, const void *x, float *y) {
    if (type == ATTN_F16)
        widen_u16(ATTN_F16, n, x, y);
    else if (type == ATTN_F8_E4M3)
        widen_s8(ATTN_F8_E4M3, n, x, y);
    else if (type == ATTN_F8_E5M2)
        widen_s8(ATTN_F8_E5M2, n, x, y);
    else if (type == ATTN_INT8)
        widen_s8(ATTN_INT8, n, x, y);
    else
        copy_floats(n, x, y);
}

static void ISA_FN(widen)(attn_type type, size_t n, const void *x, float *y) {
    if (type == ATTN_BF16)
        ISA_FN(widen_bf16)(n, x, y);
    else
        ISA_FN(widen_others)(type, n, x, y);
}

static void ISA_FN(narrow)(attn_type type, size_t n, const float *x, void *y) {
    if (type == ATTN_BF16)
        ISA_FN(narrow_bf16)(n, x, y);
    else if (type == ATTN_F16)
        narrow_u16(ATTN_F16, n, x, y, false, vec_zero());
    else if (type == ATTN_F8_E4M3)
        narrow_s8(ATTN_F8_E4M3, n, x, y);
    else if (type == ATTN_F8_E5M2)
        narrow_s8(ATTN_F8_E5M2, n, x, y);
    else
        copy_floats(n, x, y);
}

INLINE void normalize_rows(const attn_type type, const struct attn_normalize_args *args) {
    const float *x = args->output;
    uint16_t *y = args->out;
    for (size_t r = 0; r < args->rows; r++, x += args->output_stride, y += args->out_stride)
        narrow_u16(type, args->size, x, y, true, vec_set(args->inverse[r]));
}

static void ISA_FN(normalize)(attn_type type, const struct attn_normalize_args *args) {
    if (type == ATTN_BF16)
        normalize_rows(ATTN_BF16, args);
    else
        normalize_rows(ATTN_F16, args);
}

static void ISA_FN(round_bf16)(size_t n, const float *x, float *y) {
    size_t j = 0;
    for (; j + VEC_LANES <= n; j += VEC_LANES)
        vec_store(y + j, vec_round_bf16(vec_load(x + j)));
    if (j < n)
        vec_store_first(n - j, y + j, vec_round_bf16(vec_load_first(n - j, x + j)));
}

const struct attn_convert_kernel ISA_OBJECT(convert) = {.name = ISA_NAME,
                                                        .widen = ISA_FN(widen),
                                                        .narrow = ISA_FN(narrow),
                                                        .normalize = ISA_FN(normalize),
                                                        .round_bf16 = ISA_FN(round_bf16)};
