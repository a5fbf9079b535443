/* The data of a shape, the same for us and for the peers, and the least that computing it takes. */
#ifndef ATTN_BENCH_INPUTS_H
#define ATTN_BENCH_INPUTS_H

#include "buffers.h"
#include "shapes.h"
#include "subject.h"
#include <cmath>
#include <cstdint>
#include <cstring>

namespace bench {

/* A dense [in, out] weight without a bias. */
inline attn_linear linear_of(const buffer<float> &weight, std::size_t out) {
    attn_linear linear = {};
    linear.weight = weight.data();
    linear.in_stride = out;
    linear.out_stride = 1;
    return linear;
}

/* Numbers as elements of a type, F32 or BF16. */
class typed_buffer {
  public:
    attn_type type;

    typed_buffer(const buffer<float> &numbers, std::size_t count, attn_type as)
        : type(as), memory(count * bytes_of(as)) {
        for (std::size_t i = 0; i < count; i++)
            if (type == ATTN_F32)
                reinterpret_cast<float *>(memory.data())[i] = numbers.data()[i];
            else
                reinterpret_cast<std::uint16_t *>(memory.data())[i] = bf16(numbers.data()[i]);
    }

    /* For results. */
    typed_buffer(std::size_t count, attn_type as) : type(as), memory(count * bytes_of(as)) {}

    void *data() { return memory.data(); }

  private:
    buffer<char> memory;

    static std::size_t bytes_of(attn_type type) { return type == ATTN_F32 ? 4 : 2; }

    /* Of numbers, rounded to nearest even. */
    static std::uint16_t bf16(float x) {
        std::uint32_t bits;
        std::memcpy(&bits, &x, sizeof bits);
        return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
};

inline const char *type_suffix(attn_type type) {
    return type == ATTN_F32 ? "" : "bf16";
}

/* The same work with elements of a type. */
inline work with_type(work work, attn_type type) {
    work.bytes *= type == ATTN_F32 ? 1 : 0.5;
    return work;
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
