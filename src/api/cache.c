/* attn_cache: argument checks, object layout. */
#include "ops/cache.h"
#include "api/cache.h"
#include "api/options.h"
#include "dispatch.h"

#include <float.h>

/* ---- Creation ---- */

static attn_status check_pages(const attn_cache_config *config, attn_error *error) {
    RETURN_IF_ERROR(attn_check_size(config->page_size, 1, "page_size", error));
    if (config->page_size % ATTN_PAGE_UNIT != 0)
        return attn_fail(ATTN_BAD_SIZE, "page_size", error);
    if (config->capacity % config->page_size != 0)
        return attn_fail(ATTN_BAD_SIZE, "capacity", error);
    RETURN_IF_ERROR(attn_check_size(config->pages, 1, "pages", error));
    return attn_check_most(config->pages, INT32_MAX, "pages", error);
}

static bool is_f8(attn_type type) {
    return type == ATTN_F8_E4M3 || type == ATTN_F8_E5M2;
}

static attn_status check_cache_type(const attn_cache_config *config, attn_error *error) {
    const unsigned types =
        ATTN_TYPES_FLOAT | ATTN_TYPE_BIT(ATTN_INT8) | ATTN_TYPE_BIT(ATTN_F8_E4M3) | ATTN_TYPE_BIT(ATTN_F8_E5M2);
    RETURN_IF_ERROR(attn_check_type(config->type, types, "type", error));
    RETURN_IF_ERROR(attn_check_used(config->k_scales != NULL, is_f8(config->type), "k_scales", error));
    return attn_check_used(config->v_scales != NULL, is_f8(config->type), "v_scales", error);
}

static attn_status check_cache_scales(const float *scales, size_t count, const char *name, attn_error *error) {
    for (size_t i = 0; scales && i < count; i++)
        if (!(scales[i] > 0.0f && scales[i] <= FLT_MAX))
            return attn_fail(ATTN_BAD_VALUE, name, error);
    return ATTN_OK;
}

static attn_status check_config(const attn_cache_config *config, attn_error *error) {
    RETURN_IF_ERROR(attn_check_pointer(config, "config", error));
    RETURN_IF_ERROR(attn_check_size(config->batch, 1, "batch", error));
    RETURN_IF_ERROR(attn_check_size(config->kv_heads, 1, "kv_heads", error));
    RETURN_IF_ERROR(attn_check_size(config->head_size, 1, "head_size", error));
    RETURN_IF_ERROR(attn_check_size(config->value_size, 0, "value_size", error));
    RETURN_IF_ERROR(attn_check_size(config->capacity, 1, "capacity", error));
    RETURN_IF_ERROR(attn_check_arithmetic(config->arithmetic, "arithmetic", error));
    RETURN_IF_ERROR(check_cache_type(config, error));
    RETURN_IF_ERROR(attn_check_enum((int)config->kind, ATTN_CACHE_PAGED, "kind", error));
    bool paged = config->kind == ATTN_CACHE_PAGED;
    RETURN_IF_ERROR(attn_check_used(config->page_size != 0, paged, "page_size", error));
    RETURN_IF_ERROR(attn_check_used(config->pages != 0, paged, "pages", error));
    return paged ? check_pages(config, error) : ATTN_OK;
}

/* Everything about the store but its memory. *segments is how many it has for each kv head. */
static bool shape_store(struct attn_cache *cache, size_t *segments) {
    const attn_cache_config *config = &cache->config;
    size_t keys = config->page_size ? config->page_size : config->capacity;
    size_t unit = config->page_size % ATTN_MAX_COLS ? ATTN_PAGE_UNIT : ATTN_MAX_COLS;
    /* Packing fills a panel to its end. The ring has a panel to spare, so that this never writes over its oldest
     * keys. */
    if (config->kind == ATTN_CACHE_RING && !attn_add(keys, ATTN_MAX_COLS, &keys))
        return false;
    *segments = config->page_size ? config->pages : config->batch;
    if (!attn_store_init(&cache->store, attn_gemm_for_stored(cache->table, config->type, config->arithmetic),
                         config->kv_heads, config->head_size, config->value_size, keys, unit))
        return false;
    if (config->kind == ATTN_CACHE_RING)
        cache->store.kind = ATTN_KV_RING;
    if (config->page_size) {
        cache->store.kind = ATTN_KV_PAGED;
        cache->store.pages_per_sequence = config->capacity / config->page_size;
        cache->store.page_count = config->pages;
    }
    return true;
}

