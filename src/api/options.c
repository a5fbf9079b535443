#include "api/options.h"

#include <math.h>

#include "ops/visible.h"

static attn_status check_mask_options(const attn_options *options, attn_error *error) {
    bool mask = options->mask.data, bias = options->bias.data;
    RETURN_IF_ERROR(attn_check_used(options->mask_len != 0, mask, "options.mask_len", error));
    RETURN_IF_ERROR(attn_check_used(options->mask_hides != 0, mask, "options.mask_hides", error));
    RETURN_IF_ERROR(attn_check_used(options->bias_len != 0, bias, "options.bias_len", error));
    RETURN_IF_ERROR(attn_check_used(options->bias_factors != NULL, bias, "options.bias_factors", error));
    if (mask)
        RETURN_IF_ERROR(attn_check_type(options->mask.type, ATTN_TYPE_BIT(ATTN_BOOL), "options.mask.type", error));
    return bias ? attn_check_float_type(options->bias.type, "options.bias.type", error) : ATTN_OK;
}

static attn_status check_f32_output(const attn_tensor_out *output, const char *name, attn_error *error) {
    return output->data ? attn_check_type(output->type, ATTN_TYPE_BIT(ATTN_F32), name, error) : ATTN_OK;
}

static attn_status check_output_options(const attn_options *options, attn_error *error) {
    bool hidden = options->scores.data && options->score_stage != ATTN_SCORE_MASKED;
    RETURN_IF_ERROR(attn_check_used(options->scores_hidden != 0, hidden, "options.scores_hidden", error));
    RETURN_IF_ERROR(check_f32_output(&options->weights, "options.weights.type", error));
    RETURN_IF_ERROR(check_f32_output(&options->scores, "options.scores.type", error));
    return check_f32_output(&options->log_sum_exp, "options.log_sum_exp.type", error);
}

static attn_status check_position(const attn_options *options, attn_error *error) {
    const attn_ints *offsets = &options->position_offsets;
    bool offset = options->position == ATTN_POSITION_OFFSET, given = attn_ints_given(offsets);
    RETURN_IF_ERROR(attn_check_enum((int)options->position, ATTN_POSITION_OFFSET, "options.position", error));
    if (options->position == ATTN_POSITION_VALID_END && options->valid.kind == ATTN_VALID_PER_ROW)
        return attn_fail(ATTN_BAD_VALUE, "options.position", error);
    RETURN_IF_ERROR(attn_check_used(given, offset, "options.position_offsets", error));
    RETURN_IF_ERROR(attn_check_ints(offsets, "options.position_offsets", error));
    return attn_check_used(options->position_offset != 0, offset && !given, "options.position_offset", error);
}

attn_status attn_check_options(const attn_options *options, attn_error *error) {
    RETURN_IF_ERROR(ATTN_CHECK_VALID(&options->valid, "options.", error));
    RETURN_IF_ERROR(attn_check_ints(&options->starts, "options.starts", error));
    RETURN_IF_ERROR(check_position(options, error));
    RETURN_IF_ERROR(attn_check_ints(&options->rotary_offsets, "options.rotary_offsets", error));
    RETURN_IF_ERROR(attn_check_used(attn_ints_given(&options->rotary_offsets), options->rotary != NULL,
                                    "options.rotary_offsets", error));
    RETURN_IF_ERROR(attn_check_size(options->window_left, 0, "options.window_left", error));
    RETURN_IF_ERROR(attn_check_size(options->window_right, 0, "options.window_right", error));
    RETURN_IF_ERROR(attn_check_enum((int)options->empty, ATTN_EMPTY_MEAN, "options.empty", error));
    RETURN_IF_ERROR(attn_check_enum((int)options->score_stage, ATTN_SCORE_MASKED, "options.score_stage", error));
    if (!(options->soft_cap >= 0.0f && isfinite(options->soft_cap)))
        return attn_fail(ATTN_BAD_VALUE, "options.soft_cap", error);
    if (!(options->dropout >= 0.0f && options->dropout < 1.0f))
        return attn_fail(ATTN_BAD_VALUE, "options.dropout", error);
    RETURN_IF_ERROR(check_mask_options(options, error));
    return check_output_options(options, error);
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
    RETURN_IF_ERROR(attn_check_used(cu->total != 0, attn_ints_given(&cu->cu), name, error));
    return attn_check_size(cu->total, 0, name, error);
}

