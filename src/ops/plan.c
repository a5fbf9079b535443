#include "ops/plan.h"

#include "dispatch.h"
#include "ops/small.h"
#include "ops/workspace.h"
#include "tuning.h"

/* ---- Uses and paths ---- */

static uint32_t use_if(bool used, uint32_t bit) {
    return used ? bit : 0;
}

static bool has_types(const struct attn_problem *problem) {
    bool floats = problem->q.type == ATTN_F32 && problem->o.type == ATTN_F32 && problem->stored == ATTN_F32;
    return !floats || (!problem->cache && (problem->k.type != ATTN_F32 || problem->v.type != ATTN_F32));
}

uint32_t attn_uses_of(const struct attn_problem *problem) {
    const attn_options *options = problem->options;
    return use_if(options->valid.kind == ATTN_VALID_PER_SEQUENCE, ATTN_USE_VALID_PER_SEQUENCE) |
           use_if(options->valid.kind == ATTN_VALID_PER_ROW, ATTN_USE_VALID_PER_ROW) |
           use_if(attn_ints_given(&options->starts), ATTN_USE_STARTS) | use_if(options->causal, ATTN_USE_CAUSAL) |
           use_if(options->window_left > 0, ATTN_USE_WINDOW_LEFT) |
           use_if(options->window_right > 0, ATTN_USE_WINDOW_RIGHT) | use_if(options->mask.data, ATTN_USE_MASK) |
           use_if(options->bias.data, ATTN_USE_BIAS) | use_if(options->soft_cap > 0.0f, ATTN_USE_SOFT_CAP) |
           use_if(options->alibi, ATTN_USE_ALIBI) | use_if(options->sinks, ATTN_USE_SINKS) |
           use_if(options->empty == ATTN_EMPTY_MEAN, ATTN_USE_EMPTY_MEAN) | use_if(options->rotary, ATTN_USE_ROTARY) |
           use_if(options->dropout > 0.0f, ATTN_USE_DROPOUT) | use_if(options->weights.data, ATTN_USE_WEIGHTS) |
           use_if(options->scores.data, ATTN_USE_SCORES) | use_if(options->scores_hidden, ATTN_USE_SCORES_HIDDEN) |
           use_if(options->log_sum_exp.data, ATTN_USE_LOG_SUM_EXP) |
           use_if(attn_ints_given(&problem->q_cu), ATTN_USE_PACKED_ROWS) |
           use_if(attn_ints_given(&problem->kv_cu), ATTN_USE_PACKED_KEYS) | use_if(problem->cache, ATTN_USE_CACHE) |
           use_if(has_types(problem), ATTN_USE_TYPES) | use_if(options->bias_factors, ATTN_USE_BIAS_FACTORS);
}

/* The uses that tiles of query rows support on every path. */
#define USE_TILES                                                                                                      \
    (ATTN_USE_VALID_PER_SEQUENCE | ATTN_USE_STARTS | ATTN_USE_ROW_INTERVALS | ATTN_USE_LOGITS | ATTN_USE_SINKS |       \
     ATTN_USE_DROPOUT | ATTN_USE_LOG_SUM_EXP | ATTN_USE_PACKED_ROWS | ATTN_USE_PACKED_KEYS)

/* What is added where keys and values are packed. */
#define USE_PACKED (USE_TILES | ATTN_USE_ROTARY | ATTN_USE_TYPES)

static const struct {
    const char *name;
    uint32_t supports;
} paths[ATTN_PATHS] = {
    [ATTN_PATH_SMALL] = {"small", ATTN_USE_VALID_PER_SEQUENCE | ATTN_USE_VALID_PER_ROW | ATTN_USE_CAUSAL |
                                      ATTN_USE_WINDOW_RIGHT | ATTN_USE_PACKED_ROWS | ATTN_USE_PACKED_KEYS |
                                      ATTN_USE_TYPES},
    [ATTN_PATH_CACHED] = {"cached", USE_PACKED | ATTN_USE_CACHE | ATTN_USE_SCORES_HIDDEN},
    [ATTN_PATH_IN_PLACE] = {"in_place", USE_TILES | ATTN_USE_TYPES | ATTN_USE_SCORES_HIDDEN},
    [ATTN_PATH_STREAMED] = {"streamed", USE_PACKED},
    [ATTN_PATH_PACK_HEAD] = {"pack_head", USE_PACKED | ATTN_USE_SCORES_HIDDEN},
    [ATTN_PATH_PACK_ALL] = {"pack_all", USE_PACKED | ATTN_USE_SCORES_HIDDEN},
};

