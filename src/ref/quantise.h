/* Rows of A of the classes of integers. */
#ifndef ATTN_REF_QUANTISE_H
#define ATTN_REF_QUANTISE_H

#include "kernels.h"
#include "quantised.h"

void attn_ref_quantise(const struct attn_quantise_args *args);

#endif
