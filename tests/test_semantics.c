/* attn_attention at the edges, by the rules of docs/semantics.md: what a row may depend on, how far NaN and infinities
 * reach, rows without keys, extreme values. */

#include "attention_problem.h"

#include <float.h>
#include <math.h>

#include "pages.h"

/* ---- What a row may depend on ---- */

/* How many keys rows up to `end` have as a problem of their own: causality counts from the last row. */
static size_t keys_up_to(const attn_attention_args *args, size_t end) {
    return args->options.causal ? args->kv_len - (args->q_len - end) : args->kv_len;
}

/* Rows [begin, end) of head `head` of sequence `b` by themselves. */
static struct attention_result run_chunk(const struct problem *p, size_t b, size_t head, size_t begin, size_t end,
                                         size_t kv_len) {
    attn_attention_args chunk = p->args;
    size_t kv_head = head / (p->args.heads / p->k.heads);
    chunk.batch = chunk.heads = 1;
    chunk.kv_heads = 0;
    chunk.q_len = end - begin;
    chunk.kv_len = kv_len;
    chunk.q.data = tensor_row(&p->q, b, head, begin);
    chunk.k.data = tensor_row(&p->k, b, kv_head, 0);
    chunk.v.data = tensor_row(&p->v, b, kv_head, 0);
    if (p->args.options.valid.kind == ATTN_VALID_PER_ROW)
        chunk.options.valid.lens.i64 += b * p->args.q_len + begin;
    if (p->args.options.valid.kind == ATTN_VALID_PER_SEQUENCE)
        chunk.options.valid.lens.i64 += b;
    return attention_run(&chunk, LAYOUT_BHSD, FLUSH_END);
}

static void compare_chunk(const struct problem *p, const struct attention_result *whole, size_t b, size_t head,
                          size_t begin, size_t end, size_t kv_len) {
    struct attention_result chunk = run_chunk(p, b, head, begin, end, kv_len);
    for (size_t i = begin; i < end; i++) {
        size_t row = (b * p->args.heads + head) * p->args.q_len + i;
        const float *weights = whole->weights + row * whole->kv_len;
        assert_same_bits(tensor_row(&whole->o, b, head, i), tensor_row(&chunk.o, 0, 0, i - begin), whole->o.size);
        assert_same_bits(whole->log_sum_exp + row, chunk.log_sum_exp + i - begin, 1);
        assert_same_bits(weights, chunk.weights + (i - begin) * kv_len, kv_len);
        for (size_t j = kv_len; j < whole->kv_len; j++)
            assert_true(weights[j] == 0);
    }
    attention_free(&chunk);
}

static void test_row_alone_as_in_batch(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(150, 15); i++) {
        attn_attention_args args = random_args(&random, i);
        args.q_len = random_between(&random, 1, 40);
        args.kv_len += args.q_len;
        args.options.position = ATTN_POSITION_BOTTOM_RIGHT;
        if (args.options.causal)
            args.options.empty = ATTN_EMPTY_ZERO; /* a mean over a shorter chunk's keys is another mean */
        describe(&args);
        struct problem p = problem_new(&random, TEST_NORMAL, &args);
        struct attention_result whole = attention_run(&p.args, LAYOUT_BSHD, FLUSH_END);
        size_t b = random_below(&random, args.batch), head = random_below(&random, args.heads), end;
        for (size_t begin = 0; begin < args.q_len; begin = end) {
            end = begin + random_between(&random, 1, args.q_len - begin);
            compare_chunk(&p, &whole, b, head, begin, end, keys_up_to(&args, end));
            compare_chunk(&p, &whole, b, head, begin, begin + 1, keys_up_to(&args, begin + 1));
        }
        attention_free(&whole);
        problem_free(&p);
    }
}

static void test_rows_before_first_key_are_empty(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 2, .q_len = 33, .kv_len = 5, .head_size = 16};
    args.options.causal = 1;
    struct problem p = problem_new(&random, TEST_NORMAL, &args);
    struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
    for (size_t row = 0; row < r.rows; row++) {
        int empty = row % 33 < 28;
        assert_int_equal(empty, isinf(r.log_sum_exp[row]) && r.log_sum_exp[row] < 0);
        for (size_t c = 0; c < 16; c++)
            assert_int_equal(empty, r.o.data[row * 16 + c] == 0);
    }
    attention_free(&r);
    problem_free(&p);
}

