/* Copies of rows at any stride, in whole registers, the end of each row in part of one. Elements have 16 bits or
 * more: a register of floats holds what there is, and nothing looks at it. */
#include "body/objects.h"

enum { HALVES = 2 * VEC_LANES }; /* elements of 16 bits in a register */

/* x_stride and y_stride are in elements of 16 bits, of which a row has `size`. */
struct rows {
    size_t count, size;
    const uint16_t *x;
    size_t x_stride;
    uint16_t *y;
    size_t y_stride;
};

INLINE void copy_registers(const uint16_t *x, uint16_t *y, const int n) {
    vec v[4];
    UNROLL for (int i = 0; i < n; i++) v[i] = vec_load((const float *)(x + i * HALVES));
    UNROLL for (int i = 0; i < n; i++) vec_store((float *)(y + i * HALVES), v[i]);
}

/* `size` elements, fewer than a register has. */
INLINE void copy_end(const uint16_t *x, uint16_t *y, size_t size) {
    size_t floats = size / 2;
    if (floats > 0)
        vec_store_first(floats, (float *)y, vec_load_first(floats, (const float *)x));
    if (size % 2 != 0)
        y[size - 1] = x[size - 1];
}

/* Rows of `n` registers and an end, where there are `ends`. Short rows take as long as their branches, so that each
 * kind has a loop. */
INLINE void copy_short_rows(struct rows rows, const int n, const int ends) {
    for (size_t i = 0; i < rows.count; i++, rows.x += rows.x_stride, rows.y += rows.y_stride) {
        UNROLL for (int r = 0; r < n; r++) copy_registers(rows.x + r * HALVES, rows.y + r * HALVES, 1);
        if (ends)
            copy_end(rows.x + n * HALVES, rows.y + n * HALVES, rows.size - (size_t)n * HALVES);
    }
}

INLINE void copy_long_rows(struct rows rows) {
    size_t fours = rows.size / (4 * HALVES) * (4 * HALVES), whole = rows.size / HALVES * HALVES;
    for (size_t i = 0; i < rows.count; i++, rows.x += rows.x_stride, rows.y += rows.y_stride) {
        size_t j = 0;
        for (; j < fours; j += 4 * HALVES)
            copy_registers(rows.x + j, rows.y + j, 4);
        for (; j < whole; j += HALVES)
            copy_registers(rows.x + j, rows.y + j, 1);
        copy_end(rows.x + j, rows.y + j, rows.size - whole);
    }
}

INLINE void copy_kind(struct rows rows, const int n) {
    if (rows.size % HALVES == 0)
        copy_short_rows(rows, n, 0);
    else
        copy_short_rows(rows, n, 1);
}

static void ISA_FN(copy)(size_t count, size_t bytes, const void *x, size_t x_stride, void *y, size_t y_stride) {
    struct rows rows = {count, bytes / 2, x, x_stride / 2, y, y_stride / 2};
    switch (rows.size / HALVES) {
    case 0:
        copy_short_rows(rows, 0, 1);
        return;
    case 1:
        copy_kind(rows, 1);
        return;
    case 2:
        copy_kind(rows, 2);
        return;
    case 3:
        copy_kind(rows, 3);
        return;
    default:
        copy_long_rows(rows);
    }
}

const struct attn_copy_kernel ISA_OBJECT(copy) = {.name = ISA_NAME, .rows = ISA_FN(copy)};
