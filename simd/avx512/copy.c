/* Copy of strided rows for AVX-512: a masked register at the end of each row. */
#include "kernels.h"
#include "vec.h"

static void rows(size_t rows, size_t size, const float *x, size_t x_stride, float *y, size_t y_stride) {
    size_t whole = size / VEC_LANES * VEC_LANES;
    vec_mask tail = vec_lanes(0, size - whole);
    for (size_t i = 0; i < rows; i++, x += x_stride, y += y_stride) {
        for (size_t j = 0; j < whole; j += VEC_LANES)
            vec_store(y + j, vec_load(x + j));
        if (tail)
            vec_store_mask(tail, y + whole, vec_load_mask(tail, x + whole));
    }
}

const struct attn_copy_kernel attn_avx512_copy = {.name = "avx512", .rows = rows};