/* Takes the memory of what every kind of cache has, then the store's. */
static bool take_parts(struct attn_cache *cache, size_t segments, struct attn_arena *arena,
                       struct attn_cache **object) {
    const attn_cache_config *config = &cache->config;
    struct attn_store *store = &cache->store;
    size_t heads, table_bytes;
    if (!attn_mul(config->batch, config->kv_heads, &heads) || !attn_mul(segments, config->kv_heads, &segments) ||
        !attn_strip_bytes(config->type, attn_max(config->head_size, config->value_size), &cache->strip_bytes) ||
        !attn_mul(store->pages_per_sequence, sizeof *store->pages, &table_bytes))
        return false;
    *object = attn_arena_take(arena, 1, sizeof **object);
    cache->lengths = attn_arena_take(arena, config->batch, sizeof *cache->lengths);
    cache->oldest = attn_arena_take(arena, config->batch, sizeof *cache->oldest);
    cache->strips = attn_arena_take(arena, heads, cache->strip_bytes);
    if (store->kind == ATTN_KV_PAGED)
        store->pages = attn_arena_take(arena, config->batch, table_bytes);
    attn_store_take(store, segments, arena);
    return !arena->overflow;
}

/* Of the F8 types. Forks have those of their parent. */
static void take_cache_scales(const attn_cache_config *config, struct attn_store *store, struct attn_arena *arena) {
    if (config->k_scales)
        store->key_scales = attn_arena_take(arena, config->kv_heads, sizeof *store->key_scales);
    if (config->v_scales)
        store->value_scales = attn_arena_take(arena, config->kv_heads, sizeof *store->value_scales);
}

/* Fills *cache, whose store points into the arena. *object is where the object itself goes. */
static __attribute__((noinline)) attn_status layout_cache(const attn_cache_config *config, struct attn_arena *arena,
                                                          struct attn_cache *cache, struct attn_cache **object,
                                                          attn_error *error) {
    size_t segments;
    RETURN_IF_ERROR(check_config(config, error));
    *cache = (struct attn_cache){.config = *config};
    if (config->value_size == 0)
        cache->config.value_size = config->head_size;
    attn_status status = attn_table_for(config->isa, &cache->table);
    if (status != ATTN_OK)
        return attn_fail(status, "isa", error);
    cache->quantise = attn_gemm_find(cache->table, ATTN_CLASS_INT8)->pack_a;
    if (!shape_store(cache, &segments) || !take_parts(cache, segments, arena, object))
        return attn_fail(ATTN_OVERFLOW, "capacity", error);
    take_cache_scales(config, &cache->store, arena);
    return arena->overflow ? attn_fail(ATTN_OVERFLOW, "kv_heads", error) : ATTN_OK;
}

attn_status attn_cache_size(const attn_cache_config *config, size_t *bytes, attn_error *error) {
    struct attn_arena arena = {0};
    struct attn_cache cache, *object;
    RETURN_IF_ERROR(layout_cache(config, &arena, &cache, &object, error));
    RETURN_IF_ERROR(attn_check_pointer(bytes, "bytes", error));
    *bytes = arena.used;
    return ATTN_OK;
}

/* From now on the config has the cache's own. */
static void fill_cache_scales(const attn_cache_config *config, struct attn_cache *cache) {
    for (size_t i = 0; config->k_scales && i < config->kv_heads; i++)
        cache->store.key_scales[i] = config->k_scales[i];
    for (size_t i = 0; config->v_scales && i < config->kv_heads; i++)
        cache->store.value_scales[i] = config->v_scales[i];
    cache->config.k_scales = config->k_scales ? cache->store.key_scales : NULL;
    cache->config.v_scales = config->v_scales ? cache->store.value_scales : NULL;
}

attn_status attn_cache_create(const attn_cache_config *config, void *memory, size_t bytes, attn_cache **cache,
                              attn_error *error) {
    size_t needed;
    RETURN_IF_ERROR(attn_cache_size(config, &needed, error));
    RETURN_IF_ERROR(check_cache_scales(config->k_scales, config->kv_heads, "k_scales", error));
    RETURN_IF_ERROR(check_cache_scales(config->v_scales, config->kv_heads, "v_scales", error));
    RETURN_IF_ERROR(attn_check_pointer(cache, "cache", error));
    RETURN_IF_ERROR(attn_check_memory(memory, bytes, needed, "memory", error));
    struct attn_arena arena = {.base = memory};
    struct attn_cache filled;
    RETURN_IF_ERROR(layout_cache(config, &arena, &filled, cache, error));
    for (size_t b = 0; b < config->batch; b++)
        filled.lengths[b] = filled.oldest[b] = 0;
    for (size_t i = 0; i < config->batch * filled.store.pages_per_sequence; i++)
        filled.store.pages[i] = -1;
    fill_cache_scales(config, &filled);
    **cache = filled;
    attn_verbose("cache %zu x %zu heads x %zu keys of %s, %s", config->batch, config->kv_heads, config->capacity,
                 attn_type_name(config->type), filled.store.kernel->name);
    return ATTN_OK;
}

