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

#endif
