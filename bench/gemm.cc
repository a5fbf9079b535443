/* Y[m,n] = X[m,k] W[k,n], weights packed beforehand. */
#include "inputs.h"
#include "subject.h"

namespace bench {
namespace {

class packed_gemm {
  public:
    packed_gemm(attn_isa isa, const gemm_shape &of) : shape(of), in(of) {
        attn_gemm_config config = {};
        config.isa = isa;
        config.k = shape.k;
        config.n = shape.n;
        config.w = linear_of(in.weight, shape.n);
        gemm = create(config, attn_gemm_size, attn_gemm_create, memory);
        in.weight = buffer<float>(0);
        args.m = shape.m;
        args.x.data = in.x.data();
        args.x.row_stride = shape.k;
        args.y.data = in.y.data();
        args.y.row_stride = shape.n;
    }

    attn_status operator()(attn_error *error) { return attn_gemm_run(gemm, &args, error); }

  private:
    const gemm_shape &shape;
    gemm_data in;
    buffer<char> memory{0};
    const attn_gemm *gemm;
    attn_gemm_run_args args{};
};

} /* namespace */

void add_gemm(catalogue &to, attn_isa isa) {
    for (const gemm_shape &shape : gemm_shapes)
        if (worth_measuring(isa, shape.flops()))
            to.push_back({"gemm", attn_isa_name(isa), shape.name, isa,
                          [isa, &shape] { return make_subject<packed_gemm>(least_work(shape), isa, shape); }});
}

} /* namespace bench */
