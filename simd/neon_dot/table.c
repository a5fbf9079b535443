/* NEON's table where the processor multiplies fours of bytes. */
#include "body/objects.h"

static const struct attn_gemm_kernel *const gemm[] = {&ISA_OBJECT(gemm_int8), &ISA_OBJECT(gemm_int4),
                                                      &ISA_OBJECT(gemm_int8_blocks), NULL};

const struct attn_kernels attn_kernels_neon_dot = {.isa = ATTN_ISA_NEON_DOT, .lower = &attn_kernels_neon, .gemm = gemm};
