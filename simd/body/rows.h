/* Pieces of work on one row that several texts share. */
#ifndef ATTN_BODY_ROWS_H
#define ATTN_BODY_ROWS_H

#include <math.h>

#include "exp.h"
#include "vec.h"

/* Registers whose exp are computed in step: one alone would wait for each of its operations. */
enum { EXP_VECS = 4 };

/* What is subtracted from the logits of rows with these maxima: +0 for -inf, or -inf - -inf would be NaN. */
INLINE vec shifts_of(vec max) {
    return vec_select(vec_equal(max, vec_set(-INFINITY)), vec_zero(), max);
}

INLINE void clear_columns(float *p, size_t begin, size_t end) {
    for (size_t c = begin; c < end; c += VEC_LANES)
        vec_store_first(end - c, p + c, vec_zero());
}

INLINE void scale_row(const float *x, vec factor, float *y, size_t n) {
    size_t j = 0;
    for (; j + VEC_LANES <= n; j += VEC_LANES)
        vec_store(y + j, vec_mul(vec_load(x + j), factor));
    if (j < n)
        vec_store_first(n - j, y + j, vec_mul(vec_load_first(n - j, x + j), factor));
}

/* y = exp(e) of n registers. Their first column belongs to lane 0 of the sum. */
INLINE void take_probabilities(vec *e, float *y, vec lanes[SUM_VECS], const int n) {
    vec_exp_low_each(e, n);
    UNROLL for (int i = 0; i < n; i++) {
        vec_store(y + i * VEC_LANES, e[i]);
        lanes[i % SUM_VECS] = vec_add(lanes[i % SUM_VECS], e[i]);
    }
    UNROLL for (int i = 0; i < SUM_VECS; i++) vec_pin(lanes[i]);
}

/* y = exp(x - shift) of n registers. */
INLINE void exp_columns(const float *x, vec shift, float *y, vec lanes[SUM_VECS], const int n) {
    vec e[EXP_VECS];
    UNROLL for (int i = 0; i < n; i++) e[i] = vec_sub(vec_load(x + i * VEC_LANES), shift);
    take_probabilities(e, y, lanes, n);
}

#endif
