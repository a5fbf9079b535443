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
        config.w = {in.weight.data(), shape.n, 1, nullptr};
        gemm = create(config, attn_gemm_size, attn_gemm_create, memory);
        in.weight = buffer<float>(0);
        const char *field = "";
        check(attn_gemm_workspace(gemm, shape.m, shape.k, &workspace_bytes, &field), field);
        workspace = buffer<char>(workspace_bytes);
    }

    attn_status operator()(const char **field) {
        return attn_gemm_run(gemm, shape.m, in.x.data(), shape.k, in.y.data(), shape.n, workspace.data(),
                             workspace_bytes, nullptr, field);
    }

  private:
    const gemm_shape &shape;
    gemm_data in;
    buffer<char> memory{0}, workspace{0};
    std::size_t workspace_bytes = 0;
    const attn_gemm *gemm;
};

} /* namespace */

void add_gemm(catalogue &to, attn_isa isa) {
    for (const gemm_shape &shape : gemm_shapes)
        if (worth_measuring(isa, shape.flops()))
            to.push_back({"gemm", attn_isa_name(isa), shape.name, isa,
                          [isa, &shape] { return make_subject<packed_gemm>(least_work(shape), isa, shape); }});
}

} /* namespace bench */
