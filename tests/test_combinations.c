/* docs/semantics.md's table of activations, weights and caches, cell by cell: each runs, or is refused by the name of a
 * field. */
#include "weights.h"

#include <string.h>

enum { WIDTH = 64, HEADS = 2, LEN = 3, TYPES = ATTN_F8_E5M2 + 1 };

static bool is_row(attn_type type) {
    return type == ATTN_F32 || type == ATTN_BF16 || type == ATTN_F16;
}

/* What keys and values are stored as. */
static bool is_stored(attn_type type) {
    return type != ATTN_BOOL && type != ATTN_INT4;
}

/* Any bits serve as elements of any type of rows. */
static float elements[LEN * WIDTH], results[LEN * WIDTH];

static attn_layer_config layer_config(const struct weight *w) {
    attn_layer_config config = {.isa = test_isa(), .hidden = WIDTH, .heads = HEADS};
    config.query_width = config.key_width = config.value_width = WIDTH;
    config.w_q = config.w_k = config.w_v = config.w_o = w->linear;
    return config;
}

static attn_layer *new_layer(const attn_layer_config *config) {
    attn_layer *layer = NULL;
    size_t bytes = 0;
    assert_ok(attn_layer_size(config, &bytes, NULL));
    assert_ok(attn_layer_create(config, poisoned_alloc(bytes, FLUSH_END), bytes, &layer, NULL));
    return layer;
}

static attn_layer_args layer_args(attn_type x, attn_type y) {
    attn_layer_args args = {.batch = 1, .q_len = LEN, .kv_len = LEN};
    args.q = args.k = args.v = attn_rows_dense(elements, x, LEN, WIDTH);
    args.y = attn_rows_out_dense(results, y, LEN, WIDTH);
    return args;
}

static attn_status run_layer(const attn_layer *layer, const attn_layer_args *args, attn_error *error) {
    size_t bytes = 0;
    attn_status status = attn_layer_workspace(layer, args, &bytes, error);
    if (status != ATTN_OK)
        return status;
    void *workspace = poisoned_alloc(bytes, FLUSH_END);
    status = attn_layer_forward(layer, args, workspace, bytes, error);
    guarded_free(workspace);
    return status;
}

static attn_cache *new_cache(const attn_layer *layer, attn_type type) {
    attn_cache_config config;
    attn_cache *cache = NULL;
    size_t bytes = 0;
    assert_ok(attn_layer_cache_config(layer, 1, LEN, &config, NULL));
    config.type = type;
    assert_ok(attn_cache_size(&config, &bytes, NULL));
    assert_ok(attn_cache_create(&config, poisoned_alloc(bytes, FLUSH_END), bytes, &cache, NULL));
    return cache;
}

static void append(const attn_layer *layer, attn_cache *cache, attn_type x) {
    attn_layer_append_args args = {.len = LEN, .cache = cache};
    size_t bytes = 0;
    args.k = args.v = attn_rows_dense(elements, x, LEN, WIDTH);
    assert_ok(attn_layer_append_workspace(layer, &args, &bytes, NULL));
    void *workspace = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_layer_append(layer, &args, workspace, bytes, NULL));
    guarded_free(workspace);
}

/* Every weight with every cache and every type of rows, and without a cache. */
static void every_cell_runs(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    random_fill(&random, TEST_NORMAL, elements, LEN * WIDTH / 4);
    for (size_t kind = 0; kind < weight_kind_count; kind++) {
        if (weight_kinds[kind].block > WIDTH)
            continue;
        struct weight weight = new_weight(&random, weight_kinds[kind], WIDTH, WIDTH, true);
        attn_layer_config config = layer_config(&weight);
        attn_layer *layer = new_layer(&config);
        for (int x = 0; x < TYPES; x++)
            for (int type = 0; type < TYPES; type++) {
                attn_layer_args args = layer_args((attn_type)x, ATTN_F32);
                attn_error error = {0};
                if (!is_row((attn_type)x) || !is_stored((attn_type)type))
                    continue;
                test_case("weight %zu, rows of type %d, cache of type %d", kind, x, type);
                assert_ok(run_layer(layer, &args, &error));
                attn_cache *cache = new_cache(layer, (attn_type)type);
                append(layer, cache, (attn_type)x);
                args.cache = cache;
                assert_ok(run_layer(layer, &args, &error));
                guarded_free(cache);
            }
        guarded_free(layer);
        free_weight(&weight);
    }
}

#define REFUSED(name, call)                                                                                            \
    do {                                                                                                               \
        attn_error error = {0};                                                                                        \
        test_case("type %d: %s", type, name);                                                                          \
        assert_status(ATTN_BAD_VALUE, call);                                                                           \
        assert_string_equal(name, error.field);                                                                        \
    } while (0)

/* Types that are none of rows. */
static void refuses_rows(const attn_layer *layer, const attn_gemm *gemm, int type) {
    attn_gemm_run_args x = {.m = LEN, .x.type = (attn_type)type}, y = {.m = LEN, .y.type = (attn_type)type};
    attn_layer_args q = layer_args((attn_type)type, ATTN_F32), out = layer_args(ATTN_F32, (attn_type)type);
    attn_layer_args k = layer_args(ATTN_F32, ATTN_F32), v = k;
    size_t bytes = 0;
    k.k.type = v.v.type = (attn_type)type;
    REFUSED("x.type", attn_gemm_workspace(gemm, &x, &bytes, &error));
    REFUSED("y.type", attn_gemm_workspace(gemm, &y, &bytes, &error));
    REFUSED("q.type", attn_layer_workspace(layer, &q, &bytes, &error));
    REFUSED("k.type", attn_layer_workspace(layer, &k, &bytes, &error));
    REFUSED("v.type", attn_layer_workspace(layer, &v, &bytes, &error));
    REFUSED("y.type", attn_layer_workspace(layer, &out, &bytes, &error));
}

static void every_other_type_is_refused(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct weight weight = new_weight(&random, weight_kinds[0], WIDTH, WIDTH, true);
    attn_layer_config config = layer_config(&weight);
    attn_layer *layer = new_layer(&config);
    attn_gemm *gemm = new_gemm(&weight, ATTN_ARITHMETIC_FASTEST);
    size_t bytes = 0;
    for (int type = 0; type < TYPES; type++) {
        attn_gemm_config of_weight = {.isa = test_isa(), .k = WIDTH, .n = WIDTH, .w.type = (attn_type)type};
        attn_layer_config of_keys = config;
        attn_cache_config cache;
        assert_ok(attn_layer_cache_config(layer, 1, LEN, &cache, NULL));
        cache.type = of_keys.kv_type = (attn_type)type;
        if (!is_row((attn_type)type))
            refuses_rows(layer, gemm, type);
        if (!is_row((attn_type)type) && type != ATTN_INT8 && type != ATTN_INT4)
            REFUSED("w.type", attn_gemm_size(&of_weight, &bytes, &error));
        if (!is_stored((attn_type)type))
            REFUSED("type", attn_cache_size(&cache, &bytes, &error));
        if (type != ATTN_F32 && type != ATTN_BF16)
            REFUSED("kv_type", attn_layer_size(&of_keys, &bytes, &error));
    }
    guarded_free(gemm);
    guarded_free(layer);
    free_weight(&weight);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cell_runs),
        cmocka_unit_test(every_other_type_is_refused),
    };
    return test_run(tests);
}
