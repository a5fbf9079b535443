/* The instruction sets of this architecture, from src/isa.def. */
#ifndef ATTN_BENCH_ISAS_H
#define ATTN_BENCH_ISAS_H

#include <attn/attn.h>
#include <vector>

namespace bench {

/* Worst to best, whether or not this machine has them. */
inline std::vector<attn_isa> isas_of_architecture() {
    constexpr bool is_any = true;
#if defined(__x86_64__)
    constexpr bool is_x86 = true, is_arm = false;
#elif defined(__aarch64__)
    constexpr bool is_x86 = false, is_arm = true;
#else
    constexpr bool is_x86 = false, is_arm = false;
#endif
    std::vector<attn_isa> isas;
#define ISA(name, NAME, arch)                                                                                          \
    if (is_##arch)                                                                                                     \
        isas.push_back(ATTN_ISA_##NAME);
#include "isa.def"
#undef ISA
    return isas;
}

} /* namespace bench */

#endif