enum hiding {
    HIDE_AS_POISON, /* hidden keys and values are NaN or +inf */
    HIDE_IN_NO_PAGE /* they lie in pages that fault */
};

/* A copy of a [B,S,H,D] tensor of which only `readable` keys per sequence, or of the one sequence, are there. */
struct hidden {
    struct tensor t;
    char *map;
    size_t map_bytes;
};

static struct hidden hidden_copy(const struct tensor *t, size_t readable, enum hiding hiding) {
    struct hidden h = {.t = *t};
    if (hiding == HIDE_AS_POISON) {
        h.t = tensor_new(LAYOUT_BSHD, t->batch, t->heads, t->len, t->size, FLUSH_END);
        fill_poison(h.t.data, tensor_count(&h.t));
    } else {
        size_t bytes = readable * t->row_stride * sizeof(float), open = whole_pages(bytes);
        size_t rest = (t->len - readable) * t->row_stride * sizeof(float);
        h.map_bytes = open + whole_pages(rest + 1);
        h.map = pages_new(h.map_bytes);
        if (open)
            pages_open(h.map, open);
        h.t.data = (float *)(void *)(h.map + open - bytes);
    }
    for (size_t b = 0; b < t->batch; b++)
        memcpy(tensor_row(&h.t, b, 0, 0), tensor_row(t, b, 0, 0), readable * t->row_stride * sizeof(float));
    return h;
}

static void hidden_free(struct hidden *h) {
    if (h->map)
        pages_free(h->map, h->map_bytes);
    else
        tensor_free(&h->t);
}

/* Keys and values from `readable` on do not matter. */
static void check_hidden_keys(struct test_random *random, attn_attention_args *args, size_t readable,
                              enum hiding hiding) {
    struct tensor q = tensor_random(random, TEST_NORMAL, LAYOUT_BSHD, args->batch, args->heads, args->q_len,
                                    args->head_size, FLUSH_END);
    struct tensor k = tensor_random(random, TEST_NORMAL, LAYOUT_BSHD, args->batch, args->heads, args->kv_len,
                                    args->head_size, FLUSH_END);
    struct tensor v = tensor_random(random, TEST_NORMAL, LAYOUT_BSHD, args->batch, args->heads, args->kv_len,
                                    args->head_size, FLUSH_END);
    struct hidden hidden_k = hidden_copy(&k, readable, hiding), hidden_v = hidden_copy(&v, readable, hiding);
    describe(args);
    args->q = tensor_in(&q);
    args->k = tensor_in(&k);
    args->v = tensor_in(&v);
    struct attention_result expected = attention_run(args, LAYOUT_BSHD, FLUSH_END);
    args->k = tensor_in(&hidden_k.t);
    args->v = tensor_in(&hidden_v.t);
    struct attention_result actual = attention_run(args, LAYOUT_BSHD, FLUSH_END);
    assert_same_result(&expected, &actual);
    attention_free(&expected);
    attention_free(&actual);
    hidden_free(&hidden_k);
    hidden_free(&hidden_v);
    tensor_free(&q);
    tensor_free(&k);
    tensor_free(&v);
}

static void test_hidden_keys_do_not_matter(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const size_t visible[] = {0, 1, 2, 15, 16, 17, 31, 32, 33, 255, 256, 257, 300};
    for (size_t i = 0; i < sizeof visible / sizeof *visible; i += sweep(1, 3)) {
        int64_t lens[2 * 20];
        attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 3, .q_len = 19, .head_size = 17};
        args.kv_len = visible[i] + random_between(&random, 1, 300);
        args.options.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = lens};
        lens[0] = lens[1] = (int64_t)visible[i];
        check_hidden_keys(&random, &args, visible[i], HIDE_IN_NO_PAGE);
        args.batch = 2;
        check_hidden_keys(&random, &args, visible[i], HIDE_AS_POISON);
        args.options.valid.kind = ATTN_VALID_PER_ROW;
        for (size_t row = 0; row < 2 * args.q_len; row++)
            lens[row] = (int64_t)random_below(&random, visible[i] + 1);
        check_hidden_keys(&random, &args, visible[i], HIDE_AS_POISON);
        args.batch = 1;
        check_hidden_keys(&random, &args, visible[i], HIDE_IN_NO_PAGE);
    }
}

