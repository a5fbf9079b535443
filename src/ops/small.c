#include "ops/small.h"

#include <string.h>

#include "ops/visible.h"

/* Query rows whose visible keys are counted at a time. */
#define ROWS 64

/* A row or two over more keys than a register takes leave most of it idle. */
static bool fills_registers(const struct attn_problem *problem) {
    return problem->q_len >= 4 || problem->kv_len <= ATTN_LANES;
}

bool attn_is_small(const struct attn_problem *problem) {
    const attn_options *options = problem->options;
    bool first_keys = !options->starts && options->window_left == 0; /* what rows see begins at key 0 */
    bool bare = !options->mask.data && !options->bias.data && !options->alibi && !options->sinks && !options->rotary &&
                options->soft_cap <= 0.0f && options->dropout <= 0.0f;
    bool output_only = !options->weights && !options->scores && !options->log_sum_exp;
    return problem->kv_len - 1 < ATTN_SMALL_KEYS && fills_registers(problem) && problem->head_size <= ATTN_SMALL_SIZE &&
           !problem->cache && first_keys && bare && output_only && options->empty == ATTN_EMPTY_ZERO;
}

/* How many keys each row sees; the most and the least of them. */
struct visible {
    uint32_t keys[ROWS];
    size_t most, least;
};

static void count_visible(const struct attn_problem *problem, const struct attn_sequence *sequence, size_t b,
                          size_t begin, size_t rows, struct visible *visible) {
    bool alike = attn_rows_alike(problem->options);
    visible->most = 0;
    visible->least = SIZE_MAX;
    for (size_t i = 0; i < (alike ? 1 : rows); i++) {
        size_t end = attn_row_interval(problem, sequence, b, begin + i).end;
        visible->keys[i] = (uint32_t)end;
        visible->most = end > visible->most ? end : visible->most;
        visible->least = end < visible->least ? end : visible->least;
    }
}

static void clear_rows(const struct attn_problem *problem, float *o, size_t rows) {
    for (size_t h = 0; h < problem->heads; h++)
        for (size_t i = 0; i < rows; i++)
            memset(o + h * problem->o.head_stride + i * problem->o.row_stride, 0, problem->value_size * sizeof *o);
}

/* Rows begin .. begin + rows - 1 of all heads. */
static void run_rows(const struct attn_problem *problem, const struct attn_sequence *sequence, size_t b, size_t begin,
                     size_t rows) {
    const attn_tensor *q = &problem->q, *k = &problem->k, *v = &problem->v;
    const attn_tensor_out *o = &problem->o;
    size_t q_batch = problem->q_cu ? 0 : b, kv_batch = problem->kv_cu ? 0 : b, row = sequence->q_row + begin;
    float *out = o->data + q_batch * o->batch_stride + row * o->row_stride;
    struct visible visible;
    count_visible(problem, sequence, b, begin, rows, &visible);
    if (visible.most == 0) { /* without keys there need be no pointer to them */
        clear_rows(problem, out, rows);
        return;
    }
    attn_table_small(problem->table)
        ->run(&(struct attn_small_args){.heads = problem->heads,
                                        .group = problem->group,
                                        .rows = rows,
                                        .keys = visible.most,
                                        .hi = visible.least < visible.most ? visible.keys : NULL,
                                        .head_size = problem->head_size,
                                        .value_size = problem->value_size,
                                        .scale = problem->scale,
                                        .q = q->data + q_batch * q->batch_stride + row * q->row_stride,
                                        .k = k->data + kv_batch * k->batch_stride + sequence->kv_row * k->row_stride,
                                        .v = v->data + kv_batch * v->batch_stride + sequence->kv_row * v->row_stride,
                                        .q_head_stride = q->head_stride,
                                        .q_row_stride = q->row_stride,
                                        .k_head_stride = k->head_stride,
                                        .k_row_stride = k->row_stride,
                                        .v_head_stride = v->head_stride,
                                        .v_row_stride = v->row_stride,
                                        .o = out,
                                        .o_head_stride = o->head_stride,
                                        .o_row_stride = o->row_stride});
}

void attn_op_small(const struct attn_problem *problem) {
    for (size_t b = 0; b < problem->batch; b++) {
        struct attn_sequence sequence = attn_sequence_of(problem, b);
        for (size_t i = 0, rows; i < sequence.q_len; i += rows) {
            rows = sequence.q_len - i < ROWS ? sequence.q_len - i : ROWS;
            run_rows(problem, &sequence, b, i, rows);
        }
    }
}
