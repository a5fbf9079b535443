/* Everything that decides which keys a query row sees and what is done to its logits, alone and in every combination:
 * against the oracle, against the scalar reference bit by bit, and against other ways to say the same. */

#include "attention_problem.h"

#include <float.h>
#include <math.h>

#include "oracle.h"
#include "pages.h"

/* ---- Every combination ---- */

/* The output alone, which may take a path that supports no other output. */
static void check_output_alone(const struct problem *p, const struct attention_result *expected) {
    attn_attention_args args = p->args;
    struct tensor o = tensor_new(LAYOUT_GAPS, args.batch, args.heads, args.q_len, expected->o.size, FLUSH_END);
    args.o = tensor_out(&o);
    attention_run_into(&args, FLUSH_END);
    assert_same_tensor(&expected->o, &o);
    tensor_free(&o);
}

static void check_bits(struct test_random *random, const struct problem *p, const struct attention_result *actual) {
    struct attention_result expected = reference_run(p);
    assert_same_result(&expected, actual);
    if (random_below(random, 2))
        check_output_alone(p, actual);
    attention_free(&expected);
}

static void check_kinds(struct test_random *random, const attn_attention_args *args, unsigned kinds) {
    struct problem p = masked_problem_new(random, TEST_NORMAL, args, kinds);
    describe(&p.args);
    enum layout layout = (enum layout)random_below(random, LAYOUT_OUTPUTS);
    struct attention_result r = attention_run(&p.args, layout, random_flush(random));
    check_against_oracle(&p, &r, 0);
    check_bits(random, &p, &r);
    attention_free(&r);
    problem_free(&p);
}

/* Every other round over several blocks. */
static void test_each_kind_alone(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(12, 2) * KINDS; i++) {
        attn_attention_args args = masked_args(&random, i / KINDS);
        if (i / KINDS % 2)
            args.kv_len = random_between(&random, ATTN_BLOCK + 1, 3 * ATTN_BLOCK);
        check_kinds(&random, &args, 1u << i % KINDS);
    }
}

static void test_every_pair_of_kinds(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    size_t index = 0;
    for (size_t round = 0; round < sweep(4, 1); round++)
        for (unsigned one = 0; one < KINDS; one++)
            for (unsigned other = one + 1; other < KINDS; other++)
                if (kinds_agree(1u << one | 1u << other) && random_below(&random, sweep(1, 3)) == 0) {
                    attn_attention_args args = masked_args(&random, index++);
                    check_kinds(&random, &args, 1u << one | 1u << other);
                }
}

static void test_many_kinds(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(300, 16); i++) {
        attn_attention_args args = masked_args(&random, i);
        check_kinds(&random, &args, random_kinds(&random, ~0u));
    }
}

/* Infinities and NaN in queries, keys, values and bias: the reference's bits all the same. */
static void test_same_bits_of_wild_values(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(200, 16); i++) {
        attn_attention_args args = masked_args(&random, i);
        enum test_values values = i % 2 ? TEST_WILD : TEST_NASTY;
        unsigned kinds = random_kinds(&random, ~0u);
        struct problem p = masked_problem_new(&random, values, &args, kinds);
        /* The farthest that a position can be. */
        if (i % 4 == 0 && kinds & KIND(OFFSET) && !p.args.options.rotary)
            p.args.options.position_offset = i % 8 ? INT64_MIN : INT64_MAX;
        describe(&p.args);
        struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, random_flush(&random));
        check_bits(&random, &p, &r);
        attention_free(&r);
        problem_free(&p);
    }
}

/* ---- Other ways to say the same ---- */

/* What `p` shows of keys as a boolean mask; broadcast over heads where every head sees the same. */
static attn_tensor boolean_mask(const struct problem *p, uint8_t **memory) {
    const attn_attention_args *args = &p->args;
    size_t bytes;
    attn_tensor mask = mask_layout(args, args->options.mask.data ? 0 : 2, &bytes);
    *memory = guarded_alloc(bytes, 1, FLUSH_END);
    for (size_t row = 0; row < args->batch * args->heads * args->q_len; row++) {
        size_t i = row % args->q_len, head = row / args->q_len % args->heads, b = row / args->q_len / args->heads;
        uint8_t *visible = *memory + b * mask.batch_stride + head * mask.head_stride + i * mask.row_stride;
        for (size_t j = 0; j < args->kv_len; j++)
            visible[j] = (uint8_t)oracle_sees(args, b, head, i, j);
    }
    mask.data = *memory;
    return mask;
}

