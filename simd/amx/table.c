/* The AMX table. What it does not name is the lower one's. */
#include "body/objects.h"

#include "../avx512_bf16/tables.h"

static const struct attn_gemm_kernel *const gemm[] = {&ISA_OBJECT(gemm_bf16), &ISA_OBJECT(gemm_int8),
                                                      &ISA_OBJECT(gemm_int4), NULL};

static const struct attn_kernels by_fma = {
    .isa = ATTN_ISA_AMX, .lower = &attn_kernels_avx512_bf16_by_fma, .gemm = gemm, .bf16 = &attn_avx512_bf16_bf16};

const struct attn_kernels attn_kernels_amx = {
    .isa = ATTN_ISA_AMX, .lower = &attn_kernels_avx512_bf16, .by_fma = &by_fma, .gemm = gemm};
