/* Rows from one type to another. */
#ifndef ATTN_OPS_CONVERT_H
#define ATTN_OPS_CONVERT_H

#include "kernels.h"

/* y[j] = x[j] as BF16, j < n: rounded, unless x is BF16 already. */
static inline void attn_round_row(const struct attn_convert_kernel *convert, attn_type type, size_t n, const void *x,
                                  void *y) {
    enum { PIECE = 256 };
    float piece[PIECE];
    if (type == ATTN_F32) {
        convert->narrow(ATTN_BF16, n, x, y);
        return;
    }
    for (size_t j = 0; j < n; j += PIECE) {
        size_t left = n - j < PIECE ? n - j : PIECE;
        convert->widen(type, left, (const uint16_t *)x + j, piece);
        convert->narrow(ATTN_BF16, left, piece, (uint16_t *)y + j);
    }
}

/* y[j] = x[j] as a GEMM kernel takes elements of A, j < n: floats, in class BF16 rounded, or BF16. */
static inline void attn_take_row(const struct attn_convert_kernel *convert, const struct attn_gemm_kernel *kernel,
                                 attn_type type, size_t n, const void *x, void *y) {
    bool is_rounded = attn_class_is_bf16(kernel->arithmetic) && type != ATTN_BF16;
    if (kernel->a == ATTN_BF16) {
        attn_round_row(convert, type, n, x, y);
    } else if (is_rounded && type == ATTN_F32) {
        convert->round_bf16(n, x, y);
    } else {
        convert->widen(type, n, x, y);
        if (is_rounded)
            convert->round_bf16(n, y, y);
    }
}

#endif
