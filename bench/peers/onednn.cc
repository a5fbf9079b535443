/* oneDNN on one thread, everything prepared that can be known ahead: primitives are created, and layouts chosen by
 * oneDNN where they are not given by the problem. A call executes primitives and nothing else.
 *
 *   gemm/onednn             weights reordered ahead
 *   gemm/onednn, f32-int8   the nearest to ours: rows of floats are quantised by one scale known ahead, to u8 without a
 *                           zero point, which is what it is quickest at; then u8 x s8 with a scale for each output, to
 *                           floats. Ours finds a scale for each row, which is more work, and in f32-int8_32 has a
 *                           scale for each block too. oneDNN 3.7 has these in its reference implementation, on AVX2
 *   attention/onednn        product, softmax, product, batched over all heads; keys and values as they come
 *   attention_cache/onednn  the same with keys and values reordered ahead, as our cache has them
 *   softmax/onednn          over all columns
 *
 * Neither causality nor valid lengths are known to oneDNN's products: it computes every score, and no mask is added on
 * top. So the query heads of a kv head are rows of one head to it. */
#include "inputs.h"
#include "subject.h"
#include <cmath>
#include <dnnl.hpp>
#include <omp.h>
#include <vector>

namespace bench {
namespace {

using dnnl::memory;

memory::dim dim(std::size_t size) {
    return static_cast<memory::dim>(size);
}

struct machine {
    dnnl::engine engine;
    dnnl::stream stream;
};

machine &cpu() {
    static machine once = [] {
        omp_set_num_threads(1);
        if (attn_isa_chosen() == ATTN_ISA_AVX2)
            dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx2);
        const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
        return machine{engine, dnnl::stream(engine)};
    }();
    return once;
}

memory::data_type data_type_of(attn_type type) {
    return type == ATTN_F32 ? memory::data_type::f32 : memory::data_type::bf16;
}

memory::desc dense(const memory::dims &dims, memory::data_type type) {
    memory::dims strides(dims.size(), 1);
    for (std::size_t i = dims.size() - 1; i > 0; i--)
        strides[i - 1] = strides[i] * dims[i];
    return {dims, type, strides};
}

memory::desc dense(const memory::dims &dims, attn_type type) {
    return dense(dims, data_type_of(type));
}

memory at(const memory::desc &desc, const void *data) {
    return {desc, cpu().engine, const_cast<void *>(data)};
}

/* A primitive with its arguments. Executed through the C interface: the C++ one builds a map for every call. */
class step {
  public:
    step(const dnnl::primitive &of, std::vector<std::pair<int, memory>> with)
        : primitive(of), arguments(std::move(with)) {
        for (const auto &argument : arguments)
            list.push_back({argument.first, argument.second.get()});
    }

    void execute() const {
        if (dnnl_primitive_execute(primitive.get(), cpu().stream.get(), static_cast<int>(list.size()), list.data()) !=
            dnnl_success)
            throw failure("oneDNN could not execute a primitive");
    }

