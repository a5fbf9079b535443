/* attn_cache: keys and values appended in pieces of any size are attended to with the bits of the same keys and
 * values given as tensors at once. */
#include "problem.h"

#include <math.h>

static size_t sweep(size_t full, size_t quick) {
    return test_quick() ? quick : full;
}

/* Keys, values and queries of `total` rows, and a cache for them. */
struct problem {
    attn_cache_config config;
    attn_cache *cache;
    void *memory;
    struct tensor q, k, v;
    size_t heads, total;
};

static struct problem problem_new(struct test_random *random, size_t heads, const attn_cache_config *config,
                                  size_t total) {
    static const enum layout layouts[] = {LAYOUT_BHSD, LAYOUT_BSHD, LAYOUT_GAPS};
    struct problem p = {.config = *config, .heads = heads, .total = total};
    size_t value_size = config->value_size ? config->value_size : config->head_size;
    p.cache = cache_create(config, &p.memory, random_below(random, 2) ? FLUSH_END : FLUSH_START);
    p.q = tensor_random(random, TEST_NORMAL, layouts[random_below(random, 3)], config->batch, heads, total,
                        config->head_size, FLUSH_END);
    p.k = tensor_random(random, TEST_NORMAL, layouts[random_below(random, 3)], config->batch, config->kv_heads, total,
                        config->head_size, FLUSH_END);
    p.v = tensor_random(random, TEST_NORMAL, layouts[random_below(random, 3)], config->batch, config->kv_heads, total,
                        value_size, FLUSH_START);
    test_case("batch=%zu heads=%zu kv_heads=%zu head_size=%zu value_size=%zu capacity=%zu total=%zu", config->batch,
              heads, config->kv_heads, config->head_size, config->value_size, config->capacity, total);
    return p;
}

static struct problem random_problem(struct test_random *random, size_t index) {
    static const size_t sizes[] = {1, 2, 3, 7, 8, 15, 16, 17, 20, 33, 64};
    attn_cache_config config = {.isa = test_isa(), .batch = random_between(random, 1, 3)};
    size_t total = index % 7 == 6 ? random_between(random, 250, 530) : random_between(random, 1, 80);
    config.kv_heads = random_between(random, 1, 3);
    config.head_size = sizes[index % 11];
    config.value_size = random_below(random, 2) ? 0 : sizes[random_below(random, 11)];
    config.capacity = total + random_below(random, 2) * random_below(random, 40);
    return problem_new(random, config.kv_heads * random_between(random, 1, 3), &config, total);
}

static void problem_free(struct problem *p) {
    guarded_free(p->memory);
    tensor_free(&p->q);
    tensor_free(&p->k);
    tensor_free(&p->v);
}

/* Appends rows [length, end) in pieces of 0 to `most` rows. */
static void append_up_to(struct test_random *random, struct problem *p, size_t end, size_t most) {
    for (size_t length = attn_cache_length(p->cache, ATTN_ALL_SEQUENCES); length < end;) {
        size_t piece = random_below(random, most + 1);
        piece = piece < end - length ? piece : end - length;
        cache_append(p->cache, piece, tensor_from(&p->k, length), tensor_from(&p->v, length), NULL);
        length += piece;
        assert_int_equal(length, attn_cache_length(p->cache, ATTN_ALL_SEQUENCES));
    }
}

/* Query rows [begin, end) over the first `kv_len` keys. */
static attn_attention_args rows_args(const struct problem *p, size_t begin, size_t end, size_t kv_len) {
    attn_attention_args args = {.isa = test_isa(), .batch = p->config.batch, .heads = p->heads};
    args.kv_heads = p->config.kv_heads;
    args.q_len = end - begin;
    args.kv_len = kv_len;
    args.head_size = p->config.head_size;
    args.value_size = p->v.size;
    args.q = tensor_from(&p->q, begin);
    args.k = tensor_in(&p->k);
    args.v = tensor_in(&p->v);
    return args;
}

static void use_cache(attn_attention_args *args, const attn_cache *cache) {
    args->cache = cache;
    args->kv_len = 0;
    args->k = args->v = (attn_tensor){NULL, ATTN_F32, 0, 0, 0, 1};
}

/* Attention over the cache is attention over the tensors, for every mask. */
static void compare_all_masks(struct test_random *random, const struct problem *p) {
    size_t length = attn_cache_length(p->cache, ATTN_ALL_SEQUENCES),
           q_len = random_between(random, 1, p->total < 40 ? p->total : 40);
    int64_t *lens = random_lens(random, p->config.batch * q_len, length, FLUSH_END);
    for (size_t i = 0; i < 9; i++) {
        attn_attention_args args = rows_args(p, 0, q_len, length);
        set_order(&args.options, (enum order)(i % 3));
        args.options.valid = valid_lens((attn_valid_kind)(i / 3), lens);
        args.options.empty = (attn_empty_rows)random_below(random, 2);
        struct attention_result expected = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
        use_cache(&args, p->cache);
        args.isa = random_below(random, 2) ? ATTN_ISA_BEST : test_isa();
        args.kv_len = random_below(random, 2) ? length : 0;
        struct attention_result actual = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
        assert_same_result(&expected, &actual);
        attention_free(&expected);
        attention_free(&actual);
    }
    guarded_free(lens);
}

