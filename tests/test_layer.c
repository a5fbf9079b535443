/* attn_layer: the bits of the scalar reference whatever the sizes and strides, and within a bound of the oracle. */
#include "dispatch.h"
#include "problem.h"

#include <float.h>
#include <math.h>

#include "oracle.h"

/* Error of an element of y in units of FLT_EPSILON times the sum that it is, with every product replaced by its
 * absolute value. Four projections and attention round one after the other: 5 units are seen in 20 seeds. */
#define OUTPUT_UNITS 16

static size_t sweep(size_t full, size_t quick) {
    return test_quick() ? quick : full;
}

static enum flush random_flush(struct test_random *random) {
    return random_below(random, 2) ? FLUSH_END : FLUSH_START;
}

struct problem {
    struct layer_weights weights;
    attn_layer *layer;
    void *memory;
    attn_layer_args args;
    struct tensor q, k, v;
    int64_t *lens;
};

/* Sizes and heads go round; biases are on and off in each combination. */
static attn_layer_config random_config(struct test_random *random, size_t index) {
    static const size_t head_sizes[] = {1, 2, 3, 5, 7, 8, 15, 16, 17, 20, 31, 33};
    attn_layer_config config = {.isa = test_isa()};
    size_t group = random_between(random, 1, 3), kv_heads = random_between(random, 1, 3);
    config.heads = group * kv_heads;
    config.kv_heads = group == 1 && random_below(random, 2) ? 0 : kv_heads;
    random_layer_sizes(random, &config, head_sizes[index % (sizeof head_sizes / sizeof *head_sizes)]);
    config.query_width = random_between(random, 1, 70);
    config.key_width = random_between(random, 1, 70);
    config.value_width = random_between(random, 1, 70);
    config.scale = random_below(random, 4) ? 0 : random_uniform(random, -1.0f, 1.0f);
    return config;
}

static enum layout random_input_layout(struct test_random *random) {
    static const enum layout layouts[] = {LAYOUT_BHSD, LAYOUT_GAPS, LAYOUT_ONE_SEQUENCE};
    return layouts[random_below(random, 3)];
}

static struct problem problem_new(struct test_random *random, size_t index) {
    attn_layer_config config = random_config(random, index);
    struct problem p = {.weights = layer_weights_new(random, &config, (unsigned)index % 16)};
    size_t batch = random_between(random, 1, 3), q_len = random_between(random, 0, 20),
           kv_len = random_between(random, 0, 40);
    p.layer = layer_create(&p.weights.config, &p.memory, random_flush(random));
    p.args = (attn_layer_args){.batch = batch, .q_len = q_len, .kv_len = kv_len};
    set_order(&p.args.options, (enum order)random_below(random, 3));
    p.args.options.valid.kind = (attn_valid_kind)random_below(random, 3);
    p.args.options.empty = (attn_empty_rows)random_below(random, 2);
    p.lens = random_lens(random, lens_count(p.args.options.valid.kind, batch, q_len), kv_len, FLUSH_END);
    p.args.options.valid = valid_lens(p.args.options.valid.kind, p.lens);
    p.q =
        tensor_random(random, TEST_NORMAL, random_input_layout(random), batch, 1, q_len, config.query_width, FLUSH_END);
    p.k = tensor_random(random, TEST_NORMAL, random_input_layout(random), batch, 1, kv_len, config.key_width,
                        FLUSH_START);
    p.v = tensor_random(random, TEST_NORMAL, random_input_layout(random), batch, 1, kv_len, config.value_width,
                        FLUSH_END);
    p.args.q = tensor_rows(&p.q);
    p.args.k = tensor_rows(&p.k);
    p.args.v = tensor_rows(&p.v);
    test_case("batch=%zu q_len=%zu kv_len=%zu widths=%zu,%zu,%zu hidden=%zu heads=%zu kv_heads=%zu sizes=%zu,%zu,%zu "
              "scale=%g valid=%d "
              "causal=%d "
              "empty=%d biases=%zu",
              batch, q_len, kv_len, config.query_width, config.key_width, config.value_width, config.hidden,
              config.heads, config.kv_heads, config.head_size, config.value_size, config.out_size, (double)config.scale,
              (int)p.args.options.valid.kind, (int)p.args.options.causal, (int)p.args.options.empty, index % 16);
    return p;
}

