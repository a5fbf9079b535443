/* Every operation that takes an attn_parallel gives the bits of the calling thread alone: with 1 to 8 tasks, each in
 * a thread of its own, started in any order, or all in one thread in reverse, and with a workspace of exactly that
 * size. */
/* For pthread barriers, which C11 does not have. */
#define _GNU_SOURCE 1

#include "attention_problem.h"
#include "random_options.h"
#include "typed.h"

#include <pthread.h>

enum { MOST_TASKS = 64 };

/* ---- Pools ---- */

struct pool {
    struct test_random random;
    size_t runs, most_tasks;
};

struct call {
    void (*task)(void *arg, size_t index);
    void *arg;
    size_t index;
    pthread_barrier_t *start;
};

static void note_run(struct pool *pool, size_t count) {
    pool->runs++;
    pool->most_tasks = count > pool->most_tasks ? count : pool->most_tasks;
    if (count < 2 || count > MOST_TASKS)
        test_fail("run was called for %zu tasks", count);
}

static void *call_task(void *arg) {
    struct call *call = arg;
    pthread_barrier_wait(call->start);
    call->task(call->arg, call->index);
    return NULL;
}

/* A thread per task, all released at once; indices are dealt at random. */
static void run_in_threads(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count) {
    struct pool *pool = context;
    struct call call[MOST_TASKS];
    pthread_t thread[MOST_TASKS];
    pthread_barrier_t start;
    note_run(pool, count);
    assert_int_equal(0, pthread_barrier_init(&start, NULL, (unsigned)count));
    for (size_t i = 0; i < count; i++) {
        size_t j = random_below(&pool->random, i + 1);
        call[i] = (struct call){task, arg, i, &start};
        call[i].index = call[j].index;
        call[j].index = i;
    }
    for (size_t i = 0; i < count; i++)
        assert_int_equal(0, pthread_create(&thread[i], NULL, call_task, &call[i]));
    for (size_t i = 0; i < count; i++)
        assert_int_equal(0, pthread_join(thread[i], NULL));
    pthread_barrier_destroy(&start);
}

/* One task after the other, the last one first. */
static void run_in_reverse(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count) {
    note_run(context, count);
    while (count-- > 0)
        task(arg, count);
}

/* ---- The check ---- */

struct operation {
    void (*run)(const void *problem, const attn_parallel *parallel, float *out);
    const void *problem;
    size_t outputs;
    int small; /* too small to be cut */
};

static float *run_operation(const struct operation *op, const attn_parallel *parallel) {
    float *out = guarded_floats(op->outputs, FLUSH_END);
    op->run(op->problem, parallel, out);
    return out;
}

static void check_pool(struct test_random *random, const struct operation *op, const float *expected, size_t threads,
                       int reverse) {
    struct pool pool = {.random = *random};
    attn_parallel parallel = {.run = reverse ? run_in_reverse : run_in_threads, .context = &pool, .threads = threads};
    (void)random_bits(random);
    float *actual = run_operation(op, &parallel);
    assert_same_bits(expected, actual, op->outputs);
    guarded_free(actual);
    if (pool.most_tasks > threads)
        test_fail("%zu tasks for %zu threads", pool.most_tasks, threads);
    if (op->small || threads < 2 ? pool.runs != 0 : pool.runs == 0)
        test_fail("run was called %zu times for %zu threads", pool.runs, threads);
}

static void check_threads(struct test_random *random, const char *name, const struct operation *op,
                          const float *expected, size_t threads, int reverse) {
    test_case("%s, %zu threads, %s", name, threads, reverse ? "in reverse" : "in parallel");
    check_pool(random, op, expected, threads, reverse);
}

static void check(struct test_random *random, const char *name, const struct operation *op) {
    float *expected = run_operation(op, NULL);
    if (test_quick()) {
        check_threads(random, name, op, expected, 3, 0);
        check_threads(random, name, op, expected, 8, 1);
        guarded_free(expected);
        return;
    }
    for (size_t threads = 0; threads <= 8; threads++)
        for (int reverse = 0; reverse < 2; reverse++)
            check_threads(random, name, op, expected, threads, reverse);
    check_threads(random, name, op, expected, MOST_TASKS, 1);
    guarded_free(expected);
}

/* ---- GEMM ---- */

struct gemm_problem {
    attn_gemm *gemm;
    size_t m, k, n;
    const float *x;
};

