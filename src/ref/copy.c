/* Reference copy of strided rows: both transposes are made of it. */
#include "kernels.h"

static void rows(size_t rows, size_t bytes, const void *x, size_t x_stride, void *y, size_t y_stride) {
    const char *from = x;
    char *to = y;
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < bytes; j++)
            to[i * y_stride + j] = from[i * x_stride + j];
}

const struct attn_copy_kernel attn_ref_copy = {.name = "scalar", .rows = rows};
