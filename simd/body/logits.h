/* Rows of logits before they become probabilities, and the sums of these: what online softmax of every class shares. */
#ifndef ATTN_BODY_LOGITS_H
#define ATTN_BODY_LOGITS_H

#include "body/rows.h"
#include "kernels.h"

/* Lanes of the register at column c that lie in [lo, hi). */
INLINE vec_mask visible_lanes(size_t c, size_t lo, size_t hi) {
    size_t first = lo > c ? lo - c : 0, last = hi > c ? hi - c : 0;
    return vec_lanes(first < VEC_LANES ? first : VEC_LANES, last < VEC_LANES ? last : VEC_LANES);
}

INLINE vec visible_logits(const float *p, size_t c, size_t lo, size_t hi) {
    return vec_select(visible_lanes(c, lo, hi), vec_load(p + c), vec_set(-INFINITY));
}

/* The maximum of a row's visible logits is that of these lanes. */
static vec ISA_FN(row_maxima)(const float *p, size_t lo, size_t hi) {
    size_t c = lo / VEC_LANES * VEC_LANES;
    vec m[4];
    UNROLL for (int i = 0; i < 4; i++) m[i] = vec_set(-INFINITY);
    if (lo > c) {
        m[0] = vec_max(m[0], visible_logits(p, c, lo, hi));
        c += VEC_LANES;
    }
    for (; c + 4 * VEC_LANES <= hi; c += 4 * VEC_LANES)
        UNROLL for (int i = 0; i < 4; i++) m[i] = vec_max(m[i], vec_load(p + c + i * VEC_LANES));
    for (; c + VEC_LANES <= hi; c += VEC_LANES)
        m[1] = vec_max(m[1], vec_load(p + c));
    if (c < hi)
        m[2] = vec_max(m[2], visible_logits(p, c, lo, hi));
    return vec_max(vec_max(m[0], m[1]), vec_max(m[2], m[3]));
}

INLINE void load_lanes(const float *p, vec factor, vec lanes[SUM_VECS]) {
    UNROLL for (int i = 0; i < SUM_VECS; i++) lanes[i] = vec_mul(vec_load(p + i * VEC_LANES), factor);
}

INLINE void store_lanes(const vec lanes[SUM_VECS], float *p) {
    UNROLL for (int i = 0; i < SUM_VECS; i++) vec_store(p + i * VEC_LANES, lanes[i]);
}

/* Up to a register's worth of rows, whose logits are multiplied by `scale`, which is above 0. All maxima come first,
 * a lane for each row: one reduction and one exp serve all rows. */
INLINE void take_maxima(const struct attn_online_softmax_args *args, size_t first, size_t count, vec scale,
                        float *shift, float *rescale) {
    const uint32_t *lo = args->lo + first, *hi = args->hi + first;
    const float *scores = args->scores + first * args->score_stride;
    vec maxima[VEC_LANES];
    for (size_t r = 0; r < VEC_LANES; r++)
        maxima[r] = r < count && lo[r] < hi[r] ? ISA_FN(row_maxima)(scores + r * args->score_stride, lo[r], hi[r])
                                               : vec_set(-INFINITY);
    vec_mask seen = vec_less_counts(count, lo, hi);
    vec old = vec_load_first(count, args->max + first), found = vec_mul(vec_lane_max_each(maxima), scale);
    vec max = vec_add(vec_max(old, found), vec_zero()), shifts = shifts_of(max);
    vec rescales = vec_exp_low(vec_sub_mask(seen, old, shifts)); /* 1 where nothing is seen */
    vec_store_first(count, args->max + first, vec_select(seen, max, old));
    vec_store_first(count, args->rescale + first, rescales);
    vec_store(shift, shifts);
    vec_store(rescale, rescales);
}

#endif
