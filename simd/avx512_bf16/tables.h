/* What amx takes from avx512_bf16 where products of class BF16 are by multiply-adds. */
#ifndef ATTN_AVX512_BF16_TABLES_H
#define ATTN_AVX512_BF16_TABLES_H

#include "kernels.h"

extern const struct attn_kernels attn_kernels_avx512_bf16_by_fma;
extern const struct attn_bf16_kernel attn_avx512_bf16_bf16;

#endif
