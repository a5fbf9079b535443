/* What a tile leaves: its rows of the output, and weights, logits and log-sum-exp where asked for. */
#ifndef ATTN_OPS_OUTPUT_H
#define ATTN_OPS_OUTPUT_H

#include "ops/tile.h"

/* Sets the caller's logits and weights of keys begin .. end - 1 to -inf; blocks fill in what rows see later. What stays
 * -inf are hidden keys and those that only a longer sequence has. */
void attn_output_hide(const struct attn_tile *tile, size_t begin, size_t end);

/* Divides what the tile has accumulated over all spans by its sums, and writes it. */
void attn_output_write(struct attn_tile *tile);

#endif
