/* The whole module: four projections around the attention, weights packed beforehand, no bias. */
#include "inputs.h"
#include "subject.h"
#include <cstdint>
#include <vector>

namespace bench {
namespace {

constexpr bool heads_fill_hidden() {
    for (const attention_shape &shape : attention_shapes)
        if (shape.hidden != 0 && shape.hidden != shape.heads * shape.head_size)
            return false;
    return true;
}
static_assert(heads_fill_hidden(), "a layer's heads divide its hidden width among them");

/* Self-attention where the lengths agree: queries, keys and values are then one tensor. */
bool self(const attention_shape &shape) {
    return shape.q_len == shape.kv_len;
}

class whole_layer {
  public:
    whole_layer(attn_isa isa, const attention_shape &shape, const product_types &types)
        : x(random_rows(shape, shape.q_len, 1, types.rows)),
          other(random_rows(shape, self(shape) ? 0 : shape.kv_len, 2, types.rows)),
          y(shape.batch * shape.q_len * shape.hidden, types.rows), layer(create_layer(isa, shape, types)) {
        const std::size_t hidden = shape.hidden;
        const attn_type type = types.rows;
        args.batch = shape.batch;
        args.q_len = shape.q_len;
        args.kv_len = shape.kv_len;
        args.q = {x.data(), type, shape.q_len * hidden, 0, hidden, 1};
        args.k = args.v = {self(shape) ? x.data() : other.data(), type, shape.kv_len * hidden, 0, hidden, 1};
        args.y = {y.data(), type, shape.q_len * hidden, 0, hidden, 1};
        args.parallel = parallel_of_subjects();
        args.options.causal = shape.causal;

        attn_error error{};
        check(attn_layer_workspace(layer, &args, &workspace_bytes, &error), error);
        workspace = buffer<char>(workspace_bytes);
    }

    attn_status operator()(attn_error *error) {
        return attn_layer_forward(layer, &args, workspace.data(), workspace_bytes, error);
    }

  private:
    typed_buffer x, other, y;
    buffer<char> memory{0}, workspace{0};
    const attn_layer *layer;
    attn_layer_args args = {};
    std::size_t workspace_bytes = 0;

    static typed_buffer random_rows(const attention_shape &shape, std::size_t len, std::uint64_t seed, attn_type type) {
        const std::size_t count = shape.batch * len * shape.hidden;
        return typed_buffer(random_normal(count, seed), count, type);
    }

    const attn_layer *create_layer(attn_isa isa, const attention_shape &shape, const product_types &types) {
        const std::size_t hidden = shape.hidden;
        attn_layer_config config = {};
        config.isa = isa;
        config.query_width = config.key_width = config.value_width = config.hidden = hidden;
        config.heads = shape.heads;
        config.kv_type = types.rows;
        attn_linear *const linears[] = {&config.w_q, &config.w_k, &config.w_v, &config.w_o};
        std::vector<typed_weights> weights;
        weights.reserve(4);
        for (std::size_t i = 0; i < 4; i++) {
            weights.emplace_back(types, hidden, hidden, 3 + i);
            *linears[i] = weights[i].linear();
        }
        return create(config, attn_layer_size, attn_layer_create, memory);
    }
};

/* Attention is of the rows' type, the projections are of the weights'. */
work layer_work(const attention_shape &shape, const product_types &types) {
    const std::size_t rows = shape.batch * (2 * shape.q_len + (self(shape) ? 0 : shape.kv_len));
    work work = {shape.layer_flops(), bytes_of(types, rows * shape.hidden, 4 * shape.hidden * shape.hidden), 0};
    const double projections = shape.layer_flops() - shape.attention_flops();
    work.integer_flops = types.of_integers() ? projections : 0;
    work.bf16_flops =
        (types.rows == ATTN_BF16 ? shape.attention_flops() : 0) + (types.weights == ATTN_BF16 ? projections : 0);
    return work;
}

} /* namespace */

void add_layer(catalogue &to, attn_isa isa) {
    for (const product_types &types : all_product_types)
        for (const attention_shape &shape : attention_shapes)
            if (shape.hidden != 0 && worth_measuring(isa, shape.layer_flops()) &&
                typed_weights::fits(types, shape.hidden))
                to.push_back({"layer", attn_isa_name(isa), shape.name, isa,
                              [isa, &shape, &types] {
                                  return make_subject<whole_layer>(layer_work(shape, types), isa, shape, types);
                              },
                              false, types.name});
}

} /* namespace bench */
