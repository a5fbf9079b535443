/* Pairs of bf16 by multiply-adds of floats, for an ISA without an instruction for them. A's elements are floats. An
 * ISA gives pair_upper, pair_lower and pair_interleave; gemm_pairs.c has the rest. */
#ifndef ATTN_BODY_PAIRS_FMA_H
#define ATTN_BODY_PAIRS_FMA_H

#include "body/bf16.h"

#define PAIR_A      float
#define PAIR_A_TYPE ATTN_F32

/* The second element of a pair comes first. */
enum { PAIR_STEPS = 2, NARROWS = 0 };

INLINE void pair_store_narrow(vec_tail tail, uint16_t *c, vec x) {
    (void)tail, (void)c, (void)x;
}

/* part: 0 the whole pair, 1 its second half only, 2 its first half only. */
INLINE vec pair_b(vec unit, const int s, const int part) {
    if ((s == 0 && part == 2) || (s == 1 && part == 1))
        return vec_zero();
    return s == 0 ? pair_upper(unit) : pair_lower(unit);
}

INLINE vec pair_b_few(vec unit, const int s) {
    return s == 0 ? pair_upper_few(unit) : pair_lower(unit);
}

INLINE vec pair_a(const float *a, const int s, const int part) {
    if ((s == 0 && part == 2) || (s == 1 && part == 1))
        return vec_zero();
    return vec_set(a[s == 0 && part == 0]);
}

/* A register of elements of A, from probabilities. */
INLINE void pair_store_a(float *p, vec x) {
    vec_store(p, vec_round_probability(x));
}

INLINE vec pair_multiply_add(vec a, vec b, vec acc) {
    return vec_fma(a, b, acc);
}

#endif
