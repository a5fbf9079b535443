// hello.c in C++: a layer of multi-head attention whose answer can be worked out by hand. All projections are the identity and
// the two visible keys are equal, so that y is the mean of their values, (1 + 3) / 2. Key 3 is beyond the valid length.
#include <attn/attn.hpp>
#include <cstdio>
#include <vector>

int main() try {
    const std::vector<float> identity{1, 0, 0, 1}, q{5, 7}, k{1, 2, 1, 2, 9, 9}, v{1, 1, 3, 3, 99, 99};
    const std::int64_t valid_len = 2;
    std::vector<float> y(2);

    attn_layer_config config{};
    config.query_width = config.key_width = config.value_width = config.hidden = config.heads = 2;
    config.w_q = config.w_k = config.w_v = config.w_o = attn::linear(identity, 2, 2);
    const attn::layer layer(config);

    attn_layer_args args{};
    args.batch = args.q_len = 1;
    args.kv_len = 3;
    args.q = attn::rows(q, {1, 1, 2});
    args.k = attn::rows(k, {1, 3, 2});
    args.v = attn::rows(v, {1, 3, 2});
    args.y = attn::rows_out(y, {1, 1, 2});
    args.options.valid.kind = ATTN_VALID_PER_SEQUENCE;
    args.options.valid.lens.i64 = &valid_len;
    attn::workspace workspace;
    layer.forward(args, workspace);

    std::printf("libattn %s on %s: y[0] = %.3f (expected 2.000)\n", attn_version(), attn_isa_name(attn_isa_chosen()),
                y[0]);
    return y[0] != 2 || y[1] != 2;
} catch (const attn::error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
