#include "ops/attention.h"

#include "ops/small.h"
#include "ops/tile.h"

/* Tasks wait for each other longer than those of a product: their shares are less equal. They must be worth so many times as
 * much; twice that where they share what one of them has packed, whose lines come from that one's cache. 1.57 and 3.15 million
 * multiply-adds, from two threads on a Zen 5. */
#define UNEVEN        3
#define UNEVEN_SHARED 6

/* Fewer query rows than this wait for keys and values to arrive: they take as long. */
#define LEAST_ROWS 8

/* Spans are shared out among tasks where there are fewer tiles than this per thread. */
#define TILES_PER_THREAD 4

/* A thread takes whole heads, for it packs what it reads and nobody waits in between, where there are so many per thread, or
 * where they come out even and all of them together take less than 2 ms: then it costs not much when one thread is late. */
#define HEADS_PER_THREAD 4
#define MOST_EVEN_NS     (1u << 21)

/* Up to so many tiles of the product packing keys and values costs more than reading them as they lie for each. */
#define MOST_IN_PLACE 3

/* Of keys and values of so many bytes a cache does not hold all, or little: others have a share in it. */
#define PARTLY_DISTANT_BYTES (16u << 20)
#define DISTANT_BYTES        (32u << 20)

/* ---- Workspace ---- */

static void layout_scratch(const struct attn_problem *problem, struct attn_scratch *scratch, struct attn_carve *carve) {
    size_t row = sizeof(float) * attn_tile_height(problem);
    scratch->query = attn_carve_take(carve, problem->head_size, row);
    scratch->scores = attn_carve_take(carve, ATTN_SCORE_STRIDE, row);
    scratch->lanes = attn_carve_take(carve, ATTN_LANES, row);
    scratch->output = attn_carve_take(carve, attn_output_stride(problem), row);
    scratch->span_output = attn_carve_take(carve, attn_output_stride(problem), row);
    if (problem->options->rotary)
        scratch->rotated = attn_carve_take(carve, problem->head_size, sizeof(float) * ATTN_MAX_COLS);
    if (problem->source == ATTN_SOURCE_STREAMED) {
        scratch->block = problem->store;
        attn_store_take(&scratch->block, 1, carve);
    }
}

static void layout_scratches(struct attn_problem *problem, size_t tasks, struct attn_carve *carve) {
    struct attn_scratch measured;
    problem->scratch = attn_carve_take(carve, tasks, sizeof *problem->scratch);
    if (carve->base || tasks == 1) {
        for (size_t t = 0; t < tasks; t++)
            layout_scratch(problem, problem->scratch ? &problem->scratch[t] : &measured, carve);
        return;
    }
    /* Measuring many tasks: all are alike. */
    struct attn_carve one = {0};
    layout_scratch(problem, &measured, &one);
    carve->overflow |= one.overflow;
    attn_carve_take(carve, tasks, one.used);
}

/* Nanoseconds of one thread. A ring's length grows without end, what it holds does not. */
static double time_of(const struct attn_problem *problem) {
    size_t keys =
        problem->cache ? attn_min(problem->longest.keys, problem->cache->config.capacity) : problem->longest.keys;
    double rows = (double)problem->longest.rows * (double)problem->group;
    return (double)problem->batch * (double)problem->kv_heads * (rows < LEAST_ROWS ? LEAST_ROWS : rows) * (double)keys *
           (double)(problem->head_size + problem->value_size) * ATTN_MULTIPLY_ADD_NS;
}

/* Into how many tasks work is cut. */
static size_t task_count(const struct attn_problem *problem, size_t items) {
    return attn_min(attn_threads_for(problem->options->parallel, time_of(problem) / UNEVEN), items);
}

static bool has_many(const struct attn_problem *problem, size_t heads) {
    return heads / HEADS_PER_THREAD >= attn_threads(problem->options->parallel);
}

/* Whether tasks share what is packed. */
static bool is_shared(const struct attn_problem *problem, size_t heads) {
    bool even = heads % attn_threads(problem->options->parallel) == 0 && time_of(problem) <= MOST_EVEN_NS;
    return problem->source == ATTN_SOURCE_PACKED && problem->tasks > 1 &&
           (problem->spans > 1 || !(even || has_many(problem, heads)));
}

