/* Fours of bytes for VPDPBUSD: the first bytes are unsigned, so that B's are made so. */
#ifndef ATTN_AVX512_VNNI_QUADS_H
#define ATTN_AVX512_VNNI_QUADS_H

#include "kernels.h"
#include "vec.h"

#include "../avx512/quad_registers.h"

#define QUADS_NAME "avx512_vnni_int8_8x32"

/* 16 accumulators. A step is 16 instructions for them and 12 loads, and two of each are done in a cycle: more rows gain
 * nothing. Where blocks are folded, 14 and as many totals. */
enum { ROWS = 8, COLS = 32, QUAD_FLIP = 0x80, QUAD_FOLDS = 7 };

#define EACH_ROW_COUNT(X) X(1, 2) X(2, 2) X(3, 2) X(4, 2) X(5, 2) X(6, 2) X(7, 2) X(8, 2)

typedef __m512i quad_left, quad_right;

INLINE quad_left quad_a(const void *p) {
    return quad_repeat(p);
}

INLINE quad_right quad_b(const void *p) {
    return _mm512_loadu_si512(p);
}

INLINE vec_int quad_multiply_add(quad_left a, quad_right b, vec_int acc) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(b), "v"(a)); /* gcc 12 copies acc with the intrinsic */
    return acc;
}

/* ---- For gemm_int4.c ---- */

#define INT4_NAME "avx512_vnni_int4_8x32"

/* 16 accumulators, two units and their halves, a mask, A. */
enum { INT4_ROWS = 8 };

#define EACH_INT4_ROW_COUNT(X) X(1, 2) X(2, 2) X(3, 2) X(4, 2) X(5, 2) X(6, 2) X(7, 2) X(8, 2)

INLINE vec_int quad_multiply_add_positive(vec_int a, vec_int b, vec_int acc) {
    return quad_multiply_add(a, b, acc);
}
#endif