static void test_keys_after_last_row_do_not_matter(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const size_t q_lens[] = {1, 2, 15, 16, 17, 33, 257};
    for (size_t i = 0; i < sizeof q_lens / sizeof *q_lens; i += sweep(1, 3)) {
        attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 2, .q_len = q_lens[i], .head_size = 20};
        args.kv_len = q_lens[i] + random_between(&random, 1, 300);
        args.options.causal = 1;
        args.options.position = ATTN_POSITION_TOP_LEFT;
        check_hidden_keys(&random, &args, q_lens[i], HIDE_IN_NO_PAGE);
        args.batch = 2;
        check_hidden_keys(&random, &args, q_lens[i], HIDE_AS_POISON);
    }
}

/* What gives the same mask gives the same bits. */
static void test_equal_masks(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 9); i++) {
        attn_attention_args args = random_args(&random, i);
        args.q_len = random_between(&random, 1, 20);
        args.options = (attn_options){.valid.kind = ATTN_VALID_PER_SEQUENCE, .empty = args.options.empty};
        describe(&args);
        struct problem p = problem_new(&random, TEST_NORMAL, &args);
        int64_t lens[3 * 20];
        for (size_t row = 0; row < args.batch * args.q_len; row++)
            lens[row] = p.lens[row / args.q_len];
        struct attention_result per_sequence = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        p.args.options.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_ROW, .lens.i64 = lens};
        struct attention_result per_row = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        assert_same_result(&per_sequence, &per_row);
        attention_free(&per_sequence);
        attention_free(&per_row);

        p.args.options.valid = (attn_valid_lens){0};
        p.args.options.causal = 1;
        p.args.options.position = ATTN_POSITION_TOP_LEFT;
        struct attention_result causal = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        for (size_t row = 0; row < args.batch * args.q_len; row++)
            lens[row] = (int64_t)(row % args.q_len) + 1;
        p.args.options.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_ROW, .lens.i64 = lens};
        p.args.options.causal = 0;
        per_row = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        assert_same_result(&per_row, &causal);
        attention_free(&per_row);
        attention_free(&causal);
        problem_free(&p);
    }
}

/* ---- NaN and infinity ---- */

enum { SPREAD_Q = 21, SPREAD_KV = 300, SPREAD_HEADS = 2, SPREAD_SIZE = 20 };

/* A problem in which each row sees at least one key and rows of one tile see different ones. */
static struct problem spread_problem(struct test_random *random, size_t kind) {
    attn_attention_args args = {
        .isa = test_isa(), .batch = 1, .heads = SPREAD_HEADS, .q_len = SPREAD_Q, .kv_len = SPREAD_KV};
    args.head_size = SPREAD_SIZE;
    set_order(&args.options, (enum order)(kind % 3));
    args.options.valid.kind = kind / 3 % 2 ? ATTN_VALID_PER_ROW : ATTN_VALID_ALL;
    struct problem p = problem_new(random, TEST_NORMAL, &args);
    struct tensor *all[] = {&p.q, &p.k, &p.v}; /* dense: an element changed is one element changed */
    for (size_t t = 0; t < 3; t++) {
        struct tensor dense = tensor_copy(all[t], LAYOUT_BHSD, FLUSH_END);
        tensor_free(all[t]);
        *all[t] = dense;
    }
    p.args.q = tensor_in(&p.q);
    p.args.k = tensor_in(&p.k);
    p.args.v = tensor_in(&p.v);
    for (size_t row = 0; args.options.valid.kind == ATTN_VALID_PER_ROW && row < SPREAD_Q; row++)
        p.lens[row] = (int64_t)random_between(random, 1, SPREAD_KV);
    return p;
}

static int sees(const struct problem *p, size_t row, size_t key) {
    const attn_options *options = &p->args.options;
    size_t last = !options->causal                              ? SPREAD_KV
                  : options->position == ATTN_POSITION_TOP_LEFT ? row
                                                                : row + SPREAD_KV - SPREAD_Q;
    return key <= last && (options->valid.kind == ATTN_VALID_ALL || (int64_t)key < options->valid.lens.i64[row]);
}

/* A key that some row does not see and another one does, where the mask has any. */
static size_t contested_key(struct test_random *random, const struct problem *p) {
    size_t row = random_below(random, SPREAD_Q), key = SPREAD_KV - 1;
    while (!sees(p, row, key))
        key--;
    return key - random_below(random, key < 3 ? key + 1 : 3);
}

