/* The data of a shape, the same for us and for the peers, and the least that computing it takes. */
#ifndef ATTN_BENCH_INPUTS_H
#define ATTN_BENCH_INPUTS_H

#include "buffers.h"
#include "shapes.h"
#include "subject.h"
#include <cmath>

namespace bench {

/* A dense [in, out] weight without a bias. */
inline attn_linear linear_of(const buffer<float> &weight, std::size_t out) {
    attn_linear linear = {};
    linear.weight = weight.data();
    linear.in_stride = out;
    linear.out_stride = 1;
    return linear;
}

struct gemm_data {
    buffer<float> x, weight, y;

    explicit gemm_data(const gemm_shape &shape)
        : x(random_normal(shape.m * shape.k, 1)),
          weight(random_normal(shape.k * shape.n, 2, 1 / std::sqrt(static_cast<double>(shape.k)))),
          y(shape.m * shape.n) {}
};

inline work least_work(const gemm_shape &shape) {
    return {shape.flops(), sizeof(float) * static_cast<double>(shape.m * (shape.k + shape.n) + shape.k * shape.n), 0};
}

/* Dense [batch, heads, len, head_size] tensors. */
struct attention_data {
    std::size_t q_head, kv_head; /* floats */
    buffer<float> q, k, v, o;

    explicit attention_data(const attention_shape &shape)
        : q_head(shape.q_len * shape.head_size), kv_head(shape.kv_len * shape.head_size),
          q(random_normal(shape.batch * shape.heads * q_head, 1)),
          k(random_normal(shape.batch * shape.heads * kv_head, 2)),
          v(random_normal(shape.batch * shape.heads * kv_head, 3)), o(shape.batch * shape.heads * q_head) {}
};

/* Queries and output too, which for a step of decoding are nothing beside the visible keys and values. */
inline work least_work(const attention_shape &shape) {
    const std::size_t rows = 2 * shape.visible_keys() + 2 * shape.q_len;
    const double bytes = sizeof(float) * static_cast<double>(shape.batch * shape.heads * rows * shape.head_size);
    return {shape.attention_flops(), bytes, 0};
}

inline work least_work(const softmax_shape &shape) {
    return {0, sizeof(float) * static_cast<double>(shape.rows * (shape.valid + shape.cols)),
            static_cast<double>(shape.rows * shape.cols)};
}

inline work least_work(const exp_shape &shape) {
    const double elements = static_cast<double>(shape.elements);
    return {0, 2 * sizeof(float) * elements, elements};
}

/* Of a transpose: each element is read once and written once. */
inline std::size_t query_elements(const attention_shape &shape) {
    return shape.batch * shape.q_len * shape.heads * shape.head_size;
}

/* What there are heads to split of. */
inline bool has_transposes(const attention_shape &shape) {
    return shape.heads > 1 && shape.valid == 0 && !shape.over_cache;
}

inline work transpose_work(const attention_shape &shape) {
    return {0, 2 * sizeof(float) * static_cast<double>(query_elements(shape)), 0};
}

} /* namespace bench */

#endif
