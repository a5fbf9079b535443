/* attn_options and attention's sizes, judged for the attention and the layer level alike. */
#ifndef ATTN_API_OPTIONS_H
#define ATTN_API_OPTIONS_H

#include "api/judge.h"

/* Everything in the options but the pointers to data, under the names "options...." */
attn_status judge_options(const attn_options *options, const char **field);

/* kv_heads with its default resolved: it divides heads (at least 1). */
attn_status judge_kv_heads(size_t heads, size_t kv_heads, size_t *resolved, const char **field);

/* A finite scale; 0 stands for 1 / sqrt(head_size). */
attn_status judge_scale(float scale, size_t head_size, float *resolved, const char **field);

/* A range of bytes that an output may not touch. */
struct judge_range {
    const void *data;
    size_t bytes;
};

/* The optional outputs, dense [batch, heads, q_len, kv_len] and [batch, heads, q_len]: their sizes fit, and they touch
 * neither each other nor the `count` ranges. Also the valid lengths, which must be there. */
attn_status judge_option_data(const attn_options *options, size_t batch, size_t heads, size_t q_len, size_t kv_len,
                              const struct judge_range *ranges, size_t count, const char **field);

#endif
