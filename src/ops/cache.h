/* Keys and values packed as the right-hand sides of the two products of attention. */
#ifndef ATTN_OPS_CACHE_H
#define ATTN_OPS_CACHE_H

#include "checked.h"
#include "kernels.h"

/* The keys and values of one kv head of one sequence, in the panels of one GEMM kernel: keys are columns of head_size, so
 * that key j is in panel j / cols; values are rows, each panel holding `cols` of their columns for every key. */
struct attn_panels {
    float *keys, *values;
    size_t key_panel_stride;   /* head_size * cols */
    size_t value_panel_stride; /* capacity * cols */
};

/* Sizes of such panels. */
struct attn_panel_shape {
    const struct attn_gemm_kernel *kernel;
    size_t head_size, value_size, capacity; /* capacity a multiple of kernel->cols */
    size_t key_floats, value_floats;        /* of one kv head */
};

/* False where a product of sizes does not fit. `keys` is rounded up to whole panels. */
bool attn_panel_shape_init(struct attn_panel_shape *shape, const struct attn_gemm_kernel *kernel, size_t head_size,
                           size_t value_size, size_t keys);

/* Head number `index` in storage that holds the heads one after the other. */
struct attn_panels attn_panels_at(const struct attn_panel_shape *shape, float *keys, float *values, size_t index);

/* Packs `count` keys and values, rows k_stride and v_stride apart, as keys first .. first + count - 1. */
void attn_panels_append(const struct attn_panel_shape *shape, const struct attn_panels *panels, size_t first,
                        size_t count, const float *k, size_t k_stride, const float *v, size_t v_stride);

/* The object behind attn_cache. */
struct attn_cache {
    const struct attn_kernels *table;
    attn_cache_config config; /* value_size resolved */
    size_t length;
    struct attn_panel_shape shape;
    float *keys, *values;
};

void attn_op_cache_append(struct attn_cache *cache, size_t len, const attn_tensor *k, const attn_tensor *v,
                          const attn_parallel *parallel);

#endif
