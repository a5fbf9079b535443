/* Pairs of bf16 for VDPBF16PS, which multiplies and adds 16 of them. It takes denormal numbers for 0 whatever the
 * thread's control bits say; these are for the products of starts. */
#ifndef ATTN_AVX512_BF16_PAIRS_H
#define ATTN_AVX512_BF16_PAIRS_H

#include <string.h>

#include "vec.h"

#include "../avx512/pair_registers.h"
#include "body/flush_x86.h"

#define PAIRS_NAME "avx512_bf16_14x32"

/* As the tile of class F32: 28 accumulators, 16 loads for 28 instructions. */
enum { ROWS = 14, COLS = 32 };

#define EACH_ROW_COUNT(X)                                                                                              \
    X(1, 2)                                                                                                            \
    X(2, 2) X(3, 2) X(4, 2) X(5, 2) X(6, 2) X(7, 2) X(8, 2) X(9, 2) X(10, 2) X(11, 2) X(12, 2) X(13, 2) X(14, 2)

extern const struct attn_gemm_kernel attn_avx512_gemm_f32;
#define PAIRS_PACK  attn_avx512_gemm_f32.pack

#define PAIRS_FLUSH 1

#define PAIR_A      uint16_t
#define PAIR_A_TYPE ATTN_BF16

enum { PAIR_STEPS = 1, NARROWS = 1 };

INLINE void pair_store_narrow(vec_tail tail, uint16_t *c, vec x) {
    _mm256_mask_storeu_epi16(c, tail, (__m256i)_mm512_cvtneps_pbh(x));
}

/* part: 0 the whole pair, 1 its second half only, 2 its first half only. */
INLINE vec pair_b(vec unit, const int s, const int part) {
    (void)s;
    if (part == 0)
        return unit;
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_castps_si512(unit), _mm512_set1_epi32(part == 1 ? (int)0xffff0000 : 0xffff)));
}

INLINE vec pair_b_few(vec unit, const int s) {
    (void)s;
    return unit;
}

INLINE vec pair_a(const uint16_t *a, const int s, const int part) {
    (void)s;
    uint32_t pair = 0;
    memcpy(&pair, a, part == 0 ? sizeof pair : sizeof *a);
    return _mm512_castsi512_ps(_mm512_set1_epi32((int)(part == 1 ? pair << 16 : pair)));
}

/* A register of elements of A, from probabilities. */
INLINE void pair_store_a(uint16_t *p, vec x) {
    _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(x));
}

INLINE vec pair_multiply_add(vec a, vec b, vec acc) {
#ifdef __clang__ /* clang 16 ends in a segmentation fault where the intrinsic's operands come from broadcasts */
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
#else
    return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
#endif
}

#endif
