/* Attention with every default resolved and every size checked: what the operators below it share. */
#ifndef ATTN_OPS_PROBLEM_H
#define ATTN_OPS_PROBLEM_H

#include "ops/cache.h"
#include "ops/parallel.h"
#include "ops/plan.h"

/* Of the longest sequence, as far as it is known. */
struct attn_longest {
    size_t rows, keys;
};

struct attn_problem {
    const struct attn_kernels *table;
    size_t batch, heads, kv_heads, group; /* group = heads / kv_heads query heads share a kv head */
    size_t q_len, kv_len;                 /* rows and keys for which dense arrays have room in each sequence */
    struct attn_longest longest;
    size_t head_size, value_size;
    float scale;
    attn_tensor q, k, v;
    attn_type stored; /* what keys and values are rounded to: F32 or BF16 */
    attn_arithmetic arithmetic;
    attn_tensor_out o;
    /* The options' outputs with their strides resolved, once the data has been checked. */
    attn_tensor_out weights, scores, log_sum_exp;
    attn_ints q_cu, kv_cu; /* where packed sequences begin, if they are */
    const struct attn_cache *cache;
    const attn_options *options;
    const attn_parallel *parallel;

    struct attn_plan plan; /* made by attn_plan_make, then const */
};

#endif
