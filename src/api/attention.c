/* attn_attention: argument checks, defaults, workspace. */
#include "ops/attention.h"
#include "api/options.h"
#include "dispatch.h"

static bool attention_is_empty(const attn_attention_args *args) {
    return !args->batch || !args->heads || !args->q_len;
}

/* The table, and what a cache must agree with. */
static attn_status check_table(const attn_attention_args *args, const struct attn_kernels **table, const char **field) {
    const struct attn_cache *cache = args->cache;
    attn_status status = ATTN_OK;
    if (cache && args->isa == ATTN_ISA_BEST)
        *table = cache->table;
    else
        status = attn_table_for(args->isa, table);
    if (status != ATTN_OK)
        return attn_fail(status, "isa", field);
    return cache && *table != cache->table ? attn_fail(ATTN_MISMATCH, "isa", field) : ATTN_OK;
}

static attn_status check_attention_cache(const struct attn_problem *problem, const attn_attention_args *args,
                                         const char **field) {
    const attn_cache_config *config = &args->cache->config;
    if (config->batch != problem->batch || config->kv_heads != problem->kv_heads ||
        config->head_size != problem->head_size || config->value_size != problem->value_size)
        return attn_fail(ATTN_MISMATCH, "cache", field);
    if (args->kv_cu.cu)
        return attn_fail(ATTN_MISMATCH, "kv_cu.cu", field);
    if (args->kv_len != 0 && args->kv_len != args->cache->length)
        return attn_fail(ATTN_MISMATCH, "kv_len", field);
    return ATTN_OK;
}

/* All sizes and defaults, without a look at data. */
static attn_status resolve_attention(const attn_attention_args *args, struct attn_problem *problem,
                                     const char **field) {
    RETURN_IF_ERROR(attn_check_pointer(args, "args", field));
    RETURN_IF_ERROR(attn_check_size(args->batch, 0, "batch", field));
    RETURN_IF_ERROR(attn_check_size(args->heads, 0, "heads", field));
    RETURN_IF_ERROR(attn_check_size(args->q_len, 0, "q_len", field));
    RETURN_IF_ERROR(attn_check_size(args->kv_len, 0, "kv_len", field));
    RETURN_IF_ERROR(attn_check_size(args->head_size, 1, "head_size", field));
    RETURN_IF_ERROR(attn_check_size(args->value_size, 0, "value_size", field));
    RETURN_IF_ERROR(attn_check_cu_total(&args->q_cu, "q_cu.total", field));
    RETURN_IF_ERROR(attn_check_cu_total(&args->kv_cu, "kv_cu.total", field));
    RETURN_IF_ERROR(attn_check_options(&args->options, field));
    RETURN_IF_ERROR(attn_check_rotary_dims(args->options.rotary, args->head_size, "options.rotary", field));
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
                                     .q_cu = args->q_cu.cu,
                                     .kv_cu = args->kv_cu.cu,
                                     .cache = args->cache,
                                     .options = &args->options};
    RETURN_IF_ERROR(attn_check_kv_heads(args->heads, args->kv_heads, &problem->kv_heads, field));
    problem->group = problem->kv_heads ? args->heads / problem->kv_heads : 0;
    RETURN_IF_ERROR(attn_check_scale(args->scale, args->head_size, &problem->scale, field));
    RETURN_IF_ERROR(check_table(args, &problem->table, field));
    return args->cache && !attention_is_empty(args) ? check_attention_cache(problem, args, field) : ATTN_OK;
}

static attn_status measure(struct attn_problem *problem, size_t *bytes, const char **field) {
    struct attn_carve carve = {0};
    attn_problem_layout(problem, &carve);
    *bytes = carve.used;
    return carve.overflow ? attn_fail(ATTN_OVERFLOW, "kv_len", field) : ATTN_OK;
}

/* [batch, heads, len, width], or [heads, total, width] where sequences are packed. */
struct extent {
    size_t batch, heads, len, width;
    const attn_cu_lens *cu;
};

