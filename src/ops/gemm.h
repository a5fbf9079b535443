/* GEMM over packed weights, cut into tasks. */
#ifndef ATTN_OPS_GEMM_H
#define ATTN_OPS_GEMM_H

#include "format.h"
#include "ops/tensor.h"

/* A weight matrix [k, n] as one kernel packed it, with its bias. */
struct attn_packed {
    const struct attn_gemm_kernel *kernel;
    size_t k, n;
    struct attn_panels panels;
    struct attn_scaling scaling;
    const float *bias; /* NULL for none */
};

/* Takes the memory for its panels in that format, and for a bias; its sizes and its scaling are there. */
void attn_packed_take(struct attn_packed *packed, const struct attn_format *format, bool has_bias,
                      struct attn_arena *arena);

/* Takes the memory for the panels of w, and for its bias if it has one. Touches none of it, and looks at no data of
 * w's. */
void attn_packed_layout(struct attn_packed *packed, const struct attn_gemm_kernel *kernel, size_t k, size_t n,
                        const attn_linear *w, struct attn_arena *arena);

/* Packs w, which is as attn_packed_layout has seen it. */
void attn_packed_fill(struct attn_packed *packed, const attn_linear *w);

/* Rows whose distance is a multiple of ATTN_ALIAS bytes lie in the same sets of L1. A GEMM tile reads more rows at
 * once than a set has lines, so that they would evict each other. */
enum { ATTN_ALIAS = 4096, ATTN_LINE = 64 };

/* Elements from one row to the next in the library's own memory: a cache line more where rows would alias. */
static inline size_t attn_row_stride(size_t width, attn_type type) {
    size_t element = attn_type_size(type);
    return width * element % ATTN_ALIAS ? width : width + ATTN_LINE / element;
}

/* Takes memory for rows of `width` elements, attn_row_stride apart. */
void *attn_take_rows(struct attn_arena *arena, size_t rows, size_t width, attn_type type);

/* Rows of a tensor. */
struct attn_matrix {
    void *data;
    attn_type type;
    size_t stride; /* bytes from row to row */
};

/* Nothing is written through an input. */
static inline struct attn_matrix attn_matrix_of(const void *data, attn_type type, size_t row_stride) {
    return (struct attn_matrix){(void *)(uintptr_t)data, type, row_stride * attn_type_size(type)};
}

/* Bytes of memory that each task needs for a product of at most m rows of these types: rows that the kernel does not
 * take as they are, or returns as they are asked for, are converted some at a time, and a kernel may widen weights
 * there. 0 where there is nothing to convert or widen. False where that does not fit. */
bool attn_gemm_spare_bytes(const struct attn_packed *w, size_t m, attn_type x, attn_type y, size_t *bytes);

/* y[m, n] = x[m, k] w + bias. */
struct attn_gemm_call {
    const struct attn_kernels *table; /* whose kernels convert */
    const struct attn_packed *w;
    size_t m;
    struct attn_matrix x, y;
    char *spare; /* [tasks][spare_bytes] */
    size_t spare_bytes;
    const attn_parallel *parallel;
};

void attn_op_gemm(const struct attn_gemm_call *call);

#endif
