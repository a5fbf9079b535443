/* Masked softmax over rows. */
#ifndef ATTN_OPS_SOFTMAX_H
#define ATTN_OPS_SOFTMAX_H

#include "kernels.h"

/* The keys that sequence `b`'s query row `i` sees by its valid length: 0 .. keys. */
size_t attn_valid_len(const attn_valid_lens *valid, size_t b, size_t i, size_t rows, size_t keys);

void attn_op_masked_softmax(const struct attn_softmax_kernel *kernel, const attn_softmax_args *args);

#endif
