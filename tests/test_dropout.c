/* Dropout in a training-mode forward: which weights it drops is recomputed here from the documented place of each
 * weight in the counter of Philox, with the authors' implementation. */
#include "problem.h"

#include <Random123/philox.h>
#include <float.h>

/* The weights that the call returns are exponentials of a logit less the row's maximum; those that multiply the
 * values are of a logit less the maximum so far, rescaled block by block. The two are rounded differently, by up to
 * 6 units of FLT_EPSILON as seen. */
#define UNITS 16

static size_t sweep(size_t full, size_t quick) {
    return test_quick() ? quick : full;
}

/* Whether the weight of (head, row, key) stays; head counts batch * heads + head. */
static int is_kept(float probability, uint64_t seed, size_t head, size_t row, size_t key) {
    philox4x32_ctr_t counter = {{(uint32_t)(key / 4), (uint32_t)row, (uint32_t)head, 0}};
    philox4x32_key_t philox_key = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    double threshold = floor((double)probability * 0x1p32);
    return (double)philox4x32_R(10, counter, philox_key).v[key % 4] >= threshold;
}

struct problem {
    attn_attention_args args;
    struct tensor q, k, v;
    int64_t *lens, *starts;
};

/* Where each sequence's first visible key is: within a block, so that dropout sees a part of the block. */
static int64_t *random_starts(struct test_random *random, size_t batch, size_t kv_len) {
    int64_t *starts = guarded_alloc(batch * sizeof *starts, sizeof *starts, FLUSH_END);
    for (size_t b = 0; b < batch; b++)
        starts[b] = (int64_t)random_between(random, kv_len > 1, kv_len / 2);
    return starts;
}

static struct problem problem_new(struct test_random *random, size_t index) {
    static const float probabilities[] = {0.1f, 0.5f, 0.25f, 0.9f, 1e-3f, 0.999f};
    struct problem p = {.args = {.isa = test_isa(), .batch = random_between(random, 1, 3)}};
    attn_attention_args *a = &p.args;
    a->kv_heads = random_between(random, 1, 2);
    a->heads = a->kv_heads * random_between(random, 1, 3);
    a->q_len = random_between(random, 1, 30);
    a->kv_len = index % 5 == 4 ? random_between(random, 250, 530) : random_between(random, 1, 70);
    a->head_size = random_between(random, 1, 40);
    a->value_size = random_between(random, 1, 40);
    if (index == 0) { /* enough work for several tasks */
        a->q_len = 90;
        a->kv_len = 450;
        a->head_size = a->value_size = 40;
    }
    set_order(&a->options, (enum order)(index % 3));
    a->options.valid.kind = (attn_valid_kind)(index / 3 % 3);
    a->options.dropout = probabilities[index % 6];
    a->options.dropout_seed = random_bits(random);
    p.q = tensor_random(random, TEST_NORMAL, LAYOUT_BSHD, a->batch, a->heads, a->q_len, a->head_size, FLUSH_END);
    p.k = tensor_random(random, TEST_NORMAL, LAYOUT_BHSD, a->batch, a->kv_heads, a->kv_len, a->head_size, FLUSH_END);
    p.v = tensor_random(random, TEST_NORMAL, LAYOUT_GAPS, a->batch, a->kv_heads, a->kv_len, a->value_size, FLUSH_END);
    p.lens = random_lens(random, lens_count(a->options.valid.kind, a->batch, a->q_len), a->kv_len, FLUSH_END);
    a->q = tensor_in(&p.q);
    a->k = tensor_in(&p.k);
    a->v = tensor_in(&p.v);
    a->options.valid = valid_lens(a->options.valid.kind, p.lens);
    if (index % 2)
        a->options.starts.i64 = p.starts = random_starts(random, a->batch, a->kv_len);
    test_case("batch=%zu heads=%zu kv_heads=%zu q_len=%zu kv_len=%zu head_size=%zu value_size=%zu valid=%d causal=%d "
              "starts=%d p=%g",
              a->batch, a->heads, a->kv_heads, a->q_len, a->kv_len, a->head_size, a->value_size,
              (int)a->options.valid.kind, (int)a->options.causal, a->options.starts.i64 != NULL,
              (double)a->options.dropout);
    return p;
}