  private:
    dnnl::primitive primitive;
    std::vector<std::pair<int, memory>> arguments;
    std::vector<dnnl_exec_arg_t> list;
};

attn_status execute(const std::vector<step> &steps) {
    for (const step &step : steps)
        step.execute();
    dnnl_stream_wait(cpu().stream.get());
    return ATTN_OK;
}

/* `plain` in the layout of `wanted`: itself where that is its own. */
memory reordered(const memory &plain, const memory::desc &wanted) {
    if (plain.get_desc() == wanted)
        return plain;
    memory other(wanted, cpu().engine);
    allocated_bytes() += wanted.get_size();
    dnnl::reorder(plain, other).execute(cpu().stream, const_cast<memory &>(plain), other);
    cpu().stream.wait();
    return other;
}

/* What versions 2 and 3 call differently. */
#if DNNL_VERSION_MAJOR >= 3

memory::dims dims_of(const memory::desc &desc) {
    return desc.get_dims();
}

memory::data_type type_of(const memory::desc &desc) {
    return desc.get_data_type();
}

/* A scale known ahead. Version 3 has other scales only as arguments of each call. */
dnnl::primitive_attr scaled_by(float scale) {
    dnnl::post_ops after;
    after.append_eltwise(dnnl::algorithm::eltwise_linear, scale, 0);
    dnnl::primitive_attr attr;
    attr.set_post_ops(after);
    return attr;
}

/* Weights with a scale for each output, and rows with one for all, which are arguments of each call. */
dnnl::primitive_attr scaled_outputs(const std::vector<float> &) {
    dnnl::primitive_attr attr;
    attr.set_scales_mask(DNNL_ARG_WEIGHTS, 1 << 1);
    return attr;
}

void add_scales(std::vector<std::pair<int, memory>> &arguments, int of, const memory &scales) {
    arguments.push_back({DNNL_ARG_ATTR_SCALES | of, scales});
}

dnnl::primitive_attr quantising(float) {
    dnnl::primitive_attr attr;
    attr.set_scales_mask(DNNL_ARG_DST, 0);
    return attr;
}

dnnl::matmul::primitive_desc matmul_of(const memory::desc &a, const memory::desc &b, const memory::desc &c,
                                       const dnnl::primitive_attr &attr) {
    return {cpu().engine, a, b, c, attr};
}

dnnl::softmax_forward::primitive_desc softmax_of(const memory::desc &x, const memory::desc &y, int axis) {
    return {cpu().engine, dnnl::prop_kind::forward_inference, dnnl::algorithm::softmax_accurate, x, y, axis};
}

#else

memory::dims dims_of(const memory::desc &desc) {
    return desc.dims();
}

memory::data_type type_of(const memory::desc &desc) {
    return desc.data_type();
}

dnnl::primitive_attr scaled_by(float scale) {
    dnnl::primitive_attr attr;
    attr.set_output_scales(0, {scale});
    return attr;
}

dnnl::primitive_attr scaled_outputs(const std::vector<float> &scales) {
    dnnl::primitive_attr attr;
    attr.set_output_scales(1 << 1, scales);
    return attr;
}

void add_scales(std::vector<std::pair<int, memory>> &, int, const memory &) {}

dnnl::primitive_attr quantising(float scale) {
    dnnl::primitive_attr attr;
    attr.set_output_scales(0, {1 / scale});
    return attr;
}

dnnl::matmul::primitive_desc matmul_of(const memory::desc &a, const memory::desc &b, const memory::desc &c,
                                       const dnnl::primitive_attr &attr) {
    return {{a, b, c}, attr, cpu().engine};
}

/* y lies as x does. */
dnnl::softmax_forward::primitive_desc softmax_of(const memory::desc &x, const memory::desc &, int axis) {
    return {{dnnl::prop_kind::forward_inference, x, axis}, cpu().engine};
}

#endif

/* c = scale * a b, with b as it is or, where `ahead`, in the layout that oneDNN likes best. */
step product(const memory &a, const memory &b, const memory &c, float scale, bool ahead) {
    const memory::desc b_desc = b.get_desc();
    const memory::desc any(dims_of(b_desc), type_of(b_desc), memory::format_tag::any);
    const dnnl::primitive_attr attr = scale == 1 ? dnnl::primitive_attr() : scaled_by(scale);
    const auto desc = matmul_of(a.get_desc(), ahead ? any : b_desc, c.get_desc(), attr);
    return {dnnl::matmul(desc),
            {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, reordered(b, desc.weights_desc())}, {DNNL_ARG_DST, c}}};
}

step softmax(const memory &x, const memory &y) {
    const int last = static_cast<int>(dims_of(x.get_desc()).size()) - 1;
    const auto desc = softmax_of(x.get_desc(), y.get_desc(), last);
    return {dnnl::softmax_forward(desc), {{DNNL_ARG_SRC, x}, {DNNL_ARG_DST, y}}};
}

