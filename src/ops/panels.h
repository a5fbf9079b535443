/* Packing keys and values into a store. */
#ifndef ATTN_OPS_PANELS_H
#define ATTN_OPS_PANELS_H

#include "ops/kv.h"
#include "ops/rotary.h"

/* The rows of keys and values of one head. */
struct attn_key_rows {
    const float *k, *v; /* v NULL: keys only are packed */
    size_t k_stride, v_stride;
    const struct attn_rotary *rotary; /* NULL, or by what keys are rotated, the first to `position` */
    size_t position;
    const struct attn_attention_kernel *kernel; /* with rotary: the kernel that rotates them */
    float *rotated;                             /* with rotary: [ATTN_MAX_COLS][head_size] for rotated keys */
};

/* Packs `count` rows as keys first .. first + count - 1. */
void attn_store_append(const struct attn_store *store, size_t sequence, size_t head, size_t first, size_t count,
                       const struct attn_key_rows *rows);

/* Puts key `first` also in the place of those before it in its unit, which hold no key. Products take whole units: what happens
 * to lie there would be slow where it is denormal, and raise an exception where it is a signalling NaN. */
void attn_store_fill_unit(const struct attn_store *store, size_t sequence, size_t head, size_t first);

/* Copies `count` keys, less than a unit of them, behind a sequence's border from a fork's parent, as they are packed there. */
void attn_store_copy_from_parent(const struct attn_store *store, size_t sequence, size_t head, size_t count);

#endif
