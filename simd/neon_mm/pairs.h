/* Pairs of bf16 for BFMLALT and BFMLALB: multiply-adds of the second and of the first elements of pairs, each
 * rounded once as FPCR says, which is what the class asks for. BFDOT and BFMMLA round sums of two products to odd,
 * and are not used. */
#ifndef ATTN_NEON_MM_PAIRS_H
#define ATTN_NEON_MM_PAIRS_H

#include <stdbool.h>
#include <string.h>

#include "vec.h"

#include "../neon/units.h"

#define PAIRS_NAME "neon_mm_bf16_6x16"

/* 24 accumulators, six registers of A, each four pairs, and two of B: all 32. */
enum { ROWS = 6, COLS = 16, PAIR_TEMPORARIES = 0 };

#define PAIRS_RESERVE     ((void)0)

#define EACH_ROW_COUNT(X) X(1, 4) X(2, 4) X(3, 4) X(4, 4) X(5, 4) X(6, 4)

/* 16 chains of one or two rows. */
#define EACH_WIDE_TILE(X) X(1, 16) X(1, 8) X(2, 8)
#define ONE_ROW_TILES(X)  X(1, 16) X(1, 8) X(1, 4)
#define TWO_ROW_TILES(X)  X(2, 8) X(2, 4)

extern const struct attn_gemm_kernel attn_neon_gemm_f32;
#define PAIRS_PACK attn_neon_gemm_f32.pack

#define PAIRS_BY_LANE
#define PAIR_A        uint16_t
#define PAIR_A_TYPE   ATTN_BF16
#define PAIRS_AT_ONCE 4

/* The instructions take halves of units by themselves, and A from the first 16 registers. */
#define pair_upper(unit) (unit)
#define pair_lower(unit) (unit)
#define pair_fma_second(acc, unit, a, n)                                                                               \
    __asm__ volatile("bfmlalt %0.4s, %1.8h, %2.h[" #n "]" : "+w"(acc) : "w"(unit), "x"(a))
#define pair_fma_first(acc, unit, a, n)                                                                                \
    __asm__ volatile("bfmlalb %0.4s, %1.8h, %2.h[" #n "]" : "+w"(acc) : "w"(unit), "x"(a))

#define TAILS 0

enum { NARROWS = 0 };

INLINE void pair_store_narrow(vec_tail tail, uint16_t *c, vec x) {
    (void)tail, (void)c, (void)x;
}

INLINE vec pair_load_a(const uint16_t *a) {
    return vreinterpretq_f32_u16(vld1q_u16(a));
}
INLINE vec pair_load_one(const uint16_t *a) {
    uint32_t pair;
    memcpy(&pair, a, sizeof pair);
    return vreinterpretq_f32_u32(vdupq_n_u32(pair));
}
INLINE vec pair_load_element(const uint16_t *a) {
    return vreinterpretq_f32_u16(vld1q_dup_u16(a));
}
INLINE float pair_float(uint16_t a) {
    uint32_t bits = (uint32_t)a << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* A register of elements of A, from probabilities. */
INLINE void pair_store_a(uint16_t *p, vec x) {
    bfloat16x4_t rounded = vcvt_bf16_f32(x);
    memcpy(p, &rounded, sizeof rounded);
}

#endif
