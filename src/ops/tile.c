#include "ops/tile.h"

#include <math.h>
#include <string.h>

#include "ops/block.h"
#include "ops/keys.h"

/* Floats of a cache line. */
enum { LINE = 16 };

/* ---- Rows ---- */

static void describe_row(struct attn_tile *tile, struct attn_tile_row *row) {
    const struct attn_problem *problem = tile->problem;
    const attn_options *options = problem->options;
    row->keys = !attn_tile_uses(tile, ATTN_USE_ROW_INTERVALS)
                    ? tile->first
                    : attn_row_interval(problem, &tile->sequence, tile->b, row->row);
    row->mean = false;
    row->masks = (struct attn_row_masks){NULL, NULL};
    if (!attn_tile_uses(tile, ATTN_USE_LOGITS))
        return;
    if (attn_tile_uses(tile, ATTN_USE_MASKS))
        row->masks = attn_row_masks_of(problem, tile->b, row->head, row->row);
    if (options->empty == ATTN_EMPTY_ZERO || options->sinks)
        return;
    for (size_t key = row->keys.begin; key < row->keys.end; key++)
        if (attn_masks_leave(&row->masks, key))
            return;
    row->mean = true;
    row->keys = (struct attn_interval){tile->sequence.kept, tile->sequence.kv_len};
}

/* The keys that a row sees, which the tile's enclose, and it encloses the core. */
static void enclose(struct attn_tile *tile, struct attn_interval keys) {
    tile->core.begin = attn_max(tile->core.begin, keys.begin);
    tile->core.end = attn_min(tile->core.end, keys.end);
    if (keys.begin == keys.end)
        return;
    bool first = tile->keys.begin == tile->keys.end;
    tile->keys.begin = first ? keys.begin : attn_min(tile->keys.begin, keys.begin);
    tile->keys.end = attn_max(tile->keys.end, keys.end);
}

/* Tiles of nearly equal height, so that the last is not a sliver; the first are the tallest. */
static size_t tile_rows_of(const struct attn_tile *tile, size_t index) {
    size_t total = tile->sequence.q_len * tile->problem->group;
    return total / tile->tiles + (index < total % tile->tiles);
}

/* What the rows of the tile see, and what encloses that. */
static void describe_rows(struct attn_tile *tile) {
    tile->keys = (struct attn_interval){0, 0};
    tile->core = (struct attn_interval){0, attn_tile_uses(tile, ATTN_USE_MASKS) ? 0 : SIZE_MAX};
    for (size_t r = 0; r < tile->rows; r++) {
        describe_row(tile, &tile->row[r]);
        enclose(tile, tile->row[r].keys);
    }
}

/* Whether all tiles of a head are the same but for their queries and outputs. */
static bool tiles_are_alike(const struct attn_tile *tile) {
    return !attn_tile_uses(tile, ATTN_USE_ROW_INTERVALS | ATTN_USE_LOGITS);
}

void attn_tile_take_head(struct attn_tile *tile, size_t head) {
    const struct attn_problem *problem = tile->problem;
    tile->head = head;
    tile->b = head / problem->kv_heads;
    tile->kv_head = head % problem->kv_heads;
    tile->sequence = attn_sequence_of(problem, tile->b);
    tile->tiles = attn_tiles_of(&problem->plan, tile->sequence.q_len * problem->group);
    if (!attn_tile_uses(tile, ATTN_USE_ROW_INTERVALS))
        tile->first = attn_row_interval(problem, &tile->sequence, tile->b, 0);
    attn_keys_find(tile);
    if (tiles_are_alike(tile) && tile->tiles > 0) {
        tile->rows = tile_rows_of(tile, 0);
        describe_rows(tile);
    }
}

void attn_tile_begin(struct attn_tile *tile, size_t index) {
    const struct attn_problem *problem = tile->problem;
    size_t total = tile->sequence.q_len * problem->group, tiles = tile->tiles;
    size_t begin = index * (total / tiles) + attn_min(index, total % tiles);
    size_t query = begin / problem->group, member = begin % problem->group;
    tile->rows = tile_rows_of(tile, index);
    for (size_t r = 0; r < tile->rows; r++) {
        tile->row[r].row = query;
        tile->row[r].head = tile->kv_head * problem->group + member;
        if (++member == problem->group) {
            member = 0;
            query++;
        }
    }
    if (!tiles_are_alike(tile))
        describe_rows(tile);
}

static const float *query_at(const struct attn_tile *tile, size_t head, size_t row) {
    const attn_tensor *q = &tile->problem->q;
    return q->data + (tile->problem->q_cu ? 0 : tile->b) * q->batch_stride + head * q->head_stride +
           (tile->sequence.q_row + row) * q->row_stride;
}

/* The queries of the next tile of one head, which would be waited for line by line. */
static void fetch_next_queries(const struct attn_tile *tile) {
    const struct attn_problem *problem = tile->problem;
    size_t next = tile->row[0].row + tile->rows, left = tile->sequence.q_len - attn_min(next, tile->sequence.q_len);
    if (problem->group > 1 || left == 0)
        return;
    const float *x = query_at(tile, tile->row[0].head, next);
    for (size_t r = attn_min(left, tile->rows); r > 0; r--, x += problem->q.row_stride)
        for (size_t j = 0; j < problem->head_size; j += LINE)
            __builtin_prefetch(x + j);
    __asm__ volatile(""); /* or gcc takes a function that only fetches for one that does nothing */
}

