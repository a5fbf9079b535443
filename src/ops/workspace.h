/* The workspace of a call that takes tiles. Its plan says how large the parts are. */
#ifndef ATTN_OPS_WORKSPACE_H
#define ATTN_OPS_WORKSPACE_H

#include "ops/problem.h"

/* One task's scratch memory, for one tile of query rows. */
struct attn_scratch {
    void *query;                        /* [rows][head_size] of the products' type, scaled in class F32 */
    float *scores;                      /* [rows][ATTN_SCORE_STRIDE] */
    float *lanes;                       /* [rows][ATTN_LANES] */
    struct attn_tile_row *rows;         /* [rows]: see ops/tile.h */
    struct attn_block_rows *block_rows; /* see ops/blocks.h */
    float *output, *span_output;        /* [rows][output_stride]: of all spans so far, of this one */
    uint8_t *mask;                      /* [rows][ATTN_BLOCK]: see attn_mask_is_copied */
    float *bias;                        /* likewise */
    float *row;                         /* with rotary or types: a query, or a value, as floats */
    char *strip;                        /* likewise: see attn_key_rows */
    struct attn_store block;            /* of one block of keys, where streamed */
    struct attn_panels group;           /* in class BF16_TILE: of ATTN_TILE_K values, see ops/values.c */
    void *widened;                      /* for products over a cache of class BF16, attn_gemm_args.widened; else NULL */
};

/* Floats of a row of scores: a block and a cache line, so that the same column of all rows lies in different cache
 * sets. */
#define ATTN_SCORE_STRIDE (ATTN_BLOCK + 16)

struct attn_workspace {
    float *partials;           /* [plan.partials], see attn_partial_at */
    struct attn_store packed;  /* heads that this call packs before their tiles */
    struct attn_store tensors; /* the caller's */
    struct attn_kv_tensors kv; /* what `tensors` points to */
    char *scratches;           /* [plan.scratches][plan.scratch_bytes] */
};

/* A tile's state after one span of keys, if tasks share out its spans. */
struct attn_partial {
    float *max, *sum; /* [rows] */
    float *output;    /* [rows][output_stride] */
};

struct attn_partial attn_partial_at(const struct attn_problem *problem, const struct attn_workspace *workspace,
                                    size_t index);

/* Fills in the plan's scratch_bytes and workspace_bytes. False where a size does not fit. */
bool attn_workspace_measure(const struct attn_problem *problem, struct attn_plan *plan);

/* Lays out a workspace: `memory` holds workspace_bytes. */
void attn_workspace_lay_out(const struct attn_problem *problem, void *memory, struct attn_workspace *workspace);

/* The scratch memory of one task. */
void attn_scratch_lay_out(const struct attn_problem *problem, const struct attn_workspace *workspace, size_t task,
                          struct attn_scratch *scratch);

#endif
