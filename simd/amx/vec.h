/* AVX-512 beside the tiles. */
#ifndef ATTN_AMX_VEC_H
#define ATTN_AMX_VEC_H

#define ISA_NAME         "amx"
#define ISA_FN(name)     amx_##name
#define ISA_OBJECT(name) attn_amx_##name

#include "../avx512/vec.h"

#endif
