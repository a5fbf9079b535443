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

#endif
