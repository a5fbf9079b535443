/* A model of a cache: plain tensors with the keys that it should hold. Attention over the cache is compared with
 * attention over these, bit by bit, every sequence alone with its own length. Link with cache_model.c, random_options.c
 * and typed.c.
 *
 * Caches of F32 and BF16 are compared with tensors of that type. Those of other types are compared with a cache of
 * F32 that holds the same numbers: what keys, rotated, and values were rounded to. Scales are powers of two, of
 * values at least 1, so that it does not matter whether a product or one of its factors is multiplied by them;
 * others are in test_cache_types. */
#ifndef ATTN_TESTS_CACHE_MODEL_H
#define ATTN_TESTS_CACHE_MODEL_H

#include "problem.h"

enum { MODEL_BATCH = 4, MODEL_KV_HEADS = 3, MODEL_ROWS = 40 /* the most query rows that a comparison takes */ };

struct model {
    size_t batch, heads, kv_heads, head_size, value_size;
    size_t most;   /* keys that a sequence has room for here */
    size_t shared; /* keys that it began with, as a fork */
    /* For how many keys the sequence is sure to have room in the cache: fewer than `most` after it gave up shared
     * keys. */
    size_t room[MODEL_BATCH];
    attn_type type; /* of the cache; k and v hold its numbers, as floats */
    bool scaled;    /* of F8: heads have scales */
    float k_scales[MODEL_KV_HEADS], v_scales[MODEL_KV_HEADS];
    struct tensor k, v;        /* rows below lens[b] are the keys of sequence b */
    size_t lens[MODEL_BATCH];  /* as attn_cache_length says */
    size_t gone[MODEL_BATCH];  /* keys below are hidden: a ring has overwritten them */
    const attn_rotary *rotary; /* NULL, or keys are rotated when they are appended */
    int64_t offsets[MODEL_BATCH];
    void *rotary_memory;
};

/* Sizes at random. Rotary embedding now and then, with offsets that keep every position positive; not of INT8, for
 * rotated keys do not have such scales. */
struct model model_new(struct test_random *random, attn_type type, size_t batch, size_t most);
/* A model with room for `most` keys, whose sequence b begins with the first `len` keys of the parent's sequence
 * sources[b]; NULL stands for b. */
struct model model_continue(const struct model *parent, size_t batch, const size_t *sources, size_t len, size_t most);
void model_free(struct model *model);

/* A config of these sizes, with scales that lie in the model. */
attn_cache_config model_config(const struct model *model, size_t capacity);

/* Appends lens[b] new rows to each sequence of the cache and of the model: as one length, as `lens`, or packed. The
 * rows are drawn from `values`. */
void model_append(struct test_random *random, struct model *model, attn_cache *cache, enum test_values values,
                  const size_t *lens);
/* The same with 0 to `most` rows for each sequence, but not more than there is sure to be room for. */
void model_append_some(struct test_random *random, struct model *model, attn_cache *cache, size_t most);
/* Forgets the keys from `len` on, of one sequence or of ATTN_ALL_SEQUENCES. */
void model_truncate(struct model *model, attn_cache *cache, size_t sequence, size_t len);
/* Hides what a ring of that capacity has overwritten. */
void model_forget(struct model *model, size_t capacity);

size_t model_longest(const struct model *model);

/* Compares attention of random queries, packed or not, under random options. */
void model_compare(struct test_random *random, const struct model *model, const attn_cache *cache);

/* ---- Families ----
 *
 * A plain cache, its forks and their forks, at addresses above and below each other. While something is done with one
 * of them the memory of all others is read-only; while they are compared with their models all memory is. */

enum { FAMILY = 5 };

struct member {
    struct model model;
    attn_cache *cache;
    char *slot;               /* its memory is somewhere in these pages */
    size_t keep[MODEL_BATCH]; /* keys that forks of it have been promised */
};

struct family {
    struct member member[FAMILY];
    size_t count;
    char *arena;
    size_t slot_bytes; /* of whole pages, with a page behind them that faults */
    char *slots[FAMILY];
};

/* The cache at the root, of 1 to 3 sequences with room for `most` keys. */
struct family family_new(struct test_random *random, size_t most);
/* One more member: a fork of any sequences of member `parent`, from any length that these have in common. Returns its
 * index. */
size_t family_fork(struct test_random *random, struct family *family, size_t parent);
/* As for a single cache; then the whole family is compared. */
void family_append(struct test_random *random, struct family *family, size_t member, enum test_values values,
                   const size_t *lens);
void family_append_some(struct test_random *random, struct family *family, size_t member, size_t most);
/* To any length that the member's forks allow, mostly near the border of a panel. */
void family_truncate_some(struct test_random *random, struct family *family, size_t member);
void family_truncate(struct test_random *random, struct family *family, size_t member, size_t sequence, size_t len);
void family_compare(struct test_random *random, const struct family *family);
void family_free(struct family *family);

#endif
