#include "ops/output.h"

#include <math.h>
#include <string.h>

void attn_output_hide(const struct attn_tile *tile, size_t begin, size_t end) {
    const struct attn_problem *problem = tile->problem;
    float *outputs[] = {problem->options->scores, problem->options->weights};
    for (int which = 0; which < 2; which++)
        for (size_t r = 0; outputs[which] && r < tile->rows; r++) {
            float *row = outputs[which] + attn_tile_dense_row(tile, r) * problem->kv_len;
            for (size_t key = begin; key < end; key++)
                row[key] = -INFINITY;
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
        float *out = o->data + (problem->q_cu ? 0 : tile->b) * o->batch_stride + row->head * o->head_stride +
                     (tile->sequence.q_row + row->row) * o->row_stride;
        n = attn_tile_rows_at_one_distance(tile, r, o->head_stride, o->row_stride, &distance);
        tile->attention->normalize(n, problem->value_size, tile->scratch.output + r * stride, stride, inverse + r, out,
                                   distance);
    }
}

/* In a row of NaN the weight of a key that a mask hides would be one too. */
static void hide_weights(const struct attn_tile_row *row, float *weights) {
    for (size_t key = row->keys.begin; key < row->keys.end; key++)
        if (!attn_masks_leave(&row->masks, key))
            weights[key] = 0.0f;
}

/* From the logits that are there. */
static void write_weights(const struct attn_tile *tile, const float *inverse) {
    const struct attn_problem *problem = tile->problem;
    for (size_t r = 0; r < tile->rows; r++) {
        const struct attn_tile_row *row = &tile->row[r];
        float *weights = problem->options->weights + attn_tile_dense_row(tile, r) * problem->kv_len;
        float shift = tile->max[r] == -INFINITY ? 0.0f : tile->max[r];
        tile->attention->weights(weights, row->keys.begin, row->keys.end, problem->kv_len, shift, inverse[r], weights);
        if (isnan(inverse[r]))
            hide_weights(row, weights);
    }
}

static void write_log_sum_exp(const struct attn_tile *tile) {
    const struct attn_problem *problem = tile->problem;
    float logs[ATTN_MAX_ROWS];
    attn_table_elementary(problem->table)->log(tile->sum, logs, tile->rows);
    for (size_t r = 0; r < tile->rows; r++)
        problem->options->log_sum_exp[attn_tile_dense_row(tile, r)] =
            tile->sum[r] == 0.0f ? -INFINITY : tile->max[r] + logs[r];
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
