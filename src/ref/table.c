/* The scalar table: the reference in every field. */
#include "kernels.h"

extern const struct attn_gemm_kernel attn_ref_gemm_f32, attn_ref_gemm_bf16, attn_ref_gemm_bf16_tile, attn_ref_gemm_int8,
    attn_ref_gemm_int4, attn_ref_gemm_int8_blocks, attn_ref_gemm_f16, attn_ref_gemm_s8, attn_ref_gemm_e4m3,
    attn_ref_gemm_e5m2, attn_ref_gemm_int4_f32;
extern const struct attn_decode_kernel attn_ref_decode, attn_ref_decode_bf16;
extern const struct attn_softmax_kernel attn_ref_softmax;
extern const struct attn_elementary_kernel attn_ref_elementary;
extern const struct attn_attention_kernel attn_ref_attention;
extern const struct attn_bf16_kernel attn_ref_bf16;
extern const struct attn_small_kernel attn_ref_small;
extern const struct attn_copy_kernel attn_ref_copy;
extern const struct attn_convert_kernel attn_ref_convert;

static const struct attn_gemm_kernel *const gemm[] = {
    &attn_ref_gemm_f32,  &attn_ref_gemm_bf16,        &attn_ref_gemm_bf16_tile, &attn_ref_gemm_int8,
    &attn_ref_gemm_int4, &attn_ref_gemm_int8_blocks, &attn_ref_gemm_f16,       &attn_ref_gemm_s8,
    &attn_ref_gemm_e4m3, &attn_ref_gemm_e5m2,        &attn_ref_gemm_int4_f32,  NULL};

static const struct attn_decode_kernel *const stored_decode[] = {&attn_ref_decode_bf16, NULL};

const struct attn_kernels attn_kernels_scalar = {.isa = ATTN_ISA_SCALAR,
                                                 .lower = NULL,
                                                 .gemm = gemm,
                                                 .decode = &attn_ref_decode,
                                                 .stored_decode = stored_decode,
                                                 .softmax = &attn_ref_softmax,
                                                 .elementary = &attn_ref_elementary,
                                                 .attention = &attn_ref_attention,
                                                 .bf16 = &attn_ref_bf16,
                                                 .small = &attn_ref_small,
                                                 .copy = &attn_ref_copy,
                                                 .convert = &attn_ref_convert};
