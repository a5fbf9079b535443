/* attn_attention: argument checks, defaults, workspace. */
#include "ops/attention.h"
#include "api/options.h"
#include "dispatch.h"

static bool attention_is_empty(const attn_attention_args *args) {
    return !args->batch || !args->heads || !args->q_len;
}

/* Finds the table, and checks that a cache fits the call. */
static attn_status check_table(const attn_attention_args *args, const struct attn_kernels **table, attn_error *error) {
    const struct attn_cache *cache = args->cache;
    attn_status status = ATTN_OK;
    if (cache && args->isa == ATTN_ISA_BEST)
        *table = cache->table;
    else
        status = attn_table_for(args->isa, table);
    if (status != ATTN_OK)
        return attn_fail(status, "isa", error);
    return cache && *table != cache->table ? attn_fail(ATTN_MISMATCH, "isa", error) : ATTN_OK;
}

static attn_status check_attention_cache(const struct attn_problem *problem, const attn_attention_args *args,
                                         attn_error *error) {
    const attn_cache_config *config = &args->cache->config;
    if (config->batch != problem->batch || config->kv_heads != problem->kv_heads ||
        config->head_size != problem->head_size || config->value_size != problem->value_size)
        return attn_fail(ATTN_MISMATCH, "cache", error);
    if (attn_ints_given(&args->kv_cu.cu))
        return attn_fail(ATTN_MISMATCH, "kv_cu.cu", error);
    if (args->kv_len != 0 && args->kv_len != args->cache->length)
        return attn_fail_size(ATTN_MISMATCH, "kv_len", args->cache->length, args->kv_len, error);
    return ATTN_OK;
}

/* The class follows from these alone. */
static attn_status check_types(const attn_attention_args *args, attn_error *error) {
    RETURN_IF_ERROR(attn_check_float_type(args->q.type, "q.type", error));
    RETURN_IF_ERROR(attn_check_float_type(args->o.type, "o.type", error));
    RETURN_IF_ERROR(attn_check_arithmetic(args->arithmetic, "arithmetic", error));
    if (args->cache)
        return args->arithmetic != ATTN_ARITHMETIC_FASTEST && args->arithmetic != args->cache->config.arithmetic
                   ? attn_fail(ATTN_MISMATCH, "arithmetic", error)
                   : ATTN_OK;
    RETURN_IF_ERROR(attn_check_float_type(args->k.type, "k.type", error));
    return attn_check_type(args->v.type, ATTN_TYPE_BIT(args->k.type), "v.type", error);
}

/* Checks all sizes and resolves all defaults, without reading data. */
static attn_status resolve_attention(const attn_attention_args *args, struct attn_problem *problem, attn_error *error) {
    RETURN_IF_ERROR(attn_check_pointer(args, "args", error));
    RETURN_IF_ERROR(attn_check_size(args->batch, 0, "batch", error));
    RETURN_IF_ERROR(attn_check_size(args->heads, 0, "heads", error));
    RETURN_IF_ERROR(attn_check_size(args->q_len, 0, "q_len", error));
    RETURN_IF_ERROR(attn_check_size(args->kv_len, 0, "kv_len", error));
    RETURN_IF_ERROR(attn_check_size(args->head_size, 1, "head_size", error));
    RETURN_IF_ERROR(attn_check_size(args->value_size, 0, "value_size", error));
    RETURN_IF_ERROR(attn_check_cu_total(&args->q_cu, "q_cu.total", error));
    RETURN_IF_ERROR(attn_check_cu_total(&args->kv_cu, "kv_cu.total", error));
    RETURN_IF_ERROR(check_types(args, error));
    RETURN_IF_ERROR(attn_check_options(&args->options, error));
    RETURN_IF_ERROR(attn_check_parallel(args->parallel, "parallel.run", error));
    RETURN_IF_ERROR(attn_check_rotary_dims(args->options.rotary, args->head_size, "options.rotary", error));
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
                                     .stored = args->cache                 ? args->cache->config.type
                                               : args->k.type == ATTN_BF16 ? ATTN_BF16
                                                                           : ATTN_F32,
                                     .arithmetic = args->cache ? args->cache->config.arithmetic : args->arithmetic,
                                     .q_cu = args->q_cu.cu,
                                     .kv_cu = args->kv_cu.cu,
                                     .cache = args->cache,
                                     .options = &args->options,
                                     .parallel = args->parallel};
    problem->longest.rows = attn_cu_most(&args->q_cu, args->q_len);
    problem->longest.keys = attn_cu_most(&args->kv_cu, problem->kv_len);
    RETURN_IF_ERROR(attn_check_kv_heads(args->heads, args->kv_heads, &problem->kv_heads, error));
    problem->group = problem->kv_heads ? args->heads / problem->kv_heads : 0;
    RETURN_IF_ERROR(attn_check_scale(args->scale, args->head_size, &problem->scale, error));
    RETURN_IF_ERROR(check_table(args, &problem->table, error));
    return args->cache && !attention_is_empty(args) ? check_attention_cache(problem, args, error) : ATTN_OK;
}