/* The same as an additive mask of 0 and -inf. */
static struct tensor additive_mask(const attn_attention_args *args, const attn_tensor *mask) {
    struct tensor bias = bias_new(args, mask->head_stride ? 0 : 2, FLUSH_END);
    for (size_t row = 0; row < args->batch * args->heads * args->q_len; row++) {
        size_t i = row % args->q_len, head = row / args->q_len % args->heads, b = row / args->q_len / args->heads;
        const uint8_t *visible =
            (const uint8_t *)mask->data + b * mask->batch_stride + head * mask->head_stride + i * mask->row_stride;
        for (size_t j = 0; j < args->kv_len; j++)
            tensor_row(&bias, b, head, i)[j] = visible[j] ? 0.0f : -INFINITY;
    }
    return bias;
}

/* Lengths, starts, causality, windows and a mask are one boolean mask, and one additive mask. */
static void check_as_masks(struct test_random *random, size_t index, unsigned kinds) {
    attn_attention_args args = masked_args(random, index);
    struct problem p = masked_problem_new(random, TEST_NORMAL, &args, kinds);
    uint8_t *memory;
    attn_tensor mask = boolean_mask(&p, &memory);
    struct tensor bias = additive_mask(&p.args, &mask);
    const attn_options plain = {.empty = args.options.empty, .score_stage = args.options.score_stage};
    describe(&p.args);
    struct attention_result expected = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
    p.args.options = plain;
    p.args.options.mask = mask;
    struct attention_result boolean = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
    assert_same_result(&expected, &boolean);
    p.args.options = plain;
    p.args.options.bias = tensor_in(&bias);
    struct attention_result additive = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
    assert_same_result(&expected, &additive);
    attention_free(&expected);
    attention_free(&boolean);
    attention_free(&additive);
    guarded_free(memory);
    tensor_free(&bias);
    problem_free(&p);
}

static void test_intervals_as_masks(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (unsigned kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; i < sweep(8, 1) && KINDS_OF_INTERVALS & 1u << kind; i++)
            check_as_masks(&random, i, 1u << kind);
    for (size_t i = 0; i < sweep(60, 10); i++)
        check_as_masks(&random, i, random_kinds(&random, KINDS_OF_INTERVALS | KIND(MASK)));
}

/* Lengths of rows that hide the same keys as causality and a window. */
static void test_windows_as_lengths(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(40, 8); i++) {
        attn_attention_args args = masked_args(&random, i);
        struct problem p =
            masked_problem_new(&random, TEST_NORMAL, &args, KIND(CAUSAL) | KIND(TOP_LEFT) | KIND(SOFT_CAP));
        int64_t *lens = guarded_alloc(args.batch * args.q_len * sizeof *lens, sizeof *lens, FLUSH_END);
        for (size_t row = 0; row < args.batch * args.q_len; row++)
            lens[row] = (int64_t)(row % args.q_len) + 1;
        describe(&p.args);
        struct attention_result causal = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        p.args.options.causal = 0;
        p.args.options.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_ROW, .lens.i64 = lens};
        struct attention_result per_row = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        assert_same_result(&causal, &per_row);
        p.args.options.valid = (attn_valid_lens){0};
        p.args.options.causal = 1;
        p.args.options.position = ATTN_POSITION_OFFSET;
        p.args.options.position_offset = (int64_t)args.kv_len;
        p.args.options.window_left = args.kv_len + args.q_len;
        struct attention_result all = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        p.args.options.causal = 0;
        p.args.options.position_offset = 0;
        p.args.options.window_left = 0;
        struct attention_result none = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        assert_same_result(&none, &all);
        attention_free(&causal);
        attention_free(&per_row);
        attention_free(&all);
        attention_free(&none);
        guarded_free(lens);
        problem_free(&p);
    }
}

