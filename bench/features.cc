/* What a feature costs: each beside the same attention without it, variant "without_<isa>". */
#include "inputs.h"
#include "subject.h"
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace bench {
namespace {

/* What is switched on. */
enum class feature {
    bool_mask,
    additive_mask,
    grouped, /* 8 query heads per kv head; without: one */
    causal,
    window, /* causal, the last 256 keys; without: each row sees 256 keys, all rows the same */
    paged,  /* pages of 16 keys in random order */
    log_sum_exp,
    alibi,
    soft_cap,
    sinks
};

struct feature_shape {
    attention_shape shape; /* its heads are kv heads where grouped */
    feature what;
    attn_type bias = ATTN_F32; /* elements of an additive mask */
};

constexpr feature_shape features[] = {
    {{"bool_mask_256", 1, 256, 256, 12, 64, false, 0, false, 0}, feature::bool_mask},
    {{"bool_mask_512", 1, 512, 512, 12, 64, false, 0, false, 0}, feature::bool_mask},
    {{"additive_mask_256", 1, 256, 256, 12, 64, false, 0, false, 0}, feature::additive_mask},
    {{"additive_mask_512", 1, 512, 512, 12, 64, false, 0, false, 0}, feature::additive_mask},
    {{"additive_mask_512", 1, 512, 512, 12, 64, false, 0, false, 0}, feature::additive_mask, ATTN_BF16},
    {{"additive_mask_512", 1, 512, 512, 12, 64, false, 0, false, 0}, feature::additive_mask, ATTN_F16},
    {{"gqa_8_dec_4k", 1, 1, 4096, 4, 128, false, 0, true, 0}, feature::grouped},
    {{"gqa_8_dec_32k", 1, 1, 32768, 4, 128, false, 0, true, 0}, feature::grouped},
    {{"causal_512", 1, 512, 512, 12, 64, false, 0, false, 0}, feature::causal},
    {{"causal_1024", 1, 1024, 1024, 12, 64, false, 0, false, 0}, feature::causal},
    {{"causal_512_of_128", 1, 512, 512, 32, 128, false, 0, false, 0}, feature::causal},
    {{"window_256_8k", 1, 8192, 8192, 8, 64, true, 0, false, 0}, feature::window},
    {{"paged_16_dec_1k", 1, 1, 1024, 12, 64, false, 0, true, 0}, feature::paged},
    {{"paged_16_dec_4k", 1, 1, 4096, 32, 128, false, 0, true, 0}, feature::paged},
    {{"log_sum_exp_128", 1, 128, 128, 12, 64, false, 0, false, 0}, feature::log_sum_exp},
    {{"alibi_512", 1, 512, 512, 12, 64, true, 0, false, 0}, feature::alibi},
    {{"soft_cap_512", 1, 512, 512, 12, 64, false, 0, false, 0}, feature::soft_cap},
    {{"sinks_512", 1, 512, 512, 12, 64, false, 0, false, 0}, feature::sinks},
};

constexpr std::size_t group = 8, window_keys = 256, page_size = 16;

/* One key in eight is hidden, so that no block is skipped and none is whole. */
constexpr std::size_t hidden_of = 8;

class featured_attention {
  public:
    featured_attention(attn_isa isa, const feature_shape &feature, bool with)
        : shape(resolve(feature, with)), in(shape), what(feature.what), bias(0, feature.bias),
          heads(query_heads(feature, with)), q(random_normal(heads * in.q_head, 1)), o(heads * in.q_head),
          per_head(heads, 0.125f) {
        args.isa = isa;
        args.batch = 1;
        args.heads = heads;
        args.kv_heads = shape.heads;
        args.q_len = shape.q_len;
        args.kv_len = shape.kv_len;
        args.head_size = shape.head_size;
        args.q = {q.data(), ATTN_F32, 0, in.q_head, shape.head_size, 1};
        args.k = {in.k.data(), ATTN_F32, 0, in.kv_head, shape.head_size, 1};
        args.v = {in.v.data(), ATTN_F32, 0, in.kv_head, shape.head_size, 1};
        args.o = {o.data(), ATTN_F32, 0, in.q_head, shape.head_size, 1};
        args.options.causal = shape.causal;
        if (shape.over_cache)
            take_cache(with);
        if (with)
            switch_on();
        attn_error error{};
        check(attn_attention_workspace(&args, &workspace_bytes, &error), error);
        workspace = buffer<char>(workspace_bytes);
    }

    attn_status operator()(attn_error *error) {
        return attn_attention(&args, workspace.data(), workspace_bytes, error);
    }

  private:
    attention_shape shape;
    attention_data in;
    feature what;
    typed_buffer bias;
    std::size_t heads;
    buffer<float> q, o;
    std::vector<float> per_head;
    std::vector<std::uint8_t> mask;
    buffer<float> log_sum_exp{0};
    attn_attention_args args = {};
    buffer<char> cache_memory{0}, workspace{0};
    std::size_t workspace_bytes = 0;

    static attention_shape resolve(const feature_shape &feature, bool with) {
        attention_shape shape = feature.shape;
        if (feature.what == feature::window && !with) {
            shape.kv_len = window_keys;
            shape.causal = false;
        }
        return shape;
    }

    static std::size_t query_heads(const feature_shape &feature, bool with) {
        return feature.shape.heads * (feature.what == feature::grouped && with ? group : 1);
    }

    /* Every key of one row hides somewhere, the same for all heads. */
    void hide_some() {
        const std::size_t count = shape.q_len * shape.kv_len;
        random_bits bits(7);
        mask.resize(count);
        for (std::uint8_t &seen : mask)
            seen = bits.next() % hidden_of != 0;
        buffer<float> numbers(count);
        for (std::size_t i = 0; i < count; i++)
            numbers.data()[i] = mask[i] ? 0.5f : -INFINITY;
        bias = typed_buffer(numbers, count, bias.type);
    }

    void switch_on() {
        attn_options &options = args.options;
        switch (what) {
        case feature::bool_mask:
            hide_some();
            options.mask = {mask.data(), ATTN_BOOL, 0, 0, shape.kv_len, 1};
            break;
        case feature::additive_mask:
            hide_some();
            options.bias = {bias.data(), bias.type, 0, 0, shape.kv_len, 1};
            break;
        case feature::causal:
            options.causal = 1;
            break;
        case feature::window:
            options.window_left = window_keys;
            break;
        case feature::log_sum_exp:
            log_sum_exp = buffer<float>(heads * shape.q_len);
            options.log_sum_exp.data = log_sum_exp.data();
            break;
        case feature::alibi:
            options.alibi = per_head.data();
            break;
        case feature::soft_cap:
            options.soft_cap = 30;
            break;
        case feature::sinks:
            options.sinks = per_head.data();
            break;
        case feature::grouped:
        case feature::paged:
            break;
        }
    }

    void take_cache(bool with) {
        attn_cache_config config = {};
        const bool paged = what == feature::paged && with;
        if (paged) {
            config.kind = ATTN_CACHE_PAGED;
            config.page_size = page_size;
            config.pages = shape.kv_len / page_size;
        }
        attn_cache *cache = make_cache(args, config, cache_memory);
        if (paged)
            scatter_pages(cache, config.pages);
        fill_cache(cache, args);
    }

    static void scatter_pages(attn_cache *cache, std::size_t count) {
        std::vector<std::int32_t> pages(count);
        std::iota(pages.begin(), pages.end(), 0);
        random_bits bits(9);
        for (std::size_t i = count; i > 1; i--)
            std::swap(pages[i - 1], pages[bits.next() % i]);
        attn_error error{};
        check(attn_cache_set_pages(cache, 0, 0, count, pages.data(), &error), error);
    }
};

/* Rotary embedding is measured where it is used: in a layer, whose queries and keys it rotates. */
constexpr attention_shape rotary_layers[] = {{"rotary_layer_128", 1, 128, 128, 12, 64, true, 768, false, 0},
                                             {"rotary_layer_512", 1, 512, 512, 12, 64, true, 768, false, 0}};

class rotary_layer {
  public:
    rotary_layer(attn_isa isa, const attention_shape &shape, bool with)
        : x(random_normal(shape.q_len * shape.hidden, 1)), y(shape.q_len * shape.hidden) {
        const std::size_t hidden = shape.hidden;
        const buffer<float> weight = random_normal(hidden * hidden, 2, 1 / std::sqrt(static_cast<double>(hidden)));
        attn_layer_config config = {};
        config.isa = isa;
        config.query_width = config.key_width = config.value_width = config.hidden = hidden;
        config.heads = shape.heads;
        config.w_q = config.w_k = config.w_v = config.w_o = linear_of(weight, hidden);
        layer = create(config, attn_layer_size, attn_layer_create, memory);

        attn_rotary_config angles = {};
        angles.positions = shape.q_len;
        angles.dims = shape.head_size;
        args.batch = 1;
        args.q_len = args.kv_len = shape.q_len;
        args.q = args.k = args.v = {x.data(), ATTN_F32, 0, 0, hidden, 1};
        args.y = {y.data(), ATTN_F32, 0, 0, hidden, 1};
        args.options.causal = 1;
        if (with)
            args.options.rotary = create(angles, attn_rotary_size, attn_rotary_create, rotary_memory);
        attn_error error{};
        check(attn_layer_workspace(layer, &args, &workspace_bytes, &error), error);
        workspace = buffer<char>(workspace_bytes);
    }

    attn_status operator()(attn_error *error) {
        return attn_layer_forward(layer, &args, workspace.data(), workspace_bytes, error);
    }

  private:
    buffer<float> x, y;
    buffer<char> memory{0}, rotary_memory{0}, workspace{0};
    const attn_layer *layer = nullptr;
    attn_layer_args args = {};
    std::size_t workspace_bytes = 0;
};

/* Subject `name` with and without its feature, each with its work. */
template <class T, class Shape>
void add_pair(catalogue &to, attn_isa isa, const char *name, const work &work_with, const work &work_without,
              const Shape &shape, const std::string &types = {}) {
    const std::string isa_name = attn_isa_name(isa);
    for (const bool with : {true, false}) {
        const work work = with ? work_with : work_without;
        to.push_back({"feature", with ? isa_name : "without_" + isa_name, name, isa,
                      [isa, work, &shape, with] { return make_subject<T>(work, isa, shape, with); }, false, types});
    }
}

/* What a feature hides is not worked on. */
work least_work_with(const feature_shape &feature) {
    attention_shape shape = feature.shape;
    shape.causal = shape.causal || feature.what == feature::causal;
    return least_work(shape);
}

} /* namespace */

void add_features(catalogue &to, attn_isa isa) {
    for (const feature_shape &feature : features)
        if (worth_measuring(isa, feature.shape.attention_flops()))
            add_pair<featured_attention>(
                to, isa, feature.shape.name, least_work_with(feature), least_work(feature.shape), feature,
                feature.bias == ATTN_F32 ? "" : std::string("f32-bias_") + type_suffix(feature.bias));
    for (const attention_shape &shape : rotary_layers) {
        const work work = {shape.layer_flops(), 0, 0};
        if (worth_measuring(isa, shape.layer_flops()))
            add_pair<rotary_layer>(to, isa, shape.name, work, work, shape);
    }
}

} /* namespace bench */
