/* attn_layer: argument checks, object layout. */
#include <stdio.h>

#include "api/blob.h"
#include "api/cache.h"
#include "api/options.h"
#include "dispatch.h"
#include "ops/layer.h"

/* ---- Creation ---- */

/* Of heads: the sizes of one and of all of them together. */
struct widths {
    size_t heads, values; /* heads * head_size, heads * value_size */
    size_t out;
};

/* Fills the layer's sizes, and *widths; what is 0 in the config follows from the rest. */
static attn_status resolve_sizes(const attn_layer_config *config, struct attn_layer *layer, struct widths *widths,
                                 attn_error *error) {
    size_t heads = config->heads, head_size = config->head_size;
    RETURN_IF_ERROR(attn_check_size(config->hidden, head_size ? 0 : 1, "hidden", error));
    RETURN_IF_ERROR(attn_check_size(heads, 1, "heads", error));
    RETURN_IF_ERROR(attn_check_size(head_size, 0, "head_size", error));
    RETURN_IF_ERROR(attn_check_size(config->value_size, 0, "value_size", error));
    RETURN_IF_ERROR(attn_check_size(config->out_size, 0, "out_size", error));
    if (head_size == 0) {
        if (config->hidden % heads != 0)
            return attn_fail(ATTN_BAD_SIZE, "heads", error);
        head_size = config->hidden / heads;
    }
    *layer = (struct attn_layer){.heads = heads, .head_size = head_size};
    layer->value_size = config->value_size ? config->value_size : head_size;
    if (!attn_mul(heads, head_size, &widths->heads))
        return attn_fail(ATTN_OVERFLOW, "head_size", error);
    if (!attn_mul(heads, layer->value_size, &widths->values))
        return attn_fail(ATTN_OVERFLOW, "value_size", error);
    if (config->hidden != 0 && config->hidden != widths->heads)
        return attn_fail_size(ATTN_BAD_SIZE, "hidden", widths->heads, config->hidden, error);
    widths->out = config->out_size ? config->out_size : widths->heads;
    return attn_check_kv_heads(heads, config->kv_heads, &layer->kv_heads, error);
}

static const struct attn_linear_names names_q = ATTN_LINEAR_NAMES("w_q"), names_k = ATTN_LINEAR_NAMES("w_k"),
                                      names_v = ATTN_LINEAR_NAMES("w_v"), names_o = ATTN_LINEAR_NAMES("w_o");

static attn_status check_weight_types(const attn_layer_config *config, size_t merged, attn_error *error) {
    RETURN_IF_ERROR(attn_check_linear_type(&config->w_q, config->query_width, &names_q, error));
    RETURN_IF_ERROR(attn_check_linear_type(&config->w_k, config->key_width, &names_k, error));
    RETURN_IF_ERROR(attn_check_linear_type(&config->w_v, config->value_width, &names_v, error));
    return attn_check_linear_type(&config->w_o, merged, &names_o, error);
}

static const struct attn_gemm_kernel *kernel_of(const struct attn_layer *layer, const attn_linear *w) {
    return attn_gemm_for_linear(layer->table, w, layer->arithmetic);
}

/* Fills *layer but for its weights. *object is where the object itself goes. */
static attn_status layout_layer(const attn_layer_config *config, struct attn_arena *arena, struct attn_layer *layer,
                                struct attn_layer **object, attn_error *error) {
    struct widths widths;
    RETURN_IF_ERROR(attn_check_pointer(config, "config", error));
    RETURN_IF_ERROR(attn_check_size(config->query_width, 1, "query_width", error));
    RETURN_IF_ERROR(attn_check_size(config->key_width, 1, "key_width", error));
    RETURN_IF_ERROR(attn_check_size(config->value_width, 1, "value_width", error));
    RETURN_IF_ERROR(resolve_sizes(config, layer, &widths, error));
    RETURN_IF_ERROR(attn_check_scale(config->scale, layer->head_size, &layer->scale, error));
    RETURN_IF_ERROR(attn_check_arithmetic(config->arithmetic, "arithmetic", error));
    layer->arithmetic = config->arithmetic;
    attn_status status = attn_table_for(config->isa, &layer->table);
    if (status != ATTN_OK)
        return attn_fail(status, "isa", error);

    RETURN_IF_ERROR(attn_check_stored_type(config->kv_type, "kv_type", error));
    layer->kv_type = config->kv_type;
    RETURN_IF_ERROR(check_weight_types(config, widths.values, error));
    size_t kv_heads = layer->kv_heads; /* <= heads */
    *object = attn_arena_take(arena, 1, sizeof **object);
    attn_packed_layout(&layer->w_q, kernel_of(layer, &config->w_q), config->query_width, widths.heads, &config->w_q,
                       arena);
    attn_packed_layout(&layer->w_k, kernel_of(layer, &config->w_k), config->key_width, kv_heads * layer->head_size,
                       &config->w_k, arena);
    attn_packed_layout(&layer->w_v, kernel_of(layer, &config->w_v), config->value_width, kv_heads * layer->value_size,
                       &config->w_v, arena);
    attn_packed_layout(&layer->w_o, kernel_of(layer, &config->w_o), widths.values, widths.out, &config->w_o, arena);
    return arena->overflow ? attn_fail(ATTN_OVERFLOW, "hidden", error) : ATTN_OK;
}

