/* Which keys a query row sees. All but masks makes an interval, which bounds the loops: keys outside are not
 * touched. */
#ifndef ATTN_OPS_VISIBLE_H
#define ATTN_OPS_VISIBLE_H

#include "ops/problem.h"

/* One sequence of a problem. */
struct attn_sequence {
    size_t q_row, q_len; /* its rows; q_row is the first one's index where sequences are packed, else 0 */
    size_t kv_row, kv_len;
    size_t oldest;    /* the oldest key that there still is: a ring wrote over those before */
    int64_t position; /* of its first query row among the keys */
};

/* Keys begin .. end - 1. The functions here return {0, 0} for an empty interval. */
struct attn_interval {
    size_t begin, end;
};

/* The valid length of query row `i` of sequence `b`, at most `keys`. `rows` is how many rows a sequence has. */
size_t attn_valid_len(const attn_valid_lens *valid, size_t b, size_t i, size_t rows, size_t keys);

struct attn_sequence attn_sequence_of(const struct attn_problem *problem, size_t b);

/* The keys that row `i` may see, masks aside. */
struct attn_interval attn_row_interval(const struct attn_problem *problem, const struct attn_sequence *sequence,
                                       size_t b, size_t i);

/* Encloses what the rows of sequence `b` see or, where asked for, average over or have logits of: no key or value
 * elsewhere is read. */
struct attn_interval attn_sequence_interval(const struct attn_problem *problem, const struct attn_sequence *sequence,
                                            size_t b);

/* Whether the rotary table has the positions of all query rows that see keys, or have logits of them, and, where keys
 * come as tensors, of those keys. */
bool attn_positions_exist(const struct attn_problem *problem);

/* Whether the ring still has the keys that query rows see: all of them for rows with a window to the left, at least one
 * for other rows. A row that has lost its keys would silently give the result of a row that sees none. */
bool attn_ring_holds(const struct attn_problem *problem);

/* The masks of one query row, at key 0; NULL for none. Keys lie the options' col_stride apart. */
struct attn_row_masks {
    const uint8_t *mask;
    const void *bias; /* of the options' type */
};

struct attn_row_masks attn_row_masks_of(const struct attn_problem *problem, size_t b, size_t head, size_t i);

enum attn_seen { ATTN_SEES_NONE, ATTN_SEES_SOME, ATTN_SEES_ALL };

/* How many of n keys a boolean mask leaves visible. */
enum attn_seen attn_mask_sees(const uint8_t *mask, size_t n);

/* Whether an additive mask is -inf for all n keys. */
bool attn_bias_hides_all(const float *bias, size_t n);

/* Whether the additive mask of a row, which begins at `row`, is -inf for key `key`. */
static inline bool attn_bias_hides(const attn_tensor *bias, const void *row, size_t key) {
    const uint16_t f16 = 0xfc00, bf16 = 0xff80; /* -inf */
    size_t at = key * bias->col_stride;
    if (bias->type == ATTN_F32)
        return ((const float *)row)[at] == -__builtin_inff();
    return ((const uint16_t *)row)[at] == (bias->type == ATTN_F16 ? f16 : bf16);
}

/* Whether the masks of a row leave key `key` visible; a key that they do not reach is for intervals to hide. */
static inline bool attn_masks_leave(const attn_options *options, const struct attn_row_masks *masks, size_t key) {
    if (masks->mask && (masks->mask[key * options->mask.col_stride] == 0) == (options->mask_hides == 0))
        return false;
    return !masks->bias || !attn_bias_hides(&options->bias, masks->bias, key);
}

/* Whether a row's part of a mask must be copied for kernels, which take bytes that are true where a key is visible, and
 * floats, side by side. */
static inline bool attn_mask_is_copied(const attn_options *options) {
    return options->mask.data && (options->mask.col_stride != 1 || options->mask_hides);
}

static inline bool attn_bias_is_copied(const attn_options *options) {
    return options->bias.data && (options->bias.col_stride != 1 || options->bias.type != ATTN_F32);
}

#endif
