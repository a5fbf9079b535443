/* Blocks of keys, and what the rows of a tile see of them. */
#ifndef ATTN_OPS_BLOCKS_H
#define ATTN_OPS_BLOCKS_H

#include "ops/tile.h"

/* A block of at most ATTN_BLOCK keys from `begin` on, each a column of scores. The arrays, with an element for each row
 * of the tile, lie in struct attn_block_rows. */
struct attn_block {
    float *scores; /* [rows][score_stride]; in each row the next block's follow */
    size_t score_stride;
    size_t begin;         /* a multiple of ATTN_BLOCK */
    size_t place;         /* of row 0 in struct attn_block_rows, and in the scratch memory of masks */
    size_t first, last;   /* every row's visible columns lie in first .. last - 1 */
    uint32_t *lo, *hi;    /* row r sees columns lo[r] .. hi[r] - 1, but for those that a mask hides */
    const uint8_t **mask; /* row r's boolean mask at column 0; NULL if it hides none of the row's columns */
    const float **bias;   /* row r's additive mask at column 0, or NULL */
    float *rescale;       /* factors of what the rows have accumulated before; the next block's follow */
    bool rows_differ;     /* false: every row sees all of the columns first .. last - 1 */
};

/* The arrays of all blocks that a tile takes at once: blocks times rows are at most the height of a tile. */
struct attn_block_rows {
    uint32_t lo[ATTN_MAX_ROWS], hi[ATTN_MAX_ROWS];
    const uint8_t *mask[ATTN_MAX_ROWS];
    const float *bias[ATTN_MAX_ROWS];
    float rescale[ATTN_MAX_ROWS];
};

static inline float *attn_block_scores(const struct attn_block *block, size_t r) {
    return block->scores + r * block->score_stride;
}

/* How many blocks the tile takes at once: the fewer its rows, the more blocks its scores have room for. */
size_t attn_blocks_at_once(const struct attn_tile *tile);

/* Describes those blocks of keys begin .. end - 1, at most attn_blocks_at_once, of which some row sees a key. Returns
 * how many. */
size_t attn_blocks_describe(const struct attn_tile *tile, size_t begin, size_t end, struct attn_block *blocks,
                            struct attn_block_rows *rows);

/* How many of `count` blocks one product takes: those that follow each other without a gap and that every row sees
 * whole. */
size_t attn_blocks_joined(const struct attn_block *block, size_t count);

/* How many columns joined blocks have after those of the first block. */
static inline size_t attn_blocks_further(const struct attn_block *block, size_t joined) {
    const struct attn_block *last = &block[joined - 1];
    return last->begin + last->last - (block->begin + block->last);
}

/* Rows of a tile that one product takes; their visible columns lie in first .. last - 1. */
struct attn_part {
    size_t row, rows, first, last;
};

/* The part that begins with row `row`: all rows if they see the same columns, else at most the rows of one GEMM
 * tile. */
struct attn_part attn_blocks_part(const struct attn_tile *tile, const struct attn_block *block, size_t row);

#endif
