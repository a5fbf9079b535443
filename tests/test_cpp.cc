// attn/attn.hpp: the bits of the C functions, errors as exceptions, extents, and objects that are moved. Compiled as C++17 and
// as C++20, which has std::span.
#include <array>
#include <attn/attn.hpp>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>
#if __cplusplus >= 202002L
#include <span>
#endif

namespace {

constexpr std::size_t heads = 2, size = 4, width = heads * size, len = 3;

int failures = 0;

void expect(bool holds, const char *what, int line) {
    if (!holds) {
        std::fprintf(stderr, "line %d: not so: %s\n", line, what);
        failures++;
    }
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

// Whether the call throws exactly that error, and says so.
template <class Call> bool throws(attn_status status, const char *field, Call call) {
    try {
        call();
    } catch (const attn::error &error) {
        return error.details().status == status && std::strcmp(error.details().field, field) == 0 &&
               std::strncmp(error.what(), field, std::strlen(field)) == 0;
    }
    return false;
}

std::vector<float> numbers(std::size_t count) {
    std::vector<float> x(count);
    for (std::size_t i = 0; i < count; i++)
        x[i] = static_cast<float>(i * 7919 % 101) / 101 - 0.5f;
    return x;
}

bool same_bits(const std::vector<float> &a, const std::vector<float> &b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

attn_layer_config layer_config(const std::vector<float> &w) {
    attn_layer_config config{};
    config.query_width = config.key_width = config.value_width = config.hidden = width;
    config.heads = heads;
    config.w_q = config.w_k = attn::linear(w, width, width);
    config.w_v = config.w_o = attn::linear_transposed(w, width, width);
    return config;
}

attn_layer_args layer_args(const std::vector<float> &x, std::vector<float> &y) {
    attn_layer_args args{};
    args.batch = 1;
    args.q_len = args.kv_len = len;
    args.q = args.k = args.v = attn::rows(x, {1, len, width});
    args.y = attn::rows_out(y, {1, len, width});
    return args;
}

void layers_have_the_bits_of_c() {
    const std::vector<float> w = numbers(width * width), x = numbers(len * width);
    std::vector<float> y(len * width), from_c(len * width);
    const attn_layer_config config = layer_config(w);
    attn_layer_args args = layer_args(x, from_c);
    attn_layer *c = nullptr;
    attn_buffer buffer{};
    EXPECT(attn_layer_new(&config, &c, nullptr) == ATTN_OK);
    EXPECT(attn_layer_forward_in(c, &args, &buffer, nullptr) == ATTN_OK);
    attn_buffer_free(&buffer);
    attn_free(c);

    const attn::layer layer(config);
    attn::workspace workspace;
    args = layer_args(x, y);
    layer.forward(args, workspace);
    EXPECT(same_bits(y, from_c));
    EXPECT(layer.kernels().find("gemm=") != std::string::npos);
    EXPECT(layer.kernels().size() == attn_layer_kernels(layer.get(), nullptr, 0));

    const std::size_t bytes = layer.export_size();
    const std::unique_ptr<void, void (*)(void *)> blob(attn_alloc(bytes), attn_free);
    layer.export_to(blob.get(), bytes);
    attn_import_config from{};
    from.blob = blob.get();
    from.blob_bytes = bytes;
    std::fill(y.begin(), y.end(), 0.0f);
    attn::layer(from).forward(args, workspace);
    EXPECT(same_bits(y, from_c));
    from.blob_bytes--;
    EXPECT(throws(ATTN_TOO_SMALL, "blob_bytes", [&] { attn::layer bad(from); }));

    attn::cache cache(layer.cache_config(1, len + 1));
    attn_layer_append_args append{};
    append.len = len;
    append.k = append.v = args.k;
    append.cache = cache.get();
    layer.append(append, workspace);
    EXPECT(cache.length() == len && cache.length(0) == len && cache.length(1) == 0);
    args.cache = cache.get();
    std::fill(y.begin(), y.end(), 0.0f);
    layer.forward(args, workspace);
    EXPECT(same_bits(y, from_c));
    cache.truncate(0, 1);
    EXPECT(cache.length() == 1);
}

// The same keys and values from a tensor, a cache, a fork of it, pages.
void attention_has_the_same_bits_from_every_cache() {
    const std::vector<float> x = numbers(len * width);
    std::vector<float> expected(len * width), o(len * width);
    attn_attention_args args{};
    args.batch = 1;
    args.heads = heads;
    args.q_len = args.kv_len = len;
    args.head_size = size;
    args.q = args.k = args.v = attn::merged(x, {1, heads, len, size});
    args.o = attn::merged_out(expected, {1, heads, len, size});
    attn::workspace workspace;
    attn::attention(args, workspace);

    attn_cache_config config{};
    config.batch = 1;
    config.kv_heads = heads;
    config.head_size = size;
    config.capacity = 32;
    attn::cache plain(config);
    config.kind = ATTN_CACHE_PAGED;
    config.page_size = 16;
    config.pages = 2;
    attn::cache paged(config);
    paged.set_pages(0, 0, std::array<std::int32_t, 2>{1, 0});
    attn_cache_append_args append{};
    append.len = len;
    append.k = append.v = args.k;
    plain.append(append);
    paged.append(append);
    attn_cache_fork_config fork_config{};
    fork_config.parent = plain.get();
    fork_config.batch = 1;
    fork_config.len = len;
    fork_config.capacity = 32;
    const attn::cache fork(fork_config);

    args.o.data = o.data();
    for (const attn::cache *cache : {&std::as_const(plain), &std::as_const(paged), &fork}) {
        std::fill(o.begin(), o.end(), 0.0f);
        args.cache = cache->get();
        attn::attention(args, workspace);
        EXPECT(same_bits(o, expected));
    }
}

void gemms_and_parts_run() {
    const std::vector<float> w = numbers(width * width), x = numbers(len * width), bias(width, 1.0f);
    std::vector<float> y(len * width), split(len * width), back(len * width);
    attn_gemm_config config{};
    config.k = config.n = width;
    config.w = attn::linear(w, width, width, bias);
    attn_gemm_run_args run{};
    run.m = len;
    run.x = attn::rows(x, {1, len, width});
    run.y = attn::rows_out(y, {1, len, width});
    attn::workspace workspace;
    const attn::gemm gemm(config);
    const std::size_t bytes = gemm.export_size();
    const std::unique_ptr<void, void (*)(void *)> blob(attn_alloc(bytes), attn_free);
    gemm.export_to(blob.get(), bytes);
    attn_import_config from{};
    from.blob = blob.get();
    from.blob_bytes = bytes;
    attn::gemm(from).run(run, workspace);
    const std::vector<float> imported = y;
    gemm.run(run, workspace);
    EXPECT(same_bits(y, imported));
    double y00 = 1;
    for (std::size_t k = 0; k < width; k++)
        y00 += static_cast<double>(x[k]) * static_cast<double>(w[k * width]);
    EXPECT(y[0] - y00 < 1e-6 && y00 - y[0] < 1e-6);

    attn_transpose_args transpose{};
    transpose.batch = 1;
    transpose.len = len;
    transpose.heads = heads;
    transpose.head_size = size;
    transpose.x = attn::rows(x, {1, len, width});
    transpose.y = attn::dense_out(split, {1, heads, len, size});
    attn::transpose_qkv(transpose);
    EXPECT(split[len * size] == x[size]);
    transpose.x = attn::dense(split, {1, heads, len, size});
    transpose.y = attn::rows_out(back, {1, len, width});
    attn::transpose_output(transpose);
    EXPECT(same_bits(back, x));

    attn_softmax_args softmax{};
    softmax.batch = 1;
    softmax.rows = len;
    softmax.cols = width;
    softmax.x = run.x;
    softmax.y = run.y;
    attn::masked_softmax(softmax);
    EXPECT(y[0] > 0 && y[0] < 1);

    attn_rotary_config rotary{};
    rotary.positions = 4;
    rotary.dims = size;
    EXPECT(attn::rotary(rotary).get() != nullptr);
}

void errors_are_exceptions() {
    const std::vector<float> w = numbers(width * width);
    std::vector<float> y(len * width);
    attn_layer_config config = layer_config(w);
    const attn::layer layer(config);
    config.heads = 3;
    EXPECT(throws(ATTN_BAD_SIZE, "heads", [&] { attn::layer bad(config); }));
    EXPECT(throws(ATTN_TOO_SMALL, "weight", [&] { attn::linear(w, width, width + 1); }));
    EXPECT(throws(ATTN_TOO_SMALL, "bias", [&] { attn::linear(w, width, width, {w.data(), width - 1}); }));
    EXPECT(throws(ATTN_TOO_SMALL, "data", [&] { attn::rows(w, {1, width + 1, width}); }));
    EXPECT(throws(ATTN_TOO_SMALL, "data", [&] { attn::dense_out(y, {2, heads, len, size}); }));
    EXPECT(throws(ATTN_OVERFLOW, "data", [&] { attn::dense(w, {1, static_cast<std::size_t>(-1), 2, 1}); }));
    attn::merged(w, {0, static_cast<std::size_t>(-1), 2, 1}); // nothing is needed

    attn_merge_args merge{};
    EXPECT(throws(ATTN_BAD_SIZE, "parts", [&] { attn::merge(merge); }));
    attn::workspace workspace;
    attn_layer_args args = layer_args(w, y);
    args.q.row_stride = 1;
    EXPECT(throws(ATTN_BAD_STRIDE, "q.row_stride", [&] { layer.forward(args, workspace); }));
    attn_cache_config plain = layer.cache_config(1, 16);
    attn::cache cache(plain);
    EXPECT(throws(ATTN_BAD_SIZE, "sequence", [&] { cache.truncate(1, 0); }));
    EXPECT(throws(ATTN_BAD_SIZE, "cache", [&] { cache.adopt(0, 1); }));
}

void objects_are_moved() {
    const std::vector<float> w = numbers(width * width), x = numbers(len * width);
    std::vector<float> y(len * width), again(len * width);
    attn::layer first(layer_config(w));
    attn::workspace workspace;
    first.forward(layer_args(x, y), workspace);
    attn::layer second(std::move(first));
    attn::workspace moved(std::move(workspace));
    second.forward(layer_args(x, again), moved);
    EXPECT(same_bits(y, again));
    EXPECT(throws(ATTN_NULL_POINTER, "layer", [&] { first.forward(layer_args(x, y), moved); }));
    first = std::move(second);
    workspace = std::move(moved);
    first.forward(layer_args(x, again), workspace);
    EXPECT(same_bits(y, again));
    static_assert(!std::is_copy_constructible_v<attn::layer> && !std::is_copy_constructible_v<attn::workspace>);
}

void elements_come_from_many_things() {
    float array[6] = {};
    const bool mask[2] = {true, false};
    EXPECT(attn::rows(array, {1, 2, 3}).data == array);
    EXPECT(attn::rows({array, 6}, {1, 2, 3}).type == ATTN_F32);
    EXPECT(attn::rows(mask, {1, 1, 2}).type == ATTN_BOOL);
    const std::vector<std::uint16_t> bf16(6);
    EXPECT(attn::linear({bf16.data(), bf16.size(), ATTN_BF16}, 2, 3).type == ATTN_BF16);
    EXPECT(attn::rows_out({static_cast<void *>(array), 24, ATTN_BOOL}, {1, 1, 24}).type == ATTN_BOOL);
#if __cplusplus >= 202002L
    EXPECT(attn::rows(std::span<const float>(array), {1, 2, 3}).data == array);
    EXPECT(attn::rows_out(std::span(array), {1, 2, 3}).row_stride == 3);
    EXPECT(attn::linear(std::span(array), 2, 3).in_stride == 3);
#endif
}

} // namespace

int main() {
    layers_have_the_bits_of_c();
    attention_has_the_same_bits_from_every_cache();
    gemms_and_parts_run();
    errors_are_exceptions();
    objects_are_moved();
    elements_come_from_many_things();
    return failures != 0;
}
