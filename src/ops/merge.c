#include "ops/merge.h"

#include <math.h>
#include <string.h>

#include "checked.h"
#include "ops/parallel.h"
#include "ops/tensor.h"

/* Columns of a row that are floats at a time, on the stack, where they have another type. */
#define MERGE_PIECE 512

struct merge {
    const attn_merge_args *args;
    const struct attn_attention_kernel *attention;
    const struct attn_elementary_kernel *elementary;
    const struct attn_convert_kernel *convert;
};

/* What the parts of a row have added up to. */
struct merged {
    float max, sum;
};

/* Columns j .. j + n - 1 of a row, n at most MERGE_PIECE: into `out`. A part is a span whose maximum is its log-sum-exp
 * and whose sum is 1. */
static struct merged merge_columns(const struct merge *merge, size_t b, size_t h, size_t i, size_t j, size_t n,
                                   float *out) {
    const attn_merge_args *args = merge->args;
    struct merged merged = {-INFINITY, 0.0f};
    float widened[MERGE_PIECE], one = 1.0f;
    memset(out, 0, n * sizeof *out);
    for (size_t p = 0; p < args->parts; p++) {
        const attn_tensor lse = attn_with_strides(&args->log_sum_exp[p], args->heads, args->q_len, 1);
        const attn_tensor *o = &args->o[p];
        const float *log_sum_exp = attn_row_at(&lse, b, h, i);
        if (*log_sum_exp == -INFINITY)
            continue;
        const void *part = attn_element_at(attn_typed_row_at(o, b, h, i), o->type, j);
        if (o->type != ATTN_F32) {
            merge->convert->widen(o->type, n, part, widened);
            part = widened;
        }
        merge->attention->merge(1, n, &merged.max, &merged.sum, out, log_sum_exp, &one, part, 0);
    }
    float inverse = merged.sum == 0.0f ? 0.0f : 1.0f / merged.sum;
    merge->attention->normalize(1, n, out, 0, &inverse, out, 0);
    return merged;
}

/* Maximum and sum are the same for each piece of the row. */
static void merge_row(const struct merge *merge, size_t b, size_t h, size_t i) {
    const attn_merge_args *args = merge->args;
    attn_type type = args->merged.type;
    char *row = attn_typed_row_out_at(&args->merged, b, h, i);
    struct merged merged = {-INFINITY, 0.0f};
    float piece[MERGE_PIECE], log;
    for (size_t j = 0, n; j < args->value_size; j += n, row += n * attn_type_size(type)) {
        n = attn_min(args->value_size - j, MERGE_PIECE);
        merged = merge_columns(merge, b, h, i, j, n, type == ATTN_F32 ? (float *)(void *)row : piece);
        if (type != ATTN_F32)
            merge->convert->narrow(type, n, piece, row);
    }
    if (args->merged_log_sum_exp.data) {
        const attn_tensor_out lse = attn_out_with_strides(&args->merged_log_sum_exp, args->heads, args->q_len, 1);
        merge->elementary->log(&merged.sum, &log, 1);
        *attn_row_out_at(&lse, b, h, i) = merged.sum == 0.0f ? -INFINITY : merged.max + log;
    }
}

static void merge_head(const void *arg, size_t item, size_t task) {
    (void)task;
    const struct merge *merge = arg;
    for (size_t i = 0; i < merge->args->q_len; i++)
        merge_row(merge, item / merge->args->heads, item % merge->args->heads, i);
}

void attn_op_merge(const struct attn_kernels *table, const attn_merge_args *args) {
    struct merge merge = {args, attn_table_attention(table), attn_table_elementary(table), attn_table_convert(table)};
    size_t heads = args->batch * args->heads;
    double floats = (double)heads * (double)args->q_len * (double)args->value_size * (double)args->parts;
    const struct attn_tuning *tuning = attn_tuning_for(table->isa);
    attn_for_each(args->parallel, attn_threads_for(tuning, args->parallel, floats * tuning->float_ns), heads,
                  merge_head, &merge);
}
