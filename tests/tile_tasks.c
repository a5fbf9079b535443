/* See tile_tasks.h. */
#include "tile_tasks.h"

#include "support.h"

struct run {
    int (*is_clean)(void);
    size_t tasks;
};

/* In the calling thread, each from tiles as they are before the first use, which it leaves so. */
static void run_clean_tasks(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count) {
    struct run *run = context;
    for (size_t i = 0; i < count; i++) {
        assert_true(run->is_clean());
        task(arg, i);
        assert_true(run->is_clean());
    }
    run->tasks += count;
}

static void multiply(attn_type type, size_t m, const attn_parallel *parallel) {
    enum { K = 128, N = 512 };
    static uint16_t weights[N * K];
    static float scales[N * K / 32], x[300 * K], y[300 * N];
    attn_gemm_config config = {.isa = test_isa(), .k = K, .n = N};
    attn_gemm_run_args args = {.m = m, .parallel = parallel};
    attn_error error = {0};
    attn_gemm *gemm = NULL;
    size_t bytes = 0;
    config.w = (attn_linear){.weight = weights, .in_stride = 1, .out_stride = K, .type = type};
    config.w.scales = type == ATTN_BF16 ? NULL : scales;
    config.w.block = type == ATTN_INT4 ? 32 : 0;
    assert_ok(attn_gemm_size(&config, &bytes, &error));
    void *packed = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_gemm_create(&config, packed, bytes, &gemm, &error));
    args.x = (attn_tensor){.data = x, .row_stride = K};
    args.y = (attn_tensor_out){.data = y, .row_stride = N};
    assert_ok(attn_gemm_workspace(gemm, &args, &args.workspace_bytes, &error));
    args.workspace = poisoned_alloc(args.workspace_bytes, FLUSH_END);
    assert_ok(attn_gemm_run(gemm, &args, &error));
    guarded_free(args.workspace);
    guarded_free(packed);
}

/* q_len rows of two heads over kv_len keys, all of them zeros. */
static void attend(size_t q_len, size_t kv_len, const attn_parallel *parallel) {
    enum { HEADS = 2, SIZE = 32, MOST_KEYS = 9000 };
    static uint16_t rows[HEADS * MOST_KEYS * SIZE];
    static float o[HEADS * 100 * SIZE];
    attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = HEADS, .q_len = q_len, .parallel = parallel};
    attn_error error = {0};
    size_t bytes = 0;
    args.kv_len = kv_len;
    args.head_size = SIZE;
    args.q = (attn_tensor){.data = rows, .type = ATTN_BF16, .head_stride = q_len * SIZE, .row_stride = SIZE};
    args.k = args.v = (attn_tensor){.data = rows, .type = ATTN_BF16, .head_stride = kv_len * SIZE, .row_stride = SIZE};
    args.o = (attn_tensor_out){.data = o, .head_stride = q_len * SIZE, .row_stride = SIZE};
    assert_ok(attn_attention_workspace(&args, &bytes, &error));
    void *workspace = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_attention(&args, workspace, bytes, &error));
    guarded_free(workspace);
}

void tile_tasks_check(int (*is_clean)(void), size_t (*configurations)(void)) {
    const attn_type types[] = {ATTN_BF16, ATTN_INT8, ATTN_INT4};
    const size_t lengths[][2] = {{1, 40}, {70, 300}, {100, 100}, {2, 9000}}; /* the last in spans */
    for (size_t threads = 1; threads <= 3; threads++)
        for (size_t i = 0; i < 7; i++) {
            struct run run = {.is_clean = is_clean};
            size_t before = configurations ? configurations() : 0;
            attn_parallel parallel = {.run = run_clean_tasks, .context = &run, .threads = threads};
            test_case("operation %zu on %zu threads", i, threads);
            if (i < 3)
                multiply(types[i], 300, &parallel);
            else
                attend(lengths[i - 3][0], lengths[i - 3][1], &parallel);
            assert_true(is_clean());
            assert_true(!configurations || configurations() > before);
            assert_true(run.tasks > 0 || threads == 1 || (i >= 3 && i < 6)); /* these may be too little work */
        }
}
