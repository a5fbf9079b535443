/* Splitting and merging the heads of a layer's queries. */
#include "inputs.h"
#include "subject.h"

namespace bench {
namespace {

using transpose_function = attn_status (*)(const attn_transpose_args *args, attn_error *error);

class transpose {
  public:
    transpose(attn_isa isa, const attention_shape &shape, transpose_function split_or_merge, attn_type type)
        : function(split_or_merge), x(random_normal(query_elements(shape), 1), query_elements(shape), type),
          y(query_elements(shape), type) {
        const std::size_t row = shape.heads * shape.head_size;
        args.isa = isa;
        args.batch = shape.batch;
        args.len = shape.q_len;
        args.heads = shape.heads;
        args.head_size = shape.head_size;
        args.x.type = args.y.type = type;
        args.x.data = x.data();
        args.y.data = y.data();
        bool split = function == attn_transpose_qkv;
        (split ? args.x.batch_stride : args.y.batch_stride) = shape.q_len * row;
        (split ? args.x.row_stride : args.y.row_stride) = row;
    }

    attn_status operator()(attn_error *error) { return function(&args, error); }

  private:
    transpose_function function;
    typed_buffer x, y;
    attn_transpose_args args = {};
};

void add_transpose(catalogue &to, const char *operation, attn_isa isa, transpose_function function) {
    for (const attention_shape &shape : attention_shapes)
        for (const attn_type type : {ATTN_F32, ATTN_BF16, ATTN_F16})
            if (has_transposes(shape))
                to.push_back({operation, attn_isa_name(isa), shape.name, isa,
                              [isa, &shape, function, type] {
                                  return make_subject<transpose>(with_type(transpose_work(shape), type), isa, shape,
                                                                 function, type);
                              },
                              false, type_suffix(type)});
}

} /* namespace */

void add_transposes(catalogue &to, attn_isa isa) {
    add_transpose(to, "transpose_qkv", isa, attn_transpose_qkv);
    add_transpose(to, "transpose_output", isa, attn_transpose_output);
}

} /* namespace bench */
