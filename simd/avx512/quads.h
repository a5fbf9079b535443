/* Fours of bytes for AVX-512 without an instruction for them. */
#ifndef ATTN_AVX512_QUADS_H
#define ATTN_AVX512_QUADS_H

#include <string.h>

#include "kernels.h"
#include "quad_registers.h"

#define QUADS_NAME "avx512_int8_by_words_8x32"

/* 16 accumulators; two registers for each of B, a constant. */
enum { ROWS = 8, COLS = 32, QUAD_FLIP = 0, QUAD_FOLDS = 6 };

#define EACH_ROW_COUNT(X) X(1, 2) X(2, 2) X(3, 2) X(4, 2) X(5, 2) X(6, 2) X(7, 2) X(8, 2)

typedef __m512i quad_left;
typedef struct {
    __m512i magnitude; /* unsigned: that of -128 is 128 */
    __mmask64 negative;
} quad_right;

INLINE quad_left quad_a(const void *p) {
    return quad_repeat(p);
}

/* Or gcc adds products to each other first, and has too few registers. */
INLINE vec_int quad_settle(vec_int acc) {
    __asm__("" : "+v"(acc));
    return acc;
}

INLINE quad_right quad_b(const void *p) {
    __m512i b = _mm512_loadu_si512(p);
    return (quad_right){_mm512_abs_epi8(b), _mm512_movepi8_mask(b)};
}

/* A's elements take the signs of B's. The sum of two products is at most 2 * 127 * 128 = 32,512: it fits into 16
 * bits, because A has no -128. */
INLINE vec_int quad_multiply_add(quad_left a, quad_right b, vec_int acc) {
    __m512i with_sign = _mm512_mask_sub_epi8(a, b.negative, _mm512_setzero_si512(), a);
    __m512i twos = _mm512_maddubs_epi16(b.magnitude, with_sign);
    return quad_settle(_mm512_add_epi32(acc, _mm512_madd_epi16(twos, _mm512_set1_epi16(1))));
}

/* ---- For gemm_int4.c ---- */

#define INT4_NAME "avx512_int4_by_words_8x32"

/* 16 accumulators, two units and their halves, a mask, A. */
enum { INT4_ROWS = 8 };

#define EACH_INT4_ROW_COUNT(X) X(1, 2) X(2, 2) X(3, 2) X(4, 2) X(5, 2) X(6, 2) X(7, 2) X(8, 2)

INLINE vec_int quad_multiply_add_positive(vec_int a, vec_int b, vec_int acc) {
    return quad_settle(_mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(b, a), _mm512_set1_epi16(1))));
}
/* ---- For quantise.c ---- */

INLINE vec_int quad_round(vec x) {
    return vec_to_int(x);
}
INLINE void quad_store(int8_t *p, vec_int i) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(i));
}
/* Of four registers. Packing interleaves their quarters. */
INLINE void quad_store_four(int8_t *p, const vec_int i[4]) {
    __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i words[] = {_mm512_packs_epi32(i[0], i[1]), _mm512_packs_epi32(i[2], i[3])};
    _mm512_storeu_si512(p, _mm512_permutexvar_epi32(order, _mm512_packs_epi16(words[0], words[1])));
}
INLINE int32_t quad_lane_sum(vec_int i) {
    return _mm512_reduce_add_epi32(i);
}
/* Of magnitudes of numbers. */
INLINE float quad_lane_max(vec_magnitude m) {
    return _mm512_reduce_max_ps(_mm512_castsi512_ps(m));
}

#endif