static void problem_free(struct problem *p) {
    layer_weights_free(&p->weights);
    guarded_free(p->memory);
    tensor_free(&p->q);
    tensor_free(&p->k);
    tensor_free(&p->v);
    guarded_free(p->lens);
}

/* The same by the scalar reference and from dense inputs, a sequence at a time. */
static void compare_with_reference(const struct problem *p, const struct layer_result *actual) {
    attn_layer_config config = p->weights.config;
    struct tensor q = tensor_copy(&p->q, LAYOUT_BHSD, FLUSH_END), k = tensor_copy(&p->k, LAYOUT_BHSD, FLUSH_END);
    struct tensor v = tensor_copy(&p->v, LAYOUT_BHSD, FLUSH_END);
    void *memory;
    config.isa = ATTN_ISA_SCALAR;
    attn_layer *layer = layer_create(&config, &memory, FLUSH_END);
    for (size_t b = 0; b < p->args.batch; b++) {
        attn_layer_args one = p->args;
        size_t rows = config.heads * one.q_len;
        one.batch = 1;
        one.q = (attn_tensor){tensor_row(&q, b, 0, 0), ATTN_F32, 0, 0, q.row_stride, 1};
        one.k = (attn_tensor){tensor_row(&k, b, 0, 0), ATTN_F32, 0, 0, k.row_stride, 1};
        one.v = (attn_tensor){tensor_row(&v, b, 0, 0), ATTN_F32, 0, 0, v.row_stride, 1};
        if (one.options.valid.kind != ATTN_VALID_ALL)
            one.options.valid.lens.i64 += one.options.valid.kind == ATTN_VALID_PER_ROW ? b * one.q_len : b;
        struct layer_result expected = layer_run(layer, &config, &one, LAYOUT_BHSD, FLUSH_END);
        for (size_t i = 0; i < one.q_len; i++)
            assert_same_bits(tensor_row(&expected.y, 0, 0, i), tensor_row(&actual->y, b, 0, i), actual->y.size);
        assert_same_bits(expected.weights, actual->weights + b * rows * one.kv_len, rows * one.kv_len);
        assert_same_bits(expected.log_sum_exp, actual->log_sum_exp + b * rows, rows);
        layer_result_free(&expected);
    }
    guarded_free(memory);
    tensor_free(&q);
    tensor_free(&k);
    tensor_free(&v);
}

static void test_same_bits_as_reference(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(400, 64); i++) {
        struct problem p = problem_new(&random, i);
        enum layout layout = random_below(&random, 2) ? LAYOUT_BHSD : LAYOUT_GAPS;
        struct layer_result r = layer_run(p.layer, &p.weights.config, &p.args, layout, random_flush(&random));
        compare_with_reference(&p, &r);
        layer_result_free(&r);
        problem_free(&p);
    }
}

/* Several blocks of keys, tiles of rows and steps of k. */
static void test_same_bits_for_larger_sizes(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(6, 1); i++) {
        attn_layer_config config = {.isa = test_isa(), .heads = 4, .kv_heads = i % 2 ? 2 : 0, .hidden = 80};
        config.query_width = 300;
        config.key_width = 96;
        config.value_width = 33;
        struct problem p = {.weights = layer_weights_new(&random, &config, 15)};
        p.layer = layer_create(&p.weights.config, &p.memory, FLUSH_END);
        p.args = (attn_layer_args){.batch = 2, .q_len = 45, .kv_len = 270 + i};
        p.args.options.causal = 1;
        p.q = tensor_random(&random, TEST_NORMAL, LAYOUT_GAPS, 2, 1, p.args.q_len, 300, FLUSH_END);
        p.k = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 2, 1, p.args.kv_len, 96, FLUSH_END);
        p.v = tensor_random(&random, TEST_NORMAL, LAYOUT_GAPS, 2, 1, p.args.kv_len, 33, FLUSH_END);
        p.args.q = tensor_rows(&p.q);
        p.args.k = tensor_rows(&p.k);
        p.args.v = tensor_rows(&p.v);
        test_case("kv_len=%zu", p.args.kv_len);
        struct layer_result r = layer_run(p.layer, &config, &p.args, LAYOUT_GAPS, FLUSH_END);
        compare_with_reference(&p, &r);
        layer_result_free(&r);
        problem_free(&p);
    }
}