/* Offsets and windows whose sums no integer type holds: row i stands at INT64_MAX + i and sees the keys above i, or
 * none where a window is of 32 bits. */
static void test_ends_of_the_type(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 2, .q_len = 9, .kv_len = 40, .head_size = 8};
    struct problem p = problem_new(&random, TEST_NORMAL, &args);
    p.args.options.causal = 1;
    p.args.options.position = ATTN_POSITION_OFFSET;
    p.args.options.position_offset = INT64_MAX;
    p.args.options.window_left = p.args.options.window_right = PTRDIFF_MAX;
    describe(&p.args);
    struct attention_result all = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
    check_against_oracle(&p, &all, 0);
    for (size_t i = 0; i < args.q_len; i++) {
        int64_t start = INT64_MAX - PTRDIFF_MAX + (int64_t)i + 1;
        attn_attention_args row = p.args;
        row.options = (attn_options){.starts.i64 = &start};
        row = some_rows(&row, i, i + 1);
        struct attention_result one = attention_run(&row, LAYOUT_BHSD, FLUSH_END);
        for (size_t head = 0; head < args.heads; head++)
            assert_same_rows(((struct rows_of){&row, &one, 0, head, 0}), ((struct rows_of){&args, &all, 0, head, i}), 1,
                             args.kv_len);
        attention_free(&one);
    }
    p.args.options.position_offset = INT64_MIN;
    struct attention_result none = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
    for (size_t row = 0; row < none.rows; row++)
        assert_true(none.log_sum_exp[row] == -INFINITY);
    attention_free(&all);
    attention_free(&none);
    problem_free(&p);
}

/* ALiBi where distances outgrow 32 bits, from the first key on or from some key on: logits and log-sum-exp, which is
 * off by no more than the logits are. Differences between such logits are rounding error, and so are weights. */
static void test_alibi_far_from_all_keys(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const int64_t offsets[] = {INT32_MAX - 300,        INT32_MAX,        (int64_t)INT32_MAX + 700,
                                      ((int64_t)1 << 32) + 3, (int64_t)1 << 40, INT64_MAX};
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 3, .q_len = 5, .kv_len = 900};
        args.head_size = 8;
        args.options.score_stage = ATTN_SCORE_MASKED;
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &args, KIND(CAUSAL) | KIND(OFFSET) | KIND(ALIBI));
        p.args.options.position_offset = offsets[i];
        describe(&p.args);
        struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        struct oracle oracle;
        oracle_attention(&p.args, NULL, &oracle);
        for (size_t at = 0; at < r.rows * r.kv_len; at++)
            assert_near(oracle.scores[at], (double)r.scores[at], 5 * FLT_EPSILON * oracle.scores_magnitude[at]);
        for (size_t row = 0; row < r.rows; row++)
            assert_near(oracle.log_sum_exp[row], (double)r.log_sum_exp[row],
                        6 * FLT_EPSILON * oracle.scores_magnitude[row * r.kv_len]);
        check_bits(&random, &p, &r);
        oracle_free(&oracle);
        attention_free(&r);
        problem_free(&p);
    }
}

/* A mask and a bias of which nothing is broadcast. */
static void expand(const struct problem *p, uint8_t **mask_memory, struct tensor *bias, attn_options *options) {
    const attn_attention_args *args = &p->args;
    const attn_tensor *from = &args->options.mask;
    size_t bytes;
    attn_tensor mask = mask_layout(args, 0, &bytes);
    *mask_memory = guarded_alloc(bytes, 1, FLUSH_START);
    *bias = bias_new(args, 0, FLUSH_START);
    for (size_t row = 0; row < args->batch * args->heads * args->q_len; row++) {
        size_t i = row % args->q_len, head = row / args->q_len % args->heads, b = row / args->q_len / args->heads;
        memcpy(*mask_memory + b * mask.batch_stride + head * mask.head_stride + i * mask.row_stride,
               (const uint8_t *)from->data + b * from->batch_stride + head * from->head_stride + i * from->row_stride,
               args->kv_len);
        memcpy(tensor_row(bias, b, head, i), tensor_row(&p->bias, b, head, i), args->kv_len * sizeof(float));
    }
    mask.data = *mask_memory;
    options->mask = mask;
    options->bias = tensor_in(bias);
}

