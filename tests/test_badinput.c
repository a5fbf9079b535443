/* Bad input at every function but those of attention and layers (test_badinput_attention.c) and of caches
 * (test_badinput_cache.c): the status, its sentence, the name of the argument that is wrong, and not a byte written. */
#include "faults.h"

#include <math.h>
#include <stdio.h>

/* ---- Kernel level ---- */

static void test_isa_names(void **state) {
    (void)state;
    memcpy(&before, &arena, sizeof arena);
    assert_status(ATTN_NULL_POINTER, attn_isa_from_name(NULL, &arena.isa));
    assert_status(ATTN_NULL_POINTER, attn_isa_from_name("scalar", NULL));
    static const char *const unknown[] = {"", "sse2", "AVX2", "scalar ", " scalar", "avx51"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        assert_status(ATTN_UNKNOWN_ISA, attn_isa_from_name(unknown[i], &arena.isa));
    assert_memory_equal(&before, &arena, sizeof arena);
    static const int no_isa[] = {-1, ATTN_ISA_COUNT, 1000000, INT32_MIN};
    for (size_t i = 0; i < sizeof no_isa / sizeof *no_isa; i++) {
        assert_null(attn_isa_name((attn_isa)no_isa[i]));
        assert_int_equal(0, attn_isa_built((attn_isa)no_isa[i]));
        assert_int_equal(0, attn_isa_supported((attn_isa)no_isa[i]));
    }
}

static void gemm_configs(function *call) {
    BAD(call, ATTN_NULL_POINTER, "config", a.gemm_config = NULL);
    BAD_ISA(call, gemm_config_value.isa);
    ZERO_OR_BAD_SIZE(call, "k", gemm_config_value.k);
    ZERO_OR_BAD_SIZE(call, "n", gemm_config_value.n);
    BAD(call, ATTN_OVERFLOW, any_name, a.gemm_config_value.k = a.gemm_config_value.n = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.gemm_config_value.k = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.gemm_config_value.n = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.gemm_config_value.k = a.gemm_config_value.n = POWER(32));
    BAD(call, ATTN_OVERFLOW, any_name, a.gemm_config_value.k = POWER(31); a.gemm_config_value.n = POWER(30));
    BAD_FLOAT_WEIGHT(call, "w", gemm_config_value.w);
    BAD_ARITHMETIC(call, gemm_config_value.arithmetic);
}

/* What attn_gemm_workspace and attn_gemm_run check alike. */
static void gemm_runs(function *call) {
    BAD(call, ATTN_NULL_POINTER, "gemm", a.gemm = NULL);
    BAD(call, ATTN_NULL_POINTER, "args", a.gemm_run_args = NULL);
    BAD_SIZE(call, "m", gemm_args.m);
    BAD(call, ATTN_NULL_POINTER, "parallel.run", a.parallel_value.run = NULL; a.gemm_args.parallel = &a.parallel_value);
    BAD(call, ATTN_BAD_VALUE, "x.type", a.gemm_args.x.type = ATTN_BOOL);
    BAD(call, ATTN_BAD_VALUE, "x.type", a.gemm_args.x.type = NO_TYPE; a.gemm_args.m = 0);
    BAD(call, ATTN_BAD_VALUE, "y.type", a.gemm_args.y.type = ATTN_BOOL);
    BAD(call, ATTN_BAD_VALUE, "y.type", a.gemm_args.y.type = (attn_type)-1; a.gemm_args.m = 0);
}

/* Asks for the workspace of these arguments. */
static void put_workspace(struct arguments *a) {
    assert_ok(gemm_workspace(a, NULL));
    a->gemm_args.workspace = a->workspace;
    a->gemm_args.workspace_bytes = arena.bytes;
}

/* A product that converts: x before it, y after it. */
static void put_types(struct arguments *a, attn_type x, attn_type y) {
    a->gemm_args.x.type = x;
    a->gemm_args.y.type = y;
    put_workspace(a);
}

static void test_gemm_workspace(void **state) {
    (void)state;
    gemm_runs(gemm_workspace);
    BAD(gemm_workspace, ATTN_NULL_POINTER, "bytes", a.bytes_out = NULL);
    GOOD(gemm_workspace, a.gemm_args.x = (attn_tensor){.data = NULL}; a.gemm_args.y = (attn_tensor_out){.data = NULL});
    assert_int_equal(0, arena.bytes); /* F32 throughout */
    GOOD(gemm_workspace, a.gemm_args.y.type = ATTN_F16);
    assert_true(arena.bytes > 0);
    BAD(gemm_workspace, ATTN_OVERFLOW, "m", a.gemm_args.y.type = ATTN_F16; a.parallel_value.threads = SIZE_MAX;
        a.gemm_args.parallel = &a.parallel_value);
    BAD(gemm_run, ATTN_OVERFLOW, "m", a.gemm_args.y.type = ATTN_F16; a.parallel_value.threads = SIZE_MAX;
        a.gemm_args.parallel = &a.parallel_value);

    BAD(gemm_run, ATTN_NULL_POINTER, "workspace", a.gemm_args.x.type = ATTN_F16);
    BAD(gemm_run, ATTN_NULL_POINTER, "workspace", a.gemm_args.y.type = ATTN_BF16);
    BAD(gemm_run, ATTN_NULL_POINTER, "workspace", a.gemm = arena.bf16_gemm);
    BAD(gemm_run, ATTN_MISALIGNED, "workspace", put_types(&a, ATTN_F16, ATTN_F32);
        a.gemm_args.workspace = (char *)a.gemm_args.workspace + ATTN_ALIGNMENT / 2);
    BAD(gemm_run, ATTN_TOO_SMALL, "bytes", put_types(&a, ATTN_F16, ATTN_F32); a.gemm_args.workspace_bytes--);
    BAD(gemm_run, ATTN_TOO_SMALL, "bytes", put_types(&a, ATTN_F32, ATTN_BF16); a.gemm_args.workspace_bytes = 0);
    BAD(gemm_run, ATTN_TOO_SMALL, "bytes", a.gemm = arena.bf16_gemm; put_types(&a, ATTN_F32, ATTN_F32);
        a.gemm_args.workspace_bytes--);
    /* A workspace for fewer threads, or for narrower rows, does not do. */
    BAD(gemm_run, ATTN_TOO_SMALL, "bytes", put_types(&a, ATTN_F16, ATTN_F32); a.gemm_args.parallel = &a.parallel_value);
    BAD(gemm_run, ATTN_TOO_SMALL, "bytes", put_types(&a, ATTN_F16, ATTN_F32); a.gemm_args.y.type = ATTN_F16);
    GOOD(gemm_run, put_types(&a, ATTN_F16, ATTN_BF16));
    GOOD(gemm_run, a.gemm = arena.bf16_gemm; put_types(&a, ATTN_BF16, ATTN_F16));
    GOOD(gemm_run, put_types(&a, ATTN_F16, ATTN_BF16); a.gemm_args.m--);
    GOOD(gemm_run, a.gemm_args.x.type = ATTN_F16; a.gemm_args.m = 0);
    GOOD(gemm_run, a.gemm_args.workspace = (char *)a.workspace + 1); /* not looked at */
    /* Elements of 2 bytes end earlier. */
    GOOD(gemm_run, put_types(&a, ATTN_F16, ATTN_F32);
         a.gemm_args.y.data = (char *)arena.q + GEMM_M * GEMM_K * sizeof(uint16_t));
    BAD(gemm_run, ATTN_OVERLAP, "y", put_types(&a, ATTN_F16, ATTN_F32);
        a.gemm_args.y.data = (char *)arena.q + (GEMM_M * GEMM_K - 2) * sizeof(uint16_t));
}

static void test_gemm(void **state) {
    (void)state;
    gemm_configs(gemm_size);
    gemm_configs(gemm_create);
    BAD(gemm_size, ATTN_NULL_POINTER, "bytes", a.bytes_out = NULL);
    GOOD(gemm_size, a.gemm_config_value.w = (attn_linear){0});
    BAD(gemm_create, ATTN_NULL_POINTER, "w.weight", a.gemm_config_value.w.weight = NULL);
    BAD(gemm_create, ATTN_NULL_POINTER, "gemm", a.new_gemm = NULL);
    BAD(gemm_create, ATTN_BAD_STRIDE, "w.in_stride", a.gemm_config_value.w.in_stride = 0);
    BAD(gemm_create, ATTN_BAD_STRIDE, "w.out_stride", a.gemm_config_value.w.out_stride = 0);
    BAD(gemm_create, ATTN_OVERFLOW, any_name, a.gemm_config_value.w.in_stride = SIZE_MAX);
    BAD(gemm_create, ATTN_OVERFLOW, any_name, a.gemm_config_value.w.out_stride = SIZE_MAX / 4);
    BAD_MEMORY(gemm_create, gemm_size, "memory", memory);
    GOOD(gemm_create, a.gemm_config_value.w.bias = NULL);
    /* Elements of half the bytes: the same strides reach half as far. */
    BAD(gemm_create, ATTN_OVERFLOW, any_name, a.gemm_config_value.w.type = ATTN_BF16;
        a.gemm_config_value.w.out_stride = SIZE_MAX / 2);

    gemm_runs(gemm_run);
    BAD(gemm_run, ATTN_NULL_POINTER, "x.data", a.gemm_args.x.data = NULL);
    BAD(gemm_run, ATTN_NULL_POINTER, "y.data", a.gemm_args.y.data = NULL);
    BAD(gemm_run, ATTN_BAD_STRIDE, "x.row_stride", a.gemm_args.x.row_stride = GEMM_K - 1);
    BAD(gemm_run, ATTN_BAD_STRIDE, "x.row_stride", a.gemm_args.x.row_stride = 0);
    BAD(gemm_run, ATTN_BAD_STRIDE, "y.row_stride", a.gemm_args.y.row_stride = GEMM_N - 1);
    BAD(gemm_run, ATTN_OVERFLOW, any_name, a.gemm_args.x.row_stride = SIZE_MAX);
    BAD(gemm_run, ATTN_OVERFLOW, any_name, a.gemm_args.x.row_stride = POWER(60)); /* above PTRDIFF_MAX bytes only */
    BAD(gemm_run, ATTN_OVERFLOW, any_name, a.gemm_args.y.row_stride = SIZE_MAX / 2);
    BAD(gemm_run, ATTN_OVERFLOW, any_name, a.gemm_args.m = PTRDIFF_MAX);
    BAD(gemm_run, ATTN_OVERLAP, "y", a.gemm_args.y.data = arena.q);
    BAD(gemm_run, ATTN_OVERLAP, "y", a.gemm_args.y.data = arena.q + GEMM_M * GEMM_K - 1);
    BAD(gemm_run, ATTN_OVERLAP, "y", a.gemm_args.x.data = arena.o + GEMM_M * GEMM_N - 1);
    BAD_ROWS(gemm_run, "x", gemm_args.x);
    BAD_ROWS(gemm_run, "y", gemm_args.y);
    BAD(gemm_run, ATTN_BAD_STRIDE, "x.head_stride", a.gemm_args.x.head_stride = 1);
    BAD(gemm_run, ATTN_BAD_STRIDE, "y.head_stride", a.gemm_args.y.head_stride = 1);
    GOOD(gemm_run, a.gemm_args.y.data = arena.q + GEMM_M * GEMM_K);
    GOOD(gemm_run, a.gemm_args.x.data = arena.o + GEMM_M * GEMM_N);
    GOOD(gemm_run, a.parallel_value = (attn_parallel){0}; a.gemm_args.parallel = &a.parallel_value);
    GOOD(gemm_run, a.gemm_args.m = 0; a.gemm_args.x.data = NULL; a.gemm_args.y.data = NULL);
}

static void test_masked_softmax(void **state) {
    (void)state;
    BAD(masked_softmax, ATTN_NULL_POINTER, "args", a.softmax_args = NULL);
    BAD_ISA(masked_softmax, softmax.isa);
    BAD_SIZE(masked_softmax, "batch", softmax.batch);
    BAD_SIZE(masked_softmax, "rows", softmax.rows);
    BAD_SIZE(masked_softmax, "cols", softmax.cols);
    BAD(masked_softmax, ATTN_NULL_POINTER, "x.data", a.softmax.x.data = NULL);
    BAD(masked_softmax, ATTN_NULL_POINTER, "y.data", a.softmax.y.data = NULL);
    BAD(masked_softmax, ATTN_NULL_POINTER, "valid.lens", a.softmax.valid.lens.i64 = NULL);
    BAD(masked_softmax, ATTN_BAD_VALUE, "valid.kind", a.softmax.valid.kind = (attn_valid_kind)3);
    BAD(masked_softmax, ATTN_BAD_VALUE, "valid.kind", a.softmax.valid.kind = (attn_valid_kind)-1);
    BAD(masked_softmax, ATTN_BAD_VALUE, "valid.lens", a.softmax.valid.kind = ATTN_VALID_ALL);
    BAD(masked_softmax, ATTN_BAD_VALUE, "valid.lens", a.softmax.valid.kind = ATTN_VALID_ALL; a.softmax.rows = 0);
    BAD(masked_softmax, ATTN_BAD_VALUE, "empty", a.softmax.empty = (attn_empty_rows)2);
    BAD(masked_softmax, ATTN_BAD_STRIDE, "x.row_stride", a.softmax.x.row_stride = COLS - 1);
    BAD(masked_softmax, ATTN_BAD_STRIDE, "y.row_stride", a.softmax.y.row_stride = COLS - 1);
    BAD(masked_softmax, ATTN_BAD_STRIDE, "y.row_stride", a.softmax.y.row_stride = 0);
    BAD(masked_softmax, ATTN_BAD_STRIDE, "y.batch_stride", a.softmax.y.batch_stride = ROWS * COLS - 1);
    BAD(masked_softmax, ATTN_BAD_STRIDE, "y.batch_stride", a.softmax.y.batch_stride = 0);
    BAD(masked_softmax, ATTN_OVERFLOW, any_name, a.softmax.batch = PTRDIFF_MAX);
    BAD(masked_softmax, ATTN_OVERFLOW, any_name, a.softmax.rows = PTRDIFF_MAX);
    BAD(masked_softmax, ATTN_OVERFLOW, any_name, a.softmax.x.batch_stride = SIZE_MAX);
    BAD(masked_softmax, ATTN_OVERFLOW, any_name, a.softmax.y.row_stride = SIZE_MAX / 2);
    BAD(masked_softmax, ATTN_OVERLAP, "y", a.softmax.y.data = arena.q + 1);
    BAD(masked_softmax, ATTN_OVERLAP, "y", a.softmax.y.data = arena.q + BATCH * ROWS * COLS - 1);
    BAD(masked_softmax, ATTN_OVERLAP, "y", a.softmax.y.data = arena.q; a.softmax.y.row_stride = COLS + 1;
        a.softmax.y.batch_stride = ROWS * (COLS + 1));
    BAD(masked_softmax, ATTN_NULL_POINTER, "parallel.run", a.parallel_value.run = NULL;
        a.softmax.parallel = &a.parallel_value);
    BAD(masked_softmax, ATTN_OVERLAP, "y", a.softmax.y.data = arena.q; a.softmax.y.batch_stride = ROWS * COLS + 1);
    BAD(masked_softmax, ATTN_OVERLAP, "y", a.softmax.y.data = arena.q; a.softmax.x.batch_stride = 0);
    BAD(masked_softmax, ATTN_OVERLAP, "y", a.softmax.y.data = arena.q; a.softmax.y.row_stride = COLS + 1;
        a.softmax.x.batch_stride = a.softmax.y.batch_stride = ROWS * (COLS + 1));
    BAD_ROWS(masked_softmax, "x", softmax.x);
    BAD_ROWS(masked_softmax, "y", softmax.y);
    BAD_INTS(masked_softmax, "valid.lens", softmax.valid.lens);
    BAD(masked_softmax, ATTN_BAD_STRIDE, "x.head_stride", a.softmax.x.head_stride = 1);
    BAD(masked_softmax, ATTN_BAD_STRIDE, "y.head_stride", a.softmax.y.head_stride = ROWS * COLS);
    BAD(masked_softmax, ATTN_BAD_VALUE, "valid.row_stride", a.softmax.valid.row_stride = 1);
    BAD(masked_softmax, ATTN_BAD_VALUE, "valid.batch_stride", a.softmax.valid = (attn_valid_lens){.batch_stride = 1});
    BAD(masked_softmax, ATTN_OVERLAP, "y", a.softmax.y.data = arena.q; a.softmax.y.type = ATTN_F16);
    BAD(masked_softmax, ATTN_OVERLAP, "y", a.softmax.x.type = ATTN_BF16; a.softmax.y.data = arena.q);
    BAD(masked_softmax, ATTN_OVERLAP, "y", a.softmax.x.type = a.softmax.y.type = ATTN_F16;
        a.softmax.y.data = (char *)arena.q + 2);
    GOOD(masked_softmax, a.softmax.y.data = arena.q; a.softmax.x.type = ATTN_BF16; a.softmax.y.type = ATTN_F16);
    GOOD(masked_softmax, a.softmax.x.type = a.softmax.y.type = ATTN_F16;
         a.softmax.y.data = arena.q + BATCH * ROWS * COLS / 2);
    GOOD(masked_softmax, a.softmax.y.data = arena.q);
    GOOD(masked_softmax, a.softmax.y.data = arena.q; a.softmax.batch = 1; a.softmax.y.batch_stride = 0);
    GOOD(masked_softmax, a.softmax.y.data = arena.q; a.softmax.rows = 1; a.softmax.y.row_stride = 0);
    GOOD(masked_softmax, a.softmax.y.data = arena.q + BATCH * ROWS * COLS);
    GOOD(masked_softmax, a.softmax.x.data = arena.o + BATCH * ROWS * COLS);
    GOOD(masked_softmax, a.softmax.x.batch_stride = 0);
    GOOD(masked_softmax, a.softmax.valid = (attn_valid_lens){0});
    GOOD(masked_softmax, a.softmax.batch = 0; a.softmax.x.data = NULL; a.softmax.y.data = NULL);
    GOOD(masked_softmax, a.softmax.cols = 0; a.softmax.x.data = NULL; a.softmax.y.data = NULL);
}

static void transposes(function *call, const char *row_name, size_t x_floats) {
    BAD(call, ATTN_NULL_POINTER, "args", a.transpose_args = NULL);
    BAD_ISA(call, transpose.isa);
    BAD_SIZE(call, "batch", transpose.batch);
    BAD_SIZE(call, "len", transpose.len);
    BAD_SIZE(call, "heads", transpose.heads);
    ZERO_OR_BAD_SIZE(call, "head_size", transpose.head_size);
    BAD(call, ATTN_NULL_POINTER, "x.data", a.transpose.x.data = NULL);
    BAD(call, ATTN_NULL_POINTER, "y.data", a.transpose.y.data = NULL);
    BAD(call, ATTN_BAD_STRIDE, row_name, a.merged_row_stride = HIDDEN - 1);
    BAD(call, ATTN_BAD_STRIDE, row_name, a.merged_row_stride = 0);
    BAD(call, ATTN_OVERFLOW, any_name, a.transpose.heads = PTRDIFF_MAX; a.merged_row_stride = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.transpose.head_size = PTRDIFF_MAX; a.transpose.heads = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.transpose.batch = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.transpose.len = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.merged_batch_stride = SIZE_MAX);
    BAD(call, ATTN_OVERLAP, "y", a.transpose.y.data = arena.q);
    BAD(call, ATTN_OVERLAP, "y", a.transpose.y.data = arena.q + x_floats - 1);
    BAD(call, ATTN_NULL_POINTER, "parallel.run", a.parallel_value.run = NULL; a.transpose.parallel = &a.parallel_value);
    GOOD(call, a.transpose.y.data = arena.q + x_floats);
    GOOD(call, a.transpose.x.data = arena.o + x_floats);
    GOOD(call, a.transpose.batch = 0; a.transpose.x.data = NULL; a.transpose.y.data = NULL);
    GOOD(call, a.transpose.len = 0; a.transpose.x.data = NULL; a.transpose.y.data = NULL);
    GOOD(call, a.transpose.heads = 0; a.transpose.x.data = NULL; a.transpose.y.data = NULL);
}

static void test_transposes(void **state) {
    (void)state;
    BAD_ROWS(transpose_qkv, "x", transpose.x);
    BAD_ROWS(transpose_output, "y", transpose.y);
    BAD_ROWS(transpose_qkv, "y", transpose.y);
    BAD_ROWS(transpose_output, "x", transpose.x);
    GOOD(transpose_qkv, a.transpose.x.type = ATTN_BF16; a.transpose.y.type = ATTN_F16);
    GOOD(transpose_output, a.transpose.x.type = ATTN_F16);
    transposes(transpose_qkv, "x.row_stride", BATCH * Q_LEN * HIDDEN);
    transposes(transpose_output, "y.row_stride", BATCH * Q_LEN * HIDDEN);
    BAD(transpose_qkv, ATTN_BAD_STRIDE, "x.head_stride", a.transpose.x.head_stride = HEAD_SIZE);
    BAD(transpose_output, ATTN_BAD_STRIDE, "y.head_stride", a.transpose.y.head_stride = HEAD_SIZE);
    BAD(transpose_output, ATTN_BAD_STRIDE, "y", a.merged_batch_stride = (Q_LEN - 1) * HIDDEN + HIDDEN - 1);
    BAD(transpose_output, ATTN_BAD_STRIDE, "y", a.merged_batch_stride = 0);
    BAD(transpose_qkv, ATTN_BAD_STRIDE, "y", a.transpose.y.row_stride = HEAD_SIZE);
    GOOD(transpose_qkv, a.merged_batch_stride = 0);
}

/* ---- Sizes at random ---- */

static size_t size_at_random(struct test_random *random) {
    static const size_t sizes[] = {1,         1,         2,         3,         8,         1000,      (size_t)1 << 16,
                                   POWER(31), POWER(32), POWER(33), POWER(48), POWER(61), POWER(62), PTRDIFF_MAX};
    size_t size = sizes[random_below(random, sizeof sizes / sizeof *sizes)];
    return size > 1000 && size < PTRDIFF_MAX ? size + random_below(random, 3) - 1 : size;
}

/* A size query that succeeds has not wrapped: it is at least what the elements take, as a product that cannot wrap. */
static void check_bytes(attn_status status, long double floats) {
    if (status == ATTN_OK) {
        assert_true((long double)arena.bytes * 1.000001L >= floats * sizeof(float));
        assert_in_range(arena.bytes, 1, PTRDIFF_MAX);
    } else {
        assert_true(status == ATTN_OVERFLOW || status == ATTN_BAD_SIZE);
    }
}

static void test_size_queries_at_random(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < (test_quick() ? 2000 : 20000); i++) {
        struct arguments a;
        base(&a);
        attn_gemm_config *gemm = &a.gemm_config_value;
        gemm->k = size_at_random(&random);
        gemm->n = size_at_random(&random);
        check_bytes(gemm_size(&a, NULL), (long double)gemm->k * gemm->n);
        attn_cache_config *cache = &a.cache_config_value;
        cache->batch = size_at_random(&random);
        cache->kv_heads = size_at_random(&random);
        cache->head_size = size_at_random(&random);
        cache->value_size = size_at_random(&random);
        cache->capacity = size_at_random(&random);
        check_bytes(cache_size(&a, NULL), (long double)cache->batch * cache->kv_heads * cache->capacity *
                                              ((long double)cache->head_size + cache->value_size));
        attn_layer_config *layer = &a.layer_config_value;
        layer->query_width = size_at_random(&random);
        layer->key_width = size_at_random(&random);
        layer->value_width = size_at_random(&random);
        layer->heads = layer->kv_heads = size_at_random(&random);
        layer->hidden = layer->heads < POWER(32) ? layer->heads * 3 : layer->heads;
        layer->value_size = size_at_random(&random);
        layer->out_size = size_at_random(&random);
        check_bytes(layer_size(&a, NULL),
                    (long double)layer->hidden * ((long double)layer->query_width + layer->key_width) +
                        (long double)layer->heads * layer->value_size *
                            ((long double)layer->value_width + layer->out_size));
    }
}