/* A score's error has grown by those of its two projections: 7 units of 1 + the largest score's sum are seen. */
static void check_weights(const struct oracle *oracle, const struct layer_result *r) {
    for (size_t row = 0; row < r->rows; row++)
        for (size_t j = 0; j < r->kv_len; j++) {
            double weight = oracle->weights[row * r->kv_len + j], units = 16 * (1 + oracle->score_magnitude[row]);
            assert_near(weight, (double)r->weights[row * r->kv_len + j], units * FLT_EPSILON * weight + FLT_MIN);
        }
}

static void test_within_bound_of_oracle(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(150, 30); i++) {
        struct problem p = problem_new(&random, i);
        struct layer_result r = layer_run(p.layer, &p.weights.config, &p.args, LAYOUT_BHSD, FLUSH_END);
        struct oracle oracle;
        oracle_layer(&p.weights.config, &p.args, NULL, &oracle);
        for (size_t j = 0; j < tensor_count(&r.y); j++)
            assert_near(oracle.output[j], (double)r.y.data[j],
                        OUTPUT_UNITS * FLT_EPSILON * oracle.magnitude[j] + FLT_MIN);
        check_weights(&oracle, &r);
        oracle_free(&oracle);
        layer_result_free(&r);
        problem_free(&p);
    }
}

/* Weights stored [out, in], as nn.Linear does, and with gaps, make the same layer. */
static void test_weight_strides(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 12); i++) {
        struct problem p = problem_new(&random, i);
        struct layer_result expected = layer_run(p.layer, &p.weights.config, &p.args, LAYOUT_BHSD, FLUSH_END);
        for (size_t gap = 0; gap < 2; gap++) {
            attn_layer_config config = p.weights.config;
            struct test_matrix other[LAYER_WEIGHTS];
            void *memory;
            for (size_t which = 0; which < LAYER_WEIGHTS; which++) {
                attn_linear *linear = layer_linear(&config, which);
                size_t in, out;
                layer_weight_sizes(&config, which, &in, &out);
                other[which] = test_matrix(out, in, in + 5 * gap, FLUSH_END);
                for (size_t j = 0; j < in * out; j++)
                    other[which].data[j % out * other[which].stride + j / out] = p.weights.weight[which][j];
                linear->weight = other[which].data;
                linear->in_stride = 1;
                linear->out_stride = other[which].stride;
            }
            attn_layer *layer = layer_create(&config, &memory, FLUSH_END);
            for (size_t which = 0; which < LAYER_WEIGHTS; which++) /* not needed once they are packed */
                test_matrix_free(&other[which]);
            struct layer_result actual = layer_run(layer, &config, &p.args, LAYOUT_BHSD, FLUSH_END);
            assert_same_layer_result(&expected, &actual);
            layer_result_free(&actual);
            guarded_free(memory);
        }
        layer_result_free(&expected);
        problem_free(&p);
    }
}

