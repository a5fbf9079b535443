/* Softmax over the visible columns of each row. */
#include "operation.h"
#include "shapes.h"
#include <cstdint>
#include <vector>

namespace bench {
namespace {

void run(benchmark::State &state, attn_isa isa, const softmax_shape &shape) {
    const buffer<float> x = random_normal(shape.rows * shape.cols, 1);
    buffer<float> y(shape.rows * shape.cols);
    const std::vector<std::int64_t> lens(shape.rows, static_cast<std::int64_t>(shape.valid));

    attn_softmax_args args = {};
    args.isa = isa;
    args.batch = 1;
    args.rows = shape.rows;
    args.cols = shape.cols;
    args.x = x.data();
    args.x_batch_stride = shape.rows * shape.cols;
    args.x_row_stride = shape.cols;
    args.y = y.data();
    args.y_batch_stride = shape.rows * shape.cols;
    args.y_row_stride = shape.cols;
    args.valid.kind = shape.valid < shape.cols ? ATTN_VALID_PER_ROW : ATTN_VALID_ALL;
    args.valid.lens = lens.data();

    const double elements = static_cast<double>(shape.rows * shape.cols);
    const double bytes = sizeof(float) * static_cast<double>(shape.rows * (shape.valid + shape.cols));
    measure(state, isa, {0, bytes, elements}, [&](const char **field) { return attn_masked_softmax(&args, field); });
}

} /* namespace */

void register_softmax(attn_isa isa) {
    for (const softmax_shape &shape : softmax_shapes)
        register_benchmark(benchmark_name("softmax", isa, shape.name), isa,
                           [isa, &shape](benchmark::State &state) { run(state, isa, shape); });
}

} /* namespace bench */
