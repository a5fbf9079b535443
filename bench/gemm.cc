/* Y[m,n] = X[m,k] W[k,n], weights packed beforehand. */
#include "inputs.h"
#include "subject.h"

namespace bench {
namespace {

class packed_gemm {
  public:
    packed_gemm(attn_isa isa, const gemm_shape &shape, const product_types &types)
        : x(random_normal(shape.m * shape.k, 1), shape.m * shape.k, types.rows), y(shape.m * shape.n, types.rows) {
        const typed_weights weights(types, shape.k, shape.n, 2);
        attn_gemm_config config = {};
        config.isa = isa;
        config.k = shape.k;
        config.n = shape.n;
        config.w = weights.linear();
        gemm = create(config, attn_gemm_size, attn_gemm_create, memory);
        args.m = shape.m;
        args.x.data = x.data();
        args.x.type = args.y.type = types.rows;
        args.x.row_stride = shape.k;
        args.y.data = y.data();
        args.y.row_stride = shape.n;
        attn_error error{};
        check(attn_gemm_workspace(gemm, &args, &args.workspace_bytes, &error), error);
        workspace = buffer<char>(args.workspace_bytes);
        args.workspace = workspace.data();
    }

    attn_status operator()(attn_error *error) { return attn_gemm_run(gemm, &args, error); }

  private:
    typed_buffer x, y;
    buffer<char> memory{0}, workspace{0};
    const attn_gemm *gemm;
    attn_gemm_run_args args{};
};

} /* namespace */

void add_gemm(catalogue &to, attn_isa isa) {
    for (const product_types &types : all_product_types)
        for (const gemm_shape &shape : gemm_shapes)
            if (worth_measuring(isa, shape.flops()) && typed_weights::fits(types, shape.k))
                to.push_back({"gemm", attn_isa_name(isa), shape.name, isa,
                              [isa, &shape, &types] {
                                  return make_subject<packed_gemm>(least_work(shape, types), isa, shape, types);
                              },
                              false, types.name});
}

} /* namespace bench */
