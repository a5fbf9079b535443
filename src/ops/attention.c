#include "ops/attention.h"

#include <math.h>
#include <string.h>

#include "ops/dropout.h"
#include "ops/softmax.h"

/* Floats between two rows of scores: a block and a cache line, so that rows do not share cache sets. */
#define SCORE_STRIDE (ATTN_BLOCK + 16)

/* Below this many multiply-adds waking another thread costs more than it saves. */
#define PARALLEL_WORK (1u << 18)

static size_t min_size(size_t a, size_t b) {
    return a < b ? a : b;
}

static size_t output_stride(const struct attn_problem *problem) {
    return (problem->value_size + 15) / 16 * 16;
}

/* ---- Workspace ---- */

static void scratch_layout(struct attn_problem *problem, struct attn_scratch *scratch, struct attn_carve *carve) {
    size_t rows = attn_table_gemm(problem->table)->rows, row = sizeof(float) * rows;
    scratch->query = attn_carve_take(carve, problem->head_size, row);
    scratch->scores = attn_carve_take(carve, SCORE_STRIDE, row);
    scratch->lanes = attn_carve_take(carve, ATTN_LANES, row);
    scratch->output = attn_carve_take(carve, output_stride(problem), row);
    scratch->span_output = attn_carve_take(carve, output_stride(problem), row);
    if (problem->source == ATTN_SOURCE_STREAMED) {
        float *keys = attn_carve_take(carve, problem->shape.key_floats, sizeof(float));
        float *values = attn_carve_take(carve, problem->shape.value_floats, sizeof(float));
        if (carve->base)
            scratch->block = attn_panels_at(&problem->shape, keys, values, 0);
    }
}

/* Tiles of nearly equal height, so that the last is not a sliver. */
static size_t tile_begin(const struct attn_problem *problem, size_t tile) {
    size_t rows = problem->q_len * problem->group, rest = rows % problem->tiles;
    return tile * (rows / problem->tiles) + min_size(tile, rest);
}

static size_t task_count(const struct attn_problem *problem, size_t items) {
    double work = (double)problem->batch * (double)problem->heads * (double)problem->q_len * (double)problem->kv_len *
                  (double)(problem->head_size + problem->value_size);
    return work < PARALLEL_WORK ? 1 : min_size(attn_threads(problem->options->parallel), items);
}

void attn_problem_layout(struct attn_problem *problem, const struct attn_cache *cache, struct attn_carve *carve) {
    const struct attn_gemm_kernel *gemm = attn_table_gemm(problem->table);
    size_t rows, heads, items;
    if (!attn_mul(problem->q_len, problem->group, &rows) || !attn_mul(problem->batch, problem->kv_heads, &heads)) {
        carve->overflow = true;
        return;
    }
    problem->tiles = rows / gemm->rows + (rows % gemm->rows != 0);
    if (!attn_mul(heads, problem->tiles, &items)) {
        carve->overflow = true;
        return;
    }
    problem->tasks = task_count(problem, items);
    problem->all_packed = false;
    if (cache) {
        problem->source = ATTN_SOURCE_CACHE;
        problem->shape = cache->shape;
        problem->keys = cache->keys;
        problem->values = cache->values;
    } else {
        problem->source = problem->tiles <= 1 ? ATTN_SOURCE_STREAMED : ATTN_SOURCE_PACKED;
        size_t keys = problem->source == ATTN_SOURCE_PACKED ? problem->kv_len : min_size(problem->kv_len, ATTN_BLOCK);
        if (!attn_panel_shape_init(&problem->shape, gemm, problem->head_size, problem->value_size, keys))
            carve->overflow = true;
    }
    if (problem->source == ATTN_SOURCE_PACKED) {
        problem->all_packed = problem->tasks > 1;
        size_t count = problem->all_packed ? heads : 1, bytes;
        if (!attn_mul(count, sizeof(float), &bytes))
            carve->overflow = true;
        problem->keys = attn_carve_take(carve, problem->shape.key_floats, bytes);
        problem->values = attn_carve_take(carve, problem->shape.value_floats, bytes);
    }
    struct attn_scratch *scratch = attn_carve_take(carve, problem->tasks, sizeof *scratch), measured;
    problem->scratch = scratch;
    if (carve->base || problem->tasks == 1) {
        for (size_t t = 0; t < problem->tasks; t++)
            scratch_layout(problem, scratch ? &scratch[t] : &measured, carve);
    } else {
        /* Measuring many tasks: all are alike. */
        struct attn_carve one = {0};
        scratch_layout(problem, &measured, &one);
        carve->overflow |= one.overflow;
        attn_carve_take(carve, problem->tasks, one.used);
    }
}