static void run_gemm(const void *problem, const attn_parallel *parallel, float *out) {
    const struct gemm_problem *p = problem;
    assert_ok(gemm_rows(p->gemm, p->m, p->x, p->k, out, p->n, parallel, NULL));
}

static void test_gemm(void **state) {
    (void)state;
    static const size_t shapes[][3] = {{300, 65, 70}, {1, 700, 1030}, {5, 300, 517}, {17, 257, 129}, {3, 5, 7}};
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        size_t m = shapes[i][0], k = shapes[i][1], n = shapes[i][2], bytes = 0;
        float *w = guarded_floats(k * n, FLUSH_END), *bias = guarded_floats(n, FLUSH_END),
              *x = guarded_floats(m * k, FLUSH_END);
        attn_gemm_config config = {
            .isa = test_isa(), .k = k, .n = n, .w = {.weight = w, .in_stride = n, .out_stride = 1, .bias = bias}};
        struct gemm_problem p = {NULL, m, k, n, x};
        random_fill(&random, TEST_NORMAL, w, k * n);
        random_fill(&random, TEST_NORMAL, bias, n);
        random_fill(&random, TEST_NORMAL, x, m * k);
        assert_ok(attn_gemm_size(&config, &bytes, NULL));
        void *memory = poisoned_alloc(bytes, FLUSH_END);
        assert_ok(attn_gemm_create(&config, memory, bytes, &p.gemm, NULL));
        check(&random, "gemm", &(struct operation){run_gemm, &p, m * n, m * n * k < 1000});
        guarded_free(memory);
        guarded_free(w);
        guarded_free(bias);
        guarded_free(x);
    }
}

/* ---- Softmax and transposes ---- */

static void run_softmax(const void *problem, const attn_parallel *parallel, float *out) {
    attn_softmax_args args = *(const attn_softmax_args *)problem;
    args.y.data = out;
    args.parallel = parallel;
    assert_ok(attn_masked_softmax(&args, NULL));
}

static void test_softmax(void **state) {
    (void)state;
    static const size_t shapes[][3] = {{3, 130, 200}, {1, 200, 400}, {9, 2, 7}};
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        size_t batch = shapes[i][0], rows = shapes[i][1], cols = shapes[i][2], count = batch * rows * cols;
        float *x = guarded_floats(count, FLUSH_END);
        int64_t *lens = random_lens(&random, batch * rows, cols, FLUSH_END);
        random_fill(&random, TEST_NORMAL, x, count);
        attn_softmax_args args = {.isa = test_isa(), .batch = batch, .rows = rows, .cols = cols};
        args.x.data = x;
        args.x.batch_stride = args.y.batch_stride = rows * cols;
        args.x.row_stride = args.y.row_stride = cols;
        args.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_ROW, .lens.i64 = lens};
        args.empty = ATTN_EMPTY_MEAN;
        check(&random, "softmax", &(struct operation){run_softmax, &args, count, count < 1000});
        guarded_free(x);
        guarded_free(lens);
    }
}

static void run_split(const void *problem, const attn_parallel *parallel, float *out) {
    attn_transpose_args args = *(const attn_transpose_args *)problem;
    args.y.data = out;
    args.parallel = parallel;
    assert_ok(attn_transpose_qkv(&args, NULL));
}

static void run_merge(const void *problem, const attn_parallel *parallel, float *out) {
    attn_transpose_args args = *(const attn_transpose_args *)problem;
    args.y.data = out;
    args.parallel = parallel;
    assert_ok(attn_transpose_output(&args, NULL));
}

static void test_transposes(void **state) {
    (void)state;
    static const size_t shapes[][4] = {{3, 150, 12, 33}, {1, 700, 5, 64}, {1, 150, 16, 64}, {2, 5, 3, 7}};
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        attn_transpose_args args = {.isa = test_isa(), .batch = shapes[i][0], .len = shapes[i][1]};
        args.heads = shapes[i][2];
        args.head_size = shapes[i][3];
        size_t row = args.heads * args.head_size, count = args.batch * args.len * row;
        float *x = guarded_floats(count, FLUSH_END);
        random_fill(&random, TEST_NORMAL, x, count);
        args.x = (attn_tensor){x, ATTN_F32, args.len * row, 0, row, 1};
        check(&random, "transpose_qkv", &(struct operation){run_split, &args, count, count < 1000});
        args.x = (attn_tensor){.data = x};
        args.y = (attn_tensor_out){NULL, ATTN_F32, args.len * row, 0, row, 1};
        check(&random, "transpose_output", &(struct operation){run_merge, &args, count, count < 1000});
        guarded_free(x);
    }
}