static void problem_free(struct problem *p) {
    tensor_free(&p->q);
    tensor_free(&p->k);
    tensor_free(&p->v);
    guarded_free(p->lens);
    guarded_free(p->starts);
}

static struct attention_result run_without(const attn_attention_args *args) {
    attn_attention_args plain = *args;
    plain.options.dropout = 0;
    return attention_run(&plain, LAYOUT_BHSD, FLUSH_END);
}

static void test_probability_zero_is_identity(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(30, 8); i++) {
        struct problem p = problem_new(&random, i);
        p.args.options.dropout = i % 2 ? 0.0f : -0.0f;
        struct attention_result seeded = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        p.args.options.dropout_seed = 0;
        struct attention_result plain = run_without(&p.args);
        assert_same_result(&plain, &seeded);
        attention_free(&seeded);
        attention_free(&plain);
        problem_free(&p);
    }
}

/* Values are the rows of the identity: the output is the weights after dropout. */
static void test_mask_is_the_documented_one(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    size_t kept = 0, dropped = 0;
    for (size_t i = 0; i < sweep(36, 9); i++) {
        struct problem p = problem_new(&random, i);
        size_t n = p.args.kv_len;
        float probability = p.args.options.dropout, *identity = guarded_floats(n * n, FLUSH_END);
        for (size_t j = 0; j < n * n; j++)
            identity[j] = j % (n + 1) == 0;
        p.args.value_size = n;
        p.args.v = (attn_tensor){identity, ATTN_F32, 0, 0, n, 1};
        struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END), plain = run_without(&p.args);
        assert_same_bits(plain.weights, r.weights, r.rows * n);
        assert_same_bits(plain.log_sum_exp, r.log_sum_exp, r.rows);
        for (size_t row = 0; row < r.rows; row++)
            for (size_t j = 0; j < n; j++) {
                size_t head = row / p.args.q_len, at = row * n + j;
                int keep = is_kept(probability, p.args.options.dropout_seed, head, row % p.args.q_len, j);
                double expected = keep ? (double)r.weights[at] / (1 - (double)probability) : 0;
                assert_near(expected, (double)r.o.data[at], UNITS * FLT_EPSILON * expected);
                kept += keep && r.weights[at] > 0;
                dropped += !keep && r.weights[at] > 0;
            }
        attention_free(&r);
        attention_free(&plain);
        guarded_free(identity);
        problem_free(&p);
    }
    assert_true(kept > 100 && dropped > 100);
}

/* The output element from the weights before dropout, and the sum of its terms' absolute values. */
static double expected_output(const struct problem *p, const struct attention_result *r, size_t row, size_t column,
                              double *magnitude) {
    const attn_attention_args *a = &p->args;
    size_t head = row / a->q_len, kv_head = head % a->heads / (a->heads / a->kv_heads);
    double sum = 0;
    *magnitude = 0;
    for (size_t j = 0; j < a->kv_len; j++)
        if (is_kept(a->options.dropout, a->options.dropout_seed, head, row % a->q_len, j)) {
            double value = (double)tensor_row(&p->v, head / a->heads, kv_head, j)[column];
            double term = (double)r->weights[row * a->kv_len + j] / (1 - (double)a->options.dropout) * value;
            sum += term;
            *magnitude += fabs(term);
        }
    return sum;
}

/* The output alone; over few keys that call takes another path. */
static void check_output_alone(const struct problem *p, const struct attention_result *r) {
    attn_attention_args args = p->args;
    struct tensor o = tensor_new(LAYOUT_BSHD, args.batch, args.heads, args.q_len, r->o.size, FLUSH_END);
    args.o = tensor_out(&o);
    attention_run_into(&args, FLUSH_END);
    assert_same_tensor(&r->o, &o);
    tensor_free(&o);
}

static void test_output_is_the_sum_over_kept_keys(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(36, 9); i++) {
        struct problem p = problem_new(&random, i);
        struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        for (size_t at = 0; at < r.rows * p.args.value_size; at++) {
            double magnitude,
                expected = expected_output(&p, &r, at / p.args.value_size, at % p.args.value_size, &magnitude);
            assert_near(expected, (double)r.o.data[at], UNITS * FLT_EPSILON * magnitude);
        }
        check_output_alone(&p, &r);
        attention_free(&r);
        problem_free(&p);
    }
}

/* ---- What the mask does not depend on ---- */