/* ---- Keys and values ---- */

static void append(const struct attn_problem *problem, const struct attn_panels *panels, size_t b, size_t kv_head,
                   size_t first, size_t begin, size_t count) {
    const attn_tensor *k = &problem->k, *v = &problem->v;
    attn_panels_append(&problem->shape, panels, first, count,
                       k->data + b * k->batch_stride + kv_head * k->head_stride + begin * k->row_stride, k->row_stride,
                       v->data + b * v->batch_stride + kv_head * v->head_stride + begin * v->row_stride, v->row_stride);
}

/* ---- Which keys a query row sees ---- */

/* Query row `i` of sequence `b` sees keys 0 .. visible - 1. */
static size_t visible_keys(const struct attn_problem *problem, size_t b, size_t i) {
    const attn_options *options = problem->options;
    size_t visible = attn_valid_len(&options->valid, b, i, problem->q_len, problem->kv_len);
    if (options->causal == ATTN_CAUSAL_TOP_LEFT)
        return min_size(visible, i + 1);
    if (options->causal == ATTN_CAUSAL_BOTTOM_RIGHT) {
        size_t after = problem->q_len - 1 - i; /* query rows below this one */
        return min_size(visible, problem->kv_len > after ? problem->kv_len - after : 0);
    }
    return visible;
}

size_t attn_problem_visible(const struct attn_problem *problem, size_t b) {
    if (problem->options->empty == ATTN_EMPTY_MEAN)
        return problem->kv_len;
    if (problem->options->valid.kind != ATTN_VALID_PER_ROW)
        return visible_keys(problem, b, problem->q_len - 1);
    size_t most = 0;
    for (size_t i = 0; i < problem->q_len; i++) {
        size_t visible = visible_keys(problem, b, i);
        most = visible > most ? visible : most;
    }
    return most;
}

/* ---- A tile of query rows ---- */

/* Row r of a tile is query row `row` of head `head`; rows of the heads that share a kv head are neighbours. */
struct tile_row {
    size_t row, head;
    size_t visible;
    bool mean; /* empty, and the caller wants the mean of all values */
};

struct tile {
    const struct attn_problem *problem;
    const struct attn_gemm_kernel *gemm;
    const struct attn_attention_kernel *attention;
    struct attn_scratch *scratch;
    struct attn_panels panels;
    size_t b, kv_head, rows;
    size_t keys; /* the most that a row sees */
    struct tile_row row[ATTN_MAX_ROWS];
    float max[ATTN_MAX_ROWS], sum[ATTN_MAX_ROWS];
    float span_max[ATTN_MAX_ROWS], span_sum[ATTN_MAX_ROWS];
};

static void describe_rows(struct tile *tile, size_t begin) {
    const struct attn_problem *problem = tile->problem;
    size_t query = begin / problem->group, member = begin % problem->group;
    tile->keys = 0;
    for (size_t r = 0; r < tile->rows; r++) {
        struct tile_row *row = &tile->row[r];
        row->row = query;
        row->head = tile->kv_head * problem->group + member;
        if (++member == problem->group) {
            member = 0;
            query++;
        }
        row->visible = visible_keys(problem, tile->b, row->row);
        row->mean = row->visible == 0 && problem->options->empty == ATTN_EMPTY_MEAN;
        if (row->mean)
            row->visible = problem->kv_len;
        tile->keys = row->visible > tile->keys ? row->visible : tile->keys;
    }
}

