/* Splitting and merging the heads of a layer's queries. */
#include "operation.h"
#include "shapes.h"

namespace bench {
namespace {

using transpose_function = attn_status (*)(const attn_transpose_args *args, const char **field);

void run(benchmark::State &state, attn_isa isa, const attention_shape &shape, transpose_function transpose) {
    const std::size_t row = shape.heads * shape.head_size;
    const std::size_t elements = shape.batch * shape.q_len * row;
    const buffer<float> x = random_normal(elements, 1);
    buffer<float> y(elements);

    attn_transpose_args args = {};
    args.isa = isa;
    args.batch = shape.batch;
    args.len = shape.q_len;
    args.heads = shape.heads;
    args.head_size = shape.head_size;
    args.x = x.data();
    args.y = y.data();
    args.merged_batch_stride = shape.q_len * row;
    args.merged_row_stride = row;

    const double bytes = 2 * sizeof(float) * static_cast<double>(elements);
    measure(state, isa, {0, bytes, 0}, [&](const char **field) { return transpose(&args, field); });
}

void register_transpose(const char *name, attn_isa isa, transpose_function transpose) {
    for (const attention_shape &shape : attention_shapes)
        if (!shape.decode())
            register_benchmark(
                benchmark_name(name, isa, shape.name), isa,
                [isa, &shape, transpose](benchmark::State &state) { run(state, isa, shape, transpose); });
}

} /* namespace */

void register_transposes(attn_isa isa) {
    register_transpose("transpose_qkv", isa, attn_transpose_qkv);
    register_transpose("transpose_output", isa, attn_transpose_output);
}

} /* namespace bench */