/* How many rows from r on lie at one distance in a tensor: those of one head, or the heads of one query. */
static size_t rows_at_one_distance(const struct attn_tile *tile, size_t r, size_t head_stride, size_t row_stride,
                                   size_t *distance) {
    bool one_head = tile->problem->group == 1;
    *distance = one_head ? row_stride : head_stride;
    if (one_head)
        return tile->rows - r;
    size_t end = r + 1;
    while (end < tile->rows && tile->row[end].row == tile->row[r].row)
        end++;
    return end - r;
}

static void scale_queries(const struct attn_tile *tile) {
    const struct attn_problem *problem = tile->problem;
    for (size_t r = 0, n, distance; r < tile->rows; r += n) {
        n = rows_at_one_distance(tile, r, problem->q.head_stride, problem->q.row_stride, &distance);
        tile->attention->scale(n, problem->head_size, query_at(tile, tile->row[r].head, tile->row[r].row), distance,
                               problem->scale, tile->scratch.query + r * problem->head_size, problem->head_size);
    }
}

/* Rows that see nothing need no position that the table has. */
static void turn_queries(const struct attn_tile *tile) {
    const struct attn_problem *problem = tile->problem;
    const attn_options *options = problem->options;
    int64_t offset = options->rotary_offsets ? options->rotary_offsets[tile->b] : 0;
    for (size_t r = 0; r < tile->rows; r++) {
        const struct attn_tile_row *row = &tile->row[r];
        const float *x = query_at(tile, row->head, row->row);
        float *query = tile->scratch.query + r * problem->head_size;
        if (!row->mean && row->keys.begin < row->keys.end) {
            size_t position = (size_t)tile->sequence.position + row->row + (size_t)offset;
            attn_rotary_turn(tile->attention, options->rotary, position, x, problem->head_size, query);
            x = query;
        }
        tile->attention->scale(1, problem->head_size, x, 0, problem->scale, query, 0);
    }
}

static void take_queries(const struct attn_tile *tile) {
    if (attn_tile_uses(tile, ATTN_USE_ROTARY))
        turn_queries(tile);
    else
        scale_queries(tile);
}

/* ---- Spans ---- */

/* Span number `span` from nothing: into span_max, span_sum and span_output. */
static void run_span(struct attn_tile *tile, size_t span) {
    struct attn_scratch *scratch = &tile->scratch;
    size_t begin = attn_max(span * ATTN_SPAN, tile->keys.begin / ATTN_BLOCK * ATTN_BLOCK);
    size_t end = attn_min(span * ATTN_SPAN + ATTN_SPAN, tile->keys.end);
    for (size_t r = 0; r < tile->rows; r++)
        tile->span_max[r] = -INFINITY;
    memset(scratch->lanes, 0, tile->rows * ATTN_LANES * sizeof(float));
    tile->fresh = true;
    for (size_t n = attn_blocks_at_once(tile) * ATTN_BLOCK; begin < end; begin += n)
        attn_blocks_run(tile, begin, attn_min(begin + n, end));
    if (tile->fresh)
        attn_block_clear_output(tile);
    tile->attention->sum(tile->rows, scratch->lanes, tile->span_sum);
}

/* The first span's result is the total so far; a later one's is merged into it. */
static void take_span(struct attn_tile *tile, bool first, const struct attn_partial *partial) {
    struct attn_scratch *scratch = &tile->scratch;
    size_t stride = tile->problem->plan.output_stride;
    if (!first) {
        tile->attention->merge(tile->rows, tile->problem->value_size, tile->max, tile->sum, scratch->output,
                               partial->max, partial->sum, partial->output, stride);
        return;
    }
    memcpy(tile->max, partial->max, tile->rows * sizeof(float));
    memcpy(tile->sum, partial->sum, tile->rows * sizeof(float));
    if (partial->output == scratch->span_output) {
        scratch->span_output = scratch->output;
        scratch->output = partial->output;
    } else {
        memcpy(scratch->output, partial->output, tile->rows * stride * sizeof(float));
    }
}

/* A sink is a span of one key with a value of zero. */
static void add_sinks(struct attn_tile *tile) {
    const struct attn_problem *problem = tile->problem;
    size_t stride = problem->plan.output_stride;
    for (size_t r = 0; r < tile->rows; r++) {
        tile->span_max[r] = problem->options->sinks[tile->row[r].head];
        tile->span_sum[r] = 1.0f;
    }
    attn_block_clear_output(tile);
    tile->attention->merge(tile->rows, problem->value_size, tile->max, tile->sum, tile->scratch.output, tile->span_max,
                           tile->span_sum, tile->scratch.span_output, stride);
}

/* ---- Outputs ---- */

/* Index of row r in [batch, heads, q_len]. */
static size_t dense_row(const struct attn_tile *tile, size_t r) {
    const struct attn_problem *problem = tile->problem;
    return (tile->b * problem->heads + tile->row[r].head) * problem->q_len + tile->row[r].row;
}

