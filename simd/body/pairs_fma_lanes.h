/* Pairs of bf16 by multiply-adds of floats by lane. A's elements are floats. An ISA gives pair_load_one, the halves
 * of a unit, pair_interleave and pair_any. */
#ifndef ATTN_BODY_PAIRS_FMA_LANES_H
#define ATTN_BODY_PAIRS_FMA_LANES_H

#include <stdbool.h>

#include "body/bf16.h"

#define PAIRS_BY_LANE
#define PAIR_A                           float
#define PAIR_A_TYPE                      ATTN_F32
#define PAIRS_AT_ONCE                    2

#define pair_fma_second(acc, unit, a, n) vec_fma_lane(acc, unit, a, n)
#define pair_fma_first(acc, unit, a, n)  vec_fma_lane(acc, unit, a, n)

enum { NARROWS = 0 };

INLINE void pair_store_narrow(vec_tail tail, uint16_t *c, vec x) {
    (void)tail, (void)c, (void)x;
}

INLINE vec pair_load_a(const float *a) {
    return vec_load_quads(a);
}
INLINE vec pair_load_element(const float *a) {
    return vec_load_one(a);
}
INLINE float pair_float(float a) {
    return a;
}

/* A register of elements of A, from probabilities. */
INLINE void pair_store_a(float *p, vec x) {
    vec_store(p, vec_round_probability(x));
}

#endif
