/* NEON with SDOT. */
#ifndef ATTN_NEON_DOT_VEC_H
#define ATTN_NEON_DOT_VEC_H

#define ISA_NAME         "neon_dot"
#define ISA_FN(name)     neon_dot_##name
#define ISA_OBJECT(name) attn_neon_dot_##name

#include "../neon/vec.h"

#endif
