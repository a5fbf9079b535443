/* Attention over few keys: many heads of a sequence in one kernel call. */
#ifndef ATTN_OPS_SMALL_H
#define ATTN_OPS_SMALL_H

#include "ops/problem.h"

/* The most items that the call can be cut into; 1 if that number does not fit in size_t. */
size_t attn_small_items(const struct attn_problem *problem);

/* Computes a problem whose path is ATTN_PATH_SMALL, in [plan.scratches][plan.scratch_bytes] of memory. */
void attn_op_small(const struct attn_problem *problem, char *memory);

#endif
