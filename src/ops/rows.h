/* The rows of a tile: which they are, what they may see, and their queries. */
#ifndef ATTN_OPS_ROWS_H
#define ATTN_OPS_ROWS_H

#include "ops/tile.h"

/* Takes up kv head number `head`, counted over all sequences, and finds its keys. */
void attn_rows_take_head(struct attn_tile *tile, size_t head);

/* Takes up tile number `index` of that head. */
void attn_rows_take(struct attn_tile *tile, size_t index);

/* Finds the queries as the products take them: in scratch.query, rotated if there is a rotary embedding, then scaled;
 * or where the caller has them. */
void attn_rows_take_queries(struct attn_tile *tile);

#endif
