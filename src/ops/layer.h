/* The whole layer: projections, attention, output projection. */
#ifndef ATTN_OPS_LAYER_H
#define ATTN_OPS_LAYER_H

#include "ops/attention.h"
#include "ops/gemm.h"

/* The object behind attn_layer. */
struct attn_layer {
    const struct attn_kernels *table;
    size_t heads, kv_heads, head_size, value_size;
    float scale;
    attn_type kv_type;
    attn_arithmetic arithmetic;
    struct attn_packed w_q, w_k, w_v, w_o;
};

/* Memory in which each task converts rows, see attn_gemm_call. */
struct attn_layer_spare {
    char *data;
    size_t bytes;
};

/* A forward: its arguments and the parts of its workspace. */
struct attn_layer_run {
    const struct attn_layer *layer;
    const attn_layer_args *args;
    void *q, *k, *v; /* projected: [rows][width], attn_row_stride apart; k and v NULL with a cache */
    void *o;         /* merged heads: [o_rows][heads * value_size], likewise */
    size_t o_rows;
    void *attention; /* the workspace of attention */
    struct attn_layer_spare spare;
    struct attn_problem problem;
};

/* Makes a run that has all but its workspace. The caller has resolved kv_len. False where a size does not fit. */
bool attn_layer_run_init(struct attn_layer_run *run, const struct attn_layer *layer, const attn_layer_args *args,
                         size_t kv_len, struct attn_longest longest);

/* Takes the parts of its workspace. */
void attn_layer_run_layout(struct attn_layer_run *run, struct attn_arena *arena);

void attn_op_layer_forward(struct attn_layer_run *run);

/* The workspace of an append. */
struct attn_layer_append_run {
    void *k, *v; /* projected */
    struct attn_layer_spare spare;
};

/* Takes its parts. */
void attn_layer_append_layout(const struct attn_layer *layer, const attn_layer_append_args *args,
                              struct attn_layer_append_run *run, struct attn_arena *arena);

/* What the cache is asked to append, once k and v are projected. */
attn_cache_append_args attn_layer_append_to_cache(const struct attn_layer *layer, const attn_layer_append_args *args,
                                                  const void *k, const void *v);

/* Projects args' keys and values and appends them. */
void attn_op_layer_append(const struct attn_layer *layer, const attn_layer_append_args *args,
                          const struct attn_layer_append_run *run);

#endif
