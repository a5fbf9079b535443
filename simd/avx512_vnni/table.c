/* AVX-512's table where the processor multiplies fours of bytes. */
#include "body/objects.h"

static const struct attn_gemm_kernel *const gemm[] = {&ISA_OBJECT(gemm_int8), &ISA_OBJECT(gemm_int4),
                                                      &ISA_OBJECT(gemm_int8_blocks), NULL};

const struct attn_kernels attn_kernels_avx512_vnni = {
    .isa = ATTN_ISA_AVX512_VNNI, .lower = &attn_kernels_avx512, .gemm = gemm};
