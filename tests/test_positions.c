/* Where query rows stand among the keys: every rule with everything that counts from a position, with and without
 * causality. */
#include "attention_problem.h"

#include <math.h>

static const unsigned rules[] = {0, KIND(TOP_LEFT), KIND(VALID_END), KIND(OFFSET), KIND(OFFSETS)};
enum { RULES = sizeof rules / sizeof *rules };

static void check_bits(const struct problem *p, const struct attention_result *actual) {
    struct attention_result expected = reference_run(p);
    assert_same_result(&expected, actual);
    attention_free(&expected);
}

/* Causality, windows, ALiBi and rotary embedding count from the position that a rule gives, each also alone. */
static void test_every_rule(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const unsigned uses[] = {
        KIND(CAUSAL),
        KIND(WINDOW_LEFT),
        KIND(WINDOW_RIGHT),
        KIND(ALIBI),
        KIND(ROTARY),
        KIND(CAUSAL) | KIND(WINDOW_LEFT),
        KIND(WINDOW_LEFT) | KIND(WINDOW_RIGHT) | KIND(ALIBI),
        KIND(CAUSAL) | KIND(WINDOW_LEFT) | KIND(ALIBI) | KIND(ROTARY),
    };
    for (size_t i = 0; i < sweep(4, 1) * RULES * (sizeof uses / sizeof *uses); i++)
        for (unsigned lens = 0; lens < 2; lens++) {
            attn_attention_args args = masked_args(&random, i);
            unsigned kinds = rules[i % RULES] | uses[i / RULES % (sizeof uses / sizeof *uses)];
            args.batch = random_between(&random, 1, 3);
            struct problem p =
                masked_problem_new(&random, TEST_NORMAL, &args, kinds | (lens ? KIND(VALID_SEQUENCE) : 0));
            describe(&p.args);
            struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, random_flush(&random));
            check_against_oracle(&p, &r, 0);
            check_bits(&p, &r);
            attention_free(&r);
            problem_free(&p);
        }
}

/* ---- One buffer, filled to a length of its own in each sequence ---- */

enum { BATCH = 3, HEADS = 4, KV_HEADS = 2, ROWS = 4, KEYS = 24, SIZE = 8, WINDOW = 3 };
static const int64_t filled[BATCH] = {5, 13, 24};

/* Four new rows stand at the end of what is filled. */
static struct problem buffer_problem(struct test_random *random) {
    attn_attention_args args = {.isa = test_isa(), .batch = BATCH, .heads = HEADS, .kv_heads = KV_HEADS};
    args.q_len = ROWS;
    args.kv_len = KEYS;
    args.head_size = SIZE;
    struct problem p = problem_new(random, TEST_NORMAL, &args);
    p.args.options.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = filled};
    p.args.options.position = ATTN_POSITION_VALID_END;
    return p;
}

/* Row i of sequence b sees keys up to i + filled[b] - ROWS, in a window those above that minus the window. */
static void test_rows_at_the_end_of_a_buffer(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t window = 0; window <= WINDOW; window += WINDOW) {
        struct problem p = buffer_problem(&random);
        uint8_t *visible = guarded_alloc(BATCH * ROWS * KEYS, 1, FLUSH_END);
        for (int64_t b = 0; b < BATCH; b++)
            for (int64_t i = 0; i < ROWS; i++)
                for (int64_t j = 0; j < KEYS; j++) {
                    int64_t at = i + filled[b] - ROWS;
                    visible[(b * ROWS + i) * KEYS + j] = j <= at && (!window || j > at - (int64_t)window);
                }
        p.args.options.causal = 1;
        p.args.options.window_left = window;
        describe(&p.args);
        struct attention_result actual = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        p.args.options = (attn_options){.mask = {visible, ATTN_BOOL, ROWS * KEYS, 0, KEYS, 1}};
        struct attention_result expected = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        assert_same_result(&expected, &actual);
        attention_free(&expected);
        attention_free(&actual);
        guarded_free(visible);
        problem_free(&p);
    }
}

/* Each sequence has the bits that it has alone, over the keys that it has and with its last row at the last of them. */
static void compare_with_filled_parts(const struct problem *p, const struct attention_result *whole) {
    for (size_t b = 0; b < BATCH; b++) {
        attn_attention_args one = one_sequence(&p->args, b);
        one.kv_len = (size_t)filled[b];
        one.options.valid = (attn_valid_lens){0};
        one.options.position = ATTN_POSITION_BOTTOM_RIGHT;
        struct attention_result part = attention_run(&one, LAYOUT_BHSD, FLUSH_END);
        for (size_t head = 0; head < HEADS; head++)
            assert_same_rows(((struct rows_of){&one, &part, 0, head, 0}),
                             ((struct rows_of){&p->args, whole, b, head, 0}), ROWS, one.kv_len);
        attention_free(&part);
    }
}

