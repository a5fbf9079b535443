/* Philox4x32-10 against its authors' implementation, and dropout's mask made of it. */
#include "ops/dropout.h"
#include "support.h"
#include <Random123/philox.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void random123(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    philox4x32_ctr_t c;
    philox4x32_key_t k;
    memcpy(c.v, counter, sizeof c.v);
    memcpy(k.v, key, sizeof k.v);
    c = philox4x32_R(10, c, k);
    memcpy(out, c.v, sizeof c.v);
}

/* The vectors published with Random123: zeros, ones, digits of pi. */
static const struct {
    uint32_t counter[4], key[2], out[4];
} published[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

static void test_published_vectors(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        test_case("vector %zu", i);
        uint32_t out[4];
        attn_philox4x32(published[i].counter, published[i].key, out);
        assert_memory_equal(out, published[i].out, sizeof out);
    }
}

static void test_random_counters(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (int i = 0; i < 100000; i++) {
        uint32_t counter[4], key[2], expected[4], out[4];
        for (int w = 0; w < 4; w++)
            counter[w] = (uint32_t)random_bits(&random);
        for (int w = 0; w < 2; w++)
            key[w] = (uint32_t)random_bits(&random);
        random123(counter, key, expected);
        attn_philox4x32(counter, key, out);
        assert_memory_equal(out, expected, sizeof out);
    }
}

/* One weight by the letter of dropout.h, with the other Philox. */
static float dropped(const struct attn_dropout *d, uint64_t head, uint64_t row, uint64_t key_index, float p) {
    const uint32_t counter[4] = {(uint32_t)(key_index / 4), (uint32_t)row, (uint32_t)head, 0};
    const uint32_t key[2] = {(uint32_t)d->seed, (uint32_t)(d->seed >> 32)};
    uint32_t words[4];
    random123(counter, key, words);
    bool drop = words[key_index % 4] < floor(ldexp((double)d->probability, 32));
    return drop ? 0.0f : p * (1.0f / (1.0f - d->probability));
}

#define KEYS 600

static void test_definition(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const float probabilities[] = {0x1p-40f, 0x1p-32f, 0.1f, 0.5f, 0.9f, 0x1.fffffep-1f};
    for (size_t i = 0; i < sizeof probabilities / sizeof *probabilities; i++)
        for (int round = 0; round < 50; round++) {
            /* Places below, at and beyond 2^32. */
            uint64_t near = round % 2 ? 0 : UINT64_C(0xfffffff0) << random_below(&random, 4);
            struct attn_dropout d = {probabilities[i], random_bits(&random)};
            uint64_t head = near + random_below(&random, 100), row = near + random_below(&random, 100);
            uint64_t first = near + random_below(&random, 100);
            size_t n = random_below(&random, 20);
            test_case("p=%a seed=%#llx head=%llu row=%llu first=%llu n=%zu", (double)d.probability,
                      (unsigned long long)d.seed, (unsigned long long)head, (unsigned long long)row,
                      (unsigned long long)first, n);
            float *p = guarded_floats(n, round % 4 < 2 ? FLUSH_END : FLUSH_START), expected[20];
            random_fill(&random, TEST_UNIFORM, p, n);
            for (size_t c = 0; c < n; c++) {
                p[c] = fabsf(p[c]);
                expected[c] = dropped(&d, head, row, first + c, p[c]);
            }
            attn_dropout_apply(&d, head, row, first, p, n);
            assert_same_bits(expected, p, n);
            guarded_free(p);
        }
}

/* A word equal to the threshold keeps its weight; a threshold one float higher drops it. */
static void test_threshold(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (int found = 0; found < 20;) {
        const uint32_t row = (uint32_t)random_bits(&random), counter[4] = {0, row, 0, 0}, key[2] = {5, 0};
        uint32_t words[4];
        random123(counter, key, words);
        if (words[0] == 0 || words[0] % 256 != 0) /* as a probability it must be a float */
            continue;
        test_case("row=%#x word=%#x", row, words[0]);
        struct attn_dropout d = {ldexpf((float)words[0], -32), 5};
        float p = 1.0f;
        attn_dropout_apply(&d, 0, row, 0, &p, 1);
        assert_same_bits(&(float){1.0f / (1.0f - d.probability)}, &p, 1);
        d.probability = nextafterf(d.probability, 1.0f);
        /* Floats below 2^-8 are closer together than the words: the threshold may stay where it is. */
        if (words[0] >> 24 != 0 && d.probability < 1.0f) {
            attn_dropout_apply(&d, 0, row, 0, &p, 1);
            assert_same_bits(&(float){0.0f}, &p, 1);
        }
        found++;
    }
}

