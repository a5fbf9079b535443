/* The NEON with I8MM and BF16 table. What it does not name is the lower one's. */
#include "body/objects.h"

static const struct attn_gemm_kernel *const gemm[] = {&ISA_OBJECT(gemm_bf16), NULL};

const struct attn_kernels attn_kernels_neon_mm = {
    .isa = ATTN_ISA_NEON_MM, .lower = &attn_kernels_neon_dot, .gemm = gemm, .bf16 = &ISA_OBJECT(bf16)};
