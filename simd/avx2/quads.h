/* Fours of bytes for AVX2 without an instruction for them. */
#ifndef ATTN_AVX2_QUADS_H
#define ATTN_AVX2_QUADS_H

#include "kernels.h"
#include "quad_registers.h"

#define QUADS_NAME "avx2_int8_by_words_4x16"

/* 8 accumulators, two registers for each of B, a constant, A and what it becomes: 15 of 16 registers. */
enum { ROWS = 4, COLS = 16, QUAD_FLIP = 0, QUAD_FOLDS = 4 };

#define EACH_ROW_COUNT(X) X(1, 2) X(2, 2) X(3, 2) X(4, 2)

typedef __m256i quad_left;
typedef struct {
    __m256i magnitude, b; /* magnitudes are unsigned: that of -128 is 128 */
} quad_right;

INLINE quad_left quad_a(const void *p) {
    return quad_repeat(p);
}

/* Or gcc adds products to each other first, and has too few registers. */
INLINE vec_int quad_settle(vec_int acc) {
    __asm__("" : "+x"(acc));
    return acc;
}

INLINE quad_right quad_b(const void *p) {
    __m256i b = _mm256_loadu_si256(p);
    return (quad_right){_mm256_abs_epi8(b), b};
}

/* A's elements take the signs of B's. The sum of two products is at most 2 * 127 * 128 = 32,512: it fits into 16
 * bits, because A has no -128. */
INLINE vec_int quad_multiply_add(quad_left a, quad_right b, vec_int acc) {
    __m256i twos = _mm256_maddubs_epi16(b.magnitude, _mm256_sign_epi8(a, b.b));
    return quad_settle(_mm256_add_epi32(acc, _mm256_madd_epi16(twos, _mm256_set1_epi16(1))));
}

/* ---- For gemm_int4.c ---- */

#define INT4_NAME "avx2_int4_by_words_3x16"

/* 6 accumulators, two units and their halves, a mask, A. */
enum { INT4_ROWS = 3 };

#define EACH_INT4_ROW_COUNT(X) X(1, 2) X(2, 2) X(3, 2)

INLINE vec_int quad_multiply_add_positive(vec_int a, vec_int b, vec_int acc) {
    return quad_settle(_mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(b, a), _mm256_set1_epi16(1))));
}
/* ---- For quantise.c ---- */

INLINE vec_int quad_round(vec x) {
    return vec_to_int(x);
}
INLINE void quad_store(int8_t *p, vec_int i) {
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(words, words));
}
/* Of four registers. Packing interleaves their halves. */
INLINE void quad_store_four(int8_t *p, const vec_int i[4]) {
    __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i words[] = {_mm256_packs_epi32(i[0], i[1]), _mm256_packs_epi32(i[2], i[3])};
    __m256i bytes = _mm256_packs_epi16(words[0], words[1]);
    _mm256_storeu_si256((__m256i *)p, _mm256_permutevar8x32_epi32(bytes, order));
}
INLINE int32_t quad_lane_sum(vec_int i) {
    __m128i t4 = _mm_add_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
    __m128i t2 = _mm_add_epi32(t4, _mm_shuffle_epi32(t4, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(t2, _mm_shuffle_epi32(t2, 0xb1)));
}
/* Of magnitudes of numbers. */
INLINE float quad_lane_max(vec_magnitude m) {
    return vec_lane_max(_mm256_castsi256_ps(m));
}

#endif
