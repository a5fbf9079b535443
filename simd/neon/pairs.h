/* Pairs of bf16 for NEON. */
#ifndef ATTN_NEON_PAIRS_H
#define ATTN_NEON_PAIRS_H

#include "units.h"
#include "vec.h"

#define PAIRS_NAME "neon_bf16_by_fma_6x16"

/* As in tile.h: 24 accumulators and six registers of A. That leaves one for B and one for the mask of its upper
 * halves. */
enum { ROWS = 6, COLS = 16, PAIR_TEMPORARIES = 2 };

#define PAIRS_RESERVE     ((void)0)

#define EACH_ROW_COUNT(X) X(1, 4) X(2, 4) X(3, 4) X(4, 4) X(5, 4) X(6, 4)

/* 16 chains of one or two rows. */
#define EACH_WIDE_TILE(X) X(1, 16) X(1, 8) X(2, 8)
#define ONE_ROW_TILES(X)  X(1, 16) X(1, 8) X(1, 4)
#define TWO_ROW_TILES(X)  X(2, 8) X(2, 4)

#define PAIRS_PACK        attn_neon_gemm_f32.pack

INLINE vec pair_load_one(const float *a) {
    return vcombine_f32(vld1_f32(a), vdup_n_f32(0.0f));
}
INLINE vec pair_upper(vec unit) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(unit), vdupq_n_u32(0xffff0000)));
}
INLINE vec pair_lower(vec unit) {
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(unit), 16));
}

#define TAILS 0

#include "body/pairs_fma_lanes.h"

#endif
