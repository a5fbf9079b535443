/* Online softmax: rows of logits through one block of keys, and one row through several blocks. Invisible logits count
 * as -inf: that changes no maximum, and its probability is the +0 asked for. */
#ifndef ATTN_BODY_ONLINE_SOFTMAX_H
#define ATTN_BODY_ONLINE_SOFTMAX_H

#include "body/logits.h"
#include "body/rows.h"

/* ---- Probabilities ---- */

/* Of the 16 columns at c, of which some are invisible. */
INLINE void exp_visible(float *p, size_t c, size_t lo, size_t hi, vec shift, vec lanes[SUM_VECS]) {
    vec e[SUM_VECS];
    UNROLL for (size_t i = 0; i < SUM_VECS; i++) e[i] = vec_sub(visible_logits(p, c + i * VEC_LANES, lo, hi), shift);
    take_probabilities(e, p + c, lanes, SUM_VECS);
}

/* Columns c .. hi - 1 of a row, c a multiple of 16, and up to the next one +0. */
INLINE void exp_row(float *p, size_t c, size_t hi, vec shift, vec lanes[SUM_VECS]) {
    for (; c + EXP_VECS * VEC_LANES <= hi; c += EXP_VECS * VEC_LANES)
        exp_columns(p + c, shift, p + c, lanes, EXP_VECS);
    for (; EXP_VECS > SUM_VECS && c + ATTN_LANES <= hi; c += ATTN_LANES)
        exp_columns(p + c, shift, p + c, lanes, SUM_VECS);
    if (c < hi)
        exp_visible(p, c, c, hi, shift, lanes);
}

/* ---- One block ---- */

static void ISA_FN(online_softmax_row)(const struct attn_online_softmax_args *args, size_t r, float max,
                                       float rescale) {
    float *p = args->scores + r * args->score_stride, *lane = args->lanes + r * ATTN_LANES;
    size_t lo = args->lo[r], hi = args->hi[r], c = lo / ATTN_LANES * ATTN_LANES;
    vec shift = vec_set(max), lanes[SUM_VECS];
    load_lanes(lane, vec_set(rescale), lanes);
    clear_columns(p, args->begin, c);
    if (lo > c) {
        exp_visible(p, c, lo, hi, shift, lanes);
        c += ATTN_LANES;
    }
    exp_row(p, c, hi, shift, lanes);
    store_lanes(lanes, lane);
    clear_columns(p, (hi + ATTN_LANES - 1) / ATTN_LANES * ATTN_LANES, args->end);
}

/* Up to a register's worth of rows. */
static void ISA_FN(online_softmax_rows)(const struct attn_online_softmax_args *args, size_t first, size_t count) {
    float shift[VEC_LANES], rescale[VEC_LANES];
    take_maxima(args, first, count, vec_set(1.0f), shift, rescale);
    for (size_t r = first; r < first + count; r++) {
        if (args->lo[r] < args->hi[r])
            ISA_FN(online_softmax_row)(args, r, shift[r - first], rescale[r - first]);
        else
            clear_columns(args->scores + r * args->score_stride, args->begin, args->end);
    }
}

static void ISA_FN(online_softmax)(const struct attn_online_softmax_args *args) {
    for (size_t first = 0; first < args->rows; first += VEC_LANES)
        ISA_FN(online_softmax_rows)(args, first, args->rows - first < VEC_LANES ? args->rows - first : VEC_LANES);
}

/* ---- One row through several blocks ---- */

#if VEC_LANES >= ATTN_LANES
#define ISA_ONLINE_SOFTMAX_BLOCKS ISA_FN(online_softmax_blocks)

INLINE size_t columns_of(const struct attn_online_softmax_blocks_args *args, size_t block) {
    size_t left = args->n - block * ATTN_BLOCK;
    return left < ATTN_BLOCK ? left : ATTN_BLOCK;
}

/* All maxima come first, a lane for each block: with a running maximum over the lanes one exp gives all rescale
 * factors. */
static void ISA_FN(online_softmax_blocks)(const struct attn_online_softmax_blocks_args *args) {
    size_t blocks = (args->n + ATTN_BLOCK - 1) / ATTN_BLOCK;
    vec maxima[VEC_LANES], first = vec_set(*args->max);
    float shift[VEC_LANES], rescale[VEC_LANES];
    UNROLL for (size_t i = 0; i < VEC_LANES; i++) maxima[i] = first;
    for (size_t i = 0; i < blocks; i++)
        maxima[i] = ISA_FN(row_maxima)(args->scores + i * ATTN_BLOCK, 0, columns_of(args, i));
    vec max = vec_add(vec_running_max(vec_max(first, vec_lane_max_each(maxima))), vec_zero()), shifts = shifts_of(max);
    vec rescales = vec_exp_low(vec_sub(vec_after(first, max), shifts));
    vec_store_first(blocks, args->rescale, rescales);
    vec_store(shift, shifts);
    vec_store(rescale, rescales);
    *args->max = vec_lane_max(max);
    vec lanes[SUM_VECS];
    UNROLL for (int v = 0; v < SUM_VECS; v++) lanes[v] = vec_load(args->lanes + v * VEC_LANES);
    for (size_t i = 0; i < blocks; i++) {
        UNROLL for (int v = 0; v < SUM_VECS; v++) lanes[v] = vec_mul(lanes[v], vec_set(rescale[i]));
        exp_row(args->scores + i * ATTN_BLOCK, 0, columns_of(args, i), vec_set(shift[i]), lanes);
    }
    store_lanes(lanes, args->lanes);
}
#else
#define ISA_ONLINE_SOFTMAX_BLOCKS NULL
#endif

#endif
