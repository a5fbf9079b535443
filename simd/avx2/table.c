/* The AVX2 table. */
#include "kernels.h"

extern const struct attn_gemm_kernel attn_avx2_gemm;
extern const struct attn_softmax_kernel attn_avx2_softmax;
extern const struct attn_elementary_kernel attn_avx2_elementary;
extern const struct attn_attention_kernel attn_avx2_attention;
extern const struct attn_small_kernel attn_avx2_small;
extern const struct attn_copy_kernel attn_avx2_copy;

const struct attn_kernels attn_kernels_avx2 = {.isa = ATTN_ISA_AVX2,
                                               .lower = &attn_kernels_scalar,
                                               .gemm = &attn_avx2_gemm,
                                               .softmax = &attn_avx2_softmax,
                                               .elementary = &attn_avx2_elementary,
                                               .attention = &attn_avx2_attention,
                                               .small = &attn_avx2_small,
                                               .copy = &attn_avx2_copy};
