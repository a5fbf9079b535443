/* Sequences packed one after the other without padding: each has the bits that it has by itself, nothing beyond its own
 * rows and keys is read, and beyond its rows nothing is written. */
#include "attention_problem.h"

#include <math.h>

/* Which tensors are packed. */
enum { PACKED_Q = 1, PACKED_KV = 2 };

/* Borders of sequences of 0 to `longest` rows, at least one of each; `slack` rows before the first and after the last
 * belong to none. */
static attn_cu_lens random_cu(struct test_random *random, size_t batch, size_t longest, size_t slack) {
    int64_t *cu = guarded_alloc((batch + 1) * sizeof *cu, sizeof *cu, random_flush(random));
    size_t full = random_below(random, batch), empty = random_below(random, batch);
    cu[0] = (int64_t)random_below(random, slack + 1);
    for (size_t b = 0; b < batch; b++) {
        size_t len = b == full ? longest : b == empty ? 0 : random_between(random, 0, longest);
        cu[b + 1] = cu[b] + (int64_t)len;
    }
    return (attn_cu_lens){.cu.i64 = cu, .total = (size_t)cu[batch] + random_below(random, slack + 1)};
}

static void cu_free(attn_cu_lens cu) {
    guarded_free((int64_t *)(uintptr_t)cu.cu.i64);
}

static int cu_holds(attn_cu_lens cu, size_t batch, size_t row) {
    return (int64_t)row >= cu.cu.i64[0] && (int64_t)row < cu.cu.i64[batch];
}

/* Rows that belong to no sequence hold poison: no result may depend on them. */
static void poison_slack(const struct tensor *t, attn_cu_lens cu, size_t batch) {
    for (size_t h = 0; h < t->heads; h++)
        for (size_t i = 0; i < t->len && cu.cu.i64; i++)
            if (!cu_holds(cu, batch, i))
                fill_poison(tensor_row(t, 0, h, i), t->size);
}

static struct problem packed_problem(struct test_random *random, enum test_values values, size_t index, unsigned kinds,
                                     unsigned packed) {
    attn_attention_args args = masked_args(random, index);
    args.batch = args.kv_len > 4000 ? 2 : random_between(random, 1, 5);
    if (packed & PACKED_Q)
        args.q_cu = random_cu(random, args.batch, args.q_len, random_below(random, 2) * 3);
    if (packed & PACKED_KV)
        args.kv_cu = random_cu(random, args.batch, args.kv_len, random_below(random, 2) * 20);
    args.q_len += packed & PACKED_Q ? random_below(random, 2) : 0; /* an upper limit, not the longest that there is */
    args.kv_len += packed & PACKED_KV ? random_below(random, 2) : 0;
    struct problem p = masked_problem_new(random, values, &args, kinds);
    if (packed & PACKED_Q) {
        poison_slack(&p.q, args.q_cu, args.batch);
        p.args.q.batch_stride = SIZE_MAX;
    }
    if (packed & PACKED_KV) {
        poison_slack(&p.k, args.kv_cu, args.batch);
        poison_slack(&p.v, args.kv_cu, args.batch);
        p.args.k.batch_stride = p.args.v.batch_stride = SIZE_MAX;
    }
    return p;
}

static void packed_free(struct problem *p) {
    attn_cu_lens q_cu = p->args.q_cu, kv_cu = p->args.kv_cu;
    problem_free(p);
    cu_free(q_cu);
    cu_free(kv_cu);
}

static size_t packed_len(attn_cu_lens cu, size_t b, size_t len) {
    return cu.cu.i64 ? (size_t)(cu.cu.i64[b + 1] - cu.cu.i64[b]) : len;
}

static void check_untouched(const float *x, size_t n, const char *what) {
    for (size_t i = 0; i < n; i++)
        if (!is_untouched(x + i))
            test_fail("%s was written where a sequence has none", what);
}

