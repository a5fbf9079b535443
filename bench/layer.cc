/* The whole module: four projections around the attention, weights packed beforehand, no bias. */
#include "operation.h"
#include "shapes.h"
#include <cmath>

namespace bench {
namespace {

constexpr bool heads_fill_hidden() {
    for (const attention_shape &shape : attention_shapes)
        if (shape.hidden != 0 && shape.hidden != shape.heads * shape.head_size)
            return false;
    return true;
}
static_assert(heads_fill_hidden(), "a layer's heads divide its hidden width among them");

const attn_layer *create_layer(benchmark::State &state, attn_isa isa, const attention_shape &shape,
                               buffer<char> &memory) {
    const std::size_t hidden = shape.hidden;
    attn_layer_config config = {};
    config.isa = isa;
    config.query_size = config.key_size = config.value_size = config.hidden = hidden;
    config.heads = shape.heads;

    const double deviation = 1 / std::sqrt(static_cast<double>(hidden));
    const buffer<float> weights[] = {
        random_normal(hidden * hidden, 3, deviation), random_normal(hidden * hidden, 4, deviation),
        random_normal(hidden * hidden, 5, deviation), random_normal(hidden * hidden, 6, deviation)};
    attn_linear *const linears[] = {&config.w_q, &config.w_k, &config.w_v, &config.w_o};
    for (std::size_t i = 0; i < 4; i++)
        *linears[i] = {weights[i].data(), hidden, 1, nullptr};
    return create(state, config, attn_layer_size, attn_layer_create, memory);
}

void run(benchmark::State &state, attn_isa isa, const attention_shape &shape) {
    buffer<char> memory(0);
    const attn_layer *layer = create_layer(state, isa, shape, memory);
    if (!layer)
        return;

    /* Self-attention where the lengths agree: queries, keys and values are then one tensor. */
    const bool self = shape.q_len == shape.kv_len;
    const std::size_t hidden = shape.hidden;
    const std::size_t q_sequence = shape.q_len * hidden, kv_sequence = shape.kv_len * hidden;
    const buffer<float> x = random_normal(shape.batch * q_sequence, 1);
    const buffer<float> other = random_normal(self ? 0 : shape.batch * kv_sequence, 2);
    buffer<float> y(shape.batch * q_sequence);

    attn_layer_args args = {};
    args.batch = shape.batch;
    args.q_len = shape.q_len;
    args.kv_len = shape.kv_len;
    args.q = {x.data(), q_sequence, hidden};
    args.k = args.v = {self ? x.data() : other.data(), kv_sequence, hidden};
    args.y = {y.data(), q_sequence, hidden};
    args.options.causal = shape.causal ? ATTN_CAUSAL_BOTTOM_RIGHT : ATTN_CAUSAL_NONE;

    std::size_t bytes = 0;
    const char *invalid = nullptr;
    if (failed(state, attn_layer_workspace(layer, &args, &bytes, &invalid), &invalid))
        return;
    buffer<char> workspace(bytes);

    const std::size_t rows = shape.batch * (2 * shape.q_len + (self ? 0 : shape.kv_len));
    const double least_bytes = sizeof(float) * static_cast<double>(4 * hidden * hidden + rows * hidden);
    measure(state, isa, {shape.layer_flops(), least_bytes, 0},
            [&](const char **field) { return attn_layer_forward(layer, &args, workspace.data(), bytes, field); });
}

} /* namespace */

void register_layer(attn_isa isa) {
    for (const attention_shape &shape : attention_shapes)
        if (shape.hidden != 0 && worth_measuring(isa, shape.layer_flops()))
            register_benchmark(benchmark_name("layer", isa, shape.name), isa,
                               [isa, &shape](benchmark::State &state) { run(state, isa, shape); });
}

} /* namespace bench */
