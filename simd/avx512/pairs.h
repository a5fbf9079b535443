/* Pairs of bf16 for AVX-512 without an instruction for them. */
#ifndef ATTN_AVX512_PAIRS_H
#define ATTN_AVX512_PAIRS_H

#include "vec.h"

#include "body/flush_x86.h"
#include "pair_registers.h"

#define PAIRS_NAME "avx512_bf16_by_fma_14x32"

/* As in tile.h; the two halves of B take turns in the same registers. */
enum { ROWS = 14, COLS = 32 };

#define EACH_ROW_COUNT(X)                                                                                              \
    X(1, 2)                                                                                                            \
    X(2, 2) X(3, 2) X(4, 2) X(5, 2) X(6, 2) X(7, 2) X(8, 2) X(9, 2) X(10, 2) X(11, 2) X(12, 2) X(13, 2) X(14, 2)

#define PAIRS_PACK attn_avx512_gemm_f32.pack

/* The mask comes from memory each time: with it gcc would want a 33rd register. */
INLINE vec pair_upper(vec unit) {
    static const int32_t mask = -0x10000;
    __asm__("vpandd %1%{1to16%}, %0, %0" : "+v"(unit) : "m"(mask));
    return unit;
}
INLINE vec pair_upper_few(vec unit) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(unit), _mm512_set1_epi32((int)0xffff0000)));
}
INLINE vec pair_lower(vec unit) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(unit), 16));
}
#include "body/pairs_fma.h"

#endif