static void test_pieces_as_whole(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(120, 22); i++) {
        struct problem p = random_problem(&random, i);
        append_up_to(&random, &p, p.total, 1 + random_below(&random, i % 2 ? 5 : p.total));
        compare_all_masks(&random, &p);
        problem_free(&p);
    }
}

/* Several spans of keys. */
static void test_long_cache(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    attn_cache_config config = {.isa = test_isa(), .batch = 1, .kv_heads = 2, .head_size = 16, .capacity = 4096 + 300};
    struct problem p = problem_new(&random, 4, &config, config.capacity);
    append_up_to(&random, &p, p.total, 700);
    for (size_t q_len = 1; q_len <= 3; q_len += 2) {
        attn_attention_args args = rows_args(&p, p.total - q_len, p.total, p.total);
        args.options.causal = 1;
        struct attention_result expected = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
        use_cache(&args, p.cache);
        struct attention_result actual = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
        assert_same_result(&expected, &actual);
        attention_free(&expected);
        attention_free(&actual);
    }
    problem_free(&p);
}

/* Rows [begin, end), causally, right after their keys were appended: each row as in the causal run over everything. */
static void compare_step(const struct problem *p, const struct attention_result *whole, size_t begin, size_t end) {
    attn_attention_args args = rows_args(p, begin, end, end);
    use_cache(&args, p->cache);
    args.options.causal = 1;
    struct attention_result step = attention_run(&args, LAYOUT_BSHD, FLUSH_END);
    for (size_t head = 0; head < p->config.batch * p->heads; head++)
        for (size_t i = begin; i < end; i++) {
            size_t b = head / p->heads, h = head % p->heads, at = head * (end - begin) + i - begin;
            const float *weights = whole->weights + (head * p->total + i) * p->total;
            assert_same_bits(tensor_row(&whole->o, b, h, i), tensor_row(&step.o, b, h, i - begin), p->v.size);
            assert_same_bits(whole->log_sum_exp + head * p->total + i, step.log_sum_exp + at, 1);
            assert_same_bits(weights, step.weights + at * end, end);
        }
    attention_free(&step);
}

/* Prefill, chunks and one row at a time. */
static void test_decode_as_prefill(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(24, 6); i++) {
        struct problem p = random_problem(&random, i);
        attn_attention_args args = rows_args(&p, 0, p.total, p.total);
        args.options.causal = 1;
        args.options.position = ATTN_POSITION_TOP_LEFT;
        struct attention_result whole = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
        size_t most = i % 3 == 0 ? 1 : i % 3 == 1 ? 20 : p.total;
        for (size_t begin = 0, end; begin < p.total; begin = end) {
            end = begin + random_between(&random, 1, most);
            end = end < p.total ? end : p.total;
            append_up_to(&random, &p, end, end - begin);
            compare_step(&p, &whole, begin, end);
        }
        attention_free(&whole);
        problem_free(&p);
    }
}

/* Keys that were forgotten leave no trace, whatever they were. */
static void test_truncate_and_append_again(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 11); i++) {
        struct problem p = random_problem(&random, i);
        struct tensor bad_k = tensor_copy(&p.k, LAYOUT_BHSD, FLUSH_END),
                      bad_v = tensor_copy(&p.v, LAYOUT_BHSD, FLUSH_END);
        size_t kept = random_below(&random, p.total + 1);
        fill_poison(bad_k.data, tensor_count(&bad_k));
        fill_poison(bad_v.data, tensor_count(&bad_v));
        append_up_to(&random, &p, kept, 20);
        cache_append(p.cache, p.total - kept, tensor_in(&bad_k), tensor_in(&bad_v), NULL);
        assert_ok(attn_cache_truncate(p.cache, ATTN_ALL_SEQUENCES, kept, NULL));
        assert_int_equal(kept, attn_cache_length(p.cache, ATTN_ALL_SEQUENCES));
        compare_all_masks(&random, &p);
        append_up_to(&random, &p, p.total, 20);
        assert_ok(attn_cache_truncate(p.cache, ATTN_ALL_SEQUENCES, p.total, NULL));
        compare_all_masks(&random, &p);
        tensor_free(&bad_k);
        tensor_free(&bad_v);
        problem_free(&p);
    }
}

