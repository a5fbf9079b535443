/* The C library: exp, and the copy that a transpose cannot beat. */
#include "inputs.h"
#include "subject.h"
#include <cmath>
#include <cstring>

namespace bench {
namespace {

class libm_exp {
  public:
    explicit libm_exp(const exp_shape &shape)
        : x(random_normal(shape.elements, 1)), y(shape.elements), elements(shape.elements) {}

    attn_status operator()(attn_error *) {
        for (std::size_t i = 0; i < elements; i++)
            y.data()[i] = std::exp(x.data()[i]);
        return ATTN_OK;
    }

  private:
    buffer<float> x, y;
    std::size_t elements;
};

class copy {
  public:
    explicit copy(std::size_t count) : x(random_normal(count, 1)), y(count), elements(count) {}

    attn_status operator()(attn_error *) {
        std::memcpy(y.data(), x.data(), elements * sizeof(float));
        return ATTN_OK;
    }

  private:
    buffer<float> x, y;
    std::size_t elements;
};

} /* namespace */

void add_libc(catalogue &to) {
    for (const exp_shape &shape : exp_shapes)
        to.push_back({"exp", "libm", shape.name, ATTN_ISA_SCALAR,
                      [&shape] { return make_subject<libm_exp>(least_work(shape), shape); }});
    for (const char *operation : {"transpose_qkv", "transpose_output"})
        for (const attention_shape &shape : attention_shapes)
            if (has_transposes(shape))
                to.push_back({operation, "memcpy", shape.name, ATTN_ISA_SCALAR,
                              [&shape] { return make_subject<copy>(transpose_work(shape), query_elements(shape)); }});
}

} /* namespace bench */
