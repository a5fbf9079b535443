/* Fours of bytes for VPDPBUSD: the first bytes are unsigned, so that B's are made so. */
#ifndef ATTN_AVX2_VNNI_QUADS_H
#define ATTN_AVX2_VNNI_QUADS_H

#include <string.h>

#include "kernels.h"
#include "vec.h"

#define QUADS_NAME "avx2_vnni_int8_6x16"

/* 12 accumulators, two registers of B, one of A: 15 of 16 registers. */
enum { ROWS = 6, COLS = 16, QUAD_FLIP = 0x80 };

#define EACH_ROW_COUNT(X) X(1, 2) X(2, 2) X(3, 2) X(4, 2) X(5, 2) X(6, 2)

void attn_avx2_quantise(const struct attn_quantise_args *args);
#define QUADS_PACK_A attn_avx2_quantise

typedef __m256i quad_left, quad_right;

INLINE vec_int quad_repeat(const void *p) {
    int32_t quad;
    memcpy(&quad, p, sizeof quad);
    return _mm256_set1_epi32(quad);
}

INLINE quad_left quad_a(const void *p) {
    return quad_repeat(p);
}

INLINE quad_right quad_b(const void *p) {
    return _mm256_loadu_si256(p);
}

INLINE void quad_prefetch(const void *p) {
    _mm_prefetch((const char *)p, _MM_HINT_T0);
}

INLINE vec_int quad_multiply_add(quad_left a, quad_right b, vec_int acc) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(b), "x"(a)); /* gcc 12 copies acc with the intrinsic */
    return acc;
}

/* ---- For gemm_int4.c ---- */

#define INT4_NAME "avx2_vnni_int4_4x16"

/* 8 accumulators, two units and their halves, a mask, A. */
enum { INT4_ROWS = 4 };

#define EACH_INT4_ROW_COUNT(X) X(1, 2) X(2, 2) X(3, 2) X(4, 2)

INLINE vec_int quad_load(const void *p) {
    return _mm256_loadu_si256(p);
}
INLINE vec_int quad_load_bytes(const void *p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
INLINE vec_int quad_lower(vec_int unit) {
    return vec_int_and(unit, vec_int_set(0x0f0f0f0f));
}
INLINE vec_int quad_upper(vec_int unit) {
    return vec_int_and(_mm256_srli_epi32(unit, 4), vec_int_set(0x0f0f0f0f));
}
INLINE vec_int quad_multiply_add_positive(vec_int a, vec_int b, vec_int acc) {
    return quad_multiply_add(a, b, acc);
}
INLINE vec_int quad_word_products(vec_int a, vec_int b) {
    return _mm256_madd_epi16(a, b);
}

#endif