static void test_broadcast_as_expanded(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(120, 16); i++) {
        attn_attention_args args = masked_args(&random, i);
        args.kv_len += 1;
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &args, KIND(MASK) | KIND(BIAS) | KIND(GROUPS));
        uint8_t *mask;
        struct tensor bias;
        describe(&p.args);
        struct attention_result broadcast = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        expand(&p, &mask, &bias, &p.args.options);
        struct attention_result expanded = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        assert_same_result(&expanded, &broadcast);
        attention_free(&broadcast);
        attention_free(&expanded);
        guarded_free(mask);
        tensor_free(&bias);
        problem_free(&p);
    }
}

/* ---- A factor per head ---- */

/* The bias as floats, each times its head's factor, which is a power of 2; of -inf it stays -inf. */
static struct tensor multiplied(const struct problem *p) {
    const attn_attention_args *args = &p->args;
    struct tensor bias = bias_new(args, 0, FLUSH_END);
    for (size_t row = 0; row < args->batch * args->heads * args->q_len; row++) {
        size_t i = row % args->q_len, head = row / args->q_len % args->heads, b = row / args->q_len / args->heads;
        const float *from = tensor_row(&p->bias, b, head, i);
        for (size_t j = 0; j < args->kv_len; j++)
            tensor_row(&bias, b, head, i)[j] = from[j] == -INFINITY ? -INFINITY : from[j] * p->bias_factors[head];
    }
    return bias;
}

static void test_bias_factors(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const float factors[] = {1.0f, 0.0f, -0.0f, -1.0f, 0.25f, -8.0f, 0x1p20f};
    for (size_t i = 0; i < sweep(120, 24); i++) {
        attn_attention_args args = masked_args(&random, i);
        unsigned kinds = random_kinds(&random, ~0u) | KIND(BIAS) | (i % 3 ? KIND(GROUPS) : 0);
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &args, kinds);
        if (!p.bias_factors)
            p.bias_factors = guarded_floats(p.args.heads, FLUSH_END);
        for (size_t h = 0; h < p.args.heads; h++)
            p.bias_factors[h] = factors[random_below(&random, sizeof factors / sizeof *factors)];
        p.args.options.bias_factors = p.bias_factors;
        describe(&p.args);
        struct attention_result with = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        struct tensor bias = multiplied(&p);
        p.args.options.bias = tensor_in(&bias);
        p.args.options.bias_factors = NULL;
        struct attention_result without = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        assert_same_result(&without, &with);
        attention_free(&with);
        attention_free(&without);
        tensor_free(&bias);
        problem_free(&p);
    }
}

/* ---- Hidden keys ---- */

/* The keys that an interval of some row of sequence 0 holds. */
static void visible_range(const attn_attention_args *args, size_t *lo, size_t *hi) {
    *lo = args->kv_len;
    *hi = 0;
    for (size_t i = 0; i < args->q_len; i++)
        for (size_t j = 0; j < args->kv_len; j++)
            if (oracle_sees(args, 0, 0, i, j)) {
                *lo = j < *lo ? j : *lo;
                *hi = j + 1 > *hi ? j + 1 : *hi;
            }
    if (*lo > *hi)
        *lo = *hi = 0;
}

/* A copy of a tensor of one sequence in which keys lo .. hi - 1 alone have pages that do not fault. */
struct range {
    attn_tensor in;
    char *map;
    size_t bytes;
};

/* The range ends with a page or starts with one. Before and after it there are as many pages as the other keys would
 * need. */
static struct range range_copy(const struct tensor *t, size_t lo, size_t hi, enum flush flush) {
    struct tensor dense = tensor_copy(t, LAYOUT_BSHD, FLUSH_END);
    size_t row = dense.row_stride * sizeof(float), open = whole_pages((hi - lo) * row);
    size_t before = whole_pages(lo * row) + whole_pages(1), after = whole_pages((t->len - hi) * row) + whole_pages(1);
    struct range range = {.in = tensor_in(&dense), .bytes = before + open + after};
    range.map = pages_new(range.bytes);
    if (open)
        pages_open(range.map + before, open);
    char *begin = range.map + before + (flush == FLUSH_END ? open - (hi - lo) * row : 0);
    memcpy(begin, tensor_row(&dense, 0, 0, lo), (hi - lo) * row);
    range.in.data = (const float *)(void *)(begin - lo * row);
    tensor_free(&dense);
    return range;
}