/* Reads the cumulative lengths of packed sequences: rows and keys need not be more than those of the longest
 * sequence. */
static attn_status check_attention_sequences(struct attn_problem *problem, const attn_attention_args *args,
                                             attn_error *error) {
    RETURN_IF_ERROR(attn_check_cu_lens(&args->q_cu, problem->batch, problem->q_len, "q_cu.cu", error));
    RETURN_IF_ERROR(attn_check_cu_lens(&args->kv_cu, problem->batch, problem->kv_len, "kv_cu.cu", error));
    problem->longest.rows = attn_cu_longest(&args->q_cu, problem->batch, problem->q_len);
    problem->longest.keys = attn_cu_longest(&args->kv_cu, problem->batch, problem->kv_len);
    return ATTN_OK;
}

static attn_status make_plan(struct attn_problem *problem, attn_error *error) {
    return attn_plan_make(problem) ? ATTN_OK : attn_fail(ATTN_OVERFLOW, "kv_len", error);
}

/* [batch, heads, len, width], or [heads, total, width] where sequences are packed. */
static struct attn_strided strided_tensor(const attn_tensor *tensor, const attn_cu_lens *cu, size_t batch, size_t heads,
                                          size_t len, size_t width) {
    bool packed = attn_ints_given(&cu->cu);
    struct attn_strided strided = attn_heads_of(tensor, packed ? 1 : batch, heads, packed ? cu->total : len, width);
    strided.any_float = true;
    if (packed)
        strided.strides[0] = 0;
    return strided;
}

static attn_status check_attention_data(struct attn_problem *problem, const attn_attention_args *args,
                                        attn_error *error) {
    attn_tensor out = attn_as_input(&problem->o);
    size_t batch = problem->batch, heads = problem->heads, kv_heads = problem->kv_heads;
    size_t q_len = problem->q_len, kv_len = args->cache ? 0 : problem->kv_len, value_size = problem->value_size;
    struct attn_strided q = strided_tensor(&problem->q, &args->q_cu, batch, heads, q_len, problem->head_size);
    struct attn_strided k = strided_tensor(&problem->k, &args->kv_cu, batch, kv_heads, kv_len, problem->head_size);
    struct attn_strided v = strided_tensor(&problem->v, &args->kv_cu, batch, kv_heads, kv_len, value_size);
    struct attn_strided o = strided_tensor(&out, &args->q_cu, batch, heads, q_len, value_size);
    struct attn_named_bytes range[4];
    RETURN_IF_ERROR(attn_check_tensor(&q, &range[1], &attn_names_q, error));
    RETURN_IF_ERROR(attn_check_tensor(&k, &range[2], &attn_names_k, error));
    RETURN_IF_ERROR(attn_check_tensor(&v, &range[3], &attn_names_v, error));
    RETURN_IF_ERROR(attn_check_tensor(&o, &range[0], &attn_names_o, error));
    /* Not v: a caller who only wants the weights may give one row for all values. */
    RETURN_IF_ERROR(attn_check_strides(&q, "q", error));
    RETURN_IF_ERROR(attn_check_strides(&k, "k", error));
    RETURN_IF_ERROR(attn_check_rows_apart(&o, "o", error));
    RETURN_IF_ERROR(attn_check_input(&o, &range[0], &q, &range[1], error));
    RETURN_IF_ERROR(attn_check_input(&o, &range[0], &k, &range[2], error));
    RETURN_IF_ERROR(attn_check_input(&o, &range[0], &v, &range[3], error));
    return attn_check_option_data(problem, range, 4, error);
}

