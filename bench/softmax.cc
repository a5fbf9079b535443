/* Softmax over the visible columns of each row; beside it one that calls SLEEF's exp for every vector. */
#include "inputs.h"
#include "sleef.h"
#include "subject.h"
#include <cstdint>
#include <vector>

namespace bench {
namespace {

class masked_softmax {
  public:
    masked_softmax(attn_isa isa, const softmax_shape &shape, attn_type type)
        : x(random_normal(shape.rows * shape.cols, 1), shape.rows * shape.cols, type), y(shape.rows * shape.cols, type),
          lens(shape.rows, static_cast<std::int64_t>(shape.valid)) {
        args.isa = isa;
        args.batch = 1;
        args.rows = shape.rows;
        args.cols = shape.cols;
        args.x.data = x.data();
        args.x.type = args.y.type = type;
        args.x.batch_stride = shape.rows * shape.cols;
        args.x.row_stride = shape.cols;
        args.y.data = y.data();
        args.y.batch_stride = shape.rows * shape.cols;
        args.y.row_stride = shape.cols;
        if (shape.valid < shape.cols) {
            args.valid.kind = ATTN_VALID_PER_ROW;
            args.valid.lens.i64 = lens.data();
        }
    }

    attn_status operator()(attn_error *error) { return attn_masked_softmax(&args, error); }

  private:
    typed_buffer x, y;
    std::vector<std::int64_t> lens;
    attn_softmax_args args = {};
};

class softmax_with_sleef {
  public:
    softmax_with_sleef(softmax_function function, const softmax_shape &of)
        : softmax(function), shape(of), x(random_normal(of.rows * of.cols, 1)), y(of.rows * of.cols) {}

    attn_status operator()(attn_error *) {
        for (std::size_t row = 0; row < shape.rows; row++)
            softmax(x.data() + row * shape.cols, shape.valid, shape.cols, y.data() + row * shape.cols);
        return ATTN_OK;
    }

  private:
    softmax_function softmax;
    const softmax_shape &shape;
    buffer<float> x, y;
};

} /* namespace */

void add_softmax(catalogue &to, attn_isa isa) {
    const softmax_function with_sleef = sleef_for(isa).softmax;
    for (const softmax_shape &shape : softmax_shapes) {
        for (const attn_type type : {ATTN_F32, ATTN_BF16, ATTN_F16})
            to.push_back({"softmax", attn_isa_name(isa), shape.name, isa,
                          [isa, &shape, type] {
                              return make_subject<masked_softmax>(with_type(least_work(shape), type), isa, shape, type);
                          },
                          false, type_suffix(type)});
        if (with_sleef)
            to.push_back({"softmax", std::string("sleef_") + attn_isa_name(isa), shape.name, isa, [with_sleef, &shape] {
                              return make_subject<softmax_with_sleef>(least_work(shape), with_sleef, shape);
                          }});
    }
}

} /* namespace bench */