/* ---- Attention ---- */

/* Output, weights and log-sum-exp, one after the other. */
static void run_attention(const void *problem, const attn_parallel *parallel, float *out) {
    attn_attention_args args = *(const attn_attention_args *)problem;
    args.parallel = parallel;
    struct attention_result r = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
    size_t o = tensor_count(&r.o), weights = r.rows * r.kv_len;
    memcpy(out, r.o.data, o * sizeof *out);
    memcpy(out + o, r.weights, weights * sizeof *out);
    memcpy(out + o + weights, r.log_sum_exp, r.rows * sizeof *out);
    attention_free(&r);
}

static size_t attention_outputs(const attn_attention_args *args, size_t kv_len) {
    size_t value_size = args->value_size ? args->value_size : args->head_size;
    return args->batch * args->heads * args->q_len * (value_size + kv_len + 1);
}

struct shape {
    size_t batch, heads, kv_heads, q_len, kv_len, head_size, value_size;
};

/* Many tiles; a tile per head; one head; one row; spans; many heads; too small. */
static const struct shape shapes[] = {{2, 4, 2, 90, 100, 20, 33}, {2, 6, 6, 9, 900, 17, 0},  {1, 1, 1, 240, 240, 33, 0},
                                      {3, 8, 2, 1, 1000, 33, 0},  {1, 2, 2, 3, 8200, 12, 0}, {2, 12, 12, 50, 70, 20, 0},
                                      {1, 2, 2, 5, 7, 8, 0}};
#define SHAPES (sizeof shapes / sizeof *shapes)

static attn_attention_args shape_args(const struct shape *s, size_t index) {
    attn_attention_args args = {.isa = test_isa(), .batch = s->batch, .heads = s->heads, .kv_heads = s->kv_heads};
    args.q_len = s->q_len;
    args.kv_len = s->kv_len;
    args.head_size = s->head_size;
    args.value_size = s->value_size;
    set_order(&args.options, (enum order)(index % 3));
    args.options.valid.kind = (attn_valid_kind)(index % 3);
    args.options.empty = (attn_empty_rows)(index % 2);
    args.options.dropout = index == 1 ? 0.25f : 0;
    return args;
}

static int is_small(const struct shape *s) {
    return s->kv_len < 10;
}

static void test_attention(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < SHAPES; i++) {
        const struct shape *s = &shapes[i];
        size_t value_size = s->value_size ? s->value_size : s->head_size;
        attn_attention_args args = shape_args(s, i);
        struct tensor q =
            tensor_random(&random, TEST_NORMAL, LAYOUT_BSHD, s->batch, s->heads, s->q_len, s->head_size, FLUSH_END);
        struct tensor k =
            tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, s->batch, s->kv_heads, s->kv_len, s->head_size, FLUSH_END);
        struct tensor v =
            tensor_random(&random, TEST_NORMAL, LAYOUT_GAPS, s->batch, s->kv_heads, s->kv_len, value_size, FLUSH_END);
        int64_t *lens = random_lens(&random, s->batch * s->q_len, s->kv_len, FLUSH_END);
        args.q = tensor_in(&q);
        args.k = tensor_in(&k);
        args.v = tensor_in(&v);
        args.options.valid = valid_lens(args.options.valid.kind, lens);
        check(&random, "attention",
              &(struct operation){run_attention, &args, attention_outputs(&args, s->kv_len), is_small(s)});
        guarded_free(lens);
        tensor_free(&q);
        tensor_free(&k);
        tensor_free(&v);
    }
}

/* Output, weights, scores and log-sum-exp. */
static void run_masked(const void *problem, const attn_parallel *parallel, float *out) {
    attn_attention_args args = *(const attn_attention_args *)problem;
    args.parallel = parallel;
    struct attention_result r = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
    size_t o = tensor_count(&r.o), weights = r.rows * r.kv_len;
    memcpy(out, r.o.data, o * sizeof *out);
    memcpy(out + o, r.weights, weights * sizeof *out);
    memcpy(out + o + weights, r.scores, weights * sizeof *out);
    memcpy(out + o + 2 * weights, r.log_sum_exp, r.rows * sizeof *out);
    attention_free(&r);
}

