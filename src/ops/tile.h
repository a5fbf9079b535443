/* A tile: query rows that pass over the keys and values of one kv head together. Its state, which the phases share:
 *
 *   rows.c              takes up a head and some of its rows, and what they may see; takes queries
 *   blocks.c            describes what the rows see of some blocks of keys
 *   scores.c            the first product, and logits from it
 *   online_softmax.c    probabilities, and the factors that rescale earlier values
 *   values.c            the second product, added to what the span has so far
 *   output.c            normalizes and writes what a tile has computed
 *   spans.c             takes these in this order, block by block and span by span */
#ifndef ATTN_OPS_TILE_H
#define ATTN_OPS_TILE_H

#include "ops/visible.h"
#include "ops/workspace.h"

/* Row r of a tile is query row `row` of head `head`; rows of the heads that share a kv head are neighbours. */
struct attn_tile_row {
    size_t row, head;
    struct attn_interval keys; /* what it may see; every key where it takes the mean */
    struct attn_row_masks masks;
    bool takes_mean; /* it sees nothing, and the caller wants the mean of all values */
};

/* Which blocks of a head's values were found finite. */
struct attn_finite {
    size_t head;
    uint64_t known, finite; /* bit i is block i; later blocks than 63 are looked at each time */
};

struct attn_tile {
    const struct attn_problem *problem;
    const struct attn_gemm_kernel *gemm;
    const struct attn_decode_kernel *decode; /* of the type of keys and values; NULL where there is none */
    const struct attn_attention_kernel *attention;
    const struct attn_convert_kernel *convert;
    const struct attn_workspace *workspace;
    size_t task;
    struct attn_scratch scratch; /* the task's */

    /* The head that it has taken up: */
    size_t head; /* b * kv_heads + kv_head */
    size_t b, kv_head;
    struct attn_sequence sequence;
    size_t tiles;                   /* that the sequence's rows make */
    struct attn_interval every_row; /* what each row may see, if all rows may see the same */
    struct attn_kv_view k, v;       /* where its keys and values are found */
    struct attn_interval stored;    /* keys whose values lie packed for all tiles of the head; may be empty */
    struct attn_finite finite;

    /* The rows: */
    size_t rows;
    struct attn_interval keys;   /* encloses what they may see */
    struct attn_interval common; /* what each of them sees; may be empty, and is with masks */
    struct attn_tile_row *row;   /* scratch.rows */
    const void *query;           /* as the products take them; scratch.query, or the caller's */
    size_t query_stride;         /* bytes */

    /* What they have accumulated: */
    float max[ATTN_MAX_ROWS], sum[ATTN_MAX_ROWS]; /* over the spans so far, with scratch.output */
    float span_max[ATTN_MAX_ROWS], span_sum[ATTN_MAX_ROWS];
    bool span_has_values; /* else scratch.span_output is not initialised */
};

/* Whether the tile has so few rows that the decode kernel computes its products. */
static inline bool attn_tile_decodes(const struct attn_tile *tile) {
    bool in_place = tile->problem->plan.path == ATTN_PATH_IN_PLACE;
    return tile->decode && tile->rows <= (in_place ? tile->decode->rows_in_place : tile->decode->rows_in_turns);
}

/* One of a decode kernel's products over panels: as many rows at a time as it takes. Moves `args` behind them. */
static inline void attn_tile_decode_in_turns(const struct attn_tile *tile,
                                             void (*product)(const struct attn_decode_args *),
                                             struct attn_decode_args *args) {
    for (size_t left = args->rows; left > 0; left -= args->rows) {
        args->rows = attn_min(left, tile->decode->rows);
        product(args);
        args->x = (const char *)args->x + args->rows * args->x_stride;
        args->y += args->rows * args->y_stride;
        if (args->factors)
            args->factors += args->rows;
    }
}

static inline bool attn_tile_is_bf16(const struct attn_tile *tile) {
    return attn_class_is_bf16(tile->problem->plan.arithmetic);
}

static inline bool attn_tile_uses(const struct attn_tile *tile, uint32_t uses) {
    return tile->problem->plan.uses & uses;
}

/* x[r][c] = x[r][c] times the scale of key number c, for r < rows, c < n. */
static inline void attn_tile_scale_columns(const struct attn_tile *tile, size_t rows, size_t n, float *x, size_t stride,
                                           const struct attn_scales *scales) {
    if (scales->step > 0)
        tile->attention->scale_columns(rows, n, x, stride, scales->data);
    else
        tile->attention->scale(rows, n, x, stride, *scales->data, x, stride);
}

/* Row r of an output [batch, heads, q_len, ...]. */
static inline float *attn_tile_row_of(const struct attn_tile *tile, size_t r, const attn_tensor_out *y) {
    return attn_row_out_at(y, tile->b, tile->row[r].head, tile->row[r].row);
}

/* How many rows from r on lie at one distance from each other in a tensor: those of one head, or the heads of one
 * query. */
static inline size_t attn_tile_rows_at_one_distance(const struct attn_tile *tile, size_t r, size_t head_stride,
                                                    size_t row_stride, size_t *distance) {
    bool one_head = tile->problem->group == 1;
    *distance = one_head ? row_stride : head_stride;
    if (one_head)
        return tile->rows - r;
    size_t end = r + 1;
    while (end < tile->rows && tile->row[end].row == tile->row[r].row)
        end++;
    return end - r;
}

#endif
