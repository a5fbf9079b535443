/* A tile of query rows through one block of keys: logits, probabilities, and what they make of the values. */
#ifndef ATTN_OPS_BLOCK_H
#define ATTN_OPS_BLOCK_H

#include "ops/tile.h"

/* Adds the block of n keys from `begin` on, a multiple of ATTN_BLOCK, to what the span has accumulated: its maxima, lanes and
 * output. */
void attn_block_run(struct attn_tile *tile, size_t begin, size_t n);

/* Makes the span's output +0. */
void attn_block_clear_output(const struct attn_tile *tile);

#endif
