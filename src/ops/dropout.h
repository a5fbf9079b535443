/* Dropout of attention weights: a mask that is a function of the seed and the weight's place alone, so that neither
 * the ISA, nor the threads, nor the blocks in which keys are taken change it. */
#ifndef ATTN_OPS_DROPOUT_H
#define ATTN_OPS_DROPOUT_H

#include <stddef.h>
#include <stdint.h>

#include "arithmetic.h"

/* Philox4x32-10: ten rounds of the counter-based generator of Salmon et al., "Parallel Random Numbers: As Easy as 1,
 * 2, 3", SC 2011. */
void attn_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

struct attn_dropout {
    float probability; /* [0, 1) */
    uint64_t seed;
};

/* p[c] is the weight of key first_key + c in query row `row` of head `head_index` (batch index * heads + head), c < n.
 *
 * Key j's random word is word j % 4 of Philox with key { seed's low, high half } and counter { j / 4, row,
 * head_index, 0 }, each taken modulo 2^32. The weight is multiplied by 0 where the word is below floor(probability *
 * 2^32), else by 1 / (1 - probability), rounded to float: a NaN weight stays NaN. Probability 0 changes nothing. */
void attn_dropout_apply(const struct attn_dropout *dropout, uint64_t head_index, uint64_t row, uint64_t first_key,
                        float *p, size_t n);

#endif