/* ---- Append ---- */

/* Rows of k or v: [batch, kv_heads, len] or [kv_heads, total]. */
static struct attn_strided appended_rows(const attn_cache *cache, const attn_cache_append_args *args,
                                         const attn_tensor *tensor, size_t width) {
    struct attn_strided rows = attn_heads_of(tensor, cache->config.batch, cache->config.kv_heads, args->len, width);
    rows.any_float = true;
    if (attn_ints_given(&args->cu.cu)) {
        rows.dims[0] = 1;
        rows.dims[2] = args->cu.total;
        rows.strides[0] = 0;
    }
    return rows;
}

static attn_status check_appended_rows(const attn_cache *cache, const attn_cache_append_args *args, attn_error *error) {
    struct attn_strided k = appended_rows(cache, args, &args->k, cache->config.head_size);
    struct attn_strided v = appended_rows(cache, args, &args->v, cache->config.value_size);
    struct attn_named_bytes range;
    RETURN_IF_ERROR(attn_check_tensor(&k, &range, &attn_names_k, error));
    RETURN_IF_ERROR(attn_check_tensor(&v, &range, &attn_names_v, error));
    return attn_check_strides(&k, "k", error);
}

static bool pages_are_set(const struct attn_store *store, size_t b, size_t begin, size_t end) {
    for (size_t page = begin / store->capacity; page * store->capacity < end; page++)
        if (store->pages[b * store->pages_per_sequence + page] < 0)
            return false;
    return true;
}

/* Whether the table has the positions of keys begin .. begin + count - 1. */
static bool positions_exist(const attn_cache_append_args *args, size_t b, size_t begin, size_t count) {
    int64_t offset = attn_ints_or_0(&args->rotary_offsets, b), first;
    return !__builtin_add_overflow((int64_t)begin, offset, &first) && first >= 0 &&
           (uint64_t)first < args->rotary->positions && count <= args->rotary->positions - (uint64_t)first;
}

static attn_status check_sequence(const attn_cache *cache, const attn_cache_append_args *args, size_t b,
                                  attn_error *error) {
    size_t row, count = attn_cache_new_keys(args, b, &row), length = cache->lengths[b];
    if (count == 0)
        return ATTN_OK;
    if (count > attn_cache_room(cache, b))
        return attn_fail_size(ATTN_TOO_SMALL, "len", count, attn_cache_room(cache, b), error);
    if (cache->store.kind == ATTN_KV_PAGED && !pages_are_set(&cache->store, b, length, length + count))
        return attn_fail(ATTN_BAD_VALUE, "pages", error);
    if (args->rotary && !positions_exist(args, b, length, count))
        return attn_fail(ATTN_BAD_VALUE, "rotary", error);
    return ATTN_OK;
}

attn_status attn_check_cache_lens(const attn_cache *cache, const attn_cache_append_args *args, attn_error *error) {
    size_t batch = cache->config.batch;
    RETURN_IF_ERROR(attn_check_size(args->len, 0, "len", error));
    RETURN_IF_ERROR(attn_check_parallel(args->parallel, "parallel.run", error));
    RETURN_IF_ERROR(attn_check_cu_total(&args->cu, "cu.total", error));
    RETURN_IF_ERROR(attn_check_cu_lens(&args->cu, batch, args->len, "cu.cu", error));
    RETURN_IF_ERROR(attn_check_ints(&args->lens, "lens", error));
    bool lens = attn_ints_given(&args->lens);
    if (lens && attn_ints_given(&args->cu.cu))
        return attn_fail(ATTN_MISMATCH, "lens", error);
    for (size_t b = 0; lens && b < batch; b++) {
        int64_t len = attn_ints_at(&args->lens, b);
        if (len < 0 || (uint64_t)len > args->len)
            return attn_fail(ATTN_BAD_VALUE, "lens", error);
    }
    RETURN_IF_ERROR(attn_check_rotary_dims(args->rotary, cache->config.head_size, "rotary", error));
    RETURN_IF_ERROR(attn_check_ints(&args->rotary_offsets, "rotary_offsets", error));
    RETURN_IF_ERROR(attn_check_used(attn_ints_given(&args->rotary_offsets), args->rotary, "rotary_offsets", error));
    for (size_t b = 0; b < batch; b++)
        RETURN_IF_ERROR(check_sequence(cache, args, b, error));
    return ATTN_OK;
}

