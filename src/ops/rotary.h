/* Rotary embedding: the table of angles, and turning a row by it. */
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

/* out = row of `size` elements, at least dims, turned to `position`. One that the table lacks leaves it as it is: a key that no
 * row sees may have such a one. out may be row. */
void attn_rotary_turn(const struct attn_attention_kernel *kernel, const struct attn_rotary *rotary, size_t position,
                      const float *row, size_t size, float *out);

#endif
