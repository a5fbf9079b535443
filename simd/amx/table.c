/* The AMX table. What it does not name is the lower one's. */
#include "kernels.h"

extern const struct attn_gemm_kernel attn_amx_gemm_bf16;

static const struct attn_gemm_kernel *const gemm[] = {&attn_amx_gemm_bf16, NULL};

const struct attn_kernels attn_kernels_amx = {.isa = ATTN_ISA_AMX, .lower = &attn_kernels_avx512_bf16, .gemm = gemm};
