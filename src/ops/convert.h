/* Rows from one type to another. */
#ifndef ATTN_OPS_CONVERT_H
#define ATTN_OPS_CONVERT_H

#include "ops/tensor.h"

#include "kernels.h"

/* y[j] = x[j] widened and rounded, j < n. */
static inline void attn_convert_row(const struct attn_convert_kernel *convert, attn_type from, attn_type to, size_t n,
                                    const void *x, void *y) {
    enum { PIECE = 256 };
    float piece[PIECE];
    if (from == ATTN_F32) {
        convert->narrow(to, n, x, y);
        return;
    }
    if (to == ATTN_F32) {
        convert->widen(from, n, x, y);
        return;
    }
    for (size_t j = 0; j < n; j += PIECE) {
        size_t left = n - j < PIECE ? n - j : PIECE;
        convert->widen(from, left, attn_element_at(x, from, j), piece);
        convert->narrow(to, left, piece, (char *)y + j * attn_type_size(to));
    }
}

/* y[j] = x[j] as a GEMM kernel takes elements of A, j < n: floats, in class BF16 rounded, or BF16. */
static inline void attn_take_row(const struct attn_convert_kernel *convert, const struct attn_gemm_kernel *kernel,
                                 attn_type type, size_t n, const void *x, void *y) {
    bool is_rounded = attn_class_is_bf16(kernel->arithmetic) && type != ATTN_BF16;
    if (kernel->a == ATTN_BF16) {
        attn_convert_row(convert, type, ATTN_BF16, n, x, y);
    } else if (is_rounded && type == ATTN_F32) {
        convert->round_bf16(n, x, y);
    } else {
        convert->widen(type, n, x, y);
        if (is_rounded)
            convert->round_bf16(n, y, y);
    }
}

#endif
