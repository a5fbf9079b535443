/* One tile of query rows through blocks and spans of keys. */
#ifndef ATTN_OPS_TILE_H
#define ATTN_OPS_TILE_H

#include "ops/visible.h"
#include "ops/workspace.h"

/* Row r of a tile is query row `row` of head `head`; rows of the heads that share a kv head are neighbours. */
struct attn_tile_row {
    size_t row, head;
    struct attn_interval keys; /* what it may see; every key where it takes the mean */
    struct attn_row_masks masks;
    bool mean; /* sees nothing, and the caller wants the mean of all values */
};

/* Which blocks of a head's values were found finite. */
struct attn_finite {
    size_t head;
    uint64_t known, finite; /* of block i, bit i; blocks from 64 on are looked at each time */
};

struct attn_tile {
    const struct attn_problem *problem;
    const struct attn_gemm_kernel *gemm;
    const struct attn_attention_kernel *attention;
    const struct attn_workspace *workspace;
    size_t task;
    struct attn_scratch scratch; /* the task's */
    struct attn_finite finite;

    size_t head; /* b * kv_heads + kv_head */
    size_t b, kv_head, rows;
    struct attn_sequence sequence;
    size_t tiles;                /* of the sequence */
    struct attn_interval stored; /* keys whose values all tiles of the head find packed; else none */
    struct attn_interval first;  /* what its first row may see, where all see the same */
    struct attn_interval keys;   /* encloses the rows' */
    struct attn_interval core;   /* what every row sees, or empty; empty with masks */
    struct attn_tile_row row[ATTN_MAX_ROWS];

    struct attn_kv_view k, v; /* where the head's keys and values are found */

    float max[ATTN_MAX_ROWS], sum[ATTN_MAX_ROWS]; /* with scratch.output: of the spans so far */
    float span_max[ATTN_MAX_ROWS], span_sum[ATTN_MAX_ROWS];
    bool fresh; /* the span has no values yet: scratch.span_output is not initialised */
};

/* Takes up kv head number `head` of all sequences: where its keys are. */
void attn_tile_take_head(struct attn_tile *tile, size_t head);

static inline bool attn_tile_uses(const struct attn_tile *tile, uint32_t uses) {
    return tile->problem->plan.uses & uses;
}

/* Takes up tile number `index` of that head: its rows and what they see. */
void attn_tile_begin(struct attn_tile *tile, size_t index);

/* From here on the tile's keys may be read. All its spans, then its outputs. */
void attn_tile_run(struct attn_tile *tile);

/* The same in two steps: span number `span` from nothing to partial number `index`; then all spans, whose partials follow
 * from `index` on, merged in ascending order. */
void attn_tile_run_span(struct attn_tile *tile, size_t span, size_t index);
void attn_tile_merge(struct attn_tile *tile, size_t index);

#endif