attn_status attn_layer_size(const attn_layer_config *config, size_t *bytes, attn_error *error) {
    struct attn_arena arena = {0};
    struct attn_layer layer, *object;
    RETURN_IF_ERROR(layout_layer(config, &arena, &layer, &object, error));
    RETURN_IF_ERROR(attn_check_pointer(bytes, "bytes", error));
    *bytes = arena.used;
    return ATTN_OK;
}

static attn_status check_weights(const attn_layer_config *config, const struct attn_layer *layer, attn_error *error) {
    RETURN_IF_ERROR(attn_check_linear(&config->w_q, layer->w_q.k, layer->w_q.n, &names_q, error));
    RETURN_IF_ERROR(attn_check_linear(&config->w_k, layer->w_k.k, layer->w_k.n, &names_k, error));
    RETURN_IF_ERROR(attn_check_linear(&config->w_v, layer->w_v.k, layer->w_v.n, &names_v, error));
    return attn_check_linear(&config->w_o, layer->w_o.k, layer->w_o.n, &names_o, error);
}

attn_status attn_layer_create(const attn_layer_config *config, void *memory, size_t bytes, attn_layer **layer,
                              attn_error *error) {
    struct attn_arena measure = {0}, arena = {.base = memory};
    struct attn_layer filled;
    attn_layer *object = NULL;
    RETURN_IF_ERROR(layout_layer(config, &measure, &filled, &object, error));
    RETURN_IF_ERROR(check_weights(config, &filled, error));
    RETURN_IF_ERROR(attn_check_pointer(layer, "layer", error));
    RETURN_IF_ERROR(attn_check_memory(memory, bytes, measure.used, "memory", error));

    RETURN_IF_ERROR(layout_layer(config, &arena, &filled, &object, error));
    attn_packed_fill(&filled.w_q, &config->w_q);
    attn_packed_fill(&filled.w_k, &config->w_k);
    attn_packed_fill(&filled.w_v, &config->w_v);
    attn_packed_fill(&filled.w_o, &config->w_o);
    *object = filled;
    *layer = object;
    attn_verbose("layer hidden %zu, %zu heads, %s", filled.w_q.n, filled.heads, filled.w_q.kernel->name);
    return ATTN_OK;
}

/* ---- Export and import ---- */

static const struct attn_linear_names blob_q = ATTN_LINEAR_NAMES("blob.w_q"), blob_k = ATTN_LINEAR_NAMES("blob.w_k"),
                                      blob_v = ATTN_LINEAR_NAMES("blob.w_v"), blob_o = ATTN_LINEAR_NAMES("blob.w_o");

static attn_status layout_layer_export(const attn_layer *layer, attn_isa isa, struct attn_blob *blob,
                                       struct attn_arena *arena, attn_error *error) {
    const struct attn_kernels *table;
    RETURN_IF_ERROR(attn_check_pointer(layer, "layer", error));
    RETURN_IF_ERROR(attn_blob_table(isa, &table, error));
    *blob = attn_blob_of(ATTN_BLOB_LAYER, layer->arithmetic);
    blob->header.heads = layer->heads;
    blob->header.kv_heads = layer->kv_heads;
    blob->header.head_size = layer->head_size;
    blob->header.value_size = layer->value_size;
    blob->header.scale = layer->scale;
    blob->header.kv_type = (uint32_t)layer->kv_type;
    attn_blob_add(blob, &layer->w_q, table);
    attn_blob_add(blob, &layer->w_k, table);
    attn_blob_add(blob, &layer->w_v, table);
    attn_blob_add(blob, &layer->w_o, table);
    attn_blob_layout(blob, arena);
    return arena->overflow ? attn_fail(ATTN_OVERFLOW, "layer", error) : ATTN_OK;
}

