/* AVX-512 with VPDPBUSD. */
#ifndef ATTN_AVX512_VNNI_VEC_H
#define ATTN_AVX512_VNNI_VEC_H

#define ISA_NAME         "avx512_vnni"
#define ISA_FN(name)     avx512_vnni_##name
#define ISA_OBJECT(name) attn_avx512_vnni_##name

#include "../avx512/vec.h"

#endif
