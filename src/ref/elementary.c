/* Reference elementary functions over arrays. */
#include "ref/elementary.h"
#include "kernels.h"

static void exp_array(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i++)
        y[i] = ref_exp(x[i]);
}

static void log_array(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i++)
        y[i] = ref_log(x[i]);
}

static void tanh_array(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i++)
        y[i] = ref_tanh(x[i]);
}

static void sin_array(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i++)
        y[i] = ref_sin(x[i]);
}

static void cos_array(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i++)
        y[i] = ref_cos(x[i]);
}

const struct attn_elementary_kernel attn_ref_elementary = {
    .name = "scalar", .exp = exp_array, .log = log_array, .tanh = tanh_array, .sin = sin_array, .cos = cos_array};
