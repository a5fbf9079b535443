/* exp of the kernels beside the function that defines its bits: SLEEF's, called once per vector. */
#include "inputs.h"
#include "sleef.h"
#include "subject.h"
extern "C" {
#include "dispatch.h"
}

namespace bench {
namespace {

class elementwise {
  public:
    elementwise(exp_function function, const exp_shape &shape)
        : exp(function), x(random_normal(shape.elements, 1)), y(shape.elements), elements(shape.elements) {}

    attn_status operator()(attn_error *) {
        exp(x.data(), y.data(), elements);
        return ATTN_OK;
    }

  private:
    exp_function exp;
    buffer<float> x, y;
    std::size_t elements;
};

} /* namespace */

void add_exp(catalogue &to, attn_isa isa) {
    const sleef_functions sleef = sleef_for(isa);
    for (const exp_shape &shape : exp_shapes) {
        to.push_back({"exp", attn_isa_name(isa), shape.name, isa, [isa, &shape] {
                          const exp_function exp = attn_table_elementary(attn_table(isa))->exp;
                          return make_subject<elementwise>(least_work(shape), exp, shape);
                      }});
        if (sleef.exp)
            to.push_back({"exp", std::string("sleef_") + attn_isa_name(isa), shape.name, isa,
                          [sleef, &shape] { return make_subject<elementwise>(least_work(shape), sleef.exp, shape); }});
    }
}

} /* namespace bench */
