/* Which keys a query row sees: what is known as an interval bounds the loops, so that hidden keys are not touched. */
#ifndef ATTN_OPS_VISIBLE_H
#define ATTN_OPS_VISIBLE_H

#include "ops/problem.h"

/* One sequence of a problem. */
struct attn_sequence {
    size_t q_row, q_len; /* its rows, the first in tensors of packed sequences */
    size_t kv_row, kv_len;
    size_t oldest;    /* the oldest key that there still is: a ring wrote over those before */
    int64_t position; /* of its first query row among its keys */
};

/* Keys begin .. end - 1; empty ones are 0 .. -1. */
struct attn_interval {
    size_t begin, end;
};

/* How many of its first keys query row `i` of sequence `b` sees by its valid length; `rows` have one each. */
size_t attn_valid_len(const attn_valid_lens *valid, size_t b, size_t i, size_t rows, size_t keys);

struct attn_sequence attn_sequence_of(const struct attn_problem *problem, size_t b);

/* The keys that row `i` may see, as far as they are an interval. */
struct attn_interval attn_row_interval(const struct attn_problem *problem, const struct attn_sequence *sequence,
                                       size_t b, size_t i);

/* Encloses what the rows of sequence `b` see or, where asked for, average over: no key or value elsewhere is read. */
struct attn_interval attn_sequence_interval(const struct attn_problem *problem, const struct attn_sequence *sequence,
                                            size_t b);

/* Whether the rotary table has the positions of all query rows that see keys and, where keys come as tensors, of those keys. */
bool attn_positions_exist(const struct attn_problem *problem);

/* Whether the ring that is attended to still has the keys that query rows see: of a row with a window to the left all, of any
 * other one at least. A row that has lost them would be like one that sees none, and nobody would know. */
bool attn_ring_holds(const struct attn_problem *problem);

/* The masks of one query row, from key 0 on; NULL for none. */
struct attn_row_masks {
    const uint8_t *mask;
    const float *bias;
};

struct attn_row_masks attn_row_masks_of(const struct attn_problem *problem, size_t b, size_t head, size_t i);

enum attn_seen { ATTN_SEES_NONE, ATTN_SEES_SOME, ATTN_SEES_ALL };

/* How much of n keys a boolean mask leaves. */
enum attn_seen attn_mask_sees(const uint8_t *mask, size_t n);

/* Whether an additive mask is -inf for all n keys. */
bool attn_bias_hides_all(const float *bias, size_t n);

/* Whether the masks of a row leave key `key`. */
static inline bool attn_masks_leave(const struct attn_row_masks *masks, size_t key) {
    return (!masks->mask || masks->mask[key]) && (!masks->bias || masks->bias[key] != -__builtin_inff());
}

#endif