/* Many kinds of masks at once, sequences packed or not. */
static void test_masked_attention(void **state) {
    (void)state;
    static const int64_t q_cu[] = {0, 60, 60, 130}, kv_cu[] = {1, 91, 120, 180};
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < 3 * SHAPES; i++) {
        const struct shape *s = &shapes[i % SHAPES];
        attn_attention_args args = {.isa = test_isa(), .batch = s->batch, .heads = s->heads, .kv_heads = s->kv_heads};
        int packed = i / SHAPES == 1 && i % SHAPES == 0;
        args.q_len = s->q_len;
        args.kv_len = s->kv_len;
        args.head_size = s->head_size;
        args.value_size = s->value_size;
        args.options.score_stage = (attn_score_stage)(i % 3);
        if (packed) {
            args.batch = 3;
            args.q_cu = (attn_cu_lens){.cu.i64 = q_cu, .total = 130};
            args.kv_cu = (attn_cu_lens){.cu.i64 = kv_cu, .total = 200};
        }
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &args, random_kinds(&random, ~KIND(GROUPS)));
        size_t rows = args.batch * args.heads * args.q_len;
        size_t outputs = (packed ? args.heads * 130 : rows) * p.v.size + rows * (2 * args.kv_len + 1);
        check(&random, "masked attention", &(struct operation){run_masked, &p.args, outputs, is_small(s)});
        problem_free(&p);
    }
}

/* With a workspace of exactly the bytes that are asked for. */
static void run_in_exact_workspace(const attn_attention_args *args) {
    size_t bytes = 0;
    assert_ok(attn_attention_workspace(args, &bytes, NULL));
    void *workspace = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_attention(args, workspace, bytes, NULL));
    guarded_free(workspace);
}

/* Output alone, which the kernel for few keys computes: pieces of rows, of heads, of both, of sequences. */
static void run_output(const void *problem, const attn_parallel *parallel, float *out) {
    attn_attention_args args = *(const attn_attention_args *)problem;
    size_t head = args.q_len * args.head_size;
    args.parallel = parallel;
    args.o = (attn_tensor_out){out, ATTN_F32, args.heads * head, head, args.head_size, 1};
    run_in_exact_workspace(&args);
}

static void test_few_keys(void **state) {
    (void)state;
    static const struct shape few[] = {{1, 1, 1, 3000, 16, 20, 0}, {1, 12, 4, 100, 32, 33, 0},
                                       {2, 14, 7, 65, 31, 33, 0},  {40, 6, 6, 6, 29, 24, 0},
                                       {3, 5, 5, 70, 13, 60, 0},   {2, 3, 3, 4, 6, 20, 0}};
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sizeof few / sizeof *few; i++) {
        const struct shape *s = &few[i];
        attn_attention_args args = shape_args(s, i);
        struct tensor q =
            tensor_random(&random, TEST_NORMAL, LAYOUT_BSHD, s->batch, s->heads, s->q_len, s->head_size, FLUSH_END);
        struct tensor k =
            tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, s->batch, s->kv_heads, s->kv_len, s->head_size, FLUSH_END);
        int64_t *lens = random_lens(&random, s->batch * s->q_len, s->kv_len, FLUSH_END);
        args.q = tensor_in(&q);
        args.k = args.v = tensor_in(&k);
        args.options.valid = valid_lens(args.options.valid.kind, lens);
        args.options.empty = ATTN_EMPTY_ZERO;
        args.options.dropout = 0;
        size_t outputs = s->batch * s->heads * s->q_len * s->head_size;
        check(&random, "few keys", &(struct operation){run_output, &args, outputs, is_small(s)});
        guarded_free(lens);
        tensor_free(&q);
        tensor_free(&k);
    }
}

/* A workspace that is enough for some sizes is enough for smaller batches and lengths, whatever tasks they are cut
 * into. */
static void test_workspace_serves_smaller(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = sweep(40000, 4000); i > 0; i--) {
        attn_parallel parallel = {.run = run_in_reverse, .threads = random_between(&random, 1, 8)};
        attn_attention_args large = {.isa = test_isa(), .batch = random_between(&random, 1, 8)};
        large.kv_heads = random_between(&random, 1, 6);
        large.heads = large.kv_heads * random_between(&random, 1, 3);
        large.q_len = random_between(&random, 1, random_below(&random, 2) ? 20 : 200);
        large.kv_len = random_between(&random, 1, random_below(&random, 2) ? 40 : i % 16 ? 300 : 9000);
        large.head_size = random_between(&random, 1, 80);
        large.parallel = &parallel;
        attn_attention_args less = large;
        less.batch = random_between(&random, 1, large.batch);
        if (random_below(&random, 2)) {
            less.q_len = random_between(&random, 1, large.q_len);
            less.kv_len = random_between(&random, 1, large.kv_len);
        }
        size_t enough = 0, bytes = 0;
        assert_ok(attn_attention_workspace(&large, &enough, NULL));
        assert_ok(attn_attention_workspace(&less, &bytes, NULL));
        test_case("%zu threads, %zu of %zu heads of %zu: batch %zu, %zu x %zu, and %zu, %zu x %zu", parallel.threads,
                  large.kv_heads, large.heads, large.head_size, large.batch, large.q_len, large.kv_len, less.batch,
                  less.q_len, less.kv_len);
        if (bytes > enough)
            test_fail("%zu bytes, and %zu", enough, bytes);
    }
}

