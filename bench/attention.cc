/* Attention over dense [batch, heads, len, head_size] tensors and, where few query rows meet many keys, over a cache as
 * well ("attention_cache"): keys and values then were packed when they were appended. */
#include "inputs.h"
#include "subject.h"
#include <cstdint>
#include <vector>

namespace bench {
namespace {

class attention {
  public:
    attention(attn_isa isa, const attention_shape &shape, bool with_cache)
        : in(shape), lens(shape.batch, static_cast<std::int64_t>(shape.visible_keys())) {
        args.isa = isa;
        args.batch = shape.batch;
        args.heads = shape.heads;
        args.q_len = shape.q_len;
        args.kv_len = shape.kv_len;
        args.head_size = shape.head_size;
        args.q = {in.q.data(), ATTN_F32, shape.heads * in.q_head, in.q_head, shape.head_size, 1};
        args.k = {in.k.data(), ATTN_F32, shape.heads * in.kv_head, in.kv_head, shape.head_size, 1};
        args.v = {in.v.data(), ATTN_F32, shape.heads * in.kv_head, in.kv_head, shape.head_size, 1};
        args.o = {in.o.data(), ATTN_F32, shape.heads * in.q_head, in.q_head, shape.head_size, 1};
        args.parallel = parallel_of_subjects();
        args.options.causal = shape.causal;
        if (shape.visible_keys() < shape.kv_len) {
            args.options.valid.kind = ATTN_VALID_PER_SEQUENCE;
            args.options.valid.lens.i64 = lens.data();
        }
        if (with_cache)
            fill_cache();

        attn_error error{};
        check(attn_attention_workspace(&args, &workspace_bytes, &error), error);
        workspace = buffer<char>(workspace_bytes);
    }

    attn_status operator()(attn_error *error) {
        return attn_attention(&args, workspace.data(), workspace_bytes, error);
    }

  private:
    attention_data in;
    std::vector<std::int64_t> lens;
    attn_attention_args args = {};
    buffer<char> cache_memory{0}, workspace{0};
    std::size_t workspace_bytes = 0;

    void fill_cache() {
        attn_cache_config config = {};
        config.isa = args.isa;
        config.batch = args.batch;
        config.kv_heads = args.heads;
        config.head_size = args.head_size;
        config.capacity = args.kv_len;
        attn_cache *cache = create(config, attn_cache_size, attn_cache_create, cache_memory);
        attn_cache_append_args append = {};
        append.len = args.kv_len;
        append.k = args.k;
        append.v = args.v;
        attn_error error{};
        check(attn_cache_append(cache, &append, &error), error);
        args.cache = cache;
        in.k = buffer<float>(0);
        in.v = buffer<float>(0);
    }
};

} /* namespace */

void add_attention(catalogue &to, attn_isa isa) {
    for (const attention_shape &shape : attention_shapes) {
        if (!worth_measuring(isa, shape.attention_flops()))
            continue;
        to.push_back({"attention", attn_isa_name(isa), shape.name, isa,
                      [isa, &shape] { return make_subject<attention>(least_work(shape), isa, shape, false); }});
        if (shape.over_cache)
            to.push_back({"attention_cache", attn_isa_name(isa), shape.name, isa,
                          [isa, &shape] { return make_subject<attention>(least_work(shape), isa, shape, true); }});
    }
}

} /* namespace bench */
