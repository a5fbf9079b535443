/* Elementary functions over arrays: what every ISA's elementary.c consists of. */
#include "body/elementary.h"
#include "exp.h"

static void exp_array(const float *x, float *y, size_t n) {
    size_t i = 0;
    for (; i + 4 * VEC_LANES <= n; i += 4 * VEC_LANES) {
        vec e[4];
        UNROLL for (int j = 0; j < 4; j++) e[j] = vec_load(x + i + j * VEC_LANES);
        vec_exp_each(e, 4);
        UNROLL for (int j = 0; j < 4; j++) vec_store(y + i + j * VEC_LANES, e[j]);
    }
    for (; i < n; i += VEC_LANES) {
        vec e = vec_load_first(n - i, x + i);
        vec_exp_each(&e, 1);
        vec_store_first(n - i, y + i, e);
    }
}

static void log_array(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i += VEC_LANES)
        vec_store_first(n - i, y + i, vec_log(vec_load_first(n - i, x + i)));
}

static void tanh_array(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i += VEC_LANES)
        vec_store_first(n - i, y + i, vec_tanh(vec_load_first(n - i, x + i)));
}

static void sin_array(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i += VEC_LANES)
        vec_store_first(n - i, y + i, vec_sin(vec_load_first(n - i, x + i)));
}

static void cos_array(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i += VEC_LANES)
        vec_store_first(n - i, y + i, vec_cos(vec_load_first(n - i, x + i)));
}