const char *attn_path_name(enum attn_path path) {
    return paths[path].name;
}

uint32_t attn_path_supports(enum attn_path path) {
    return paths[path].supports;
}

static bool supports(enum attn_path path, const struct attn_plan *plan) {
    return (plan->uses & ~paths[path].supports) == 0;
}

/* ---- Time ---- */

/* Fewer query rows than this take as long as this many, because they wait for keys and values to arrive. */
#define LEAST_ROWS 8

static const struct attn_tuning *tuning_of(const struct attn_problem *problem) {
    return attn_tuning_for(problem->table->isa);
}

static size_t threads_of(const struct attn_problem *problem) {
    return attn_threads(problem->parallel);
}

/* Nanoseconds of one thread. A ring's length grows without end, but it holds no more keys than its capacity. */
static double time_of(const struct attn_problem *problem) {
    size_t keys =
        problem->cache ? attn_min(problem->longest.keys, problem->cache->config.capacity) : problem->longest.keys;
    double rows = (double)problem->longest.rows * (double)problem->group;
    return (double)problem->batch * (double)problem->kv_heads * (rows < LEAST_ROWS ? LEAST_ROWS : rows) * (double)keys *
           (double)(problem->head_size + problem->value_size) * tuning_of(problem)->multiply_add_ns;
}

static size_t tasks_for(const struct attn_problem *problem, size_t items) {
    const struct attn_tuning *tuning = tuning_of(problem);
    return attn_min(attn_threads_for(tuning, problem->parallel, time_of(problem) / tuning->uneven), items);
}

/* ---- Few keys ---- */

/* Over more than ATTN_LANES keys a call of fewer than four rows would leave most of a register idle. */
static bool fills_registers(const struct attn_problem *problem) {
    return problem->longest.rows >= 4 || problem->longest.keys <= ATTN_LANES;
}

static bool small_has_class(const struct attn_problem *problem, enum attn_class arithmetic) {
    return arithmetic == ATTN_CLASS_F32 ||
           (arithmetic == ATTN_CLASS_BF16 && attn_table_small(problem->table)->has_bf16);
}

/* Whether the call is small if it has few keys, and not too few rows. */
static bool small_if_short(const struct attn_problem *problem, const struct attn_plan *plan) {
    return problem->head_size <= ATTN_SMALL_SIZE && supports(ATTN_PATH_SMALL, plan) &&
           small_has_class(problem, plan->arithmetic);
}

static bool is_small(const struct attn_problem *problem, const struct attn_plan *plan) {
    return problem->longest.keys <= ATTN_SMALL_KEYS && fills_registers(problem) && small_if_short(problem, plan);
}

/* Without keys the kernel is not called. */
static bool plan_small(const struct attn_problem *problem, struct attn_plan *plan) {
    struct attn_arena arena = {0};
    plan->path = ATTN_PATH_SMALL;
    plan->spans = 1;
    plan->tasks = plan->scratches = tasks_for(problem, attn_small_items(problem));
    plan->scratch_bytes = problem->longest.keys > 0 ? attn_table_small(problem->table)->scratch_bytes : 0;
    attn_arena_take(&arena, plan->scratches, plan->scratch_bytes);
    plan->workspace_bytes = arena.used;
    return !arena.overflow;
}

/* The workspace of tiles must also serve calls with fewer keys, by no more tasks. */
static bool leave_room_for_small(const struct attn_problem *problem, struct attn_plan *plan) {
    struct attn_arena arena = {0};
    attn_arena_take(&arena, plan->scratches, attn_table_small(problem->table)->scratch_bytes);
    plan->workspace_bytes = attn_max(plan->workspace_bytes, arena.used);
    return !arena.overflow;
}

/* ---- Tiles and spans ---- */

/* Threads share out the spans of a tile if there are fewer tiles than this per thread. */
#define TILES_PER_THREAD 4

/* The most query rows of a tile: as many GEMM tiles as fit into ATTN_MAX_ROWS. Keys and values are read once for all of
 * them. The scores, 30 to 34 KiB, stay in L1. */
