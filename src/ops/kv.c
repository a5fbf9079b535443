#include "ops/kv.h"

struct attn_store attn_store_of_tensors(const struct attn_kv_tensors *tensors) {
    return (struct attn_store){.kind = ATTN_KV_TENSOR, .unit = 1, .tensors = tensors};
}

bool attn_store_init(struct attn_store *store, const struct attn_gemm_kernel *kernel, size_t kv_heads, size_t head_size,
                     size_t value_size, size_t keys, size_t unit) {
    size_t value_cols;
    *store = (struct attn_store){.kind = ATTN_KV_CONTIGUOUS,
                                 .unit = unit,
                                 .kernel = kernel,
                                 .kv_heads = kv_heads,
                                 .head_size = head_size,
                                 .value_size = value_size};
    return attn_round_up(keys, unit, &store->capacity) && attn_round_up(value_size, kernel->cols, &value_cols) &&
           attn_mul(store->capacity, head_size, &store->key_floats) &&
           attn_mul(store->capacity, value_cols, &store->value_floats);
}

void attn_store_take(struct attn_store *store, size_t segments, struct attn_arena *arena) {
    size_t bytes = 0;
    if (!attn_mul(segments, sizeof(float), &bytes))
        arena->overflow = true;
    store->keys = attn_arena_take(arena, store->key_floats, bytes);
    store->values = attn_arena_take(arena, store->value_floats, bytes);
}

/* ---- Locating ---- */

static struct attn_segment locate_in_tensors(const struct attn_store *store, size_t sequence, size_t head, size_t key) {
    const struct attn_kv_tensors *tensors = store->tensors;
    const attn_tensor *k = &tensors->k, *v = &tensors->v;
    bool packed = attn_ints_given(&tensors->cu);
    size_t batch = packed ? 0 : sequence, row = (packed ? (size_t)attn_ints_at(&tensors->cu, sequence) : 0) + key;
    return (struct attn_segment){.keys = attn_row_at(k, batch, head, row),
                                 .values = attn_row_at(v, batch, head, row),
                                 .count = SIZE_MAX,
                                 .key_stride = k->row_stride,
                                 .value_stride = v->row_stride,
                                 .key_cols = 1};
}

/* The keys of a packed segment from the one in place `slot` on. */
static struct attn_segment within_segment(const struct attn_store *store, size_t segment, size_t slot) {
    size_t cols = store->kernel->cols, key_cols = attn_min(cols, store->unit);
    return (struct attn_segment){.keys = store->keys + segment * store->key_floats + slot * store->head_size,
                                 .values = store->values + segment * store->value_floats + slot * cols,
                                 .count = store->capacity - slot,
                                 .key_stride = store->head_size * key_cols,
                                 .value_stride = store->capacity * cols,
                                 .key_cols = key_cols,
                                 .narrow = key_cols < cols};
}

static struct attn_segment locate_contiguous(const struct attn_store *store, size_t sequence, size_t head, size_t key) {
    return within_segment(store, sequence * store->kv_heads + head, key);
}

static struct attn_segment locate_in_ring(const struct attn_store *store, size_t sequence, size_t head, size_t key) {
    return within_segment(store, sequence * store->kv_heads + head, key % store->capacity);
}

/* All pages of one head lie side by side. */
static struct attn_segment locate_in_pages(const struct attn_store *store, size_t sequence, size_t head, size_t key) {
    int32_t page = store->pages[sequence * store->pages_per_sequence + key / store->capacity];
    return within_segment(store, head * store->page_count + (size_t)page, key % store->capacity);
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
