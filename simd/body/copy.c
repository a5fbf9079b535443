/* Copies of rows at any stride, in whole registers, the end of each row in part of one. */
#include "body/objects.h"

INLINE void copy_registers(const float *x, float *y, const int n) {
    vec v[4];
    UNROLL for (int i = 0; i < n; i++) v[i] = vec_load(x + i * VEC_LANES);
    UNROLL for (int i = 0; i < n; i++) vec_store(y + i * VEC_LANES, v[i]);
}

/* Rows of at least 4 registers if `wide`: others would pay for the question. */
INLINE void copy_rows(size_t rows, size_t size, const float *x, size_t x_stride, float *y, size_t y_stride,
                      const int wide) {
    size_t fours = size / (4 * VEC_LANES) * (4 * VEC_LANES), whole = size / VEC_LANES * VEC_LANES;
    for (size_t i = 0; i < rows; i++, x += x_stride, y += y_stride) {
        size_t j = 0;
        for (; wide && j < fours; j += 4 * VEC_LANES)
            copy_registers(x + j, y + j, 4);
        for (; j < whole; j += VEC_LANES)
            copy_registers(x + j, y + j, 1);
        if (j < size)
            vec_store_first(size - j, y + j, vec_load_first(size - j, x + j));
    }
}

static void ISA_FN(copy)(size_t rows, size_t size, const float *x, size_t x_stride, float *y, size_t y_stride) {
    if (size < 4 * VEC_LANES)
        copy_rows(rows, size, x, x_stride, y, y_stride, 0);
    else
        copy_rows(rows, size, x, x_stride, y, y_stride, 1);
}

const struct attn_copy_kernel ISA_OBJECT(copy) = {.name = ISA_NAME, .rows = ISA_FN(copy)};
