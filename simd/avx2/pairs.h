/* Pairs of bf16 for AVX2. */
#ifndef ATTN_AVX2_PAIRS_H
#define ATTN_AVX2_PAIRS_H

#include "vec.h"

#include "body/flush_x86.h"

#define PAIRS_NAME "avx2_bf16_by_fma_6x16"

/* 12 accumulators, two halves of B, one element of A: 15 of 16 registers. */
enum { ROWS = 6, COLS = 16 };

#define EACH_ROW_COUNT(X) X(1, 2) X(2, 2) X(3, 2) X(4, 2) X(5, 2) X(6, 2)

#define PAIRS_PACK        attn_avx2_gemm_f32.pack

/* The mask comes from memory each time: kept in a register it would be the 17th. */
INLINE vec pair_upper(vec unit) {
    static const int32_t mask[VEC_LANES]
        __attribute__((aligned(32))) = {-0x10000, -0x10000, -0x10000, -0x10000, -0x10000, -0x10000, -0x10000, -0x10000};
    __asm__("vandps %1, %0, %0" : "+x"(unit) : "m"(mask));
    return unit;
}
INLINE vec pair_upper_few(vec unit) {
    return _mm256_castsi256_ps(_mm256_blend_epi16(_mm256_setzero_si256(), _mm256_castps_si256(unit), 0xaa));
}
INLINE vec pair_lower(vec unit) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(unit), 16));
}
/* 8 bf16 of each row. */
INLINE vec pair_interleave(const void *even, const void *odd) {
    __m256i low = _mm256_cvtepu16_epi32(_mm_loadu_si128(even)), high = _mm256_cvtepu16_epi32(_mm_loadu_si128(odd));
    return _mm256_castsi256_ps(_mm256_or_si256(low, _mm256_slli_epi32(high, 16)));
}

#define TAILS 0

/* Shifts and masks share ports with the multiply-adds. */
#define PAIRS_WIDE

#include "body/pairs_fma.h"

/* clang puts sums into the registers of products, and has too few of them for eight sums. */
#ifdef __clang__
INLINE vec pair_multiply_add_in_place(vec a, vec b, vec acc) {
    __asm__("vfmadd231ps %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b));
    return acc;
}
#define pair_multiply_add pair_multiply_add_in_place
#endif

#endif
