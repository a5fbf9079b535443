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

/* What rows and weights of a product or layer are, and what the last part of a benchmark's name says of it. */
struct product_types {
    const char *name;
    attn_type rows, weights;
    std::size_t block; /* of weights, or 0 */
    bool dequantised;

    bool of_integers() const { return !dequantised && (weights == ATTN_INT8 || weights == ATTN_INT4); }
    double weight_bytes() const {
        return weights == ATTN_F32 ? 4 : weights == ATTN_INT8 ? 1 : weights == ATTN_INT4 ? 0.5 : 2;
    }
};
constexpr product_types all_product_types[] = {{"", ATTN_F32, ATTN_F32, 0, false},
                                               {"bf16", ATTN_BF16, ATTN_BF16, 0, false},
                                               {"f32-f16", ATTN_F32, ATTN_F16, 0, false},
                                               {"f32-int8", ATTN_F32, ATTN_INT8, 0, false},
                                               {"f32-int8_32", ATTN_F32, ATTN_INT8, 32, false},
                                               {"bf16-int8", ATTN_BF16, ATTN_INT8, 0, false},
                                               {"f32-int4", ATTN_F32, ATTN_INT4, 128, false},
                                               {"f32-int4_dequantised", ATTN_F32, ATTN_INT4, 128, true}};

/* Whether an ISA multiplies by such weights with a kernel of its own. */
inline bool has_own_gemm(attn_isa isa, attn_type weights, std::size_t block, bool dequantised) {
    const attn_kernels *table = attn_table(isa);
    attn_linear linear = {};
    linear.type = weights;
    linear.block = block;
    linear.dequantised = dequantised;
    return table && table->lower &&
           attn_gemm_for_linear(table, &linear, ATTN_ARITHMETIC_FASTEST) !=
               attn_gemm_for_linear(table->lower, &linear, ATTN_ARITHMETIC_FASTEST);
}

/* Whether anything that computes products of these types is the ISA's own. A layer whose rows are BF16 has keys and
 * values of BF16. Names that are no types of products, those of caches say, are of class F32. */
inline bool has_own_kernels(attn_isa isa, const std::string &types) {
    for (const product_types &each : all_product_types)
        if (!types.empty() && types == each.name)
            return has_own_gemm(isa, each.weights, each.block, each.dequantised) ||
                   (each.rows == ATTN_BF16 && has_own_gemm(isa, ATTN_BF16, 0, false));
    return f32_isa(isa) == isa;
}

} /* namespace bench */

#endif
