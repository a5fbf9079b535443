/* Checks of attn_options and of attention's sizes, for both the attention and the layer level. */
#ifndef ATTN_API_OPTIONS_H
#define ATTN_API_OPTIONS_H

#include "api/check.h"
#include "verbose.h"

/* Checks everything in the options but the pointers to data. The fields' names begin with "options.". */
attn_status attn_check_options(const attn_options *options, attn_error *error);

/* *resolved = kv_heads, or its default; it must divide heads. */
attn_status attn_check_kv_heads(size_t heads, size_t kv_heads, size_t *resolved, attn_error *error);

/* *resolved = scale, or 1 / sqrt(head_size) for +0. It must be finite and not -0. */
attn_status attn_check_scale(float scale, size_t head_size, float *resolved, attn_error *error);

/* A rotary table, which may be NULL, rotates no more elements than a head has. */
attn_status attn_check_rotary_dims(const attn_rotary *rotary, size_t head_size, const char *name, attn_error *error);

/* The total of packed sequences, which must be 0 if there are none. */
attn_status attn_check_cu_total(const attn_cu_lens *cu, const char *name, attn_error *error);

/* Cumulative lengths of `batch` sequences of at most `most` rows each. Without them nothing is checked. */
attn_status attn_check_cu_lens(const attn_cu_lens *cu, size_t batch, size_t most, const char *name, attn_error *error);

/* The most rows that a sequence can have before the cumulative lengths are read: `len`, or the total if that is
 * less. */
size_t attn_cu_most(const attn_cu_lens *cu, size_t len);
/* The rows of the longest sequence by its cumulative lengths, which have been checked; `len` without them. */
size_t attn_cu_longest(const attn_cu_lens *cu, size_t batch, size_t len);

struct attn_problem;

/* Checks the options' pointers to data, after their scalars and the problem's sequences, and resolves the problem's
 * outputs. Sizes in bytes must fit. The optional outputs must overlap neither inputs, nor each other, nor any of the
 * `count` ranges. The first range is the call's output, which must not overlap the options' inputs either. */
attn_status attn_check_option_data(struct attn_problem *problem, const struct attn_named_bytes *ranges, size_t count,
                                   attn_error *error);

/* Adds the options in use to the line. */
void attn_describe_options(const attn_options *options, struct attn_line *line);

struct attn_plan;

/* Adds how the call was computed, unless there was nothing to compute. */
void attn_describe_plan(const struct attn_plan *plan, struct attn_line *line);

/* Adds the kind of the cache. */
void attn_describe_cache(const attn_cache *cache, struct attn_line *line);

#endif