attn_status attn_layer_export_size(const attn_layer *layer, attn_isa isa, size_t *bytes, attn_error *error) {
    struct attn_arena arena = {0};
    struct attn_blob blob;
    RETURN_IF_ERROR(layout_layer_export(layer, isa, &blob, &arena, error));
    RETURN_IF_ERROR(attn_check_pointer(bytes, "bytes", error));
    *bytes = arena.used;
    return ATTN_OK;
}

attn_status attn_layer_export(const attn_layer *layer, attn_isa isa, void *blob, size_t bytes, attn_error *error) {
    struct attn_arena arena = {0};
    struct attn_blob made;
    RETURN_IF_ERROR(layout_layer_export(layer, isa, &made, &arena, error));
    RETURN_IF_ERROR(attn_check_memory(blob, bytes, arena.used, "blob", error));
    const struct attn_packed *const w[] = {&layer->w_q, &layer->w_k, &layer->w_v, &layer->w_o};
    for (int i = 0; i < ATTN_BLOB_WEIGHTS; i++)
        RETURN_IF_ERROR(attn_blob_check_apart(w[i], blob, arena.used, error));
    attn_blob_write(&made, w, blob);
    return ATTN_OK;
}

static attn_layer_config config_of_blob(const attn_import_config *config, const struct attn_blob *blob) {
    const struct attn_blob_header *header = &blob->header;
    return (attn_layer_config){.isa = config->isa,
                               .arithmetic = (attn_arithmetic)header->arithmetic,
                               .query_width = (size_t)header->w[0].k,
                               .key_width = (size_t)header->w[1].k,
                               .value_width = (size_t)header->w[2].k,
                               .heads = (size_t)header->heads,
                               .kv_heads = (size_t)header->kv_heads,
                               .head_size = (size_t)header->head_size,
                               .value_size = (size_t)header->value_size,
                               .out_size = (size_t)header->w[3].n,
                               .scale = header->scale,
                               .kv_type = (attn_type)header->kv_type,
                               .w_q = attn_blob_linear(blob, config, 0),
                               .w_k = attn_blob_linear(blob, config, 1),
                               .w_v = attn_blob_linear(blob, config, 2),
                               .w_o = attn_blob_linear(blob, config, 3)};
}

/* Reads and checks the blob, once: what is checked must be what is used, if the blob changes meanwhile too. */
static attn_status open_layer_import(const attn_import_config *config, struct attn_blob *blob,
                                     struct attn_layer *filled, attn_error *error) {
    struct attn_arena measure = {0};
    struct attn_layer *object;
    struct attn_packed *const w[] = {&filled->w_q, &filled->w_k, &filled->w_v, &filled->w_o};
    RETURN_IF_ERROR(attn_blob_open(config, ATTN_BLOB_LAYER, blob, error));
    attn_layer_config stored = config_of_blob(config, blob);
    attn_status status = layout_layer(&stored, &measure, filled, &object, NULL);
    if (status != ATTN_OK)
        return attn_fail(status, "blob.config", error);
    return attn_blob_map(config, blob, (const struct attn_packed *const *)w,
                         (const struct attn_linear_names *[]){&blob_q, &blob_k, &blob_v, &blob_o}, error);
}

/* Fills *filled, whose panels lie in the blob or, with an arena that has memory, there. May be called twice. */
static attn_status layout_layer_import(const attn_import_config *config, const struct attn_blob *blob,
                                       struct attn_arena *arena, struct attn_layer *filled, struct attn_layer **object,
                                       attn_error *error) {
    struct attn_packed *const w[] = {&filled->w_q, &filled->w_k, &filled->w_v, &filled->w_o};
    *object = attn_arena_take(arena, 1, sizeof **object);
    for (int i = 0; i < ATTN_BLOB_WEIGHTS; i++)
        RETURN_IF_ERROR(attn_blob_use(config, blob, i, filled->table, w[i], arena, error));
    return arena->overflow ? attn_fail(ATTN_OVERFLOW, "blob.config", error) : ATTN_OK;
}