/* Before the blocks fill in what rows see. Keys that other sequences have and this one has not are hidden too. */
static void hide_scores(const struct attn_tile *tile, size_t begin, size_t end) {
    const struct attn_problem *problem = tile->problem;
    float *outputs[] = {problem->options->scores, problem->options->weights};
    for (int which = 0; which < 2; which++)
        for (size_t r = 0; outputs[which] && r < tile->rows; r++) {
            float *row = outputs[which] + dense_row(tile, r) * problem->kv_len;
            for (size_t key = begin; key < end; key++)
                row[key] = -INFINITY;
        }
}

static void store_log_sum_exp(const struct attn_tile *tile) {
    const struct attn_problem *problem = tile->problem;
    float logs[ATTN_MAX_ROWS];
    attn_table_elementary(problem->table)->log(tile->sum, logs, tile->rows);
    for (size_t r = 0; r < tile->rows; r++)
        problem->options->log_sum_exp[dense_row(tile, r)] = tile->sum[r] == 0.0f ? -INFINITY : tile->max[r] + logs[r];
}

/* In a row of NaN the weight of a key that a mask hides would be one too. */
static void hide_weights(const struct attn_tile_row *row, float *weights) {
    for (size_t key = row->keys.begin; key < row->keys.end; key++)
        if (!attn_masks_leave(&row->masks, key))
            weights[key] = 0.0f;
}

static void store_output(const struct attn_tile *tile, const float *inverse) {
    const struct attn_problem *problem = tile->problem;
    const attn_tensor_out *o = &problem->o;
    size_t stride = problem->plan.output_stride;
    for (size_t r = 0, n, distance; r < tile->rows; r += n) {
        const struct attn_tile_row *row = &tile->row[r];
        float *out = o->data + (problem->q_cu ? 0 : tile->b) * o->batch_stride + row->head * o->head_stride +
                     (tile->sequence.q_row + row->row) * o->row_stride;
        n = rows_at_one_distance(tile, r, o->head_stride, o->row_stride, &distance);
        tile->attention->finish(n, problem->value_size, tile->scratch.output + r * stride, stride, inverse + r, out,
                                distance);
    }
}

static void store_weights(const struct attn_tile *tile, const float *inverse) {
    const struct attn_problem *problem = tile->problem;
    for (size_t r = 0; r < tile->rows; r++) {
        const struct attn_tile_row *row = &tile->row[r];
        float *weights = problem->options->weights + dense_row(tile, r) * problem->kv_len;
        float shift = tile->max[r] == -INFINITY ? 0.0f : tile->max[r];
        tile->attention->weights(weights, row->keys.begin, row->keys.end, problem->kv_len, shift, inverse[r], weights);
        if (isnan(inverse[r]))
            hide_weights(row, weights);
    }
}

static void store(struct attn_tile *tile) {
    const struct attn_problem *problem = tile->problem;
    float inverse[ATTN_MAX_ROWS];
    if (problem->options->sinks)
        add_sinks(tile);
    for (size_t r = 0; r < tile->rows; r++)
        inverse[r] = tile->sum[r] == 0.0f ? 0.0f : 1.0f / tile->sum[r];
    store_output(tile, inverse);
    if (problem->options->weights)
        store_weights(tile, inverse);
    if (problem->options->log_sum_exp)
        store_log_sum_exp(tile);
}

/* ---- A tile ---- */

void attn_tile_run(struct attn_tile *tile) {
    take_queries(tile);
    fetch_next_queries(tile);
    hide_scores(tile, 0, tile->problem->kv_len);
    size_t first = tile->keys.begin / ATTN_SPAN, span = first;
    do {
        run_span(tile, span);
        take_span(tile, span == first,
                  &(struct attn_partial){tile->span_max, tile->span_sum, tile->scratch.span_output});
    } while (++span * ATTN_SPAN < tile->keys.end);
    store(tile);
}

void attn_tile_run_span(struct attn_tile *tile, size_t span, size_t index) {
    struct attn_partial partial = attn_partial_at(tile->problem, tile->workspace, index);
    bool last = span + 1 == tile->problem->plan.spans; /* takes what lies behind the longest sequence as well */
    hide_scores(tile, span * ATTN_SPAN, last ? tile->problem->kv_len : (span + 1) * ATTN_SPAN);
    take_queries(tile);
    float *own = tile->scratch.span_output;
    tile->scratch.span_output = partial.output;
    run_span(tile, span);
    tile->scratch.span_output = own;
    memcpy(partial.max, tile->span_max, tile->rows * sizeof(float));
    memcpy(partial.sum, tile->span_sum, tile->rows * sizeof(float));
}

void attn_tile_merge(struct attn_tile *tile, size_t index) {
    size_t first = tile->keys.begin / ATTN_SPAN, span = first;
    do {
        struct attn_partial partial = attn_partial_at(tile->problem, tile->workspace, index + span);
        take_span(tile, span == first, &partial);
    } while (++span * ATTN_SPAN < tile->keys.end);
    store(tile);
}
