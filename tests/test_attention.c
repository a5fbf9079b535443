/* attn_attention: the bits of the scalar reference whatever the shape, layout and mask, and the reference within a
 * bound of an oracle in double precision. */
#include "attention_problem.h"

#include <math.h>

#include "arithmetic.h"

/* ---- Bits ---- */

static void check_against_reference(struct test_random *random, enum test_values values,
                                    const attn_attention_args *args) {
    describe(args);
    struct problem p = problem_new(random, values, args);
    struct attention_result expected = reference_run(&p);
    enum layout layout = (enum layout)random_below(random, LAYOUT_OUTPUTS);
    struct attention_result actual = attention_run(&p.args, layout, random_flush(random));
    assert_same_result(&expected, &actual);
    attention_free(&actual);
    attention_free(&expected);
    problem_free(&p);
}

static void test_same_bits_as_reference(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(500, 48); i++) {
        attn_attention_args args = random_args(&random, i);
        check_against_reference(&random, TEST_NORMAL, &args);
    }
}

/* Infinities, NaN, denormals and the largest floats, in queries, keys and values. */
static void test_same_bits_of_wild_values(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(300, 28); i++) {
        attn_attention_args args = random_args(&random, i);
        check_against_reference(&random, i % 2 ? TEST_WILD : TEST_NASTY, &args);
    }
}

static void test_same_bits_across_spans(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const size_t kv_lens[] = {4095, 4096, 4097, 4096 + 300, 2 * 4096 + 1};
    for (size_t i = 0; i < sweep(5, 1); i++) {
        attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 2, .kv_heads = 1, .q_len = 3 + i};
        args.kv_len = kv_lens[test_quick() ? 2 + i : i];
        args.head_size = 20;
        args.options.causal = 1;
        args.options.valid.kind = i % 2 ? ATTN_VALID_PER_ROW : ATTN_VALID_ALL;
        check_against_reference(&random, TEST_NORMAL, &args);
    }
}

/* ---- Blocks and spans ---- */

/* One row as the border describes it: blocks of ATTN_BLOCK keys, spans of ATTN_SPAN merged in ascending order, every
 * product a chain of fused multiply-adds. The small steps are the scalar reference's. */
static void row_by_the_letter(const attn_attention_args *args, const float *q, const float *k, const float *v, float *o,
                              float *log_sum_exp) {
    enum { SIZE = 64 };
    static _Alignas(64) float scores[ATTN_BLOCK], lanes[ATTN_LANES], output[SIZE], span_output[SIZE], query[SIZE];
    const struct attn_attention_kernel *kernel = attn_table_attention(&attn_kernels_scalar);
    const size_t size = args->head_size, keys = args->kv_len;
    float max = 0, sum = 0;
    assert_in_range(size, 1, SIZE);
    kernel->scale(1, size, q, 0, (float)(1 / sqrt((double)size)), query, 0);
    for (size_t key = 0; key < keys;) {
        float span_max = -INFINITY, span_sum;
        size_t begin = key, end = key + ATTN_SPAN < keys ? key + ATTN_SPAN : keys;
        memset(lanes, 0, sizeof lanes);
        memset(span_output, 0, sizeof span_output);
        for (; key < end; key += ATTN_BLOCK) {
            uint32_t lo = 0, hi = (uint32_t)(end - key < ATTN_BLOCK ? end - key : ATTN_BLOCK);
            for (size_t c = 0; c < hi; c++) {
                scores[c] = 0;
                for (size_t d = 0; d < size; d++)
                    scores[c] = attn_fmaf(query[d], k[(key + c) * size + d], scores[c]);
            }
            float rescale;
            kernel->online_softmax(&(struct attn_online_softmax_args){
                1, scores, ATTN_BLOCK, &lo, &hi, 0, (hi + 15u) / 16 * 16, &span_max, lanes, &rescale, 0});
            kernel->scale(1, size, span_output, 0, rescale, span_output, 0);
            for (size_t c = 0; c < hi; c++)
                for (size_t j = 0; j < size; j++)
                    span_output[j] = attn_fmaf(scores[c], v[(key + c) * size + j], span_output[j]);
        }
        key = end;
        kernel->sum(1, lanes, &span_sum);
        if (begin == 0) {
            max = span_max;
            sum = span_sum;
            memcpy(output, span_output, sizeof output);
        } else {
            kernel->merge(1, size, &max, &sum, output, &span_max, &span_sum, span_output, SIZE);
        }
    }
    float inverse = 1 / sum;
    kernel->normalize(1, size, output, 0, &inverse, o, 0);
    attn_table_elementary(&attn_kernels_scalar)->log(&sum, log_sum_exp, 1);
    *log_sum_exp += max;
}