/* ---- Merge ---- */

static void run_merge_parts(const void *problem, const attn_parallel *parallel, float *out) {
    attn_merge_args args = *(const attn_merge_args *)problem;
    args.merged.data = out;
    args.merged_log_sum_exp.data = out + args.batch * args.heads * args.q_len * args.value_size;
    args.parallel = parallel;
    assert_ok(attn_merge(&args, NULL));
}

static void test_merge(void **state) {
    (void)state;
    enum { PARTS = 3, SIZE = 65, LEN = 70 };
    struct test_random random = test_random(__func__);
    for (size_t heads = 1; heads <= 9; heads += 8) {
        size_t rows = heads * LEN;
        struct tensor o[PARTS];
        attn_tensor in[PARTS];
        float *log_sum_exp = guarded_floats(rows, FLUSH_END);
        const attn_tensor lse = {.data = log_sum_exp}, log_sum_exps[PARTS] = {lse, lse, lse};
        random_fill(&random, TEST_NORMAL, log_sum_exp, rows);
        for (size_t part = 0; part < PARTS; part++) {
            o[part] = tensor_random(&random, TEST_NORMAL, LAYOUT_BSHD, 1, heads, LEN, SIZE, FLUSH_END);
            in[part] = tensor_in(&o[part]);
        }
        attn_merge_args args = {.isa = test_isa(), .parts = PARTS, .batch = 1, .heads = heads, .q_len = LEN};
        args.value_size = SIZE;
        args.o = in;
        args.log_sum_exp = log_sum_exps;
        args.merged = (attn_tensor_out){NULL, ATTN_F32, rows * SIZE, LEN * SIZE, SIZE, 1};
        check(&random, "merge", &(struct operation){run_merge_parts, &args, rows * (SIZE + 1), heads == 1});
        guarded_free(log_sum_exp);
        for (size_t part = 0; part < PARTS; part++)
            tensor_free(&o[part]);
    }
}

/* ---- Cache ---- */

struct cache_problem {
    attn_cache_config config;
    attn_attention_args args; /* q_len rows, causal, over what was appended */
    struct tensor k, v;
};

/* Appends in two pieces, then attends. */
static void run_cache(const void *problem, const attn_parallel *parallel, float *out) {
    const struct cache_problem *p = problem;
    attn_attention_args args = p->args;
    void *memory;
    attn_cache *cache = cache_create(&p->config, &memory, FLUSH_END);
    for (size_t begin = 0, piece; begin < p->k.len; begin += piece) {
        piece = begin == 0 ? p->k.len / 2 + 1 : p->k.len - begin;
        cache_append(cache, piece, tensor_from(&p->k, begin), tensor_from(&p->v, begin), parallel);
    }
    args.cache = cache;
    run_attention(&args, parallel, out);
    guarded_free(memory);
}

static void test_cache(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < SHAPES; i++) {
        const struct shape *s = &shapes[i];
        size_t value_size = s->value_size ? s->value_size : s->head_size;
        struct cache_problem p = {.config = {.isa = test_isa(), .batch = s->batch, .kv_heads = s->kv_heads}};
        p.config.head_size = s->head_size;
        p.config.value_size = s->value_size;
        p.config.capacity = s->kv_len;
        p.config.type = random_cache_type(&random);
        struct tensor q =
            tensor_random(&random, TEST_NORMAL, LAYOUT_BSHD, s->batch, s->heads, s->q_len, s->head_size, FLUSH_END);
        p.k =
            tensor_random(&random, TEST_NORMAL, LAYOUT_BSHD, s->batch, s->kv_heads, s->kv_len, s->head_size, FLUSH_END);
        p.v = tensor_random(&random, TEST_NORMAL, LAYOUT_GAPS, s->batch, s->kv_heads, s->kv_len, value_size, FLUSH_END);
        p.args = shape_args(s, i);
        p.args.kv_len = 0;
        p.args.q = tensor_in(&q);
        p.args.options.valid = (attn_valid_lens){0};
        p.args.options.causal = 1;
        check(&random, "cache", &(struct operation){run_cache, &p, attention_outputs(&p.args, s->kv_len), is_small(s)});
        tensor_free(&q);
        tensor_free(&p.k);
        tensor_free(&p.v);
    }
}

