/* Blocks of keys, and what the rows of a tile see of them. */
#ifndef ATTN_OPS_BLOCKS_H
#define ATTN_OPS_BLOCKS_H

#include "ops/tile.h"

/* Keys begin .. begin + n - 1, at most ATTN_BLOCK, a column each. What is said of each row is an array of as many as the
 * tile has, in struct attn_block_rows. */
struct attn_block {
    float *scores; /* [rows][score_stride]; those of the next block follow row by row */
    size_t score_stride;
    size_t begin;         /* a multiple of ATTN_BLOCK */
    size_t first, last;   /* columns first .. last - 1 are seen by some row */
    uint32_t *lo, *hi;    /* the columns that each row sees */
    const uint8_t **mask; /* of column 0, where it hides some of them but not all; else NULL */
    const float **bias;   /* likewise */
    float *rescale;       /* by which what is accumulated before is to be multiplied; followed by the next block's */
    bool rows_differ;     /* a row may not see all of the columns first .. last - 1 */
};

/* A tile's rows once for each block that it takes in one go: blocks times rows are at most the height of a tile. */
struct attn_block_rows {
    uint32_t lo[ATTN_MAX_ROWS], hi[ATTN_MAX_ROWS];
    const uint8_t *mask[ATTN_MAX_ROWS];
    const float *bias[ATTN_MAX_ROWS];
    float rescale[ATTN_MAX_ROWS];
};

static inline float *attn_block_scores(const struct attn_block *block, size_t r) {
    return block->scores + r * block->score_stride;
}

/* How many blocks the tile takes in one go: few rows have room for the scores of several. */
size_t attn_blocks_at_once(const struct attn_tile *tile);

/* Fills in the blocks of keys begin .. end - 1, at most so many, that some row sees; their number. */
size_t attn_blocks_describe(const struct attn_tile *tile, size_t begin, size_t end, struct attn_block *blocks,
                            struct attn_block_rows *rows);

/* How many of `count` blocks go through a product as one: those that follow each other, which every row sees whole. */
size_t attn_blocks_joined(const struct attn_block *block, size_t count);

/* The columns that joined blocks have beyond the first one's. */
static inline size_t attn_blocks_further(const struct attn_block *block, size_t joined) {
    const struct attn_block *last = &block[joined - 1];
    return last->begin + last->last - (block->begin + block->last);
}

/* Rows of a tile that go through the products together, and the columns that some of them see. */
struct attn_part {
    size_t row, rows, first, last;
};

/* The part whose first row is `row`: all, or as many as a product takes at once where others see other columns. */
struct attn_part attn_blocks_part(const struct attn_tile *tile, const struct attn_block *block, size_t row);

#endif