/* Rows beyond a sequence's own are not written; keys beyond its own have no weight in its rows. */
static void check_rest(const attn_attention_args *args, const struct attention_result *r) {
    for (size_t row = 0; row < r->rows; row++) {
        size_t b = row / args->q_len / args->heads, i = row % args->q_len;
        size_t keys = packed_len(args->kv_cu, b, args->kv_len);
        const float *weights = r->weights + row * r->kv_len, *scores = r->scores + row * r->kv_len;
        if (i < packed_len(args->q_cu, b, args->q_len)) {
            check_no_keys(weights + keys, scores + keys, r->kv_len - keys);
            continue;
        }
        check_untouched(weights, r->kv_len, "weights");
        check_untouched(scores, r->kv_len, "scores");
        check_untouched(r->log_sum_exp + row, 1, "log_sum_exp");
    }
    for (size_t h = 0; args->q_cu.cu.i64 && h < args->heads; h++)
        for (size_t i = 0; i < args->q_cu.total; i++)
            if (!cu_holds(args->q_cu, args->batch, i))
                check_untouched(tensor_row(&r->o, 0, h, i), r->o.size, "o");
}

/* Each sequence by itself, on the same ISA, all heads at once. */
static void check_sequences(const attn_attention_args *args, const struct attention_result *r) {
    for (size_t b = 0; b < args->batch; b++) {
        attn_attention_args one = one_sequence(args, b);
        struct attention_result alone = attention_run(&one, LAYOUT_BHSD, FLUSH_END);
        for (size_t head = 0; head < args->heads; head++)
            assert_same_rows(((struct rows_of){&one, &alone, 0, head, 0}), ((struct rows_of){args, r, b, head, 0}),
                             one.q_len, one.kv_len);
        attention_free(&alone);
    }
}

static void check_packed(struct test_random *random, enum test_values values, size_t index, unsigned kinds) {
    unsigned packed = index % 4 == 3 ? PACKED_Q : index % 4 == 2 ? PACKED_KV : PACKED_Q | PACKED_KV;
    struct problem p = packed_problem(random, values, index, kinds, packed);
    describe(&p.args);
    enum layout layout = (enum layout)random_below(random, LAYOUT_OUTPUTS);
    struct attention_result r = attention_run(&p.args, layout, random_flush(random));
    struct attention_result expected = reference_run(&p);
    check_rest(&p.args, &r);
    check_sequences(&p.args, &r);
    assert_same_result(&expected, &r);
    if (values == TEST_NORMAL)
        check_against_oracle(&p, &r, 0);
    attention_free(&expected);
    attention_free(&r);
    packed_free(&p);
}

static void test_sequences_as_alone(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 8); i++)
        check_packed(&random, TEST_NORMAL, i, 0);
}

static void test_sequences_as_alone_with_each_kind(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(12, 1) * KINDS; i++)
        check_packed(&random, TEST_NORMAL, i / KINDS + i, 1u << i % KINDS);
}

static void test_sequences_as_alone_with_many_kinds(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(150, 16); i++)
        check_packed(&random, i % 4 ? TEST_NORMAL : TEST_WILD, i, random_kinds(&random, ~0u));
}

/* The output alone, without the other outputs. */
static void test_output_alone(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 8); i++) {
        struct problem p = packed_problem(&random, TEST_NORMAL, i, random_kinds(&random, ~0u), PACKED_Q | PACKED_KV);
        attn_attention_args args = p.args;
        describe(&args);
        struct attention_result expected = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
        struct tensor o = tensor_new(LAYOUT_BSHD, 1, args.heads, args.q_cu.total, expected.o.size, FLUSH_START);
        args.o = tensor_out(&o);
        args.o.batch_stride = SIZE_MAX;
        attention_run_into(&args, FLUSH_END);
        assert_same_tensor(&expected.o, &o);
        tensor_free(&o);
        attention_free(&expected);
        packed_free(&p);
    }
}

