/* One product, or attention over the heads of one sequence, of numbers that lie in files of the current folder, and the
 * bounds of both. accuracy.py writes the files, and judges what comes of them.
 *
 *   attn-accuracy gemm WHO M N K X W Y BLOCK       x [m][k] and w of these types make y [m][n]
 *   attn-accuracy attention WHO HEADS ROWS KEYS SIZE TYPE O CACHE      q, k and v of TYPE, [head][row][size], make o
 *   attn-accuracy bound_product CLASS K BLOCK                          in proportion to the sum of abs(x w)
 *   attn-accuracy bound_attention CLASS SIZE KEYS SCORE                in proportion to the sum of abs(p v)
 *   attn-accuracy onednn                                               its version, where there is one
 *
 * WHO is `ours`, on the best ISA or that of ATTN_MAX_ISA, or `onednn`, which takes one type for all. w is [k][n]; of
 * `int8`, `int4` and `int4_dequantised` [n][k], and `scales` its scales, of each block unless BLOCK is 0. CACHE is the
 * type of a cache that k and v are appended to, or `none`; of an F8 the files k_scales and v_scales hold each head's
 * scale. */
#include "subject.h"
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
extern "C" {
#include "bounds.h"
}

namespace bench {
namespace {

/* ---- Files and types ---- */

buffer<char> read_file(const char *name) {
    std::ifstream file(name, std::ios::binary);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (bytes.empty())
        throw failure(std::string("there is nothing in ") + name);
    buffer<char> memory(bytes.size());
    std::memcpy(memory.data(), bytes.data(), bytes.size());
    return memory;
}

void write_file(const char *name, const buffer<char> &memory, std::size_t bytes) {
    if (!std::ofstream(name, std::ios::binary).write(memory.data(), static_cast<std::streamsize>(bytes)))
        throw failure(std::string("cannot write ") + name);
}

constexpr struct {
    const char *name;
    attn_type type;
    std::size_t bytes; /* of an element of a tensor */
} types[] = {{"f32", ATTN_F32, 4},   {"bf16", ATTN_BF16, 2},       {"f16", ATTN_F16, 2},        {"int8", ATTN_INT8, 0},
             {"int4", ATTN_INT4, 0}, {"f8_e4m3", ATTN_F8_E4M3, 0}, {"f8_e5m2", ATTN_F8_E5M2, 0}};

attn_type type_of(const std::string &name) {
    for (const auto &type : types)
        if (name == type.name)
            return type.type;
    throw failure("there is no type " + name);
}

std::size_t bytes_of(attn_type of) {
    for (const auto &type : types)
        if (type.type == of && type.bytes)
            return type.bytes;
    throw failure("no tensor has that type");
}

/* ---- Products ---- */

attn_linear linear_from(const std::string &type, const gemm_shape &shape, std::size_t block, const buffer<char> &w,
                        const buffer<char> &scales) {
    const bool dequantised = type == "int4_dequantised", quantised = dequantised || type == "int8" || type == "int4";
    const attn_type of = type_of(dequantised ? "int4" : type);
    attn_linear linear = quantised ? attn_linear_transposed(w.data(), of, shape.k, nullptr)
                                   : attn_linear_dense(w.data(), of, shape.n, nullptr);
    linear.scales = quantised ? scales.data() : nullptr;
    linear.block = block;
    linear.dequantised = dequantised;
    return linear;
}

void run_ours(const gemm_shape &shape, const attn_linear &w, const attn_tensor &x, const attn_tensor_out &y) {
    attn_gemm_config config = {};
    config.k = shape.k;
    config.n = shape.n;
    config.w = w;
    config.arithmetic = ATTN_ARITHMETIC_PORTABLE;
    buffer<char> memory(0), workspace(0);
    attn_gemm *gemm = create(config, attn_gemm_size, attn_gemm_create, memory);
    attn_gemm_run_args args = {};
    args.m = shape.m;
    args.x = x;
    args.y = y;
    attn_error error{};
    check(attn_gemm_workspace(gemm, &args, &args.workspace_bytes, &error), error);
    workspace = buffer<char>(args.workspace_bytes);
    args.workspace = workspace.data();
    check(attn_gemm_run(gemm, &args, &error), error);
}

void gemm(const std::string &who, const gemm_shape &shape, const char *const *of) {
    const attn_type x_type = type_of(of[0]), y_type = type_of(of[2]);
    const std::string w_type = of[1];
    const buffer<char> x = read_file("x"), w = read_file("w");
    const std::size_t bytes = shape.m * shape.n * bytes_of(y_type);
    buffer<char> y(bytes);
    if (who == "ours") {
        const bool scaled = w_type.compare(0, 3, "int") == 0;
        const buffer<char> scales = scaled ? read_file("scales") : buffer<char>(0);
        run_ours(shape, linear_from(w_type, shape, std::strtoul(of[3], nullptr, 10), w, scales),
                 attn_rows_dense(x.data(), x_type, shape.m, shape.k),
                 attn_rows_out_dense(y.data(), y_type, shape.m, shape.n));
    } else {
#if defined(HAVE_ONEDNN)
        run_onednn(shape, x_type, {x.data(), w.data(), y.data()});
#else
        throw failure("built without oneDNN");
#endif
    }
    write_file("y", y, bytes);
}

/* ---- Attention ---- */

/* Moves k and v into a cache of that type. */
void take_cache(attn_attention_args &args, attn_type type, buffer<char> &memory) {
    const bool is_f8 = type == ATTN_F8_E4M3 || type == ATTN_F8_E5M2;
    const buffer<char> k_scales = is_f8 ? read_file("k_scales") : buffer<char>(0);
    const buffer<char> v_scales = is_f8 ? read_file("v_scales") : buffer<char>(0);
    attn_cache_config config = {};
    config.type = type;
    config.k_scales = is_f8 ? reinterpret_cast<const float *>(k_scales.data()) : nullptr;
    config.v_scales = is_f8 ? reinterpret_cast<const float *>(v_scales.data()) : nullptr;
    fill_cache(make_cache(args, config, memory), args);
}

void run_ours(const attention_shape &shape, attn_type type, attn_type o_type, const std::string &cache,
              const void *const *in, void *o) {
    attn_attention_args args = {};
    args.arithmetic = ATTN_ARITHMETIC_PORTABLE;
    args.batch = 1;
    args.heads = shape.heads;
    args.q_len = shape.q_len;
    args.kv_len = shape.kv_len;
    args.head_size = shape.head_size;
    args.q = attn_tensor_dense(in[0], type, shape.heads, shape.q_len, shape.head_size);
    args.k = attn_tensor_dense(in[1], type, shape.heads, shape.kv_len, shape.head_size);
    args.v = attn_tensor_dense(in[2], type, shape.heads, shape.kv_len, shape.head_size);
    args.o = attn_tensor_out_dense(o, o_type, shape.heads, shape.q_len, shape.head_size);
    buffer<char> memory(0);
    if (cache != "none")
        take_cache(args, type_of(cache), memory);
    attn_error error{};
    std::size_t bytes = 0;
    check(attn_attention_workspace(&args, &bytes, &error), error);
    buffer<char> workspace(bytes);
    check(attn_attention(&args, workspace.data(), bytes, &error), error);
}

void attention(const std::string &who, const attention_shape &shape, const char *const *of) {
    const attn_type type = type_of(of[0]), o_type = type_of(of[1]);
    const buffer<char> q = read_file("q"), k = read_file("k"), v = read_file("v");
    const std::size_t bytes = shape.heads * shape.q_len * shape.head_size * bytes_of(o_type);
    buffer<char> o(bytes);
    if (who == "ours") {
        const void *const in[] = {q.data(), k.data(), v.data()};
        run_ours(shape, type, o_type, of[2], in, o.data());
    } else {
#if defined(HAVE_ONEDNN)
        buffer<char> scores(shape.heads * shape.q_len * shape.kv_len * bytes_of(type));
        run_onednn(shape, type, {q.data(), k.data(), v.data(), scores.data(), o.data()});
#else
        throw failure("built without oneDNN");
#endif
    }
    write_file("o", o, bytes);
}

/* ---- Bounds ---- */

attn_class class_of(const std::string &name, std::size_t block) {
    if (name == "int8" && block > 0)
        return ATTN_CLASS_INT8_BLOCKS;
    return name == "int4_dequantised" ? ATTN_CLASS_F32 : attn_class_of(type_of(name));
}

double bound(const std::string &what, int count, const char *const *arguments) {
    const auto size = [&](int i) { return std::strtoul(arguments[i], nullptr, 10); };
    if (what == "bound_product" && count == 3)
        return bound_product(class_of(arguments[0], size(2)), size(1), size(2), 1);
    if (what != "bound_attention" || count != 4)
        throw failure("see the first lines of accuracy.cc");
    const bound_row row = {size(1), size(2), std::strtod(arguments[3], nullptr)};
    return bound_attention(type_of(arguments[0]) == ATTN_BF16, &row, 0);
}

void answer(int count, const char *const *arguments) {
    const std::string what = count > 0 ? arguments[0] : "";
    const auto size = [&](int i) -> std::size_t { return std::strtoul(arguments[i], nullptr, 10); };
    if (what == "gemm" && count == 9)
        gemm(arguments[1], {"", size(2), size(3), size(4)}, arguments + 5);
    else if (what == "attention" && count == 9)
        attention(arguments[1], {"", 1, size(3), size(4), size(2), size(5), false, 0, false, 0}, arguments + 6);
#if defined(HAVE_ONEDNN)
    else if (what == "onednn")
        std::puts(onednn_version().c_str());
#endif
    else
        std::printf("%.17g\n", bound(what, count - 1, arguments + 1));
}

} /* namespace */
} /* namespace bench */

int main(int argc, char **argv) {
    try {
        bench::answer(argc - 1, argv + 1);
    } catch (const std::exception &error) {
        std::cerr << "attn-accuracy: " << error.what() << "\n";
        return 1;
    }
}