/* Decoding in which only keys can be shared out: one sequence, one kv head, a row or two, spans of keys. Output and
 * log-sum-exp alone, because with weights on request rows could be shared out. */
static void run_decode(const void *problem, const attn_parallel *parallel, float *out) {
    attn_attention_args args = *(const attn_attention_args *)problem;
    size_t rows = args.heads * args.q_len;
    args.parallel = parallel;
    args.o = (attn_tensor_out){out, ATTN_F32, 0, args.q_len * args.value_size, args.value_size, 1};
    args.options.log_sum_exp.data = out + rows * args.value_size;
    run_in_exact_workspace(&args);
}

/* Lengths at the borders of spans and within them, and masks that begin and end anywhere. */
static void test_decode_split_by_keys(void **state) {
    (void)state;
    static const size_t lengths[] = {8193, 3 * 4096, 5 * 4096 + 300};
    struct test_random random = test_random(__func__);
    enum { MOST = 5 * 4096 + 300, GROUP = 4, SIZE = 24, VALUES = 16 };
    attn_cache_config config = {.isa = test_isa(), .batch = 1, .kv_heads = 1, .head_size = SIZE, .value_size = VALUES};
    config.capacity = MOST;
    struct tensor k = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, MOST, SIZE, FLUSH_END);
    struct tensor v = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, MOST, VALUES, FLUSH_END);
    struct tensor q = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, GROUP, 2, SIZE, FLUSH_END);
    void *memory;
    attn_cache *cache = cache_create(&config, &memory, FLUSH_END);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        size_t held = attn_cache_length(cache, 0);
        int64_t start = (int64_t)(i * 4000);
        attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = GROUP, .kv_heads = 1, .q_len = 1 + i % 2};
        cache_append(cache, lengths[i] - held, tensor_from(&k, held), tensor_from(&v, held), NULL);
        args.head_size = SIZE;
        args.value_size = VALUES;
        args.q = tensor_in(&q);
        args.cache = cache;
        args.options.causal = 1;
        args.options.starts.i64 = i ? &start : NULL;
        args.options.soft_cap = i == 1 ? 20.0f : 0;
        check(&random, "decode", &(struct operation){run_decode, &args, GROUP * args.q_len * (VALUES + 1), 0});
    }
    guarded_free(memory);
    tensor_free(&q);
    tensor_free(&k);
    tensor_free(&v);
}

/* Several spans of keys, but too little work to share out: heads of one element. */
static void test_many_keys_little_work(void **state) {
    (void)state;
    enum { ROWS = 24, KEYS = 4200 };
    struct test_random random = test_random(__func__);
    struct tensor q = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, ROWS, 1, FLUSH_END);
    struct tensor k = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, KEYS, 1, FLUSH_END);
    attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 1, .q_len = ROWS, .kv_len = KEYS};
    args.head_size = args.value_size = 1;
    args.q = tensor_in(&q);
    args.k = args.v = tensor_in(&k);
    check(&random, "light", &(struct operation){run_decode, &args, ROWS * 2, 1});
    tensor_free(&q);
    tensor_free(&k);
}

/* Sequences of different lengths, in pages in any order, and with them the other options: these are cut into tasks
 * in another way. */
