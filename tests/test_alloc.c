/* attn/alloc.h: memory from a malloc that counts, and fails where it is told to. */
#include "support.h"
#include <stdlib.h>
#include <string.h>

/* Blocks that have not been freed, and how many more malloc gives. */
static size_t blocks, blocks_left = SIZE_MAX;

static void *counted_malloc(size_t bytes) {
    void *memory = blocks_left > 0 ? malloc(bytes) : NULL;
    if (memory) {
        blocks++;
        blocks_left--;
    }
    return memory;
}

static void counted_free(void *memory) {
    blocks -= memory != NULL;
    free(memory);
}

#define malloc counted_malloc
#define free   counted_free
#include <attn/alloc.h>
#undef malloc
#undef free

enum { HEADS = 2, SIZE = 4, WIDTH = HEADS * SIZE, ROWS = 3 };

static float weight[WIDTH * WIDTH], x[ROWS * WIDTH];

static attn_layer_config layer_config(void) {
    attn_layer_config config = {.query_width = WIDTH, .key_width = WIDTH, .value_width = WIDTH, .hidden = WIDTH};
    config.heads = HEADS;
    config.w_q = config.w_k = config.w_v = config.w_o = attn_linear_dense(weight, ATTN_F32, WIDTH, NULL);
    return config;
}

static attn_layer_args layer_args(float *y) {
    attn_layer_args args = {.batch = 1, .q_len = ROWS, .kv_len = ROWS};
    args.q = args.k = args.v = attn_rows_dense(x, ATTN_F32, ROWS, WIDTH);
    args.y = attn_rows_out_dense(y, ATTN_F32, ROWS, WIDTH);
    return args;
}

static int fill(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < WIDTH * WIDTH; i++)
        weight[i] = random_normal(&random);
    for (size_t i = 0; i < ROWS * WIDTH; i++)
        x[i] = random_normal(&random);
    return 0;
}

static void memory_is_aligned(void **state) {
    (void)state;
    for (size_t bytes = 0; bytes < 300; bytes++) {
        void *memory = attn_alloc(bytes);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % ATTN_ALIGNMENT, 0);
        memset(memory, 0xff, bytes); /* a sanitizer sees accesses outside of it */
        attn_free(memory);
    }
    attn_free(NULL);
    assert_int_equal(blocks, 0);
    for (size_t less = 0; less < 100; less++)
        assert_null(attn_alloc(SIZE_MAX - less));
}

static void buffers_grow(void **state) {
    (void)state;
    attn_buffer buffer = {NULL, 0};
    void *small = attn_buffer_reserve(&buffer, 0);
    assert_non_null(small);
    void *memory = attn_buffer_reserve(&buffer, 1000);
    assert_non_null(memory);
    assert_int_equal(buffer.bytes, 1000);
    assert_ptr_equal(attn_buffer_reserve(&buffer, 10), memory);
    assert_int_equal(buffer.bytes, 1000);
    blocks_left = 0;
    assert_null(attn_buffer_reserve(&buffer, 1001));
    assert_ptr_equal(attn_buffer_reserve(&buffer, 1000), memory);
    blocks_left = SIZE_MAX;
    assert_int_equal(blocks, 1);
    attn_buffer_free(&buffer);
    attn_buffer_free(&buffer);
    assert_int_equal(blocks, 0);
    assert_null(buffer.memory);
    assert_int_equal(buffer.bytes, 0);
}

/* What every attn_*_new promises: an object that attn_free frees, an object left alone where the config is wrong or
 * there is no memory, and no memory lost. `size` is the field of the config that is set to 0, `wrong` what
 * that is. */
