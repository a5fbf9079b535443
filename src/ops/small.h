/* Attention over few keys: many heads of a sequence in one kernel call, without workspace. */
#ifndef ATTN_OPS_SMALL_H
#define ATTN_OPS_SMALL_H

#include "ops/problem.h"

/* Whether a problem is one: few keys that come as tensors, nothing done to the logits but hiding the last keys of a row, and
 * no output but o. */
bool attn_is_small(const struct attn_problem *problem);

/* In at most so many tasks. */
void attn_op_small(const struct attn_problem *problem, size_t tasks);

#endif