/* The same over a cache that was filled with everything: lengths count from its start. */
static void compare_with_cache(const struct problem *p, const attn_rotary *rotary,
                               const struct attention_result *expected) {
    attn_cache_config config = {.isa = test_isa(), .batch = BATCH, .kv_heads = KV_HEADS, .head_size = SIZE};
    void *memory;
    config.capacity = KEYS;
    attn_cache *cache = cache_create(&config, &memory, FLUSH_END);
    attn_cache_append_args append = {.len = KEYS, .k = p->args.k, .v = p->args.v, .rotary = rotary};
    assert_ok(attn_cache_append(cache, &append, NULL));
    attn_attention_args args = p->args;
    args.cache = cache;
    args.kv_len = 0;
    struct attention_result actual = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
    assert_same_result(expected, &actual);
    attention_free(&actual);
    guarded_free(memory);
}

static void test_filled_parts_by_themselves(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const float slopes[HEADS] = {0.5f, 0.25f, 1, 0};
    attn_rotary_config config = {.positions = KEYS, .dims = SIZE};
    attn_rotary *rotary = NULL;
    size_t bytes = 0;
    assert_ok(attn_rotary_size(&config, &bytes, NULL));
    void *memory = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_rotary_create(&config, memory, bytes, &rotary, NULL));
    for (unsigned use = 0; use < 32; use++) {
        struct problem p = buffer_problem(&random);
        attn_options *options = &p.args.options;
        options->causal = (int)(use & 1);
        options->window_left = use & 2 ? WINDOW : 0;
        options->window_right = use & 4 ? WINDOW - 1 : 0;
        options->alibi = use & 8 ? slopes : NULL;
        options->rotary = use & 16 ? rotary : NULL;
        describe(&p.args);
        struct attention_result whole = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        compare_with_filled_parts(&p, &whole);
        compare_with_cache(&p, options->rotary, &whole);
        attention_free(&whole);
        problem_free(&p);
    }
    guarded_free(memory);
}

/* ---- Ways to say the same ---- */

/* `other` gives the bits of `options`. */
static void check_same(const struct problem *p, const attn_options *other, const struct attention_result *expected) {
    attn_attention_args args = p->args;
    args.options = *other;
    describe(&args);
    struct attention_result actual = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
    assert_same_result(expected, &actual);
    attention_free(&actual);
}

/* VALID_END without lengths is BOTTOM_RIGHT, and both are an offset; TOP_LEFT is an offset of 0. Any causal that is not
 * 0 is the same. */
static void test_rules_as_offsets(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(40, 10); i++) {
        attn_attention_args args = masked_args(&random, i);
        unsigned kinds = random_kinds(&random, ~(KINDS_OF_RULES | KIND(VALID_SEQUENCE) | KIND(VALID_ROW)));
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &args, kinds);
        attn_options options = p.args.options;
        struct attention_result bottom_right = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        options.position = ATTN_POSITION_VALID_END;
        check_same(&p, &options, &bottom_right);
        options.position = ATTN_POSITION_OFFSET;
        options.position_offset = (int64_t)args.kv_len - (int64_t)args.q_len;
        options.causal = options.causal ? -7 : 0;
        check_same(&p, &options, &bottom_right);
        p.args.options.position = ATTN_POSITION_TOP_LEFT;
        struct attention_result top_left = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        options.position_offset = 0;
        check_same(&p, &options, &top_left);
        attention_free(&bottom_right);
        attention_free(&top_left);
        problem_free(&p);
    }
}

/* An offset for each sequence, as integers of either size, is what each sequence alone is with that offset for all. */
static void test_offsets_of_sequences(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 12); i++) {
        attn_attention_args args = masked_args(&random, i);
        args.batch = random_between(&random, 1, 3);
        unsigned kinds = random_kinds(&random, ~KINDS_OF_RULES);
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &args, kinds);
        bool far = !(kinds & (KIND(ALIBI) | KIND(ROTARY)));
        int64_t *i64 = guarded_alloc(args.batch * sizeof *i64, sizeof *i64, FLUSH_END);
        int32_t *i32 = guarded_alloc(args.batch * sizeof *i32, sizeof *i32, FLUSH_END);
        for (size_t b = 0; b < args.batch; b++) {
            int32_t near = (int32_t)random_below(&random, p.args.kv_len + p.args.q_len + 1) - (int32_t)p.args.q_len;
            i32[b] = !far || random_below(&random, 3) ? near : random_below(&random, 2) ? INT32_MIN : INT32_MAX;
            i64[b] = i32[b];
        }
        attn_options *options = &p.args.options;
        options->position = ATTN_POSITION_OFFSET;
        options->position_offsets.i64 = i64;
        describe(&p.args);
        struct attention_result whole = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        check_against_oracle(&p, &whole, 0);
        attn_options narrow = *options;
        narrow.position_offsets = (attn_ints){.i32 = i32};
        check_same(&p, &narrow, &whole);
        for (size_t b = 0; b < args.batch; b++) {
            attn_attention_args one = one_sequence(&p.args, b);
            one.options.position_offsets = (attn_ints){NULL, NULL};
            one.options.position_offset = i64[b];
            struct attention_result alone = attention_run(&one, LAYOUT_BHSD, FLUSH_END);
            for (size_t head = 0; head < p.args.heads; head++)
                assert_same_rows(((struct rows_of){&one, &alone, 0, head, 0}),
                                 ((struct rows_of){&p.args, &whole, b, head, 0}), one.q_len, one.kv_len);
            attention_free(&alone);
        }
        attention_free(&whole);
        guarded_free(i64);
        guarded_free(i32);
        problem_free(&p);
    }
}

