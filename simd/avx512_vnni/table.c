/* The AVX-512 with VNNI table. What it does not name is the lower one's. */
#include "kernels.h"

const struct attn_kernels attn_kernels_avx512_vnni = {.isa = ATTN_ISA_AVX512_VNNI, .lower = &attn_kernels_avx512};