/* Where the keys of a problem lie; `heads` of them. */
static void layout_keys(struct attn_problem *problem, size_t heads, struct attn_carve *carve) {
    if (problem->cache) {
        problem->source = ATTN_SOURCE_CACHE;
        problem->store = problem->cache->store;
        return;
    }
    const struct attn_gemm_kernel *gemm = attn_table_gemm(problem->table);
    size_t rows = problem->longest.rows * problem->group, threads = attn_threads(problem->options->parallel);
    problem->source = ATTN_SOURCE_PACKED;
    if (rows <= MOST_IN_PLACE * gemm->rows && !problem->options->rotary)
        problem->source = ATTN_SOURCE_IN_PLACE;
    else if (rows <= gemm->rows)
        problem->source = ATTN_SOURCE_STREAMED;
    bool packed = problem->source == ATTN_SOURCE_PACKED;
    problem->values_in_place =
        packed && problem->value_size <= gemm->dense_cols && problem->v.row_stride == problem->value_size;
    bool many = has_many(problem, heads), shared = is_shared(problem, heads);
    problem->all_packed = shared && time_of(problem) >= UNEVEN_SHARED * ATTN_WAKE_NS;
    if (!attn_store_init(&problem->store, gemm, problem->all_packed ? problem->kv_heads : 1, problem->head_size,
                         problem->value_size,
                         packed ? problem->longest.keys : attn_min(problem->longest.keys, ATTN_BLOCK), ATTN_MAX_COLS))
        carve->overflow = true;
    /* One head for each task would do where tasks take whole heads, and one where one task takes all: what serves a large batch
     * serves a smaller one. */
    if (packed)
        attn_store_take(&problem->store, problem->tasks == 1 ? 1 : many ? threads * HEADS_PER_THREAD : heads, carve);
    if (shared && !problem->all_packed)
        problem->tasks = problem->spans = 1;
}

/* Few tiles over many keys: each of their spans is an item. Room for them is taken in any case, so that what serves a large
 * batch serves a smaller one. */
static void layout_spans(struct attn_problem *problem, size_t tiles, struct attn_carve *carve) {
    size_t threads = attn_threads(problem->options->parallel), few, partials, bytes;
    size_t spans = problem->longest.keys / ATTN_SPAN + (problem->longest.keys % ATTN_SPAN != 0);
    problem->spans = 1;
    if (threads == 1 || spans <= 1 || (problem->cache && problem->cache->config.ring))
        return;
    if (!attn_mul(threads, TILES_PER_THREAD, &few) || !attn_mul(attn_min(few, tiles), spans, &partials) ||
        !attn_mul(attn_partial_floats(problem), sizeof(float), &bytes)) {
        carve->overflow = true;
        return;
    }
    problem->partials = attn_carve_take(carve, partials, bytes);
    if (tiles <= few)
        problem->spans = spans;
}

/* Without keys the kernel is not called. */
static void layout_small(struct attn_problem *problem, struct attn_carve *carve) {
    size_t bytes = problem->longest.keys > 0 ? attn_table_small(problem->table)->scratch_bytes : 0;
    problem->tasks = task_count(problem, attn_small_items(problem));
    problem->small_scratch = attn_carve_take(carve, problem->tasks, bytes);
}

static void layout_general(struct attn_problem *problem, struct attn_carve *carve) {
    size_t rows, heads, items, most;
    if (!attn_mul(problem->longest.rows, problem->group, &rows) ||
        !attn_mul(problem->batch, problem->kv_heads, &heads)) {
        carve->overflow = true;
        return;
    }
    problem->tiles = attn_tile_count(problem, problem->longest.rows);
    if (!attn_mul(heads, problem->tiles, &items)) {
        carve->overflow = true;
        return;
    }
    layout_spans(problem, items, carve);
    if (!attn_mul(items, problem->spans, &items)) {
        carve->overflow = true;
        return;
    }
    problem->tasks = most = task_count(problem, items);
    if (problem->tasks == 1)
        problem->spans = 1;
    layout_keys(problem, heads, carve);
    double bytes = (double)heads * (double)problem->longest.keys * (double)(problem->head_size + problem->value_size) *
                   sizeof(float);
    problem->distant = (bytes >= PARTLY_DISTANT_BYTES) + (bytes >= DISTANT_BYTES);
    layout_scratches(problem, most, carve);
}