static attn_status append_to_cache(attn_cache *cache, const attn_cache_append_args *args, attn_error *error) {
    RETURN_IF_ERROR(attn_check_pointer(cache, "cache", error));
    RETURN_IF_ERROR(attn_check_pointer(args, "args", error));
    RETURN_IF_ERROR(attn_check_cache_lens(cache, args, error));
    RETURN_IF_ERROR(check_appended_rows(cache, args, error));
    attn_op_cache_append(cache, args);
    return ATTN_OK;
}

void attn_describe_append(const attn_cache *cache, const attn_cache_append_args *args, struct attn_line *line) {
    attn_line_size(line, "batch", cache->config.batch);
    attn_line_size(line, "len", args->len);
    attn_line_add(line, "%s%s%s%s", attn_ints_given(&args->lens) ? " lens" : "",
                  attn_ints_given(&args->cu.cu) ? " packed" : "", args->rotary ? " rotary" : "",
                  attn_ints_given(&args->rotary_offsets) ? " rotary_offsets" : "");
    attn_line_parallel(line, args->parallel);
    attn_line_add(line, ", now %zu keys of %zu", cache->length, cache->config.capacity);
    attn_line_zero(line, "len", args->len, "nothing to append");
}

attn_status attn_cache_append(attn_cache *cache, const attn_cache_append_args *args, attn_error *error) {
    ATTN_RETURN_CALL("cache_append", append_to_cache(cache, args, error), attn_describe_append(cache, args, &line));
}

/* ---- Lengths and pages ---- */

size_t attn_cache_length(const attn_cache *cache, size_t sequence) {
    if (cache && sequence == ATTN_ALL_SEQUENCES)
        return cache->length;
    return cache && sequence < cache->config.batch ? cache->lengths[sequence] : 0;
}

static attn_status check_truncation(const attn_cache *cache, size_t sequence, size_t len, attn_error *error) {
    /* A ring has written over the keys before its oldest one: it cannot go back to them. */
    bool gone = len < cache->lengths[sequence] && len < cache->oldest[sequence];
    return gone ? attn_fail_size(ATTN_BAD_SIZE, "len", cache->oldest[sequence], len, error) : ATTN_OK;
}

attn_status attn_cache_truncate(attn_cache *cache, size_t sequence, size_t len, attn_error *error) {
    RETURN_IF_ERROR(attn_check_pointer(cache, "cache", error));
    bool all = sequence == ATTN_ALL_SEQUENCES;
    if (!all)
        RETURN_IF_ERROR(attn_check_most(sequence, cache->config.batch - 1, "sequence", error));
    RETURN_IF_ERROR(attn_check_most(len, attn_cache_length(cache, sequence), "len", error));
    size_t begin = all ? 0 : sequence, end = all ? cache->config.batch : sequence + 1;
    for (size_t b = begin; b < end; b++)
        RETURN_IF_ERROR(check_truncation(cache, b, len, error));
    for (size_t b = begin; b < end; b++)
        if (len < cache->lengths[b])
            attn_cache_set_length(cache, b, len);
    return ATTN_OK;
}

static attn_status check_paged(const attn_cache *cache, size_t sequence, attn_error *error) {
    RETURN_IF_ERROR(attn_check_pointer(cache, "cache", error));
    if (cache->store.kind != ATTN_KV_PAGED)
        return attn_fail(ATTN_BAD_SIZE, "cache", error);
    return attn_check_most(sequence, cache->config.batch - 1, "sequence", error);
}

attn_status attn_cache_set_pages(attn_cache *cache, size_t sequence, size_t first, size_t count, const int32_t *pages,
                                 attn_error *error) {
    RETURN_IF_ERROR(check_paged(cache, sequence, error));
    struct attn_store *store = &cache->store;
    RETURN_IF_ERROR(attn_check_most(first, store->pages_per_sequence, "first", error));
    RETURN_IF_ERROR(attn_check_most(count, store->pages_per_sequence - first, "count", error));
    if (count == 0)
        return ATTN_OK;
    RETURN_IF_ERROR(attn_check_pointer(pages, "pages", error));
    for (size_t i = 0; i < count; i++)
        if (pages[i] < 0 || (size_t)pages[i] >= store->page_count)
            return attn_fail(ATTN_BAD_VALUE, "pages", error);
    for (size_t i = 0; i < count; i++)
        store->pages[sequence * store->pages_per_sequence + first + i] = pages[i];
    return ATTN_OK;
}

