/* What pairs of bf16 have in common with and without VDPBF16PS. A unit that builds on this includes its own vec.h
 * first. */
#ifndef ATTN_AVX512_PAIR_REGISTERS_H
#define ATTN_AVX512_PAIR_REGISTERS_H

#include "vec.h"

#define TAILS 1

INLINE vec pair_join(vec_u16 even, vec_u16 odd) {
    __m512i low = _mm512_cvtepu16_epi32(even), high = _mm512_cvtepu16_epi32(odd);
    return _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}

/* 16 bf16 of each row. */
INLINE vec pair_interleave(const void *even, const void *odd) {
    return pair_join(vec_load_u16(even), vec_load_u16(odd));
}

/* The first n of each, the others 0. */
INLINE vec pair_interleave_first(size_t n, const void *even, const void *odd) {
    return pair_join(vec_load_u16_first(n, even), vec_load_u16_first(n, odd));
}

#endif