/* ---- Rows at negative positions ---- */

enum { MANY_ROWS = 9, FEW_KEYS = 5 };

static struct problem negative_problem(struct test_random *random, attn_position position, const int64_t *lens) {
    attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 2, .q_len = MANY_ROWS, .kv_len = FEW_KEYS};
    args.head_size = SIZE;
    struct problem p = problem_new(random, TEST_NORMAL, &args);
    p.args.options.position = position;
    if (position == ATTN_POSITION_VALID_END)
        p.args.options.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = lens};
    if (position == ATTN_POSITION_OFFSET)
        p.args.options.position_offset = -7;
    return p;
}

/* The first rows stand before key 0. */
static const int64_t three = 3;
static const size_t before_first_key[] = {
    [ATTN_POSITION_BOTTOM_RIGHT] = MANY_ROWS - FEW_KEYS,
    [ATTN_POSITION_TOP_LEFT] = 0,
    [ATTN_POSITION_VALID_END] = MANY_ROWS - 3,
    [ATTN_POSITION_OFFSET] = 7,
};

/* If causal they see nothing, else the keys that there are. */
static void test_causal_rows_before_the_first_key(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (int position = 0; position <= ATTN_POSITION_OFFSET; position++)
        for (int causal = 0; causal < 2; causal++) {
            struct problem p = negative_problem(&random, (attn_position)position, &three);
            p.args.options.causal = causal;
            describe(&p.args);
            struct attention_result r = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
            for (size_t row = 0; row < r.rows; row++)
                assert_int_equal(causal && row % MANY_ROWS < before_first_key[position],
                                 r.log_sum_exp[row] == -INFINITY);
            attention_free(&r);
            problem_free(&p);
        }
}

/* A table of rotations has no negative position: rows there that see keys are refused, and those that see none do not
 * matter. */
static void test_rotary_before_the_first_key(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    attn_rotary_config config = {.positions = MANY_ROWS + FEW_KEYS, .dims = SIZE};
    attn_rotary *rotary = NULL;
    size_t bytes = 0;
    assert_ok(attn_rotary_size(&config, &bytes, NULL));
    void *memory = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_rotary_create(&config, memory, bytes, &rotary, NULL));
    for (int position = 0; position <= ATTN_POSITION_OFFSET; position++)
        for (int causal = 0; causal < 2; causal++) {
            struct problem p = negative_problem(&random, (attn_position)position, &three);
            struct tensor o = tensor_new(LAYOUT_BHSD, 1, 2, MANY_ROWS, SIZE, FLUSH_END);
            attn_error error = {0};
            bool refused = !causal && before_first_key[position] > 0;
            p.args.options.causal = causal;
            p.args.options.rotary = rotary;
            p.args.o = tensor_out(&o);
            describe(&p.args);
            assert_ok(attn_attention_workspace(&p.args, &bytes, NULL));
            void *workspace = poisoned_alloc(bytes, FLUSH_END);
            assert_status(refused ? ATTN_BAD_VALUE : ATTN_OK, attn_attention(&p.args, workspace, bytes, &error));
            assert_string_equal(refused ? "options.rotary" : "none", refused ? error.field : "none");
            guarded_free(workspace);
            tensor_free(&o);
            problem_free(&p);
        }
    guarded_free(memory);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_rule),
        cmocka_unit_test(test_rows_at_the_end_of_a_buffer),
        cmocka_unit_test(test_filled_parts_by_themselves),
        cmocka_unit_test(test_rules_as_offsets),
        cmocka_unit_test(test_offsets_of_sequences),
        cmocka_unit_test(test_causal_rows_before_the_first_key),
        cmocka_unit_test(test_rotary_before_the_first_key),
    };
    return test_run(tests);
}