static void range_free(struct range *range) {
    pages_free(range->map, range->bytes);
}

/* What is known as an interval bounds what is read: keys outside of it lie in pages that fault. */
static void check_keys_outside_intervals(struct problem *p) {
    size_t lo, hi;
    visible_range(&p->args, &lo, &hi);
    describe(&p->args);
    struct attention_result expected = attention_run(&p->args, LAYOUT_BHSD, FLUSH_END);
    for (enum flush flush = FLUSH_END; flush <= FLUSH_START; flush++) {
        struct range k = range_copy(&p->k, lo, hi, flush), v = range_copy(&p->v, lo, hi, flush);
        p->args.k = k.in;
        p->args.v = v.in;
        struct attention_result actual = attention_run(&p->args, LAYOUT_BHSD, FLUSH_END);
        assert_same_result(&expected, &actual);
        attention_free(&actual);
        check_output_alone(p, &expected);
        range_free(&k);
        range_free(&v);
    }
    attention_free(&expected);
}

static void test_keys_outside_intervals_are_not_read(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(150, 24); i++) {
        attn_attention_args args = masked_args(&random, i);
        unsigned kinds = random_kinds(&random, KINDS_OF_INTERVALS) | (i % 2 ? KIND(SINKS) | KIND(GROUPS) : 0);
        args.batch = 1;
        args.kv_len += 1;
        args.q_len = i % 4 ? args.q_len : random_between(&random, 1, 60);
        /* The mean is over all keys; with a sink there is none. */
        args.options.empty = i % 4 == 1 ? ATTN_EMPTY_MEAN : ATTN_EMPTY_ZERO;
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &args, kinds);
        check_keys_outside_intervals(&p);
        problem_free(&p);
    }
}

/* Values outside the intervals are not read either where a tile has to know whether a block's values are finite,
 * because its rows see different keys. */
static void test_values_outside_intervals_are_not_read(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < 4; i++) {
        attn_attention_args args = {
            .isa = test_isa(), .batch = 1, .heads = 1, .q_len = i & 1 ? 60 : 12, .head_size = 8};
        args.kv_len = args.q_len + (i & 2 ? 300 : 20);
        struct problem p =
            masked_problem_new(&random, TEST_NORMAL, &args, KIND(STARTS) | KIND(CAUSAL) | KIND(TOP_LEFT));
        p.starts[0] = 10;
        check_keys_outside_intervals(&p);
        problem_free(&p);
    }
}

static void own_tensors(struct problem *p) {
    struct tensor *all[] = {&p->q, &p->k, &p->v};
    for (size_t t = 0; t < 3; t++) { /* dense: an element changed is one element changed */
        struct tensor dense = tensor_copy(all[t], LAYOUT_BHSD, FLUSH_END);
        tensor_free(all[t]);
        *all[t] = dense;
    }
    p->args.q = tensor_in(&p->q);
    p->args.k = tensor_in(&p->k);
    p->args.v = tensor_in(&p->v);
}

static void assert_nan(float x) {
    if (!isnan(x))
        test_fail("%g where NaN must have come through", (double)x);
}

/* A row that sees a key of NaN. */
static void check_poisoned_row(const attn_attention_args *args, const struct attention_result *r, size_t b, size_t head,
                               size_t i) {
    size_t row = (b * args->heads + head) * args->q_len + i;
    for (size_t c = 0; c < r->o.size; c++)
        assert_nan(attention_row(args, r, b, head, i)[c]);
    assert_nan(r->log_sum_exp[row]);
    for (size_t j = 0; j < args->kv_len; j++)
        if (oracle_sees(args, b, head, i, j))
            assert_nan(r->weights[row * args->kv_len + j]);
        else
            assert_true(r->weights[row * args->kv_len + j] == 0);
}