/* An empty cache makes empty rows. */
static void test_length_zero(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct problem p = random_problem(&random, 0);
    attn_tensor nothing = {NULL, ATTN_F32, 0, 0, 0, 1};
    assert_int_equal(0, attn_cache_length(NULL, ATTN_ALL_SEQUENCES));
    cache_append(p.cache, 0, nothing, nothing, NULL);
    assert_int_equal(0, attn_cache_length(p.cache, ATTN_ALL_SEQUENCES));
    attn_attention_args args = rows_args(&p, 0, 1, 0);
    for (int empty = ATTN_EMPTY_ZERO; empty <= ATTN_EMPTY_MEAN; empty++) {
        use_cache(&args, p.cache);
        args.options.empty = (attn_empty_rows)empty;
        struct attention_result r = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
        float zero = 0;
        for (size_t i = 0; i < tensor_count(&r.o); i++)
            assert_memory_equal(&zero, r.o.data + i, sizeof zero);
        for (size_t i = 0; i < r.rows; i++)
            assert_true(isinf(r.log_sum_exp[i]) && r.log_sum_exp[i] < 0);
        attention_free(&r);
    }
    problem_free(&p);
}

/* What does not fit is refused whole, and every byte of the cache stays. */
static void test_full_cache(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(20, 5); i++) {
        struct problem p = random_problem(&random, i);
        size_t bytes = 0, left = p.config.capacity - p.total;
        attn_error error = {0};
        attn_cache_append_args args = {.len = left + 1, .k = tensor_in(&p.k), .v = tensor_in(&p.v)};
        append_up_to(&random, &p, p.total, p.total);
        assert_ok(attn_cache_size(&p.config, &bytes, NULL));
        void *before = malloc(bytes);
        assert_non_null(before);
        make_defined(p.memory, bytes);
        memcpy(before, p.memory, bytes);
        assert_status(ATTN_TOO_SMALL, attn_cache_append(p.cache, &args, &error));
        assert_string_equal("len", error.field);
        args.len = PTRDIFF_MAX;
        assert_status(ATTN_TOO_SMALL, attn_cache_append(p.cache, &args, &error));
        assert_memory_equal(before, p.memory, bytes);
        assert_int_equal(p.total, attn_cache_length(p.cache, ATTN_ALL_SEQUENCES));
        compare_all_masks(&random, &p);
        free(before);
        problem_free(&p);
    }
}

/* ---- Through a layer ---- */

struct layer_problem {
    struct layer_weights weights;
    attn_layer *layer;
    attn_cache *cache;
    void *layer_memory, *cache_memory;
    struct tensor q, k, v;
    size_t batch, total;
};

static struct layer_problem layer_problem_new(struct test_random *random, size_t index) {
    attn_layer_config config = {.isa = test_isa(), .query_width = 20, .key_width = 31, .value_width = 13};
    struct layer_problem p = {.batch = random_between(random, 1, 2), .total = random_between(random, 1, 60)};
    config.heads = index % 2 ? 6 : 3;
    config.kv_heads = index % 4 == 3 ? 2 : 0;
    random_layer_sizes(random, &config, random_between(random, 1, 20));
    if (index % 8 == 7)
        p.total += 256;
    p.weights = layer_weights_new(random, &config, (unsigned)index % 16);
    p.layer = layer_create(&p.weights.config, &p.layer_memory, FLUSH_END);
    attn_cache_config cache_config;
    assert_ok(attn_layer_cache_config(p.layer, p.batch, p.total, &cache_config, NULL));
    assert_int_equal(test_isa(), cache_config.isa);
    assert_int_equal(p.batch, cache_config.batch);
    assert_int_equal(layer_sizes_of(&config).kv_heads, cache_config.kv_heads);
    assert_int_equal(layer_sizes_of(&config).head_size, cache_config.head_size);
    assert_int_equal(layer_sizes_of(&config).value_size, cache_config.value_size);
    assert_int_equal(p.total, cache_config.capacity);
    p.cache = cache_create(&cache_config, &p.cache_memory, FLUSH_END);
    p.q = tensor_random(random, TEST_NORMAL, LAYOUT_BHSD, p.batch, 1, p.total, 20, FLUSH_END);
    p.k = tensor_random(random, TEST_NORMAL, LAYOUT_GAPS, p.batch, 1, p.total, 31, FLUSH_END);
    p.v = tensor_random(random, TEST_NORMAL, LAYOUT_BHSD, p.batch, 1, p.total, 13, FLUSH_START);
    test_case("layer: batch=%zu total=%zu hidden=%zu heads=%zu,%zu sizes=%zu,%zu,%zu", p.batch, p.total, config.hidden,
              config.heads, config.kv_heads, config.head_size, config.value_size, config.out_size);
    return p;
}

