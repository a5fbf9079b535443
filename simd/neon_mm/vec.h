/* NEON with BFMLALB and BFMLALT. */
#ifndef ATTN_NEON_MM_VEC_H
#define ATTN_NEON_MM_VEC_H

#define ISA_NAME         "neon_mm"
#define ISA_FN(name)     neon_mm_##name
#define ISA_OBJECT(name) attn_neon_mm_##name

#include "../neon/vec.h"

#endif
