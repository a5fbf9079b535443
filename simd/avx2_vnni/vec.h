/* AVX2 with VPDPBUSD. */
#ifndef ATTN_AVX2_VNNI_VEC_H
#define ATTN_AVX2_VNNI_VEC_H

#define ISA_NAME         "avx2_vnni"
#define ISA_FN(name)     avx2_vnni_##name
#define ISA_OBJECT(name) attn_avx2_vnni_##name

#include "../avx2/vec.h"

#endif