static attn_status check_tensor(const attn_tensor *tensor, const struct extent *extent, size_t dims[ATTN_CHECK_DIMS],
                                struct attn_named_bytes *range, const char *data_name, const char **field) {
    bool packed = extent->cu->cu;
    size_t strides[ATTN_CHECK_DIMS] = {packed ? 0 : tensor->batch_stride, tensor->head_stride, tensor->row_stride};
    dims[0] = packed ? 1 : extent->batch;
    dims[1] = extent->heads;
    dims[2] = packed ? extent->cu->total : extent->len;
    range->data = tensor->data;
    RETURN_IF_ERROR(attn_check_extent(dims, strides, extent->width, &range->bytes, range->name, field));
    return range->bytes ? attn_check_pointer(tensor->data, data_name, field) : ATTN_OK;
}

static attn_status check_attention_data(const struct attn_problem *problem, const attn_attention_args *args,
                                        const char **field) {
    attn_tensor o = {problem->o.data, problem->o.batch_stride, problem->o.head_stride, problem->o.row_stride};
    struct extent q = {problem->batch, problem->heads, problem->q_len, problem->head_size, &args->q_cu};
    struct extent k = {problem->batch, problem->kv_heads, args->cache ? 0 : problem->kv_len, problem->head_size,
                       &args->kv_cu};
    struct extent v = k, out = q;
    struct attn_named_bytes range[4] = {{.name = "o"}, {.name = "q"}, {.name = "k"}, {.name = "v"}};
    size_t dims[ATTN_CHECK_DIMS], o_dims[ATTN_CHECK_DIMS];
    v.width = out.width = problem->value_size;
    RETURN_IF_ERROR(attn_check_cu_lens(&args->q_cu, problem->batch, problem->q_len, "q_cu.cu", field));
    RETURN_IF_ERROR(attn_check_cu_lens(&args->kv_cu, problem->batch, problem->kv_len, "kv_cu.cu", field));
    RETURN_IF_ERROR(check_tensor(&problem->q, &q, dims, &range[1], "q.data", field));
    RETURN_IF_ERROR(check_tensor(&problem->k, &k, dims, &range[2], "k.data", field));
    RETURN_IF_ERROR(check_tensor(&problem->v, &v, dims, &range[3], "v.data", field));
    RETURN_IF_ERROR(check_tensor(&o, &out, o_dims, &range[0], "o.data", field));
    RETURN_IF_ERROR(attn_check_apart(o_dims, (size_t[]){o.batch_stride, o.head_stride, o.row_stride},
                                     problem->value_size, "o", field));
    for (int i = 1; i < 4; i++)
        RETURN_IF_ERROR(attn_check_disjoint(o.data, range[0].bytes, range[i].data, range[i].bytes, "o", field));
    return attn_check_option_data(problem, range, 4, field);
}

attn_status attn_attention_workspace(const attn_attention_args *args, size_t *bytes, const char **field) {
    struct attn_problem problem;
    size_t needed = 0;
    RETURN_IF_ERROR(resolve_attention(args, &problem, field));
    RETURN_IF_ERROR(attn_check_pointer(bytes, "bytes", field));
    if (args->cache)
        problem.kv_len = args->cache->config.capacity;
    if (!attention_is_empty(args))
        RETURN_IF_ERROR(measure(&problem, &needed, field));
    *bytes = needed;
    return ATTN_OK;
}

attn_status attn_attention(const attn_attention_args *args, void *workspace, size_t bytes, const char **field) {
    struct attn_problem problem;
    size_t needed;
    RETURN_IF_ERROR(resolve_attention(args, &problem, field));
    if (attention_is_empty(args))
        return ATTN_OK;
    RETURN_IF_ERROR(measure(&problem, &needed, field));
    RETURN_IF_ERROR(check_attention_data(&problem, args, field));
    RETURN_IF_ERROR(attn_check_memory(workspace, bytes, needed, "workspace", field));
    attn_problem_layout(&problem, &(struct attn_carve){.base = workspace});
    attn_op_attention(&problem);
    return ATTN_OK;
}