static void test_paged_cache(void **state) {
    (void)state;
    enum { PAGE = 32, PAGES = 160, SEQUENCES = 3, SIZE = 24 };
    static const int64_t lens[] = {4500, 33, 500};
    struct test_random random = test_random(__func__);
    attn_cache_config config = {.isa = test_isa(), .batch = SEQUENCES, .kv_heads = 2, .head_size = SIZE};
    config.capacity = (size_t)PAGE * 141;
    config.kind = ATTN_CACHE_PAGED;
    config.page_size = PAGE;
    config.pages = PAGES;
    struct tensor k = tensor_random(&random, TEST_NORMAL, LAYOUT_ONE_SEQUENCE, SEQUENCES, 2, 4500, SIZE, FLUSH_END);
    struct tensor q = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, SEQUENCES, 4, 3, SIZE, FLUSH_END);
    attn_cache_append_args append = {.len = 4500, .lens.i64 = lens, .k = tensor_in(&k), .v = tensor_in(&k)};
    int32_t pages[PAGES];
    void *memory;
    for (int32_t i = 0; i < PAGES; i++)
        pages[i] = i * 7 % PAGES;
    attn_cache *cache = cache_create(&config, &memory, FLUSH_END);
    assert_ok(attn_cache_set_pages(cache, 0, 0, 141, pages, NULL));
    assert_ok(attn_cache_set_pages(cache, 1, 0, 2, pages + 141, NULL));
    assert_ok(attn_cache_set_pages(cache, 2, 0, 17, pages + 143, NULL));
    assert_ok(attn_cache_append(cache, &append, NULL));
    attn_attention_args args = {.isa = test_isa(), .batch = SEQUENCES, .heads = 4, .kv_heads = 2, .q_len = 3};
    args.head_size = SIZE;
    args.q = tensor_in(&q);
    args.cache = cache;
    args.options.causal = 1;
    check(&random, "pages", &(struct operation){run_attention, &args, attention_outputs(&args, 4500), 0});
    guarded_free(memory);
    tensor_free(&q);
    tensor_free(&k);
}

/* A ring that has been given far more keys than it holds. */
static void test_ring(void **state) {
    (void)state;
    enum { CAPACITY = 1000, LEN = 9500, SIZE = 24 };
    struct test_random random = test_random(__func__);
    attn_cache_config config = {.isa = test_isa(), .batch = 1, .kv_heads = 2, .head_size = SIZE, .capacity = CAPACITY};
    struct tensor k = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 2, LEN, SIZE, FLUSH_END);
    struct tensor q = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 4, 12, SIZE, FLUSH_END);
    void *memory;
    config.kind = ATTN_CACHE_RING;
    attn_cache *cache = cache_create(&config, &memory, FLUSH_END);
    for (size_t begin = 0; begin < LEN; begin += CAPACITY / 2)
        cache_append(cache, CAPACITY / 2, tensor_from(&k, begin), tensor_from(&k, begin), NULL);
    attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 4, .kv_heads = 2, .q_len = 12};
    args.head_size = SIZE;
    args.q = tensor_in(&q);
    args.cache = cache;
    args.options.window_left = 900;
    check(&random, "ring", &(struct operation){run_attention, &args, attention_outputs(&args, LEN), 0});
    guarded_free(memory);
    tensor_free(&q);
    tensor_free(&k);
}

/* An append alone, large enough to be cut, and what one row per head then makes of the keys and values. */
struct append_problem {
    attn_cache_config config;
    struct tensor k, v;
    const attn_rotary *rotary;
};

static void run_append(const void *problem, const attn_parallel *parallel, float *out) {
    const struct append_problem *p = problem;
    attn_attention_args args = {
        .isa = p->config.isa, .batch = p->config.batch, .heads = p->config.kv_heads, .q_len = 1};
    void *memory;
    attn_cache *cache = cache_create(&p->config, &memory, FLUSH_END);
    attn_cache_append_args append = {.len = p->k.len, .k = tensor_in(&p->k), .v = tensor_in(&p->v)};
    append.rotary = p->rotary;
    append.parallel = parallel;
    assert_ok(attn_cache_append(cache, &append, NULL));
    args.head_size = p->config.head_size;
    args.q = tensor_in(&p->k); /* the first key of each head asks for itself */
    args.cache = cache;
    run_attention(&args, NULL, out);
    guarded_free(memory);
}

static void test_cache_append(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct append_problem p = {
        .config = {.isa = test_isa(), .batch = 4, .kv_heads = 5, .head_size = 33, .capacity = 60}};
    p.k = tensor_random(&random, TEST_NORMAL, LAYOUT_BSHD, 4, 5, 60, 33, FLUSH_END);
    p.v = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 4, 5, 60, 33, FLUSH_END);
    check(&random, "cache append", &(struct operation){run_append, &p, 4 * 5 * (33 + 60 + 1), 0});
    void *memory;
    p.rotary = draw_rotary(&random, 60, 33, &memory);
    for (size_t i = 0; i < CACHE_TYPES; i++) {
        p.config.type = cache_types[i];
        check(&random, "cache append, keys rotated", &(struct operation){run_append, &p, 4 * 5 * (33 + 60 + 1), 0});
    }
    guarded_free(memory);
    tensor_free(&p.k);
    tensor_free(&p.v);
}