void attn_problem_layout(struct attn_problem *problem, struct attn_carve *carve) {
    struct attn_carve own = *carve;
    problem->small = attn_is_small(problem);
    /* Above 16 keys fewer rows may not be small: what serves more rows serves them. */
    if (!problem->small || problem->longest.keys > ATTN_LANES)
        layout_general(problem, carve);
    if (!problem->small)
        return;
    layout_small(problem, &own);
    carve->used = attn_max(carve->used, own.used);
    carve->overflow |= own.overflow;
}

/* ---- Tasks ---- */

/* Packs what the rows of a head see. */
static void pack_head(const struct attn_tile *tile) {
    const struct attn_problem *problem = tile->problem;
    const struct attn_sequence *sequence = &tile->sequence;
    struct attn_interval keys = attn_sequence_interval(problem, sequence, tile->b);
    if (keys.begin == keys.end) /* without keys there need be no pointer to them */
        return;
    struct attn_key_rows rows = attn_problem_key_rows(problem, sequence, tile->b, tile->kv_head, keys.begin);
    rows.rotated = tile->scratch->rotated;
    if (problem->values_in_place)
        rows.v = NULL;
    attn_store_append(&problem->store, tile->store_sequence, tile->store_head, keys.begin, keys.end - keys.begin,
                      &rows);
    attn_store_fill_unit(&problem->store, tile->store_sequence, tile->store_head, keys.begin);
}

/* Takes up tile number `item`, counted over all heads. False where the sequence has fewer tiles than others. */
static bool take_tile(struct attn_tile *tile, size_t item) {
    const struct attn_problem *problem = tile->problem;
    size_t head = item / problem->tiles, index = item % problem->tiles;
    if (head != tile->head)
        attn_tile_take_head(tile, head);
    if (index >= tile->tiles)
        return false;
    attn_tile_begin(tile, index);
    return true;
}

/* What an item is. */
enum item { PACK_HEAD, RUN_HEAD, RUN_TILE, RUN_SPAN, MERGE_SPANS };

static void run_head(struct attn_tile *tile, size_t item) {
    attn_tile_take_head(tile, item);
    if (tile->tiles > 0)
        pack_head(tile);
    for (size_t i = 0; i < tile->tiles; i++) {
        attn_tile_begin(tile, i);
        attn_tile_run(tile);
    }
}

/* Tiles of a head follow each other, and spans of a tile. */
static void run_item(struct attn_tile *tile, enum item what, size_t item) {
    size_t spans = tile->problem->spans;
    switch (what) {
    case PACK_HEAD:
        attn_tile_take_head(tile, item);
        pack_head(tile);
        break;
    case RUN_HEAD:
        run_head(tile, item);
        break;
    case RUN_TILE:
        if (take_tile(tile, item))
            attn_tile_run(tile);
        break;
    case RUN_SPAN:
        if (take_tile(tile, item / spans))
            attn_tile_run_span(tile, item % spans, item);
        break;
    case MERGE_SPANS:
        if (take_tile(tile, item))
            attn_tile_merge(tile, item * spans);
    }
}

struct round {
    const struct attn_problem *problem;
    enum item what;
};

static void run_items(const void *arg, struct attn_items *items) {
    const struct round *round = arg;
    const struct attn_problem *problem = round->problem;
    struct attn_tile tile = {.problem = problem,
                             .gemm = attn_table_gemm(problem->table),
                             .attention = attn_table_attention(problem->table),
                             .scratch = &problem->scratch[items->task],
                             .finite = {.head = SIZE_MAX},
                             .head = SIZE_MAX};
    for (size_t item; attn_items_take(items, &item);)
        run_item(&tile, round->what, item);
}

static void run_round(const struct attn_problem *problem, enum item what, size_t items) {
    attn_for_each_task(problem->options->parallel, problem->tasks, items, run_items, &(struct round){problem, what});
}

void attn_op_attention(struct attn_problem *problem) {
    size_t heads = problem->batch * problem->kv_heads, tiles = heads * problem->tiles;
    if (problem->small) {
        attn_op_small(problem);
        return;
    }
    if (problem->source == ATTN_SOURCE_PACKED && !problem->all_packed) {
        run_round(problem, RUN_HEAD, heads);
        return;
    }
    if (problem->all_packed)
        run_round(problem, PACK_HEAD, heads);
    if (problem->spans == 1) {
        run_round(problem, RUN_TILE, tiles);
        return;
    }
    run_round(problem, RUN_SPAN, tiles * problem->spans);
    run_round(problem, MERGE_SPANS, tiles);
}
