#include "ops/merge.h"

#include <math.h>
#include <string.h>

#include "checked.h"
#include "ops/parallel.h"

/* Below this many floats waking another thread costs more than it saves. */
#define MERGE_PARALLEL_WORK (1u << 16)

struct merge_work {
    const attn_merge_args *args;
    const struct attn_attention_kernel *attention;
    const struct attn_elementary_kernel *elementary;
    struct attn_queue queue;
};

/* A part is a span whose maximum is its log-sum-exp and whose sum is 1. */
static void merge_row(const struct merge_work *work, size_t b, size_t h, size_t i) {
    const attn_merge_args *args = work->args;
    const attn_tensor_out *to = &args->merged;
    float *out = to->data + b * to->batch_stride + h * to->head_stride + i * to->row_stride;
    size_t row = (b * args->heads + h) * args->q_len + i;
    float max = -INFINITY, sum = 0.0f, one = 1.0f, log;
    memset(out, 0, args->value_size * sizeof *out);
    for (size_t p = 0; p < args->parts; p++) {
        const attn_tensor *o = &args->o[p];
        const float *part = o->data + b * o->batch_stride + h * o->head_stride + i * o->row_stride;
        const float *log_sum_exp = &args->log_sum_exp[p][row];
        if (*log_sum_exp != -INFINITY)
            work->attention->merge(1, args->value_size, &max, &sum, out, log_sum_exp, &one, part, 0);
    }
    float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    work->attention->finish(1, args->value_size, out, 0, &inverse, out, 0);
    if (args->merged_log_sum_exp) {
        work->elementary->log(&sum, &log, 1);
        args->merged_log_sum_exp[row] = sum == 0.0f ? -INFINITY : max + log;
    }
}

static void run_merge_task(void *arg, size_t index) {
    struct merge_work *work = arg;
    const attn_merge_args *args = work->args;
    for (struct attn_share share = attn_queue_share(&work->queue, index); attn_queue_take(&share);)
        for (size_t i = 0; i < args->q_len; i++)
            merge_row(work, share.item / args->heads, share.item % args->heads, i);
}

void attn_op_merge(const struct attn_kernels *table, const attn_merge_args *args) {
    struct merge_work work = {
        .args = args, .attention = attn_table_attention(table), .elementary = attn_table_elementary(table)};
    size_t heads = args->batch * args->heads, threads = attn_threads(args->parallel);
    if ((double)heads * (double)args->q_len * (double)args->value_size * (double)args->parts < MERGE_PARALLEL_WORK)
        threads = 1;
    threads = attn_min(threads, heads);
    attn_run_queue(args->parallel, threads, heads, run_merge_task, &work, &work.queue);
}
