/* The floating-point environment of whole calls: what ordinary numbers raise, and what other rounding modes do. */
#include "attention_problem.h"
#include "flags.h"
#include "random_options.h"
#include "typed.h"

static const int modes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
enum { MODES = sizeof modes / sizeof *modes };

/* A call in a rounding mode, into a workspace of its size; the exceptions that it raises. */
static int run_in_mode(const attn_attention_args *args, int mode) {
    size_t bytes = 0;
    assert_ok(attn_attention_workspace(args, &bytes, NULL));
    void *workspace = guarded_alloc(bytes, ATTN_ALIGNMENT, FLUSH_END);
    fesetround(mode);
    flags_clear();
    attn_status status = attn_attention(args, workspace, bytes, NULL);
    int raised = flags_raised();
    assert_int_equal(mode, fegetround());
    fesetround(FE_TONEAREST);
    assert_ok(status);
    guarded_free(workspace);
    return raised;
}

static void no_nan(const float *x, size_t n, const char *what) {
    for (size_t i = 0; i < n; i++)
        if (isnan(x[i]) && !is_untouched(x + i))
            test_fail("%s: element %zu of %zu is NaN", what, i, n);
}

/* With all outputs, and with the first alone, which may take another way. */
static void check_problem(const struct problem *p, int mode) {
    struct attention_result r = attention_result_new(&p->args, LAYOUT_BHSD, FLUSH_END);
    attn_attention_args args = p->args;
    args.o = tensor_out(&r.o);
    for (int all = 0; all < 2; all++) {
        args.options.weights.data = all ? r.weights : NULL;
        args.options.scores.data = all ? r.scores : NULL;
        args.options.log_sum_exp.data = all ? r.log_sum_exp : NULL;
        assert_flags(run_in_mode(&args, mode), 0);
        no_nan(r.o.data, tensor_count(&r.o), "output");
    }
    no_nan(r.weights, r.rows * r.kv_len, "weights");
    no_nan(r.scores, r.rows * r.kv_len, "scores");
    no_nan(r.log_sum_exp, r.rows, "log-sum-exp");
    attention_free(&r);
}

/* Ordinary numbers, masked in any way, raise nothing and give no NaN; under other rounding modes the same, whatever the
 * bits. */
static void attention_of_numbers_is_quiet(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(1000, 150); i++) {
        attn_attention_args args = masked_args(&random, i);
        unsigned kinds = i % 4 ? random_kinds(&random, ~0u) : random_kinds(&random, KIND(VALID_ROW) | KIND(CAUSAL));
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &args, kinds);
        describe(&p.args);
        for (size_t mode = 0; mode < MODES; mode++)
            check_problem(&p, modes[mode]);
        problem_free(&p);
    }
}

/* Says whether the tests of this program and of the kernels look at exceptions. */
static void exceptions_are_compared(void **state) {
    (void)state;
    if (WATCHED_FLAGS == 0) {
        print_message("this compiler assumes that nobody looks at exceptions: they are not compared\n");
        skip();
    }
}

/* 100 equal keys: the last register of each row is filled up with logits of -inf. */
static void equal_keys_are_quiet(void **state) {
    (void)state;
    enum { ROWS = 40, KEYS = 100, SIZE = 8 };
    static float q[ROWS * SIZE], k[KEYS * SIZE];
    float *o = guarded_floats(ROWS * SIZE, FLUSH_END);
    attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 1, .q_len = ROWS, .kv_len = KEYS};
    args.head_size = SIZE;
    args.q = (attn_tensor){q, ATTN_F32, 0, 0, SIZE, 1};
    args.k = args.v = (attn_tensor){k, ATTN_F32, 0, 0, SIZE, 1};
    args.o = (attn_tensor_out){o, ATTN_F32, ROWS * SIZE, ROWS * SIZE, SIZE, 1};
    for (size_t mode = 0; mode < MODES; mode++) {
        test_case("mode %zu", mode);
        assert_flags(run_in_mode(&args, modes[mode]), 0);
        no_nan(o, ROWS * SIZE, "output");
    }
    guarded_free(o);
}

/* Logits as far below the largest as floats go, and some of -inf. */
static void softmax_of_numbers_is_quiet(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { MOST = 150 };
    const float spreads[] = {1.0f, 30.0f, 150.0f, 1e5f, 1e37f};
    for (size_t i = 0; i < sweep(5000, 500); i++) {
        size_t cols = random_between(&random, 1, MOST);
        float spread = spreads[i % (sizeof spreads / sizeof *spreads)], offset = random_below(&random, 2) ? -spread : 0;
        float *x = guarded_floats(cols, FLUSH_END), *y = guarded_floats(cols, FLUSH_END);
        attn_softmax_args args = {.isa = test_isa(), .batch = 1, .rows = 1, .cols = cols};
        args.x.data = x;
        args.y.data = y;
        args.x.row_stride = args.y.row_stride = cols;
        for (size_t c = 0; c < cols; c++)
            x[c] = c == 0 || random_below(&random, 8) ? spread * random_normal(&random) + offset : -INFINITY;
        for (size_t mode = 0; mode < MODES; mode++) {
            test_case("softmax of %zu, spread %g, mode %zu", cols, (double)spread, mode);
            fesetround(modes[mode]);
            flags_clear();
            attn_status status = attn_masked_softmax(&args, NULL);
            int raised = flags_raised();
            fesetround(FE_TONEAREST);
            assert_ok(status);
            assert_flags(raised, 0);
            no_nan(y, cols, "softmax");
        }
        guarded_free(x);
        guarded_free(y);
    }
}