attn_status attn_layer_import_size(const attn_import_config *config, size_t *bytes, attn_error *error) {
    struct attn_arena arena = {0};
    struct attn_blob blob;
    attn_layer filled, *object;
    RETURN_IF_ERROR(open_layer_import(config, &blob, &filled, error));
    RETURN_IF_ERROR(layout_layer_import(config, &blob, &arena, &filled, &object, error));
    RETURN_IF_ERROR(attn_check_pointer(bytes, "bytes", error));
    *bytes = arena.used;
    return ATTN_OK;
}

attn_status attn_layer_import(const attn_import_config *config, void *memory, size_t bytes, attn_layer **layer,
                              attn_error *error) {
    struct attn_arena measure = {0}, arena = {.base = memory};
    struct attn_blob blob;
    attn_layer filled, *object;
    RETURN_IF_ERROR(open_layer_import(config, &blob, &filled, error));
    RETURN_IF_ERROR(layout_layer_import(config, &blob, &measure, &filled, &object, error));
    RETURN_IF_ERROR(attn_check_pointer(layer, "layer", error));
    RETURN_IF_ERROR(attn_check_memory(memory, bytes, measure.used, "memory", error));
    RETURN_IF_ERROR(layout_layer_import(config, &blob, &arena, &filled, &object, error));
    struct attn_packed *const w[] = {&filled.w_q, &filled.w_k, &filled.w_v, &filled.w_o};
    for (int i = 0; i < ATTN_BLOB_WEIGHTS; i++)
        attn_blob_fill(&blob, i, w[i]);
    *object = filled;
    *layer = object;
    attn_verbose("layer hidden %zu, %zu heads, %s, imported", filled.w_q.n, filled.heads, filled.w_q.kernel->name);
    return ATTN_OK;
}

/* ---- Forward ---- */

static bool layer_is_empty(const attn_layer_args *args) {
    return args->batch == 0 || args->q_len == 0;
}

static attn_status check_layer_cache(const attn_layer *layer, const attn_cache *cache, attn_error *error) {
    const attn_cache_config *config = &cache->config;
    bool fits = cache->table == layer->table && config->arithmetic == layer->arithmetic &&
                config->kv_heads == layer->kv_heads && config->head_size == layer->head_size &&
                config->value_size == layer->value_size;
    return fits ? ATTN_OK : attn_fail(ATTN_MISMATCH, "cache", error);
}

static attn_status check_row_types(const attn_layer_args *args, attn_error *error) {
    RETURN_IF_ERROR(attn_check_float_type(args->q.type, "q.type", error));
    RETURN_IF_ERROR(attn_check_float_type(args->y.type, "y.type", error));
    if (args->cache)
        return ATTN_OK;
    RETURN_IF_ERROR(attn_check_float_type(args->k.type, "k.type", error));
    return attn_check_float_type(args->v.type, "v.type", error);
}

static attn_status resolve_layer(const attn_layer *layer, const attn_layer_args *args, size_t *kv_len,
                                 attn_error *error) {
    RETURN_IF_ERROR(attn_check_pointer(layer, "layer", error));
    RETURN_IF_ERROR(attn_check_pointer(args, "args", error));
    RETURN_IF_ERROR(attn_check_size(args->batch, 0, "batch", error));
    RETURN_IF_ERROR(attn_check_size(args->q_len, 0, "q_len", error));
    RETURN_IF_ERROR(attn_check_size(args->kv_len, 0, "kv_len", error));
    RETURN_IF_ERROR(check_row_types(args, error));
    RETURN_IF_ERROR(attn_check_cu_total(&args->q_cu, "q_cu.total", error));
    RETURN_IF_ERROR(attn_check_cu_total(&args->kv_cu, "kv_cu.total", error));
    RETURN_IF_ERROR(attn_check_options(&args->options, error));
    RETURN_IF_ERROR(attn_check_parallel(args->parallel, "parallel.run", error));
    RETURN_IF_ERROR(attn_check_rotary_dims(args->options.rotary, layer->head_size, "options.rotary", error));
    *kv_len = args->kv_len;
    if (!args->cache || layer_is_empty(args))
        return ATTN_OK;
    RETURN_IF_ERROR(check_layer_cache(layer, args->cache, error));
    if (args->cache->config.batch != args->batch)
        return attn_fail_size(ATTN_MISMATCH, "batch", args->cache->config.batch, args->batch, error);
    if (attn_ints_given(&args->kv_cu.cu))
        return attn_fail(ATTN_MISMATCH, "kv_cu.cu", error);
    *kv_len = args->cache->length;
    return args->kv_len == 0 || args->kv_len == *kv_len
               ? ATTN_OK
               : attn_fail_size(ATTN_MISMATCH, "kv_len", *kv_len, args->kv_len, error);
}

