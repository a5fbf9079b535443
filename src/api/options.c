#include "api/options.h"

#include <math.h>

attn_status judge_options(const attn_options *options, const char **field) {
    JUDGE(judge_enum((int)options->valid.kind, ATTN_VALID_PER_ROW, "options.valid.kind", field));
    JUDGE(judge_enum((int)options->causal, ATTN_CAUSAL_TOP_LEFT, "options.causal", field));
    JUDGE(judge_enum((int)options->empty, ATTN_EMPTY_MEAN, "options.empty", field));
    if (!(options->dropout >= 0.0f && options->dropout < 1.0f))
        return judge_fail(ATTN_BAD_VALUE, "options.dropout", field);
    return judge_parallel(options->parallel, "options.parallel.run", field);
}

attn_status judge_kv_heads(size_t heads, size_t kv_heads, size_t *resolved, const char **field) {
    *resolved = kv_heads ? kv_heads : heads;
    if (kv_heads > PTRDIFF_MAX || (kv_heads && heads % kv_heads != 0))
        return judge_fail(ATTN_BAD_SIZE, "kv_heads", field);
    return ATTN_OK;
}

attn_status judge_scale(float scale, size_t head_size, float *resolved, const char **field) {
    *resolved = scale != 0.0f ? scale : (float)(1.0 / sqrt((double)head_size));
    return isfinite(scale) ? ATTN_OK : judge_fail(ATTN_BAD_VALUE, "scale", field);
}

static attn_status judge_output(const void *data, size_t bytes, const struct judge_range *ranges, size_t count,
                                const char *name, const char **field) {
    for (size_t i = 0; i < count; i++)
        JUDGE(judge_disjoint(data, bytes, ranges[i].data, ranges[i].bytes, name, field));
    return ATTN_OK;
}

attn_status judge_option_data(const attn_options *options, size_t batch, size_t heads, size_t q_len, size_t kv_len,
                              const struct judge_range *ranges, size_t count, const char **field) {
    size_t rows, row_bytes, weight_bytes = 0;
    JUDGE(judge_valid_lens(&options->valid, "options.valid.kind", "options.valid.lens", field));
    if (!attn_mul(batch, heads, &rows) || !attn_mul(rows, q_len, &rows) || !attn_mul(rows, sizeof(float), &row_bytes))
        return judge_fail(ATTN_OVERFLOW, "q_len", field);
    if (options->weights) {
        if (!attn_mul(row_bytes, kv_len, &weight_bytes) || weight_bytes > PTRDIFF_MAX)
            return judge_fail(ATTN_OVERFLOW, "options.weights", field);
        JUDGE(judge_output(options->weights, weight_bytes, ranges, count, "options.weights", field));
    }
    if (options->log_sum_exp) {
        JUDGE(judge_output(options->log_sum_exp, row_bytes, ranges, count, "options.log_sum_exp", field));
        JUDGE(judge_disjoint(options->log_sum_exp, row_bytes, options->weights, weight_bytes, "options.log_sum_exp",
                             field));
    }
    return ATTN_OK;
}
