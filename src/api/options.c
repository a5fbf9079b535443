#include "api/options.h"

#include <math.h>

#include "ops/visible.h"

attn_status attn_check_options(const attn_options *options, attn_error *error) {
    RETURN_IF_ERROR(attn_check_valid_kind(&options->valid, "options.valid.kind", "options.valid.lens", error));
    RETURN_IF_ERROR(attn_check_enum((int)options->causal, ATTN_CAUSAL_OFFSET, "options.causal", error));
    RETURN_IF_ERROR(attn_check_used(options->causal_offset != 0, options->causal == ATTN_CAUSAL_OFFSET,
                                    "options.causal_offset", error));
    RETURN_IF_ERROR(
        attn_check_used(options->rotary_offsets != NULL, options->rotary != NULL, "options.rotary_offsets", error));
    RETURN_IF_ERROR(attn_check_size(options->window_left, 0, "options.window_left", error));
    RETURN_IF_ERROR(attn_check_size(options->window_right, 0, "options.window_right", error));
    RETURN_IF_ERROR(attn_check_enum((int)options->empty, ATTN_EMPTY_MEAN, "options.empty", error));
    RETURN_IF_ERROR(attn_check_enum((int)options->score_stage, ATTN_SCORE_MASKED, "options.score_stage", error));
    if (!(options->soft_cap >= 0.0f && isfinite(options->soft_cap)))
        return attn_fail(ATTN_BAD_VALUE, "options.soft_cap", error);
    if (!(options->dropout >= 0.0f && options->dropout < 1.0f))
        return attn_fail(ATTN_BAD_VALUE, "options.dropout", error);
    return ATTN_OK;
}

attn_status attn_check_kv_heads(size_t heads, size_t kv_heads, size_t *resolved, attn_error *error) {
    *resolved = kv_heads ? kv_heads : heads;
    if (kv_heads > PTRDIFF_MAX || (kv_heads && heads % kv_heads != 0))
        return attn_fail(ATTN_BAD_SIZE, "kv_heads", error);
    return ATTN_OK;
}

attn_status attn_check_scale(float scale, size_t head_size, float *resolved, attn_error *error) {
    *resolved = scale;
    if (scale == 0.0f && !signbit(scale)) /* -0 is the result of a computation */
        *resolved = (float)(1.0 / sqrt((double)head_size));
    return isfinite(*resolved) && *resolved != 0.0f ? ATTN_OK : attn_fail(ATTN_BAD_VALUE, "scale", error);
}

attn_status attn_check_rotary_dims(const attn_rotary *rotary, size_t head_size, const char *name, attn_error *error) {
    return rotary && rotary->dims > head_size ? attn_fail_size(ATTN_MISMATCH, name, head_size, rotary->dims, error)
                                              : ATTN_OK;
}

attn_status attn_check_cu_total(const attn_cu_lens *cu, const char *name, attn_error *error) {
    RETURN_IF_ERROR(attn_check_used(cu->total != 0, cu->cu != NULL, name, error));
    return attn_check_size(cu->total, 0, name, error);
}

attn_status attn_check_cu_lens(const attn_cu_lens *cu, size_t batch, size_t most, const char *name, attn_error *error) {
    if (!cu->cu)
        return ATTN_OK;
    int64_t begin = cu->cu[0];
    if (begin < 0)
        return attn_fail(ATTN_BAD_VALUE, name, error);
    for (size_t b = 0; b < batch; b++) {
        int64_t end = cu->cu[b + 1];
        if (end < begin || (uint64_t)(end - begin) > most || (uint64_t)end > cu->total)
            return attn_fail(ATTN_BAD_VALUE, name, error);
        begin = end;
    }
    return ATTN_OK;
}

size_t attn_cu_most(const attn_cu_lens *cu, size_t len) {
    return cu->cu ? attn_min(len, cu->total) : len;
}

