/* Combines outputs of attention over disjoint sets of keys. */
#ifndef ATTN_OPS_MERGE_H
#define ATTN_OPS_MERGE_H

#include "kernels.h"

/* The arguments have been checked. */
void attn_op_merge(const struct attn_kernels *table, const attn_merge_args *args);

#endif