static void assert_all_nan(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isnan(x[i]))
            test_fail("element %zu of a row of %zu is %g, not NaN", i, n, (double)x[i]);
}

static void compare_row(const struct attention_result *clean, const struct attention_result *r, size_t row) {
    assert_same_bits(clean->o.data + row * SPREAD_SIZE, r->o.data + row * SPREAD_SIZE, SPREAD_SIZE);
    assert_same_bits(clean->log_sum_exp + row, r->log_sum_exp + row, 1);
    assert_same_bits(clean->weights + row * SPREAD_KV, r->weights + row * SPREAD_KV, SPREAD_KV);
}

static void assert_nan_row(const struct problem *p, const struct attention_result *r, size_t row) {
    const float *weights = r->weights + row * SPREAD_KV;
    assert_all_nan(r->o.data + row * SPREAD_SIZE, SPREAD_SIZE);
    assert_all_nan(r->log_sum_exp + row, 1);
    for (size_t j = 0; j < SPREAD_KV; j++)
        if (sees(p, row % SPREAD_Q, j))
            assert_all_nan(weights + j, 1);
        else
            assert_true(weights[j] == 0);
}

static void test_nan_in_query(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(30, 6); i++) {
        struct problem p = spread_problem(&random, i);
        struct attention_result clean = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        size_t bad = random_below(&random, SPREAD_HEADS * SPREAD_Q);
        p.q.data[bad * SPREAD_SIZE + random_below(&random, SPREAD_SIZE)] = NAN;
        describe(&p.args);
        struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        for (size_t row = 0; row < r.rows; row++)
            if (row == bad)
                assert_nan_row(&p, &r, row);
            else
                compare_row(&clean, &r, row);
        attention_free(&clean);
        attention_free(&r);
        problem_free(&p);
    }
}

static void test_nan_in_key(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(30, 6); i++) {
        struct problem p = spread_problem(&random, i);
        struct attention_result clean = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        size_t key = contested_key(&random, &p), head = random_below(&random, SPREAD_HEADS), reached = 0;
        tensor_row(&p.k, 0, head, key)[random_below(&random, SPREAD_SIZE)] = NAN;
        describe(&p.args);
        struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        for (size_t row = 0; row < r.rows; row++)
            if (row / SPREAD_Q == head && sees(&p, row % SPREAD_Q, key)) {
                assert_nan_row(&p, &r, row);
                reached++;
            } else {
                compare_row(&clean, &r, row);
            }
        assert_true(reached > 0);
        attention_free(&clean);
        attention_free(&r);
        problem_free(&p);
    }
}

/* `bad` in one value: column by column, NaN gives NaN and an infinity itself. */
static void check_bad_value(struct test_random *random, size_t kind, float bad) {
    struct problem p = spread_problem(random, kind);
    struct attention_result clean = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
    size_t key = contested_key(random, &p), head = random_below(random, SPREAD_HEADS), reached = 0;
    size_t column = random_below(random, SPREAD_SIZE);
    tensor_row(&p.v, 0, head, key)[column] = bad;
    describe(&p.args);
    struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
    for (size_t row = 0; row < r.rows; row++) {
        float *o = r.o.data + row * SPREAD_SIZE, *expected = clean.o.data + row * SPREAD_SIZE;
        if (row / SPREAD_Q == head && sees(&p, row % SPREAD_Q, key)) {
            if (isnan(bad) ? !isnan(o[column]) : o[column] != bad)
                test_fail("row %zu sees key %zu whose value is %g in column %zu, but has %g", row, key, (double)bad,
                          column, (double)o[column]);
            o[column] = expected[column];
            reached++;
        }
        compare_row(&clean, &r, row);
    }
    assert_true(reached > 0);
    attention_free(&clean);
    attention_free(&r);
    problem_free(&p);
}

static void test_nan_or_infinity_in_value(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(30, 6); i++) {
        check_bad_value(&random, i, NAN);
        check_bad_value(&random, i, INFINITY);
        check_bad_value(&random, i, -INFINITY);
    }
}

enum hidden_by { BY_MASK, BY_BIAS, BY_CAUSALITY, HIDDEN_BYS };

/* A value of the last block is NaN, and the last row alone sees it. Masks hide a key of the first block from the same
 * rows. Values lie dense, or as some columns of a wider tensor of finite numbers. */
