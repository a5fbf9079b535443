/* Rotary embedding: the table of cosines and sines, and rotating a row by it. */
#ifndef ATTN_OPS_ROTARY_H
#define ATTN_OPS_ROTARY_H

#include "checked.h"
#include "kernels.h"

/* The object behind attn_rotary. */
struct attn_rotary {
    size_t positions, dims;
    bool interleaved;
    double *frequencies; /* [dims / 2] */
    float *table;        /* [positions][2][dims]: cosines, then sines with the sign of attn_attention_kernel.rotate */
};

/* Frequency of pair `i`; the config's base is resolved. */
double attn_rotary_frequency(const attn_rotary_config *config, size_t i);

/* Fills the table from the frequencies. */
void attn_op_rotary_fill(const struct attn_elementary_kernel *kernel, struct attn_rotary *rotary);

/* out = the row rotated to `position`: its first `dims` elements; the rest of its `size` elements are copied. A
 * position that the table lacks leaves the row as it is: keys that no row sees may have one. out may be row. */
void attn_rotary_rotate(const struct attn_attention_kernel *kernel, const struct attn_rotary *rotary, size_t position,
                        const float *row, size_t size, float *out);

#endif