attn_status attn_check_cu_lens(const attn_cu_lens *cu, size_t batch, size_t most, const char *name, attn_error *error) {
    RETURN_IF_ERROR(attn_check_ints(&cu->cu, name, error));
    if (!attn_ints_given(&cu->cu))
        return ATTN_OK;
    int64_t begin = attn_ints_at(&cu->cu, 0);
    if (begin < 0)
        return attn_fail(ATTN_BAD_VALUE, name, error);
    for (size_t b = 0; b < batch; b++) {
        int64_t end = attn_ints_at(&cu->cu, b + 1);
        if (end < begin || (uint64_t)(end - begin) > most || (uint64_t)end > cu->total)
            return attn_fail(ATTN_BAD_VALUE, name, error);
        begin = end;
    }
    return ATTN_OK;
}

size_t attn_cu_most(const attn_cu_lens *cu, size_t len) {
    return attn_ints_given(&cu->cu) ? attn_min(len, cu->total) : len;
}

size_t attn_cu_longest(const attn_cu_lens *cu, size_t batch, size_t len) {
    size_t longest = 0;
    if (!attn_ints_given(&cu->cu))
        return len;
    for (size_t b = 0; b < batch; b++)
        longest = attn_max(longest, (size_t)(attn_ints_at(&cu->cu, b + 1) - attn_ints_at(&cu->cu, b)));
    return longest;
}

/* ---- Inputs ---- */

enum { MASK, BIAS, INPUTS };

/* (cols - 1) * stride + 1, the elements that a row covers; 0 for none. */
static bool covered_by_row(size_t cols, size_t stride, size_t *covered) {
    *covered = 0;
    return cols == 0 || (attn_mul(cols - 1, stride, covered) && attn_add(*covered, 1, covered));
}

/* [batch, heads, q_len, len], with a stride in every dimension. */
static attn_status check_mask(const struct attn_problem *problem, const attn_tensor *mask, size_t len,
                              const char *len_name, struct attn_named_bytes *range, attn_error *error) {
    const size_t dims[ATTN_CHECK_DIMS] = {problem->batch, problem->heads, problem->q_len};
    const size_t strides[ATTN_CHECK_DIMS] = {mask->batch_stride, mask->head_stride, mask->row_stride};
    size_t width, element = attn_type_size(mask->type);
    RETURN_IF_ERROR(attn_check_most(len, problem->kv_len, len_name, error));
    if (len == 0)
        len = problem->kv_len;
    if ((mask->batch_stride | mask->head_stride | mask->row_stride | mask->col_stride) == 0 && len > 0 &&
        (problem->batch | problem->heads | problem->q_len | len) > 1)
        return attn_fail(ATTN_BAD_STRIDE, range->name, error);
    if (!covered_by_row(len, mask->col_stride, &width))
        return attn_fail(ATTN_OVERFLOW, range->name, error);
    RETURN_IF_ERROR(attn_check_elements(dims, strides, width, element, &range->bytes, range->name, error));
    if (len == 0) /* nothing of it is read, so it overlaps nothing */
        range->bytes = 0;
    return ATTN_OK;
}

