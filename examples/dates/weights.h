/* Weights as the library takes them, of any type, from PyTorch's floats. */
#ifndef DATES_WEIGHTS_H
#define DATES_WEIGHTS_H

#include "error.h"
#include <attn/attn.h>
#include <stddef.h>

#define WEIGHTS_BLOCK 32 /* weights of INT4 that share a scale */

/* One side of a weight: groups of `size` rows or columns, each in the place of `room`. What is beyond them is 0. */
struct side {
    size_t groups, size, room;
};

/* A weight until it is packed. */
struct weights {
    attn_linear linear;
    float *floats, *scales, *bias;
    void *elements;
};

/* Makes a weight of `type` out of `weight`, [out][in], and `bias`, [out] or NULL. INT8 has a scale for each output,
 * INT4 one for WEIGHTS_BLOCK inputs, of which the room is then a multiple. The bias stays as it is. To be freed also
 * where it fails. */
bool weights_make(struct weights *weights, attn_type type, const float *weight, const float *bias, struct side out,
                  struct side in, struct error *error);
void weights_free(struct weights *weights);

#endif
