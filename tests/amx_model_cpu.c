/* A processor that has amx wherever it has what amx stands on: the kernels over the model take the place of amx's
 * own. Scalar's kernels, with the class that amx takes, take the place of avx2_vnni's, so that a call has a
 * reference with the same operators. */
#define attn_cpu_supports supports_really
#include "cpu.c"
#undef attn_cpu_supports

#include "kernels.h"

bool attn_cpu_supports(const struct attn_cpu_registers *registers, attn_isa isa) {
    return isa == ATTN_ISA_AVX2_VNNI || supports_really(registers, isa == ATTN_ISA_AMX ? ATTN_ISA_AVX512_BF16 : isa);
}

extern const struct attn_gemm_kernel attn_ref_gemm_bf16_tile;

static const struct attn_gemm_kernel *const gemm[] = {&attn_ref_gemm_bf16_tile, NULL};

const struct attn_kernels attn_kernels_avx2_vnni = {
    .isa = ATTN_ISA_AVX2_VNNI, .lower = &attn_kernels_scalar, .gemm = gemm};
