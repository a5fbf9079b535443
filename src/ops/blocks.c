#include "ops/blocks.h"

size_t attn_blocks_at_once(const struct attn_tile *tile) {
    const struct attn_plan *plan = &tile->problem->plan;
    return attn_min(plan->tile_rows / tile->rows, plan->blocks);
}

/* ---- What rows see of a block ---- */

/* Row r's boolean mask at column 0, as kernels take it. Columns lo .. hi - 1 are there. */
static const uint8_t *mask_of_block(const struct attn_tile *tile, const struct attn_block *block, size_t r) {
    const attn_options *options = tile->problem->options;
    size_t stride = options->mask.col_stride;
    const uint8_t *mask = tile->row[r].masks.mask + block->begin * stride;
    if (!attn_mask_is_copied(options))
        return mask;
    uint8_t *copy = tile->scratch.mask + (block->place + r) * ATTN_BLOCK;
    bool hides = options->mask_hides;
    for (size_t c = block->lo[r]; c < block->hi[r]; c++)
        copy[c] = (mask[c * stride] != 0) != hides;
    return copy;
}

/* y[c] = x[c * stride] as a float, c < n. */
static void widen_columns(const struct attn_tile *tile, attn_type type, size_t stride, size_t n, const void *x,
                          float *y) {
    const uint16_t *halves = x;
    uint16_t neighbours[ATTN_BLOCK];
    if (type == ATTN_F32) {
        for (size_t c = 0; c < n; c++)
            y[c] = ((const float *)x)[c * stride];
        return;
    }
    for (size_t c = 0; stride != 1 && c < n; c++)
        neighbours[c] = halves[c * stride];
    tile->convert->widen(type, n, stride == 1 ? halves : neighbours, y);
}

/* Its additive mask, likewise. */
static const float *bias_of_block(const struct attn_tile *tile, const struct attn_block *block, size_t r) {
    const attn_options *options = tile->problem->options;
    const attn_tensor *bias = &options->bias;
    size_t lo = block->lo[r], n = block->hi[r] - lo;
    if (!attn_bias_is_copied(options))
        return (const float *)tile->row[r].masks.bias + block->begin;
    float *copy = tile->scratch.bias + (block->place + r) * ATTN_BLOCK;
    widen_columns(tile, bias->type, bias->col_stride, n,
                  attn_element_at(tile->row[r].masks.bias, bias->type, (block->begin + lo) * bias->col_stride),
                  copy + lo);
    return copy;
}

/* Narrows what row r sees to what its masks leave. */
static void look_at_masks(const struct attn_tile *tile, struct attn_block *block, size_t r) {
    const struct attn_row_masks *masks = &tile->row[r].masks;
    const uint8_t *mask = masks->mask ? mask_of_block(tile, block, r) : NULL;
    const float *bias = masks->bias ? bias_of_block(tile, block, r) : NULL;
    size_t lo = block->lo[r], n = block->hi[r] - lo;
    enum attn_seen seen = mask ? attn_mask_sees(mask + lo, n) : ATTN_SEES_ALL;
    if (seen == ATTN_SEES_NONE || (bias && attn_bias_hides_all(bias + lo, n))) {
        block->lo[r] = block->hi[r] = 0;
        return;
    }
    block->mask[r] = seen == ATTN_SEES_SOME ? mask : NULL;
    block->bias[r] = bias;
    block->rows_differ |= seen == ATTN_SEES_SOME || bias;
}

/* Every row sees all n columns. */
static void describe_whole(const struct attn_tile *tile, struct attn_block *block, size_t n) {
    block->first = 0;
    block->last = n;
    block->rows_differ = false;
    for (size_t r = 0; r < tile->rows; r++) {
        block->lo[r] = 0;
        block->hi[r] = (uint32_t)n;
        block->mask[r] = NULL;
        block->bias[r] = NULL;
    }
}

static void describe_rows_of_block(const struct attn_tile *tile, struct attn_block *block, size_t n) {
    bool masked = attn_tile_uses(tile, ATTN_USE_MASKS);
    block->first = n;
    block->last = 0;
    block->rows_differ = false;
    for (size_t r = 0; r < tile->rows; r++) {
        const struct attn_tile_row *row = &tile->row[r];
        size_t lo = row->keys.begin > block->begin ? attn_min(row->keys.begin - block->begin, n) : 0;
        size_t hi = row->keys.end > block->begin ? attn_min(row->keys.end - block->begin, n) : 0;
        block->lo[r] = (uint32_t)lo;
        block->hi[r] = (uint32_t)hi;
        block->mask[r] = NULL;
        block->bias[r] = NULL;
        if (lo < hi && masked && !row->takes_mean)
            look_at_masks(tile, block, r);
        if (block->lo[r] < block->hi[r]) {
            block->first = attn_min(block->first, block->lo[r]);
            block->last = attn_max(block->last, block->hi[r]);
        }
    }
    for (size_t r = 0; r < tile->rows; r++)
        block->rows_differ |= block->lo[r] != block->first || block->hi[r] != block->last;
}

size_t attn_blocks_describe(const struct attn_tile *tile, size_t begin, size_t end, struct attn_block *blocks,
                            struct attn_block_rows *rows) {
    enum { PADDING = ATTN_SCORE_STRIDE - ATTN_BLOCK };
    size_t count = 0, stride = (end - begin + ATTN_BLOCK - 1) / ATTN_BLOCK * ATTN_BLOCK + PADDING;
    for (size_t column = 0; begin < end; begin += ATTN_BLOCK, column += ATTN_BLOCK) {
        size_t n = attn_min(end - begin, ATTN_BLOCK), row = count * tile->rows;
        struct attn_block *block = &blocks[count];
        block->score_stride = stride;
        block->scores = tile->scratch.scores + column;
        block->begin = begin;
        block->place = row;
        block->lo = rows->lo + row;
        block->hi = rows->hi + row;
        block->mask = rows->mask + row;
        block->bias = rows->bias + row;
        block->rescale = rows->rescale + row;
        if (tile->common.begin <= begin && begin + n <= tile->common.end)
            describe_whole(tile, block, n);
        else
            describe_rows_of_block(tile, block, n);
        count += block->first < block->last;
    }
    return count;
}

/* ---- What one product takes ---- */

size_t attn_blocks_joined(const struct attn_block *block, size_t count) {
    size_t n = 1;
    while (n < count && !block[n - 1].rows_differ && !block[n].rows_differ && block[0].first == 0 &&
           block[n - 1].begin + block[n - 1].last == block[n].begin + block[n].first)
        n++;
    return n;
}

struct attn_part attn_blocks_part(const struct attn_tile *tile, const struct attn_block *block, size_t row) {
    if (!block->rows_differ)
        return (struct attn_part){0, tile->rows, block->first, block->last};
    size_t parts = (tile->rows + tile->gemm->rows - 1) / tile->gemm->rows;
    struct attn_part part = {row, attn_min((tile->rows + parts - 1) / parts, tile->rows - row), ATTN_BLOCK, 0};
    for (size_t r = row; r < row + part.rows; r++)
        if (block->lo[r] < block->hi[r]) {
            part.first = attn_min(part.first, block->lo[r]);
            part.last = attn_max(part.last, block->hi[r]);
        }
    return part;
}