static void test_blocks_and_spans_by_the_letter(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const size_t kv_lens[] = {1, 17, 256, 257, 600, 4096, 4097, 4500, 2 * 4096 + 260};
    for (size_t i = 0; i < sizeof kv_lens / sizeof *kv_lens; i += sweep(1, 4)) {
        attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 1, .q_len = 1 + 2 * (i % 2)};
        args.kv_len = kv_lens[i];
        args.head_size = random_between(&random, 1, 24);
        describe(&args);
        struct tensor q = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, args.q_len, args.head_size, FLUSH_END);
        struct tensor k =
            tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, args.kv_len, args.head_size, FLUSH_END);
        struct tensor v =
            tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, args.kv_len, args.head_size, FLUSH_END);
        args.q = tensor_in(&q);
        args.k = tensor_in(&k);
        args.v = tensor_in(&v);
        struct attention_result r = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
        for (size_t row = 0; row < args.q_len; row++) {
            float o[64], log_sum_exp;
            row_by_the_letter(&args, tensor_row(&q, 0, 0, row), k.data, v.data, o, &log_sum_exp);
            assert_same_bits(o, tensor_row(&r.o, 0, 0, row), args.head_size);
            assert_same_bits(&log_sum_exp, r.log_sum_exp + row, 1);
        }
        attention_free(&r);
        tensor_free(&q);
        tensor_free(&k);
        tensor_free(&v);
    }
}

/* ---- The oracle ---- */

/* A shape of the sweep, some of them longer than a span. */
static attn_attention_args oracle_args(struct test_random *random, size_t index) {
    attn_attention_args args = random_args(random, index);
    if (index % 32 == 15) {
        args.batch = 1;
        args.kv_len = 4096 + 300;
        args.q_len = 5;
    }
    return args;
}

static void test_within_bound_of_oracle(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(160, 16); i++) {
        attn_attention_args args = oracle_args(&random, i);
        args.scale = 0;
        describe(&args);
        struct problem p = problem_new(&random, TEST_NORMAL, &args);
        struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        check_against_oracle(&p, &r, 0);
        attention_free(&r);
        problem_free(&p);
    }
}

static void round_to_integers(const struct tensor *t) {
    for (size_t i = 0; i < tensor_count(t); i++)
        if (!is_untouched(t->data + i))
            t->data[i] = nearbyintf(t->data[i]);
}

/* Queries and keys are small integers and the scale is a power of two, so that no score rounds. */
static void test_within_8_units_where_scores_are_exact(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(160, 16); i++) {
        attn_attention_args args = oracle_args(&random, i);
        args.scale = 0.125f;
        describe(&args);
        struct problem p = problem_new(&random, TEST_NORMAL, &args);
        round_to_integers(&p.q);
        round_to_integers(&p.k);
        struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        check_against_oracle(&p, &r, 1);
        attention_free(&r);
        problem_free(&p);
    }
}

/* ---- Layouts and outputs ---- */

static void test_grouped_heads_as_repeated_ones(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < 12; i++) {
        attn_attention_args args = masked_args(&random, i);
        args.heads = 6;
        args.kv_heads = 1 + i % 3;
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &args, random_kinds(&random, ~KIND(GROUPS)));
        args = p.args;
        describe(&args);
        struct tensor k = tensor_new(LAYOUT_BHSD, args.batch, 6, args.kv_len, p.k.size, FLUSH_END);
        struct tensor v = tensor_new(LAYOUT_BHSD, args.batch, 6, args.kv_len, p.v.size, FLUSH_END);
        for (size_t row = 0; row < args.batch * 6 * args.kv_len; row++) {
            size_t b = row / args.kv_len / 6, head = row / args.kv_len % 6, j = row % args.kv_len;
            memcpy(tensor_row(&k, b, head, j), tensor_row(&p.k, b, head / (6 / args.kv_heads), j),
                   p.k.size * sizeof(float));
            memcpy(tensor_row(&v, b, head, j), tensor_row(&p.v, b, head / (6 / args.kv_heads), j),
                   p.v.size * sizeof(float));
        }
        struct attention_result grouped = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        p.args.kv_heads = 0;
        p.args.k = tensor_in(&k);
        p.args.v = tensor_in(&v);
        struct attention_result repeated = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        assert_same_result(&repeated, &grouped);
        attention_free(&grouped);
        attention_free(&repeated);
        tensor_free(&k);
        tensor_free(&v);
        problem_free(&p);
    }
}

