/* Reference copy of strided rows: both transposes are made of it. */
#include "kernels.h"

static void rows(size_t rows, size_t size, const float *x, size_t x_stride, float *y, size_t y_stride) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < size; j++)
            y[i * y_stride + j] = x[i * x_stride + j];
}

const struct attn_copy_kernel attn_ref_copy = {.name = "scalar", .rows = rows};
