/* The whole layer: projections, attention, output projection. */
#ifndef ATTN_OPS_LAYER_H
#define ATTN_OPS_LAYER_H

#include "ops/attention.h"
#include "ops/gemm.h"

/* The object behind attn_layer. */
struct attn_layer {
    const struct attn_kernels *table;
    size_t heads, kv_heads, head_size;
    float scale;
    struct attn_packed w_q, w_k, w_v, w_o;
};

/* A forward: its arguments and the parts of its workspace. */
struct attn_layer_run {
    const struct attn_layer *layer;
    const attn_layer_args *args;
    float *q, *k, *v; /* projected: [batch * len][width]; k and v NULL with a cache */
    float *o;         /* heads merged: [batch * q_len][hidden] */
    struct attn_problem problem;
};

/* Lays the workspace out; with a NULL base this measures. kv_len is resolved. */
void attn_layer_run_layout(struct attn_layer_run *run, const struct attn_layer *layer, const attn_layer_args *args,
                           size_t kv_len, struct attn_carve *carve);

void attn_op_layer_forward(struct attn_layer_run *run);

/* Projects args' keys and values into k and v, [batch * len][width], and appends them. */
void attn_op_layer_append(const struct attn_layer *layer, const attn_layer_append_args *args, float *k, float *v);

#endif