/* y = x w, with w in oneDNN's own layout. */
std::vector<step> steps_of(const gemm_shape &shape, attn_type type, const onednn_gemm &of) {
    const memory::dim m = dim(shape.m), n = dim(shape.n), k = dim(shape.k);
    return {product(at(dense({m, k}, type), of.x), at(dense({k, n}, type), of.weight), at(dense({m, n}, type), of.y), 1,
                    true)};
}

/* In BF16 the scores are BF16 too. */
std::vector<step> steps_of(const attention_shape &shape, bool ahead, attn_type type, const onednn_attention &of) {
    const memory::dim heads = dim(shape.batch * shape.key_heads()), size = dim(shape.head_size);
    const memory::dim q_len = dim(shape.group() * shape.q_len), kv_len = dim(shape.kv_len);
    const memory::desc keys({heads, size, kv_len}, data_type_of(type), {kv_len * size, 1, size});
    const memory q = at(dense({heads, q_len, size}, type), of.q);
    const memory k = at(keys, of.k);
    const memory v = at(dense({heads, kv_len, size}, type), of.v);
    const memory s = at(dense({heads, q_len, kv_len}, type), of.scores);
    const memory o = at(dense({heads, q_len, size}, type), of.o);
    const float scale = static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_size)));
    return {product(q, k, s, scale, ahead), softmax(s, s), product(s, v, o, 1, ahead)};
}

class gemm {
  public:
    gemm(const gemm_shape &shape, attn_type type)
        : in(shape), x(in.x, shape.m * shape.k, type), weight(in.weight, shape.k * shape.n, type),
          y(shape.m * shape.n, type), steps(steps_of(shape, type, {x.data(), weight.data(), y.data()})) {
        in = gemm_data(gemm_shape{});
    }

    attn_status operator()(attn_error *) { return execute(steps); }

  private:
    gemm_data in;
    typed_buffer x, weight, y;
    std::vector<step> steps;
};

class int8_gemm {
  public:
    explicit int8_gemm(const gemm_shape &shape)
        : x(random_normal(shape.m * shape.k, 1)), y(shape.m * shape.n), quantised(shape.m * shape.k),
          weight(shape.k * shape.n), scales(shape.n, 1e-3f) {
        random_bits bits(2);
        for (std::size_t i = 0; i < shape.k * shape.n; i++)
            weight.data()[i] = static_cast<std::int8_t>(bits.next());
        using type = memory::data_type;
        const memory::dim m = dim(shape.m), n = dim(shape.n), k = dim(shape.k);
        const memory rows = at(dense({m, k}, type::f32), x.data());
        const memory integers = at(dense({m, k}, type::u8), quantised.data());
        const memory result = at(dense({m, n}, type::f32), y.data());
        const memory one = at(dense({1}, type::f32), &row_scale), all = at(dense({n}, type::f32), scales.data());

        const dnnl::reorder::primitive_desc quantise(rows, integers, quantising(row_scale));
        const auto product = matmul_of(integers.get_desc(), {{k, n}, type::s8, memory::format_tag::any},
                                       result.get_desc(), scaled_outputs(scales));
        const memory packed = reordered(at(dense({k, n}, type::s8), weight.data()), product.weights_desc());
        std::vector<std::pair<int, memory>> of_quantise = {{DNNL_ARG_SRC, rows}, {DNNL_ARG_DST, integers}};
        std::vector<std::pair<int, memory>> of_product = {
            {DNNL_ARG_SRC, integers}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_DST, result}};
        add_scales(of_quantise, DNNL_ARG_DST, one);
        add_scales(of_product, DNNL_ARG_WEIGHTS, all);
        steps.push_back({dnnl::reorder(quantise), of_quantise});
        steps.push_back({dnnl::matmul(product), of_product});
    }

    attn_status operator()(attn_error *) { return execute(steps); }

  private:
    buffer<float> x, y;
    buffer<std::uint8_t> quantised;
    buffer<std::int8_t> weight;
    std::vector<float> scales;
    float row_scale = 1 / 40.0f;
    std::vector<step> steps;
};