/* Query, key and value may be one tensor. */
static void test_self_attention(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < 8; i++) {
        attn_layer_config config = {
            .isa = test_isa(), .query_width = 40, .key_width = 40, .value_width = 40, .hidden = 60};
        config.heads = 6;
        config.kv_heads = i % 2 ? 2 : 6;
        struct problem p = {.weights = layer_weights_new(&random, &config, (unsigned)i)};
        p.layer = layer_create(&p.weights.config, &p.memory, FLUSH_END);
        p.q = tensor_random(&random, TEST_NORMAL, LAYOUT_GAPS, 2, 1, 23, 40, FLUSH_END);
        p.k = tensor_copy(&p.q, LAYOUT_GAPS, FLUSH_END);
        p.v = tensor_copy(&p.q, LAYOUT_BHSD, FLUSH_END);
        p.args = (attn_layer_args){.batch = 2, .q_len = 23, .kv_len = 23, .q = tensor_rows(&p.q)};
        set_order(&p.args.options, (enum order)(i % 3));
        p.args.k = tensor_rows(&p.k);
        p.args.v = tensor_rows(&p.v);
        test_case("self attention %zu", i);
        struct layer_result expected = layer_run(p.layer, &config, &p.args, LAYOUT_BHSD, FLUSH_END);
        p.args.k = p.args.v = p.args.q;
        struct layer_result actual = layer_run(p.layer, &config, &p.args, LAYOUT_BHSD, FLUSH_END);
        assert_same_layer_result(&expected, &actual);
        layer_result_free(&expected);
        layer_result_free(&actual);
        problem_free(&p);
    }
}

/* The first `size` columns of a tensor of one head, row after row. */
static struct tensor first_columns(const struct tensor *x, size_t size) {
    struct tensor dense = tensor_new(LAYOUT_BHSD, x->batch, 1, x->len, size, FLUSH_END);
    for (size_t b = 0; b < x->batch; b++)
        for (size_t i = 0; i < x->len; i++)
            memcpy(tensor_row(&dense, b, 0, i), tensor_row(x, b, 0, i), size * sizeof(float));
    return dense;
}

/* Queries, keys and values in one place with batch strides of their own: no sequence has rows that are all its own. */
static void test_batch_strides_alone_differ(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { BATCH = 3, LEN = 9, SIZE = 20 };
    for (size_t i = 0; i < 16; i++) {
        size_t row_stride = i & 8 ? 1024 : SIZE; /* or rows that alias, which are copied first */
        attn_layer_config config = {.isa = test_isa(), .query_width = SIZE, .key_width = SIZE, .value_width = SIZE};
        config.heads = 3;
        config.hidden = 24;
        struct problem p = {.weights = layer_weights_new(&random, &config, (unsigned)i)};
        p.layer = layer_create(&p.weights.config, &p.memory, FLUSH_END);
        struct tensor x = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, BATCH, 1, LEN, row_stride, FLUSH_END);
        attn_tensor own = tensor_rows(&x), shared = {.data = x.data, .row_stride = row_stride};
        p.args = (attn_layer_args){.batch = BATCH, .q_len = LEN, .kv_len = LEN};
        p.args.q = i & 1 ? shared : own;
        p.args.k = i & 2 ? shared : own;
        p.args.v = i & 4 ? shared : own;
        p.q = (struct tensor){x.data, BATCH, 1, LEN, SIZE, p.args.q.batch_stride, 0, row_stride};
        p.k = (struct tensor){x.data, BATCH, 1, LEN, SIZE, p.args.k.batch_stride, 0, row_stride};
        p.v = (struct tensor){x.data, BATCH, 1, LEN, SIZE, p.args.v.batch_stride, 0, row_stride};
        test_case("batch strides %zu %zu %zu, row stride %zu", p.q.batch_stride, p.k.batch_stride, p.v.batch_stride,
                  row_stride);
        struct layer_result r = layer_run(p.layer, &config, &p.args, LAYOUT_BHSD, FLUSH_END);
        compare_with_reference(&p, &r);
        layer_result_free(&r);
        tensor_free(&x);
        layer_weights_free(&p.weights);
        guarded_free(p.memory);
    }
}

