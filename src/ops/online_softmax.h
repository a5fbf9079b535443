/* The online softmax: a block's probabilities relative to the maximum so far, and the factor that rescales to this
 * maximum what a row has accumulated before. */
#ifndef ATTN_OPS_ONLINE_SOFTMAX_H
#define ATTN_OPS_ONLINE_SOFTMAX_H

#include "ops/blocks.h"

/* Replaces the logits of `joined` blocks by probabilities, +0 where a row does not see a column between first and last;
 * updates the span's maxima and lane sums; stores in `rescale` the factors of the span's output so far. Then applies
 * dropout. */
void attn_online_softmax(struct attn_tile *tile, const struct attn_block *block, size_t joined);

#endif