size_t attn_cu_longest(const attn_cu_lens *cu, size_t batch, size_t len) {
    size_t longest = 0;
    if (!cu->cu)
        return len;
    for (size_t b = 0; b < batch; b++)
        longest = attn_max(longest, (size_t)(cu->cu[b + 1] - cu->cu[b]));
    return longest;
}

/* ---- Inputs ---- */

enum { MASK, BIAS, INPUTS };

static attn_status check_inputs(const struct attn_problem *problem, struct attn_named_bytes inputs[INPUTS],
                                attn_error *error) {
    const attn_options *options = problem->options;
    const attn_mask *mask = &options->mask;
    const attn_tensor *bias = &options->bias;
    size_t dims[ATTN_CHECK_DIMS] = {problem->batch, problem->heads, problem->q_len};
    inputs[MASK] = (struct attn_named_bytes){"options.mask", mask->data, 0};
    inputs[BIAS] = (struct attn_named_bytes){"options.bias", bias->data, 0};
    RETURN_IF_ERROR(attn_check_valid_lens(&options->valid, "options.valid.lens", error));
    if (mask->data)
        RETURN_IF_ERROR(attn_check_elements(dims, (size_t[]){mask->batch_stride, mask->head_stride, mask->row_stride},
                                            problem->kv_len, 1, &inputs[MASK].bytes, "options.mask", error));
    if (bias->data)
        RETURN_IF_ERROR(attn_check_extent(dims, (size_t[]){bias->batch_stride, bias->head_stride, bias->row_stride},
                                          problem->kv_len, &inputs[BIAS].bytes, "options.bias", error));
    if (problem->kv_len == 0) /* nothing of them is read, so they overlap nothing */
        inputs[MASK].bytes = inputs[BIAS].bytes = 0;
    return ATTN_OK;
}

static attn_status check_alibi(const struct attn_problem *problem, attn_error *error) {
    const attn_options *options = problem->options;
    if (!options->alibi)
        return ATTN_OK;
    for (size_t h = 0; h < problem->heads; h++)
        if (!isfinite(options->alibi[h]))
            return attn_fail(ATTN_BAD_VALUE, "options.alibi", error);
    return ATTN_OK;
}

static attn_status check_rotary(const struct attn_problem *problem, attn_error *error) {
    return !problem->options->rotary || attn_positions_exist(problem)
               ? ATTN_OK
               : attn_fail(ATTN_BAD_VALUE, "options.rotary", error);
}

static attn_status check_rings(const struct attn_problem *problem, attn_error *error) {
    bool ring = problem->cache && problem->cache->config.ring;
    return !ring || attn_ring_holds(problem) ? ATTN_OK : attn_fail(ATTN_TOO_SMALL, "cache", error);
}

/* ---- Outputs ---- */

static attn_status check_output(const void *data, size_t bytes, const struct attn_named_bytes *ranges, size_t count,
                                const char *name, attn_error *error) {
    for (size_t i = 0; i < count; i++)
        RETURN_IF_ERROR(attn_check_disjoint(data, bytes, ranges[i].data, ranges[i].bytes, name, error));
    return ATTN_OK;
}

