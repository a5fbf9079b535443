/* Where the elements of packed matrices lie, as far as operators need to know: the sizes of panels, and copies of
 * them. */
#ifndef ATTN_FORMAT_H
#define ATTN_FORMAT_H

#include <string.h>

#include "checked.h"
#include "kernels.h"
#include "types.h"

/* Bytes of a packed element. */
static inline size_t attn_packed_size(const struct attn_format *format) {
    return attn_type_size(format->wide ? ATTN_F32 : format->type);
}

/* *bytes = those of a panel of k rows and `cols` columns. False where that does not fit. */
static inline bool attn_panel_bytes(const struct attn_format *format, size_t k, size_t cols, size_t *bytes) {
    size_t rows;
    return attn_round_up(k, format->k_unit, &rows) && attn_mul(rows, cols * attn_packed_size(format), bytes) &&
           attn_add(*bytes, cols * format->beside, bytes);
}

/* Bytes of a column's elements in a block of that many rows. */
static inline size_t attn_block_elements(attn_type type, size_t block) {
    return type == ATTN_INT4 ? block / 2 : block * attn_type_size(type);
}

/* Bytes of a block of rows and `cols` columns: elements, scales and zero points. */
static inline size_t attn_block_bytes(attn_type type, const struct attn_scaling *scaling, size_t cols) {
    return cols * (attn_block_elements(type, scaling->block) + attn_type_size(scaling->type) + scaling->has_zero_point);
}

/* The zero point of block b of column j, of `blocks`, in an array as attn_pack_args has it; of INT8 plus 128, as it is
 * packed. */
static inline uint8_t attn_zero_point_of(attn_type type, const void *zero_points, size_t blocks, size_t j, size_t b) {
    const uint8_t *bytes = zero_points;
    if (type == ATTN_INT4)
        return bytes[j * ((blocks + 1) / 2) + b / 2] >> b % 2 * 4 & 15;
    return bytes[j * blocks + b] ^ 0x80;
}

/* The same of weights, which may be quantised. */
static inline bool attn_weight_panel_bytes(const struct attn_format *format, const struct attn_scaling *scaling,
                                           size_t k, size_t cols, size_t *bytes) {
    if (attn_has_blocks(scaling))
        return attn_mul(k / scaling->block, attn_block_bytes(format->type, scaling, cols), bytes);
    return attn_panel_bytes(format, k, cols, bytes);
}

/* Copies k rows from `row`, a multiple of the format's k_unit, and n columns from `column`, the first of a panel, to
 * the first rows and columns of `to`; and what is left of the last panel. */
static inline void attn_panels_copy(const struct attn_format *format, const struct attn_panels *from, size_t row,
                                    size_t column, const struct attn_panels *to, size_t k, size_t n) {
    size_t bytes = 0, offset = 0;
    attn_panel_bytes(format, k, to->cols, &bytes);
    attn_panel_bytes(format, row, to->cols, &offset);
    const char *source = (const char *)from->data + column / to->cols * from->stride + offset;
    for (size_t j = 0; j < n; j += to->cols)
        memcpy((char *)to->data + j / to->cols * to->stride, source + j / to->cols * from->stride, bytes);
}

#endif