/* Rows 4 KiB apart, which are copied before they are multiplied: one tensor for all, of which each reads other columns,
 * or three. Of keys there may be more than there is room for a copy. */
static void test_rows_that_alias(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(12, 6); i++) {
        size_t kv_len = i % 3 == 1 ? 61 : 23;
        attn_layer_config config = {.isa = test_isa(), .query_width = 60, .value_width = 64};
        config.key_width = i % 2 ? 60 : 70;
        config.heads = i == 5 ? 16 : 6;
        config.hidden = i == 5 ? 1024 : 72;
        config.value_size = i % 3 == 2 ? 5 : 0; /* so that merged heads are narrower than the inputs */
        config.out_size = i % 2 ? 50 : 0;
        struct problem p = {.weights = layer_weights_new(&random, &config, (unsigned)i)};
        p.layer = layer_create(&p.weights.config, &p.memory, FLUSH_END);
        p.args = (attn_layer_args){.batch = 2, .q_len = 23, .kv_len = kv_len};
        p.args.options.valid.kind = (attn_valid_kind)((i + i / 3) % 3);
        p.lens = random_lens(&random, lens_count(p.args.options.valid.kind, 2, 23), kv_len, FLUSH_END);
        p.args.options.valid = valid_lens(p.args.options.valid.kind, p.lens);
        struct tensor x[3];
        for (size_t t = 0; t < 3; t++)
            x[t] = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 2, 1, kv_len, 1024, FLUSH_END);
        const struct tensor *k = &x[i % 4 ? 0 : 1], *v = &x[i % 4 ? 0 : 2];
        p.q = first_columns(&x[0], config.query_width);
        p.k = first_columns(k, config.key_width);
        p.v = first_columns(v, config.value_width);
        p.args.q = tensor_rows(&p.q);
        p.args.k = tensor_rows(&p.k);
        p.args.v = tensor_rows(&p.v);
        test_case("aliasing rows %zu", i);
        struct layer_result expected = layer_run(p.layer, &config, &p.args, LAYOUT_BHSD, FLUSH_END);
        compare_with_reference(&p, &expected);
        p.args.q = tensor_rows(&x[0]);
        p.args.k = tensor_rows(k);
        p.args.v = tensor_rows(v);
        struct layer_result actual = layer_run(p.layer, &config, &p.args, LAYOUT_BHSD, FLUSH_END);
        assert_same_layer_result(&expected, &actual);
        layer_result_free(&expected);
        layer_result_free(&actual);
        for (size_t t = 0; t < 3; t++)
            tensor_free(&x[t]);
        problem_free(&p);
    }
}

/* Rows of one sequence, alone and some at a time: what else is in the batch does not matter. */
static void test_row_alone_as_in_batch(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(80, 16); i++) {
        struct problem p = problem_new(&random, i);
        p.args.options.causal = 0;
        struct layer_result whole = layer_run(p.layer, &p.weights.config, &p.args, LAYOUT_BHSD, FLUSH_END);
        for (size_t row = 0; row < p.args.batch * p.args.q_len; row++) {
            size_t b = row / p.args.q_len, at = row % p.args.q_len;
            attn_layer_args one = p.args;
            one.batch = one.q_len = 1;
            one.q.data = tensor_row(&p.q, b, 0, at);
            one.k.data = tensor_row(&p.k, b, 0, 0);
            one.v.data = tensor_row(&p.v, b, 0, 0);
            if (one.options.valid.kind != ATTN_VALID_ALL)
                one.options.valid.lens.i64 += one.options.valid.kind == ATTN_VALID_PER_ROW ? row : b;
            struct layer_result r = layer_run(p.layer, &p.weights.config, &one, LAYOUT_BHSD, FLUSH_END);
            assert_same_bits(tensor_row(&whole.y, b, 0, at), r.y.data, r.y.size);
            layer_result_free(&r);
        }
        layer_result_free(&whole);
        problem_free(&p);
    }
}

