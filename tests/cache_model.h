/* What a cache should hold, as plain tensors, and the check that attention over the cache is attention over these, bit by
 * bit: every sequence alone, with its own length. Link with cache_model.c and random_options.c. */
#ifndef ATTN_TESTS_CACHE_MODEL_H
#define ATTN_TESTS_CACHE_MODEL_H

#include "problem.h"

enum { MODEL_BATCH = 4, MODEL_ROWS = 40 /* the most query rows that a comparison takes */ };

struct model {
    size_t batch, heads, kv_heads, head_size, value_size;
    size_t most;               /* keys that a sequence has room for here */
    struct tensor k, v;        /* rows below lens[b] are the keys of sequence b */
    size_t lens[MODEL_BATCH];  /* as attn_cache_length says */
    size_t gone[MODEL_BATCH];  /* keys below are hidden: a ring has overwritten them */
    const attn_rotary *rotary; /* NULL, or keys are rotated when they are appended */
    int64_t offsets[MODEL_BATCH];
    void *rotary_memory;
};

/* Sizes at random. Rotary embedding now and then, with offsets that keep every position positive. */
struct model model_new(struct test_random *random, size_t batch, size_t most);
/* With room for `most` keys again, sequence b as sources[b] of the other up to `len`; NULL: as sequence b. */
struct model model_continue(const struct model *parent, size_t batch, const size_t *sources, size_t len, size_t most);
void model_free(struct model *model);

/* A config of these sizes. */
attn_cache_config model_config(const struct model *model, size_t capacity);

/* Appends lens[b] new rows to each sequence, in the cache and here: all alike, as `lens` or packed. The rows are drawn from
 * `values`. */
void model_append(struct test_random *random, struct model *model, attn_cache *cache, enum test_values values,
                  const size_t *lens);
/* The same with 0 to `most` rows for each sequence, as far as there is room. */
void model_append_some(struct test_random *random, struct model *model, attn_cache *cache, size_t most);
/* Forgets from `len` on, of one sequence or ATTN_ALL_SEQUENCES. */
void model_truncate(struct model *model, attn_cache *cache, size_t sequence, size_t len);
/* Hides what a ring of that capacity has overwritten. */
void model_forget(struct model *model, size_t capacity);

size_t model_longest(const struct model *model);

/* Random queries, packed or not, under random options. */
void model_compare(struct test_random *random, const struct model *model, const attn_cache *cache);

#endif
