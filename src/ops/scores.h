/* Logits: the first product, and what is done to it before the softmax. */
#ifndef ATTN_OPS_SCORES_H
#define ATTN_OPS_SCORES_H

#include "ops/blocks.h"

/* Fills the scores of `joined` blocks with the logits that the softmax takes: of each row's visible columns; other
 * columns may hold anything. Copies logits to the caller where asked for. */
void attn_scores_compute(const struct attn_tile *tile, const struct attn_block *block, size_t joined);

/* Copies the logits of keys begin .. end - 1, hidden or not, to the caller; of those that the sequence has. `begin` is
 * 0 or a multiple of ATTN_SPAN. */
void attn_scores_write_hidden(const struct attn_tile *tile, size_t begin, size_t end);

#endif
