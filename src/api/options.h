/* attn_options and attention's sizes, checked for the attention and the layer level alike. */
#ifndef ATTN_API_OPTIONS_H
#define ATTN_API_OPTIONS_H

#include "api/check.h"
#include "verbose.h"

/* Everything in the options but the pointers to data, under the names "options...." */
attn_status attn_check_options(const attn_options *options, const char **field);

/* kv_heads with its default resolved: it divides heads (at least 1). */
attn_status attn_check_kv_heads(size_t heads, size_t kv_heads, size_t *resolved, const char **field);

/* A finite scale other than -0; 0 stands for 1 / sqrt(head_size). */
attn_status attn_check_scale(float scale, size_t head_size, float *resolved, const char **field);

/* A rotary table, which may be NULL, rotates no more elements than a head has. */
attn_status attn_check_rotary_dims(const attn_rotary *rotary, size_t head_size, const char *name, const char **field);

/* How many rows packed sequences lie in: none without them. */
attn_status attn_check_cu_total(const attn_cu_lens *cu, const char *name, const char **field);

/* Cumulative lengths of `batch` sequences of at most `most` rows each. Without them nothing is checked. */
attn_status attn_check_cu_lens(const attn_cu_lens *cu, size_t batch, size_t most, const char *name, const char **field);

/* Rows of the longest of sequences of at most `len` rows: as far as the total of packed ones says, */
size_t attn_cu_most(const attn_cu_lens *cu, size_t len);
/* and as their cumulative lengths say, which have been checked. */
size_t attn_cu_longest(const attn_cu_lens *cu, size_t batch, size_t len);

struct attn_problem;

/* The options' pointers to data; their scalars and the problem's sequences are checked already. Inputs fit. Optional outputs,
 * dense [batch, heads, q_len, kv_len] and [batch, heads, q_len], fit and touch neither inputs, nor each other, nor the
 * `count` ranges; the first of these is the output of all, which may not touch the options' inputs either. */
attn_status attn_check_option_data(const struct attn_problem *problem, const struct attn_named_bytes *ranges,
                                   size_t count, const char **field);

/* Those in use. */
void attn_describe_options(const attn_options *options, struct attn_line *line);

struct attn_plan;

/* How a call was computed; nothing of one that has nothing to compute. */
void attn_describe_plan(const struct attn_plan *plan, struct attn_line *line);

/* A cache: of what kind it is. */
void attn_describe_cache(const attn_cache *cache, struct attn_line *line);

#endif