/* Where the first key that is seen lies inside a unit of packed keys, what lies in front of it is not looked at: the
 * workspace is full of signalling NaNs. Keys are packed a head or a block at a time, or not at all. */
static void workspaces_are_not_read(void **state) {
    (void)state;
    enum { KEYS = 100, SIZE = 16, MOST = 40 };
    static const size_t rows[] = {1, 5, MOST};
    static const uint32_t signalling = 0x7fa00000;
    struct test_random random = test_random(__func__);
    struct tensor x = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, KEYS, SIZE, FLUSH_END);
    struct tensor o = tensor_new(LAYOUT_BHSD, 1, 1, MOST, SIZE, FLUSH_END);
    void *memory;
    attn_rotary *rotary = draw_rotary(&random, KEYS, SIZE, &memory);
    for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++)
        for (int64_t start = 0; start < 70; start += 5) {
            attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 1, .kv_len = KEYS, .head_size = SIZE};
            size_t bytes = 0;
            args.q_len = rows[i / 2];
            args.q = args.k = args.v = tensor_in(&x);
            args.o = tensor_out(&o);
            args.options.rotary = i % 2 ? rotary : NULL;
            args.options.starts.i64 = &start;
            assert_ok(attn_attention_workspace(&args, &bytes, NULL));
            unsigned char *workspace = guarded_alloc(bytes, ATTN_ALIGNMENT, FLUSH_END);
            for (size_t at = 0; at < bytes; at += sizeof signalling)
                memcpy(workspace + at, &signalling, sizeof signalling);
            test_case("%zu rows, from key %d on, %s", args.q_len, (int)start, i % 2 ? "rotary" : "not rotated");
            flags_clear();
            assert_ok(attn_attention(&args, workspace, bytes, NULL));
            assert_flags(flags_raised(), 0);
            guarded_free(workspace);
        }
    guarded_free(memory);
    tensor_free(&x);
    tensor_free(&o);
}

/* A layer, its cache of any type, and decoding over it. */
static void layer_of_numbers_is_quiet(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 10); i++) {
        size_t heads = random_between(&random, 1, 3), hidden = heads * random_between(&random, 1, 20), len = 45;
        attn_layer_config config = {.isa = test_isa(), .heads = heads, .hidden = hidden};
        config.query_width = config.key_width = config.value_width = hidden;
        struct layer_weights w = layer_weights_new(&random, &config, (unsigned)i);
        void *memory, *cache_memory;
        attn_layer *layer = layer_create(&w.config, &memory, FLUSH_END);
        attn_cache_config cache_config;
        assert_ok(attn_layer_cache_config(layer, 1, len, &cache_config, NULL));
        cache_config.type = cache_types[i % CACHE_TYPES];
        attn_cache *cache = cache_create(&cache_config, &cache_memory, FLUSH_END);
        struct tensor x = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, len, hidden, FLUSH_END);
        test_case("layer: heads=%zu hidden=%zu, cache of type %d", heads, hidden, (int)cache_config.type);
        flags_clear();
        for (size_t at = 0; at < len; at += 9) {
            attn_layer_append_args append = {.len = 9, .k = rows_from(&x, at), .v = rows_from(&x, at), .cache = cache};
            attn_layer_args args = {.batch = 1, .q_len = 9, .q = rows_from(&x, at), .cache = cache};
            size_t bytes = 0;
            assert_ok(attn_layer_append_workspace(layer, &append, &bytes, NULL));
            void *workspace = guarded_alloc(bytes, ATTN_ALIGNMENT, FLUSH_END);
            assert_ok(attn_layer_append(layer, &append, workspace, bytes, NULL));
            guarded_free(workspace);
            args.options.causal = 1;
            struct layer_result r = layer_run(layer, &w.config, &args, LAYOUT_BHSD, FLUSH_END);
            layer_result_free(&r);
        }
        assert_flags(flags_raised(), 0);
        tensor_free(&x);
        layer_weights_free(&w);
        guarded_free(cache_memory);
        guarded_free(memory);
    }
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exceptions_are_compared),       cmocka_unit_test(equal_keys_are_quiet),
        cmocka_unit_test(attention_of_numbers_is_quiet), cmocka_unit_test(softmax_of_numbers_is_quiet),
        cmocka_unit_test(layer_of_numbers_is_quiet),     cmocka_unit_test(workspaces_are_not_read),
    };
    return test_run(tests);
}
