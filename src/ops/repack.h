/* Packed weights, element by element, of whatever format: written without the kernel that the format is for, and read
 * back. */
#ifndef ATTN_OPS_REPACK_H
#define ATTN_OPS_REPACK_H

#include "ops/gemm.h"

/* The most elements of a column that are handed over at once: a block, and a multiple of every k_unit. */
enum { ATTN_STRETCH = 128 };

/* Where weights come from. Memory of the caller's holds a stretch, or a scale. */
struct attn_weight_source {
    const void *context; /* of the functions */
    /* Elements p .. p + count - 1 of column j, of INT4 a byte each. p is a multiple of the stretch, or where there are
     * blocks of the block, and count is the block. */
    void (*elements)(const void *context, size_t j, size_t p, size_t count, void *to);
    /* Of INT8 and INT4: block b's scale, of the scaling's type. */
    void (*scale)(const void *context, size_t j, size_t b, void *to);
    /* Of blocks with zero points; of INT8 plus 128. */
    uint8_t (*zero_point)(const void *context, size_t j, size_t b);
};

/* Packs weights in `format`, which need not be the kernel's of `to`; every byte of its panels is written. They are
 * those that a kernel of this format packs, and 0 where it writes nothing. The bias is left alone. */
void attn_repack(const struct attn_format *format, const struct attn_packed *to,
                 const struct attn_weight_source *source);

/* Weights that are packed. */
struct attn_packed_reader {
    struct attn_format format;
    struct attn_packed packed; /* its kernel is not looked at */
};
struct attn_weight_source attn_packed_source(const struct attn_packed_reader *reader);

/* Whether this file knows where the elements of a format lie, if its `cols` and `k_unit` are as they should be. */
bool attn_format_is_known(const struct attn_format *format, const struct attn_scaling *scaling);

#endif
