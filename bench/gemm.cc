/* Y[m,n] = X[m,k] W[k,n], weights packed beforehand. */
#include "inputs.h"
#include "subject.h"

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
}

} /* namespace bench */