/* Queries, keys, values and output in every layout at once. */
static void test_every_layout(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    attn_attention_args args = {.isa = test_isa(), .batch = 2, .heads = 4, .kv_heads = 2, .q_len = 5, .kv_len = 19};
    args.head_size = 17;
    args.value_size = 9;
    describe(&args);
    for (size_t i = 0; i < LAYOUT_COUNT * LAYOUT_COUNT * LAYOUT_COUNT; i++) {
        enum layout q_layout = (enum layout)(i % LAYOUT_COUNT),
                    k_layout = (enum layout)(i / LAYOUT_COUNT % LAYOUT_COUNT);
        enum layout v_layout = (enum layout)(i / LAYOUT_COUNT / LAYOUT_COUNT);
        struct problem p = {.args = args};
        p.q = tensor_random(&random, TEST_NORMAL, q_layout, 2, 4, 5, 17, random_flush(&random));
        p.k = tensor_random(&random, TEST_NORMAL, k_layout, 2, 2, 19, 17, random_flush(&random));
        p.v = tensor_random(&random, TEST_NORMAL, v_layout, 2, 2, 19, 9, random_flush(&random));
        p.args.q = tensor_in(&p.q);
        p.args.k = tensor_in(&p.k);
        p.args.v = tensor_in(&p.v);
        struct attention_result expected = reference_run(&p);
        for (enum layout o_layout = LAYOUT_BHSD; o_layout < LAYOUT_OUTPUTS; o_layout++) {
            struct attention_result actual = attention_run(&p.args, o_layout, random_flush(&random));
            assert_same_result(&expected, &actual);
            attention_free(&actual);
        }
        attention_free(&expected);
        problem_free(&p);
    }
}

/* Some heads, rows and columns of larger tensors. */
static void test_slices(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { BATCH = 2, HEADS = 7, LEN = 50, SIZE = 40, SLICE_HEADS = 3, SLICE_SIZE = 20 };
    for (size_t i = 0; i < sweep(20, 4); i++) {
        struct tensor whole[3];
        struct problem p = {.args = {.isa = test_isa(), .batch = BATCH, .heads = SLICE_HEADS, .head_size = SLICE_SIZE}};
        struct tensor *part[3] = {&p.q, &p.k, &p.v};
        for (size_t t = 0; t < 3; t++) {
            size_t step = random_between(&random, 1, 3), head = random_below(&random, HEADS - SLICE_HEADS + 1);
            size_t column = random_below(&random, SIZE - SLICE_SIZE + 1), first = random_below(&random, 20);
            whole[t] = tensor_random(&random, TEST_NORMAL, (enum layout)random_below(&random, LAYOUT_OUTPUTS), BATCH,
                                     HEADS, LEN, SIZE, FLUSH_END);
            *part[t] = whole[t];
            part[t]->data = tensor_row(&whole[t], 0, head, first) + column;
            part[t]->heads = SLICE_HEADS;
            part[t]->size = SLICE_SIZE;
            part[t]->row_stride *= step;
            part[t]->len = (LEN - first + step - 1) / step;
        }
        p.v.len = p.k.len = p.k.len < p.v.len ? p.k.len : p.v.len;
        p.args.q_len = p.q.len;
        p.args.kv_len = p.k.len;
        p.args.q = tensor_in(&p.q);
        p.args.k = tensor_in(&p.k);
        p.args.v = tensor_in(&p.v);
        describe(&p.args);
        struct attention_result expected = reference_run(&p), actual = attention_run(&p.args, LAYOUT_GAPS, FLUSH_END);
        assert_same_result(&expected, &actual);
        attention_free(&expected);
        attention_free(&actual);
        for (size_t t = 0; t < 3; t++)
            tensor_free(&whole[t]);
    }
}

