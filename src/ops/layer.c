#include "ops/layer.h"

static float *take_rows(struct attn_carve *carve, size_t batch, size_t len, size_t width) {
    size_t rows, bytes;
    if (!attn_mul(batch, len, &rows) || !attn_mul(width, sizeof(float), &bytes)) {
        carve->overflow = true;
        return NULL;
    }
    return attn_carve_take(carve, rows, bytes);
}

/* Heads of rows as `width` floats each, `head_size` apart. */
static attn_tensor split_heads(const float *rows, size_t len, size_t width, size_t head_size) {
    return (attn_tensor){.data = rows, .batch_stride = len * width, .head_stride = head_size, .row_stride = width};
}

void attn_layer_run_layout(struct attn_layer_run *run, const struct attn_layer *layer, const attn_layer_args *args,
                           size_t kv_len, struct attn_carve *carve) {
    size_t hidden = layer->w_q.n, kv_width = layer->w_k.n;
    *run = (struct attn_layer_run){.layer = layer, .args = args};
    run->q = take_rows(carve, args->batch, args->q_len, hidden);
    run->o = take_rows(carve, args->batch, args->q_len, hidden);
    if (!args->cache) {
        run->k = take_rows(carve, args->batch, kv_len, kv_width);
        run->v = take_rows(carve, args->batch, kv_len, kv_width);
    }
    attn_tensor o = split_heads(run->o, args->q_len, hidden, layer->head_size);
    run->problem = (struct attn_problem){
        .table = layer->table,
        .batch = args->batch,
        .heads = layer->heads,
        .kv_heads = layer->kv_heads,
        .group = layer->heads / layer->kv_heads,
        .q_len = args->q_len,
        .kv_len = kv_len,
        .head_size = layer->head_size,
        .value_size = layer->head_size,
        .scale = layer->scale,
        .q = split_heads(run->q, args->q_len, hidden, layer->head_size),
        .k = split_heads(run->k, kv_len, kv_width, layer->head_size),
        .v = split_heads(run->v, kv_len, kv_width, layer->head_size),
        .o = {run->o, o.batch_stride, o.head_stride, o.row_stride},
        .options = &args->options,
    };
    attn_problem_layout(&run->problem, args->cache, carve);
}

/* y[b * len + i] = x row i of sequence b, times w, for the first `used` rows of each of the sequences b .. b + batch - 1. */
static void project(const struct attn_packed *w, const attn_rows *x, size_t b, size_t batch, size_t len, size_t used,
                    float *y, const attn_parallel *parallel) {
    if (used == 0) /* without rows there need be no pointer to them */
        return;
    const float *data = x->data + b * x->batch_stride;
    y += b * len * w->n;
    if (used == len && (batch == 1 || x->batch_stride == len * x->row_stride)) {
        attn_op_gemm(w, batch * len, data, x->row_stride, y, w->n, parallel);
        return;
    }
    for (size_t i = 0; i < batch; i++)
        attn_op_gemm(w, used, data + i * x->batch_stride, x->row_stride, y + i * len * w->n, w->n, parallel);
}

/* Keys and values that no row sees are neither projected nor read. Sequences of equal length go together. */
static void project_visible(const struct attn_layer_run *run) {
    const attn_layer_args *args = run->args;
    const struct attn_problem *problem = &run->problem;
    for (size_t b = 0; b < args->batch;) {
        size_t visible = attn_problem_visible(problem, b), end = b + 1;
        while (end < args->batch && attn_problem_visible(problem, end) == visible)
            end++;
        project(&run->layer->w_k, &args->k, b, end - b, problem->kv_len, visible, run->k, args->options.parallel);
        project(&run->layer->w_v, &args->v, b, end - b, problem->kv_len, visible, run->v, args->options.parallel);
        b = end;
    }
}

void attn_op_layer_forward(struct attn_layer_run *run) {
    const struct attn_layer *layer = run->layer;
    const attn_layer_args *args = run->args;
    const attn_parallel *parallel = args->options.parallel;
    project(&layer->w_q, &args->q, 0, args->batch, args->q_len, args->q_len, run->q, parallel);
    if (!args->cache)
        project_visible(run);
    attn_op_attention(&run->problem);

    const attn_rows_out *y = &args->y;
    size_t rows = args->q_len, sequences = args->batch;
    if (sequences > 1 && y->batch_stride == rows * y->row_stride) {
        rows *= sequences;
        sequences = 1;
    }
    for (size_t b = 0; b < sequences; b++)
        attn_op_gemm(&layer->w_o, rows, run->o + b * rows * layer->w_o.k, layer->w_o.k, y->data + b * y->batch_stride,
                     y->row_stride, parallel);
}

void attn_op_layer_append(const struct attn_layer *layer, const attn_layer_append_args *args, float *k, float *v) {
    size_t batch = args->cache->config.batch, width = layer->w_k.n;
    project(&layer->w_k, &args->k, 0, batch, args->len, args->len, k, args->parallel);
    project(&layer->w_v, &args->v, 0, batch, args->len, args->len, v, args->parallel);
    attn_tensor keys = split_heads(k, args->len, width, layer->head_size);
    attn_tensor values = split_heads(v, args->len, width, layer->head_size);
    attn_op_cache_append(args->cache, args->len, &keys, &values, args->parallel);
}
