/* The second product: values weighted by probabilities, added to what the span has so far. */
#ifndef ATTN_OPS_VALUES_H
#define ATTN_OPS_VALUES_H

#include "ops/blocks.h"

/* span_output = span_output rescaled + the probabilities of `joined` blocks times their values. */
void attn_values_accumulate(struct attn_tile *tile, const struct attn_block *block, size_t joined);

/* Makes the span's output +0 if no values were added to it yet. */
void attn_values_zero_if_none(struct attn_tile *tile);

#endif