/* Attention and layer of any sizes, in no workspace: refused, whatever threads and strides are. */
static void test_runs_at_random(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < (test_quick() ? 300 : 3000); i++) {
        struct arguments a;
        base(&a);
        a.parallel_value.threads = size_at_random(&random);
        a.bytes = 0;
        attn_attention_args *args = &a.attention;
        args->batch = size_at_random(&random);
        args->heads = args->kv_heads = size_at_random(&random);
        args->q_len = size_at_random(&random);
        args->kv_len = size_at_random(&random);
        args->head_size = size_at_random(&random);
        args->value_size = size_at_random(&random);
        args->q.row_stride = size_at_random(&random);
        args->k.head_stride = size_at_random(&random);
        args->v.batch_stride = size_at_random(&random);
        args->o.row_stride = size_at_random(&random);
        args->parallel = random_below(&random, 2) ? &a.parallel_value : NULL;
        a.forward.batch = size_at_random(&random);
        a.forward.q_len = size_at_random(&random);
        a.forward.kv_len = size_at_random(&random);
        a.forward.q.batch_stride = size_at_random(&random);
        a.forward.y.row_stride = size_at_random(&random);
        a.forward.parallel = args->parallel;
        test_case("attention %zu x %zu x %zu x %zu, sizes %zu, %zu; layer %zu x %zu x %zu; %zu threads", args->batch,
                  args->heads, args->q_len, args->kv_len, args->head_size, args->value_size, a.forward.batch,
                  a.forward.q_len, a.forward.kv_len, a.parallel_value.threads);
        memcpy(&before, &arena, sizeof arena);
        assert_true(attention(&a, NULL) != ATTN_OK);
        assert_true(layer_forward(&a, NULL) != ATTN_OK);
        assert_memory_equal(&before, &arena, sizeof arena);
        if (attention_workspace(&a, NULL) == ATTN_OK)
            assert_in_range(arena.bytes, 1, PTRDIFF_MAX);
        if (layer_workspace(&a, NULL) == ATTN_OK)
            assert_in_range(arena.bytes, 1, PTRDIFF_MAX);
    }
}