class attention {
  public:
    attention(const attention_shape &shape, bool ahead, attn_type type)
        : attention(attention_data(shape), shape, ahead, type) {}

    attn_status operator()(attn_error *) { return execute(steps); }

  private:
    attention(const attention_data &in, const attention_shape &shape, bool ahead, attn_type type)
        : query(in.q, in.q_floats, type), key(in.k, in.kv_floats, type), value(in.v, in.kv_floats, type),
          output(in.q_floats, type), scores(shape.batch * shape.heads * shape.q_len * shape.kv_len, type),
          steps(steps_of(shape, ahead, type, {query.data(), key.data(), value.data(), scores.data(), output.data()})) {}

    typed_buffer query, key, value, output, scores;
    std::vector<step> steps;
};

class whole_softmax {
  public:
    explicit whole_softmax(const softmax_shape &shape)
        : x(random_normal(shape.rows * shape.cols, 1)), y(shape.rows * shape.cols) {
        const memory::desc desc = dense({dim(shape.rows), dim(shape.cols)}, ATTN_F32);
        steps.push_back(softmax(at(desc, x.data()), at(desc, y.data())));
    }

    attn_status operator()(attn_error *) { return execute(steps); }

  private:
    buffer<float> x, y;
    std::vector<step> steps;
};

/* make_subject, and `unsupported` for what this oneDNN lacks. */
template <class T, class... Args> subject subject_of(const work &work, Args &&...args) {
    try {
        return make_subject<T>(work, std::forward<Args>(args)...);
    } catch (const dnnl::error &error) {
        if (error.status == dnnl_unimplemented)
            throw unsupported("oneDNN " + onednn_version() + " has no such primitive for this processor");
        throw;
    }
}

} /* namespace */

void add_onednn(catalogue &to) {
    const attn_isa isa = attn_isa_chosen();
    for (const attn_type type : {ATTN_F32, ATTN_BF16}) {
        for (const gemm_shape &shape : gemm_shapes)
            to.push_back({"gemm", "onednn", shape.name, isa,
                          [&shape, type] { return subject_of<gemm>(with_type(least_work(shape), type), shape, type); },
                          false, type_suffix(type)});
        for (const attention_shape &shape : attention_shapes)
            for (const bool ahead : {false, true})
                if (!ahead || shape.over_cache)
                    to.push_back({ahead ? "attention_cache" : "attention", "onednn", shape.name, isa,
                                  [&shape, ahead, type] {
                                      return subject_of<attention>(with_type(least_work(shape), type), shape, ahead,
                                                                   type);
                                  },
                                  false, type_suffix(type)});
    }
    for (const product_types &types : all_product_types)
        if (types.rows == ATTN_F32 && types.weights == ATTN_INT8)
            for (const gemm_shape &shape : gemm_shapes)
                to.push_back({"gemm", "onednn", shape.name, isa,
                              [&shape, &types] { return subject_of<int8_gemm>(least_work(shape, types), shape); },
                              false, types.name});
    for (const softmax_shape &shape : softmax_shapes)
        to.push_back({"softmax", "onednn", shape.name, isa,
                      [&shape] { return subject_of<whole_softmax>(least_work(shape), shape); }});
}

void run_onednn(const gemm_shape &shape, attn_type type, const onednn_gemm &of) {
    execute(steps_of(shape, type, of));
}

void run_onednn(const attention_shape &shape, attn_type type, const onednn_attention &of) {
    execute(steps_of(shape, false, type, of));
}

std::string onednn_version() {
    const dnnl_version_t *version = dnnl_version();
    return std::to_string(version->major) + "." + std::to_string(version->minor) + "." + std::to_string(version->patch);
}

} /* namespace bench */
