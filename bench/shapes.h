/* Every shape that is measured, in one place. Models give the attention shapes their names. */
#ifndef ATTN_BENCH_SHAPES_H
#define ATTN_BENCH_SHAPES_H

#include <cstddef>

namespace bench {

struct attention_shape {
    const char *name;
    std::size_t batch, q_len, kv_len, heads, head_size;
    bool causal;              /* the last query row sees every key */
    std::size_t hidden;       /* width of the layer around it; 0: attention alone is measured */
    bool over_cache;          /* few query rows, many keys: measured over a cache too */
    std::size_t valid;        /* keys of each sequence that are visible; 0: all of them */
    std::size_t kv_heads = 0; /* 0: as many as heads */

    constexpr std::size_t visible_keys() const { return valid != 0 ? valid : kv_len; }
    constexpr std::size_t key_heads() const { return kv_heads != 0 ? kv_heads : heads; }
    constexpr std::size_t group() const { return heads / key_heads(); } /* query heads of a kv head */

    constexpr double visible_scores() const {
        const double rows = static_cast<double>(q_len);
        const double all = rows * static_cast<double>(visible_keys());
        const double hidden_by_order = causal ? rows * (rows - 1) / 2 : 0;
        return static_cast<double>(batch * heads) * (all - hidden_by_order);
    }

    /* Two products, each one multiply and one add per visible score and column of the head. */
    constexpr double attention_flops() const { return 4 * visible_scores() * static_cast<double>(head_size); }

    /* Query and output projection over the query rows, key and value projection over the visible keys. */
    constexpr double layer_flops() const {
        const double width = static_cast<double>(hidden);
        return attention_flops() + 2 * width * width * static_cast<double>(batch * 2 * (q_len + visible_keys()));
    }
};

/* y[m,n] = x[m,k] w[k,n] */
struct gemm_shape {
    const char *name; /* m x n x k */
    std::size_t m, n, k;

    constexpr double flops() const {
        return 2 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
    }
};

struct softmax_shape {
    const char *name; /* rows x cols */
    std::size_t rows, cols;
    std::size_t valid; /* columns of each row that are visible */
};

struct exp_shape {
    const char *name;
    std::size_t elements; /* a multiple of every vector's width */
};

/* Models first; then sizes that are not multiples of anything, beside the next that are; then one size at a time:
 * sequence length, query rows over 4096 keys, and the percentage of the keys that is visible. */
constexpr attention_shape attention_shapes[] = {
    {"d2l", 2, 4, 6, 5, 20, false, 100, false, 0},
    {"tiny", 1, 16, 16, 4, 16, false, 64, false, 0},
    {"vit_b16", 1, 197, 197, 12, 64, false, 768, false, 0},
    {"bert_128", 1, 128, 128, 12, 64, false, 768, false, 0},
    {"bert_512", 1, 512, 512, 12, 64, false, 768, false, 0},
    {"bert_b8_128", 8, 128, 128, 12, 64, false, 768, false, 0},
    {"bertL_384", 1, 384, 384, 16, 64, false, 1024, false, 0},
    {"gpt2_1024", 1, 1024, 1024, 12, 64, true, 768, false, 0},
    {"llama_pre_512", 1, 512, 512, 32, 128, true, 4096, false, 0},
    {"long_8k", 1, 8192, 8192, 8, 64, true, 512, false, 0},
    {"dec_768_1k", 1, 1, 1024, 12, 64, false, 0, true, 0},
    {"dec_4096_4k", 1, 1, 4096, 32, 128, false, 0, true, 0},
    {"llama_pre_512_gqa", 1, 512, 512, 32, 128, true, 0, false, 0, 8},
    {"dec_4096_4k_gqa", 1, 1, 4096, 32, 128, false, 0, true, 0, 8},

    {"head_20", 1, 512, 512, 12, 20, false, 0, false, 0},
    {"head_32", 1, 512, 512, 12, 32, false, 0, false, 0},
    {"head_33", 1, 512, 512, 12, 33, false, 0, false, 0},
    {"head_48", 1, 512, 512, 12, 48, false, 0, false, 0},
    {"head_72", 1, 512, 512, 12, 72, false, 0, false, 0},
    {"head_80", 1, 512, 512, 12, 80, false, 0, false, 0},
    {"len_511", 1, 511, 511, 12, 64, false, 0, false, 0},

    {"seq_16", 1, 16, 16, 1, 64, false, 0, false, 0},
    {"seq_32", 1, 32, 32, 1, 64, false, 0, false, 0},
    {"seq_64", 1, 64, 64, 1, 64, false, 0, false, 0},
    {"seq_128", 1, 128, 128, 1, 64, false, 0, false, 0},
    {"seq_256", 1, 256, 256, 1, 64, false, 0, false, 0},
    {"seq_512", 1, 512, 512, 1, 64, false, 0, false, 0},
    {"seq_1024", 1, 1024, 1024, 1, 64, false, 0, false, 0},
    {"seq_2048", 1, 2048, 2048, 1, 64, false, 0, false, 0},
    {"seq_4096", 1, 4096, 4096, 1, 64, false, 0, false, 0},
    {"seq_8192", 1, 8192, 8192, 1, 64, false, 0, false, 0},

    {"rows_1", 1, 1, 4096, 12, 64, false, 0, true, 0},
    {"rows_2", 1, 2, 4096, 12, 64, false, 0, true, 0},
    {"rows_4", 1, 4, 4096, 12, 64, false, 0, true, 0},
    {"rows_8", 1, 8, 4096, 12, 64, false, 0, true, 0},
    {"rows_16", 1, 16, 4096, 12, 64, false, 0, true, 0},
    {"rows_32", 1, 32, 4096, 12, 64, false, 0, true, 0},
    {"rows_64", 1, 64, 4096, 12, 64, false, 0, true, 0},

    {"valid_1", 1, 1000, 1000, 12, 64, false, 0, false, 10},
    {"valid_2", 1, 1000, 1000, 12, 64, false, 0, false, 20},
    {"valid_5", 1, 1000, 1000, 12, 64, false, 0, false, 50},
    {"valid_10", 1, 1000, 1000, 12, 64, false, 0, false, 100},
    {"valid_25", 1, 1000, 1000, 12, 64, false, 0, false, 250},
    {"valid_50", 1, 1000, 1000, 12, 64, false, 0, false, 500},
    {"valid_75", 1, 1000, 1000, 12, 64, false, 0, false, 750},
    {"valid_100", 1, 1000, 1000, 12, 64, false, 0, false, 1000},
};

constexpr gemm_shape gemm_shapes[] = {
    {"1x768x768", 1, 768, 768},         {"1x4096x4096", 1, 4096, 4096},     {"8x100x100", 8, 100, 100},
    {"16x64x64", 16, 64, 64},           {"8x768x768", 8, 768, 768},         {"128x768x768", 128, 768, 768},
    {"512x1024x1024", 512, 1024, 1024}, {"512x4096x4096", 512, 4096, 4096}, {"128x128x64", 128, 128, 64},
    {"197x64x197", 197, 64, 197},
};

constexpr softmax_shape softmax_shapes[] = {
    {"8x6", 8, 6, 6},           {"128x128", 128, 128, 128},           {"197x197", 197, 197, 197},
    {"512x512", 512, 512, 512}, {"512x512_valid_128", 512, 512, 128}, {"1024x1024", 1024, 1024, 1024},
};

/* What L1 and L2 hold; as many as a softmax of 512 x 512. */
constexpr exp_shape exp_shapes[] = {{"16384", 16384}, {"262144", 262144}};

} /* namespace bench */

#endif
