/* Every function of the library, on every path, takes at most 16 KiB of the stack of the thread that calls it, the
 * tasks that it runs there included; and leaves the control bits of the floating-point environment as it found them.
 * test_stack_attention.c has attention, caches and layers. */
#include "attention_problem.h"
#include "stack_maxima.h"
#include "typed.h"

#include <stdio.h>

/* ---- The measure ---- */

static void do_nothing(void *problem) {
    (void)problem;
}

static void take_5000_bytes(void *problem) {
    char room[5000];
    memset(room, 1, sizeof room);
    __asm__ volatile("" : : "r"(room) : "memory"); /* or the compiler removes the part that nobody reads */
    (void)problem;
}

static void the_measure_measures(void **state) {
    (void)state;
    assert_int_equal(0, stack_used(do_nothing, NULL));
    assert_in_range(stack_used(take_5000_bytes, NULL), 4900, 5200);
}

/* ---- GEMM ---- */

struct gemm_problem {
    attn_gemm_config config;
    struct room memory;
    attn_gemm *gemm;
    attn_gemm_run_args args;
    struct blob blob;
};

static void gemm_size(void *problem) {
    struct gemm_problem *p = problem;
    note(attn_gemm_size(&p->config, &p->memory.bytes, NULL));
}

static void gemm_create(void *problem) {
    struct gemm_problem *p = problem;
    note(attn_gemm_create(&p->config, p->memory.data, p->memory.bytes, &p->gemm, NULL));
}

static void gemm_run(void *problem) {
    struct gemm_problem *p = problem;
    note(attn_gemm_run(p->gemm, &p->args, NULL));
}

static void gemm_export_size(void *problem) {
    struct gemm_problem *p = problem;
    note(attn_gemm_export_size(p->gemm, ATTN_ISA_SCALAR, &p->blob.exported.bytes, NULL));
}

static void gemm_export(void *problem) {
    struct gemm_problem *p = problem;
    note(attn_gemm_export(p->gemm, ATTN_ISA_SCALAR, p->blob.exported.data, p->blob.exported.bytes, NULL));
}

static void gemm_import_size(void *problem) {
    struct gemm_problem *p = problem;
    note(attn_gemm_import_size(&p->blob.config, &p->blob.memory.bytes, NULL));
}

static void gemm_import(void *problem) {
    struct gemm_problem *p = problem;
    note(attn_gemm_import(&p->blob.config, p->blob.memory.data, p->blob.memory.bytes, &p->gemm, NULL));
}

/* The gemm is the imported one from then on. */
static void measure_gemm_blob(struct gemm_problem *p) {
    measure("gemm_export_size", gemm_export_size, p);
    room_take(&p->blob.exported);
    measure("gemm_export", gemm_export, p);
    blob_is_exported(&p->blob);
    measure("gemm_import_size", gemm_import_size, p);
    room_take(&p->blob.memory);
    measure("gemm_import", gemm_import, p);
}

static void measure_gemm(struct gemm_problem *p, size_t m) {
    test_case("m=%zu k=%zu n=%zu", m, p->config.k, p->config.n);
    p->args.m = m;
    measure_cut("gemm_run", gemm_run, p, &p->args.parallel);
}

/* For up to `most` rows, of all tasks. */
static void take_gemm_workspace(struct gemm_problem *p, size_t most) {
    p->args.m = most;
    p->args.parallel = &in_turn;
    assert_ok(attn_gemm_workspace(p->gemm, &p->args, &p->args.workspace_bytes, NULL));
    p->args.workspace = guarded_alloc(p->args.workspace_bytes, ATTN_ALIGNMENT, FLUSH_END);
}

/* Products of up to `most` rows, in steps of `every`; weights stored [in, out], stored [out, in], with gaps, and of
 * F16. */
static void measure_gemms(struct test_random *random, size_t k, size_t n, size_t most, size_t every) {
    struct gemm_problem p = {.config = {.isa = test_isa(), .k = k, .n = n}};
    float *w = guarded_floats(2 * k * n, FLUSH_END), *x = guarded_floats(most * k, FLUSH_END);
    const attn_linear linears[] = {{.weight = w, .in_stride = n, .out_stride = 1},
                                   {.weight = w, .in_stride = 1, .out_stride = k, .bias = w},
                                   {.weight = w, .in_stride = 2 * n, .out_stride = 2},
                                   {.weight = w, .in_stride = 1, .out_stride = k, .type = ATTN_F16}};
    random_fill(random, TEST_NORMAL, w, 2 * k * n);
    random_fill(random, TEST_WILD, x, most * k);
    p.config.w = linears[random_below(random, 4)];
    float *y = guarded_floats(most * n, FLUSH_END);
    p.args.x = (attn_tensor){.data = x, .row_stride = k};
    p.args.y = (attn_tensor_out){.data = y, .row_stride = n};
    test_case("k=%zu n=%zu", k, n);
    measure("gemm_size", gemm_size, &p);
    room_take(&p.memory);
    measure("gemm_create", gemm_create, &p);
    measure_gemm_blob(&p);
    take_gemm_workspace(&p, most);
    for (size_t m = 1; m <= most; m += every)
        measure_gemm(&p, m);
    guarded_free(p.args.workspace);
    blob_free(&p.blob);
    guarded_free(p.memory.data);
    guarded_free(w);
    guarded_free(x);
    guarded_free(y);
}

