#include "ops/attention.h"
#include "dispatch.h"

#include "ops/keys.h"
#include "ops/rows.h"
#include "ops/small.h"
#include "ops/spans.h"

/* Takes up tile number `item`, counted over all heads. False where the sequence has fewer tiles than others. */
static bool take_tile(struct attn_tile *tile, size_t item) {
    size_t tiles = tile->problem->plan.tiles, head = item / tiles, index = item % tiles;
    if (head != tile->head)
        attn_rows_take_head(tile, head);
    if (index >= tile->tiles)
        return false;
    attn_rows_take(tile, index);
    return true;
}

/* What an item is. */
enum item { PACK_HEAD, RUN_HEAD, RUN_TILE, RUN_SPAN, MERGE_SPANS };

static void run_head(struct attn_tile *tile, size_t item) {
    attn_rows_take_head(tile, item);
    if (tile->tiles > 0)
        attn_keys_pack_head(tile);
    for (size_t i = 0; i < tile->tiles; i++) {
        attn_rows_take(tile, i);
        attn_spans_run(tile);
    }
}

/* Items are in order of heads, in a head of tiles, in a tile of spans. */
static void run_item(struct attn_tile *tile, enum item what, size_t item) {
    size_t spans = tile->problem->plan.spans;
    switch (what) {
    case PACK_HEAD:
        attn_rows_take_head(tile, item);
        attn_keys_pack_head(tile);
        break;
    case RUN_HEAD:
        run_head(tile, item);
        break;
    case RUN_TILE:
        if (take_tile(tile, item))
            attn_spans_run(tile);
        break;
    case RUN_SPAN:
        if (take_tile(tile, item / spans))
            attn_spans_run_one(tile, item % spans, item);
        break;
    case MERGE_SPANS:
        if (take_tile(tile, item))
            attn_spans_merge(tile, item * spans);
    }
}

struct round {
    const struct attn_problem *problem;
    const struct attn_workspace *workspace;
    enum item what;
};

static void run_items(const void *arg, struct attn_items *items) {
    const struct round *round = arg;
    const struct attn_problem *problem = round->problem;
    struct attn_tile tile = {.problem = problem,
                             .gemm = problem->plan.gemm,
                             .decode = problem->plan.decode,
                             .convert = attn_table_convert(problem->table),
                             .attention = attn_table_attention(problem->table),
                             .workspace = round->workspace,
                             .task = items->task,
                             .finite = {.head = SIZE_MAX},
                             .head = SIZE_MAX};
    attn_scratch_lay_out(problem, round->workspace, items->task, &tile.scratch);
    tile.row = tile.scratch.rows;
    for (size_t item; attn_items_take(items, &item);)
        run_item(&tile, round->what, item);
    attn_gemm_end_task(tile.gemm);
}

static void run_round(const struct attn_problem *problem, const struct attn_workspace *workspace, enum item what,
                      size_t items) {
    attn_for_each_task(problem->parallel, problem->plan.tasks, items, run_items,
                       &(struct round){problem, workspace, what});
}

static void run_tiles(const struct attn_problem *problem, void *memory) {
    const struct attn_plan *plan = &problem->plan;
    size_t heads = problem->batch * problem->kv_heads, tiles = heads * plan->tiles;
    struct attn_workspace workspace;
    attn_workspace_lay_out(problem, memory, &workspace);
    if (plan->path == ATTN_PATH_PACK_HEAD) {
        run_round(problem, &workspace, RUN_HEAD, heads);
        return;
    }
    if (plan->path == ATTN_PATH_PACK_ALL)
        run_round(problem, &workspace, PACK_HEAD, heads);
    if (plan->spans == 1) {
        run_round(problem, &workspace, RUN_TILE, tiles);
        return;
    }
    run_round(problem, &workspace, RUN_SPAN, tiles * plan->spans);
    run_round(problem, &workspace, MERGE_SPANS, tiles);
}

void attn_op_attention(const struct attn_problem *problem, void *memory) {
    if (problem->plan.path == ATTN_PATH_SMALL)
        attn_op_small(problem, memory);
    else
        run_tiles(problem, memory);
}
