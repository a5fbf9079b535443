/* GEMM over packed weights, cut into tasks. */
#ifndef ATTN_OPS_GEMM_H
#define ATTN_OPS_GEMM_H

#include "checked.h"
#include "kernels.h"

/* A weight matrix [k, n] as one kernel packed it, with its bias. */
struct attn_packed {
    const struct attn_gemm_kernel *kernel;
    size_t k, n;
    size_t panel_stride;
    const float *panels;
    const float *bias; /* NULL for none */
};

/* Takes the memory for the panels and, if with_bias, for a bias. Touches none of it. */
void attn_packed_layout(struct attn_packed *packed, const struct attn_gemm_kernel *kernel, size_t k, size_t n,
                        bool with_bias, struct attn_arena *arena);

/* Packs w, which must have a bias if and only if memory was taken for one. */
void attn_packed_fill(struct attn_packed *packed, const attn_linear *w);

/* Rows so far apart, in floats, fall into the same cache sets, of which a product reads more rows at once than a set holds. */
enum { ATTN_ALIAS = 1024, ATTN_LINE = 16 };

/* Floats from one row to the next where we lay them out: a line more where rows would alias. */
static inline size_t attn_row_stride(size_t width) {
    return width % ATTN_ALIAS ? width : width + ATTN_LINE;
}

/* Takes room for rows of so many floats, at that distance. */
float *attn_take_rows(struct attn_arena *arena, size_t rows, size_t width);

/* Whether a product of m rows at that distance is quicker with a copy of them. */
bool attn_gemm_wants_rows(const struct attn_packed *w, size_t m, size_t x_stride);

/* y[m, n] = x[m, k] w + bias. */
void attn_op_gemm(const struct attn_packed *w, size_t m, const float *x, size_t x_stride, float *y, size_t y_stride,
                  const attn_parallel *parallel);

#endif
