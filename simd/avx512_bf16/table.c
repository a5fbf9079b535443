/* AVX-512's table where the processor multiplies pairs of BF16. */
#include "body/objects.h"

static const struct attn_gemm_kernel *const gemm[] = {&ISA_OBJECT(gemm_bf16), NULL};

static const struct attn_decode_kernel *const stored_decode[] = {&ISA_OBJECT(decode_bf16), NULL};

const struct attn_kernels attn_kernels_avx512_bf16 = {.isa = ATTN_ISA_AVX512_BF16,
                                                      .lower = &attn_kernels_avx512_vnni,
                                                      .gemm = gemm,
                                                      .stored_decode = stored_decode,
                                                      .convert = &ISA_OBJECT(convert),
                                                      .bf16 = &ISA_OBJECT(bf16)};