/* Whether these are lengths of sequences of at most `most` rows in a tensor of `total`. */
static bool are_cumulative(const attn_cu_lens *cu, size_t most) {
    int64_t last = 0;
    for (size_t b = 0; b <= BATCH; b++) {
        if (cu->cu.i64[b] < last || cu->cu.i64[b] > (int64_t)cu->total)
            return false;
        if (b > 0 && cu->cu.i64[b] - last > (int64_t)most)
            return false;
        last = cu->cu.i64[b];
    }
    return true;
}

static int64_t cu_at_random(struct test_random *random) {
    static const int64_t values[] = {-1,           0, 0, 1, 2, 2, 3, 3, 4, 5, 6, INT64_MIN, INT64_MIN + 1, INT64_MAX,
                                     INT64_MAX - 1};
    return values[random_below(random, sizeof values / sizeof *values)];
}

/* Cumulative lengths are an untrusted input: those of a tensor are taken, any others refused. */
static void test_cu_at_random(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    size_t taken = 0;
    for (size_t i = 0; i < (test_quick() ? 2000 : 20000); i++) {
        struct arguments a;
        base(&a);
        attn_cu_lens cu =
            packed(cu_at_random(&random), cu_at_random(&random), cu_at_random(&random), random_below(&random, 7));
        int of_keys = random_below(&random, 2) != 0;
        a.attention.o.head_stride = a.attention.o.batch_stride = 10 * VALUE_SIZE;
        a.attention.o.batch_stride *= HEADS;
        *(of_keys ? &a.attention.kv_cu : &a.attention.q_cu) = cu;
        *(of_keys ? &a.forward.kv_cu : &a.forward.q_cu) = cu;
        test_case("%s %jd %jd %jd of %zu", of_keys ? "kv_cu" : "q_cu", (intmax_t)cu.cu.i64[0], (intmax_t)cu.cu.i64[1],
                  (intmax_t)cu.cu.i64[2], cu.total);
        attn_status expected = are_cumulative(&cu, of_keys ? KV_LEN : Q_LEN) ? ATTN_OK : ATTN_BAD_VALUE;
        assert_status(expected, attention(&a, NULL));
        assert_status(expected, layer_forward(&a, NULL));
        taken += expected == ATTN_OK;
    }
    assert_in_range(taken, 20, 20000);
}

