/* The NEON table. */
#include "kernels.h"

extern const struct attn_gemm_kernel attn_neon_gemm;
extern const struct attn_softmax_kernel attn_neon_softmax;
extern const struct attn_elementary_kernel attn_neon_elementary;
extern const struct attn_attention_kernel attn_neon_attention;
extern const struct attn_small_kernel attn_neon_small;
extern const struct attn_copy_kernel attn_neon_copy;

const struct attn_kernels attn_kernels_neon = {.isa = ATTN_ISA_NEON,
                                               .lower = &attn_kernels_scalar,
                                               .gemm = &attn_neon_gemm,
                                               .softmax = &attn_neon_softmax,
                                               .elementary = &attn_neon_elementary,
                                               .attention = &attn_neon_attention,
                                               .small = &attn_neon_small,
                                               .copy = &attn_neon_copy};
