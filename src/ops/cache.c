#include "ops/cache.h"

#include "ops/parallel.h"

size_t attn_cache_new_keys(const attn_cache_append_args *args, size_t b, size_t *row) {
    *row = 0;
    if (attn_ints_given(&args->cu.cu)) {
        *row = (size_t)attn_ints_at(&args->cu.cu, b);
        return (size_t)attn_ints_at(&args->cu.cu, b + 1) - *row;
    }
    return attn_ints_given(&args->lens) ? (size_t)attn_ints_at(&args->lens, b) : args->len;
}

static void put_length(struct attn_cache *cache, size_t b, size_t len) {
    cache->lengths[b] = len;
    if (cache->store.kind == ATTN_KV_RING && len > cache->oldest[b] + cache->config.capacity)
        cache->oldest[b] = len - cache->config.capacity;
}

static void find_longest(struct attn_cache *cache) {
    cache->length = 0;
    for (size_t b = 0; b < cache->config.batch; b++)
        cache->length = attn_max(cache->lengths[b], cache->length);
}

size_t attn_cache_room(const struct attn_cache *cache, size_t b) {
    const struct attn_store *store = &cache->store;
    size_t most = cache->config.capacity, length = cache->lengths[b];
    if (store->kind == ATTN_KV_RING)
        return attn_min(most, PTRDIFF_MAX - length);
    if (store->kind == ATTN_KV_FORK)
        most = attn_min(most, attn_store_border(store, b) + store->capacity);
    return most - length;
}

/* ---- What a fork shares ---- */

/* From now on sequence `b` of a fork has only its first `len` keys, all of which are the parent's. It shares whole
 * units of them. The keys of the last, unfinished unit are copied, because the fork will append to that unit. */
static void share(struct attn_store *store, size_t b, size_t len) {
    store->from[b].count = len - len % store->unit;
    for (size_t head = 0; head < store->kv_heads && len % store->unit != 0; head++)
        attn_store_copy_from_parent(store, b, head, len % store->unit);
}

void attn_cache_set_length(struct attn_cache *cache, size_t b, size_t len) {
    if (len < attn_store_border(&cache->store, b))
        share(&cache->store, b, len);
    put_length(cache, b, len);
    find_longest(cache);
}

void attn_op_cache_fork(struct attn_cache *fork, const attn_cache_fork_config *config) {
    for (size_t b = 0; b < config->batch; b++) {
        fork->store.from[b].sequence = config->sources ? config->sources[b] : b;
        share(&fork->store, b, config->len);
        fork->lengths[b] = config->len;
        fork->oldest[b] = 0;
    }
    fork->length = config->len;
}

/* ---- Append ---- */

struct append {
    const struct attn_cache *cache;
    const attn_cache_append_args *args;
};

static void append_head(const void *arg, size_t item, size_t task) {
    (void)task;
    const struct attn_cache *cache = ((const struct append *)arg)->cache;
    const attn_cache_append_args *args = ((const struct append *)arg)->args;
    const struct attn_kv_tensors tensors = {args->k, args->v, args->cu.cu};
    const struct attn_store rows_given = attn_store_of_tensors(&tensors);
    size_t b = item / cache->config.kv_heads, head = item % cache->config.kv_heads;
    size_t row, count = attn_cache_new_keys(args, b, &row);
    if (count == 0) /* then the caller need not have given a pointer to rows */
        return;
    struct attn_segment given = attn_store_locate(&rows_given, b, head, 0);
    struct attn_key_rows rows = {
        .k = given.keys.data,
        .v = given.values.data,
        .k_stride = given.keys.stride,
        .v_stride = given.values.stride,
        .k_type = args->k.type,
        .v_type = args->v.type,
        .rotary = args->rotary,
        .attention = attn_table_attention(cache->table),
        .convert = attn_table_convert(cache->table),
        .quantise = cache->quantise,
        .strip = cache->strips + item * cache->strip_bytes,
    };
    if (args->rotary) {
        int64_t offset = attn_ints_or_0(&args->rotary_offsets, b);
        rows.position = (size_t)((int64_t)cache->lengths[b] + offset);
    }
    attn_store_append(&cache->store, b, head, cache->lengths[b], count, &rows);
}

void attn_op_cache_append(struct attn_cache *cache, const attn_cache_append_args *args) {
    const attn_cache_config *config = &cache->config;
    size_t heads = config->batch * config->kv_heads, row;
    double floats = (double)heads * (double)args->len * (double)(config->head_size + config->value_size);
    const struct attn_tuning *tuning = attn_tuning_for(cache->table->isa);
    attn_for_each(args->parallel, attn_threads_for(tuning, args->parallel, floats * tuning->float_ns), heads,
                  append_head, &(struct append){cache, args});
    for (size_t b = 0; b < config->batch; b++)
        put_length(cache, b, cache->lengths[b] + attn_cache_new_keys(args, b, &row));
    find_longest(cache);
}