static attn_status check_inputs(const struct attn_problem *problem, struct attn_named_bytes inputs[INPUTS],
                                attn_error *error) {
    const attn_options *options = problem->options;
    inputs[MASK] = (struct attn_named_bytes){"options.mask", options->mask.data, 0};
    inputs[BIAS] = (struct attn_named_bytes){"options.bias", options->bias.data, 0};
    RETURN_IF_ERROR(attn_check_valid_lens(&options->valid, "options.valid.lens", error));
    if (options->mask.data)
        RETURN_IF_ERROR(
            check_mask(problem, &options->mask, options->mask_len, "options.mask_len", &inputs[MASK], error));
    if (options->bias.data)
        RETURN_IF_ERROR(
            check_mask(problem, &options->bias, options->bias_len, "options.bias_len", &inputs[BIAS], error));
    return ATTN_OK;
}

/* A finite number for each head, or none at all. */
static attn_status check_per_head(const struct attn_problem *problem, const float *numbers, const char *name,
                                  attn_error *error) {
    for (size_t h = 0; numbers && h < problem->heads; h++)
        if (!isfinite(numbers[h]))
            return attn_fail(ATTN_BAD_VALUE, name, error);
    return ATTN_OK;
}

static attn_status check_rotary(const struct attn_problem *problem, attn_error *error) {
    return !problem->options->rotary || attn_positions_exist(problem)
               ? ATTN_OK
               : attn_fail(ATTN_BAD_VALUE, "options.rotary", error);
}

static attn_status check_rings(const struct attn_problem *problem, attn_error *error) {
    bool ring = problem->cache && problem->cache->config.kind == ATTN_CACHE_RING;
    return !ring || attn_ring_holds(problem) ? ATTN_OK : attn_fail(ATTN_TOO_SMALL, "cache", error);
}

/* ---- Outputs ---- */

static attn_status check_output(const void *data, size_t bytes, const struct attn_named_bytes *ranges, size_t count,
                                const char *name, attn_error *error) {
    for (size_t i = 0; i < count; i++)
        RETURN_IF_ERROR(attn_check_disjoint(data, bytes, ranges[i].data, ranges[i].bytes, name, error));
    return ATTN_OK;
}

/* [batch, heads, q_len, cols]: *resolved is the output with its strides. */
static attn_status resolve_output(const struct attn_problem *problem, const attn_tensor_out *given, size_t cols,
                                  struct attn_named_bytes *range, attn_tensor_out *resolved, attn_error *error) {
    size_t count = sizeof(float), width;
    range->data = given->data;
    if (!attn_mul(count, problem->batch, &count) || !attn_mul(count, problem->heads, &count) ||
        !attn_mul(count, problem->q_len, &count) || !attn_mul(count, cols, &count) || count > PTRDIFF_MAX)
        return attn_fail(ATTN_OVERFLOW, range->name, error);
    *resolved = attn_out_with_strides(given, problem->heads, problem->q_len, cols);
    const size_t dims[ATTN_CHECK_DIMS + 1] = {problem->batch, problem->heads, problem->q_len, cols};
    const size_t strides[ATTN_CHECK_DIMS + 1] = {resolved->batch_stride, resolved->head_stride, resolved->row_stride,
                                                 resolved->col_stride};
    if (!covered_by_row(cols, resolved->col_stride, &width))
        return attn_fail(ATTN_OVERFLOW, range->name, error);
    if (width > 0)
        RETURN_IF_ERROR(attn_check_elements(dims, strides, width, sizeof(float), &range->bytes, range->name, error));
    return attn_check_apart(ATTN_CHECK_DIMS + 1, dims, strides, 1, range->name, error);
}