static void run_in_reverse(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count) {
    size_t *runs = context;
    ++*runs;
    while (count-- > 0)
        task(arg, count);
}

static void test_same_bits_on_every_isa_and_thread_count(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    size_t runs = 0;
    for (size_t i = 0; i < sweep(30, 10); i++) {
        struct problem p = problem_new(&random, i);
        struct attention_result actual = attention_run(&p.args, LAYOUT_BSHD, FLUSH_END);
        for (size_t threads = 1; threads <= 8; threads++) {
            attn_parallel parallel = {run_in_reverse, &runs, threads};
            attn_attention_args args = p.args;
            args.parallel = &parallel;
            args.isa = ATTN_ISA_SCALAR;
            struct attention_result expected = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
            assert_same_result(&expected, &actual);
            attention_free(&expected);
        }
        attention_free(&actual);
        problem_free(&p);
    }
    assert_true(runs > 0);
}

/* A sequence, head, row and key have their random number wherever the problem ends. */
static void test_same_bits_in_a_smaller_problem(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(30, 8); i++) {
        struct problem p = problem_new(&random, i);
        p.args.options.causal = 1;
        p.args.options.position = ATTN_POSITION_TOP_LEFT;
        p.args.options.valid = (attn_valid_lens){0};
        struct attention_result whole = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        attn_attention_args part = p.args;
        part.batch = 1;
        part.q_len = random_between(&random, 1, p.args.q_len);
        part.kv_len = part.q_len < p.args.kv_len ? part.q_len : p.args.kv_len; /* what those rows see */
        struct attention_result r = attention_run(&part, LAYOUT_BSHD, FLUSH_END);
        for (size_t h = 0; h < part.heads; h++)
            for (size_t row = 0; row < part.q_len; row++)
                assert_same_bits(tensor_row(&whole.o, 0, h, row), tensor_row(&r.o, 0, h, row), whole.o.size);
        attention_free(&whole);
        attention_free(&r);
        problem_free(&p);
    }
}

static void test_same_bits_from_a_cache(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(30, 8); i++) {
        struct problem p = problem_new(&random, i);
        const attn_attention_args *a = &p.args;
        attn_cache_config config = {.isa = test_isa(), .batch = a->batch, .kv_heads = a->kv_heads};
        config.head_size = a->head_size;
        config.value_size = a->value_size;
        config.capacity = a->kv_len;
        void *memory;
        attn_cache *cache = cache_create(&config, &memory, FLUSH_END);
        size_t half = a->kv_len / 2;
        cache_append(cache, half, a->k, a->v, NULL);
        cache_append(cache, a->kv_len - half, tensor_from(&p.k, half), tensor_from(&p.v, half), NULL);
        struct attention_result expected = attention_run(a, LAYOUT_BHSD, FLUSH_END);
        p.args.cache = cache;
        struct attention_result actual = attention_run(a, LAYOUT_BHSD, FLUSH_END);
        assert_same_result(&expected, &actual);
        attention_free(&expected);
        attention_free(&actual);
        guarded_free(memory);
        problem_free(&p);
    }
}

/* ---- Chance ---- */

enum { CHANCE_KEYS = 40, CHANCE_SIZE = 8 };

/* Over many seeds the mean is attention without dropout. Each mean is off by 6 deviations with a chance of 2e-9. */
static void test_expected_value(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    size_t seeds = sweep(4000, 500);
    struct problem p = {.args = {.isa = test_isa(), .batch = 1, .heads = 1, .kv_heads = 1, .q_len = 1}};
    p.args.kv_len = CHANCE_KEYS;
    p.args.head_size = p.args.value_size = CHANCE_SIZE;
    p.args.options.dropout = 0.3f;
    p.q = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, 1, CHANCE_SIZE, FLUSH_END);
    p.k = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, CHANCE_KEYS, CHANCE_SIZE, FLUSH_END);
    p.v = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, CHANCE_KEYS, CHANCE_SIZE, FLUSH_END);
    p.args.q = tensor_in(&p.q);
    p.args.k = tensor_in(&p.k);
    p.args.v = tensor_in(&p.v);
    struct attention_result plain = run_without(&p.args);
    double sum[CHANCE_SIZE] = {0};
    for (size_t s = 0; s < seeds; s++) {
        p.args.options.dropout_seed = random_bits(&random);
        struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        for (size_t c = 0; c < CHANCE_SIZE; c++)
            sum[c] += (double)r.o.data[c];
        attention_free(&r);
    }
    for (size_t c = 0; c < CHANCE_SIZE; c++) {
        double variance = 0;
        for (size_t j = 0; j < CHANCE_KEYS; j++)
            variance += pow((double)plain.weights[j] * (double)tensor_row(&p.v, 0, 0, j)[c], 2) * 0.3 / 0.7;
        assert_near((double)plain.o.data[c], sum[c] / (double)seeds, 6 * sqrt(variance / (double)seeds));
    }
    attention_free(&plain);
    problem_free(&p);
}

