/* A processor on which amx runs wherever what it stands on does: the model takes the place of its kernels. */
#define attn_cpu_supports supports_really
#include "cpu.c"
#undef attn_cpu_supports

bool attn_cpu_supports(const struct attn_cpu_registers *registers, attn_isa isa) {
    return supports_really(registers, isa == ATTN_ISA_AMX ? ATTN_ISA_AVX512_BF16 : isa);
}
