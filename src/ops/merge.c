#include "ops/merge.h"

#include <math.h>
#include <string.h>

#include "checked.h"
#include "ops/parallel.h"
#include "ops/tensor.h"

/* Nanoseconds for one float of a part: it is read, and a float of the output is read and written. */
#define MERGE_NS 0.25

struct merge {
    const attn_merge_args *args;
    const struct attn_attention_kernel *attention;
    const struct attn_elementary_kernel *elementary;
};

/* A part is a span whose maximum is its log-sum-exp and whose sum is 1. */
static void merge_row(const struct merge *merge, size_t b, size_t h, size_t i) {
    const attn_merge_args *args = merge->args;
    float *out = attn_row_out_at(&args->merged, b, h, i);
    float max = -INFINITY, sum = 0.0f, one = 1.0f, log;
    memset(out, 0, args->value_size * sizeof *out);
    for (size_t p = 0; p < args->parts; p++) {
        const attn_tensor lse = attn_with_strides(&args->log_sum_exp[p], args->heads, args->q_len, 1);
        const float *part = attn_row_at(&args->o[p], b, h, i), *log_sum_exp = attn_row_at(&lse, b, h, i);
        if (*log_sum_exp != -INFINITY)
            merge->attention->merge(1, args->value_size, &max, &sum, out, log_sum_exp, &one, part, 0);
    }
    float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    merge->attention->normalize(1, args->value_size, out, 0, &inverse, out, 0);
    if (args->merged_log_sum_exp.data) {
        const attn_tensor_out lse = attn_out_with_strides(&args->merged_log_sum_exp, args->heads, args->q_len, 1);
        merge->elementary->log(&sum, &log, 1);
        *attn_row_out_at(&lse, b, h, i) = sum == 0.0f ? -INFINITY : max + log;
    }
}

static void merge_head(const void *arg, size_t item, size_t task) {
    (void)task;
    const struct merge *merge = arg;
    for (size_t i = 0; i < merge->args->q_len; i++)
        merge_row(merge, item / merge->args->heads, item % merge->args->heads, i);
}

void attn_op_merge(const struct attn_kernels *table, const attn_merge_args *args) {
    struct merge merge = {args, attn_table_attention(table), attn_table_elementary(table)};
    size_t heads = args->batch * args->heads;
    double floats = (double)heads * (double)args->q_len * (double)args->value_size * (double)args->parts;
    attn_for_each(args->parallel, attn_threads_for(args->parallel, floats * MERGE_NS), heads, merge_head, &merge);
}
