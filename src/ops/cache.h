/* The key/value cache: whose keys lie where, and how many each sequence has. */
#ifndef ATTN_OPS_CACHE_H
#define ATTN_OPS_CACHE_H

#include "ops/panels.h"

/* The object behind attn_cache. */
struct attn_cache {
    const struct attn_kernels *table;
    attn_cache_config config; /* value_size resolved */
    struct attn_store store;
    size_t length;   /* of the longest sequence */
    size_t *lengths; /* [batch] */
    size_t *kept;    /* [batch] keys below are gone */
    float *rotated;  /* [batch * kv_heads][ATTN_MAX_COLS][head_size] */
};

/* Keys that `args` brings for sequence `b`, and where the first one's row is. */
size_t attn_cache_new_keys(const attn_cache_append_args *args, size_t b, size_t *row);

void attn_op_cache_append(struct attn_cache *cache, const attn_cache_append_args *args);

/* How many keys can be appended to sequence `b` at once. A ring has always room, for as many as it holds; a fork's sequence that
 * was truncated below what it shared may have less room than its capacity says. */
size_t attn_cache_room(const struct attn_cache *cache, size_t b);

/* Forgets keys of sequence `b`, or gives it keys that its pages hold already. A fork's sequence then shares no key that it could
 * write: only its own memory is appended to. */
void attn_cache_set_length(struct attn_cache *cache, size_t b, size_t len);

/* Fills a fork, whose store knows its parent: every sequence has config->len keys. */
void attn_op_cache_fork(struct attn_cache *fork, const attn_cache_fork_config *config);

#endif
