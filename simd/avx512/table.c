/* The AVX-512 table. */
#include "kernels.h"

extern const struct attn_gemm_kernel attn_avx512_gemm;
extern const struct attn_softmax_kernel attn_avx512_softmax;
extern const struct attn_elementary_kernel attn_avx512_elementary;
extern const struct attn_attention_kernel attn_avx512_attention;
extern const struct attn_small_kernel attn_avx512_small;
extern const struct attn_copy_kernel attn_avx512_copy;

const struct attn_kernels attn_kernels_avx512 = {.isa = ATTN_ISA_AVX512,
                                                 .lower = &attn_kernels_avx2,
                                                 .gemm = &attn_avx512_gemm,
                                                 .softmax = &attn_avx512_softmax,
                                                 .elementary = &attn_avx512_elementary,
                                                 .attention = &attn_avx512_attention,
                                                 .small = &attn_avx512_small,
                                                 .copy = &attn_avx512_copy};
