/* Answers for a tile.h that has none of its own: few rows take panels as more do; and, where there are no far
 * panels, nothing of a panel is fetched ahead. */
#ifndef ATTN_BODY_GEMM_PLAIN_H
#define ATTN_BODY_GEMM_PLAIN_H

#include "body/gemm.h"

INLINE void fetch_block(const struct tile *t, const struct product *args) {
    (void)t, (void)args;
}

INLINE size_t widest_of(size_t widest, size_t rows, size_t k, size_t n) {
    (void)rows, (void)k, (void)n;
    return widest;
}

#ifdef NOTHING_AHEAD

INLINE size_t fetch_few(const struct tile *t, size_t rows, size_t vecs, size_t n) {
    (void)t, (void)rows, (void)vecs, (void)n;
    return 0;
}

INLINE size_t fetch_in_place(const struct tile *t) {
    (void)t;
    return 0;
}

INLINE bool is_far(const struct tile *t, size_t m) {
    (void)t, (void)m;
    return false;
}

INLINE size_t fetch_tile(const struct tile *t, size_t i, size_t count, size_t m, size_t n) {
    (void)t, (void)i, (void)count, (void)m, (void)n;
    return 0;
}

#endif

#endif
