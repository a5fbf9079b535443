/* The softmax, block by block: what a row's maximum so far is, and what it makes of earlier sums and values. */
#ifndef ATTN_OPS_ONLINE_SOFTMAX_H
#define ATTN_OPS_ONLINE_SOFTMAX_H

#include "ops/blocks.h"

/* Replaces the logits of `joined` blocks by probabilities, +0 where a row does not see a column between first and last; updates
 * the span's maxima and lane sums; says by what the span's values so far are to be rescaled. Then dropout. */
void attn_online_softmax(struct attn_tile *tile, const struct attn_block *block, size_t joined);

#endif
