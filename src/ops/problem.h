/* Attention with every default resolved and every size checked: what the operators below it share. */
#ifndef ATTN_OPS_PROBLEM_H
#define ATTN_OPS_PROBLEM_H

#include "ops/cache.h"
#include "ops/parallel.h"

/* Where a tile finds its keys and values. */
enum attn_source {
    ATTN_SOURCE_CACHE,    /* packed long ago */
    ATTN_SOURCE_PACKED,   /* packed into the workspace, a head at a time or all before the first tile */
    ATTN_SOURCE_STREAMED, /* packed block by block, keys rotated, under the one tile of query rows that reads them */
    ATTN_SOURCE_IN_PLACE  /* as the caller has them, for few tiles of query rows */
};

/* One task's working memory, for one tile of query rows. */
struct attn_scratch {
    float *query;                /* [rows][head_size], scaled */
    float *scores;               /* [rows][score stride] */
    float *lanes;                /* [rows][ATTN_LANES] */
    float *output, *span_output; /* [rows][output stride]: of all spans so far, of this one */
    float *rotated;              /* with rotary: see attn_key_rows */
    struct attn_store block;     /* of one block of keys, where streamed */
};

/* A tile's state after one span of keys, where spans are shared out among tasks. */
struct attn_partial {
    float *max, *sum; /* [rows] */
    float *output;    /* [rows][output stride] */
};

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
    attn_tensor_out o;
    const int64_t *q_cu, *kv_cu; /* NULL, or where packed sequences begin */
    const struct attn_cache *cache;
    const attn_options *options;

    bool small;          /* a kernel of its own does it all: see ops/small.h */
    char *small_scratch; /* [tasks][that kernel's scratch_bytes] */
    enum attn_source source;
    struct attn_store store; /* of the cache, of packed heads, or of a streamed block */
    int distant;             /* how far keys and values are, as attn_gemm_args has it */
    bool values_in_place;    /* keys are packed, values lie like panels as the caller has them */
    bool all_packed; /* every head has its own panels, packed before the first tile; else every task, for its head */
    size_t tiles;    /* of query rows, per kv head, at most */
    size_t spans;    /* into how many items a tile is cut; 1 where it is not */
    size_t tasks;
    struct attn_scratch *scratch; /* [tasks] */
    float *partials;              /* where spans > 1: see attn_partial_at */
};

/* The most query rows of a tile: as many of the product's as there is room for. Keys and values are read once for all of them,
 * the second product's rows find them in L1; the scores, 30 KiB, stay there too. */
static inline size_t attn_tile_height(const struct attn_problem *problem) {
    size_t rows = attn_table_gemm(problem->table)->rows;
    return ATTN_MAX_ROWS / rows * rows;
}

/* Floats between two rows of output in the workspace. */
static inline size_t attn_output_stride(const struct attn_problem *problem) {
    return (problem->value_size + ATTN_LANES - 1) / ATTN_LANES * ATTN_LANES;
}

/* Floats of one partial: maxima and sums in ATTN_MAX_ROWS each, then the outputs. */
static inline size_t attn_partial_floats(const struct attn_problem *problem) {
    return 2 * ATTN_MAX_ROWS + attn_tile_height(problem) * attn_output_stride(problem);
}

static inline struct attn_partial attn_partial_at(const struct attn_problem *problem, size_t index) {
    float *base = problem->partials + index * attn_partial_floats(problem);
    return (struct attn_partial){base, base + ATTN_MAX_ROWS, base + (size_t)2 * ATTN_MAX_ROWS};
}

#endif
