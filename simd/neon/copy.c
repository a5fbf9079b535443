/* Copy of strided rows for NEON: a partial register at the end of each row. */
#include "kernels.h"
#include "vec.h"

static void rows(size_t rows, size_t size, const float *x, size_t x_stride, float *y, size_t y_stride) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < size; j += VEC_LANES)
            vec_store_first(size - j, y + i * y_stride + j, vec_load_first(size - j, x + i * x_stride + j));
}

const struct attn_copy_kernel attn_neon_copy = {.name = "neon", .rows = rows};