attn_status attn_cache_adopt(attn_cache *cache, size_t sequence, size_t len, attn_error *error) {
    RETURN_IF_ERROR(check_paged(cache, sequence, error));
    RETURN_IF_ERROR(attn_check_most(len, cache->config.capacity, "len", error));
    if (!pages_are_set(&cache->store, sequence, 0, len))
        return attn_fail(ATTN_BAD_VALUE, "pages", error);
    attn_cache_set_length(cache, sequence, len);
    return ATTN_OK;
}

/* ---- Fork ---- */

static attn_status check_fork(const attn_cache_fork_config *config, attn_error *error) {
    RETURN_IF_ERROR(attn_check_pointer(config, "config", error));
    RETURN_IF_ERROR(attn_check_pointer(config->parent, "parent", error));
    const struct attn_cache *parent = config->parent;
    if (parent->store.kind == ATTN_KV_RING || parent->store.kind == ATTN_KV_PAGED)
        return attn_fail(ATTN_MISMATCH, "parent", error);
    RETURN_IF_ERROR(attn_check_size(config->batch, 1, "batch", error));
    RETURN_IF_ERROR(attn_check_size(config->len, 0, "len", error));
    RETURN_IF_ERROR(attn_check_size(config->capacity, config->len > 1 ? config->len : 1, "capacity", error));
    for (size_t b = 0; b < config->batch; b++) {
        size_t source = config->sources ? config->sources[b] : b;
        if (source >= parent->config.batch)
            return attn_fail(ATTN_BAD_SIZE, config->sources ? "sources" : "batch", error);
        RETURN_IF_ERROR(attn_check_most(config->len, parent->lengths[source], "len", error));
    }
    return ATTN_OK;
}

/* Keys per sequence for which a fork has memory of its own. Sharing ends at a multiple of ATTN_MAX_COLS, at or below
 * `len`: the fork copies the up to ATTN_MAX_COLS - 1 keys between, and appends capacity - len. */
static size_t own_keys(const attn_cache_fork_config *config) {
    return attn_min(config->capacity, config->capacity - config->len + ATTN_MAX_COLS - 1);
}

static __attribute__((noinline)) attn_status layout_fork(const attn_cache_fork_config *config, struct attn_arena *arena,
                                                         struct attn_cache *fork, struct attn_cache **object,
                                                         attn_error *error) {
    RETURN_IF_ERROR(check_fork(config, error));
    const struct attn_cache *parent = config->parent;
    *fork = (struct attn_cache){.table = parent->table, .config = parent->config, .quantise = parent->quantise};
    fork->config.batch = config->batch;
    fork->config.capacity = config->capacity;
    if (!attn_store_init(&fork->store, parent->store.kernel, parent->config.kv_heads, parent->config.head_size,
                         parent->config.value_size, own_keys(config), ATTN_MAX_COLS))
        return attn_fail(ATTN_OVERFLOW, "capacity", error);
    fork->store.kind = ATTN_KV_FORK;
    fork->store.parent = &parent->store;
    fork->store.key_scales = parent->store.key_scales;
    fork->store.value_scales = parent->store.value_scales;
    if (!take_parts(fork, config->batch, arena, object))
        return attn_fail(ATTN_OVERFLOW, "capacity", error);
    fork->store.from = attn_arena_take(arena, config->batch, sizeof *fork->store.from);
    return arena->overflow ? attn_fail(ATTN_OVERFLOW, "capacity", error) : ATTN_OK;
}

attn_status attn_cache_fork_size(const attn_cache_fork_config *config, size_t *bytes, attn_error *error) {
    struct attn_arena arena = {0};
    struct attn_cache fork, *object;
    RETURN_IF_ERROR(layout_fork(config, &arena, &fork, &object, error));
    RETURN_IF_ERROR(attn_check_pointer(bytes, "bytes", error));
    *bytes = arena.used;
    return ATTN_OK;
}

attn_status attn_cache_fork(const attn_cache_fork_config *config, void *memory, size_t bytes, attn_cache **cache,
                            attn_error *error) {
    size_t needed;
    RETURN_IF_ERROR(attn_cache_fork_size(config, &needed, error));
    RETURN_IF_ERROR(attn_check_pointer(cache, "cache", error));
    RETURN_IF_ERROR(attn_check_memory(memory, bytes, needed, "memory", error));
    struct attn_arena arena = {.base = memory};
    struct attn_cache filled;
    RETURN_IF_ERROR(layout_fork(config, &arena, &filled, cache, error));
    **cache = filled;
    attn_op_cache_fork(*cache, config);
    attn_verbose("fork %zu x %zu keys, %zu of them shared", config->batch, config->capacity, config->len);
    return ATTN_OK;
}