attn_status attn_check_option_data(struct attn_problem *problem, const struct attn_named_bytes *ranges, size_t count,
                                   attn_error *error) {
    const attn_options *options = problem->options;
    struct attn_named_bytes inputs[INPUTS];
    RETURN_IF_ERROR(check_inputs(problem, inputs, error));
    RETURN_IF_ERROR(check_per_head(problem, options->alibi, "options.alibi", error));
    RETURN_IF_ERROR(check_per_head(problem, options->bias_factors, "options.bias_factors", error));
    RETURN_IF_ERROR(check_rotary(problem, error));
    RETURN_IF_ERROR(check_rings(problem, error));
    RETURN_IF_ERROR(check_output(ranges[0].data, ranges[0].bytes, inputs, INPUTS, ranges[0].name, error));
    const attn_tensor_out *given[] = {&options->weights, &options->scores, &options->log_sum_exp};
    attn_tensor_out *resolved[] = {&problem->weights, &problem->scores, &problem->log_sum_exp};
    struct attn_named_bytes outputs[] = {
        {.name = "options.weights"}, {.name = "options.scores"}, {.name = "options.log_sum_exp"}};
    for (size_t i = 0; i < 3; i++) {
        if (!given[i]->data)
            continue;
        struct attn_named_bytes *range = &outputs[i];
        size_t cols = i < 2 ? problem->kv_len : 1;
        RETURN_IF_ERROR(resolve_output(problem, given[i], cols, range, resolved[i], error));
        RETURN_IF_ERROR(check_output(range->data, range->bytes, ranges, count, range->name, error));
        RETURN_IF_ERROR(check_output(range->data, range->bytes, inputs, INPUTS, range->name, error));
        RETURN_IF_ERROR(check_output(range->data, range->bytes, outputs, i, range->name, error));
    }
    return ATTN_OK;
}

/* ---- Lines of ATTN_VERBOSE=2 ---- */

static void describe_visibility(const attn_options *options, struct attn_line *line) {
    static const char *const kinds[] = {"", " valid per_sequence", " valid per_row"};
    static const char *const positions[] = {"", " position top_left", " position valid_end", " position offset"};
    attn_line_add(line, "%s%s%s%s", kinds[options->valid.kind], attn_ints_given(&options->starts) ? " starts" : "",
                  options->causal ? " causal" : "", positions[options->position]);
    if (attn_ints_given(&options->position_offsets))
        attn_line_add(line, "s");
    else if (options->position == ATTN_POSITION_OFFSET)
        attn_line_add(line, " %lld", (long long)options->position_offset);
    if (options->window_left)
        attn_line_size(line, "window_left", options->window_left);
    if (options->window_right)
        attn_line_size(line, "window_right", options->window_right);
    if (options->mask.data)
        attn_line_add(line, options->mask_hides ? " mask hides" : " mask");
    if (options->mask_len)
        attn_line_size(line, "mask_len", options->mask_len);
    if (options->bias.data)
        attn_line_add(line, " bias");
    if (options->bias_len)
        attn_line_size(line, "bias_len", options->bias_len);
    if (options->bias_factors)
        attn_line_add(line, " bias_factors");
    attn_line_add(line, "%s", options->empty == ATTN_EMPTY_MEAN ? " empty mean" : "");
}

void attn_describe_options(const attn_options *options, struct attn_line *line) {
    static const char *const stages[] = {" scores raw", " scores capped", " scores masked"};
    describe_visibility(options, line);
    if (options->soft_cap > 0.0f)
        attn_line_add(line, " soft_cap %g", (double)options->soft_cap);
    attn_line_add(line, "%s%s%s%s", options->alibi ? " alibi" : "", options->sinks ? " sinks" : "",
                  options->rotary ? " rotary" : "", attn_ints_given(&options->rotary_offsets) ? " rotary_offsets" : "");
    if (options->dropout > 0.0f)
        attn_line_add(line, " dropout %g", (double)options->dropout);
    attn_line_add(line, "%s%s%s%s", options->weights.data ? " weights" : "",
                  options->scores.data ? stages[options->score_stage] : "", options->scores_hidden ? " hidden" : "",
                  options->log_sum_exp.data ? " log_sum_exp" : "");
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
    attn_line_add(line, " from a %s of %s", kinds[cache->store.kind], attn_type_name(cache->config.type));
}
