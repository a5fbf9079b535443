/* Keys and values packed as the right-hand sides of the two products of attention: where they lie, and packing them.
 *
 * Keys are columns of head_size elements, key j in panel j / cols; values are rows, each panel holding `cols` of their columns
 * for every key of a stretch. A stretch is what lies contiguous: a head's whole storage, a page, a ring up to its end. It begins
 * and ends with a panel of keys: in pages of an odd number of ATTN_PAGE_UNIT these are narrow. */
#ifndef ATTN_OPS_PANELS_H
#define ATTN_OPS_PANELS_H

#include "checked.h"
#include "kernels.h"
#include "ops/rotary.h"

/* Keys of a page are a multiple of this, those of other stretches of ATTN_MAX_COLS. */
#define ATTN_PAGE_UNIT ATTN_LANES

/* What a fork's sequence has in common with one of the parent's. */
struct attn_shared_keys {
    size_t sequence; /* of the parent */
    size_t count;    /* keys 0 .. count - 1 lie there; a multiple of the store's unit */
};

/* Packed keys and values of some heads of some sequences. */
struct attn_store {
    const struct attn_gemm_kernel *kernel;
    size_t kv_heads, head_size, value_size;
    size_t unit;                     /* stretches begin and end at multiples of so many keys */
    size_t capacity;                 /* keys of a stretch */
    size_t key_floats, value_floats; /* of one stretch of one head */
    float *keys, *values;
    bool ring; /* key j lies at j % capacity */

    int32_t *pages; /* NULL, or [sequence][pages_per_sequence], -1 where not set; a stretch is a page */
    size_t pages_per_sequence, page_count;

    const struct attn_store *parent; /* NULL, or holds the first keys of each sequence */
    struct attn_shared_keys *from;   /* [sequence] with a parent: which these are */
};

/* Sizes of a store whose stretches hold `keys` keys, rounded up to the unit, ATTN_MAX_COLS or ATTN_PAGE_UNIT. False where a product
 * of sizes does not fit. */
bool attn_store_init(struct attn_store *store, const struct attn_gemm_kernel *kernel, size_t kv_heads, size_t head_size,
                     size_t value_size, size_t keys, size_t unit);

/* Takes room for `stretches` stretches of one head each. */
void attn_store_take(struct attn_store *store, size_t stretches, struct attn_carve *carve);

/* Keys from a multiple of the store's unit on that lie one after the other. */
struct attn_stretch {
    float *keys;   /* their first panel */
    float *values; /* their first row in the first panel */
    size_t count;
    size_t key_panel_stride, value_panel_stride;
    size_t key_cols; /* of a panel of keys */
    int narrow;      /* for the kernel: they are fewer than its own */
};

/* The first key of a sequence that lies in the store itself. */
static inline size_t attn_store_border(const struct attn_store *store, size_t sequence) {
    return store->parent ? store->from[sequence].count : 0;
}

struct attn_stretch attn_store_at(const struct attn_store *store, size_t sequence, size_t head, size_t key);

/* The rows of keys and values of one head. */
struct attn_key_rows {
    const float *k, *v; /* v NULL: keys only are packed */
    size_t k_stride, v_stride;
    const struct attn_rotary *rotary; /* NULL, or turns keys: the first to `position` */
    size_t position;
    const struct attn_attention_kernel *kernel; /* with rotary: what turns them, */
    float *rotated;                             /* into [ATTN_MAX_COLS][head_size] */
};

/* Packs `count` rows as keys first .. first + count - 1. */
void attn_store_append(const struct attn_store *store, size_t sequence, size_t head, size_t first, size_t count,
                       const struct attn_key_rows *rows);

/* Puts key `first` also in the place of those before it in its unit, which hold no key. Products take whole units: what happens
 * to lie there would be slow where it is denormal, and raise an exception where it is a signalling NaN. */
void attn_store_fill_unit(const struct attn_store *store, size_t sequence, size_t head, size_t first);

#endif
