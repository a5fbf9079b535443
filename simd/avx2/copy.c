/* Copy of strided rows for AVX2: the end of each row in pieces. */
#include "kernels.h"
#include "vec.h"

static void rows(size_t rows, size_t size, const float *x, size_t x_stride, float *y, size_t y_stride) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < size; j += VEC_LANES)
            vec_store_first(size - j, y + i * y_stride + j, vec_load_first(size - j, x + i * x_stride + j));
}

const struct attn_copy_kernel attn_avx2_copy = {.name = "avx2", .rows = rows};
