/* Scaled dot-product attention: query tiles over blocks of keys, the score matrix never stored unless asked for. */
#ifndef ATTN_OPS_ATTENTION_H
#define ATTN_OPS_ATTENTION_H

#include "ops/problem.h"

/* Computes a problem that has its plan, in plan.workspace_bytes of memory. */
void attn_op_attention(const struct attn_problem *problem, void *memory);

#endif
