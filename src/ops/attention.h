/* Scaled dot-product attention: query tiles over blocks of keys, the score matrix never stored unless asked for. */
#ifndef ATTN_OPS_ATTENTION_H
#define ATTN_OPS_ATTENTION_H

#include "ops/cache.h"
#include "ops/parallel.h"

/* Where the packed keys and values of a problem come from. */
enum attn_source {
    ATTN_SOURCE_CACHE,   /* packed long ago */
    ATTN_SOURCE_PACKED,  /* packed into the workspace, a head at a time or all before the first tile */
    ATTN_SOURCE_STREAMED /* packed block by block under the one tile of query rows that reads them */
};

/* One task's working memory, for one tile of query rows. */
struct attn_scratch {
    float *query;                /* [rows][head_size], scaled */
    float *scores;               /* [rows][score stride] */
    float *lanes;                /* [rows][ATTN_LANES] */
    float *output, *span_output; /* [rows][output stride]: of all spans so far, of this one */
    struct attn_panels block;    /* of one block of keys, where streamed */
};

/* Attention with every default resolved and every size judged. */
struct attn_problem {
    const struct attn_kernels *table;
    size_t batch, heads, kv_heads, group; /* group = heads / kv_heads query heads share a kv head */
    size_t q_len, kv_len, head_size, value_size;
    float scale;
    attn_tensor q, k, v;
    attn_tensor_out o;
    const attn_options *options;

    enum attn_source source;
    struct attn_panel_shape shape; /* of cache, packed heads or streamed block */
    float *keys, *values;          /* panels of the cache or in the workspace */
    bool all_packed;               /* every head has its own panels: they are packed before the first tile */
    size_t tiles;                  /* of query rows, per kv head */
    size_t tasks;
    struct attn_scratch *scratch; /* [tasks] */
};

/* Resolves tiles, tasks and source, and lays the workspace out: with a NULL base this measures. table, sizes, options and
 * cache (NULL for none) come in. */
void attn_problem_layout(struct attn_problem *problem, const struct attn_cache *cache, struct attn_carve *carve);

/* The most keys that any query row of sequence `b` sees: no key or value from there on is read. */
size_t attn_problem_visible(const struct attn_problem *problem, size_t b);

/* Computes a problem whose workspace has been laid out. */
void attn_op_attention(struct attn_problem *problem);

#endif
