/* AVX-512 with VDPBF16PS. */
#ifndef ATTN_AVX512_BF16_VEC_H
#define ATTN_AVX512_BF16_VEC_H

#define ISA_NAME         "avx512_bf16"
#define ISA_FN(name)     avx512_bf16_##name
#define ISA_OBJECT(name) attn_avx512_bf16_##name

#include "../avx512/vec.h"

/* The bits of vec_to_bf16 for all inputs, NaN included (Zen 5: 0 of 2^32 differ). */
#define VEC_TO_BF16(x) (__m256i) _mm512_cvtneps_pbh(x)

#endif