static void layer_problem_free(struct layer_problem *p) {
    layer_weights_free(&p->weights);
    guarded_free(p->layer_memory);
    guarded_free(p->cache_memory);
    tensor_free(&p->q);
    tensor_free(&p->k);
    tensor_free(&p->v);
}

static void layer_append(struct layer_problem *p, size_t count) {
    size_t length = attn_cache_length(p->cache, ATTN_ALL_SEQUENCES), bytes = 0;
    attn_layer_append_args args = {.len = count, .cache = p->cache};
    attn_error error = {.field = "none"};
    args.k = rows_from(&p->k, length);
    args.v = rows_from(&p->v, length);
    assert_ok(attn_layer_append_workspace(p->layer, &args, &bytes, &error));
    void *workspace = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_layer_append(p->layer, &args, workspace, bytes, &error));
    assert_string_equal("none", error.field);
    assert_int_equal(length + count, attn_cache_length(p->cache, ATTN_ALL_SEQUENCES));
    guarded_free(workspace);
}

/* Rows [begin, end) with keys up to `end`, from the tensors or from the cache. */
static struct layer_result layer_rows(const struct layer_problem *p, size_t begin, size_t end, int cached) {
    attn_layer_args args = {.batch = p->batch, .q_len = end - begin, .kv_len = cached ? 0 : end};
    args.q = rows_from(&p->q, begin);
    args.options.causal = 1;
    if (cached) {
        args.cache = p->cache;
    } else {
        args.k = tensor_rows(&p->k);
        args.v = tensor_rows(&p->v);
    }
    return layer_run(p->layer, &p->weights.config, &args, LAYOUT_BHSD, FLUSH_END);
}

/* Appending and attending in steps, as a decoder does, gives each row of the pass over everything. */
static void test_layer_steps_as_whole(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(48, 10); i++) {
        struct layer_problem p = layer_problem_new(&random, i);
        struct layer_result whole = layer_rows(&p, 0, p.total, 0);
        size_t most = i % 3 == 0 ? 1 : i % 3 == 1 ? 17 : p.total;
        for (size_t begin = 0, end; begin < p.total; begin = end) {
            end = begin + random_between(&random, 1, most);
            end = end < p.total ? end : p.total;
            layer_append(&p, end - begin);
            layer_append(&p, 0);
            struct layer_result step = layer_rows(&p, begin, end, 1);
            for (size_t row = begin; row < end; row++)
                for (size_t b = 0; b < p.batch; b++)
                    assert_same_bits(tensor_row(&whole.y, b, 0, row), tensor_row(&step.y, b, 0, row - begin),
                                     whole.y.size);
            layer_result_free(&step);
        }
        struct layer_result cached = layer_rows(&p, 0, p.total, 1);
        assert_same_layer_result(&whole, &cached);
        layer_result_free(&cached);
        layer_result_free(&whole);
        layer_problem_free(&p);
    }
}

/* Cross attention: projected once, attended to by several batches of queries. */
static void test_layer_projected_once(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(24, 6); i++) {
        struct layer_problem p = layer_problem_new(&random, i);
        int64_t *lens = random_lens(&random, p.batch, p.total, FLUSH_END);
        layer_append(&p, p.total);
        for (size_t q_len = 1; q_len <= p.total; q_len += 1 + p.total / 3) {
            attn_layer_args args = {.batch = p.batch, .q_len = q_len, .kv_len = p.total};
            args.q = rows_from(&p.q, p.total - q_len);
            args.k = tensor_rows(&p.k);
            args.v = tensor_rows(&p.v);
            args.options.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = lens};
            args.options.empty = (attn_empty_rows)(i % 2);
            struct layer_result expected = layer_run(p.layer, &p.weights.config, &args, LAYOUT_BHSD, FLUSH_END);
            args.cache = p.cache;
            args.k = args.v = (attn_tensor){NULL, ATTN_F32, 0, 0, 0, 1};
            struct layer_result actual = layer_run(p.layer, &p.weights.config, &args, LAYOUT_BHSD, FLUSH_END);
            assert_same_layer_result(&expected, &actual);
            layer_result_free(&expected);
            layer_result_free(&actual);
        }
        guarded_free(lens);
        layer_problem_free(&p);
    }
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_as_whole),      cmocka_unit_test(test_long_cache),
        cmocka_unit_test(test_decode_as_prefill),    cmocka_unit_test(test_truncate_and_append_again),
        cmocka_unit_test(test_length_zero),          cmocka_unit_test(test_full_cache),
        cmocka_unit_test(test_layer_steps_as_whole), cmocka_unit_test(test_layer_projected_once),
    };
    return test_run(tests);
}