/* Padding behind the valid lengths may hold anything, NaN too. */
static void test_padding_does_not_matter(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 12); i++) {
        struct problem p = problem_new(&random, i);
        int64_t lens[3];
        p.args.options.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = lens};
        p.args.options.empty = ATTN_EMPTY_ZERO;
        for (size_t b = 0; b < p.args.batch; b++)
            lens[b] = (int64_t)random_below(&random, p.args.kv_len + 1);
        struct tensor k = tensor_copy(&p.k, LAYOUT_BHSD, FLUSH_END), v = tensor_copy(&p.v, LAYOUT_BHSD, FLUSH_END);
        p.args.k = tensor_rows(&k);
        p.args.v = tensor_rows(&v);
        struct layer_result expected = layer_run(p.layer, &p.weights.config, &p.args, LAYOUT_BHSD, FLUSH_END);
        for (size_t b = 0; b < p.args.batch; b++)
            for (size_t j = (size_t)lens[b]; j < p.args.kv_len; j++) {
                for (size_t c = 0; c < k.size; c++)
                    tensor_row(&k, b, 0, j)[c] = c % 2 ? NAN : INFINITY;
                for (size_t c = 0; c < v.size; c++)
                    tensor_row(&v, b, 0, j)[c] = c % 2 ? NAN : -INFINITY;
            }
        struct layer_result actual = layer_run(p.layer, &p.weights.config, &p.args, LAYOUT_BHSD, FLUSH_END);
        assert_same_layer_result(&expected, &actual);
        layer_result_free(&expected);
        layer_result_free(&actual);
        tensor_free(&k);
        tensor_free(&v);
        problem_free(&p);
    }
}

/* Without a visible key attention gives 0, and the layer its output bias; or it gives the mean of the values. */
static void test_empty_rows(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < 8; i++) {
        attn_layer_config config = {
            .isa = test_isa(), .query_width = 9, .key_width = 11, .value_width = 13, .hidden = 34};
        config.heads = 2;
        struct layer_weights weights = layer_weights_new(&random, &config, i % 2 ? 15 : 0);
        struct tensor q = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, 3, 9, FLUSH_END);
        struct tensor k = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, 20, 11, FLUSH_END);
        struct tensor v = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, 20, 13, FLUSH_END);
        int64_t none = 0;
        void *memory;
        attn_layer *layer = layer_create(&weights.config, &memory, FLUSH_END);
        attn_layer_args args = {.batch = 1, .q_len = 3, .kv_len = i & 2 ? 0 : 20, .q = tensor_rows(&q)};
        if (args.kv_len) { /* without keys the pointers to them may be NULL */
            args.k = tensor_rows(&k);
            args.v = tensor_rows(&v);
        }
        args.options.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = &none};
        args.options.empty = i & 4 ? ATTN_EMPTY_MEAN : ATTN_EMPTY_ZERO;
        test_case("kv_len=%zu empty=%d", args.kv_len, (int)args.options.empty);
        struct layer_result r = layer_run(layer, &config, &args, LAYOUT_BHSD, FLUSH_END);
        struct oracle oracle;
        oracle_layer(&weights.config, &args, NULL, &oracle);
        for (size_t at = 0; at < tensor_count(&r.y); at++) {
            float bias = weights.bias[LAYER_O] ? weights.bias[LAYER_O][at % config.hidden] : 0;
            if (args.options.empty == ATTN_EMPTY_ZERO || args.kv_len == 0)
                assert_memory_equal(&bias, r.y.data + at, sizeof bias);
            else
                assert_near(oracle.output[at], (double)r.y.data[at], OUTPUT_UNITS * FLT_EPSILON * oracle.magnitude[at]);
        }
        check_weights(&oracle, &r);
        oracle_free(&oracle);
        layer_result_free(&r);
        layer_weights_free(&weights);
        guarded_free(memory);
        tensor_free(&q);
        tensor_free(&k);
        tensor_free(&v);
    }
}