/* ---- Statuses ---- */

static void test_status_strings(void **state) {
    (void)state;
    enum { LAST = ATTN_MISMATCH };
    for (int i = 0; i <= LAST; i++) {
        const char *text = attn_status_string((attn_status)i);
        assert_true(text && *text);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(attn_status_string((attn_status)j), text);
    }
    static const int no_status[] = {-1, LAST + 1, 1000000, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof no_status / sizeof *no_status; i++) {
        const char *text = attn_status_string((attn_status)no_status[i]);
        assert_true(text && *text);
        for (int j = 0; j <= LAST; j++)
            assert_string_not_equal(attn_status_string((attn_status)j), text);
    }
}

static void test_status_names(void **state) {
    (void)state;
    assert_string_equal("ATTN_OK", attn_status_name(ATTN_OK));
    assert_string_equal("ATTN_TOO_SMALL", attn_status_name(ATTN_TOO_SMALL));
    assert_string_equal("ATTN_MISMATCH", attn_status_name(ATTN_MISMATCH));
    for (int i = 0; i <= ATTN_MISMATCH; i++)
        for (int j = 0; j < i; j++)
            assert_string_not_equal(attn_status_name((attn_status)j), attn_status_name((attn_status)i));
    assert_string_equal("no status", attn_status_name((attn_status)-1));
    assert_string_equal("no status", attn_status_name((attn_status)(ATTN_MISMATCH + 1)));
}

