/* Takes a tile, whose rows are described, through the spans of their keys. */
#ifndef ATTN_OPS_SPANS_H
#define ATTN_OPS_SPANS_H

#include "ops/tile.h"

/* All spans, then the outputs. */
void attn_spans_run(struct attn_tile *tile);

/* The same in two steps. First each span on its own: span number `span` into partial number `index`. Then the merge:
 * the partials of all spans, from number `index` on, in ascending order; and the outputs. */
void attn_spans_run_one(struct attn_tile *tile, size_t span, size_t index);
void attn_spans_merge(struct attn_tile *tile, size_t index);

#endif