#define CHECK_NEW(new, config, size, wrong, object, name)                                                              \
    do {                                                                                                               \
        attn_error error = {.field = "none"};                                                                          \
        size_t before = blocks;                                                                                        \
        assert_int_equal(new (&(config), &(object), &error), ATTN_OK);                                                 \
        assert_int_equal(blocks, before + 1);                                                                          \
        void *made = (object);                                                                                         \
        blocks_left = 0;                                                                                               \
        assert_int_equal(new (&(config), &(object), &error), ATTN_NULL_POINTER);                                       \
        blocks_left = SIZE_MAX;                                                                                        \
        assert_string_equal(error.field, "memory");                                                                    \
        assert_int_equal(new (&(config), NULL, &error), ATTN_NULL_POINTER);                                            \
        assert_string_equal(error.field, name);                                                                        \
        size_t kept = (config).size;                                                                                   \
        (config).size = 0;                                                                                             \
        assert_int_equal(new (&(config), &(object), &error), wrong);                                                   \
        assert_string_equal(error.field, #size);                                                                       \
        (config).size = kept;                                                                                          \
        assert_int_equal(new (NULL, &(object), NULL), ATTN_NULL_POINTER);                                              \
        assert_ptr_equal((object), made);                                                                              \
        assert_int_equal(blocks, before + 1);                                                                          \
    } while (0)

static void objects_are_made_and_freed(void **state) {
    (void)state;
    attn_gemm_config gemm_config = {.k = WIDTH, .n = WIDTH, .w = attn_linear_dense(weight, ATTN_F32, WIDTH, NULL)};
    attn_rotary_config rotary_config = {.positions = 10, .dims = SIZE};
    attn_cache_config cache_config = {.batch = 1, .kv_heads = HEADS, .head_size = SIZE, .capacity = 100};
    attn_layer_config layer = layer_config();
    attn_gemm *gemm_object = NULL;
    attn_rotary *rotary_object = NULL;
    attn_cache *cache_object = NULL, *fork_object = NULL;
    attn_layer *layer_object = NULL;
    CHECK_NEW(attn_gemm_new, gemm_config, n, ATTN_BAD_SIZE, gemm_object, "gemm");
    CHECK_NEW(attn_rotary_new, rotary_config, positions, ATTN_BAD_SIZE, rotary_object, "rotary");
    CHECK_NEW(attn_cache_new, cache_config, capacity, ATTN_BAD_SIZE, cache_object, "cache");
    CHECK_NEW(attn_layer_new, layer, heads, ATTN_BAD_SIZE, layer_object, "layer");
    attn_cache_fork_config fork_config = {.parent = cache_object, .batch = 1, .capacity = 50};
    CHECK_NEW(attn_cache_fork_new, fork_config, capacity, ATTN_BAD_SIZE, fork_object, "cache");
    size_t gemm_bytes = 0, layer_bytes = 0;
    assert_int_equal(attn_gemm_export_size(gemm_object, ATTN_ISA_BEST, &gemm_bytes, NULL), ATTN_OK);
    assert_int_equal(attn_layer_export_size(layer_object, ATTN_ISA_BEST, &layer_bytes, NULL), ATTN_OK);
    void *gemm_blob = attn_alloc(gemm_bytes), *layer_blob = attn_alloc(layer_bytes);
    assert_int_equal(attn_gemm_export(gemm_object, ATTN_ISA_BEST, gemm_blob, gemm_bytes, NULL), ATTN_OK);
    assert_int_equal(attn_layer_export(layer_object, ATTN_ISA_BEST, layer_blob, layer_bytes, NULL), ATTN_OK);
    attn_import_config import_gemm = {.blob = gemm_blob, .blob_bytes = gemm_bytes};
    attn_import_config import_layer = {.blob = layer_blob, .blob_bytes = layer_bytes};
    attn_gemm *imported_gemm = NULL;
    attn_layer *imported_layer = NULL;
    CHECK_NEW(attn_gemm_import_new, import_gemm, blob_bytes, ATTN_TOO_SMALL, imported_gemm, "gemm");
    CHECK_NEW(attn_layer_import_new, import_layer, blob_bytes, ATTN_TOO_SMALL, imported_layer, "layer");
    attn_free(imported_gemm);
    attn_free(imported_layer);
    attn_free(gemm_blob);
    attn_free(layer_blob);
    attn_free(gemm_object);
    attn_free(rotary_object);
    attn_free(fork_object);
    attn_free(cache_object);
    attn_free(layer_object);
    assert_int_equal(blocks, 0);
}

/* The results have the same bits as in memory of the caller's own, whether the buffer has to grow or not. */
static void calls_grow_their_workspace(void **state) {
    (void)state;
    float expected[ROWS * WIDTH], y[ROWS * WIDTH];
    attn_layer_config config = layer_config();
    attn_layer_args args = layer_args(expected);
    attn_layer *layer = NULL;
    attn_error error = {.field = "none"};
    size_t bytes;
    assert_int_equal(attn_layer_new(&config, &layer, &error), ATTN_OK);
    assert_int_equal(attn_layer_workspace(layer, &args, &bytes, &error), ATTN_OK);
    void *memory = attn_alloc(bytes);
    assert_int_equal(attn_layer_forward(layer, &args, memory, bytes, &error), ATTN_OK);
    attn_free(memory);

    args = layer_args(y);
    attn_buffer workspace = {NULL, 0};
    blocks_left = 0;
    assert_int_equal(attn_layer_forward_in(layer, &args, &workspace, &error), ATTN_NULL_POINTER);
    assert_string_equal(error.field, "workspace");
    blocks_left = SIZE_MAX;
    for (size_t i = 0; i < 2; i++) {
        memset(y, 0, sizeof y);
        assert_int_equal(attn_layer_forward_in(layer, &args, &workspace, &error), ATTN_OK);
        assert_memory_equal(y, expected, sizeof y);
        assert_int_equal(blocks, 2);
    }
    assert_int_equal(workspace.bytes, bytes);

    attn_cache_config cache_config;
    attn_cache *cache = NULL;
    assert_int_equal(attn_layer_cache_config(layer, 1, ROWS, &cache_config, &error), ATTN_OK);
    assert_int_equal(attn_cache_new(&cache_config, &cache, &error), ATTN_OK);
    attn_layer_append_args append = {.len = ROWS, .k = args.k, .v = args.v, .cache = cache};
    assert_int_equal(attn_layer_append_in(layer, &append, &workspace, &error), ATTN_OK);
    args.cache = cache;
    memset(y, 0, sizeof y);
    assert_int_equal(attn_layer_forward_in(layer, &args, &workspace, &error), ATTN_OK);
    assert_memory_equal(y, expected, sizeof y);

    attn_buffer_free(&workspace);
    attn_free(cache);
    attn_free(layer);
    assert_int_equal(blocks, 0);
}

/* With bf16 a product needs a workspace. */
static void products_grow_their_workspace(void **state) {
    (void)state;
    static uint16_t bf16[WIDTH * WIDTH];
    for (size_t i = 0; i < WIDTH * WIDTH; i++)
        bf16[i] = (uint16_t)(0x3f80 + i % 64); /* bits of BF16 numbers from 1 to 1.5 */
    float expected[ROWS * WIDTH], y[ROWS * WIDTH] = {0};
    attn_gemm_config config = {.k = WIDTH, .n = WIDTH, .w = attn_linear_dense(bf16, ATTN_BF16, WIDTH, NULL)};
    attn_gemm_run_args args = {.m = ROWS, .x = attn_rows_dense(x, ATTN_F32, ROWS, WIDTH)};
    args.y = attn_rows_out_dense(expected, ATTN_F32, ROWS, WIDTH);
    attn_gemm *gemm = NULL;
    attn_error error = {.field = "none"};
    size_t bytes;
    assert_int_equal(attn_gemm_new(&config, &gemm, &error), ATTN_OK);
    assert_int_equal(attn_gemm_workspace(gemm, &args, &bytes, &error), ATTN_OK);
    assert_true(bytes > 0);
    args.workspace = attn_alloc(bytes);
    args.workspace_bytes = bytes;
    assert_int_equal(attn_gemm_run(gemm, &args, &error), ATTN_OK);
    attn_free(args.workspace);

    args.workspace = NULL;
    args.workspace_bytes = 0;
    args.y.data = y;
    attn_buffer workspace = {NULL, 0};
    assert_int_equal(attn_gemm_run_in(gemm, &args, &workspace, &error), ATTN_OK);
    assert_memory_equal(y, expected, sizeof y);
    assert_int_equal(attn_gemm_run_in(NULL, &args, &workspace, &error), ATTN_NULL_POINTER);
    attn_buffer_free(&workspace);
    attn_free(gemm);
    assert_int_equal(blocks, 0);
}

static void attention_grows_its_workspace(void **state) {
    (void)state;
    float expected[ROWS * WIDTH], o[ROWS * WIDTH] = {0};
    attn_attention_args args = {.batch = 1, .heads = HEADS, .q_len = ROWS, .kv_len = ROWS, .head_size = SIZE};
    args.q = args.k = args.v = attn_tensor_merged(x, ATTN_F32, HEADS, ROWS, SIZE);
    args.o = attn_tensor_out_merged(expected, ATTN_F32, HEADS, ROWS, SIZE);
    attn_error error = {.field = "none"};
    size_t bytes;
    assert_int_equal(attn_attention_workspace(&args, &bytes, &error), ATTN_OK);
    void *memory = attn_alloc(bytes);
    assert_int_equal(attn_attention(&args, memory, bytes, &error), ATTN_OK);
    attn_free(memory);

    args.o.data = o;
    attn_buffer workspace = {NULL, 0};
    assert_int_equal(attn_attention_in(&args, &workspace, &error), ATTN_OK);
    assert_memory_equal(o, expected, sizeof o);
    args.head_size = 0;
    assert_int_equal(attn_attention_in(&args, &workspace, &error), ATTN_BAD_SIZE);
    assert_string_equal(error.field, "head_size");
    attn_buffer_free(&workspace);
    assert_int_equal(blocks, 0);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_aligned),
        cmocka_unit_test(buffers_grow),
        cmocka_unit_test(objects_are_made_and_freed),
        cmocka_unit_test_setup(calls_grow_their_workspace, fill),
        cmocka_unit_test_setup(products_grow_their_workspace, fill),
        cmocka_unit_test_setup(attention_grows_its_workspace, fill),
    };
    return test_run(tests);
}
