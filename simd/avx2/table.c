/* The AVX2 table. */
#include "body/objects.h"

static const struct attn_gemm_kernel *const gemm[] = {
    &ISA_OBJECT(gemm_f32),  &ISA_OBJECT(gemm_bf16),     &ISA_OBJECT(gemm_bf16_wide),   &ISA_OBJECT(gemm_int8),
    &ISA_OBJECT(gemm_int4), &ISA_OBJECT(gemm_f16),      &ISA_OBJECT(gemm_s8),          &ISA_OBJECT(gemm_e4m3),
    &ISA_OBJECT(gemm_e5m2), &ISA_OBJECT(gemm_int4_f32), &ISA_OBJECT(gemm_int8_blocks), NULL};

static const struct attn_decode_kernel *const stored_decode[] = {&ISA_OBJECT(decode_f16),  &ISA_OBJECT(decode_s8),
                                                                 &ISA_OBJECT(decode_e4m3), &ISA_OBJECT(decode_e5m2),
                                                                 &ISA_OBJECT(decode_bf16), NULL};

const struct attn_kernels attn_kernels_avx2 = {.isa = ATTN_ISA_AVX2,
                                               .lower = &attn_kernels_scalar,
                                               .gemm = gemm,
                                               .decode = &ISA_OBJECT(decode),
                                               .stored_decode = stored_decode,
                                               .softmax = &ISA_OBJECT(softmax),
                                               .elementary = &ISA_OBJECT(elementary),
                                               .attention = &ISA_OBJECT(attention),
                                               .bf16 = &ISA_OBJECT(bf16),
                                               .small = &ISA_OBJECT(small),
                                               .copy = &ISA_OBJECT(copy),
                                               .convert = &ISA_OBJECT(convert)};
