/* The NEON with I8MM and BF16 table. What it does not name is the lower one's. */
#include "kernels.h"

const struct attn_kernels attn_kernels_neon_mm = {.isa = ATTN_ISA_NEON_MM, .lower = &attn_kernels_neon_dot};
