/* Splitting and merging heads. */
#ifndef ATTN_OPS_TRANSPOSE_H
#define ATTN_OPS_TRANSPOSE_H

#include <stdbool.h>

#include "kernels.h"

/* merge: x is split and y merged, else the other way. Both sides have the stride of a head too. */
void attn_op_transpose(const struct attn_kernels *table, const attn_transpose_args *args, bool merge);

#endif
