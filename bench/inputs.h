/* The data of a shape, the same for us and for the peers, and the least that computing it takes. */
#ifndef ATTN_BENCH_INPUTS_H
#define ATTN_BENCH_INPUTS_H

#include "buffers.h"
#include "isas.h"
#include "shapes.h"
#include "subject.h"
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace bench {

/* A dense [in, out] weight without a bias. */
inline attn_linear linear_of(const buffer<float> &weight, std::size_t out) {
    attn_linear linear = {};
    linear.weight = weight.data();
    linear.in_stride = out;
    linear.out_stride = 1;
    return linear;
}

/* Numbers as elements of a float type. */
class typed_buffer {
  public:
    attn_type type;

    typed_buffer(const buffer<float> &numbers, std::size_t count, attn_type as)
        : type(as), memory(count * bytes_of(as)) {
        for (std::size_t i = 0; i < count; i++)
            if (type == ATTN_F32)
                reinterpret_cast<float *>(memory.data())[i] = numbers.data()[i];
            else
                reinterpret_cast<std::uint16_t *>(memory.data())[i] =
                    type == ATTN_F16 ? f16(numbers.data()[i]) : bf16(numbers.data()[i]);
    }

    /* For results. */
    typed_buffer(std::size_t count, attn_type as) : type(as), memory(count * bytes_of(as)) {}

    void *data() { return memory.data(); }
    const void *data() const { return memory.data(); }

  private:
    buffer<char> memory;

    static std::size_t bytes_of(attn_type type) { return type == ATTN_F32 ? 4 : 2; }

    static std::uint32_t bits_of(float x) {
        std::uint32_t bits;
        std::memcpy(&bits, &x, sizeof bits);
        return bits;
    }

    /* Of numbers and infinities, rounded to nearest even, as the next. */
    static std::uint16_t bf16(float x) {
        const std::uint32_t bits = bits_of(x);
        return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }

    static std::uint16_t f16(float x) {
        const std::uint32_t bits = bits_of(std::fabs(x)), sign = bits_of(x) >> 16 & 0x8000;
        if (bits < 113u << 23) /* the exponent of 2^-14: denormal */
            return static_cast<std::uint16_t>(sign | static_cast<std::uint32_t>(std::lrint(std::fabs(x) * 0x1p24f)));
        const std::uint32_t half = (bits - (112u << 23) + 0xfff + (bits >> 13 & 1)) >> 13;
        return static_cast<std::uint16_t>(sign | std::min(half, std::uint32_t{0x7c00}));
    }
};

/* What the last part of a benchmark's name says of float types. */
inline const char *type_suffix(attn_type type) {
    return type == ATTN_F32 ? "" : type == ATTN_F16 ? "f16" : "bf16";
}

/* The same work with elements of a float type, whose products are those of its class: F16 is widened. */
inline work with_type(work work, attn_type type) {
    work.bytes *= type == ATTN_F32 ? 1 : 0.5;
    work.bf16_flops = type == ATTN_BF16 ? work.flops : 0;
    return work;
}

/* Random weights [k, n] of any type, of mean 0 and standard deviation 1 / sqrt(k). Scales of blocks
 * are F16. */
class typed_weights {
  public:
    static bool fits(const product_types &types, std::size_t k) { return types.block == 0 || k % types.block == 0; }

    typed_weights(const product_types &of, std::size_t rows, std::size_t cols, std::uint64_t seed)
        : types(of), k(rows), n(cols), integers(is_float() ? 0 : k * n / (types.weights == ATTN_INT4 ? 2 : 1)),
          floats(is_float() ? random_normal(k * n, seed, deviation()) : buffer<float>(0), is_float() ? k * n : 0,
                 is_float() ? types.weights : ATTN_F32),
          scales(scale_numbers(), scale_count(), types.block > 0 ? ATTN_F16 : ATTN_F32) {
        random_bits bits(seed);
        for (std::uint8_t &element : integers)
            element = static_cast<std::uint8_t>(bits.next());
    }

    attn_linear linear() const {
        attn_linear linear = {};
        linear.type = types.weights;
        linear.weight = is_float() ? floats.data() : integers.data();
        linear.in_stride = is_float() ? n : 1;
        linear.out_stride = is_float() ? 1 : k;
        if (is_float())
            return linear;
        linear.scales = scales.data();
        linear.scale_type = scales.type;
        linear.block = types.block;
        linear.dequantised = types.dequantised;
        return linear;
    }

  private:
    product_types types;
    std::size_t k, n;
    std::vector<std::uint8_t> integers;
    typed_buffer floats, scales;

    bool is_float() const { return types.weights != ATTN_INT8 && types.weights != ATTN_INT4; }
    double deviation() const { return 1 / std::sqrt(static_cast<double>(k)); }
    std::size_t scale_count() const { return is_float() ? 0 : types.block > 0 ? n * (k / types.block) : n; }

    /* Uniform bytes have the standard deviation 74, half bytes 4.6. */
    buffer<float> scale_numbers() const {
        buffer<float> numbers(scale_count());
        const double deviation_of_integers = types.weights == ATTN_INT4 ? 4.6 : 74;
        std::fill_n(numbers.data(), scale_count(), static_cast<float>(deviation() / deviation_of_integers));
        return numbers;
    }
};

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

/* Of so many elements of rows, and of weights, whose scales are little beside them. */
inline double bytes_of(const product_types &types, std::size_t rows, std::size_t weights) {
    const double row_bytes = types.rows == ATTN_F32 ? 4 : 2;
    return row_bytes * static_cast<double>(rows) + types.weight_bytes() * static_cast<double>(weights);
}

inline work least_work(const gemm_shape &shape, const product_types &types) {
    work work = {shape.flops(), bytes_of(types, shape.m * (shape.k + shape.n), shape.k * shape.n), 0};
    work.integer_flops = types.of_integers() ? work.flops : 0;
    work.bf16_flops = types.weights == ATTN_BF16 ? work.flops : 0;
    return work;
}

/* Dense [batch, heads, len, head_size] tensors; keys and values have kv heads. */
struct attention_data {
    std::size_t q_head, kv_head;     /* floats of a head */
    std::size_t q_floats, kv_floats; /* of all */
    buffer<float> q, k, v, o;

    explicit attention_data(const attention_shape &shape)
        : q_head(shape.q_len * shape.head_size), kv_head(shape.kv_len * shape.head_size),
          q_floats(shape.batch * shape.heads * q_head), kv_floats(shape.batch * shape.key_heads() * kv_head),
          q(random_normal(q_floats, 1)), k(random_normal(kv_floats, 2)), v(random_normal(kv_floats, 3)), o(q_floats) {}
};

/* Queries and output too, which for a step of decoding are nothing beside the visible keys and values. */
inline work least_work(const attention_shape &shape) {
    const std::size_t rows = shape.key_heads() * shape.visible_keys() + shape.heads * shape.q_len;
    const double bytes = sizeof(float) * static_cast<double>(2 * shape.batch * rows * shape.head_size);
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
    return shape.heads > 1 && shape.group() == 1 && shape.valid == 0 && !shape.over_cache;
}

inline work transpose_work(const attention_shape &shape) {
    return {0, 2 * sizeof(float) * static_cast<double>(query_elements(shape)), 0};
}

} /* namespace bench */

#endif
