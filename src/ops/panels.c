#include "ops/panels.h"

#include <string.h>

bool attn_store_init(struct attn_store *store, const struct attn_gemm_kernel *kernel, size_t kv_heads, size_t head_size,
                     size_t value_size, size_t keys, size_t unit) {
    size_t value_cols;
    *store = (struct attn_store){
        .kernel = kernel, .kv_heads = kv_heads, .head_size = head_size, .value_size = value_size, .unit = unit};
    return attn_round_up(keys, unit, &store->capacity) && attn_round_up(value_size, kernel->cols, &value_cols) &&
           attn_mul(store->capacity, head_size, &store->key_floats) &&
           attn_mul(store->capacity, value_cols, &store->value_floats);
}

void attn_store_take(struct attn_store *store, size_t stretches, struct attn_carve *carve) {
    size_t bytes = 0;
    if (!attn_mul(stretches, sizeof(float), &bytes))
        carve->overflow = true;
    store->keys = attn_carve_take(carve, store->key_floats, bytes);
    store->values = attn_carve_take(carve, store->value_floats, bytes);
}

struct attn_stretch attn_store_at(const struct attn_store *store, size_t sequence, size_t head, size_t key) {
    size_t begin = attn_store_border(store, sequence), end = SIZE_MAX; /* of what is shared */
    while (key < begin) {
        end = attn_min(end, begin);
        sequence = store->from[sequence].sequence;
        store = store->parent;
        begin = attn_store_border(store, sequence);
    }
    size_t cols = store->kernel->cols, key_cols = attn_min(cols, store->unit);
    size_t slot = key - begin, index = sequence * store->kv_heads + head;
    if (store->pages) {
        size_t page = slot / store->capacity;
        /* Pages of a head are neighbours. */
        index = head * store->page_count + (size_t)store->pages[sequence * store->pages_per_sequence + page];
    }
    if (store->pages || store->ring)
        slot %= store->capacity;
    return (struct attn_stretch){.keys = store->keys + index * store->key_floats + slot * store->head_size,
                                 .values = store->values + index * store->value_floats + slot * cols,
                                 .count = attn_min(store->capacity - slot, end - key),
                                 .key_panel_stride = store->head_size * key_cols,
                                 .value_panel_stride = store->capacity * cols,
                                 .key_cols = key_cols,
                                 .narrow = key_cols < cols};
}

/* ---- Packing ---- */

/* Keys that do not begin a panel: columns written into what is there. */
static void put_columns(const struct attn_store *store, const struct attn_stretch *stretch, size_t first, size_t count,
                        const float *k, size_t k_stride) {
    size_t cols = stretch->key_cols;
    for (size_t i = 0; i < count; i++) {
        float *column = stretch->keys + (first + i) / cols * stretch->key_panel_stride + (first + i) % cols;
        for (size_t d = 0; d < store->head_size; d++)
            column[d * cols] = k[i * k_stride + d];
    }
}

static void put_keys(const struct attn_store *store, const struct attn_stretch *stretch, size_t first, size_t count,
                     const float *k, size_t k_stride) {
    size_t cols = stretch->key_cols, rest = first % cols, done = rest ? attn_min(cols - rest, count) : 0;
    put_columns(store, stretch, first, done, k, k_stride);
    if (done < count)
        store->kernel->pack(
            &(struct attn_pack_args){.k = store->head_size,
                                     .n = count - done,
                                     .b = k + done * k_stride,
                                     .k_stride = 1,
                                     .n_stride = k_stride,
                                     .packed = stretch->keys + (first + done) / cols * stretch->key_panel_stride,
                                     .panel_stride = stretch->key_panel_stride,
                                     .narrow = stretch->narrow});
}

/* A unit of keys at a time is rotated next to the packing, in L1. */
static void put_rotated(const struct attn_store *store, const struct attn_stretch *stretch, size_t first, size_t count,
                        const struct attn_key_rows *rows, size_t row) {
    for (size_t done = 0, taken; done < count; done += taken) {
        taken = attn_min(store->unit - (first + done) % store->unit, count - done);
        for (size_t i = 0; i < taken; i++)
            attn_rotary_turn(rows->kernel, rows->rotary, rows->position + row + done + i,
                             rows->k + (row + done + i) * rows->k_stride, store->head_size,
                             rows->rotated + i * store->head_size);
        put_keys(store, stretch, first + done, taken, rows->rotated, store->head_size);
    }
}

static void put_values(const struct attn_store *store, const struct attn_stretch *stretch, size_t first, size_t count,
                       const float *v, size_t v_stride) {
    store->kernel->pack(&(struct attn_pack_args){.k = count,
                                                 .n = store->value_size,
                                                 .b = v,
                                                 .k_stride = v_stride,
                                                 .n_stride = 1,
                                                 .packed = stretch->values + first * store->kernel->cols,
                                                 .panel_stride = stretch->value_panel_stride});
}

void attn_store_append(const struct attn_store *store, size_t sequence, size_t head, size_t first, size_t count,
                       const struct attn_key_rows *rows) {
    for (size_t done = 0, taken; done < count; done += taken) {
        size_t offset = (first + done) % store->unit;
        struct attn_stretch stretch = attn_store_at(store, sequence, head, first + done - offset);
        taken = attn_min(stretch.count - offset, count - done);
        if (rows->rotary)
            put_rotated(store, &stretch, offset, taken, rows, done);
        else
            put_keys(store, &stretch, offset, taken, rows->k + done * rows->k_stride, rows->k_stride);
        if (rows->v)
            put_values(store, &stretch, offset, taken, rows->v + done * rows->v_stride, rows->v_stride);
    }
}

void attn_store_fill_unit(const struct attn_store *store, size_t sequence, size_t head, size_t first) {
    size_t offset = first % store->unit;
    struct attn_stretch stretch = attn_store_at(store, sequence, head, first - offset);
    size_t cols = stretch.key_cols;
    const float *key = stretch.keys + offset / cols * stretch.key_panel_stride + offset % cols;
    for (size_t i = 0; i < offset; i++) {
        float *column = stretch.keys + i / cols * stretch.key_panel_stride + i % cols;
        for (size_t d = 0; d < store->head_size; d++)
            column[d * cols] = key[d * cols];
    }
}
