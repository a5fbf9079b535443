/* OpenBLAS on one thread.
 *
 *   gemm/openblas                sgemm
 *   attention/unfused_openblas   per head: sgemm, a softmax that calls SLEEF's exp for every vector, sgemm
 *
 * The query heads of a kv head are rows of one product. Keys behind the valid length are left out of both products; what
 * causality hides is computed and not looked at. */
#include "inputs.h"
#include "isas.h"
#include "sleef.h"
#include "subject.h"
#include <cblas.h>
#include <cmath>
#include <sstream>

namespace bench {
namespace {

blasint size(std::size_t n) {
    return static_cast<blasint>(n);
}

void use_one_thread() {
    openblas_set_num_threads(1);
}

class gemm {
  public:
    explicit gemm(const gemm_shape &of) : shape(of), in(of) { use_one_thread(); }

    attn_status operator()(attn_error *) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, size(shape.m), size(shape.n), size(shape.k), 1,
                    in.x.data(), size(shape.k), in.weight.data(), size(shape.n), 0, in.y.data(), size(shape.n));
        return ATTN_OK;
    }

  private:
    const gemm_shape &shape;
    gemm_data in;
};

class unfused_attention {
  public:
    unfused_attention(const attention_shape &of, softmax_function function)
        : shape(of), softmax(function), in(of), scores(of.group() * of.q_len * of.visible_keys()),
          scale(static_cast<float>(1 / std::sqrt(static_cast<double>(of.head_size)))) {
        use_one_thread();
    }

    attn_status operator()(attn_error *) {
        const std::size_t keys = shape.visible_keys();
        const std::size_t group_rows = shape.group() * shape.q_len;
        const blasint rows = size(group_rows), cols = size(keys), d = size(shape.head_size);
        for (std::size_t head = 0; head < shape.batch * shape.key_heads(); head++) {
            const float *q = in.q.data() + head * shape.group() * in.q_head;
            const float *k = in.k.data() + head * in.kv_head, *v = in.v.data() + head * in.kv_head;
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, cols, d, scale, q, d, k, d, 0, scores.data(),
                        cols);
            for (std::size_t row = 0; row < group_rows; row++) {
                float *of_row = scores.data() + row * keys;
                softmax(of_row, shape.causal ? keys - shape.q_len + row % shape.q_len + 1 : keys, keys, of_row);
            }
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, d, cols, 1, scores.data(), cols, v, d, 0,
                        in.o.data() + head * shape.group() * in.q_head, d);
        }
        return ATTN_OK;
    }

  private:
    const attention_shape &shape;
    softmax_function softmax;
    attention_data in;
    buffer<float> scores;
    float scale;
};

} /* namespace */

void add_openblas(catalogue &to) {
    const attn_isa isa = attn_isa_chosen();
    for (const gemm_shape &shape : gemm_shapes)
        to.push_back(
            {"gemm", "openblas", shape.name, isa, [&shape] { return make_subject<gemm>(least_work(shape), shape); }});
    const softmax_function softmax = sleef_for(f32_isa(isa)).softmax;
    if (!softmax)
        return;
    for (const attention_shape &shape : attention_shapes)
        to.push_back({"attention", "unfused_openblas", shape.name, isa, [&shape, softmax] {
                          return make_subject<unfused_attention>(least_work(shape), shape, softmax);
                      }});
}

std::string openblas_version() {
    std::istringstream config(openblas_get_config());
    std::string library, version;
    config >> library >> version;
    return version + " " + openblas_get_corename();
}

} /* namespace bench */
