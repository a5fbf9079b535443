#include "ops/kv.h"

struct attn_store attn_store_of_tensors(const struct attn_kv_tensors *tensors) {
    return (struct attn_store){.kind = ATTN_KV_TENSOR, .unit = 1, .tensors = tensors};
}

bool attn_store_init(struct attn_store *store, const struct attn_gemm_kernel *kernel, size_t kv_heads, size_t head_size,
                     size_t value_size, size_t keys, size_t unit) {
    size_t value_panels = (value_size - 1) / kernel->b.cols + 1, key_cols = attn_min(kernel->b.cols, unit);
    *store = (struct attn_store){.kind = ATTN_KV_CONTIGUOUS,
                                 .unit = unit,
                                 .kernel = kernel,
                                 .kv_heads = kv_heads,
                                 .head_size = head_size,
                                 .value_size = value_size,
                                 .key_cols = key_cols};
    return attn_round_up(keys, unit, &store->capacity) &&
           attn_panel_bytes(&kernel->b, head_size, key_cols, &store->key_panel) &&
           attn_panel_bytes(&kernel->b, store->capacity, kernel->b.cols, &store->value_panel) &&
           attn_mul(store->capacity / key_cols, store->key_panel, &store->key_bytes) &&
           attn_mul(value_panels, store->value_panel, &store->value_bytes);
}

void attn_store_take(struct attn_store *store, size_t segments, struct attn_arena *arena) {
    store->keys = attn_arena_take(arena, segments, store->key_bytes);
    store->values = attn_arena_take(arena, segments, store->value_bytes);
    if (!attn_store_quantises(store))
        return;
    size_t bytes = 0;
    arena->overflow |= !attn_mul(store->capacity, sizeof *store->key_scales, &bytes);
    store->key_scales = attn_arena_take(arena, segments, bytes);
    store->value_scales = attn_arena_take(arena, segments, bytes);
}

/* ---- Locating ---- */

/* A tensor's rows from `row` on. Nothing writes through this. */
static struct attn_panels rows_of(const attn_tensor *tensor, size_t batch, size_t head, size_t row) {
    size_t element = attn_type_size(tensor->type);
    size_t first = batch * tensor->batch_stride + head * tensor->head_stride + row * tensor->row_stride;
    return (struct attn_panels){.data = (char *)(uintptr_t)tensor->data + first * element,
                                .stride = tensor->row_stride * element};
}

static struct attn_segment locate_in_tensors(const struct attn_store *store, size_t sequence, size_t head, size_t key) {
    const struct attn_kv_tensors *tensors = store->tensors;
    const attn_tensor *k = &tensors->k, *v = &tensors->v;
    bool packed = attn_ints_given(&tensors->cu);
    size_t batch = packed ? 0 : sequence, row = (packed ? (size_t)attn_ints_at(&tensors->cu, sequence) : 0) + key;
    return (struct attn_segment){
        .keys = rows_of(k, batch, head, row), .values = rows_of(v, batch, head, row), .count = SIZE_MAX};
}

static struct attn_scales scales_of(const struct attn_store *store, float *scales, size_t segment, size_t head,
                                    size_t slot) {
    if (!scales)
        return (struct attn_scales){NULL, 0};
    if (attn_store_quantises(store))
        return (struct attn_scales){scales + segment * store->capacity + slot, 1};
    return (struct attn_scales){scales + head, 0};
}

/* The keys of a packed segment from the one in place `slot` on. */
static struct attn_segment within_segment(const struct attn_store *store, size_t segment, size_t head, size_t slot) {
    return (struct attn_segment){
        .keys = {store->keys + segment * store->key_bytes, store->key_cols, store->key_panel},
        .values = {store->values + segment * store->value_bytes, store->kernel->b.cols, store->value_panel},
        .first = slot,
        .count = store->capacity - slot,
        .key_scales = scales_of(store, store->key_scales, segment, head, slot),
        .value_scales = scales_of(store, store->value_scales, segment, head, slot)};
}

static struct attn_segment locate_contiguous(const struct attn_store *store, size_t sequence, size_t head, size_t key) {
    return within_segment(store, sequence * store->kv_heads + head, head, key);
}

static struct attn_segment locate_in_ring(const struct attn_store *store, size_t sequence, size_t head, size_t key) {
    return within_segment(store, sequence * store->kv_heads + head, head, key % store->capacity);
}

/* All pages of one head lie side by side. */
static struct attn_segment locate_in_pages(const struct attn_store *store, size_t sequence, size_t head, size_t key) {
    int32_t page = store->pages[sequence * store->pages_per_sequence + key / store->capacity];
    return within_segment(store, head * store->page_count + (size_t)page, head, key % store->capacity);
}

/* The parent may be a fork itself. */
static struct attn_segment locate_in_fork(const struct attn_store *store, size_t sequence, size_t head, size_t key) {
    size_t end = SIZE_MAX; /* of the keys that all forks on the way to the parent share */
    while (key < attn_store_border(store, sequence)) {
        const struct attn_shared_keys *from = &store->from[sequence];
        end = attn_min(end, from->count);
        sequence = from->sequence;
        store = store->parent;
    }
    struct attn_segment own = locate_contiguous(store, sequence, head, key - attn_store_border(store, sequence));
    own.count = attn_min(own.count, end - key);
    return own;
}

struct attn_segment attn_store_locate(const struct attn_store *store, size_t sequence, size_t head, size_t key) {
    switch (store->kind) {
    case ATTN_KV_TENSOR:
        return locate_in_tensors(store, sequence, head, key);
    case ATTN_KV_RING:
        return locate_in_ring(store, sequence, head, key);
    case ATTN_KV_PAGED:
        return locate_in_pages(store, sequence, head, key);
    case ATTN_KV_FORK:
        return locate_in_fork(store, sequence, head, key);
    case ATTN_KV_CONTIGUOUS:
        break;
    }
    return locate_contiguous(store, sequence, head, key);
}

/* Segments that follow each other in memory are one. So are two pages of one panel of keys each: the distance of the
 * pages is then the distance of the panels. */
struct attn_segment attn_kv_locate_joined(const struct attn_kv_view *view, size_t key, size_t end) {
    const struct attn_store *store = view->store;
    struct attn_segment joined = attn_kv_locate(view, key);
    while (joined.count < end - key) {
        struct attn_segment next = attn_kv_locate(view, key + joined.count);
        const char *from = joined.keys.data, *to = next.keys.data;
        size_t panels = (joined.first + joined.count) / store->key_cols;
        if (next.first == 0 && to == from + panels * store->key_panel) {
            joined.count += next.count;
            continue;
        }
        if (store->kind == ATTN_KV_PAGED && panels == 1 && store->capacity == store->key_cols && to > from) {
            joined.keys.stride = (size_t)(to - from);
            joined.count += next.count;
        }
        break;
    }
    joined.count = attn_min(joined.count, end - key);
    return joined;
}
