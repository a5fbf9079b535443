#include "ops/output.h"

#include <math.h>
#include <string.h>

void attn_output_hide(const struct attn_tile *tile, size_t begin, size_t end) {
    const struct attn_problem *problem = tile->problem;
    const attn_tensor_out *outputs[] = {&problem->scores, &problem->weights};
    for (int which = 0; which < 2; which++)
        for (size_t r = 0; outputs[which]->data && r < tile->rows; r++) {
            float *row = attn_tile_row_of(tile, r, outputs[which]);
            for (size_t key = begin; key < end; key++)
                row[key * outputs[which]->col_stride] = -INFINITY;
        }
}

/* A sink is a span of one key with a value of zero. */
static void add_sinks(struct attn_tile *tile) {
    const struct attn_problem *problem = tile->problem;
    struct attn_scratch *scratch = &tile->scratch;
    size_t stride = problem->plan.output_stride;
    for (size_t r = 0; r < tile->rows; r++) {
        tile->span_max[r] = problem->options->sinks[tile->row[r].head];
        tile->span_sum[r] = 1.0f;
    }
    memset(scratch->span_output, 0, tile->rows * stride * sizeof *scratch->output);
    tile->attention->merge(tile->rows, problem->value_size, tile->max, tile->sum, scratch->output, tile->span_max,
                           tile->span_sum, scratch->span_output, stride);
}

static void write_rows(const struct attn_tile *tile, const float *inverse) {
    const struct attn_problem *problem = tile->problem;
    const attn_tensor_out *o = &problem->o;
    size_t stride = problem->plan.output_stride;
    for (size_t r = 0, n, distance; r < tile->rows; r += n) {
        const struct attn_tile_row *row = &tile->row[r];
        void *out = attn_typed_row_out_at(o, attn_ints_given(&problem->q_cu) ? 0 : tile->b, row->head,
                                          tile->sequence.q_row + row->row);
        n = attn_tile_rows_at_one_distance(tile, r, o->head_stride, o->row_stride, &distance);
        struct attn_normalize_args args = {.rows = n,
                                           .size = problem->value_size,
                                           .output = tile->scratch.output + r * stride,
                                           .output_stride = stride,
                                           .inverse = inverse + r,
                                           .out = out,
                                           .out_stride = distance};
        if (o->type != ATTN_F32)
            tile->convert->normalize(o->type, &args);
        else
            tile->attention->normalize(n, args.size, args.output, stride, args.inverse, out, distance);
    }
}

/* In a row of NaN the weight of a key that a mask hides would be one too. */
static void hide_weights(const struct attn_tile *tile, const struct attn_tile_row *row, float *weights) {
    for (size_t key = row->keys.begin; key < row->keys.end; key++)
        if (!attn_masks_leave(tile->problem->options, &row->masks, key))
            weights[key * tile->problem->weights.col_stride] = 0.0f;
}

/* Weights that lie apart, from the logits that are there, a block at a time. */
static void write_apart(const struct attn_tile *tile, struct attn_interval keys, float shift, float inverse,
                        float *weights) {
    size_t n, cols = tile->problem->kv_len, stride = tile->problem->weights.col_stride;
    float block[ATTN_BLOCK];
    for (size_t key = 0; key < cols; key += n) {
        n = attn_min(cols - key, ATTN_BLOCK);
        for (size_t c = 0; c < n; c++)
            block[c] = weights[(key + c) * stride];
        size_t lo = attn_min(keys.begin - attn_min(keys.begin, key), n);
        size_t hi = attn_min(keys.end - attn_min(keys.end, key), n);
        tile->attention->weights(block, lo, hi, n, shift, inverse, block);
        for (size_t c = 0; c < n; c++)
            weights[(key + c) * stride] = block[c];
    }
}

/* From the logits that are there. */
static void write_weights(const struct attn_tile *tile, const float *inverse) {
    const struct attn_problem *problem = tile->problem;
    for (size_t r = 0; r < tile->rows; r++) {
        const struct attn_tile_row *row = &tile->row[r];
        float *weights = attn_tile_row_of(tile, r, &problem->weights);
        float shift = tile->max[r] == -INFINITY ? 0.0f : tile->max[r];
        if (problem->weights.col_stride == 1)
            tile->attention->weights(weights, row->keys.begin, row->keys.end, problem->kv_len, shift, inverse[r],
                                     weights);
        else
            write_apart(tile, row->keys, shift, inverse[r], weights);
        if (isnan(inverse[r]))
            hide_weights(tile, row, weights);
    }
}

static void write_log_sum_exp(const struct attn_tile *tile) {
    const struct attn_problem *problem = tile->problem;
    float logs[ATTN_MAX_ROWS];
    attn_table_elementary(problem->table)->log(tile->sum, logs, tile->rows);
    for (size_t r = 0; r < tile->rows; r++)
        *attn_tile_row_of(tile, r, &problem->log_sum_exp) = tile->sum[r] == 0.0f ? -INFINITY : tile->max[r] + logs[r];
}

void attn_output_write(struct attn_tile *tile) {
    float inverse[ATTN_MAX_ROWS];
    if (attn_tile_uses(tile, ATTN_USE_SINKS))
        add_sinks(tile);
    for (size_t r = 0; r < tile->rows; r++)
        inverse[r] = tile->sum[r] == 0.0f ? 0.0f : 1.0f / tile->sum[r];
    write_rows(tile, inverse);
    if (attn_tile_uses(tile, ATTN_USE_WEIGHTS))
        write_weights(tile, inverse);
    if (attn_tile_uses(tile, ATTN_USE_LOG_SUM_EXP))
        write_log_sum_exp(tile);
}
