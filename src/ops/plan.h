/* Every decision about a call of attention, made once from its sizes, its options and the threads it may use. The plan
 * is const while the call runs; making one reads no data and runs nothing. */
#ifndef ATTN_OPS_PLAN_H
#define ATTN_OPS_PLAN_H

#include <attn/attn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

/* What a call uses beyond plain attention over tensors: a bit for every option that changes how it is computed, and for
 * every other way of giving rows and keys. */
enum {
    ATTN_USE_VALID_PER_SEQUENCE = 1 << 0,
    ATTN_USE_VALID_PER_ROW = 1 << 1,
    ATTN_USE_STARTS = 1 << 2,
    ATTN_USE_CAUSAL = 1 << 3,
    ATTN_USE_WINDOW_LEFT = 1 << 4,
    ATTN_USE_WINDOW_RIGHT = 1 << 5,
    ATTN_USE_MASK = 1 << 6,
    ATTN_USE_BIAS = 1 << 7,
    ATTN_USE_SOFT_CAP = 1 << 8,
    ATTN_USE_ALIBI = 1 << 9,
    ATTN_USE_SINKS = 1 << 10,
    ATTN_USE_EMPTY_MEAN = 1 << 11,
    ATTN_USE_ROTARY = 1 << 12,
    ATTN_USE_DROPOUT = 1 << 13,
    ATTN_USE_WEIGHTS = 1 << 14,
    ATTN_USE_SCORES = 1 << 15,
    ATTN_USE_LOG_SUM_EXP = 1 << 16,
    ATTN_USE_PACKED_ROWS = 1 << 17, /* query rows of sequences without padding */
    ATTN_USE_PACKED_KEYS = 1 << 18,
    ATTN_USE_CACHE = 1 << 19,
    ATTN_USE_SCORES_HIDDEN = 1 << 20,
    ATTN_USE_TYPES = 1 << 21, /* q, k, v, o or the cache are not all f32 */
    ATTN_USE_BIAS_FACTORS = 1 << 22,
    ATTN_USE_COUNT = 23
};

#define ATTN_USE_MASKS (ATTN_USE_MASK | ATTN_USE_BIAS)

/* With any of these the rows of a sequence may see different keys, masks aside. */
#define ATTN_USE_ROW_INTERVALS (ATTN_USE_VALID_PER_ROW | ATTN_USE_CAUSAL | ATTN_USE_WINDOW_LEFT | ATTN_USE_WINDOW_RIGHT)

/* With any of these the first product's results are changed, or copied out, before the softmax takes them. */
#define ATTN_USE_LOGITS                                                                                                \
    (ATTN_USE_MASKS | ATTN_USE_BIAS_FACTORS | ATTN_USE_SOFT_CAP | ATTN_USE_ALIBI | ATTN_USE_EMPTY_MEAN |               \
     ATTN_USE_WEIGHTS | ATTN_USE_SCORES)

/* How keys and values get to the query rows. */
enum attn_path {
    ATTN_PATH_SMALL,     /* a kernel of its own for few keys does all of it: see ops/small.h */
    ATTN_PATH_CACHED,    /* they were packed when they were appended */
    ATTN_PATH_IN_PLACE,  /* they are read as the caller has them, by few tiles of query rows */
    ATTN_PATH_STREAMED,  /* they are packed a block at a time, just before the one tile that reads them */
    ATTN_PATH_PACK_HEAD, /* each task packs the head that it takes before it takes the head's tiles */
    ATTN_PATH_PACK_ALL,  /* tasks pack all heads, then share out the tiles */
    ATTN_PATHS
};

/* As ATTN_VERBOSE prints it. */
const char *attn_path_name(enum attn_path path);

/* The uses that a path was written for. A call with another use takes a general path: ATTN_PATH_CACHED
 * with a cache, ATTN_PATH_PACK_HEAD and ATTN_PATH_PACK_ALL without. */
uint32_t attn_path_supports(enum attn_path path);

/* The most blocks of keys whose scores a tile of few rows holds at the same time. */
enum { ATTN_MOST_BLOCKS = 8 };

struct attn_plan {
    uint32_t uses; /* ATTN_USE_ bits */
    enum attn_class arithmetic;
    enum attn_path path;
    bool values_in_place;                    /* where heads are packed: only their keys are */
    int distant;                             /* prefetch hint for keys and values, see attn_decode_args */
    const struct attn_gemm_kernel *gemm;     /* of both products; NULL without tiles */
    const struct attn_decode_kernel *decode; /* of tiles of few rows; NULL where there is none */
    const struct attn_bf16_kernel *bf16;     /* the online softmax of classes BF16 and BF16_TILE; of others NULL */
    size_t tile_rows;                        /* of a tile of query rows, at most; 0 without tiles */
    size_t tiles;                            /* of the longest sequence, for each kv head */
    size_t spans; /* items that a tile is cut into, of ATTN_SPAN keys each; 1: it is not cut */
    size_t tasks;
    size_t blocks;        /* of keys that few query rows take at once, at most ATTN_MOST_BLOCKS */
    size_t output_stride; /* floats from one row of output in the workspace to the next */

    /* The workspace, see ops/workspace.h. It must also serve a call with fewer sequences, rows or keys, whatever path
     * that one takes, and so may be larger than this plan needs. */
    size_t partials;        /* tiles' spans that wait to be merged */
    size_t packed_heads;    /* heads whose keys and values are packed at the same time */
    size_t scratches;       /* how many tasks have scratch memory */
    size_t scratch_bytes;   /* of one of them */
    size_t workspace_bytes; /* all of it */
};

/* How many tiles so many rows make. */
static inline size_t attn_tiles_of(const struct attn_plan *plan, size_t rows) {
    return rows / plan->tile_rows + (rows % plan->tile_rows != 0);
}

struct attn_problem;

/* The bits of what a problem uses. */
uint32_t attn_uses_of(const struct attn_problem *problem);

/* Fills problem->plan from the rest of the problem, whose tensors need have no data yet. False where a size does not
 * fit. */
bool attn_plan_make(struct attn_problem *problem);

#endif
