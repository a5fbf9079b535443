/* attn_cache: judging, object layout. */
#include "ops/cache.h"
#include "api/judge.h"
#include "dispatch.h"

/* Fills *cache, whose panels point into the carved memory, and says where the object itself goes. */
static attn_status layout(const attn_cache_config *config, struct attn_carve *carve, struct attn_cache *cache,
                          struct attn_cache **object, const char **field) {
    JUDGE(judge_pointer(config, "config", field));
    JUDGE(judge_size(config->batch, 1, "batch", field));
    JUDGE(judge_size(config->kv_heads, 1, "kv_heads", field));
    JUDGE(judge_size(config->head_size, 1, "head_size", field));
    JUDGE(judge_size(config->value_size, 0, "value_size", field));
    JUDGE(judge_size(config->capacity, 1, "capacity", field));
    *cache = (struct attn_cache){.config = *config};
    if (config->value_size == 0)
        cache->config.value_size = config->head_size;
    attn_status status = attn_table_for(config->isa, &cache->table);
    if (status != ATTN_OK)
        return judge_fail(status, "isa", field);

    size_t heads, bytes;
    if (!attn_mul(config->batch, config->kv_heads, &heads) || !attn_mul(heads, sizeof(float), &bytes) ||
        !attn_panel_shape_init(&cache->shape, attn_table_gemm(cache->table), cache->config.head_size,
                               cache->config.value_size, config->capacity))
        return judge_fail(ATTN_OVERFLOW, "capacity", field);
    *object = attn_carve_take(carve, 1, sizeof **object);
    cache->keys = attn_carve_take(carve, cache->shape.key_floats, bytes);
    cache->values = attn_carve_take(carve, cache->shape.value_floats, bytes);
    return carve->overflow ? judge_fail(ATTN_OVERFLOW, "capacity", field) : ATTN_OK;
}

attn_status attn_cache_size(const attn_cache_config *config, size_t *bytes, const char **field) {
    struct attn_carve carve = {0};
    struct attn_cache cache, *object;
    JUDGE(layout(config, &carve, &cache, &object, field));
    JUDGE(judge_pointer(bytes, "bytes", field));
    *bytes = carve.used;
    return ATTN_OK;
}

attn_status attn_cache_create(const attn_cache_config *config, void *memory, size_t bytes, attn_cache **cache,
                              const char **field) {
    size_t needed;
    JUDGE(attn_cache_size(config, &needed, field));
    JUDGE(judge_pointer(cache, "cache", field));
    JUDGE(judge_memory(memory, bytes, needed, "memory", field));
    struct attn_carve carve = {.base = memory};
    struct attn_cache filled;
    JUDGE(layout(config, &carve, &filled, cache, field));
    **cache = filled;
    attn_verbose("attn: cache %zu x %zu heads x %zu keys, %s", config->batch, config->kv_heads, config->capacity,
                 filled.shape.kernel->name);
    return ATTN_OK;
}

static attn_status judge_rows(const attn_cache *cache, size_t len, const attn_tensor *tensor, size_t width,
                              const char *name, const char *data_name, const char **field) {
    size_t dims[JUDGE_DIMS] = {cache->config.batch, cache->config.kv_heads, len}, bytes;
    JUDGE(judge_pointer(tensor, name, field));
    JUDGE(judge_pointer(tensor->data, data_name, field));
    return judge_extent(dims, (size_t[]){tensor->batch_stride, tensor->head_stride, tensor->row_stride}, width, &bytes,
                        name, field);
}

attn_status attn_cache_append(attn_cache *cache, size_t len, const attn_tensor *k, const attn_tensor *v,
                              const attn_parallel *parallel, const char **field) {
    JUDGE(judge_pointer(cache, "cache", field));
    JUDGE(judge_size(len, 0, "len", field));
    JUDGE(judge_parallel(parallel, "parallel.run", field));
    if (len > cache->config.capacity - cache->length)
        return judge_fail(ATTN_TOO_SMALL, "len", field);
    if (len == 0)
        return ATTN_OK;
    JUDGE(judge_rows(cache, len, k, cache->config.head_size, "k", "k.data", field));
    JUDGE(judge_rows(cache, len, v, cache->config.value_size, "v", "v.data", field));
    attn_op_cache_append(cache, len, k, v, parallel);
    return ATTN_OK;
}

size_t attn_cache_length(const attn_cache *cache) {
    return cache ? cache->length : 0;
}

attn_status attn_cache_truncate(attn_cache *cache, size_t len, const char **field) {
    JUDGE(judge_pointer(cache, "cache", field));
    if (len > cache->length)
        return judge_fail(ATTN_BAD_SIZE, "len", field);
    cache->length = len;
    return ATTN_OK;
}
