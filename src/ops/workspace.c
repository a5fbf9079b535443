#include "ops/blocks.h"

static void lay_out_group(const struct attn_problem *problem, const struct attn_plan *plan,
                          struct attn_scratch *scratch, struct attn_arena *arena) {
    const struct attn_format *format = &plan->gemm->b;
    scratch->group.cols = format->cols;
    arena->overflow |= !attn_panel_bytes(format, ATTN_TILE_K, format->cols, &scratch->group.stride);
    scratch->group.data = attn_arena_take(arena, (problem->value_size - 1) / format->cols + 1, scratch->group.stride);
}

static void lay_out_scratch(const struct attn_problem *problem, const struct attn_plan *plan,
                            struct attn_scratch *scratch, struct attn_arena *arena) {
    size_t strip = 0, row = attn_type_size(ATTN_F32) * plan->tile_rows,
           size = attn_max(problem->head_size, problem->value_size);
    scratch->query = attn_arena_take(arena, problem->head_size, row);
    scratch->scores = attn_arena_take(arena, ATTN_SCORE_STRIDE, row);
    scratch->lanes = attn_arena_take(arena, ATTN_LANES, row);
    scratch->rows = attn_arena_take(arena, plan->tile_rows, sizeof *scratch->rows);
    scratch->block_rows = attn_arena_take(arena, 1, sizeof *scratch->block_rows);
    scratch->output = attn_arena_take(arena, plan->output_stride, row);
    scratch->span_output = attn_arena_take(arena, plan->output_stride, row);
    if (attn_mask_is_copied(problem->options))
        scratch->mask = attn_arena_take(arena, ATTN_BLOCK, plan->tile_rows);
    if (attn_bias_is_copied(problem->options))
        scratch->bias = attn_arena_take(arena, ATTN_BLOCK, row);
    if (plan->uses & (ATTN_USE_ROTARY | ATTN_USE_TYPES)) {
        scratch->row = attn_arena_take(arena, size, sizeof *scratch->row);
        arena->overflow |= !attn_strip_bytes(plan->gemm->b.type, size, &strip);
        scratch->strip = attn_arena_take(arena, 1, strip);
    }
    if (plan->arithmetic == ATTN_CLASS_BF16_TILE)
        lay_out_group(problem, plan, scratch, arena);
    if (plan->path == ATTN_PATH_CACHED && plan->arithmetic == ATTN_CLASS_BF16) /* a product may begin within a pair */
        scratch->widened =
            attn_arena_take(arena, 1,
                            attn_gemm_widened_bytes(plan->gemm, plan->tile_rows,
                                                    attn_max(problem->head_size, ATTN_BLOCK) + plan->gemm->b.k_unit));
    if (plan->path != ATTN_PATH_STREAMED)
        return;
    arena->overflow |= !attn_store_init(&scratch->block, plan->gemm, 1, problem->head_size, problem->value_size,
                                        attn_min(problem->longest.keys, ATTN_BLOCK), ATTN_MAX_COLS);
    attn_store_take(&scratch->block, 1, arena);
}

/* Floats of one partial: maxima and sums in ATTN_MAX_ROWS each, then the outputs. */
static size_t partial_floats(const struct attn_plan *plan) {
    return 2 * ATTN_MAX_ROWS + plan->tile_rows * plan->output_stride;
}

struct attn_partial attn_partial_at(const struct attn_problem *problem, const struct attn_workspace *workspace,
                                    size_t index) {
    float *base = workspace->partials + index * partial_floats(&problem->plan);
    return (struct attn_partial){base, base + ATTN_MAX_ROWS, base + (size_t)2 * ATTN_MAX_ROWS};
}

/* Panels of heads' keys and values. */
static void lay_out_heads(const struct attn_problem *problem, const struct attn_plan *plan,
                          struct attn_workspace *workspace, struct attn_arena *arena) {
    size_t heads = plan->path == ATTN_PATH_PACK_ALL ? problem->kv_heads : 1;
    arena->overflow |= !attn_store_init(&workspace->packed, plan->gemm, heads, problem->head_size, problem->value_size,
                                        problem->longest.keys, ATTN_MAX_COLS);
    attn_store_take(&workspace->packed, plan->packed_heads, arena);
}

static void lay_out_workspace(const struct attn_problem *problem, const struct attn_plan *plan,
                              struct attn_workspace *workspace, struct attn_arena *arena) {
    size_t bytes = 0;
    *workspace = (struct attn_workspace){.kv = {problem->k, problem->v, problem->kv_cu}};
    workspace->tensors = attn_store_of_tensors(&workspace->kv);
    if (!attn_mul(partial_floats(plan), sizeof *workspace->partials, &bytes))
        arena->overflow = true;
    workspace->partials = attn_arena_take(arena, plan->partials, bytes);
    if (plan->path == ATTN_PATH_PACK_HEAD || plan->path == ATTN_PATH_PACK_ALL)
        lay_out_heads(problem, plan, workspace, arena);
    workspace->scratches = attn_arena_take(arena, plan->scratches, plan->scratch_bytes);
}

bool attn_workspace_measure(const struct attn_problem *problem, struct attn_plan *plan) {
    struct attn_arena task = {0}, all = {0};
    struct attn_scratch scratch;
    struct attn_workspace workspace;
    lay_out_scratch(problem, plan, &scratch, &task);
    plan->scratch_bytes = task.used;
    lay_out_workspace(problem, plan, &workspace, &all);
    plan->workspace_bytes = all.used;
    return !task.overflow && !all.overflow;
}

void attn_workspace_lay_out(const struct attn_problem *problem, void *memory, struct attn_workspace *workspace) {
    lay_out_workspace(problem, &problem->plan, workspace, &(struct attn_arena){.base = memory});
}

void attn_scratch_lay_out(const struct attn_problem *problem, const struct attn_workspace *workspace, size_t task,
                          struct attn_scratch *scratch) {
    *scratch = (struct attn_scratch){0};
    lay_out_scratch(problem, &problem->plan, scratch,
                    &(struct attn_arena){.base = workspace->scratches + task * problem->plan.scratch_bytes});
}
