#include "dropout.h"

/* The paper's multipliers, and the Weyl increments of the key: the golden ratio and sqrt(3) - 1. */
#define MULTIPLIER_0 UINT32_C(0xD2511F53)
#define MULTIPLIER_1 UINT32_C(0xCD9E8D57)
#define WEYL_0       UINT32_C(0x9E3779B9)
#define WEYL_1       UINT32_C(0xBB67AE85)
#define ROUNDS       10

void attn_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t product0 = (uint64_t)MULTIPLIER_0 * c0;
        uint64_t product1 = (uint64_t)MULTIPLIER_1 * c2;
        c0 = (uint32_t)(product1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)product1;
        c2 = (uint32_t)(product0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)product0;
        k0 += WEYL_0;
        k1 += WEYL_1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void attn_dropout_apply(const struct attn_dropout *dropout, uint64_t head_index, uint64_t row, uint64_t first_key,
                        float *p, size_t n) {
    if (dropout->probability == 0.0f)
        return;
    const uint32_t key[2] = {(uint32_t)dropout->seed, (uint32_t)(dropout->seed >> 32)};
    const uint32_t threshold = (uint32_t)((double)dropout->probability * 4294967296.0);
    const float keep = 1.0f / (1.0f - dropout->probability);
    for (size_t c = 0; c < n;) {
        const uint64_t j = first_key + c;
        const uint32_t counter[4] = {(uint32_t)(j / 4), (uint32_t)row, (uint32_t)head_index, 0};
        uint32_t words[4];
        attn_philox4x32(counter, key, words);
        for (size_t w = j % 4; w < 4 && c < n; w++, c++)
            p[c] *= words[w] < threshold ? 0.0f : keep;
    }
}