/* Both halves of the seed count. */
static void test_seeds_differ(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct problem p = problem_new(&random, 4);
    p.args.options = (attn_options){.dropout = 0.5f};
    p.args.kv_len = p.args.kv_len < 200 ? p.args.kv_len : 200;
    struct attention_result zero = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
    for (int bit = 0; bit < 64; bit += 21) {
        p.args.options.dropout_seed = UINT64_C(1) << bit;
        struct attention_result other = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        assert_memory_not_equal(zero.o.data, other.o.data, tensor_count(&zero.o) * sizeof(float));
        attention_free(&other);
    }
    attention_free(&zero);
    problem_free(&p);
}

/* ---- The layer ---- */

/* With the identity for W_v and W_o the layer's output is attention's, and its weights tell what it should be. */
static void test_layer(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { HIDDEN = 24, HEADS = 3, BATCH = 2, LEN = 19, SIZE = HIDDEN / HEADS };
    attn_layer_config config = {.isa = test_isa(), .query_width = HIDDEN, .key_width = HIDDEN, .value_width = HIDDEN};
    config.hidden = HIDDEN;
    config.heads = HEADS;
    struct layer_weights weights = layer_weights_new(&random, &config, 0);
    for (size_t i = 0; i < HIDDEN * HIDDEN; i++)
        weights.weight[LAYER_V][i] = weights.weight[LAYER_O][i] = i % (HIDDEN + 1) == 0;
    void *memory;
    attn_layer *layer = layer_create(&weights.config, &memory, FLUSH_END);
    struct problem p = {.args = {.isa = test_isa(), .batch = BATCH, .heads = HEADS, .kv_heads = HEADS, .q_len = LEN}};
    struct tensor x = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, BATCH, 1, LEN, HIDDEN, FLUSH_END);
    attn_layer_args args = {.batch = BATCH, .q_len = LEN, .kv_len = LEN};
    args.q = args.k = args.v = tensor_rows(&x);
    args.options.dropout = 0.4f;
    args.options.dropout_seed = random_bits(&random);
    struct layer_result r = layer_run(layer, &config, &args, LAYOUT_BHSD, FLUSH_END);
    p.args.kv_len = LEN;
    p.args.options = args.options;
    p.v = (struct tensor){x.data, BATCH, HEADS, LEN, SIZE, x.batch_stride, SIZE, HIDDEN};
    struct attention_result as_attention = {.weights = r.weights, .rows = r.rows, .kv_len = LEN};
    for (size_t at = 0; at < r.rows * SIZE; at++) {
        size_t row = at / SIZE, head = row / LEN;
        double magnitude, expected = expected_output(&p, &as_attention, row, at % SIZE, &magnitude);
        float y = tensor_row(&r.y, head / HEADS, 0, row % LEN)[head % HEADS * SIZE + at % SIZE];
        assert_near(expected, (double)y, UNITS * FLT_EPSILON * magnitude);
    }
    layer_result_free(&r);
    layer_weights_free(&weights);
    guarded_free(memory);
    tensor_free(&x);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probability_zero_is_identity),
        cmocka_unit_test(test_mask_is_the_documented_one),
        cmocka_unit_test(test_output_is_the_sum_over_kept_keys),
        cmocka_unit_test(test_same_bits_on_every_isa_and_thread_count),
        cmocka_unit_test(test_same_bits_in_a_smaller_problem),
        cmocka_unit_test(test_same_bits_from_a_cache),
        cmocka_unit_test(test_expected_value),
        cmocka_unit_test(test_seeds_differ),
        cmocka_unit_test(test_layer),
    };
    return test_run(tests);
}
