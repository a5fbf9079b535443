/* Pairs of bf16 for SVE with registers of 256 bits. */
#ifndef ATTN_SVE256_PAIRS_H
#define ATTN_SVE256_PAIRS_H

#include <string.h>

#include "vec.h"

#define PAIRS_NAME "sve256_bf16_by_fma_6x16"

/* As in tile.h: 12 accumulators and six registers of A, which a multiply-add by lane takes from the first eight
 * only. gcc gives these to accumulators, and copies A before each use, unless something clobbers them once. */
enum { ROWS = 6, COLS = 16, PAIR_TEMPORARIES = 1 };

#define PAIRS_RESERVE     __asm__ volatile("" : : : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7")

#define EACH_ROW_COUNT(X) X(1, 2) X(2, 2) X(3, 2) X(4, 2) X(5, 2) X(6, 2)

/* 8 or 16 chains of one or two rows. */
#define EACH_WIDE_TILE(X) X(1, 8) X(1, 4) X(2, 8)
#define ONE_ROW_TILES(X)  X(1, 8) X(1, 4) X(1, 2)
#define TWO_ROW_TILES(X)  X(2, 8) X(2, 2)

#define PAIRS_PACK        attn_sve256_gemm_f32.pack

INLINE vec pair_load_one(const float *a) {
    uint64_t pair;
    memcpy(&pair, a, sizeof pair);
    return svreinterpret_f32_u64(svdup_n_u64(pair));
}
INLINE vec pair_upper(vec unit) {
    return svreinterpret_f32_u32(svand_n_u32_x(ALL, svreinterpret_u32_f32(unit), 0xffff0000));
}
INLINE vec pair_lower(vec unit) {
    return svreinterpret_f32_u32(svlsl_n_u32_x(ALL, svreinterpret_u32_f32(unit), 16));
}
INLINE int pair_any(vec_mask mask) {
    return svptest_any(ALL, mask);
}
/* 8 bf16 of each row. */
INLINE vec pair_interleave(const void *even, const void *odd) {
    svuint32_t low = svld1uh_u32(ALL, even), high = svld1uh_u32(ALL, odd);
    return svreinterpret_f32_u32(svorr_u32_x(ALL, low, svlsl_n_u32_x(ALL, high, 16)));
}

#define TAILS 1

#include "body/pairs_fma_lanes.h"

#endif
