/* Weights as callers have them: attn_linear's arrays, or what files of other engines hold. */
#ifndef ATTN_OPS_LAYOUTS_H
#define ATTN_OPS_LAYOUTS_H

#include "ops/repack.h"

/* A weight of k rows. */
struct attn_linear_reader {
    const attn_linear *linear;
    struct attn_scaling scaling;
    size_t k;
};
struct attn_linear_reader attn_linear_reader_of(const attn_linear *linear, size_t k);

/* What quantised elements are multiplied by. */
struct attn_scaling attn_linear_scaling(const attn_linear *linear);

/* Of ATTN_LAYOUT_PLAIN the scales alone: kernels pack the rest. */
struct attn_weight_source attn_linear_source(const struct attn_linear_reader *reader);

/* Elements in a block of a layout, or in a word of one; bytes of them. */
enum { ATTN_GGML_BLOCK = 32, ATTN_Q4_0_BYTES = 18, ATTN_Q8_0_BYTES = 34, ATTN_WORD_BYTES = 4 };
static inline size_t attn_word_elements(attn_type type) {
    return type == ATTN_INT8 ? 4 : 8;
}

#endif
