#include "ops/panels.h"

/* ---- Packing ---- */

/* Keys are columns. */
static void put_keys(const struct attn_store *store, const struct attn_segment *segment, size_t count, const char *k,
                     size_t k_stride) {
    store->kernel->pack(&(struct attn_pack_args){.k = store->head_size,
                                                 .n = count,
                                                 .b = k,
                                                 .k_stride = attn_type_size(store->kernel->b.type),
                                                 .n_stride = k_stride,
                                                 .packed = segment->keys,
                                                 .column = segment->first});
}

static void rotate_key(const struct attn_store *store, const struct attn_key_rows *rows, size_t row, float *rotated) {
    attn_rotary_rotate(rows->kernel, rows->rotary, rows->position + row,
                       (const float *)(rows->k + row * rows->k_stride), store->head_size, rotated);
}

/* Rotates a unit of keys, then packs it while it is in L1, and so on. */
static void put_rotated(const struct attn_store *store, struct attn_segment segment, size_t count,
                        const struct attn_key_rows *rows, size_t row) {
    for (size_t done = 0, taken; done < count; done += taken, segment.first += taken) {
        taken = attn_min(store->unit - segment.first % store->unit, count - done);
        for (size_t i = 0; i < taken; i++)
            rotate_key(store, rows, row + done + i, rows->rotated + i * store->head_size);
        put_keys(store, &segment, taken, (const char *)rows->rotated, store->head_size * sizeof *rows->rotated);
    }
}

/* Values are rows. */
static void put_values(const struct attn_store *store, const struct attn_segment *segment, size_t count, const char *v,
                       size_t v_stride) {
    store->kernel->pack(&(struct attn_pack_args){.k = count,
                                                 .n = store->value_size,
                                                 .b = v,
                                                 .k_stride = v_stride,
                                                 .n_stride = attn_type_size(store->kernel->b.type),
                                                 .packed = segment->values,
                                                 .row = segment->first});
}

void attn_store_append(const struct attn_store *store, size_t sequence, size_t head, size_t first, size_t count,
                       const struct attn_key_rows *rows) {
    for (size_t done = 0, taken; done < count; done += taken) {
        struct attn_segment segment = attn_store_locate(store, sequence, head, first + done);
        taken = attn_min(segment.count, count - done);
        if (rows->rotary)
            put_rotated(store, segment, taken, rows, done);
        else
            put_keys(store, &segment, taken, rows->k + done * rows->k_stride, rows->k_stride);
        if (rows->v)
            put_values(store, &segment, taken, rows->v + done * rows->v_stride, rows->v_stride);
    }
}

void attn_store_fill_unit(const struct attn_store *store, size_t sequence, size_t head, size_t first,
                          const struct attn_key_rows *rows) {
    size_t offset = first % store->unit;
    struct attn_segment segment = attn_store_locate(store, sequence, head, first - offset);
    const char *key = rows->k;
    if (rows->rotary && offset > 0) {
        rotate_key(store, rows, 0, rows->rotated);
        key = (const char *)rows->rotated;
    }
    put_keys(store, &segment, offset, key, 0);
}

/* ---- Copying ---- */

void attn_store_copy_from_parent(const struct attn_store *store, size_t sequence, size_t head, size_t count) {
    size_t border = attn_store_border(store, sequence);
    struct attn_segment to = attn_store_locate(store, sequence, head, border);
    struct attn_segment from = attn_store_locate(store->parent, store->from[sequence].sequence, head, border);
    const struct attn_format *format = &store->kernel->b;
    attn_panels_copy(format, &from.keys, 0, from.first, &to.keys, store->head_size, count);
    attn_panels_copy(format, &from.values, from.first, 0, &to.values, count, store->value_size);
}
