/* Fours of bytes for NEON, and, with a multiply-add of its own, for an ISA that builds on it. */
#ifndef ATTN_NEON_QUADS_H
#define ATTN_NEON_QUADS_H

#include <string.h>

#include "kernels.h"
#include "vec.h"

void attn_neon_quantise(const struct attn_quantise_args *args);
#define QUADS_PACK_A attn_neon_quantise

enum { COLS = 8, QUAD_FLIP = 0, QUAD_FOLDS = 0 };

typedef int8x16_t quad_left, quad_right;

INLINE vec_int quad_load(const void *p) {
    return vreinterpretq_s32_s8(vld1q_s8(p));
}

INLINE vec_int quad_repeat(const void *p) {
    int32_t quad;
    memcpy(&quad, p, sizeof quad);
    return vdupq_n_s32(quad);
}

INLINE quad_left quad_a(const void *p) {
    return vreinterpretq_s8_s32(quad_repeat(p));
}

INLINE quad_right quad_b(const void *p) {
    return vld1q_s8(p);
}

INLINE void quad_prefetch(const void *p) {
    __builtin_prefetch(p);
}

#ifndef QUADS_NAME
#define QUADS_NAME "neon_int8_by_words_8x8"
#define INT4_NAME  "neon_int4_by_words_6x8"

/* 16 accumulators, two registers of B, one of A, products. */
enum { ROWS = 8, INT4_ROWS = 6 };

#define EACH_ROW_COUNT(X)      X(1, 2) X(2, 2) X(3, 2) X(4, 2) X(5, 2) X(6, 2) X(7, 2) X(8, 2)
#define EACH_INT4_ROW_COUNT(X) X(1, 2) X(2, 2) X(3, 2) X(4, 2) X(5, 2) X(6, 2)

/* A product is at most 127 * 128 in magnitude: it fits into 16 bits. */
INLINE vec_int quad_multiply_add(quad_left a, quad_right b, vec_int acc) {
    int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
    acc = vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
    __asm__ volatile("" : "+w"(acc)); /* or gcc adds products to each other first, and has too few registers */
    return acc;
}
#endif

/* ---- For gemm_int4.c ---- */

INLINE vec_int quad_load_bytes(const void *p) {
    uint32_t four;
    memcpy(&four, p, sizeof four);
    uint8x8_t bytes = vcreate_u8(four);
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))));
}
INLINE vec_int quad_lower(vec_int unit) {
    return vec_int_and(unit, vec_int_set(0x0f0f0f0f));
}
INLINE vec_int quad_upper(vec_int unit) {
    return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(unit), 4));
}

/* ---- For quantise.c ---- */

INLINE vec_int quad_round(vec x) {
    return vcvtnq_s32_f32(x);
}
INLINE void quad_store(int8_t *p, vec_int i) {
    int16x4_t words = vmovn_s32(i);
    int32_t bytes = vget_lane_s32(vreinterpret_s32_s8(vmovn_s16(vcombine_s16(words, words))), 0);
    memcpy(p, &bytes, sizeof bytes);
}
INLINE void quad_store_four(int8_t *p, const vec_int i[4]) {
    int16x8_t low = vcombine_s16(vmovn_s32(i[0]), vmovn_s32(i[1]));
    int16x8_t high = vcombine_s16(vmovn_s32(i[2]), vmovn_s32(i[3]));
    vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}
INLINE int32_t quad_lane_sum(vec_int i) {
    return vaddvq_s32(i);
}
/* Of magnitudes of numbers. */
INLINE float quad_lane_max(vec_magnitude m) {
    return vmaxvq_f32(vreinterpretq_f32_u32(m));
}

#define quad_multiply_add_positive(a, b, acc) quad_multiply_add(vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b), acc)
#define quad_word_products(a, b)              vmulq_s32(a, b)

#endif
