/* The AVX512_BF16 table. What it does not name is the lower one's. */
#include "kernels.h"

const struct attn_kernels attn_kernels_avx512_bf16 = {.isa = ATTN_ISA_AVX512_BF16, .lower = &attn_kernels_avx512_vnni};