/* ---- Layer ---- */

struct layer_problem {
    struct layer_weights weights;
    attn_layer *layer;
    attn_layer_args args;
};

static void copy_layer_result(struct layer_result *r, float *out) {
    size_t y = tensor_count(&r->y), weights = r->rows * r->kv_len;
    memcpy(out, r->y.data, y * sizeof *out);
    memcpy(out + y, r->weights, weights * sizeof *out);
    memcpy(out + y + weights, r->log_sum_exp, r->rows * sizeof *out);
    layer_result_free(r);
}

static void run_layer(const void *problem, const attn_parallel *parallel, float *out) {
    const struct layer_problem *p = problem;
    attn_layer_args args = p->args;
    args.parallel = parallel;
    struct layer_result r = layer_run(p->layer, &p->weights.config, &args, LAYOUT_BHSD, FLUSH_END);
    copy_layer_result(&r, out);
}

static void run_layer_with_cache(const void *problem, const attn_parallel *parallel, float *out) {
    const struct layer_problem *p = problem;
    attn_layer_args args = p->args;
    attn_cache_config config;
    void *memory;
    size_t bytes = 0;
    assert_ok(attn_layer_cache_config(p->layer, args.batch, args.kv_len, &config, NULL));
    attn_cache *cache = cache_create(&config, &memory, FLUSH_END);
    attn_layer_append_args append = {
        .len = args.kv_len, .k = args.k, .v = args.v, .cache = cache, .parallel = parallel};
    assert_ok(attn_layer_append_workspace(p->layer, &append, &bytes, NULL));
    void *workspace = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_layer_append(p->layer, &append, workspace, bytes, NULL));
    guarded_free(workspace);
    args.cache = cache;
    args.parallel = parallel;
    struct layer_result r = layer_run(p->layer, &p->weights.config, &args, LAYOUT_BHSD, FLUSH_END);
    copy_layer_result(&r, out);
    guarded_free(memory);
}

static void test_layer(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < 3; i++) {
        attn_layer_config config = {
            .isa = test_isa(), .query_width = 65, .key_width = 50, .value_width = 33, .heads = 6};
        config.kv_heads = i % 2 ? 2 : 0;
        config.hidden = 60;
        size_t batch = 2, q_len = i == 2 ? 3 : 90, kv_len = i == 2 ? 5 : 100;
        struct layer_problem p = {.weights = layer_weights_new(&random, &config, 15)};
        void *memory;
        p.layer = layer_create(&p.weights.config, &memory, FLUSH_END);
        struct tensor q = tensor_random(&random, TEST_NORMAL, LAYOUT_GAPS, batch, 1, q_len, 65, FLUSH_END);
        struct tensor k = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, batch, 1, kv_len, 50, FLUSH_END);
        struct tensor v = tensor_random(&random, TEST_NORMAL, LAYOUT_GAPS, batch, 1, kv_len, 33, FLUSH_END);
        int64_t *lens = random_lens(&random, batch, kv_len, FLUSH_END);
        p.args = (attn_layer_args){.batch = batch, .q_len = q_len, .kv_len = kv_len};
        p.args.q = tensor_rows(&q);
        p.args.k = tensor_rows(&k);
        p.args.v = tensor_rows(&v);
        p.args.options.valid = valid_lens(i ? ATTN_VALID_ALL : ATTN_VALID_PER_SEQUENCE, lens);
        size_t outputs = batch * q_len * (config.hidden + config.heads * (kv_len + 1));
        check(&random, "layer", &(struct operation){run_layer, &p, outputs, i == 2});
        check(&random, "layer with cache", &(struct operation){run_layer_with_cache, &p, outputs, i == 2});
        layer_weights_free(&p.weights);
        guarded_free(memory);
        guarded_free(lens);
        tensor_free(&q);
        tensor_free(&k);
        tensor_free(&v);
    }
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_transposes),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_masked_attention),
        cmocka_unit_test(test_few_keys),
        cmocka_unit_test(test_workspace_serves_smaller),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_decode_split_by_keys),
        cmocka_unit_test(test_many_keys_little_work),
        cmocka_unit_test(test_paged_cache),
        cmocka_unit_test(test_cache_append),
        cmocka_unit_test(test_ring),
        cmocka_unit_test(test_layer),
    };
    return test_run(tests);
}
