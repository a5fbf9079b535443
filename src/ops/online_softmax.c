#include "ops/online_softmax.h"

#include "ops/dropout.h"

static void update(struct attn_tile *tile, const struct attn_block *block) {
    bool is_bf16 = attn_tile_is_bf16(tile), is_scaled = attn_tile_uses(tile, ATTN_USE_LOGITS);
    (is_bf16 ? tile->problem->plan.bf16->online_softmax : tile->attention->online_softmax)(
        &(struct attn_online_softmax_args){.rows = tile->rows,
                                           .scores = block->scores,
                                           .score_stride = block->score_stride,
                                           .lo = block->lo,
                                           .hi = block->hi,
                                           .begin = block->first / ATTN_LANES * ATTN_LANES,
                                           .end = (block->last + ATTN_LANES - 1) / ATTN_LANES * ATTN_LANES,
                                           .max = tile->span_max,
                                           .lanes = tile->scratch.lanes,
                                           .rescale = block->rescale,
                                           .scale = is_scaled ? 1.0f : tile->problem->scale});
}

static void update_one_row(struct attn_tile *tile, const struct attn_block *block, size_t joined) {
    tile->attention->online_softmax_blocks(
        &(struct attn_online_softmax_blocks_args){.scores = block->scores,
                                                  .n = block->last + attn_blocks_further(block, joined),
                                                  .max = tile->span_max,
                                                  .lanes = tile->scratch.lanes,
                                                  .rescale = block->rescale});
}

/* Probabilities that are not floats are widened for it. Out of line, or every call would have that block on its
 * stack. */
static __attribute__((noinline)) void drop_from_row(const struct attn_tile *tile, const struct attn_block *block,
                                                    size_t r) {
    const attn_options *options = tile->problem->options;
    struct attn_dropout dropout = {.probability = options->dropout, .seed = options->dropout_seed};
    attn_type type = tile->gemm->a;
    size_t n = block->last - block->first;
    float widened[ATTN_BLOCK], *p = attn_block_scores(block, r) + block->first;
    uint16_t *narrow = (uint16_t *)attn_block_scores(block, r) + block->first;
    if (type != ATTN_F32)
        tile->convert->widen(type, n, narrow, p = widened);
    attn_dropout_apply(&dropout, tile->b * tile->problem->heads + tile->row[r].head, tile->row[r].row,
                       block->begin + block->first, p, n);
    if (type != ATTN_F32)
        tile->convert->narrow(type, n, p, narrow);
    else if (attn_tile_is_bf16(tile))
        tile->convert->round_bf16(n, p, p);
}

static void drop(const struct attn_tile *tile, const struct attn_block *block) {
    for (size_t r = 0; r < tile->rows; r++)
        drop_from_row(tile, block, r);
}

void attn_online_softmax(struct attn_tile *tile, const struct attn_block *block, size_t joined) {
    if (tile->rows == 1 && joined > 1 && tile->attention->online_softmax_blocks && !attn_tile_is_bf16(tile))
        update_one_row(tile, block, joined);
    else
        for (size_t i = 0; i < joined; i++)
            update(tile, &block[i]);
    for (size_t i = 0; attn_tile_uses(tile, ATTN_USE_DROPOUT) && i < joined; i++)
        drop(tile, &block[i]);
}
