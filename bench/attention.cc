/* Attention over dense [batch, heads, len, head_size] tensors and, where few query rows meet many keys, over a cache
 * as well ("attention_cache"): keys and values then were packed when they were appended. Types that only a cache has
 * are named "attention" with the cache's type at the end of `types`. */
#include "inputs.h"
#include "subject.h"
#include <cstdint>
#include <vector>

namespace bench {
namespace {

class attention {
  public:
    attention(attn_isa isa, const attention_shape &shape, bool with_cache, attn_type type)
        : attention(attention_data(shape), isa, shape, with_cache, type, type) {}

    /* Rows of floats over a cache of that type. */
    attention(attn_isa isa, const attention_shape &shape, attn_type cache_type)
        : attention(attention_data(shape), isa, shape, true, ATTN_F32, cache_type) {}

    attn_status operator()(attn_error *error) {
        return attn_attention(&args, workspace.data(), workspace_bytes, error);
    }

  private:
    attention(const attention_data &in, attn_isa isa, const attention_shape &shape, bool with_cache, attn_type type,
              attn_type cache_type)
        : q(in.q, in.q_floats, type), k(in.k, in.kv_floats, type), v(in.v, in.kv_floats, type), o(in.q_floats, type),
          lens(shape.batch, static_cast<std::int64_t>(shape.visible_keys())) {
        const std::size_t q_sequence = shape.heads * in.q_head, kv_sequence = shape.key_heads() * in.kv_head;
        args.isa = isa;
        args.batch = shape.batch;
        args.heads = shape.heads;
        args.kv_heads = shape.key_heads();
        args.q_len = shape.q_len;
        args.kv_len = shape.kv_len;
        args.head_size = shape.head_size;
        args.q = {q.data(), type, q_sequence, in.q_head, shape.head_size, 1};
        args.k = {k.data(), type, kv_sequence, in.kv_head, shape.head_size, 1};
        args.v = {v.data(), type, kv_sequence, in.kv_head, shape.head_size, 1};
        args.o = {o.data(), type, q_sequence, in.q_head, shape.head_size, 1};
        args.parallel = parallel_of_subjects();
        args.options.causal = shape.causal;
        if (shape.visible_keys() < shape.kv_len) {
            args.options.valid.kind = ATTN_VALID_PER_SEQUENCE;
            args.options.valid.lens.i64 = lens.data();
        }
        if (with_cache) {
            attn_cache_config config = {};
            config.type = cache_type;
            fill_cache(make_cache(args, config, cache_memory), args);
        }

        attn_error error{};
        check(attn_attention_workspace(&args, &workspace_bytes, &error), error);
        workspace = buffer<char>(workspace_bytes);
    }

    typed_buffer q, k, v, o;
    std::vector<std::int64_t> lens;
    attn_attention_args args = {};
    buffer<char> cache_memory{0}, workspace{0};
    std::size_t workspace_bytes = 0;
};

/* What rows of floats are stored as, by their bytes. */
constexpr struct {
    attn_type type;
    const char *types;
    double bytes;
} cache_types[] = {{ATTN_F16, "f32-cache_f16", 2},
                   {ATTN_INT8, "f32-cache_int8", 1},
                   {ATTN_F8_E4M3, "f32-cache_f8_e4m3", 1},
                   {ATTN_F8_E5M2, "f32-cache_f8_e5m2", 1}};

void add_cache_types(catalogue &to, attn_isa isa) {
    for (const auto &cache : cache_types)
        for (const attention_shape &shape : attention_shapes) {
            if (!shape.over_cache || !worth_measuring(isa, shape.attention_flops()))
                continue;
            work work = least_work(shape);
            work.bytes *= cache.bytes / sizeof(float);
            to.push_back(
                {"attention", attn_isa_name(isa), shape.name, isa,
                 [isa, &shape, work, type = cache.type] { return make_subject<attention>(work, isa, shape, type); },
                 false, cache.types});
        }
}

} /* namespace */

void add_attention(catalogue &to, attn_isa isa) {
    for (const attn_type type : {ATTN_F32, ATTN_BF16})
        for (const attention_shape &shape : attention_shapes)
            for (const bool with_cache : {false, true}) {
                if (!worth_measuring(isa, shape.attention_flops()) || (with_cache && !shape.over_cache))
                    continue;
                to.push_back({with_cache ? "attention_cache" : "attention", attn_isa_name(isa), shape.name, isa,
                              [isa, &shape, with_cache, type] {
                                  return make_subject<attention>(with_type(least_work(shape), type), isa, shape,
                                                                 with_cache, type);
                              },
                              false, type_suffix(type)});
            }
    add_cache_types(to, isa);
}

} /* namespace bench */
