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

/* A row of `n` elements of `type` as the store wants it: widened, rotated, rounded. */
static void convert_row(const struct attn_store *store, const struct attn_key_rows *rows, attn_type type, const char *x,
                        size_t n, const struct attn_rotary *rotary, size_t position, void *y) {
    attn_type to = store->kernel->b.type;
    float *row = to == ATTN_F32 ? y : rows->strip + ATTN_MAX_COLS * n;
    const float *from = (const float *)x;
    if (type != ATTN_F32) {
        rows->convert->widen(type, n, x, row);
        from = row;
    }
    if (rotary) {
        attn_rotary_rotate(rows->attention, rotary, position, from, n, row);
        from = row;
    }
    if (to != ATTN_F32)
        rows->convert->narrow(to, n, from, y);
}

static bool keys_are_converted(const struct attn_store *store, const struct attn_key_rows *rows) {
    return rows->rotary || rows->k_type != store->kernel->b.type;
}

/* Keys row .. row + count - 1 into the strip. Returns the bytes from one to the next. */
static size_t convert_keys(const struct attn_store *store, const struct attn_key_rows *rows, size_t row, size_t count) {
    size_t bytes = store->head_size * attn_type_size(store->kernel->b.type);
    for (size_t i = 0; i < count; i++)
        convert_row(store, rows, rows->k_type, rows->k + (row + i) * rows->k_stride, store->head_size, rows->rotary,
                    rows->position + row + i, (char *)rows->strip + i * bytes);
    return bytes;
}

/* Converts a unit of keys, then packs it while it is in L1, and so on. */
static void put_converted_keys(const struct attn_store *store, struct attn_segment segment, size_t count,
                               const struct attn_key_rows *rows, size_t row) {
    for (size_t done = 0, taken; done < count; done += taken, segment.first += taken) {
        taken = attn_min(store->unit - segment.first % store->unit, count - done);
        size_t bytes = convert_keys(store, rows, row + done, taken);
        put_keys(store, &segment, taken, (const char *)rows->strip, bytes);
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

static void put_converted_values(const struct attn_store *store, struct attn_segment segment, size_t count,
                                 const struct attn_key_rows *rows, size_t row) {
    size_t bytes = store->value_size * attn_type_size(store->kernel->b.type);
    for (size_t done = 0, taken; done < count; done += taken, segment.first += taken) {
        taken = attn_min(store->unit - segment.first % store->unit, count - done);
        for (size_t i = 0; i < taken; i++)
            convert_row(store, rows, rows->v_type, rows->v + (row + done + i) * rows->v_stride, store->value_size, NULL,
                        0, (char *)rows->strip + i * bytes);
        put_values(store, &segment, taken, (const char *)rows->strip, bytes);
    }
}

void attn_store_append(const struct attn_store *store, size_t sequence, size_t head, size_t first, size_t count,
                       const struct attn_key_rows *rows) {
    for (size_t done = 0, taken; done < count; done += taken) {
        struct attn_segment segment = attn_store_locate(store, sequence, head, first + done);
        taken = attn_min(segment.count, count - done);
        if (keys_are_converted(store, rows))
            put_converted_keys(store, segment, taken, rows, done);
        else
            put_keys(store, &segment, taken, rows->k + done * rows->k_stride, rows->k_stride);
        if (rows->v && rows->v_type != store->kernel->b.type)
            put_converted_values(store, segment, taken, rows, done);
        else if (rows->v)
            put_values(store, &segment, taken, rows->v + done * rows->v_stride, rows->v_stride);
    }
}

void attn_store_fill_unit(const struct attn_store *store, size_t sequence, size_t head, size_t first,
                          const struct attn_key_rows *rows) {
    size_t offset = first % store->unit;
    struct attn_segment segment = attn_store_locate(store, sequence, head, first - offset);
    const char *key = rows->k;
    if (keys_are_converted(store, rows) && offset > 0) {
        convert_keys(store, rows, 0, 1);
        key = (const char *)rows->strip;
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
