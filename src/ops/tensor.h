/* Where rows of tensors and elements of arrays lie. */
#ifndef ATTN_OPS_TENSOR_H
#define ATTN_OPS_TENSOR_H

#include <attn/attn.h>
#include <stdbool.h>
#include <stddef.h>

#include "types.h"

/* Element `i` of an array. */
static inline const void *attn_element_at(const void *x, attn_type type, size_t i) {
    return (const char *)x + i * attn_type_size(type);
}

/* Row `i` of head `h` of batch entry `b` of a tensor. */
static inline const void *attn_typed_row_at(const attn_tensor *x, size_t b, size_t h, size_t i) {
    return attn_element_at(x->data, x->type, b * x->batch_stride + h * x->head_stride + i * x->row_stride);
}

static inline void *attn_typed_row_out_at(const attn_tensor_out *y, size_t b, size_t h, size_t i) {
    return (char *)y->data + (b * y->batch_stride + h * y->head_stride + i * y->row_stride) * attn_type_size(y->type);
}

/* The same for floats. */
static inline const float *attn_row_at(const attn_tensor *x, size_t b, size_t h, size_t i) {
    return (const float *)x->data + b * x->batch_stride + h * x->head_stride + i * x->row_stride;
}

static inline float *attn_row_out_at(const attn_tensor_out *y, size_t b, size_t h, size_t i) {
    return (float *)y->data + b * y->batch_stride + h * y->head_stride + i * y->row_stride;
}

/* An output as if it were an input, and back. */
static inline attn_tensor attn_as_input(const attn_tensor_out *y) {
    return (attn_tensor){y->data, y->type, y->batch_stride, y->head_stride, y->row_stride, y->col_stride};
}

static inline attn_tensor_out attn_as_output(const attn_tensor *x, void *data) {
    return (attn_tensor_out){data, x->type, x->batch_stride, x->head_stride, x->row_stride, x->col_stride};
}

/* With strides for [batch, heads, len, cols]: those of a dense array where all were left 0; a column stride that was
 * left 0 is 1. Products of sizes may wrap: whether they fit is checked elsewhere. */
static inline attn_tensor attn_with_strides(const attn_tensor *x, size_t heads, size_t len, size_t cols) {
    attn_tensor y = *x;
    if ((x->batch_stride | x->head_stride | x->row_stride | x->col_stride) == 0) {
        y.batch_stride = heads * len * cols;
        y.head_stride = len * cols;
        y.row_stride = cols;
    }
    if (y.col_stride == 0)
        y.col_stride = 1;
    return y;
}

static inline attn_tensor_out attn_out_with_strides(const attn_tensor_out *x, size_t heads, size_t len, size_t cols) {
    attn_tensor y = attn_as_input(x);
    y = attn_with_strides(&y, heads, len, cols);
    return attn_as_output(&y, x->data);
}

/* Whether an array of integers was given, and its element `i`. */
static inline bool attn_ints_given(const attn_ints *x) {
    return x->i64 || x->i32;
}

static inline int64_t attn_ints_at(const attn_ints *x, size_t i) {
    return x->i64 ? x->i64[i] : x->i32[i];
}

/* Element `i`, or 0 if the array was not given. */
static inline int64_t attn_ints_or_0(const attn_ints *x, size_t i) {
    return attn_ints_given(x) ? attn_ints_at(x, i) : 0;
}

#endif