static size_t most_tile_rows(const struct attn_plan *plan) {
    return ATTN_MAX_ROWS / plan->gemm->rows * plan->gemm->rows;
}

/* If there are few tiles over many keys, each span of a tile is an item. A workspace has room for their results even if
 * there are many tiles, because it must also serve a smaller batch. */
static bool plan_spans(const struct attn_problem *problem, struct attn_plan *plan, size_t tiles) {
    size_t spans = problem->longest.keys / ATTN_SPAN + (problem->longest.keys % ATTN_SPAN != 0), few;
    plan->spans = 1;
    plan->partials = 0;
    if (threads_of(problem) == 1 || spans <= 1 || (problem->cache && problem->cache->store.kind == ATTN_KV_RING))
        return true;
    if (!attn_mul(threads_of(problem), TILES_PER_THREAD, &few) ||
        !attn_mul(attn_min(few, tiles), spans, &plan->partials))
        return false;
    if (tiles <= few)
        plan->spans = spans;
    return true;
}

/* ---- The path ---- */

/* A thread that takes whole heads packs what it reads, and no thread waits for another between packing and the tiles.
 * Threads do so if each gets at least HEADS_PER_THREAD heads, or if each gets the same number and the whole call takes
 * little (attn_tuning.even_ns). */
#define HEADS_PER_THREAD 4

static bool has_many_heads(const struct attn_problem *problem, size_t heads) {
    return heads / HEADS_PER_THREAD >= threads_of(problem);
}

/* Whether tasks share out tiles or spans of a head rather than heads. */
static bool shares_heads(const struct attn_problem *problem, const struct attn_plan *plan, size_t heads) {
    bool even = heads % threads_of(problem) == 0 && time_of(problem) <= tuning_of(problem)->even_ns;
    return plan->tasks > 1 && (plan->spans > 1 || !(even || has_many_heads(problem, heads)));
}

/* Keys and values that are packed before the first tile. */
static void plan_packing(const struct attn_problem *problem, struct attn_plan *plan, size_t heads) {
    plan->values_in_place = !(plan->uses & ATTN_USE_TYPES) &&
                            problem->value_size <= tuning_of(problem)->in_place_value_size &&
                            problem->value_size % ATTN_LANES == 0 && problem->v.row_stride == problem->value_size;
    /* One head per task would do where tasks take whole heads. There is room for more because the workspace must also
     * serve a smaller batch, whose tasks may share heads. */
    plan->packed_heads = plan->tasks == 1                 ? 1
                         : has_many_heads(problem, heads) ? threads_of(problem) * HEADS_PER_THREAD
                                                          : heads;
    plan->path = ATTN_PATH_PACK_HEAD;
    if (!shares_heads(problem, plan, heads))
        return;
    if (time_of(problem) >= tuning_of(problem)->uneven_shared * tuning_of(problem)->wake_ns)
        plan->path = ATTN_PATH_PACK_ALL;
    else
        plan->tasks = plan->spans = 1;
}

/* Few rows wait for memory: where the call's table is another one's by_fma, that other one. */
static const struct attn_kernels *table_of_few_rows(const struct attn_problem *problem) {
    return attn_table(problem->table->isa);
}

/* The kernel that reads keys and values where the caller has them, for so many query rows; NULL where there is none.
 * Elements that do not fill registers cost each row their time: with more than two rows it takes less to pack. */
static const struct attn_decode_kernel *decodes_in_place(const struct attn_problem *problem,
                                                         const struct attn_plan *plan, size_t rows) {
    if (rows > 2 && (problem->head_size % ATTN_LANES != 0 || problem->value_size % ATTN_LANES != 0))
        return NULL;
    return attn_decode_in_place(table_of_few_rows(problem), plan->gemm, problem->k.type, rows);
}

/* Whether to read in place takes less time than to pack. The decode kernel is then that of the caller's type, which may
 * be another than the packed one. */
static bool plan_in_place(const struct attn_problem *problem, struct attn_plan *plan, size_t rows) {
    const struct attn_decode_kernel *decode = decodes_in_place(problem, plan, rows);
    bool floats = problem->k.type == ATTN_F32 && rows <= tuning_of(problem)->in_place_tiles * plan->gemm->rows;
    if (!supports(ATTN_PATH_IN_PLACE, plan) || !(floats || decode))
        return false;
    plan->path = ATTN_PATH_IN_PLACE;
    plan->decode = decode ? decode : plan->decode;
    return true;
}

