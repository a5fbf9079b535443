/* Masked softmax over rows. */
#ifndef ATTN_OPS_SOFTMAX_H
#define ATTN_OPS_SOFTMAX_H

#include "kernels.h"

void attn_op_masked_softmax(const struct attn_kernels *table, const attn_softmax_args *args);

#endif
