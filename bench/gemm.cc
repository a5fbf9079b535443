/* Y[m,n] = X[m,k] W[k,n], weights packed beforehand. */
#include "operation.h"
#include "shapes.h"
#include <cmath>

namespace bench {
namespace {

void run(benchmark::State &state, attn_isa isa, const gemm_shape &shape) {
    const std::size_t m = shape.m, n = shape.n, k = shape.k;
    const buffer<float> x = random_normal(m * k, 1);
    const buffer<float> weight = random_normal(k * n, 2, 1 / std::sqrt(static_cast<double>(k)));
    buffer<float> y(m * n);

    attn_gemm_config config = {};
    config.isa = isa;
    config.k = k;
    config.n = n;
    config.w.weight = weight.data();
    config.w.in_stride = n;
    config.w.out_stride = 1;
    buffer<char> memory(0);
    const attn_gemm *gemm = create(state, config, attn_gemm_size, attn_gemm_create, memory);
    if (!gemm)
        return;

    const double bytes = sizeof(float) * static_cast<double>(m * k + k * n + m * n);
    measure(state, isa, {shape.flops(), bytes, 0},
            [&](const char **field) { return attn_gemm_run(gemm, m, x.data(), k, y.data(), n, nullptr, field); });
}

} /* namespace */

void register_gemm(attn_isa isa) {
    for (const gemm_shape &shape : gemm_shapes)
        if (worth_measuring(isa, shape.flops()))
            register_benchmark(benchmark_name("gemm", isa, shape.name), isa,
                               [isa, &shape](benchmark::State &state) { run(state, isa, shape); });
}

} /* namespace bench */