static attn_status measure_run(const attn_layer *layer, const attn_layer_args *args, size_t kv_len,
                               struct attn_longest longest, struct attn_layer_run *run, struct attn_arena *arena,
                               attn_error *error) {
    arena->overflow |= !attn_layer_run_init(run, layer, args, kv_len, longest);
    attn_layer_run_layout(run, arena);
    return arena->overflow ? attn_fail(ATTN_OVERFLOW, "kv_len", error) : ATTN_OK;
}

attn_status attn_layer_workspace(const attn_layer *layer, const attn_layer_args *args, size_t *bytes,
                                 attn_error *error) {
    struct attn_arena arena = {0};
    struct attn_layer_run run;
    size_t kv_len;
    RETURN_IF_ERROR(resolve_layer(layer, args, &kv_len, error));
    RETURN_IF_ERROR(attn_check_pointer(bytes, "bytes", error));
    if (args->cache)
        kv_len = args->cache->config.capacity;
    struct attn_longest longest = {attn_cu_most(&args->q_cu, args->q_len), attn_cu_most(&args->kv_cu, kv_len)};
    if (!layer_is_empty(args))
        RETURN_IF_ERROR(measure_run(layer, args, kv_len, longest, &run, &arena, error));
    *bytes = arena.used;
    return ATTN_OK;
}

/* Reads the cumulative lengths of packed sequences. */
static attn_status check_layer_sequences(const attn_layer_args *args, size_t kv_len, struct attn_longest *longest,
                                         attn_error *error) {
    RETURN_IF_ERROR(attn_check_cu_lens(&args->q_cu, args->batch, args->q_len, "q_cu.cu", error));
    RETURN_IF_ERROR(attn_check_cu_lens(&args->kv_cu, args->batch, kv_len, "kv_cu.cu", error));
    longest->rows = attn_cu_longest(&args->q_cu, args->batch, args->q_len);
    longest->keys = attn_cu_longest(&args->kv_cu, args->batch, kv_len);
    return ATTN_OK;
}

/* Rows [batch, len, width], or [total, width] where sequences are packed. */
static struct attn_strided strided_rows(const attn_tensor *rows, const attn_cu_lens *cu, size_t batch, size_t len,
                                        size_t width) {
    bool packed = attn_ints_given(&cu->cu);
    struct attn_strided strided = attn_rows_of(rows, packed ? 1 : batch, packed ? cu->total : len, width);
    strided.any_float = true;
    if (packed)
        strided.strides[1] = 0;
    return strided;
}

static attn_status check_layer_data(const attn_layer *layer, const attn_layer_args *args, struct attn_problem *problem,
                                    attn_error *error) {
    attn_tensor out = attn_as_input(&args->y);
    size_t batch = args->batch, q_len = args->q_len, kv_len = args->cache ? 0 : problem->kv_len;
    struct attn_strided q = strided_rows(&args->q, &args->q_cu, batch, q_len, layer->w_q.k);
    struct attn_strided k = strided_rows(&args->k, &args->kv_cu, batch, kv_len, layer->w_k.k);
    struct attn_strided v = strided_rows(&args->v, &args->kv_cu, batch, kv_len, layer->w_v.k);
    struct attn_strided y = strided_rows(&out, &args->q_cu, batch, q_len, layer->w_o.n);
    struct attn_named_bytes range[4];
    RETURN_IF_ERROR(attn_check_rows(&q, &range[1], &attn_names_q, error));
    RETURN_IF_ERROR(attn_check_rows(&k, &range[2], &attn_names_k, error));
    RETURN_IF_ERROR(attn_check_rows(&v, &range[3], &attn_names_v, error));
    RETURN_IF_ERROR(attn_check_rows(&y, &range[0], &attn_names_y, error));
    RETURN_IF_ERROR(attn_check_rows_apart(&y, "y.batch_stride", error));
    RETURN_IF_ERROR(attn_check_input(&y, &range[0], &q, &range[1], error));
    RETURN_IF_ERROR(attn_check_input(&y, &range[0], &k, &range[2], error));
    RETURN_IF_ERROR(attn_check_input(&y, &range[0], &v, &range[3], error));
    return attn_check_option_data(problem, range, 4, error);
}