static void check_nan_for_last_row(struct test_random *random, size_t rows, size_t kv_len, enum hidden_by by) {
    enum { SIZE = 3 };
    attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 1, .kv_heads = 1, .q_len = rows};
    size_t bad = by == BY_CAUSALITY ? kv_len - 1 : kv_len - 7;
    args.kv_len = kv_len;
    args.head_size = args.value_size = SIZE;
    struct tensor q = tensor_random(random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, rows, SIZE, FLUSH_END);
    struct tensor k = tensor_random(random, TEST_NORMAL, LAYOUT_GAPS, 1, 1, kv_len, SIZE, FLUSH_END);
    struct tensor v =
        tensor_random(random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, kv_len, by == BY_BIAS ? SIZE + 4 : SIZE, FLUSH_END);
    uint8_t *mask = guarded_alloc(rows * kv_len, 1, FLUSH_END);
    float *bias = guarded_floats(by == BY_BIAS ? rows * kv_len : 0, FLUSH_END);
    memset(mask, 1, rows * kv_len);
    for (size_t i = 0; i < rows; i++)
        mask[i * kv_len + 5] = mask[i * kv_len + bad] = i == rows - 1;
    for (size_t at = 0; by == BY_BIAS && at < rows * kv_len; at++)
        bias[at] = mask[at] ? 0.0f : -INFINITY;
    attn_cache_config config = {.isa = test_isa(), .batch = 1, .kv_heads = 1, .head_size = SIZE, .capacity = kv_len};
    void *memory;
    attn_cache *cache = cache_create(&config, &memory, FLUSH_END);
    args.q = tensor_in(&q);
    args.k = tensor_in(&k);
    args.v = tensor_in(&v);
    if (by == BY_MASK)
        args.options.mask = (attn_tensor){mask, ATTN_BOOL, 0, 0, kv_len, 1};
    if (by == BY_BIAS)
        args.options.bias = (attn_tensor){bias, ATTN_F32, 0, 0, kv_len, 1};
    if (by == BY_CAUSALITY)
        args.options.causal = 1;
    describe(&args);
    struct attention_result clean = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
    tensor_row(&v, 0, 0, bad)[1] = NAN;
    cache_append(cache, kv_len, args.k, args.v, NULL);
    for (int cached = 0; cached < 2; cached++) {
        args.cache = cached ? cache : NULL;
        struct attention_result r = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
        assert_same_bits(clean.o.data, r.o.data, (rows - 1) * SIZE);
        assert_all_nan(tensor_row(&r.o, 0, 0, rows - 1) + 1, 1);
        attention_free(&r);
    }
    attention_free(&clean);
    guarded_free(memory);
    guarded_free(mask);
    guarded_free(bias);
    tensor_free(&q);
    tensor_free(&k);
    tensor_free(&v);
}

/* A tile of many rows over packed values remembers of so many blocks whether they are finite. */
static void test_nan_in_value_of_any_block(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const size_t blocks[] = {1, 31, 32, 63, 64, 65, 128};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (!test_quick() || blocks[i] == 64)
            check_nan_for_last_row(&random, 50, blocks[i] * ATTN_BLOCK + 20, BY_MASK);
}

/* Few rows take several blocks at once, unless some row does not see all of them. */
static void test_nan_in_hidden_value(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const size_t rows[] = {2, 3, 8, 50}, kv_lens[] = {20, 300, 700};
    for (size_t by = 0; by < HIDDEN_BYS; by++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
            for (size_t i = 0; i < sizeof kv_lens / sizeof *kv_lens; i++)
                check_nan_for_last_row(&random, rows[r], kv_lens[i], (enum hidden_by)by);
}

/* ---- Extreme values ---- */

/* Values so small that their average underflows from below, and values that are -0. */
static void test_no_negative_zero(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const float tiny[] = {-0.0f, -0x1p-149f, -0x1p-140f};
    static const size_t kv_lens[] = {1, 3, 16, 300, 4100};
    for (size_t t = 0; t < 3; t++)
        for (size_t i = 0; i < sizeof kv_lens / sizeof *kv_lens; i += sweep(1, 2)) {
            attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 2, .q_len = 7, .kv_len = kv_lens[i]};
            args.head_size = 20;
            describe(&args);
            struct problem p = problem_new(&random, TEST_NORMAL, &args);
            for (size_t j = 0; j < tensor_count(&p.v); j++)
                if (!is_untouched(p.v.data + j))
                    p.v.data[j] = j % 5 ? -0.0f : tiny[t];
            struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
            for (size_t j = 0; j < r.rows * 20; j++)
                if (r.o.data[j] == 0 && signbit(r.o.data[j]))
                    test_fail("output %zu is -0 with values of %a", j, (double)tiny[t]);
            attention_free(&r);
            problem_free(&p);
        }
}

