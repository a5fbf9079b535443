/* Splitting and merging heads. */
#ifndef ATTN_OPS_TRANSPOSE_H
#define ATTN_OPS_TRANSPOSE_H

#include <stdbool.h>

#include "kernels.h"

/* Rows of [batch, heads, len, head_size], whatever their order in memory. Steps are in bytes. */
struct attn_head_rows {
    const void *data;
    attn_type type;
    size_t batch_step, head_step, row_step;
};

struct attn_transpose {
    size_t batch, len, heads, head_size;
    struct attn_head_rows x, y; /* y is written */
    size_t merged_row_step;     /* of the one of them that is merged */
};

void attn_op_transpose(const struct attn_kernels *table, const struct attn_transpose *args,
                       const attn_parallel *parallel);

#endif