/* *run is left as it was computed, for describe_forward. */
static attn_status run_layer(const attn_layer *layer, const attn_layer_args *args, void *workspace, size_t bytes,
                             struct attn_layer_run *run, attn_error *error) {
    struct attn_arena measure = {0}, arena = {.base = workspace};
    struct attn_longest longest;
    size_t kv_len;
    RETURN_IF_ERROR(resolve_layer(layer, args, &kv_len, error));
    run->problem.plan.tasks = 0;
    if (layer_is_empty(args))
        return ATTN_OK;
    RETURN_IF_ERROR(check_layer_sequences(args, kv_len, &longest, error));
    RETURN_IF_ERROR(measure_run(layer, args, kv_len, longest, run, &measure, error));
    RETURN_IF_ERROR(check_layer_data(layer, args, &run->problem, error));
    RETURN_IF_ERROR(attn_check_memory(workspace, bytes, measure.used, "workspace", error));
    attn_layer_run_layout(run, &arena);
    attn_op_layer_forward(run);
    return ATTN_OK;
}

static void describe_layer(const attn_layer *layer, struct attn_line *line) {
    attn_line_add(line, " %s", attn_isa_name(layer->table->isa));
    attn_line_size(line, "hidden", layer->w_q.n);
    attn_line_size(line, "heads", layer->heads);
    attn_line_size(line, "kv_heads", layer->kv_heads);
    if (layer->value_size != layer->head_size)
        attn_line_size(line, "value_size", layer->value_size);
    if (layer->w_o.n != layer->w_q.n)
        attn_line_size(line, "out_size", layer->w_o.n);
}

static void describe_forward(const attn_layer *layer, const attn_layer_args *args, const struct attn_plan *plan,
                             struct attn_line *line) {
    const attn_cache *cache = args->cache;
    size_t kv_len = cache ? cache->length : args->kv_len;
    describe_layer(layer, line);
    attn_line_size(line, "batch", args->batch);
    attn_line_size(line, "q_len", args->q_len);
    attn_line_size(line, "kv_len", kv_len);
    attn_line_add(line, "%s%s", attn_ints_given(&args->q_cu.cu) ? " packed q" : "",
                  attn_ints_given(&args->kv_cu.cu) ? " packed kv" : "");
    if (cache)
        attn_describe_cache(cache, line);
    attn_describe_options(&args->options, line);
    attn_line_parallel(line, args->parallel);
    attn_describe_plan(plan, line);
    attn_line_zero(line, "batch", args->batch, "nothing is written");
    attn_line_zero(line, "q_len", args->q_len, "nothing is written");
    attn_line_zero(line, "kv_len", kv_len, "nothing to attend to");
    if (cache && (args->k.data || args->v.data))
        attn_line_add(line, "; k and v are not looked at beside a cache");
}

attn_status attn_layer_forward(const attn_layer *layer, const attn_layer_args *args, void *workspace, size_t bytes,
                               attn_error *error) {
    struct attn_layer_run run;
    ATTN_RETURN_CALL("layer_forward", run_layer(layer, args, workspace, bytes, &run, error),
                     describe_forward(layer, args, &run.problem.plan, &line));
}

/* ---- Cache ---- */

attn_status attn_layer_cache_config(const attn_layer *layer, size_t batch, size_t capacity, attn_cache_config *config,
                                    attn_error *error) {
    RETURN_IF_ERROR(attn_check_pointer(layer, "layer", error));
    RETURN_IF_ERROR(attn_check_pointer(config, "config", error));
    *config = (attn_cache_config){.isa = layer->table->isa,
                                  .arithmetic = layer->arithmetic,
                                  .batch = batch,
                                  .kv_heads = layer->kv_heads,
                                  .head_size = layer->head_size,
                                  .value_size = layer->value_size,
                                  .capacity = capacity,
                                  .type = layer->kv_type};
    return ATTN_OK;
}