/* One buffer [B, S, 3, H, D] of queries, keys and values, as one projection writes it. */
static void test_packed_qkv(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { BATCH = 2, HEADS = 3, LEN = 37, SIZE = 20 };
    struct tensor packed = tensor_random(&random, TEST_NORMAL, LAYOUT_BSHD, BATCH, 3 * HEADS, LEN, SIZE, FLUSH_END);
    struct problem p = {.args = {.isa = test_isa(), .batch = BATCH, .heads = HEADS, .q_len = LEN, .kv_len = LEN}};
    struct tensor *part[3] = {&p.q, &p.k, &p.v};
    for (size_t t = 0; t < 3; t++) {
        *part[t] = packed;
        part[t]->heads = HEADS;
        part[t]->data += t * HEADS * SIZE;
    }
    p.args.head_size = SIZE;
    p.args.q = tensor_in(&p.q);
    p.args.k = tensor_in(&p.k);
    p.args.v = tensor_in(&p.v);
    struct attention_result expected = reference_run(&p), actual = attention_run(&p.args, LAYOUT_BSHD, FLUSH_END);
    assert_same_result(&expected, &actual);
    attention_free(&expected);
    attention_free(&actual);
    tensor_free(&packed);
}

/* Optional outputs may be left out, and asking for them changes no other result. */
static void test_outputs_are_independent(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 9); i++) {
        attn_attention_args args = masked_args(&random, i);
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &args, i % 3 ? random_kinds(&random, ~0u) : 0);
        args = p.args;
        describe(&args);
        struct attention_result full = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        for (int asked = 0; asked < 4; asked++) {
            struct tensor o = tensor_new(LAYOUT_GAPS, args.batch, args.heads, args.q_len, p.v.size, FLUSH_END);
            float *weights = asked == 1 ? guarded_floats(full.rows * full.kv_len, FLUSH_END) : NULL;
            float *log_sum_exp = asked == 2 ? guarded_floats(full.rows, FLUSH_END) : NULL;
            float *scores = asked == 3 ? guarded_floats(full.rows * full.kv_len, FLUSH_END) : NULL;
            p.args.o = tensor_out(&o);
            p.args.options.weights.data = weights;
            p.args.options.log_sum_exp.data = log_sum_exp;
            p.args.options.scores.data = scores;
            attention_run_into(&p.args, FLUSH_END);
            assert_same_tensor(&full.o, &o);
            if (weights)
                assert_same_bits(full.weights, weights, full.rows * full.kv_len);
            if (log_sum_exp)
                assert_same_bits(full.log_sum_exp, log_sum_exp, full.rows);
            if (scores)
                assert_same_bits(full.scores, scores, full.rows * full.kv_len);
            guarded_free(weights);
            guarded_free(scores);
            guarded_free(log_sum_exp);
            tensor_free(&o);
        }
        attention_free(&full);
        problem_free(&p);
    }
}

/* Attention over few keys takes the path for few keys where only the output is asked for, and cuts it into pieces of
 * rows: the rows of later pieces have lengths and positions of their own. With the other outputs it takes a general
 * path. */
static void test_many_rows_over_few_keys(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const size_t q_lens[] = {63, 64, 65, 84, 128, 150};
    for (size_t i = 0; i < 9 * (sizeof q_lens / sizeof *q_lens); i++) {
        attn_attention_args args = {.isa = test_isa(), .batch = 2, .heads = 2, .q_len = q_lens[i / 9], .kv_len = 20};
        args.head_size = 5;
        set_order(&args.options, (enum order)(i % 3));
        args.options.valid.kind = (attn_valid_kind)(i / 3 % 3);
        describe(&args);
        struct problem p = problem_new(&random, TEST_NORMAL, &args);
        struct attention_result full = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        struct tensor o = tensor_new(LAYOUT_GAPS, args.batch, args.heads, args.q_len, p.v.size, FLUSH_END);
        p.args.o = tensor_out(&o);
        attention_run_into(&p.args, FLUSH_END);
        assert_same_tensor(&full.o, &o);
        tensor_free(&o);
        attention_free(&full);
        problem_free(&p);
    }
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits_as_reference),
        cmocka_unit_test(test_same_bits_of_wild_values),
        cmocka_unit_test(test_same_bits_across_spans),
        cmocka_unit_test(test_blocks_and_spans_by_the_letter),
        cmocka_unit_test(test_within_bound_of_oracle),
        cmocka_unit_test(test_within_8_units_where_scores_are_exact),
        cmocka_unit_test(test_grouped_heads_as_repeated_ones),
        cmocka_unit_test(test_every_layout),
        cmocka_unit_test(test_slices),
        cmocka_unit_test(test_packed_qkv),
        cmocka_unit_test(test_outputs_are_independent),
        cmocka_unit_test(test_many_rows_over_few_keys),
    };
    return test_run(tests);
}
