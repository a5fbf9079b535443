/* Elementary functions for NEON. */
#include "body/elementary_arrays.h"
#include "kernels.h"

const struct attn_elementary_kernel attn_neon_elementary = {
    .name = "neon", .exp = exp_array, .log = log_array, .tanh = tanh_array, .sin = sin_array, .cos = cos_array};
