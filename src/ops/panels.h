/* Packing keys and values into a store. */
#ifndef ATTN_OPS_PANELS_H
#define ATTN_OPS_PANELS_H

#include "ops/kv.h"
#include "ops/rotary.h"

/* Rows on their way into panels: of a unit of keys, and one more. */
enum { ATTN_STRIP_ROWS = ATTN_MAX_COLS + 1 };

/* *bytes = those of a strip for keys, or values, of n elements of a store of that type: rows of floats, or quantised
 * ones. False where that does not fit. */
bool attn_strip_bytes(attn_type type, size_t n, size_t *bytes);

/* The rows of keys and values of one head. */
struct attn_key_rows {
    const char *k, *v;         /* v NULL: keys only are packed */
    size_t k_stride, v_stride; /* bytes */
    attn_type k_type, v_type;
    const struct attn_rotary *rotary; /* NULL, or by what keys are rotated, the first to `position` */
    size_t position;
    const struct attn_attention_kernel *attention;           /* what rotates them */
    const struct attn_convert_kernel *convert;               /* what rounds them to the store's type */
    void (*quantise)(const struct attn_quantise_args *args); /* likewise, of INT8: pack_a of that class */
    char *strip; /* with rotary, or where a type is not the store's: attn_strip_bytes of keys, or values */
};

/* Packs `count` rows as keys first .. first + count - 1. What becomes of a row x, after it is widened and rotated:
 *   INT8: integers and a scale, as rows of class INT8 (quantised.h)
 *   where the head has a scale: x / scale, rounded to a float, then to the store's type
 *   else x, rounded to the store's type */
void attn_store_append(const struct attn_store *store, size_t sequence, size_t head, size_t first, size_t count,
                       const struct attn_key_rows *rows);

/* Before keys are packed from key `first` on: packs the first of the rows as the keys before it in its unit, of which
 * there are none. Products read whole units: a denormal that happened to lie there would make them slow, a signalling
 * NaN would raise an exception. */
void attn_store_fill_unit(const struct attn_store *store, size_t sequence, size_t head, size_t first,
                          const struct attn_key_rows *rows);

/* Copies `count` packed keys, less than a unit, from a fork's parent to the beginning of the fork's own memory of a
 * sequence. */
void attn_store_copy_from_parent(const struct attn_store *store, size_t sequence, size_t head, size_t count);

#endif
