#include "ops/small.h"

#include <string.h>

#include "ops/visible.h"

/* Query rows whose visible keys are counted at a time. */
#define ROWS 64

/* Tasks share out heads too if there are fewer pieces of ROWS rows than this per task. */
#define ITEMS_PER_TASK 4

/* How many keys each row sees; the most and the least of them. */
struct visible {
    uint32_t keys[ROWS];
    size_t most, least;
};

static void count_visible(const struct attn_problem *problem, const struct attn_sequence *sequence, size_t b,
                          size_t begin, size_t rows, struct visible *visible) {
    bool same_keys = !(problem->plan.uses & ATTN_USE_ROW_INTERVALS);
    visible->most = 0;
    visible->least = SIZE_MAX;
    for (size_t i = 0; i < (same_keys ? 1 : rows); i++) {
        size_t end = attn_row_interval(problem, sequence, b, begin + i).end;
        visible->keys[i] = (uint32_t)end;
        visible->most = end > visible->most ? end : visible->most;
        visible->least = end < visible->least ? end : visible->least;
    }
}

static void clear_rows(const struct attn_problem *problem, char *o, size_t heads, size_t rows) {
    size_t element = attn_type_size(problem->o.type);
    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < rows; i++)
            memset(o + (h * problem->o.head_stride + i * problem->o.row_stride) * element, 0,
                   problem->value_size * element);
}

/* What one call of the kernel takes: rows of the query heads that share some kv heads of one sequence. */
struct piece {
    size_t b, head, kv_heads; /* kv heads head .. head + kv_heads - 1 */
    size_t row, rows;
};

static void run_piece(const struct attn_problem *problem, const struct attn_sequence *sequence,
                      const struct piece *piece, void *scratch) {
    const attn_tensor *q = &problem->q, *k = &problem->k, *v = &problem->v;
    const attn_tensor_out *o = &problem->o;
    size_t q_batch = attn_ints_given(&problem->q_cu) ? 0 : piece->b;
    size_t kv_batch = attn_ints_given(&problem->kv_cu) ? 0 : piece->b;
    size_t query_head = piece->head * problem->group, heads = piece->kv_heads * problem->group;
    size_t row = sequence->q_row + piece->row, key = sequence->kv_row;
    void *out = attn_typed_row_out_at(o, q_batch, query_head, row);
    struct visible visible;
    count_visible(problem, sequence, piece->b, piece->row, piece->rows, &visible);
    if (visible.most == 0) { /* then the caller need not have given a pointer to keys */
        clear_rows(problem, out, heads, piece->rows);
        return;
    }
    attn_table_small(problem->table)
        ->run(&(struct attn_small_args){.arithmetic = problem->plan.arithmetic,
                                        .q_type = q->type,
                                        .kv_type = k->type,
                                        .o_type = o->type,
                                        .heads = heads,
                                        .group = problem->group,
                                        .rows = piece->rows,
                                        .keys = visible.most,
                                        .hi = visible.least < visible.most ? visible.keys : NULL,
                                        .head_size = problem->head_size,
                                        .value_size = problem->value_size,
                                        .scale = problem->scale,
                                        .q = attn_typed_row_at(q, q_batch, query_head, row),
                                        .k = attn_typed_row_at(k, kv_batch, piece->head, key),
                                        .v = attn_typed_row_at(v, kv_batch, piece->head, key),
                                        .q_head_stride = q->head_stride,
                                        .q_row_stride = q->row_stride,
                                        .k_head_stride = k->head_stride,
                                        .k_row_stride = k->row_stride,
                                        .v_head_stride = v->head_stride,
                                        .v_row_stride = v->row_stride,
                                        .o = out,
                                        .o_head_stride = o->head_stride,
                                        .o_row_stride = o->row_stride,
                                        .scratch = scratch});
}

static void run_chunk(const struct attn_problem *problem, size_t b, size_t chunk, size_t head, size_t kv_heads,
                      void *scratch) {
    struct attn_sequence sequence = attn_sequence_of(problem, b);
    struct piece piece = {.b = b, .head = head, .kv_heads = kv_heads, .row = chunk * ROWS};
    if (piece.row >= sequence.q_len)
        return;
    piece.rows = attn_min(sequence.q_len - piece.row, ROWS);
    run_piece(problem, &sequence, &piece, scratch);
}

/* Items are ROWS rows of a sequence, of one part of its heads. */
struct small {
    const struct attn_problem *problem;
    char *memory;         /* a part for each task */
    size_t chunks, parts; /* per sequence */
};

static void run_part(const void *arg, size_t item, size_t task) {
    const struct small *small = arg;
    const struct attn_problem *problem = small->problem;
    size_t part = item % small->parts, chunk = item / small->parts % small->chunks;
    size_t each = problem->kv_heads / small->parts, more = problem->kv_heads % small->parts;
    run_chunk(problem, item / small->parts / small->chunks, chunk, part * each + attn_min(part, more),
              each + (part < more), small->memory + task * problem->plan.scratch_bytes);
}

static size_t chunks_of(const struct attn_problem *problem) {
    return problem->longest.rows / ROWS + (problem->longest.rows % ROWS != 0);
}

size_t attn_small_items(const struct attn_problem *problem) {
    size_t items;
    return attn_mul(problem->batch, chunks_of(problem), &items) && attn_mul(items, problem->kv_heads, &items) ? items
                                                                                                              : 1;
}

void attn_op_small(const struct attn_problem *problem, char *memory) {
    struct small small = {.problem = problem, .memory = memory, .chunks = chunks_of(problem)};
    size_t tasks = problem->plan.tasks;
    if (tasks > 1) { /* then attn_small_items has seen that the products below fit */
        size_t pieces = problem->batch * small.chunks;
        small.parts = pieces / ITEMS_PER_TASK >= tasks ? 1 : attn_min(problem->kv_heads, tasks);
        attn_for_each(problem->parallel, tasks, pieces * small.parts, run_part, &small);
        return;
    }
    for (size_t b = 0; b < problem->batch; b++)
        for (size_t chunk = 0; chunk < small.chunks; chunk++)
            run_chunk(problem, b, chunk, 0, problem->kv_heads, memory);
}