/* Head size 1 and scale 1, so that a logit is query times key: from -FLT_MAX to FLT_MAX. */
static void test_largest_logits(void **state) {
    (void)state;
    enum { KEYS = 20 };
    const float one = 1.0f;
    float keys[KEYS], values[KEYS], weights[KEYS], log_sum_exp, o;
    for (size_t other = 0; other < 3; other++) {
        static const float odd[] = {-FLT_MAX, 0.0f, FLT_MAX};
        for (size_t j = 0; j < KEYS; j++) {
            keys[j] = j == 7 ? odd[other] : -FLT_MAX;
            values[j] = (float)j;
        }
        attn_attention_args args = {
            .isa = test_isa(), .batch = 1, .heads = 1, .q_len = 1, .kv_len = KEYS, .head_size = 1};
        args.scale = 1.0f;
        args.q = (attn_tensor){&one, ATTN_F32, 1, 1, 1, 1};
        args.k = (attn_tensor){keys, ATTN_F32, KEYS, KEYS, 1, 1};
        args.v = (attn_tensor){values, ATTN_F32, KEYS, KEYS, 1, 1};
        args.o = (attn_tensor_out){&o, ATTN_F32, 1, 1, 1, 1};
        args.options.weights.data = weights;
        args.options.log_sum_exp.data = &log_sum_exp;
        test_case("logits of -FLT_MAX and one of %g", (double)odd[other]);
        size_t bytes = 0;
        assert_ok(attn_attention_workspace(&args, &bytes, NULL));
        void *workspace = poisoned_alloc(bytes, FLUSH_END);
        assert_ok(attn_attention(&args, workspace, bytes, NULL));
        guarded_free(workspace);
        assert_near(other ? 7 : (KEYS - 1) / 2.0, (double)o, 8 * FLT_EPSILON * KEYS);
        assert_near((double)odd[other], (double)log_sum_exp, 0);
        for (size_t j = 0; j < KEYS; j++)
            assert_near(other ? j == 7 : 1.0 / KEYS, (double)weights[j], other ? 0 : FLT_EPSILON / KEYS);
    }
}

/* A product of finite numbers that overflows to +inf, in a first or later block or of a few keys, makes its row NaN;
 * the row beside it stays as it is. Soft-capped it is the cap. */
static void test_logits_that_overflow(void **state) {
    (void)state;
    enum { ROWS = 2, MOST = 300 };
    static const struct {
        size_t keys, large;
        float cap;
    } cases[] = {{20, 7, 0}, {MOST, 7, 0}, {MOST, 290, 0}, {20, 7, 5}};
    const float queries[ROWS] = {2.0f, 0.5f};
    float keys[MOST], o[ROWS], log_sum_exp[ROWS];
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        size_t n = cases[i / 2].keys;
        for (size_t j = 0; j < n; j++)
            keys[j] = j == cases[i / 2].large ? FLT_MAX : 1.0f;
        attn_attention_args args = {
            .isa = test_isa(), .batch = 1, .heads = 1, .q_len = ROWS, .kv_len = n, .head_size = 1, .scale = 1.0f};
        args.q = (attn_tensor){queries, ATTN_F32, ROWS, ROWS, 1, 1};
        args.k = args.v = (attn_tensor){keys, ATTN_F32, n, n, 1, 1};
        args.o = (attn_tensor_out){o, ATTN_F32, ROWS, ROWS, 1, 1};
        args.options.soft_cap = cases[i / 2].cap;
        args.options.log_sum_exp.data = i % 2 ? log_sum_exp : NULL; /* without it few keys take a path of their own */
        test_case("%zu keys, number %zu overflows, cap %g, log-sum-exp %d", n, cases[i / 2].large,
                  (double)cases[i / 2].cap, (int)(i % 2));
        size_t bytes = 0;
        assert_ok(attn_attention_workspace(&args, &bytes, NULL));
        void *workspace = poisoned_alloc(bytes, FLUSH_END);
        assert_ok(attn_attention(&args, workspace, bytes, NULL));
        guarded_free(workspace);
        assert_int_equal(!!isnan(o[0]), args.options.soft_cap == 0);
        assert_true(isfinite(o[1]));
        if (args.options.log_sum_exp.data) {
            assert_int_equal(!!isnan(log_sum_exp[0]), args.options.soft_cap == 0);
            assert_true(isfinite(log_sum_exp[1]));
        }
    }
}