/* NaN in the key, or in one column of the value, of one key of one head; or +inf, after which a row that sees it may
 * hold anything. */
static void check_poison(struct test_random *random, struct problem *p, int in_value, float poison) {
    const attn_attention_args *args = &p->args;
    struct tensor *t = in_value ? &p->v : &p->k;
    size_t bad_b = random_below(random, t->batch), bad_head = random_below(random, t->heads);
    size_t bad = random_below(random, args->kv_len), column = random_below(random, t->size);
    struct attention_result clean = attention_run(args, LAYOUT_BHSD, FLUSH_END);
    tensor_row(t, bad_b, bad_head, bad)[column] = poison;
    struct attention_result r = attention_run(args, LAYOUT_BHSD, FLUSH_END);
    for (size_t row = 0; row < r.rows; row++) {
        size_t i = row % args->q_len, head = row / args->q_len % args->heads, b = row / args->q_len / args->heads;
        int reached = b == bad_b && head / (args->heads / t->heads) == bad_head && oracle_sees(args, b, head, i, bad);
        if (reached && !isnan(poison))
            continue;
        if (reached && !in_value) {
            check_poisoned_row(args, &r, b, head, i);
            continue;
        }
        if (reached) {
            assert_nan(tensor_row(&r.o, b, head, i)[column]);
            tensor_row(&r.o, b, head, i)[column] = tensor_row(&clean.o, b, head, i)[column];
        }
        assert_same_rows(((struct rows_of){args, &clean, b, head, i}), ((struct rows_of){args, &r, b, head, i}), 1,
                         args->kv_len);
    }
    attention_free(&clean);
    attention_free(&r);
}

static void test_hidden_keys_have_no_effect(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(300, 40); i++) {
        attn_attention_args args = masked_args(&random, i);
        args.kv_len += 1;
        args.options.empty = ATTN_EMPTY_ZERO;
        unsigned kinds = random_kinds(&random, ~KIND(ROTARY)) | (i % 3 == 0 ? KIND(MASK) : i % 3 == 1 ? KIND(BIAS) : 0);
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &args, kinds);
        own_tensors(&p);
        describe(&p.args);
        check_poison(&random, &p, (int)(i / 3 % 2), i / 6 % 2 ? INFINITY : NAN);
        problem_free(&p);
    }
}

/* ---- Hidden blocks ---- */

/* Whole blocks are hidden, some of them for all rows, some for half of the rows. */
static void hide_blocks(struct test_random *random, struct problem *p, uint8_t *mask, size_t row_stride) {
    const attn_attention_args *args = &p->args;
    for (size_t begin = 0; begin < args->kv_len; begin += ATTN_BLOCK) {
        size_t end = begin + ATTN_BLOCK < args->kv_len ? begin + ATTN_BLOCK : args->kv_len;
        size_t choice = random_below(random, 4);
        for (size_t i = 0; i < args->q_len; i++)
            for (size_t j = begin; j < end; j++)
                mask[i * row_stride + j] = choice == 0   ? 0
                                           : choice == 1 ? (uint8_t)(i % 2)
                                                         : random_below(random, 4) > 0;
        if (choice == 0)
            for (size_t j = begin; j < end; j++) {
                random_fill(random, TEST_WILD, tensor_row(&p->k, 0, 0, j), p->k.size);
                random_fill(random, TEST_WILD, tensor_row(&p->v, 0, 0, j), p->v.size);
            }
    }
}

