#include "ops/panels.h"

#include "quantised.h"

/* ---- Converting ---- */

/* Keys, or values, that are not yet as the store wants them. */
struct conversion {
    const struct attn_store *store;
    const struct attn_key_rows *rows;
    attn_type type;
    const char *x;
    size_t stride, n; /* bytes from row to row; elements of a row */
    const struct attn_rotary *rotary;
};

static struct conversion conversion_of_keys(const struct attn_store *store, const struct attn_key_rows *rows) {
    return (struct conversion){store, rows, rows->k_type, rows->k, rows->k_stride, store->head_size, rows->rotary};
}

static struct conversion conversion_of_values(const struct attn_store *store, const struct attn_key_rows *rows) {
    return (struct conversion){store, rows, rows->v_type, rows->v, rows->v_stride, store->value_size, NULL};
}

static bool keys_are_converted(const struct attn_store *store, const struct attn_key_rows *rows) {
    return rows->rotary || rows->k_type != store->kernel->b.type;
}

/* Bytes of a row of n quantised elements. */
static bool quantised_bytes(size_t n, size_t *bytes) {
    return attn_quantised_bytes(n, ATTN_INT8_PART, bytes);
}

/* Bytes for a row in a strip; its elements may take fewer. */
static bool strip_row_bytes(attn_type type, size_t n, size_t *bytes) {
    size_t quantised = 0;
    if (!attn_mul(n, attn_type_size(ATTN_F32), bytes) || !quantised_bytes(n, &quantised))
        return false;
    if (type == ATTN_INT8)
        *bytes = attn_max(*bytes, quantised);
    return true;
}

bool attn_strip_bytes(attn_type type, size_t n, size_t *bytes) {
    return strip_row_bytes(type, n, bytes) && attn_mul(*bytes, ATTN_STRIP_ROWS, bytes);
}

/* The strip's last row is for floats, on their way to another type. */
static float *row_of_floats(const struct conversion *c) {
    size_t bytes = 0;
    strip_row_bytes(c->store->kernel->b.type, c->n, &bytes);
    return (float *)(c->rows->strip + ATTN_MAX_COLS * bytes);
}

/* Bytes from one converted row of the strip to the next. */
static size_t converted_bytes(const struct conversion *c) {
    size_t bytes = c->n * attn_type_size(c->store->kernel->b.type);
    if (attn_store_quantises(c->store))
        quantised_bytes(c->n, &bytes);
    return bytes;
}

static void divide_row(size_t n, const float *x, float scale, float *y) {
    for (size_t j = 0; j < n; j++)
        y[j] = x[j] / scale;
}

/* Where one key has a scale, *scale is written, where a head has one it is read. */
static void round_row(const struct conversion *c, const float *x, float *scale, void *y) {
    attn_type to = c->store->kernel->b.type;
    if (to == ATTN_INT8) {
        c->rows->quantise(
            &(struct attn_quantise_args){.m = 1, .k = c->n, .block = ATTN_INT8_PART, .type = ATTN_F32, .x = x, .a = y});
        *scale = attn_quantised_scale(y, c->n);
        return;
    }
    if (scale) {
        divide_row(c->n, x, *scale, row_of_floats(c));
        x = row_of_floats(c);
    }
    c->rows->convert->narrow(to, c->n, x, y);
}

/* Row number `row` as the store wants it: widened, rotated, rounded. */
static void convert_row(const struct conversion *c, size_t row, float *scale, void *y) {
    bool to_floats = c->store->kernel->b.type == ATTN_F32;
    const char *x = c->x + row * c->stride;
    float *floats = to_floats ? y : row_of_floats(c);
    const float *from = (const float *)x;
    if (c->type != ATTN_F32) {
        c->rows->convert->widen(c->type, c->n, x, floats);
        from = floats;
    }
    if (c->rotary) {
        attn_rotary_rotate(c->rows->attention, c->rotary, c->rows->position + row, from, c->n, floats);
        from = floats;
    }
    if (!to_floats)
        round_row(c, from, scale, y);
}

/* Rows row .. row + count - 1 into the strip. */
static void convert_to_strip(const struct conversion *c, size_t row, size_t count, struct attn_scales scales) {
    size_t bytes = converted_bytes(c);
    for (size_t i = 0; i < count; i++)
        convert_row(c, row + i, scales.data ? scales.data + i * scales.step : NULL, c->rows->strip + i * bytes);
}

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

typedef void put_function(const struct attn_store *store, const struct attn_segment *segment, size_t count,
                          const char *x, size_t stride);

/* Converts a unit of rows, then packs it while it is in L1, and so on. `scales` are those of the segment's. */
static void put_converted(const struct conversion *c, put_function *put, struct attn_segment segment, size_t count,
                          struct attn_scales scales, size_t row) {
    const size_t unit = c->store->unit;
    for (size_t done = 0, taken; done < count; done += taken, segment.first += taken) {
        taken = attn_min(unit - segment.first % unit, count - done);
        convert_to_strip(c, row + done, taken, scales);
        put(c->store, &segment, taken, c->rows->strip, converted_bytes(c));
        if (scales.data)
            scales.data += taken * scales.step;
    }
}

void attn_store_append(const struct attn_store *store, size_t sequence, size_t head, size_t first, size_t count,
                       const struct attn_key_rows *rows) {
    const struct conversion keys = conversion_of_keys(store, rows), values = conversion_of_values(store, rows);
    for (size_t done = 0, taken; done < count; done += taken) {
        struct attn_segment segment = attn_store_locate(store, sequence, head, first + done);
        taken = attn_min(segment.count, count - done);
        if (keys_are_converted(store, rows))
            put_converted(&keys, put_keys, segment, taken, segment.key_scales, done);
        else
            put_keys(store, &segment, taken, rows->k + done * rows->k_stride, rows->k_stride);
        if (rows->v && rows->v_type != store->kernel->b.type)
            put_converted(&values, put_values, segment, taken, segment.value_scales, done);
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
        const struct conversion keys = conversion_of_keys(store, rows);
        convert_to_strip(&keys, 0, 1, segment.key_scales);
        key = rows->strip;
    }
    put_keys(store, &segment, offset, key, 0);
}

/* ---- Copying ---- */

/* The first `count` of them. */
static void copy_scales(struct attn_scales from, struct attn_scales to, size_t count) {
    if (to.step > 0)
        memcpy(to.data, from.data, count * sizeof *to.data);
}

void attn_store_copy_from_parent(const struct attn_store *store, size_t sequence, size_t head, size_t count) {
    size_t border = attn_store_border(store, sequence);
    struct attn_segment to = attn_store_locate(store, sequence, head, border);
    struct attn_segment from = attn_store_locate(store->parent, store->from[sequence].sequence, head, border);
    const struct attn_format *format = &store->kernel->b;
    attn_panels_copy(format, &from.keys, 0, from.first, &to.keys, store->head_size, count);
    attn_panels_copy(format, &from.values, from.first, 0, &to.values, count, store->value_size);
    copy_scales(from.key_scales, to.key_scales, count);
    copy_scales(from.value_scales, to.value_scales, count);
}