static void scale_queries(const struct tile *tile) {
    const struct attn_problem *problem = tile->problem;
    const attn_tensor *q = &problem->q;
    for (size_t r = 0; r < tile->rows; r++)
        tile->attention->scale(q->data + tile->b * q->batch_stride + tile->row[r].head * q->head_stride +
                                   tile->row[r].row * q->row_stride,
                               problem->scale, tile->scratch->query + r * problem->head_size, problem->head_size);
}

/* Where a row's weights go: dense [batch, heads, q_len, kv_len]. */
static float *weights_row(const struct tile *tile, size_t r) {
    const struct attn_problem *problem = tile->problem;
    size_t row = (tile->b * problem->heads + tile->row[r].head) * problem->q_len + tile->row[r].row;
    return problem->options->weights + row * problem->kv_len;
}

/* Logits of keys begin .. begin + n - 1. */
static void score(const struct tile *tile, size_t begin, size_t n) {
    const struct attn_problem *problem = tile->problem;
    float *scores = tile->scratch->scores;
    tile->gemm->run(
        &(struct attn_gemm_args){.m = tile->rows,
                                 .n = n,
                                 .k = problem->head_size,
                                 .a = tile->scratch->query,
                                 .a_stride = problem->head_size,
                                 .b = tile->panels.keys + begin / tile->gemm->cols * tile->panels.key_panel_stride,
                                 .panel_stride = tile->panels.key_panel_stride,
                                 .c = scores,
                                 .c_stride = SCORE_STRIDE});
    for (size_t r = 0; r < tile->rows; r++)
        if (tile->row[r].mean)
            memset(scores + r * SCORE_STRIDE, 0, n * sizeof *scores);
}

static void drop(const struct tile *tile, size_t key, size_t n) {
    const attn_options *options = tile->problem->options;
    struct attn_dropout dropout = {.probability = options->dropout, .seed = options->dropout_seed};
    for (size_t r = 0; r < tile->rows; r++)
        attn_dropout_apply(&dropout, tile->b * tile->problem->heads + tile->row[r].head, tile->row[r].row, key,
                           tile->scratch->scores + r * SCORE_STRIDE, n);
}

/* output[rows from `first`] += probabilities[.., begin .. end - 1] values. */
static void accumulate(const struct tile *tile, size_t base, size_t first, size_t rows, size_t begin, size_t end) {
    const struct attn_problem *problem = tile->problem;
    size_t stride = output_stride(problem);
    if (begin < end)
        tile->gemm->run(&(struct attn_gemm_args){.m = rows,
                                                 .n = problem->value_size,
                                                 .k = end - begin,
                                                 .a = tile->scratch->scores + first * SCORE_STRIDE + begin,
                                                 .a_stride = SCORE_STRIDE,
                                                 .b = tile->panels.values + (base + begin) * tile->gemm->cols,
                                                 .panel_stride = tile->panels.value_panel_stride,
                                                 .accumulate = 1,
                                                 .c = tile->scratch->span_output + first * stride,
                                                 .c_stride = stride});
}

static bool values_finite(const struct tile *tile, size_t key, size_t n) {
    size_t cols = tile->gemm->cols;
    for (size_t c = 0; c < tile->problem->value_size; c += cols)
        if (!tile->attention->all_finite(tile->panels.values + c / cols * tile->panels.value_panel_stride + key * cols,
                                         n * cols))
            return false;
    return true;
}

/* Where rows end at different keys, the others' zero probabilities would carry an infinity or NaN in a value to rows that do
 * not see it; finite values they leave alone, but for the sign of a zero, which `finish` makes +0. */
