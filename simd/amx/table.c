/* The AMX table. What it does not name is the lower one's. */
#include "body/objects.h"

static const struct attn_gemm_kernel *const gemm[] = {&ISA_OBJECT(gemm_bf16), &ISA_OBJECT(gemm_int8),
                                                      &ISA_OBJECT(gemm_int4), NULL};

const struct attn_kernels attn_kernels_amx = {.isa = ATTN_ISA_AMX, .lower = &attn_kernels_avx512_bf16, .gemm = gemm};