/* What an error says of a call that fails, made of valid arguments by the statements. */
#define SAYS(call, text, expected_needed, expected_given, ...)                                                         \
    do {                                                                                                               \
        struct arguments a;                                                                                            \
        attn_error error;                                                                                              \
        char said[256];                                                                                                \
        base(&a);                                                                                                      \
        __VA_ARGS__;                                                                                                   \
        call(&a, &error);                                                                                              \
        assert_int_equal(expected_needed, error.needed);                                                               \
        assert_int_equal(expected_given, error.given);                                                                 \
        attn_error_text(&error, said, sizeof said);                                                                    \
        assert_string_equal(text, said);                                                                               \
    } while (0)

static void test_error_texts(void **state) {
    (void)state;
    size_t bytes;
    char text[64], expected[64];
    struct arguments measured;
    base(&measured);
    assert_ok(attention_workspace(&measured, NULL));
    bytes = arena.bytes;
    snprintf(expected, sizeof expected, "bytes: too small: %zu needed, 100 given", bytes);
    SAYS(attention, expected, bytes, 100, a.bytes = 100);
    SAYS(attention_workspace, "head_size: too small: at least 1, but 0 given", 1, 0, a.attention.head_size = 0);
    SAYS(cache_truncate, "sequence: too large: at most 1, but 2 given", BATCH - 1, BATCH, a.sequence = BATCH);
    SAYS(cache_truncate, "len: too large: at most 5, but 6 given", KV_LEN, KV_LEN + 1, a.len = KV_LEN + 1);
    SAYS(cache_append, "len: too small: 4 needed, 3 given", 4, CAPACITY - KV_LEN, a.keys.len = 4);
    SAYS(attention, "kv_len: does not belong together: 5 expected, 4 given", KV_LEN, KV_LEN - 1,
         a.attention.cache = arena.cache;
         a.attention.kv_len = KV_LEN - 1);
    SAYS(attention, "q.type: F32, BF16 or F16 expected, BOOL given", 1 << ATTN_F32 | 1 << ATTN_BF16 | 1 << ATTN_F16,
         ATTN_BOOL, a.attention.q.type = ATTN_BOOL);
    SAYS(attention, "v.type: F32 expected, BF16 given", 1 << ATTN_F32, ATTN_BF16, a.attention.v.type = ATTN_BF16);
    SAYS(attention, "q.type: F32, BF16 or F16 expected, a value that is no type given",
         1 << ATTN_F32 | 1 << ATTN_BF16 | 1 << ATTN_F16, NO_TYPE, a.attention.q.type = NO_TYPE);
    SAYS(attention, "args: a required pointer is NULL", 0, 0, a.attention_args = NULL);
    attn_error_text(&(attn_error){0}, text, sizeof text);
    assert_string_equal("success", text);
    attn_error_text(NULL, text, sizeof text);
    assert_string_equal("success", text);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_isa_names, set_up),
        cmocka_unit_test_setup(test_gemm, set_up),
        cmocka_unit_test_setup(test_gemm_workspace, set_up),
        cmocka_unit_test_setup(test_masked_softmax, set_up),
        cmocka_unit_test_setup(test_transposes, set_up),
        cmocka_unit_test_setup(test_size_queries_at_random, set_up),
        cmocka_unit_test_setup(test_runs_at_random, set_up),
        cmocka_unit_test_setup(test_cu_at_random, set_up),
        cmocka_unit_test(test_status_strings),
        cmocka_unit_test(test_status_names),
        cmocka_unit_test_setup(test_error_texts, set_up),
    };
    return test_run(tests);
}
