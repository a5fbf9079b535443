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
    whole_layer(attn_isa isa, const attention_shape &shape, attn_type type)
        : x(random_rows(shape, shape.q_len, 1, type)),
          other(random_rows(shape, self(shape) ? 0 : shape.kv_len, 2, type)),
          y(shape.batch * shape.q_len * shape.hidden, type), layer(create_layer(isa, shape, type)) {
        const std::size_t hidden = shape.hidden;
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

    const attn_layer *create_layer(attn_isa isa, const attention_shape &shape, attn_type type) {
        const std::size_t hidden = shape.hidden;
        attn_layer_config config = {};
        config.isa = isa;
        config.query_width = config.key_width = config.value_width = config.hidden = hidden;
        config.heads = shape.heads;

        const double deviation = 1 / std::sqrt(static_cast<double>(hidden));
        config.kv_type = type;
        attn_linear *const linears[] = {&config.w_q, &config.w_k, &config.w_v, &config.w_o};
        std::vector<typed_buffer> weights;
        for (std::size_t i = 0; i < 4; i++) {
            weights.emplace_back(random_normal(hidden * hidden, 3 + i, deviation), hidden * hidden, type);
            linears[i]->weight = weights[i].data();
            linears[i]->in_stride = hidden;
            linears[i]->out_stride = 1;
            linears[i]->type = type;
        }
        return create(config, attn_layer_size, attn_layer_create, memory);
    }
};

work layer_work(const attention_shape &shape) {
    const std::size_t rows = shape.batch * (2 * shape.q_len + (self(shape) ? 0 : shape.kv_len));
    return {shape.layer_flops(),
            sizeof(float) * static_cast<double>(4 * shape.hidden * shape.hidden + rows * shape.hidden), 0};
}

} /* namespace */

void add_layer(catalogue &to, attn_isa isa) {
    for (const attn_type type : {ATTN_F32, ATTN_BF16})
        for (const attention_shape &shape : attention_shapes)
            if (shape.hidden != 0 && worth_measuring(isa, shape.layer_flops()))
                to.push_back({"layer", attn_isa_name(isa), shape.name, isa,
                              [isa, &shape, type] {
                                  return make_subject<whole_layer>(with_type(layer_work(shape), type), isa, shape,
                                                                   type);
                              },
                              false, type_suffix(type)});
}

} /* namespace bench */
