#include "ops/online_softmax.h"

#include "ops/dropout.h"

static void update(struct attn_tile *tile, const struct attn_block *block) {
    tile->attention->online_softmax(
        &(struct attn_online_softmax_args){.rows = tile->rows,
                                           .scores = block->scores,
                                           .score_stride = block->score_stride,
                                           .lo = block->lo,
                                           .hi = block->hi,
                                           .begin = block->first / ATTN_LANES * ATTN_LANES,
                                           .end = (block->last + ATTN_LANES - 1) / ATTN_LANES * ATTN_LANES,
                                           .max = tile->span_max,
                                           .lanes = tile->scratch.lanes,
                                           .rescale = block->rescale});
}

static void update_one_row(struct attn_tile *tile, const struct attn_block *block, size_t joined) {
    tile->attention->online_softmax_blocks(
        &(struct attn_online_softmax_blocks_args){.scores = block->scores,
                                                  .n = block->last + attn_blocks_further(block, joined),
                                                  .max = tile->span_max,
                                                  .lanes = tile->scratch.lanes,
                                                  .rescale = block->rescale});
}

static void drop(const struct attn_tile *tile, const struct attn_block *block) {
    const attn_options *options = tile->problem->options;
    struct attn_dropout dropout = {.probability = options->dropout, .seed = options->dropout_seed};
    for (size_t r = 0; r < tile->rows; r++)
        attn_dropout_apply(&dropout, tile->b * tile->problem->heads + tile->row[r].head, tile->row[r].row,
                           block->begin + block->first, attn_block_scores(block, r) + block->first,
                           block->last - block->first);
}

void attn_online_softmax(struct attn_tile *tile, const struct attn_block *block, size_t joined) {
    if (tile->rows == 1 && joined > 1 && tile->attention->online_softmax_blocks)
        update_one_row(tile, block, joined);
    else
        for (size_t i = 0; i < joined; i++)
            update(tile, &block[i]);
    for (size_t i = 0; attn_tile_uses(tile, ATTN_USE_DROPOUT) && i < joined; i++)
        drop(tile, &block[i]);
}