/* Rows without keys: +0 and -inf, or the mean of all values. */
static void test_empty_rows(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const size_t kv_lens[] = {0, 1, 6, 40, 300, 4096 + 10};
    for (size_t i = 0; i < 2 * (sizeof kv_lens / sizeof *kv_lens) - sweep(0, 2); i++) {
        attn_attention_args args = {
            .isa = test_isa(), .batch = 2, .heads = 4, .kv_heads = 2, .q_len = 5, .head_size = 17};
        args.kv_len = kv_lens[i / 2];
        args.options.valid.kind = ATTN_VALID_PER_ROW;
        args.options.empty = i % 2 ? ATTN_EMPTY_MEAN : ATTN_EMPTY_ZERO;
        describe(&args);
        struct problem p = problem_new(&random, TEST_NORMAL, &args);
        for (size_t row = 0; row < 10; row++) /* one row that sees a key among rows that see none */
            p.lens[row] = row == 3 ? 1 : -(int64_t)(row % 2);
        struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        check_against_oracle(&p, &r, 0);
        for (size_t row = 0; row < r.rows; row++) {
            if ((row < 20 && row % 5 == 3 && args.kv_len) || (args.options.empty == ATTN_EMPTY_MEAN && args.kv_len))
                continue;
            float zeros[17] = {0};
            assert_memory_equal(zeros, r.o.data + row * 17, sizeof zeros);
            assert_true(isinf(r.log_sum_exp[row]) && r.log_sum_exp[row] < 0);
            for (size_t j = 0; j < args.kv_len; j++)
                assert_memory_equal(zeros, r.weights + row * args.kv_len + j, sizeof(float));
        }
        attention_free(&r);
        problem_free(&p);
    }
}

/* batch, heads and query length of 0 succeed without a look at anything. */
static void test_nothing_to_do(void **state) {
    (void)state;
    float *nowhere = guarded_floats(0, FLUSH_END);
    for (int zero = 0; zero < 3; zero++) {
        attn_attention_args args = {.isa = test_isa(), .batch = zero != 0, .heads = zero != 1, .q_len = zero != 2};
        args.kv_len = 5;
        args.head_size = 8;
        args.q = args.k = args.v = (attn_tensor){nowhere, ATTN_F32, 40, 40, 8, 1};
        args.o = (attn_tensor_out){nowhere, ATTN_F32, 40, 40, 8, 1};
        args.options.weights.data = args.options.scores.data = args.options.log_sum_exp.data = nowhere;
        size_t bytes = 12345;
        test_case("zero %d", zero);
        assert_ok(attn_attention_workspace(&args, &bytes, NULL));
        void *workspace = poisoned_alloc(bytes, FLUSH_END);
        assert_ok(attn_attention(&args, workspace, bytes, NULL));
        guarded_free(workspace);
    }
    guarded_free(nowhere);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_row_alone_as_in_batch),
        cmocka_unit_test(test_rows_before_first_key_are_empty),
        cmocka_unit_test(test_hidden_keys_do_not_matter),
        cmocka_unit_test(test_keys_after_last_row_do_not_matter),
        cmocka_unit_test(test_equal_masks),
        cmocka_unit_test(test_nan_in_query),
        cmocka_unit_test(test_nan_in_key),
        cmocka_unit_test(test_nan_or_infinity_in_value),
        cmocka_unit_test(test_nan_in_value_of_any_block),
        cmocka_unit_test(test_nan_in_hidden_value),
        cmocka_unit_test(test_no_negative_zero),
        cmocka_unit_test(test_largest_logits),
        cmocka_unit_test(test_logits_that_overflow),
        cmocka_unit_test(test_empty_rows),
        cmocka_unit_test(test_nothing_to_do),
    };
    return test_run(tests);
}
