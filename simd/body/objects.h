/* What an ISA's table refers to. The texts that define these objects include this too, so that the compiler compares
 * the types. */
#ifndef ATTN_BODY_OBJECTS_H
#define ATTN_BODY_OBJECTS_H

#include "kernels.h"
#include "vec.h"

extern const struct attn_gemm_kernel ISA_OBJECT(gemm_f32), ISA_OBJECT(gemm_bf16), ISA_OBJECT(gemm_int8),
    ISA_OBJECT(gemm_int8_blocks), ISA_OBJECT(gemm_int4), ISA_OBJECT(gemm_f16), ISA_OBJECT(gemm_s8),
    ISA_OBJECT(gemm_bf16_wide), ISA_OBJECT(gemm_e4m3), ISA_OBJECT(gemm_e5m2), ISA_OBJECT(gemm_int4_f32);
extern const struct attn_decode_kernel ISA_OBJECT(decode), ISA_OBJECT(decode_f16), ISA_OBJECT(decode_s8),
    ISA_OBJECT(decode_e4m3), ISA_OBJECT(decode_e5m2), ISA_OBJECT(decode_bf16);
extern const struct attn_softmax_kernel ISA_OBJECT(softmax);
extern const struct attn_elementary_kernel ISA_OBJECT(elementary);
extern const struct attn_attention_kernel ISA_OBJECT(attention);
extern const struct attn_bf16_kernel ISA_OBJECT(bf16);
extern const struct attn_small_kernel ISA_OBJECT(small);
extern const struct attn_copy_kernel ISA_OBJECT(copy);
extern const struct attn_convert_kernel ISA_OBJECT(convert);

#endif