/* batch or query length of 0 succeed without a look at anything. */
static void test_nothing_to_do(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct problem p = problem_new(&random, 0);
    for (size_t zero = 0; zero < 2; zero++) {
        attn_layer_args args = {.batch = zero != 0, .q_len = zero != 1, .kv_len = 7};
        size_t bytes = 12345;
        test_case("zero %zu", zero);
        assert_ok(attn_layer_workspace(p.layer, &args, &bytes, NULL));
        assert_ok(attn_layer_forward(p.layer, &args, NULL, bytes, NULL));
    }
    problem_free(&p);
}

static void assert_names(const char *text, const char *group, const char *name) {
    const char *at = strstr(text, group);
    size_t length = strlen(name);
    assert_non_null(at);
    at += strlen(group);
    if (strncmp(at, name, length) != 0 || (at[length] != ' ' && at[length] != '\0'))
        test_fail("%s%s expected in \"%s\"", group, name, text);
}

/* The kernels that attention takes follow from the type of keys and values, not from that of the weights. */
static void test_kernel_names(void **state) {
    (void)state;
    static const attn_type types[] = {ATTN_F32, ATTN_BF16};
    const struct attn_kernels *table;
    struct test_random random = test_random(__func__);
    assert_ok(attn_table_for(test_isa(), &table));
    for (size_t i = 0; i < 2; i++) {
        attn_layer_config config = random_config(&random, i);
        config.kv_type = types[i];
        struct layer_weights weights = layer_weights_new(&random, &config, 0);
        void *memory;
        attn_layer *layer = layer_create(&weights.config, &memory, FLUSH_END);
        char text[512];
        attn_layer_kernels(layer, text, sizeof text);
        assert_names(text, "gemm=", attn_gemm_find(table, ATTN_CLASS_F32)->name);
        const struct attn_gemm_kernel *gemm = attn_gemm_for(table, types[i], ATTN_ARITHMETIC_FASTEST);
        assert_names(text, "attention=", gemm->name);
        assert_names(text, "softmax=", i == 0 ? attn_table_attention(table)->name : attn_bf16_for(table, gemm)->name);
        assert_names(text, "copy=", attn_table_copy(table)->name);
        layer_weights_free(&weights);
        guarded_free(memory);
    }
}

/* The text is cut as snprintf cuts. */
static void test_cut_kernel_names(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct problem p = problem_new(&random, 3);
    char whole[512], part[512];
    size_t length = attn_layer_kernels(p.layer, whole, sizeof whole);
    assert_in_range(length, 1, sizeof whole - 1);
    assert_int_equal(length, strlen(whole));
    for (size_t size = 0; size <= length + 2; size++) {
        memset(part, 'x', sizeof part);
        assert_int_equal(length, attn_layer_kernels(p.layer, size ? part : NULL, size));
        size_t kept = size == 0 ? 0 : size - 1 < length ? size - 1 : length;
        assert_memory_equal(whole, part, kept);
        assert_int_equal(size ? '\0' : 'x', part[kept]);
        for (size_t i = size; i < sizeof part; i++)
            assert_int_equal('x', part[i]);
    }
    memset(part, 'x', sizeof part);
    assert_int_equal(0, attn_layer_kernels(NULL, part, sizeof part));
    problem_free(&p);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits_as_reference),  cmocka_unit_test(test_same_bits_for_larger_sizes),
        cmocka_unit_test(test_within_bound_of_oracle),  cmocka_unit_test(test_weight_strides),
        cmocka_unit_test(test_self_attention),          cmocka_unit_test(test_batch_strides_alone_differ),
        cmocka_unit_test(test_rows_that_alias),         cmocka_unit_test(test_row_alone_as_in_batch),
        cmocka_unit_test(test_padding_does_not_matter), cmocka_unit_test(test_empty_rows),
        cmocka_unit_test(test_nothing_to_do),           cmocka_unit_test(test_kernel_names),
        cmocka_unit_test(test_cut_kernel_names),
    };
    return test_run(tests);
}
