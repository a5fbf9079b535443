/* Y[m,n] = X[m,k] W[k,n], weights packed beforehand. */
#include "inputs.h"
#include "isas.h"
#include "subject.h"
#include <vector>

namespace bench {
namespace {

class packed_gemm {
  public:
    packed_gemm(attn_isa isa, const gemm_shape &of, attn_type type)
        : shape(of), in(of), x(in.x, of.m * of.k, type), y(of.m * of.n, type) {
        typed_buffer weight(in.weight, of.k * of.n, type);
        attn_gemm_config config = {};
        config.isa = isa;
        config.k = shape.k;
        config.n = shape.n;
        config.w.weight = weight.data();
        config.w.in_stride = shape.n;
        config.w.out_stride = 1;
        config.w.type = type;
        gemm = create(config, attn_gemm_size, attn_gemm_create, memory);
        args.m = shape.m;
        args.x.data = x.data();
        args.x.type = args.y.type = type;
        args.x.row_stride = shape.k;
        args.y.data = y.data();
        args.y.row_stride = shape.n;
        attn_error error{};
        check(attn_gemm_workspace(gemm, &args, &args.workspace_bytes, &error), error);
        workspace = buffer<char>(args.workspace_bytes);
        args.workspace = workspace.data();
        in = gemm_data(gemm_shape{});
    }

    attn_status operator()(attn_error *error) { return attn_gemm_run(gemm, &args, error); }

  private:
    const gemm_shape &shape;
    gemm_data in;
    typed_buffer x, y;
    buffer<char> memory{0}, workspace{0};
    const attn_gemm *gemm;
    attn_gemm_run_args args{};
};

/* Rows of floats and weights of F16 or integers: their bits do not matter to the time. Blocks of INT4 are 128 long,
 * their scales F16. */
class narrow_gemm {
  public:
    static constexpr std::size_t block = 128;

    narrow_gemm(attn_isa isa, const gemm_shape &shape, const narrow_weights &weights) : in(shape) {
        const bool int4 = weights.type == ATTN_INT4;
        const std::size_t scales = int4 ? shape.n * (shape.k / block) : shape.n;
        const std::vector<std::int8_t> weight(
            static_cast<std::size_t>(weights.bytes * static_cast<double>(shape.k * shape.n)), 0x2a);
        const std::vector<float> floats(scales, 0.01f);
        const std::vector<std::uint16_t> halves(scales, 0x2000);
        attn_gemm_config config = {};
        config.isa = isa;
        config.k = shape.k;
        config.n = shape.n;
        config.w.weight = weight.data();
        config.w.in_stride = 1;
        config.w.out_stride = shape.k;
        config.w.type = weights.type;
        config.w.dequantised = weights.dequantised;
        if (weights.type != ATTN_F16)
            config.w.scales = int4 ? static_cast<const void *>(halves.data()) : floats.data();
        config.w.scale_type = int4 ? ATTN_F16 : ATTN_F32;
        config.w.block = int4 ? block : 0;
        gemm = create(config, attn_gemm_size, attn_gemm_create, memory);
        args.m = shape.m;
        args.x.data = in.x.data();
        args.x.row_stride = shape.k;
        args.y.data = in.y.data();
        args.y.row_stride = shape.n;
        attn_error error{};
        check(attn_gemm_workspace(gemm, &args, &args.workspace_bytes, &error), error);
        workspace = buffer<char>(args.workspace_bytes);
        args.workspace = workspace.data();
    }

    attn_status operator()(attn_error *error) { return attn_gemm_run(gemm, &args, error); }

  private:
    gemm_data in;
    buffer<char> memory{0}, workspace{0};
    const attn_gemm *gemm;
    attn_gemm_run_args args{};
};

/* Scales are little beside the elements. */
work narrow_work(const gemm_shape &shape, const narrow_weights &weights) {
    work least = least_work(shape);
    least.bytes -= (sizeof(float) - weights.bytes) * static_cast<double>(shape.k * shape.n);
    return least;
}

void add_narrow(catalogue &to, attn_isa isa, const narrow_weights &weights) {
    for (const gemm_shape &shape : gemm_shapes)
        if (worth_measuring(isa, shape.flops()) && shape.k % narrow_gemm::block == 0)
            to.push_back({"gemm", attn_isa_name(isa), shape.name, isa,
                          [isa, &shape, &weights] {
                              return make_subject<narrow_gemm>(narrow_work(shape, weights), isa, shape, weights);
                          },
                          false, weights.types});
}

} /* namespace */

void add_gemm(catalogue &to, attn_isa isa) {
    for (const attn_type type : {ATTN_F32, ATTN_BF16})
        for (const gemm_shape &shape : gemm_shapes)
            if (worth_measuring(isa, shape.flops()))
                to.push_back({"gemm", attn_isa_name(isa), shape.name, isa,
                              [isa, &shape, type] {
                                  return make_subject<packed_gemm>(with_type(least_work(shape), type), isa, shape,
                                                                   type);
                              },
                              false, type_suffix(type)});
    for (const narrow_weights &weights : all_narrow_weights)
        add_narrow(to, isa, weights);
}

} /* namespace bench */
