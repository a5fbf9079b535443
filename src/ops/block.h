/* A tile of query rows through one block of keys: logits, probabilities, and what they make of the values. */
#ifndef ATTN_OPS_BLOCK_H
#define ATTN_OPS_BLOCK_H

#include "ops/tile.h"

/* How many blocks of keys a tile takes in one go: as many as its scores have room for. */
size_t attn_blocks_at_once(const struct attn_tile *tile);

/* Adds the keys begin .. end - 1, at most so many blocks, `begin` a multiple of ATTN_BLOCK, to what the span has accumulated: its
 * maxima, lanes and output. */
void attn_blocks_run(struct attn_tile *tile, size_t begin, size_t end);

/* Makes the span's output +0. */
void attn_block_clear_output(const struct attn_tile *tile);

#endif
