/* Elementary functions for NEON: exp inlined, the others a call of SLEEF's per register. */
#include <sleef.h>

#include "exp.h"
#include "kernels.h"

static void exp_array(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i += VEC_LANES)
        vec_store_first(n - i, y + i, vec_exp(vec_load_first(n - i, x + i)));
}

static void log_array(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i += VEC_LANES)
        vec_store_first(n - i, y + i, Sleef_finz_logf4_u10advsimd(vec_load_first(n - i, x + i)));
}

static void tanh_array(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i += VEC_LANES)
        vec_store_first(n - i, y + i, Sleef_finz_tanhf4_u10advsimd(vec_load_first(n - i, x + i)));
}

static void sin_array(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i += VEC_LANES)
        vec_store_first(n - i, y + i, Sleef_finz_sinf4_u10advsimd(vec_load_first(n - i, x + i)));
}

static void cos_array(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i += VEC_LANES)
        vec_store_first(n - i, y + i, Sleef_finz_cosf4_u10advsimd(vec_load_first(n - i, x + i)));
}

const struct attn_elementary_kernel attn_neon_elementary = {
    .name = "neon", .exp = exp_array, .log = log_array, .tanh = tanh_array, .sin = sin_array, .cos = cos_array};
