/* Fours of bytes for VPDPBUSD: the first bytes are unsigned, so that B's are made so. */
#ifndef ATTN_AVX2_VNNI_QUADS_H
#define ATTN_AVX2_VNNI_QUADS_H

#include "kernels.h"
#include "vec.h"

#include "../avx2/quad_registers.h"

#define QUADS_NAME "avx2_vnni_int8_6x16"

/* 12 accumulators, two registers of B, one of A: 15 of 16 registers. */
enum { ROWS = 6, COLS = 16, QUAD_FLIP = 0x80, QUAD_FOLDS = 6 };

#define EACH_ROW_COUNT(X) X(1, 2) X(2, 2) X(3, 2) X(4, 2) X(5, 2) X(6, 2)

typedef __m256i quad_left, quad_right;

INLINE quad_left quad_a(const void *p) {
    return quad_repeat(p);
}

INLINE quad_right quad_b(const void *p) {
    return _mm256_loadu_si256(p);
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

INLINE vec_int quad_multiply_add_positive(vec_int a, vec_int b, vec_int acc) {
    return quad_multiply_add(a, b, acc);
}
#endif