static void add_values(const struct tile *tile, const uint32_t *hi, size_t base, size_t n) {
    size_t common = n;
    for (size_t r = 0; r < tile->rows; r++)
        common = min_size(common, hi[r]);
    if (common == n || values_finite(tile, base + common, n - common)) {
        accumulate(tile, base, 0, tile->rows, 0, n);
        return;
    }
    accumulate(tile, base, 0, tile->rows, 0, common);
    for (size_t r = 0; r < tile->rows; r++)
        accumulate(tile, base, r, 1, common, hi[r]);
}

/* Keys begin .. begin + n - 1; panels hold them from key `base` on. */
static void run_block(struct tile *tile, size_t begin, size_t n) {
    const struct attn_problem *problem = tile->problem;
    static const uint32_t lo[ATTN_MAX_ROWS];
    uint32_t hi[ATTN_MAX_ROWS];
    size_t base = begin;
    if (problem->source == ATTN_SOURCE_STREAMED) {
        append(problem, &tile->panels, tile->b, tile->kv_head, 0, begin, n);
        base = 0;
    }
    for (size_t r = 0; r < tile->rows; r++) {
        size_t visible = tile->row[r].visible;
        hi[r] = (uint32_t)(visible > begin ? min_size(visible - begin, n) : 0);
    }
    score(tile, base, n);
    if (problem->options->weights)
        for (size_t r = 0; r < tile->rows; r++)
            memcpy(weights_row(tile, r) + begin, tile->scratch->scores + r * SCORE_STRIDE, n * sizeof(float));
    tile->attention->block(&(struct attn_block_args){.rows = tile->rows,
                                                     .scores = tile->scratch->scores,
                                                     .score_stride = SCORE_STRIDE,
                                                     .lo = lo,
                                                     .hi = hi,
                                                     .begin = 0,
                                                     .end = (n + 15) / 16 * 16,
                                                     .max = tile->span_max,
                                                     .lanes = tile->scratch->lanes,
                                                     .output = tile->scratch->span_output,
                                                     .output_stride = output_stride(problem),
                                                     .size = problem->value_size});
    if (problem->options->dropout > 0.0f)
        drop(tile, begin, n);
    add_values(tile, hi, base, n);
}

/* Keys begin .. end - 1 of one span, from nothing: into span_max, span_sum and span_output. */
static void run_span(struct tile *tile, size_t begin, size_t end) {
    struct attn_scratch *scratch = tile->scratch;
    for (size_t r = 0; r < tile->rows; r++)
        tile->span_max[r] = -INFINITY;
    memset(scratch->lanes, 0, tile->rows * ATTN_LANES * sizeof(float));
    memset(scratch->span_output, 0, tile->rows * output_stride(tile->problem) * sizeof(float));
    for (size_t block = begin; block < end; block += ATTN_BLOCK)
        run_block(tile, block, min_size(end - block, ATTN_BLOCK));
    tile->attention->sum(tile->rows, scratch->lanes, tile->span_sum);
}

/* The first span's result is the total so far; a later one's is merged into it. */
static void take_span(struct tile *tile, bool first) {
    struct attn_scratch *scratch = tile->scratch;
    if (!first) {
        tile->attention->merge(tile->rows, tile->problem->value_size, tile->max, tile->sum, scratch->output,
                               tile->span_max, tile->span_sum, scratch->span_output, output_stride(tile->problem));
        return;
    }
    memcpy(tile->max, tile->span_max, sizeof tile->max);
    memcpy(tile->sum, tile->span_sum, sizeof tile->sum);
    float *swapped = scratch->output;
    scratch->output = scratch->span_output;
    scratch->span_output = swapped;
}

static void store_log_sum_exp(const struct tile *tile) {
    const struct attn_problem *problem = tile->problem;
    float logs[ATTN_MAX_ROWS];
    attn_table_elementary(problem->table)->log(tile->sum, logs, tile->rows);
    for (size_t r = 0; r < tile->rows; r++) {
        size_t row = (tile->b * problem->heads + tile->row[r].head) * problem->q_len + tile->row[r].row;
        problem->options->log_sum_exp[row] = tile->sum[r] == 0.0f ? -INFINITY : tile->max[r] + logs[r];
    }
}

