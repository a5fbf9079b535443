/* Where a key of one head of one sequence lies, and its value: one locate function for each kind of storage.
 *
 * Storage is a set of segments, each of which lies in one piece. In tensors keys and values are rows. Elsewhere they
 * are packed as the right-hand sides of the two products of attention: keys are columns of head_size elements, values
 * are rows of value_size. A segment holds whole panels of keys: in pages of an odd multiple of ATTN_PAGE_UNIT keys no
 * panel of keys has more columns than that. */
#ifndef ATTN_OPS_KV_H
#define ATTN_OPS_KV_H

#include "format.h"
#include "ops/tensor.h"

/* A page has a multiple of this many keys, any other packed segment a multiple of ATTN_MAX_COLS. */
#define ATTN_PAGE_UNIT ATTN_LANES

enum attn_kv_kind {
    ATTN_KV_TENSOR,     /* not packed: rows, as the caller has them */
    ATTN_KV_CONTIGUOUS, /* a segment for each head of each sequence: a cache's, or what a call packed for itself */
    ATTN_KV_RING,       /* the same, key j at j % capacity */
    ATTN_KV_PAGED,      /* a segment for each page of each head */
    ATTN_KV_FORK        /* contiguous behind the first keys of each sequence, which lie in the parent */
};

/* The keys that a sequence of a fork shares with a sequence of the parent. */
struct attn_shared_keys {
    size_t sequence; /* of the parent */
    size_t count;    /* keys 0 .. count - 1 lie there; a multiple of the store's unit */
};

struct attn_kv_tensors {
    attn_tensor k, v;
    attn_ints cu; /* where packed sequences begin, if they are */
};

struct attn_store {
    enum attn_kv_kind kind;
    size_t unit;                           /* segments begin and end at multiples of so many keys; 1 in tensors */
    const struct attn_kv_tensors *tensors; /* of TENSOR, for which nothing below is set */

    const struct attn_gemm_kernel *kernel;
    size_t kv_heads, head_size, value_size;
    size_t capacity;               /* keys of a segment */
    size_t key_cols;               /* of a panel of keys */
    size_t key_panel, value_panel; /* bytes of a panel */
    size_t key_bytes, value_bytes; /* of one segment of one head */
    char *keys, *values;
    /* NULL, or what products with keys, and probabilities of values, are multiplied by: of elements of INT8
     * [segment][capacity], made when keys are packed; of others [kv_heads]. */
    float *key_scales, *value_scales;

    int32_t *pages; /* of PAGED: [sequence][pages_per_sequence], -1 where not set */
    size_t pages_per_sequence, page_count;

    const struct attn_store *parent; /* of FORK */
    struct attn_shared_keys *from;   /* of FORK: [sequence] */
};

/* The caller's tensors as a store. */
struct attn_store attn_store_of_tensors(const struct attn_kv_tensors *tensors);

/* Sizes of a contiguous store whose segments hold `keys` keys, rounded up to the unit, ATTN_MAX_COLS or ATTN_PAGE_UNIT.
 * False where a product of sizes does not fit. */
bool attn_store_init(struct attn_store *store, const struct attn_gemm_kernel *kernel, size_t kv_heads, size_t head_size,
                     size_t value_size, size_t keys, size_t unit);

/* Takes the memory of `segments` segments, each of one head. */
void attn_store_take(struct attn_store *store, size_t segments, struct attn_arena *arena);

/* Whether each key and value is quantised with a scale of its own. */
static inline bool attn_store_quantises(const struct attn_store *store) {
    return store->kernel->b.type == ATTN_INT8;
}

/* The scales of keys that follow each other. */
struct attn_scales {
    float *data; /* the first key's; NULL where there are none */
    size_t step; /* 1, or 0 where all keys of the head share one */
};

/* Keys that follow each other in one piece. */
struct attn_segment {
    /* The segment's panels. In tensors: the first key's row and the distance of rows. */
    struct attn_panels keys, values;
    size_t first; /* the first key's column in `keys`, and row in `values`; 0 in tensors */
    size_t count; /* keys from there to the segment's end; SIZE_MAX in tensors, where a sequence is one segment */
    struct attn_scales key_scales, value_scales; /* from the first key on */
};

/* The segment from `key` on. Products with keys begin at a multiple of the store's unit. */
struct attn_segment attn_store_locate(const struct attn_store *store, size_t sequence, size_t head, size_t key);

/* The first key of a sequence that lies in the store's own memory; those before it lie in a fork's parent. */
static inline size_t attn_store_border(const struct attn_store *store, size_t sequence) {
    return store->kind == ATTN_KV_FORK ? store->from[sequence].count : 0;
}

/* One head's keys or values, as its tiles find them. */
struct attn_kv_view {
    const struct attn_store *store;
    size_t sequence, head; /* of the store */
    size_t first;          /* the key of the sequence that is key 0 of the store */
};

static inline struct attn_segment attn_kv_locate(const struct attn_kv_view *view, size_t key) {
    return attn_store_locate(view->store, view->sequence, view->head, key - view->first);
}

/* The segment from `key` on, as attn_kv_locate finds it, with the keys of further segments up to `end` that one product
 * can take as well: count tells how many there are. Scales are those of the first segment's keys. */
struct attn_segment attn_kv_locate_joined(const struct attn_kv_view *view, size_t key, size_t end);

static inline bool attn_kv_is_packed(const struct attn_kv_view *view) {
    return view->store->kind != ATTN_KV_TENSOR;
}

#endif
