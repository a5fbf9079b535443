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

/* Weights that rows of floats are multiplied by, what the last part of a benchmark's name says of them, and the
 * bytes of an element. */
struct narrow_weights {
    const char *types;
    attn_type type;
    int dequantised;
    double bytes;
};
constexpr narrow_weights all_narrow_weights[] = {{"f32-f16", ATTN_F16, 0, 2},
                                                 {"f32-int8", ATTN_INT8, 0, 1},
                                                 {"f32-int4", ATTN_INT4, 0, 0.5},
                                                 {"f32-int4_dequantised", ATTN_INT4, 1, 0.5}};

/* Whether an ISA multiplies by such weights with a kernel of its own; or by BF16, where the name says nothing of
 * these. */
inline bool has_own_gemm(attn_isa isa, const std::string &types) {
    const attn_kernels *table = attn_table(isa);
    attn_linear linear = {};
    linear.type = ATTN_BF16;
    for (const narrow_weights &weights : all_narrow_weights)
        if (types == weights.types) {
            linear.type = weights.type;
            linear.dequantised = weights.dequantised;
        }
    return table && table->lower &&
           attn_gemm_for_linear(table, &linear, ATTN_ARITHMETIC_FASTEST) !=
               attn_gemm_for_linear(table->lower, &linear, ATTN_ARITHMETIC_FASTEST);
}

} /* namespace bench */

#endif
