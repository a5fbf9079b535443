#include "ops/spans.h"

#include <math.h>
#include <string.h>

#include "ops/keys.h"
#include "ops/online_softmax.h"
#include "ops/output.h"
#include "ops/rows.h"
#include "ops/scores.h"
#include "ops/values.h"

/* ---- A span ---- */

/* Blocks that each product takes together. */
static void run_joined(struct attn_tile *tile, const struct attn_block *block, size_t joined) {
    if (tile->problem->plan.path == ATTN_PATH_STREAMED)
        attn_keys_pack_block(tile, block->begin + block->first, block->begin + block->last);
    attn_scores_compute(tile, block, joined);
    attn_online_softmax(tile, block, joined);
    attn_values_accumulate(tile, block, joined);
}

/* Keys begin .. end - 1, at most attn_blocks_at_once blocks. `begin` is a multiple of ATTN_BLOCK. */
static void run_blocks(struct attn_tile *tile, size_t begin, size_t end) {
    struct attn_block blocks[ATTN_MOST_BLOCKS];
    size_t count = attn_blocks_describe(tile, begin, end, blocks, tile->scratch.block_rows);
    for (size_t i = 0, joined; i < count; i += joined) {
        joined = attn_blocks_joined(&blocks[i], count - i);
        run_joined(tile, &blocks[i], joined);
    }
}

/* Computes span number `span`: into span_max, span_sum and span_output. */
static void run_span(struct attn_tile *tile, size_t span) {
    struct attn_scratch *scratch = &tile->scratch;
    size_t begin = attn_max(span * ATTN_SPAN, tile->keys.begin / ATTN_BLOCK * ATTN_BLOCK);
    size_t end = attn_min(span * ATTN_SPAN + ATTN_SPAN, tile->keys.end);
    for (size_t r = 0; r < tile->rows; r++)
        tile->span_max[r] = -INFINITY;
    memset(scratch->lanes, 0, tile->rows * ATTN_LANES * sizeof *scratch->lanes);
    tile->span_has_values = false;
    for (size_t n = attn_blocks_at_once(tile) * ATTN_BLOCK; begin < end; begin += n)
        run_blocks(tile, begin, attn_min(begin + n, end));
    attn_values_zero_if_none(tile);
    tile->attention->sum(tile->rows, scratch->lanes, tile->span_sum);
}

/* ---- Several ---- */

/* The first span's result is the total so far; a later one's is merged into it. */
static void take_span(struct attn_tile *tile, bool first, const struct attn_partial *partial) {
    struct attn_scratch *scratch = &tile->scratch;
    size_t stride = tile->problem->plan.output_stride;
    if (!first) {
        tile->attention->merge(tile->rows, tile->problem->value_size, tile->max, tile->sum, scratch->output,
                               partial->max, partial->sum, partial->output, stride);
        return;
    }
    memcpy(tile->max, partial->max, tile->rows * sizeof *tile->max);
    memcpy(tile->sum, partial->sum, tile->rows * sizeof *tile->max);
    if (partial->output == scratch->span_output) { /* swap the two instead of copying */
        scratch->span_output = scratch->output;
        scratch->output = partial->output;
    } else {
        memcpy(scratch->output, partial->output, tile->rows * stride * sizeof *scratch->output);
    }
}

/* What the outputs have for keys begin .. end - 1 before blocks fill in what rows see. */
static void begin_outputs(const struct attn_tile *tile, size_t begin, size_t end) {
    attn_output_hide(tile, begin, end);
    if (attn_tile_uses(tile, ATTN_USE_SCORES_HIDDEN))
        attn_scores_write_hidden(tile, begin, end);
}

void attn_spans_run(struct attn_tile *tile) {
    size_t first = tile->keys.begin / ATTN_SPAN, span = first;
    attn_rows_take_queries(tile);
    begin_outputs(tile, 0, tile->problem->kv_len);
    do {
        run_span(tile, span);
        take_span(tile, span == first,
                  &(struct attn_partial){tile->span_max, tile->span_sum, tile->scratch.span_output});
    } while (++span * ATTN_SPAN < tile->keys.end);
    attn_output_write(tile);
}

void attn_spans_run_one(struct attn_tile *tile, size_t span, size_t index) {
    struct attn_partial partial = attn_partial_at(tile->problem, tile->workspace, index);
    bool last = span + 1 == tile->problem->plan.spans; /* also hides the keys behind the longest sequence */
    attn_rows_take_queries(tile);
    begin_outputs(tile, span * ATTN_SPAN, last ? tile->problem->kv_len : (span + 1) * ATTN_SPAN);
    float *own = tile->scratch.span_output;
    tile->scratch.span_output = partial.output;
    run_span(tile, span);
    tile->scratch.span_output = own;
    memcpy(partial.max, tile->span_max, tile->rows * sizeof *tile->max);
    memcpy(partial.sum, tile->span_sum, tile->rows * sizeof *tile->max);
}

void attn_spans_merge(struct attn_tile *tile, size_t index) {
    size_t first = tile->keys.begin / ATTN_SPAN, span = first;
    do {
        struct attn_partial partial = attn_partial_at(tile->problem, tile->workspace, index + span);
        take_span(tile, span == first, &partial);
    } while (++span * ATTN_SPAN < tile->keys.end);
    attn_output_write(tile);
}
