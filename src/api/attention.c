/* attn_attention: judging, defaults, workspace. */
#include "ops/attention.h"
#include "api/options.h"
#include "dispatch.h"

static bool empty(const attn_attention_args *args) {
    return !args->batch || !args->heads || !args->q_len;
}

/* The table, and what a cache must agree with. */
static attn_status judge_table(const attn_attention_args *args, const struct attn_kernels **table, const char **field) {
    const struct attn_cache *cache = args->cache;
    attn_status status = ATTN_OK;
    if (cache && args->isa == ATTN_ISA_BEST)
        *table = cache->table;
    else
        status = attn_table_for(args->isa, table);
    if (status != ATTN_OK)
        return judge_fail(status, "isa", field);
    return cache && *table != cache->table ? judge_fail(ATTN_MISMATCH, "isa", field) : ATTN_OK;
}

static attn_status judge_cache(const struct attn_problem *problem, const attn_attention_args *args,
                               const char **field) {
    const attn_cache_config *config = &args->cache->config;
    if (config->batch != problem->batch || config->kv_heads != problem->kv_heads ||
        config->head_size != problem->head_size || config->value_size != problem->value_size)
        return judge_fail(ATTN_MISMATCH, "cache", field);
    if (args->kv_len != 0 && args->kv_len != args->cache->length)
        return judge_fail(ATTN_MISMATCH, "kv_len", field);
    return ATTN_OK;
}

/* All sizes and defaults, without a look at data. */
static attn_status resolve(const attn_attention_args *args, struct attn_problem *problem, const char **field) {
    JUDGE(judge_pointer(args, "args", field));
    JUDGE(judge_size(args->batch, 0, "batch", field));
    JUDGE(judge_size(args->heads, 0, "heads", field));
    JUDGE(judge_size(args->q_len, 0, "q_len", field));
    JUDGE(judge_size(args->kv_len, 0, "kv_len", field));
    JUDGE(judge_size(args->head_size, 1, "head_size", field));
    JUDGE(judge_size(args->value_size, 0, "value_size", field));
    JUDGE(judge_options(&args->options, field));
    *problem = (struct attn_problem){.batch = args->batch,
                                     .heads = args->heads,
                                     .q_len = args->q_len,
                                     .kv_len = args->cache ? args->cache->length : args->kv_len,
                                     .head_size = args->head_size,
                                     .value_size = args->value_size ? args->value_size : args->head_size,
                                     .q = args->q,
                                     .k = args->k,
                                     .v = args->v,
                                     .o = args->o,
                                     .options = &args->options};
    JUDGE(judge_kv_heads(args->heads, args->kv_heads, &problem->kv_heads, field));
    problem->group = problem->kv_heads ? args->heads / problem->kv_heads : 0;
    JUDGE(judge_scale(args->scale, args->head_size, &problem->scale, field));
    JUDGE(judge_table(args, &problem->table, field));
    return args->cache && !empty(args) ? judge_cache(problem, args, field) : ATTN_OK;
}

static attn_status measure(struct attn_problem *problem, const attn_cache *cache, size_t *bytes, const char **field) {
    struct attn_carve carve = {0};
    attn_problem_layout(problem, cache, &carve);
    *bytes = carve.used;
    return carve.overflow ? judge_fail(ATTN_OVERFLOW, "kv_len", field) : ATTN_OK;
}

static attn_status judge_tensor(const attn_tensor *tensor, const size_t dims[JUDGE_DIMS], size_t width,
                                struct judge_range *range, const char *name, const char *data_name,
                                const char **field) {
    size_t strides[JUDGE_DIMS] = {tensor->batch_stride, tensor->head_stride, tensor->row_stride};
    range->data = tensor->data;
    JUDGE(judge_extent(dims, strides, width, &range->bytes, name, field));
    return range->bytes ? judge_pointer(tensor->data, data_name, field) : ATTN_OK;
}

static attn_status judge_data(const struct attn_problem *problem, bool cached, const char **field) {
    size_t q_dims[JUDGE_DIMS] = {problem->batch, problem->heads, problem->q_len};
    size_t k_dims[JUDGE_DIMS] = {problem->batch, problem->kv_heads, cached ? 0 : problem->kv_len};
    size_t o_strides[JUDGE_DIMS] = {problem->o.batch_stride, problem->o.head_stride, problem->o.row_stride};
    attn_tensor o = {problem->o.data, o_strides[0], o_strides[1], o_strides[2]};
    struct judge_range range[4];
    JUDGE(judge_tensor(&problem->q, q_dims, problem->head_size, &range[0], "q", "q.data", field));
    JUDGE(judge_tensor(&problem->k, k_dims, problem->head_size, &range[1], "k", "k.data", field));
    JUDGE(judge_tensor(&problem->v, k_dims, problem->value_size, &range[2], "v", "v.data", field));
    JUDGE(judge_tensor(&o, q_dims, problem->value_size, &range[3], "o", "o.data", field));
    JUDGE(judge_apart(q_dims, o_strides, problem->value_size, "o", field));
    for (int i = 0; i < 3; i++)
        JUDGE(judge_disjoint(o.data, range[3].bytes, range[i].data, range[i].bytes, "o", field));
    return judge_option_data(problem->options, problem->batch, problem->heads, problem->q_len, problem->kv_len, range,
                             4, field);
}

attn_status attn_attention_workspace(const attn_attention_args *args, size_t *bytes, const char **field) {
    struct attn_problem problem;
    size_t needed = 0;
    JUDGE(resolve(args, &problem, field));
    JUDGE(judge_pointer(bytes, "bytes", field));
    if (args->cache)
        problem.kv_len = args->cache->config.capacity;
    if (!empty(args))
        JUDGE(measure(&problem, args->cache, &needed, field));
    *bytes = needed;
    return ATTN_OK;
}

attn_status attn_attention(const attn_attention_args *args, void *workspace, size_t bytes, const char **field) {
    struct attn_problem problem;
    size_t needed;
    JUDGE(resolve(args, &problem, field));
    if (empty(args))
        return ATTN_OK;
    JUDGE(measure(&problem, args->cache, &needed, field));
    JUDGE(judge_data(&problem, args->cache != NULL, field));
    JUDGE(judge_memory(workspace, bytes, needed, "workspace", field));
    attn_problem_layout(&problem, args->cache, &(struct attn_carve){.base = workspace});
    attn_op_attention(&problem);
    return ATTN_OK;
}
