/* Elementary functions for AVX-512. */
#include "body/elementary_arrays.h"
#include "kernels.h"

const struct attn_elementary_kernel attn_avx512_elementary = {
    .name = "avx512", .exp = exp_array, .log = log_array, .tanh = tanh_array, .sin = sin_array, .cos = cos_array};
