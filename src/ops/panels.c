#include "ops/panels.h"

#include <string.h>

/* A segment of the store's own memory, to be written. */
struct place {
    float *keys, *values;
};

static struct place place_of(const struct attn_store *store, const struct attn_segment *segment) {
    return (struct place){store->keys + (segment->keys - store->keys),
                          store->values + (segment->values - store->values)};
}

/* ---- Packing ---- */

/* Writes keys as columns of panels, next to the columns that are there. */
static void put_columns(const struct attn_store *store, const struct attn_segment *segment, size_t first, size_t count,
                        const float *k, size_t k_stride) {
    float *keys = place_of(store, segment).keys;
    size_t cols = segment->key_cols;
    for (size_t i = 0; i < count; i++) {
        float *column = keys + (first + i) / cols * segment->key_stride + (first + i) % cols;
        for (size_t d = 0; d < store->head_size; d++)
            column[d * cols] = k[i * k_stride + d];
    }
}

static void put_keys(const struct attn_store *store, const struct attn_segment *segment, size_t first, size_t count,
                     const float *k, size_t k_stride) {
    size_t cols = segment->key_cols, rest = first % cols, done = rest ? attn_min(cols - rest, count) : 0;
    put_columns(store, segment, first, done, k, k_stride);
    if (done < count)
        store->kernel->pack(&(struct attn_pack_args){.k = store->head_size,
                                                     .n = count - done,
                                                     .b = k + done * k_stride,
                                                     .k_stride = 1,
                                                     .n_stride = k_stride,
                                                     .packed = place_of(store, segment).keys +
                                                               (first + done) / cols * segment->key_stride,
                                                     .panel_stride = segment->key_stride,
                                                     .narrow = segment->narrow});
}

/* Rotates a unit of keys, then packs it while it is in L1, and so on. */
static void put_rotated(const struct attn_store *store, const struct attn_segment *segment, size_t first, size_t count,
                        const struct attn_key_rows *rows, size_t row) {
    for (size_t done = 0, taken; done < count; done += taken) {
        taken = attn_min(store->unit - (first + done) % store->unit, count - done);
        for (size_t i = 0; i < taken; i++)
            attn_rotary_rotate(rows->kernel, rows->rotary, rows->position + row + done + i,
                               rows->k + (row + done + i) * rows->k_stride, store->head_size,
                               rows->rotated + i * store->head_size);
        put_keys(store, segment, first + done, taken, rows->rotated, store->head_size);
    }
}

static void put_values(const struct attn_store *store, const struct attn_segment *segment, size_t first, size_t count,
                       const float *v, size_t v_stride) {
    store->kernel->pack(
        &(struct attn_pack_args){.k = count,
                                 .n = store->value_size,
                                 .b = v,
                                 .k_stride = v_stride,
                                 .n_stride = 1,
                                 .packed = place_of(store, segment).values + first * store->kernel->cols,
                                 .panel_stride = segment->value_stride});
}

void attn_store_append(const struct attn_store *store, size_t sequence, size_t head, size_t first, size_t count,
                       const struct attn_key_rows *rows) {
    for (size_t done = 0, taken; done < count; done += taken) {
        size_t offset = (first + done) % store->unit;
        struct attn_segment segment = attn_store_locate(store, sequence, head, first + done - offset);
        taken = attn_min(segment.count - offset, count - done);
        if (rows->rotary)
            put_rotated(store, &segment, offset, taken, rows, done);
        else
            put_keys(store, &segment, offset, taken, rows->k + done * rows->k_stride, rows->k_stride);
        if (rows->v)
            put_values(store, &segment, offset, taken, rows->v + done * rows->v_stride, rows->v_stride);
    }
}

/* ---- Copying ---- */

void attn_store_fill_unit(const struct attn_store *store, size_t sequence, size_t head, size_t first) {
    size_t offset = first % store->unit;
    struct attn_segment segment = attn_store_locate(store, sequence, head, first - offset);
    float *keys = place_of(store, &segment).keys;
    size_t cols = segment.key_cols;
    const float *key = keys + offset / cols * segment.key_stride + offset % cols;
    for (size_t i = 0; i < offset; i++) {
        float *column = keys + i / cols * segment.key_stride + i % cols;
        for (size_t d = 0; d < store->head_size; d++)
            column[d * cols] = key[d * cols];
    }
}

void attn_store_copy_from_parent(const struct attn_store *store, size_t sequence, size_t head, size_t count) {
    size_t cols = store->kernel->cols, border = attn_store_border(store, sequence);
    struct attn_segment to = attn_store_locate(store, sequence, head, border);
    struct attn_segment from = attn_store_locate(store->parent, store->from[sequence].sequence, head, border);
    struct place place = place_of(store, &to);
    for (size_t j = 0; j < count; j += cols)
        memcpy(place.keys + j / cols * to.key_stride, from.keys + j / cols * from.key_stride,
               to.key_stride * sizeof(float));
    for (size_t c = 0; c < store->value_size; c += cols)
        memcpy(place.values + c / cols * to.value_stride, from.values + c / cols * from.value_stride,
               count * cols * sizeof(float));
}
