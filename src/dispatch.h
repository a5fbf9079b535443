/* The names of the instruction sets, and which table of kernels a call uses. */
#ifndef ATTN_DISPATCH_H
#define ATTN_DISPATCH_H

#include <stdbool.h>

#include "kernels.h"

/* [attn_isa] names: "best", then those in isa.def. */
extern const char *const attn_isa_names[ATTN_ISA_COUNT];

/* Finds the ISA of that name. False where none has it; *isa is then untouched. */
bool attn_isa_find(const char *name, attn_isa *isa);

/* The table of `isa`, whether or not this processor can run it. NULL for ATTN_ISA_BEST, for values that are no ISA,
 * and for ISAs that this library was built without. */
const struct attn_kernels *attn_table(attn_isa isa);

/* The same on a processor that is slow at pairs of BF16 (attn_cpu_is_slow_at_pairs), or is not. */
const struct attn_kernels *attn_table_on(attn_isa isa, bool slow_at_pairs);

/* The table that `isa` stands for on this processor: ATTN_ISA_BEST is the chosen one. ATTN_UNKNOWN_ISA for values
 * without a table, ATTN_UNSUPPORTED_ISA for a table that this processor or its operating system cannot run; *table
 * is then untouched. */
attn_status attn_table_for(attn_isa isa, const struct attn_kernels **table);

/* The first GEMM kernel of a class whose packed B has that type, in the table's list and those below it; NULL where
 * there is none. */
const struct attn_gemm_kernel *attn_gemm_find_type(const struct attn_kernels *table, enum attn_class arithmetic,
                                                   attn_type type);

/* The same for the class' own type. */
static inline const struct attn_gemm_kernel *attn_gemm_find(const struct attn_kernels *table,
                                                            enum attn_class arithmetic) {
    return attn_gemm_find_type(table, arithmetic, attn_class_type(arithmetic));
}

/* The class of products with weights of that type: of BF16 the one that the table's own units are fastest at, where
 * `arithmetic` lets it. The reference of every class is scalar's, which does not count as a unit. */
enum attn_class attn_class_for(const struct attn_kernels *table, attn_type type, attn_arithmetic arithmetic);

/* Their kernel. */
static inline const struct attn_gemm_kernel *attn_gemm_for(const struct attn_kernels *table, attn_type type,
                                                           attn_arithmetic arithmetic) {
    return attn_gemm_find_type(table, attn_class_for(table, type, arithmetic), type);
}

/* Whether weights have a scale for each block of a column. */
static inline bool attn_linear_has_blocks(const attn_linear *linear) {
    bool given = linear->block > 0 || linear->layout != ATTN_LAYOUT_PLAIN;
    return linear->type == ATTN_INT4 || (linear->type == ATTN_INT8 && given);
}

/* The kernel of products with these weights. */
static inline const struct attn_gemm_kernel *
attn_gemm_for_linear(const struct attn_kernels *table, const attn_linear *linear, attn_arithmetic arithmetic) {
    if (linear->type == ATTN_INT4 && linear->dequantised)
        return attn_gemm_find_type(table, ATTN_CLASS_F32, ATTN_INT4);
    if (linear->type == ATTN_INT8 && attn_linear_has_blocks(linear))
        return attn_gemm_find(table, ATTN_CLASS_INT8_BLOCKS);
    return attn_gemm_for(table, linear->type, arithmetic);
}

/* The class of products with keys and values that are stored as `type`: all but BF16 are widened. */
static inline enum attn_class attn_class_for_stored(const struct attn_kernels *table, attn_type type,
                                                    attn_arithmetic arithmetic) {
    return type == ATTN_BF16 ? attn_class_for(table, type, arithmetic) : ATTN_CLASS_F32;
}

/* Their kernel. */
static inline const struct attn_gemm_kernel *attn_gemm_for_stored(const struct attn_kernels *table, attn_type type,
                                                                  attn_arithmetic arithmetic) {
    return attn_gemm_find_type(table, attn_class_for_stored(table, type, arithmetic), type);
}

/* The kernel for few query rows over keys and values that `gemm` has packed; NULL where there is none. */
const struct attn_decode_kernel *attn_decode_for(const struct attn_kernels *table, const struct attn_gemm_kernel *gemm);

/* That of the class and type of queries that `gemm` has, over keys and values of `type` in place, for so many rows;
 * NULL where there is none. */
const struct attn_decode_kernel *attn_decode_in_place(const struct attn_kernels *table,
                                                      const struct attn_gemm_kernel *gemm, attn_type type, size_t rows);

/* The online softmax whose probabilities `gemm`, a kernel of the table's of class BF16 or BF16_TILE, takes; NULL for
 * one of another class. */
const struct attn_bf16_kernel *attn_bf16_for(const struct attn_kernels *table, const struct attn_gemm_kernel *gemm);

#endif