static void store(const struct tile *tile) {
    const struct attn_problem *problem = tile->problem;
    const attn_tensor_out *o = &problem->o;
    for (size_t r = 0; r < tile->rows; r++) {
        const struct tile_row *row = &tile->row[r];
        float inverse = tile->sum[r] == 0.0f ? 0.0f : 1.0f / tile->sum[r];
        tile->attention->finish(tile->scratch->output + r * output_stride(problem), inverse,
                                o->data + tile->b * o->batch_stride + row->head * o->head_stride +
                                    row->row * o->row_stride,
                                problem->value_size);
        if (problem->options->weights) {
            float *weights = weights_row(tile, r), shift = tile->max[r] == -INFINITY ? 0.0f : tile->max[r];
            tile->attention->weights(weights, 0, row->visible, problem->kv_len, shift, inverse, weights);
        }
    }
    if (problem->options->log_sum_exp)
        store_log_sum_exp(tile);
}

static void run_tile(struct tile *tile, size_t begin) {
    describe_rows(tile, begin);
    scale_queries(tile);
    size_t key = 0;
    do {
        size_t end = min_size(tile->keys - key, ATTN_SPAN) + key;
        run_span(tile, key, end);
        take_span(tile, key == 0);
        key = end;
    } while (key < tile->keys);
    store(tile);
}

/* ---- Tasks ---- */

struct work {
    struct attn_problem *problem;
    struct attn_queue queue;
};

static struct attn_panels head_panels(const struct attn_problem *problem, size_t head) {
    return attn_panels_at(&problem->shape, problem->keys, problem->values,
                          problem->source == ATTN_SOURCE_CACHE || problem->all_packed ? head : 0);
}

static void pack_head(const struct attn_problem *problem, size_t head) {
    size_t b = head / problem->kv_heads, visible = attn_problem_visible(problem, b);
    struct attn_panels panels = head_panels(problem, head);
    if (visible > 0) /* without keys there need be no pointer to them */
        append(problem, &panels, b, head % problem->kv_heads, 0, 0, visible);
}

static void pack_task(void *arg, size_t index) {
    struct work *work = arg;
    (void)index;
    for (size_t head; attn_queue_take(&work->queue, &head);)
        pack_head(work->problem, head);
}

/* Items are tiles; those of a head follow each other. */
static void run_task(void *arg, size_t index) {
    struct work *work = arg;
    struct attn_problem *problem = work->problem;
    struct tile tile = {.problem = problem,
                        .gemm = attn_table_gemm(problem->table),
                        .attention = attn_table_attention(problem->table),
                        .scratch = &problem->scratch[index]};
    for (size_t item; attn_queue_take(&work->queue, &item);) {
        size_t head = item / problem->tiles, first = tile_begin(problem, item % problem->tiles);
        if (problem->source == ATTN_SOURCE_PACKED && !problem->all_packed && item % problem->tiles == 0)
            pack_head(problem, head);
        tile.b = head / problem->kv_heads;
        tile.kv_head = head % problem->kv_heads;
        tile.panels = problem->source == ATTN_SOURCE_STREAMED ? tile.scratch->block : head_panels(problem, head);
        tile.rows = tile_begin(problem, item % problem->tiles + 1) - first;
        run_tile(&tile, first);
    }
}

void attn_op_attention(struct attn_problem *problem) {
    const attn_parallel *parallel = problem->options->parallel;
    struct work work = {.problem = problem};
    size_t heads = problem->batch * problem->kv_heads;
    if (problem->all_packed) {
        attn_queue_init(&work.queue, heads);
        attn_run(parallel, min_size(problem->tasks, heads), pack_task, &work);
    }
    attn_queue_init(&work.queue, heads * problem->tiles);
    attn_run(parallel, problem->tasks, run_task, &work);
}
