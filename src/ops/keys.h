/* Where a tile finds the keys and values of its head, and packing them for it. */
#ifndef ATTN_OPS_KEYS_H
#define ATTN_OPS_KEYS_H

#include "ops/tile.h"

/* Fills in tile->k, v and stored for the head that the tile has taken. */
void attn_keys_find(struct attn_tile *tile);

/* Packs the keys and values that rows of the head see, for all tiles of the head. */
void attn_keys_pack_head(struct attn_tile *tile);

/* Packs keys begin .. end - 1, of one block, for this tile alone. */
void attn_keys_pack_block(struct attn_tile *tile, size_t begin, size_t end);

#endif
