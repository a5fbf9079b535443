/* docs/semantics.md's table of activations, weights and caches, cell by cell: each runs, in the class that it names and
 * with the bits of scalar, or is refused by the name of a field. */
#include "weights.h"

#include <stdio.h>
#include <string.h>

#include "dispatch.h"

enum { WIDTH = 128, HEADS = 2, LEN = 3, TYPES = ATTN_F8_E5M2 + 1 };

static bool is_row(attn_type type) {
    return type == ATTN_F32 || type == ATTN_BF16 || type == ATTN_F16;
}

/* What keys and values are stored as. */
static bool is_stored(attn_type type) {
    return type != ATTN_BOOL && type != ATTN_INT4;
}

/* Any bits serve as elements of any type of rows. */
static float elements[LEN * WIDTH], results[LEN * WIDTH], expected[LEN * WIDTH];

static attn_layer_config layer_config(const struct weight *w) {
    attn_layer_config config = {
        .isa = test_isa(), .arithmetic = ATTN_ARITHMETIC_PORTABLE, .hidden = WIDTH, .heads = HEADS};
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

/* ---- Classes ---- */

/* As the table says it of weights, and of keys and values. */
static enum attn_class class_of_weights(const struct weight_kind *kind) {
    switch (kind->type) {
    case ATTN_BF16:
        return ATTN_CLASS_BF16;
    case ATTN_INT8:
        return kind->block ? ATTN_CLASS_INT8_BLOCKS : ATTN_CLASS_INT8;
    case ATTN_INT4:
        return kind->dequantised ? ATTN_CLASS_F32 : ATTN_CLASS_INT4;
    default:
        return ATTN_CLASS_F32;
    }
}

static enum attn_class class_of_keys(attn_type type) {
    return type == ATTN_BF16 ? ATTN_CLASS_BF16 : ATTN_CLASS_F32;
}

/* BF16_TILE stands in for BF16 where the ISA has it, unless the layer is to be portable. */
static const char *kernel_name(enum attn_class arithmetic, attn_type type, attn_arithmetic asked) {
    if (arithmetic == ATTN_CLASS_BF16 && test_isa() == ATTN_ISA_AMX && asked == ATTN_ARITHMETIC_FASTEST)
        arithmetic = ATTN_CLASS_BF16_TILE;
    return attn_gemm_find_type(test_table(), arithmetic, type)->name;
}

/* Which kernels a layer says that it runs: those of the classes. */
static void every_cell_has_its_class(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t kind = 0; kind < weight_kind_count; kind++) {
        struct weight weight = new_weight(&random, weight_kinds[kind], WIDTH, WIDTH, true);
        for (int i = 0; i < 4; i++) {
            char start[128], text[256];
            attn_layer_config config = layer_config(&weight);
            config.kv_type = i % 2 ? ATTN_BF16 : ATTN_F32;
            config.arithmetic = i / 2 ? ATTN_ARITHMETIC_PORTABLE : ATTN_ARITHMETIC_FASTEST;
            attn_layer *layer = new_layer(&config);
            int length =
                snprintf(start, sizeof start, "gemm=%s attention=%s ",
                         kernel_name(class_of_weights(&weight_kinds[kind]), weight_kinds[kind].type, config.arithmetic),
                         kernel_name(class_of_keys(config.kv_type), config.kv_type, config.arithmetic));
            attn_layer_kernels(layer, text, sizeof text);
            test_case("weight %zu, keys and values of type %d: %s", kind, (int)config.kv_type, text);
            assert_memory_equal(start, text, (size_t)length);
            guarded_free(layer);
        }
        free_weight(&weight);
    }
}

/* ---- Cells ---- */

/* Rows of type x, with keys and values in a cache, into y. */
static void run_over_cache(const attn_layer *layer, attn_type x, attn_type type, float *y) {
    attn_layer_args args = layer_args(x, ATTN_F32);
    attn_error error = {0};
    attn_cache *cache = new_cache(layer, type);
    append(layer, cache, x);
    args.cache = cache;
    args.y.data = y;
    assert_ok(run_layer(layer, &args, &error));
    guarded_free(cache);
}

static void run_without_cache(const attn_layer *layer, attn_type x, float *y) {
    attn_layer_args args = layer_args(x, ATTN_F32);
    attn_error error = {0};
    args.y.data = y;
    assert_ok(run_layer(layer, &args, &error));
}

/* Every weight with every cache and every type of rows, and without a cache: the bits of scalar, which are numbers. */
static void every_cell_runs(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < LEN * WIDTH; i++) {
        uint16_t halves[2]; /* numbers of ordinary size in each type */
        for (size_t h = 0; h < 2; h++)
            halves[h] = (uint16_t)(random_below(&random, 2) << 15 | (0x3c00 + random_below(&random, 0x400)));
        memcpy(&elements[i], halves, sizeof halves);
    }
    for (size_t kind = 0; kind < weight_kind_count; kind++) {
        struct weight weight = new_weight(&random, weight_kinds[kind], WIDTH, WIDTH, true);
        attn_layer_config config = layer_config(&weight);
        attn_layer *layer = new_layer(&config);
        config.isa = ATTN_ISA_SCALAR;
        attn_layer *reference = new_layer(&config);
        for (int x = 0; x < TYPES; x++) {
            if (!is_row((attn_type)x))
                continue;
            test_case("weight %zu, rows of type %d", kind, x);
            run_without_cache(reference, (attn_type)x, expected);
            run_without_cache(layer, (attn_type)x, results);
            assert_same_bits(expected, results, LEN * WIDTH);
            assert_true(results[0] - results[0] == 0 && results[0] != 0);
            for (int type = 0; type < TYPES; type++) {
                if (!is_stored((attn_type)type))
                    continue;
                test_case("weight %zu, rows of type %d, cache of type %d", kind, x, type);
                run_over_cache(reference, (attn_type)x, (attn_type)type, expected);
                run_over_cache(layer, (attn_type)x, (attn_type)type, results);
                assert_same_bits(expected, results, LEN * WIDTH);
                assert_true(results[0] - results[0] == 0 && results[0] != 0);
            }
        }
        guarded_free(reference);
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
        cmocka_unit_test(every_cell_has_its_class),
        cmocka_unit_test(every_cell_runs),
        cmocka_unit_test(every_other_type_is_refused),
    };
    return test_run(tests);
}