/* Takes memory for projected keys and values. */
static attn_status layout_append(const attn_layer *layer, const attn_layer_append_args *args, struct attn_arena *arena,
                                 struct attn_layer_append_run *run, attn_error *error) {
    RETURN_IF_ERROR(attn_check_pointer(layer, "layer", error));
    RETURN_IF_ERROR(attn_check_pointer(args, "args", error));
    RETURN_IF_ERROR(attn_check_pointer(args->cache, "cache", error));
    RETURN_IF_ERROR(attn_check_size(args->len, 0, "len", error));
    RETURN_IF_ERROR(attn_check_float_type(args->k.type, "k.type", error));
    RETURN_IF_ERROR(attn_check_float_type(args->v.type, "v.type", error));
    RETURN_IF_ERROR(attn_check_cu_total(&args->cu, "cu.total", error));
    RETURN_IF_ERROR(check_layer_cache(layer, args->cache, error));
    RETURN_IF_ERROR(attn_check_rotary_dims(args->rotary, layer->head_size, "rotary", error));
    RETURN_IF_ERROR(attn_check_used(attn_ints_given(&args->rotary_offsets), args->rotary, "rotary_offsets", error));
    attn_layer_append_layout(layer, args, run, arena);
    return arena->overflow ? attn_fail(ATTN_OVERFLOW, "len", error) : ATTN_OK;
}

attn_status attn_layer_append_workspace(const attn_layer *layer, const attn_layer_append_args *args, size_t *bytes,
                                        attn_error *error) {
    struct attn_arena arena = {0};
    struct attn_layer_append_run run;
    RETURN_IF_ERROR(layout_append(layer, args, &arena, &run, error));
    RETURN_IF_ERROR(attn_check_parallel(args->parallel, "parallel.run", error));
    RETURN_IF_ERROR(attn_check_pointer(bytes, "bytes", error));
    *bytes = arena.used;
    return ATTN_OK;
}

static attn_status append_through_layer(const attn_layer *layer, const attn_layer_append_args *args, void *workspace,
                                        size_t bytes, attn_error *error) {
    struct attn_arena measure = {0}, arena = {.base = workspace};
    struct attn_named_bytes range;
    struct attn_layer_append_run run;
    RETURN_IF_ERROR(layout_append(layer, args, &measure, &run, error));
    attn_cache_append_args append = attn_layer_append_to_cache(layer, args, run.k, run.v);
    RETURN_IF_ERROR(attn_check_cache_lens(args->cache, &append, error));
    size_t batch = args->cache->config.batch;
    struct attn_strided k_rows = strided_rows(&args->k, &args->cu, batch, args->len, layer->w_k.k);
    struct attn_strided v_rows = strided_rows(&args->v, &args->cu, batch, args->len, layer->w_v.k);
    RETURN_IF_ERROR(attn_check_rows(&k_rows, &range, &attn_names_k, error));
    RETURN_IF_ERROR(attn_check_rows(&v_rows, &range, &attn_names_v, error));
    RETURN_IF_ERROR(attn_check_memory(workspace, bytes, measure.used, "workspace", error));
    RETURN_IF_ERROR(layout_append(layer, args, &arena, &run, error));
    attn_op_layer_append(layer, args, &run);
    return ATTN_OK;
}

static void describe_layer_append(const attn_layer *layer, const attn_layer_append_args *args, struct attn_line *line) {
    attn_cache_append_args append = attn_layer_append_to_cache(layer, args, NULL, NULL);
    describe_layer(layer, line);
    attn_describe_append(args->cache, &append, line);
}

attn_status attn_layer_append(const attn_layer *layer, const attn_layer_append_args *args, void *workspace,
                              size_t bytes, attn_error *error) {
    ATTN_RETURN_CALL("layer_append", append_through_layer(layer, args, workspace, bytes, error),
                     describe_layer_append(layer, args, &line));
}

/* ---- Introspection ---- */

size_t attn_layer_kernels(const attn_layer *layer, char *text, size_t size) {
    if (!layer)
        return 0;
    const struct attn_gemm_kernel *attention = attn_gemm_for(layer->table, layer->kv_type, layer->arithmetic);
    const struct attn_bf16_kernel *bf16 = attn_bf16_for(layer->table, attention);
    const char *softmax = bf16 ? bf16->name : attn_table_attention(layer->table)->name;
    int length = snprintf(text, size, "gemm=%s attention=%s softmax=%s copy=%s", layer->w_q.kernel->name,
                          attention->name, softmax, attn_table_copy(layer->table)->name);
    return length < 0 ? 0 : (size_t)length;
}
