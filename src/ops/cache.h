/* The key/value cache: where its keys lie, and how many each sequence has. */
#ifndef ATTN_OPS_CACHE_H
#define ATTN_OPS_CACHE_H

#include "ops/panels.h"

/* The object behind attn_cache. */
struct attn_cache {
    const struct attn_kernels *table;
    attn_cache_config config; /* value_size resolved */
    struct attn_store store;
    void (*quantise)(const struct attn_quantise_args *args); /* see attn_key_rows */
    size_t length;                                           /* of the longest sequence */
    size_t *lengths;                                         /* [batch] */
    size_t *oldest; /* [batch] the oldest key that a ring still has: it wrote over those before; 0 in other caches */
    char *strips;   /* [batch * kv_heads][strip_bytes]: see attn_key_rows */
    size_t strip_bytes;
};

/* How many keys `args` has for sequence `b`. *row is the row of the first one. */
size_t attn_cache_new_keys(const attn_cache_append_args *args, size_t b, size_t *row);

void attn_op_cache_append(struct attn_cache *cache, const attn_cache_append_args *args);

/* How many keys can be appended to sequence `b` at once. A ring always has room for as many as it holds. A fork's
 * sequence that was truncated below what it shared may have room for fewer keys than its capacity says. */
size_t attn_cache_room(const struct attn_cache *cache, size_t b);

/* Sets the length of sequence `b`: it forgets the keys from `len` on, or has those that its pages hold already. A fork
 * copies the shared keys of the unit that it will append to next, so that it never writes into its parent. */
void attn_cache_set_length(struct attn_cache *cache, size_t b, size_t len);

/* Gives every sequence of a fork the first config->len keys of its source. The fork's store has its parent already. */
void attn_op_cache_fork(struct attn_cache *fork, const attn_cache_fork_config *config);

#endif
