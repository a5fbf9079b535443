/* Attention over dense [batch, heads, len, head_size] tensors and, for decode shapes, over a cache as well
 * ("attention_cache"): keys and values then were packed when they were appended. */
#include "operation.h"
#include "shapes.h"

namespace bench {
namespace {

/* A step of decoding is bound by its keys and values; else every tensor counts. */
double least_bytes(const attention_shape &shape) {
    const std::size_t rows = 2 * shape.kv_len + (shape.decode() ? 0 : 2 * shape.q_len);
    return sizeof(float) * static_cast<double>(shape.batch * shape.heads * rows * shape.head_size);
}

attn_cache *filled_cache(benchmark::State &state, const attn_attention_args &args, buffer<char> &memory) {
    attn_cache_config config = {};
    config.isa = args.isa;
    config.batch = args.batch;
    config.kv_heads = args.heads;
    config.head_size = args.head_size;
    config.capacity = args.kv_len;
    attn_cache *cache = create(state, config, attn_cache_size, attn_cache_create, memory);
    const char *field = nullptr;
    if (!cache || failed(state, attn_cache_append(cache, args.kv_len, &args.k, &args.v, nullptr, &field), &field))
        return nullptr;
    return cache;
}

void run(benchmark::State &state, attn_isa isa, const attention_shape &shape, bool with_cache) {
    const std::size_t q_head = shape.q_len * shape.head_size, kv_head = shape.kv_len * shape.head_size;
    const std::size_t heads = shape.batch * shape.heads;
    const buffer<float> q = random_normal(heads * q_head, 1);
    const buffer<float> k = random_normal(heads * kv_head, 2);
    const buffer<float> v = random_normal(heads * kv_head, 3);
    buffer<float> o(heads * q_head);

    attn_attention_args args = {};
    args.isa = isa;
    args.batch = shape.batch;
    args.heads = shape.heads;
    args.q_len = shape.q_len;
    args.kv_len = shape.kv_len;
    args.head_size = shape.head_size;
    args.q = {q.data(), shape.heads * q_head, q_head, shape.head_size};
    args.k = {k.data(), shape.heads * kv_head, kv_head, shape.head_size};
    args.v = {v.data(), shape.heads * kv_head, kv_head, shape.head_size};
    args.o = {o.data(), shape.heads * q_head, q_head, shape.head_size};
    args.options.causal = shape.causal ? ATTN_CAUSAL_BOTTOM_RIGHT : ATTN_CAUSAL_NONE;

    buffer<char> cache_memory(0);
    if (with_cache) {
        args.cache = filled_cache(state, args, cache_memory);
        if (!args.cache)
            return;
    }

    std::size_t bytes = 0;
    const char *invalid = nullptr;
    if (failed(state, attn_attention_workspace(&args, &bytes, &invalid), &invalid))
        return;
    buffer<char> workspace(bytes);
    measure(state, isa, {shape.attention_flops(), least_bytes(shape), 0},
            [&](const char **field) { return attn_attention(&args, workspace.data(), bytes, field); });
}

} /* namespace */

void register_attention(attn_isa isa) {
    for (const attention_shape &shape : attention_shapes) {
        if (!worth_measuring(isa, shape.attention_flops()))
            continue;
        register_benchmark(benchmark_name("attention", isa, shape.name), isa,
                           [isa, &shape](benchmark::State &state) { run(state, isa, shape, false); });
        if (shape.decode())
            register_benchmark(benchmark_name("attention_cache", isa, shape.name), isa,
                               [isa, &shape](benchmark::State &state) { run(state, isa, shape, true); });
    }
}

} /* namespace bench */
