/* The AMX table. What it does not name is the lower one's. */
#include "kernels.h"

const struct attn_kernels attn_kernels_amx = {.isa = ATTN_ISA_AMX, .lower = &attn_kernels_avx512_bf16};
