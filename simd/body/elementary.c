/* Elementary functions over arrays. */
#include "body/elementary.h"
#include "body/objects.h"
#include "exp.h"

static void ISA_FN(exp_array)(const float *x, float *y, size_t n) {
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

static void ISA_FN(log_array)(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i += VEC_LANES)
        vec_store_first(n - i, y + i, vec_log(vec_load_first(n - i, x + i)));
}

static void ISA_FN(tanh_array)(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i += VEC_LANES)
        vec_store_first(n - i, y + i, vec_tanh(vec_load_first(n - i, x + i)));
}

static void ISA_FN(sin_array)(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i += VEC_LANES)
        vec_store_first(n - i, y + i, vec_sin(vec_load_first(n - i, x + i)));
}

static void ISA_FN(cos_array)(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i += VEC_LANES)
        vec_store_first(n - i, y + i, vec_cos(vec_load_first(n - i, x + i)));
}

const struct attn_elementary_kernel ISA_OBJECT(elementary) = {
    .name = ISA_NAME,
    .exp = ISA_FN(exp_array),
    .log = ISA_FN(log_array),
    .tanh = ISA_FN(tanh_array),
    .sin = ISA_FN(sin_array),
    .cos = ISA_FN(cos_array),
};