/* Weights of bytes, or of half a byte: any bits will do. Rows are quantised in a workspace, of all tasks. */
static void measure_quantised_gemms(struct test_random *random, attn_type type, size_t block, bool dequantised,
                                    size_t k, size_t n, size_t most) {
    struct gemm_problem p = {.config = {.isa = test_isa(), .k = k, .n = n}};
    float *w = guarded_floats(k * n / sizeof *w, FLUSH_END), *x = guarded_floats(most * k, FLUSH_END);
    float *scales = guarded_floats(k * n / 32, FLUSH_END), *y = guarded_floats(most * n, FLUSH_END);
    random_fill(random, TEST_NORMAL, scales, k * n / 32);
    random_fill(random, TEST_WILD, x, most * k);
    p.config.w = (attn_linear){.weight = w, .in_stride = 1, .out_stride = k, .type = type, .scales = scales};
    p.config.w.block = block;
    p.config.w.dequantised = dequantised;
    p.args.x = (attn_tensor){.data = x, .row_stride = k};
    p.args.y = (attn_tensor_out){.data = y, .row_stride = n};
    test_case("k=%zu n=%zu, weights of type %d", k, n, (int)type);
    measure("gemm_size", gemm_size, &p);
    room_take(&p.memory);
    measure("gemm_create", gemm_create, &p);
    measure_gemm_blob(&p);
    take_gemm_workspace(&p, most);
    for (size_t m = 1; m <= most; m++)
        measure_gemm(&p, m);
    guarded_free(p.args.workspace);
    blob_free(&p.blob);
    guarded_free(p.memory.data);
    guarded_free(w);
    guarded_free(x);
    guarded_free(y);
    guarded_free(scales);
}

static void gemm(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const size_t sizes[][2] = {{1, 1}, {5, 7}, {64, 16}, {65, 17}, {130, 33}, {257, 100}, {300, 130}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t times = sweep(2, 1); times > 0; times--)
            measure_gemms(&random, sizes[i][0], sizes[i][1], 40, sweep(1, 5));
    measure_gemms(&random, 1024, 520, 40, sweep(13, 30)); /* rows that alias */
    measure_gemms(&random, 33, 200, 300, 130);
    for (size_t n = 1; n < 200; n += 66)
        for (int t = 0; t < 4; t++)
            measure_quantised_gemms(&random, t < 2 ? ATTN_INT8 : ATTN_INT4, t ? 32 : 0, t == 3, 64, 4 * n, 40);
    measure_quantised_gemms(&random, ATTN_INT8, 0, false, ATTN_INT8_PART + 64, 36, 3);
}

/* ---- Softmax and transposes ---- */

/* Memory full of floats serves as memory of any other type. */

static void softmax_run(void *problem) {
    note(attn_masked_softmax(problem, NULL));
}

static void softmax(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(100, 30); i++) {
        size_t rows = random_between(&random, 1, 40), cols = i % 4 ? i + 1 : random_between(&random, 1000, 3000);
        attn_softmax_args args = {.isa = test_isa(), .batch = 2, .rows = rows, .cols = cols};
        float *x = guarded_floats(2 * rows * cols, FLUSH_END);
        args.valid.kind = (attn_valid_kind)random_below(&random, 3);
        int64_t *lens = random_lens(&random, lens_count(args.valid.kind, 2, rows), cols, FLUSH_END);
        random_fill(&random, i % 3 ? TEST_NORMAL : TEST_WILD, x, 2 * rows * cols);
        args.x.data = args.y.data = x;
        args.x.type = args.y.type = random_type(&random);
        args.x.batch_stride = args.y.batch_stride = rows * cols;
        args.x.row_stride = args.y.row_stride = cols;
        args.valid.lens.i64 = args.valid.kind == ATTN_VALID_ALL ? NULL : lens;
        args.empty = (attn_empty_rows)random_below(&random, 2);
        test_case("rows=%zu cols=%zu type=%d", rows, cols, (int)args.x.type);
        measure_cut("masked_softmax", softmax_run, &args, &args.parallel);
        guarded_free(x);
        guarded_free(lens);
    }
}

