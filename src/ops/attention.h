/* Scaled dot-product attention: query tiles over blocks of keys, the score matrix never stored unless asked for. */
#ifndef ATTN_OPS_ATTENTION_H
#define ATTN_OPS_ATTENTION_H

#include "ops/problem.h"

/* Resolves tiles, tasks and source, and lays the workspace out: with a NULL base this measures. table, sizes, options and
 * cache come in. */
void attn_problem_layout(struct attn_problem *problem, struct attn_carve *carve);

/* Computes a problem whose workspace has been laid out. */
void attn_op_attention(struct attn_problem *problem);

#endif
