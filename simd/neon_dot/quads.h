/* Fours of bytes for SDOT. */
#ifndef ATTN_NEON_DOT_QUADS_H
#define ATTN_NEON_DOT_QUADS_H

#include "vec.h"

#define QUADS_NAME "neon_dot_int8_10x8"
#define INT4_NAME  "neon_dot_int4_8x8"

/* 20 accumulators, two registers of B, and what gcc loads of A ahead of its turn; with units of INT4 their halves
 * and a mask. */
enum { ROWS = 10, INT4_ROWS = 8 };

#define EACH_INT4_ROW_COUNT(X)       X(1, 2) X(2, 2) X(3, 2) X(4, 2) X(5, 2) X(6, 2) X(7, 2) X(8, 2)
#define EACH_ROW_COUNT(X)            EACH_INT4_ROW_COUNT(X) X(9, 2) X(10, 2)

#define quad_multiply_add(a, b, acc) vdotq_s32(acc, b, a)

#include "../neon/quads.h"

#endif
