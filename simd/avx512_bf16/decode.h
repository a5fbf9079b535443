/* Decode for AVX-512 with VDPBF16PS: what simd/body/decode_pairs.c takes at once. What is fetched ahead is AVX-512's. */
#ifndef ATTN_AVX512_BF16_DECODE_H
#define ATTN_AVX512_BF16_DECODE_H

#include "../avx512/decode.h"

/* Chains of pairs are longer than those of floats: one panel of keys is 0.88 times as fast as two where they lie in
 * L2. */
enum { PAIR_PANELS_1 = 2, PAIR_PANELS_2 = 2 };
/* Those of six registers, say, are four and two; in place eight of one row are 1.35 times as fast as four from memory. */
#define EACH_PAIR_WIDTH_2(X, rows) X(rows, 1) X(rows, 2) X(rows, 4)
#define EACH_PAIR_WIDTH_1(X, rows) EACH_PAIR_WIDTH_2(X, rows) X(rows, 8)
#define EACH_PAIR_WIDTH_4(X, rows) EACH_PAIR_WIDTH_2(X, rows)

#define PAIRS_IN_PLACE

#endif
