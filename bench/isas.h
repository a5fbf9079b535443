/* The instruction sets of this architecture, from src/isa.def. */
#ifndef ATTN_BENCH_ISAS_H
#define ATTN_BENCH_ISAS_H

#include <attn/attn.h>
#include <string>
#include <vector>
extern "C" {
#include "dispatch.h"
}

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

/* Whether a table adds anything to class f32. */
inline bool has_f32_kernels(const attn_kernels *table) {
    return attn_gemm_find(table, ATTN_CLASS_F32) != attn_gemm_find(table->lower, ATTN_CLASS_F32) || table->decode ||
           table->softmax || table->elementary || table->attention || table->small || table->copy;
}

/* The ISA whose f32 kernels `isa` runs: itself, or one below, all of whose kernels it inherits. */
inline attn_isa f32_isa(attn_isa isa) {
    const attn_kernels *table = attn_table(isa);
    while (table && table->lower && !has_f32_kernels(table))
        table = table->lower;
    return table ? table->isa : isa;
}

/* Whether an ISA multiplies by weights, or keys and values, of that type with a kernel of its own. */
inline bool has_own_gemm(attn_isa isa, attn_type type) {
    const attn_kernels *table = attn_table(isa);
    return table && table->lower &&
           attn_gemm_for(table, type, ATTN_ARITHMETIC_FASTEST) !=
               attn_gemm_for(table->lower, type, ATTN_ARITHMETIC_FASTEST);
}

/* Of the last part of a benchmark's name. */
inline attn_type type_of_weights(const std::string &types) {
    return types == "f32-int8" ? ATTN_INT8 : types == "f32-int4" ? ATTN_INT4 : ATTN_BF16;
}

} /* namespace bench */

#endif
