/* The NEON with dot products table. What it does not name is the lower one's. */
#include "kernels.h"

const struct attn_kernels attn_kernels_neon_dot = {.isa = ATTN_ISA_NEON_DOT, .lower = &attn_kernels_neon};