attn_status attn_attention_workspace(const attn_attention_args *args, size_t *bytes, attn_error *error) {
    struct attn_problem problem;
    RETURN_IF_ERROR(resolve_attention(args, &problem, error));
    RETURN_IF_ERROR(attn_check_pointer(bytes, "bytes", error));
    if (args->cache)
        problem.longest.keys = args->cache->config.capacity;
    if (!attention_is_empty(args))
        RETURN_IF_ERROR(make_plan(&problem, error));
    *bytes = problem.plan.workspace_bytes;
    return ATTN_OK;
}

/* *problem is left as it was computed, for describe_attention. */
static attn_status run_attention(const attn_attention_args *args, void *workspace, size_t bytes,
                                 struct attn_problem *problem, attn_error *error) {
    RETURN_IF_ERROR(resolve_attention(args, problem, error));
    if (attention_is_empty(args))
        return ATTN_OK;
    RETURN_IF_ERROR(check_attention_sequences(problem, args, error));
    RETURN_IF_ERROR(make_plan(problem, error));
    RETURN_IF_ERROR(check_attention_data(problem, args, error));
    RETURN_IF_ERROR(attn_check_memory(workspace, bytes, problem->plan.workspace_bytes, "workspace", error));
    attn_op_attention(problem, workspace);
    return ATTN_OK;
}

static void describe_attention(const attn_attention_args *args, const struct attn_plan *plan, struct attn_line *line) {
    const attn_cache *cache = args->cache;
    attn_isa isa = args->isa != ATTN_ISA_BEST ? args->isa : cache ? cache->table->isa : attn_isa_chosen();
    size_t kv_len = cache ? cache->length : args->kv_len;
    attn_line_add(line, " %s", attn_isa_name(isa));
    attn_line_size(line, "batch", args->batch);
    attn_line_size(line, "heads", args->heads);
    attn_line_size(line, "kv_heads", args->kv_heads ? args->kv_heads : args->heads);
    attn_line_size(line, "q_len", args->q_len);
    attn_line_size(line, "kv_len", kv_len);
    attn_line_size(line, "head_size", args->head_size);
    attn_line_size(line, "value_size", args->value_size ? args->value_size : args->head_size);
    attn_line_add(line, "%s%s", attn_ints_given(&args->q_cu.cu) ? " packed q" : "",
                  attn_ints_given(&args->kv_cu.cu) ? " packed kv" : "");
    if (args->scale != 0.0f)
        attn_line_add(line, " scale %g", (double)args->scale);
    if (cache)
        attn_describe_cache(cache, line);
    attn_describe_options(&args->options, line);
    attn_line_parallel(line, args->parallel);
    attn_describe_plan(plan, line);
    attn_line_zero(line, "batch", args->batch, "nothing is written");
    attn_line_zero(line, "heads", args->heads, "nothing is written");
    attn_line_zero(line, "q_len", args->q_len, "nothing is written");
    attn_line_zero(line, "kv_len", kv_len, "nothing to attend to");
    if (cache && (args->k.data || args->v.data))
        attn_line_add(line, "; k and v are not looked at beside a cache");
}

attn_status attn_attention(const attn_attention_args *args, void *workspace, size_t bytes, attn_error *error) {
    struct attn_problem problem;
    ATTN_RETURN_CALL("attention", run_attention(args, workspace, bytes, &problem, error),
                     describe_attention(args, &problem.plan, &line));
}
