/* Attention over few keys: many heads of a sequence in one kernel call. */
#ifndef ATTN_OPS_SMALL_H
#define ATTN_OPS_SMALL_H

#include "ops/problem.h"

/* Whether a problem is one: few keys that come as tensors, nothing done to the logits but hiding the last keys of a row, and
 * no output but o. */
bool attn_is_small(const struct attn_problem *problem);

/* The most items that it can be cut into; 1 where they cannot be counted. */
size_t attn_small_items(const struct attn_problem *problem);

/* In problem->tasks tasks, each with its part of problem->small_scratch. */
void attn_op_small(const struct attn_problem *problem);

#endif
