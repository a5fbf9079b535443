/* The AVX2 with AVX-VNNI table. What it does not name is the lower one's. */
#include "kernels.h"

const struct attn_kernels attn_kernels_avx2_vnni = {.isa = ATTN_ISA_AVX2_VNNI, .lower = &attn_kernels_avx2};