static void test_hidden_blocks(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const size_t kv_lens[] = {512, 513, 1300, 4096 + 256, 4096 + 700};
    for (size_t i = 0; i < sweep(40, 5); i++) {
        attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 1, .head_size = 9};
        size_t bytes;
        args.kv_len = kv_lens[i % (sizeof kv_lens / sizeof *kv_lens)];
        args.q_len = random_between(&random, 1, args.kv_len > 4096 ? 4 : 20);
        args.options.empty = ATTN_EMPTY_ZERO;
        struct problem p = problem_new(&random, TEST_NORMAL, &args);
        own_tensors(&p);
        attn_tensor mask = mask_layout(&args, 0, &bytes);
        p.mask = guarded_alloc(bytes, 1, FLUSH_END);
        hide_blocks(&random, &p, p.mask, mask.row_stride);
        mask.data = p.mask;
        p.bias = additive_mask(&args, &mask);
        p.args.options.mask = mask;
        describe(&p.args);
        struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        check_against_oracle(&p, &r, 0);
        check_bits(&random, &p, &r);
        p.args.options.mask.data = NULL;
        p.args.options.bias = tensor_in(&p.bias);
        struct attention_result additive = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        assert_same_result(&r, &additive);
        attention_free(&r);
        attention_free(&additive);
        problem_free(&p);
    }
}

/* ---- Rows that see nothing ---- */

/* Row `hidden` sees no key by the mask, or by a bias of -inf. */
static void hide_row(struct problem *p, size_t hidden, int by_bias) {
    const attn_attention_args *args = &p->args;
    size_t bytes;
    attn_tensor mask = mask_layout(args, 3, &bytes);
    p->mask = guarded_alloc(bytes, 1, FLUSH_END);
    for (size_t i = 0; i < args->q_len; i++)
        memset(p->mask + i * mask.row_stride, i != hidden, args->kv_len);
    mask.data = p->mask;
    if (by_bias) {
        p->bias = additive_mask(args, &mask);
        p->args.options.bias = tensor_in(&p->bias);
    } else {
        p->args.options.mask = mask;
    }
}

static void check_empty_row(const struct problem *p, const struct attention_result *r, size_t b, size_t head,
                            size_t i) {
    const attn_attention_args *args = &p->args;
    const float zeros[64] = {0};
    size_t row = (b * args->heads + head) * args->q_len + i;
    float log_sum_exp = args->options.sinks ? args->options.sinks[head] : -INFINITY;
    for (size_t j = 0; j < args->kv_len; j++) {
        assert_true(r->scores[row * args->kv_len + j] == -INFINITY);
        if (args->options.sinks || args->options.empty == ATTN_EMPTY_ZERO)
            assert_memory_equal(zeros, r->weights + row * args->kv_len + j, sizeof(float));
    }
    if (!args->options.sinks && args->options.empty == ATTN_EMPTY_MEAN)
        return;
    assert_in_range(r->o.size, 1, 64);
    assert_memory_equal(zeros, attention_row(args, r, b, head, i), r->o.size * sizeof(float));
    assert_memory_equal(&log_sum_exp, r->log_sum_exp + row, sizeof(float));
}

static void test_rows_that_see_nothing(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const size_t kv_lens[] = {1, 15, 16, 40, 256, 300, 4096 + 5};
    for (size_t i = 0; i < 8 * (sizeof kv_lens / sizeof *kv_lens); i++) {
        int by_bias = i & 1, sinks = i >> 1 & 1;
        attn_attention_args args = {.isa = test_isa(), .heads = 3, .q_len = 5, .head_size = 17};
        args.kv_len = kv_lens[i / 8];
        args.batch = args.kv_len > 4096 ? 1 : 2;
        args.options.empty = i >> 2 & 1 ? ATTN_EMPTY_MEAN : ATTN_EMPTY_ZERO;
        if (test_quick() && (args.kv_len > 4096 ? i % 8 != 3 : i / 8 % 2))
            continue;
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &args,
                                              (sinks ? KIND(SINKS) : 0) | (i % 3 ? KIND(ALIBI) : KIND(SOFT_CAP)));
        hide_row(&p, i % 5, by_bias);
        describe(&p.args);
        struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        check_against_oracle(&p, &r, 0);
        check_bits(&random, &p, &r);
        for (size_t head = 0; head < args.batch * 3; head++)
            check_empty_row(&p, &r, head / 3, head % 3, i % 5);
        attention_free(&r);
        problem_free(&p);
    }
}

/* ---- Scores on request ---- */