attn_status attn_check_option_data(const struct attn_problem *problem, const struct attn_named_bytes *ranges,
                                   size_t count, attn_error *error) {
    const attn_options *options = problem->options;
    struct attn_named_bytes inputs[INPUTS];
    size_t rows, row_bytes, score_bytes;
    RETURN_IF_ERROR(check_inputs(problem, inputs, error));
    RETURN_IF_ERROR(check_alibi(problem, error));
    RETURN_IF_ERROR(check_rotary(problem, error));
    RETURN_IF_ERROR(check_rings(problem, error));
    if (!attn_mul(problem->batch, problem->heads, &rows) || !attn_mul(rows, problem->q_len, &rows) ||
        !attn_mul(rows, sizeof(float), &row_bytes))
        return attn_fail(ATTN_OVERFLOW, "q_len", error);
    bool fits = attn_mul(row_bytes, problem->kv_len, &score_bytes) && score_bytes <= PTRDIFF_MAX;

    RETURN_IF_ERROR(check_output(ranges[0].data, ranges[0].bytes, inputs, INPUTS, ranges[0].name, error));
    const void *data[] = {options->weights, options->scores, options->log_sum_exp};
    const char *names[] = {"options.weights", "options.scores", "options.log_sum_exp"};
    struct attn_named_bytes outputs[3];
    for (size_t i = 0; i < 3; i++) {
        bool scores = i < 2;
        if (data[i] && scores && !fits)
            return attn_fail(ATTN_OVERFLOW, names[i], error);
        outputs[i] = (struct attn_named_bytes){names[i], data[i], !data[i] ? 0 : scores ? score_bytes : row_bytes};
        RETURN_IF_ERROR(check_output(data[i], outputs[i].bytes, ranges, count, names[i], error));
        RETURN_IF_ERROR(check_output(data[i], outputs[i].bytes, inputs, INPUTS, names[i], error));
        RETURN_IF_ERROR(check_output(data[i], outputs[i].bytes, outputs, i, names[i], error));
    }
    return ATTN_OK;
}

/* ---- Lines of ATTN_VERBOSE=2 ---- */

static void describe_visibility(const attn_options *options, struct attn_line *line) {
    static const char *const kinds[] = {"", " valid per_sequence", " valid per_row"};
    static const char *const orders[] = {"", " causal bottom_right", " causal top_left", " causal offset"};
    attn_line_add(line, "%s%s%s", kinds[options->valid.kind], options->starts ? " starts" : "",
                  orders[options->causal]);
    if (options->causal == ATTN_CAUSAL_OFFSET)
        attn_line_add(line, " %lld", (long long)options->causal_offset);
    if (options->window_left)
        attn_line_size(line, "window_left", options->window_left);
    if (options->window_right)
        attn_line_size(line, "window_right", options->window_right);
    attn_line_add(line, "%s%s%s", options->mask.data ? " mask" : "", options->bias.data ? " bias" : "",
                  options->empty == ATTN_EMPTY_MEAN ? " empty mean" : "");
}

void attn_describe_options(const attn_options *options, struct attn_line *line) {
    static const char *const stages[] = {" scores raw", " scores capped", " scores masked"};
    describe_visibility(options, line);
    if (options->soft_cap > 0.0f)
        attn_line_add(line, " soft_cap %g", (double)options->soft_cap);
    attn_line_add(line, "%s%s%s%s", options->alibi ? " alibi" : "", options->sinks ? " sinks" : "",
                  options->rotary ? " rotary" : "", options->rotary_offsets ? " rotary_offsets" : "");
    if (options->dropout > 0.0f)
        attn_line_add(line, " dropout %g", (double)options->dropout);
    attn_line_add(line, "%s%s%s", options->weights ? " weights" : "",
                  options->scores ? stages[options->score_stage] : "", options->log_sum_exp ? " log_sum_exp" : "");
}

void attn_describe_plan(const struct attn_plan *plan, struct attn_line *line) {
    if (plan->tasks == 0)
        return;
    attn_line_add(line, "; path %s", attn_path_name(plan->path));
    if (plan->tile_rows > 0) {
        attn_line_size(line, "tile_rows", plan->tile_rows);
        attn_line_size(line, "spans", plan->spans);
    }
    attn_line_size(line, "tasks", plan->tasks);
}

void attn_describe_cache(const attn_cache *cache, struct attn_line *line) {
    static const char *const kinds[] = {[ATTN_KV_CONTIGUOUS] = "cache",
                                        [ATTN_KV_RING] = "ring",
                                        [ATTN_KV_PAGED] = "paged cache",
                                        [ATTN_KV_FORK] = "fork"};
    attn_line_add(line, " from a %s", kinds[cache->store.kind]);
}