static void split_run(void *problem) {
    note(attn_transpose_qkv(problem, NULL));
}

static void merge_heads_run(void *problem) {
    note(attn_transpose_output(problem, NULL));
}

static void transposes(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < 20; i++) {
        attn_transpose_args args = {.isa = test_isa(), .batch = 2, .len = random_between(&random, 1, 150)};
        args.heads = random_between(&random, 1, 12);
        args.head_size = random_between(&random, 1, 80);
        if (i == 0) { /* enough for tasks */
            args.len = 150;
            args.heads = 12;
            args.head_size = 77;
        }
        size_t row = args.heads * args.head_size, count = args.batch * args.len * row;
        float *x = guarded_floats(count, FLUSH_END);
        random_fill(&random, TEST_NORMAL, x, count);
        float *y = guarded_floats(count, FLUSH_END);
        attn_type from = random_type(&random), to = random_type(&random);
        const attn_tensor rows = {x, from, args.len * row, 0, row, 1};
        args.x = rows;
        args.y = (attn_tensor_out){.data = y, .type = to};
        test_case("len=%zu heads=%zu head_size=%zu from=%d to=%d", args.len, args.heads, args.head_size, (int)from,
                  (int)to);
        measure_cut("transpose_qkv", split_run, &args, &args.parallel);
        args.x = (attn_tensor){.data = x, .type = from};
        args.y = (attn_tensor_out){y, to, args.len * row, 0, row, 1};
        measure_cut("transpose_output", merge_heads_run, &args, &args.parallel);
        guarded_free(x);
        guarded_free(y);
    }
}

/* ---- Merging parts ---- */

static void merge_run(void *problem) {
    note(attn_merge(problem, NULL));
}

static void merge(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(30, 8); i++) {
        size_t heads = i ? random_between(&random, 1, 9) : 1000, len = random_between(&random, 30, 40);
        size_t rows = heads * len;
        struct tensor o = tensor_random(&random, i % 2 ? TEST_NORMAL : TEST_WILD, LAYOUT_BSHD, 1, heads, len, i + 1, 0);
        struct tensor merged = tensor_new(LAYOUT_BSHD, 1, heads, len, i + 1, FLUSH_END);
        float *log_sum_exp = guarded_floats(rows, FLUSH_END), *merged_log_sum_exp = guarded_floats(rows, FLUSH_END);
        random_fill(&random, TEST_NORMAL, log_sum_exp, rows);
        attn_tensor parts[] = {tensor_in(&o), tensor_in(&o), tensor_in(&o)};
        parts[0].type = random_type(&random);
        parts[1].type = random_type(&random);
        const attn_tensor log_sum_exps[] = {{.data = log_sum_exp}, {.data = log_sum_exp}, {.data = log_sum_exp}};
        attn_merge_args args = {.isa = test_isa(), .parts = 3, .batch = 1, .heads = heads, .q_len = len};
        args.value_size = i + 1;
        args.o = parts;
        args.log_sum_exp = log_sum_exps;
        args.merged = tensor_out(&merged);
        args.merged.type = random_type(&random);
        args.merged_log_sum_exp.data = random_below(&random, 2) ? merged_log_sum_exp : NULL;
        test_case("heads=%zu len=%zu size=%zu", heads, len, i + 1);
        measure_cut("merge", merge_run, &args, &args.parallel);
        tensor_free(&o);
        tensor_free(&merged);
        guarded_free(log_sum_exp);
        guarded_free(merged_log_sum_exp);
    }
}

/* ---- The rest ---- */

static void ask(void *problem) {
    attn_isa isa;
    (void)problem;
    for (int i = -1; i <= ATTN_ISA_COUNT; i++) {
        (void)attn_isa_name((attn_isa)i);
        (void)attn_isa_built((attn_isa)i);
        (void)attn_isa_supported((attn_isa)i);
        (void)attn_status_string((attn_status)i);
    }
    note(attn_isa_from_name("scalar", &isa));
    (void)attn_isa_chosen();
    (void)attn_version();
}

static void questions(void **state) {
    (void)state;
    measure("instruction sets, texts", ask, NULL);
}

int main(int argc, char **argv) {
    static const char *const options[] = {"skip", NULL};
    test_init(argc, argv, options);
    if (reason_to_skip()) {
        printf("SKIP %s: %s\n", test_group(), reason_to_skip());
        return TEST_EXIT_SKIP;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_measure_measures), cmocka_unit_test(gemm),  cmocka_unit_test(softmax),
        cmocka_unit_test(transposes),           cmocka_unit_test(merge), cmocka_unit_test(questions),
        cmocka_unit_test(print_maxima),
    };
    return test_run(tests);
}