static void plan_path(const struct attn_problem *problem, struct attn_plan *plan, size_t heads) {
    size_t rows = problem->longest.rows * problem->group, at_once = plan->gemm->rows;
    if (problem->cache)
        plan->path = ATTN_PATH_CACHED;
    else if (plan_in_place(problem, plan, rows))
        return;
    else if (rows <= at_once && supports(ATTN_PATH_STREAMED, plan))
        plan->path = ATTN_PATH_STREAMED;
    else
        plan_packing(problem, plan, heads);
    bool packs = plan->path == ATTN_PATH_PACK_HEAD || plan->path == ATTN_PATH_PACK_ALL;
    if (packs && rows > at_once && plan->gemm->of_floats) {
        plan->gemm = plan->gemm->of_floats;
        plan->decode = NULL; /* it reads what the other kernel packs */
    }
}

/* Those of `table`. */
static void take_kernels(const struct attn_problem *problem, const struct attn_kernels *table, struct attn_plan *plan) {
    plan->gemm = attn_gemm_for_stored(table, problem->stored, problem->arithmetic);
    plan->decode = attn_decode_for(table, plan->gemm);
    plan->bf16 = attn_bf16_for(table, plan->gemm);
}

/* Those of few rows where they decode all rows. */
static void plan_kernels(const struct attn_problem *problem, struct attn_plan *plan, size_t rows) {
    const struct attn_kernels *table = table_of_few_rows(problem);
    take_kernels(problem, table, plan);
    if (problem->table != table && !(plan->decode && rows <= plan->decode->rows_in_turns))
        take_kernels(problem, problem->table, plan);
    plan->arithmetic = plan->gemm->arithmetic;
}

static bool plan_tiles(const struct attn_problem *problem, struct attn_plan *plan) {
    size_t rows, heads, tiles, items;
    if (!attn_mul(problem->longest.rows, problem->group, &rows) || !attn_mul(problem->batch, problem->kv_heads, &heads))
        return false;
    plan_kernels(problem, plan, rows);
    plan->tile_rows = most_tile_rows(plan);
    plan->output_stride = (problem->value_size + ATTN_LANES - 1) / ATTN_LANES * ATTN_LANES;
    plan->tiles = attn_tiles_of(plan, rows);
    if (!attn_mul(heads, plan->tiles, &tiles) || !plan_spans(problem, plan, tiles) ||
        !attn_mul(tiles, plan->spans, &items))
        return false;
    plan->tasks = plan->scratches = tasks_for(problem, items);
    if (plan->tasks == 1)
        plan->spans = 1;
    plan_path(problem, plan, heads);
    /* Scratch memory has room for one packed block. */
    plan->blocks = plan->path == ATTN_PATH_STREAMED ? 1 : ATTN_MOST_BLOCKS;
    const struct attn_tuning *tuning = tuning_of(problem);
    double bytes = (double)heads * (double)problem->longest.keys * (double)(problem->head_size + problem->value_size) *
                   (double)attn_type_size(plan->gemm->b.type);
    plan->distant = (bytes >= (double)tuning->partly_distant_bytes) + (bytes >= (double)tuning->distant_bytes);
    return true;
}

/* ---- The plan ---- */

bool attn_plan_make(struct attn_problem *problem) {
    struct attn_plan *plan = &problem->plan;
    uint32_t uses = attn_uses_of(problem);
    size_t bytes = 0;
    enum attn_class arithmetic = attn_class_for_stored(problem->table, problem->stored, problem->arithmetic);
    *plan = (struct attn_plan){.uses = uses, .arithmetic = arithmetic};
    bool small = is_small(problem, plan), may_be_small = small_if_short(problem, plan);
    /* Above ATTN_LANES keys a call with fewer rows is not small: the workspace must serve its tiles too. */
    if (!small || problem->longest.keys > ATTN_LANES) {
        if (!plan_tiles(problem, plan) || !attn_workspace_measure(problem, plan))
            return false;
        bytes = plan->workspace_bytes;
    }
    if (!small)
        return !may_be_small || leave_room_for_small(problem, plan);
    *plan = (struct attn_plan){.uses = uses, .arithmetic = arithmetic};
    bool fits = plan_small(problem, plan);
    plan->workspace_bytes = attn_max(plan->workspace_bytes, bytes);
    return fits;
}