/* The stages of one problem: each against the oracle, and none changes another output. */
static void test_score_stages(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const unsigned benders = KIND(SOFT_CAP) | KIND(ALIBI) | KIND(BIAS);
    for (size_t i = 0; i < sweep(60, 10); i++) {
        struct attention_result stage[ATTN_SCORE_MASKED + 1];
        attn_attention_args args = masked_args(&random, i);
        unsigned kinds = random_kinds(&random, ~0u) | (i % 2 ? benders : 0);
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &args, kinds);
        for (unsigned s = 0; s <= ATTN_SCORE_MASKED; s++) {
            p.args.options.score_stage = (attn_score_stage)s;
            describe(&p.args);
            stage[s] = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
            check_against_oracle(&p, &stage[s], 0);
        }
        for (unsigned s = 1; s <= ATTN_SCORE_MASKED; s++) {
            size_t count = stage[0].rows * stage[0].kv_len;
            assert_same_tensor(&stage[0].o, &stage[s].o);
            assert_same_bits(stage[0].weights, stage[s].weights, count);
            assert_same_bits(stage[0].log_sum_exp, stage[s].log_sum_exp, stage[0].rows);
            if (!(kinds & (s == ATTN_SCORE_CAPPED ? KIND(SOFT_CAP) : KIND(ALIBI) | KIND(BIAS))))
                assert_same_bits(stage[s - 1].scores, stage[s].scores, count);
        }
        for (unsigned s = 0; s <= ATTN_SCORE_MASKED; s++)
            attention_free(&stage[s]);
        problem_free(&p);
    }
}

/* ---- Chunks ---- */

/* Rows in chunks that say their position, and each row alone, have the bits of one shot. */
static void check_chunks(struct test_random *random, const struct problem *p, size_t b) {
    struct attention_result whole = attention_run(&p->args, LAYOUT_BSHD, FLUSH_END);
    attn_attention_args sequence = one_sequence(&p->args, b);
    for (size_t begin = 0, end; begin < sequence.q_len; begin = end) {
        end = random_below(random, 3) ? random_between(random, begin + 1, sequence.q_len) : begin + 1;
        attn_attention_args args = some_rows(&sequence, begin, end);
        struct attention_result chunk = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
        for (size_t head = 0; head < args.heads; head++)
            assert_same_rows(((struct rows_of){&p->args, &whole, b, head, begin}),
                             ((struct rows_of){&args, &chunk, 0, head, 0}), end - begin, args.kv_len);
        attention_free(&chunk);
    }
    attention_free(&whole);
}

static void test_chunks_of_rows(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(120, 18); i++) {
        attn_attention_args args = masked_args(&random, i);
        unsigned kinds = random_kinds(&random, ~0u);
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &args, kinds);
        if (kinds & KIND(OFFSETS) && p.args.options.position_offsets.i64) /* as below */
            for (size_t b = 0; b < args.batch; b++)
                if (p.args.options.position_offsets.i64[b] == INT64_MAX)
                    ((int64_t *)p.position_offsets)[b] = 3;
        if (p.args.options.position_offset == INT64_MAX) /* the next row has no position that a chunk could say */
            p.args.options.position_offset = (int64_t)args.kv_len - (int64_t)args.q_len;
        describe(&p.args);
        check_chunks(&random, &p, random_below(&random, args.batch));
        problem_free(&p);
    }
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind_alone),
        cmocka_unit_test(test_every_pair_of_kinds),
        cmocka_unit_test(test_many_kinds),
        cmocka_unit_test(test_same_bits_of_wild_values),
        cmocka_unit_test(test_intervals_as_masks),
        cmocka_unit_test(test_windows_as_lengths),
        cmocka_unit_test(test_ends_of_the_type),
        cmocka_unit_test(test_alibi_far_from_all_keys),
        cmocka_unit_test(test_broadcast_as_expanded),
        cmocka_unit_test(test_bias_factors),
        cmocka_unit_test(test_keys_outside_intervals_are_not_read),
        cmocka_unit_test(test_values_outside_intervals_are_not_read),
        cmocka_unit_test(test_hidden_keys_have_no_effect),
        cmocka_unit_test(test_hidden_blocks),
        cmocka_unit_test(test_rows_that_see_nothing),
        cmocka_unit_test(test_score_stages),
        cmocka_unit_test(test_chunks_of_rows),
    };
    return test_run(tests);
}