static void test_any_split(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct attn_dropout d = {0.3f, random_bits(&random)};
    float whole[KEYS], parts[KEYS];
    for (uint64_t row = 0; row < 200; row++) {
        random_fill(&random, TEST_UNIFORM, whole, KEYS);
        memcpy(parts, whole, sizeof whole);
        attn_dropout_apply(&d, 7, row, 0, whole, KEYS);
        for (size_t begin = 0, n; begin < KEYS; begin += n) {
            n = random_between(&random, 0, row % 2 ? 6 : 300);
            n = n < KEYS - begin ? n : KEYS - begin;
            attn_dropout_apply(&d, 7, row, begin, parts + begin, n);
        }
        assert_same_bits(whole, parts, KEYS);
    }
}

static void test_frequency(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { ROWS = 500 };
    for (int tenths = 1; tenths <= 9; tenths++) {
        struct attn_dropout d = {(float)tenths / 10.0f, random_bits(&random)};
        double probability = (double)d.probability, n = (double)ROWS * KEYS, dropped_count = 0;
        for (uint64_t row = 0; row < ROWS; row++) {
            float p[KEYS];
            for (size_t c = 0; c < KEYS; c++)
                p[c] = 1.0f;
            attn_dropout_apply(&d, row % 5, row, 0, p, KEYS);
            for (size_t c = 0; c < KEYS; c++)
                dropped_count += p[c] == 0.0f;
        }
        test_case("p=%g", probability);
        assert_near(n * probability, dropped_count, 5 * sqrt(n * probability * (1 - probability)));
    }
}

/* Masks of neighbouring places, or of neighbouring seeds, agree as often as independent masks would. */
static void test_independence(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct attn_dropout d = {0.5f, random_bits(&random)}, other = {0.5f, d.seed ^ 1},
                        high = {0.5f, d.seed ^ UINT64_C(1) << 32};
    enum { ROWS = 200 };
    double equal[5] = {0}, n = (double)ROWS * KEYS;
    for (uint64_t row = 0; row < ROWS; row++) {
        float p[6][KEYS];
        for (size_t i = 0; i < 6; i++)
            for (size_t c = 0; c < KEYS; c++)
                p[i][c] = 1.0f;
        attn_dropout_apply(&d, 3, row, 0, p[0], KEYS);
        attn_dropout_apply(&d, 4, row, 0, p[1], KEYS);
        attn_dropout_apply(&d, 3, row + ROWS, 0, p[2], KEYS);
        attn_dropout_apply(&d, 3, row, KEYS, p[3], KEYS);
        attn_dropout_apply(&other, 3, row, 0, p[4], KEYS);
        attn_dropout_apply(&high, 3, row, 0, p[5], KEYS);
        for (size_t i = 0; i < 5; i++)
            for (size_t c = 0; c < KEYS; c++)
                equal[i] += p[0][c] == p[i + 1][c];
    }
    for (size_t i = 0; i < 5; i++) {
        test_case("comparison %zu", i);
        assert_near(n / 2, equal[i], 5 * sqrt(n / 4));
    }
}

static void test_identity(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct attn_dropout d = {0.0f, random_bits(&random)};
    float p[KEYS], expected[KEYS];
    random_fill(&random, TEST_WILD, p, KEYS);
    memcpy(expected, p, sizeof p);
    attn_dropout_apply(&d, 1, 2, 3, p, KEYS);
    assert_memory_equal(p, expected, sizeof p);
}

static void test_nan_stays(void **state) {
    (void)state;
    struct attn_dropout d = {0.9f, 1};
    float p[KEYS];
    for (size_t c = 0; c < KEYS; c++)
        p[c] = NAN;
    attn_dropout_apply(&d, 0, 0, 0, p, KEYS);
    for (size_t c = 0; c < KEYS; c++)
        assert_true(isnan(p[c]));
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_vectors), cmocka_unit_test(test_random_counters),
        cmocka_unit_test(test_definition),        cmocka_unit_test(test_threshold),
        cmocka_unit_test(test_any_split),         cmocka_unit_test(test_frequency),
        cmocka_unit_test(test_independence),      cmocka_unit_test(test_identity),
        cmocka_unit_test(test_nan_stays),
    };
    return test_run(tests);
}