/* One buffer [total, 3, H, D] of queries, keys and values, as one projection of packed rows writes it. */
static void test_one_buffer(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { BATCH = 4, HEADS = 3, LONGEST = 37, SIZE = 20 };
    for (size_t i = 0; i < sweep(20, 4); i++) {
        attn_cu_lens cu = random_cu(&random, BATCH, LONGEST, 5);
        struct tensor all = tensor_random(&random, TEST_NORMAL, LAYOUT_BSHD, 1, 3 * HEADS, cu.total, SIZE, FLUSH_END);
        struct problem p = {.args = {.isa = test_isa(), .batch = BATCH, .heads = HEADS, .q_len = LONGEST}};
        struct tensor *part[3] = {&p.q, &p.k, &p.v};
        for (size_t t = 0; t < 3; t++) {
            *part[t] = all;
            part[t]->heads = HEADS;
            part[t]->data += t * HEADS * SIZE;
        }
        p.args.kv_len = LONGEST;
        p.args.head_size = SIZE;
        p.args.q_cu = p.args.kv_cu = cu;
        p.args.q = tensor_in(&p.q);
        p.args.k = tensor_in(&p.k);
        p.args.v = tensor_in(&p.v);
        set_order(&p.args.options, (enum order)(i % 3));
        describe(&p.args);
        struct attention_result expected = reference_run(&p), actual = attention_run(&p.args, LAYOUT_BSHD, FLUSH_END);
        assert_same_result(&expected, &actual);
        attention_free(&expected);
        attention_free(&actual);
        tensor_free(&all);
        cu_free(cu);
    }
}

static void run_in_reverse(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count) {
    (void)context;
    while (count-- > 0)
        task(arg, count);
}

/* Spans of keys that are shared out among tasks, of which short sequences have fewer. */
static void test_spans_shared_out(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const attn_parallel parallel = {.run = run_in_reverse, .threads = 4};
    for (size_t i = 0; i < sweep(6, 2); i++) {
        attn_attention_args args = {.isa = test_isa(), .batch = 3, .heads = 2, .q_len = 2, .kv_len = 8300};
        args.head_size = 16;
        args.kv_cu = random_cu(&random, args.batch, args.kv_len, 5);
        args.kv_len += i % 2 ? 5000 : 0; /* a bound that leaves out a span */
        describe(&args);
        struct problem p = problem_new(&random, TEST_NORMAL, &args);
        struct attention_result alone = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        p.args.parallel = &parallel;
        struct attention_result shared = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        check_rest(&p.args, &alone);
        check_rest(&p.args, &shared);
        assert_same_result(&alone, &shared);
        attention_free(&alone);
        attention_free(&shared);
        packed_free(&p);
    }
}

/* Sequences of no rows, of no keys, and none but such. */
static void test_nothing_to_do(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const int64_t none[] = {2, 2, 2, 2}, some[] = {0, 2, 2, 3};
    for (size_t i = 0; i < 4; i++) {
        attn_attention_args args = {.isa = test_isa(), .batch = 3, .heads = 2, .q_len = 2, .kv_len = 2, .head_size = 5};
        args.q_cu = (attn_cu_lens){.cu.i64 = i & 1 ? none : some, .total = 3};
        args.kv_cu = (attn_cu_lens){.cu.i64 = i & 2 ? none : some, .total = 3};
        args.options.empty = ATTN_EMPTY_MEAN;
        describe(&args);
        struct problem p = problem_new(&random, TEST_NORMAL, &args);
        struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        check_against_oracle(&p, &r, 0);
        check_rest(&p.args, &r);
        attention_free(&r);
        problem_free(&p);
    }
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sequences_as_alone),
        cmocka_unit_test(test_sequences_as_alone_with_each_kind),
        cmocka_unit_test(test_sequences_as_alone_with_many_kinds),
        cmocka_unit_test(test_output_alone),
        cmocka_unit_test(test_one_buffer),
        cmocka_unit_test(test_spans_shared_out),
        cmocka_unit_test(test_nothing_to_do),
    };
    return test_run(tests);
}
