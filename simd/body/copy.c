/* Copies of rows at any stride, in whole registers, the end of each row in part of one. Elements have 16 bits or
 * more: a register of floats holds what there is, and nothing looks at it. */
#include "body/objects.h"

enum { HALVES = 2 * VEC_LANES }; /* elements of 16 bits in a register */

INLINE void copy_registers(const uint16_t *x, uint16_t *y, const int n) {
    vec v[4];
    UNROLL for (int i = 0; i < n; i++) v[i] = vec_load((const float *)(x + i * HALVES));
    UNROLL for (int i = 0; i < n; i++) vec_store((float *)(y + i * HALVES), v[i]);
}

/* `size` elements of 16 bits. Rows of at least 4 registers if `wide`: others would pay for the question. */
INLINE void copy_rows(size_t rows, size_t size, const uint16_t *x, size_t x_stride, uint16_t *y, size_t y_stride,
                      const int wide) {
    size_t fours = size / (4 * HALVES) * (4 * HALVES), whole = size / HALVES * HALVES, floats = (size - whole) / 2;
    for (size_t i = 0; i < rows; i++, x += x_stride, y += y_stride) {
        size_t j = 0;
        for (; wide && j < fours; j += 4 * HALVES)
            copy_registers(x + j, y + j, 4);
        for (; j < whole; j += HALVES)
            copy_registers(x + j, y + j, 1);
        if (floats > 0)
            vec_store_first(floats, (float *)(y + j), vec_load_first(floats, (const float *)(x + j)));
        if (size % 2 != 0)
            y[size - 1] = x[size - 1];
    }
}

static void ISA_FN(copy)(size_t rows, size_t bytes, const void *x, size_t x_stride, void *y, size_t y_stride) {
    if (bytes < 8 * HALVES)
        copy_rows(rows, bytes / 2, x, x_stride / 2, y, y_stride / 2, 0);
    else
        copy_rows(rows, bytes / 2, x, x_stride / 2, y, y_stride / 2, 1);
}

const struct attn_copy_kernel ISA_OBJECT(copy) = {.name = ISA_NAME, .rows = ISA_FN(copy)};
