/* GEMM over packed weights, cut into tasks. */
#ifndef ATTN_OPS_GEMM_H
#define ATTN_OPS_GEMM_H

#include "format.h"

/* A weight matrix [k, n] as one kernel packed it, with its bias. */
struct attn_packed {
    const struct attn_gemm_kernel *kernel;
    size_t k, n;
    struct attn_panels panels;
    const float *bias; /* NULL for none */
};

/* Takes the memory for the panels and, if with_bias, for a bias. Touches none of it. */
void attn_packed_layout(struct attn_packed *packed, const struct attn_gemm_kernel *kernel, size_t k, size_t n,
                        bool with_bias, struct attn_arena *arena);

/* Packs w, which must have a bias if and only if memory was taken for one. */
void attn_packed_fill(struct attn_packed *packed, const attn_linear *w);

/* Rows whose distance is a multiple of ATTN_ALIAS floats (4 KiB) lie in the same sets of L1. A GEMM tile reads more
 * rows at once than a set has lines, so that they would evict each other. ATTN_LINE: the floats of a cache line. */
enum { ATTN_ALIAS = 1024, ATTN_LINE = 16 };

/* Floats from one row to the next in the library's own memory: a cache line more where rows would alias. */
static inline size_t attn_row_stride(size_t width) {
    return width % ATTN_ALIAS ? width : width + ATTN_LINE;
}

/* Takes memory for rows of `width` floats, attn_row_stride(width) apart. */
float *attn_take_rows(struct attn_arena *arena, size_t rows, size_t width);

/* y[m, n] = x[m, k] w + bias. */
void attn_op_gemm(const struct attn_packed *w, size_t m, const float *x, size_t x_stride, float *y, size_t y_stride,
                  const attn_parallel *parallel);

#endif
