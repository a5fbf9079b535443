/* Weights of INT8: packer and kernel of one ISA against the reference, the reference against integers and doubles, and the
 * public functions around them. */
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch.h"
#include "format.h"
#include "quantised.h"

/* The class under test; main goes through them. */
static attn_type weight_type;

static enum attn_class class_of_run(void) {
    return attn_class_of(weight_type);
}
static const struct attn_gemm_kernel *kernel(void) {
    return attn_gemm_find(test_table(), class_of_run());
}
static const struct attn_gemm_kernel *reference(void) {
    return attn_gemm_find(&attn_kernels_scalar, class_of_run());
}

static void *new_bytes(size_t n) {
    void *x = calloc(n + 1, 1);
    assert_non_null(x);
    return x;
}

/* ---- Problems ---- */

/* y[m][n] = x[m][k] w + bias. */
struct problem {
    size_t m, n, k;
    float *x;              /* [m][k] */
    int8_t *w;             /* [n][k] */
    float *scales, *bias;  /* [n] */
    float *plain, *biased; /* the reference's answers, [m][n] */
};

/* What the elements of a problem are like. */
enum kind { KIND_NORMAL, KIND_EXTREME, KIND_WILD, KIND_COUNT };

/* Rows of extremes, of ordinary numbers, of zeros, of tiny, huge and infinite ones. */
static float random_element(struct test_random *random, enum kind kind, size_t row) {
    if (kind == KIND_EXTREME)
        return random_below(random, 2) ? 3.0f : -3.0f;
    if (kind == KIND_NORMAL)
        return random_normal(random);
    switch (row % 6) {
    case 0:
        return 0.0f;
    case 1:
        return random_normal(random) * 0x1p-122f;
    case 2:
        return random_normal(random) * 0x1p125f;
    case 3:
        return random_float(random, TEST_WILD);
    case 4:
        return random_float(random, TEST_NASTY);
    default:
        return random_below(random, 8) ? random_normal(random) : (float)random_between(random, 0, 7) * 0.5f;
    }
}

static int8_t random_weight(struct test_random *random, enum kind kind) {
    if (kind == KIND_EXTREME)
        return (int8_t)(random_below(random, 8) ? -128 : 127);
    return (int8_t)((int)random_below(random, 256) - 128);
}

/* Row i of A, as the kernel has quantised it. */
struct rows {
    char *data;
    size_t stride;
};

static struct rows quantise(const struct attn_gemm_kernel *by, const void *x, attn_type type, size_t m, size_t k,
                            size_t x_stride, size_t gap) {
    struct rows rows = {0};
    assert_true(attn_quantised_bytes(k, ATTN_INT8_PART, &rows.stride));
    size_t bytes = rows.stride;
    rows.stride += gap * sizeof(float);
    rows.data = guarded_alloc(m ? (m - 1) * rows.stride + bytes : 0, sizeof(float), FLUSH_END);
    by->pack_a(&(struct attn_quantise_args){.m = m,
                                            .k = k,
                                            .block = ATTN_INT8_PART,
                                            .type = type,
                                            .x = x,
                                            .a = rows.data,
                                            .x_stride = x_stride,
                                            .a_stride = rows.stride});
    return rows;
}

enum layout { LAYOUT_IN_OUT, LAYOUT_OUT_IN, LAYOUT_GENERAL, LAYOUT_COUNT };

/* The weights of the first n columns as they lie in the layout, and where. */
static int8_t *laid_out(const struct problem *problem, size_t n, enum layout layout, size_t *k_stride,
                        size_t *n_stride) {
    size_t step = layout == LAYOUT_GENERAL ? 3 : 1;
    *k_stride = layout == LAYOUT_OUT_IN ? 1 : n * step;
    *n_stride = layout == LAYOUT_OUT_IN ? problem->k : step;
    size_t bytes = n && problem->k ? (n - 1) * *n_stride + (problem->k - 1) * *k_stride + 1 : 0;
    int8_t *w = guarded_alloc(bytes, 1, FLUSH_END);
    for (size_t j = 0; j < n; j++)
        for (size_t p = 0; p < problem->k; p++)
            w[j * *n_stride + p * *k_stride] = problem->w[j * problem->k + p];
    return w;
}

static struct attn_panels pack(const struct attn_gemm_kernel *by, const struct problem *problem, size_t n,
                               enum layout layout) {
    size_t k_stride, n_stride, bytes = 0, cols = by->b.cols;
    int8_t *w = laid_out(problem, n, layout, &k_stride, &n_stride);
    assert_true(attn_panel_bytes(&by->b, problem->k, cols, &bytes));
    struct attn_panels panels = {.cols = cols, .stride = bytes};
    panels.data = guarded_alloc((n + cols - 1) / cols * bytes, ATTN_ALIGNMENT, FLUSH_END);
    float *scales = guarded_copy(problem->scales, n, FLUSH_END);
    by->pack(&(struct attn_pack_args){.k = problem->k,
                                      .n = n,
                                      .b = w,
                                      .k_stride = k_stride,
                                      .n_stride = n_stride,
                                      .packed = panels,
                                      .scales = scales});
    guarded_free(scales);
    guarded_free(w);
    return panels;
}

static void run(const struct attn_gemm_kernel *by, const struct rows *a, const struct attn_panels *b, size_t m,
                size_t n, size_t k, const float *bias, float *c, size_t c_stride) {
    by->run(&(struct attn_gemm_args){.m = m,
                                     .n = n,
                                     .k = k,
                                     .a = a->data,
                                     .a_stride = a->stride,
                                     .b = *b,
                                     .start = bias ? ATTN_START_BIAS : ATTN_START_ZERO,
                                     .factors = bias,
                                     .c = c,
                                     .c_stride = c_stride * sizeof *c});
}

static void answer(const struct problem *problem) {
    struct rows a = quantise(reference(), problem->x, ATTN_F32, problem->m, problem->k, problem->k * sizeof(float), 0);
    struct attn_panels b = pack(reference(), problem, problem->n, LAYOUT_OUT_IN);
    run(reference(), &a, &b, problem->m, problem->n, problem->k, NULL, problem->plain, problem->n);
    run(reference(), &a, &b, problem->m, problem->n, problem->k, problem->bias, problem->biased, problem->n);
    guarded_free(a.data);
    guarded_free(b.data);
}

static struct problem new_problem(struct test_random *random, enum kind kind, size_t m, size_t n, size_t k) {
    struct problem problem = {.m = m, .n = n, .k = k};
    problem.x = new_bytes(m * k * sizeof(float));
    problem.w = new_bytes(n * k);
    problem.scales = new_bytes(n * sizeof(float));
    problem.bias = new_bytes(n * sizeof(float));
    problem.plain = new_bytes(m * n * sizeof(float));
    problem.biased = new_bytes(m * n * sizeof(float));
    for (size_t i = 0; i < m * k; i++)
        problem.x[i] = random_element(random, kind, i / k);
    for (size_t i = 0; i < n * k; i++)
        problem.w[i] = random_weight(random, kind);
    for (size_t j = 0; j < n; j++) {
        problem.scales[j] = kind == KIND_WILD ? random_float(random, TEST_NASTY) : random_uniform(random, 0.0f, 0.02f);
        problem.bias[j] = kind == KIND_WILD ? random_float(random, TEST_WILD) : random_normal(random);
    }
    answer(&problem);
    return problem;
}

static void free_problem(struct problem *problem) {
    free(problem->x);
    free(problem->w);
    free(problem->scales);
    free(problem->bias);
    free(problem->plain);
    free(problem->biased);
}

/* ---- Rows ---- */

/* Every element as far as the next multiple of 4, scale and sums. */
static void check_rows(const struct rows *expected, const struct rows *actual, size_t m, size_t k) {
    for (size_t i = 0; i < m; i++) {
        const char *e = expected->data + i * expected->stride, *a = actual->data + i * actual->stride;
        float scales[] = {attn_quantised_scale(e, k), attn_quantised_scale(a, k)};
        assert_same_bits(&scales[0], &scales[1], 1);
        if (memcmp(e, a, (k + 3) / 4 * 4) != 0)
            test_fail("elements of row %zu differ", i);
        for (size_t b = 0; b < attn_quantised_blocks(k, ATTN_INT8_PART); b++)
            assert_int_equal(attn_quantised_sum(e, k, b), attn_quantised_sum(a, k, b));
    }
}

static void fill_halves(const float *x, size_t n, attn_type type, uint16_t *half) {
    for (size_t i = 0; i < n; i++)
        attn_table_convert(&attn_kernels_scalar)->narrow(type, 1, x + i, half + i);
}

static void quantises_rows(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const attn_type types[] = {ATTN_F32, ATTN_BF16, ATTN_F16};
    for (size_t k = 0; k <= 150; k += k < 40 ? 1 : 11)
        for (enum kind kind = 0; kind < KIND_COUNT; kind++)
            for (size_t t = 0; t < 3; t++) {
                enum { M = 12 };
                size_t gap = k % 3, bytes = attn_type_size(types[t]), n = k ? (M - 1) * (k + gap) + k : 0;
                float *x = new_bytes(n * sizeof *x);
                for (size_t i = 0; i < n; i++)
                    x[i] = random_element(&random, kind, i / (k + gap));
                void *typed = guarded_alloc(n * bytes, bytes, k % 2 ? FLUSH_START : FLUSH_END);
                if (types[t] == ATTN_F32)
                    memcpy(typed, x, n * bytes);
                else
                    fill_halves(x, n, types[t], typed);
                test_case("quantise k=%zu kind=%d type=%d", k, (int)kind, (int)types[t]);
                struct rows expected = quantise(reference(), typed, types[t], M, k, (k + gap) * bytes, 0);
                struct rows actual = quantise(kernel(), typed, types[t], M, k, (k + gap) * bytes, gap);
                check_rows(&expected, &actual, M, k);
                guarded_free(expected.data);
                guarded_free(actual.data);
                guarded_free(typed);
                free(x);
            }
}

/* The reference is what quantised.h says. */
static void quantises_to_the_nearest(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { K = 97 };
    for (int round = 0; round < 300; round++) {
        float x[K], largest = 0.0f, factor = ldexpf(1.0f, (int)random_between(&random, 0, 240) - 118);
        for (size_t p = 0; p < K; p++) {
            x[p] = random_uniform(&random, -1.0f, 1.0f) * factor;
            largest = fmaxf(largest, fabsf(x[p]));
        }
        struct rows row = quantise(reference(), x, ATTN_F32, 1, K, sizeof x, 0);
        double scale = (double)attn_quantised_scale(row.data, K), sum = 0;
        test_case("largest %g", (double)largest);
        if (largest < ATTN_QUANTISE_LEAST) {
            assert_near(0.0, scale, 0.0);
            guarded_free(row.data);
            continue;
        }
        assert_near((double)largest / 127, scale, 0x1p-24 * scale);
        for (size_t p = 0; p < K; p++) {
            int8_t q = ((const int8_t *)row.data)[p];
            assert_near((double)x[p] * 127 / (double)largest, (double)q, 0.5 + 0x1p-15);
            sum += q;
        }
        assert_near(sum, (double)attn_quantised_sum(row.data, K, 0), 0.0);
        guarded_free(row.data);
    }
}

/* A number that is not finite makes its row NaN; one that is tiny counts as 0. */
static void quantises_what_is_special(void **state) {
    (void)state;
    enum { K = 21 };
    const float last[] = {INFINITY, -INFINITY, NAN, 0x1p-120f, 0x1p-149f, -0.0f};
    for (size_t i = 0; i < sizeof last / sizeof *last; i++) {
        float x[K] = {0}, zero = 0.0f;
        x[K - 1] = last[i];
        struct rows row = quantise(kernel(), x, ATTN_F32, 1, K, sizeof x, 0);
        float scale = attn_quantised_scale(row.data, K);
        test_case("an element of %g", (double)last[i]);
        assert_true(isfinite(last[i]) ? memcmp(&scale, &zero, sizeof scale) == 0 : isnan(scale));
        for (size_t p = 0; p < K; p++)
            assert_int_equal(0, row.data[p]);
        assert_int_equal(0, attn_quantised_sum(row.data, K, 0));
        guarded_free(row.data);
    }
}

/* ---- Products ---- */

/* The top left m x n, c between guard pages with a gap after each row. */
static void check_corner(const struct problem *problem, const struct rows *a, const struct attn_panels *b, size_t m,
                         size_t n, bool with_bias, size_t gap) {
    test_case("m=%zu n=%zu k=%zu bias=%d gap=%zu", m, n, problem->k, with_bias, gap);
    struct test_matrix c = test_matrix(m, n, n + gap, n % 2 ? FLUSH_START : FLUSH_END);
    float *bias = with_bias ? guarded_copy(problem->bias, n, FLUSH_END) : NULL;
    run(kernel(), a, b, m, n, problem->k, bias, c.data, c.stride);
    for (size_t i = 0; i < m; i++)
        assert_same_bits((with_bias ? problem->biased : problem->plain) + i * problem->n, c.data + i * c.stride, n);
    guarded_free(bias);
    test_matrix_free(&c);
}

static void check_corners(struct test_random *random, const struct problem *problem, size_t count) {
    for (size_t i = 0; i < count; i++) {
        size_t m = i ? random_below(random, problem->m + 1) : problem->m,
               n = i ? random_below(random, problem->n + 1) : problem->n;
        struct rows a = quantise(kernel(), problem->x, ATTN_F32, m, problem->k, problem->k * sizeof(float), i % 3);
        struct attn_panels b = pack(kernel(), problem, n, (enum layout)(i % LAYOUT_COUNT));
        check_corner(problem, &a, &b, m, n, i % 2, i % 5);
        guarded_free(a.data);
        guarded_free(b.data);
    }
}

static size_t max_m(void) {
    return 2 * kernel()->rows + 1;
}
static size_t max_n(void) {
    return 8 * 16 + 2 * kernel()->b.cols + 1; /* 1: the widest tile of few rows */
}

static void equals_reference_on_every_tail(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct problem problem = new_problem(&random, KIND_NORMAL, max_m(), max_n(), 13);
    struct rows a = quantise(kernel(), problem.x, ATTN_F32, problem.m, problem.k, problem.k * sizeof(float), 1);
    for (size_t n = 0; n <= problem.n; n += test_quick() ? random_between(&random, 1, 9) : 1) {
        struct attn_panels b = pack(kernel(), &problem, n, (enum layout)(n % LAYOUT_COUNT));
        for (size_t m = 0; m <= problem.m; m++)
            check_corner(&problem, &a, &b, m, n, (m + n) % 2, n % 4);
        guarded_free(b.data);
    }
    guarded_free(a.data);
    free_problem(&problem);
}

static void equals_reference_on_every_k(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t k = 0; k <= 1100; k += k < 70 ? 1 : 97)
        for (enum kind kind = 0; kind < KIND_COUNT; kind++) {
            struct problem problem = new_problem(&random, kind, max_m(), k < 70 ? max_n() : 70, k);
            check_corners(&random, &problem, test_quick() ? 2 : 12);
            free_problem(&problem);
        }
}

/* More rows than pass over a panel at once. */
static void equals_reference_on_many_rows(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct problem problem = new_problem(&random, KIND_NORMAL, 300, 50, 33);
    check_corners(&random, &problem, 6);
    free_problem(&problem);
}

/* Beyond ATTN_INT8_PART: the largest sums that there are. */
static void equals_reference_on_long_chains(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const size_t ks[] = {ATTN_INT8_PART - 1, ATTN_INT8_PART, ATTN_INT8_PART + 1, 65794, 2 * ATTN_INT8_PART + 7};
    for (size_t i = 0; i < (test_quick() ? 3 : sizeof ks / sizeof *ks); i++) {
        struct problem problem = new_problem(&random, KIND_NORMAL, 3, kernel()->b.cols + 1, ks[i]);
        for (size_t p = 0; p < ks[i]; p++) {
            problem.x[p] = 1.0f;
            problem.x[ks[i] + p] = -1.0f;
            problem.w[p] = -128;
            problem.w[ks[i] + p] = 127;
        }
        answer(&problem);
        check_corners(&random, &problem, 3);
        free_problem(&problem);
    }
}

/* ---- Against integers and doubles ---- */

/* y = sum * (scale of the row * scale of the column) + bias: three roundings of the product and one of the result, and one for
 * each further part. */
static void is_the_integer_sum(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const size_t ks[] = {1, 4, 100, 1023, ATTN_INT8_PART + 5};
    for (size_t s = 0; s < sizeof ks / sizeof *ks; s++) {
        size_t k = ks[s];
        struct problem problem = new_problem(&random, s % 2 ? KIND_EXTREME : KIND_NORMAL, 5, 7, k);
        struct rows a = quantise(reference(), problem.x, ATTN_F32, problem.m, k, k * sizeof(float), 0);
        test_case("k=%zu", k);
        for (size_t i = 0; i < problem.m; i++)
            for (size_t j = 0; j < problem.n; j++) {
                const int8_t *q = (const int8_t *)(a.data + i * a.stride);
                int64_t sum = 0, magnitude = 0;
                for (size_t p = 0; p < k; p++) {
                    int64_t product = (int64_t)q[p] * problem.w[j * k + p];
                    sum += product;
                    magnitude += product < 0 ? -product : product;
                }
                double scale = (double)attn_quantised_scale(q, k) * (double)problem.scales[j];
                double expected = (double)sum * scale + (double)problem.bias[j];
                double bound = 0x1p-24 * (5 * (double)magnitude * scale + fabs((double)problem.bias[j]));
                assert_near(expected, (double)problem.biased[i * problem.n + j], bound);
            }
        guarded_free(a.data);
        free_problem(&problem);
    }
}

/* ---- Public functions ---- */

struct object {
    void *memory;
    attn_gemm *gemm;
};

static struct object create(const struct problem *problem, enum layout layout, bool with_bias) {
    struct object object = {0};
    size_t k_stride, n_stride, bytes = 0;
    int8_t *w = laid_out(problem, problem->n, layout, &k_stride, &n_stride);
    attn_gemm_config config = {.isa = test_isa(), .k = problem->k, .n = problem->n};
    attn_error error = {0};
    config.w = (attn_linear){.weight = w,
                             .in_stride = k_stride,
                             .out_stride = n_stride,
                             .bias = with_bias ? problem->bias : NULL,
                             .type = ATTN_INT8,
                             .scales = problem->scales};
    assert_ok(attn_gemm_size(&config, &bytes, &error));
    object.memory = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_gemm_create(&config, object.memory, bytes, &object.gemm, &error));
    guarded_free(w);
    return object;
}

/* Tasks in descending order, in the calling thread. */
static void run_backwards(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count) {
    (void)context;
    while (count-- > 0)
        task(arg, count);
}

/* Rows first .. first + m - 1 of x, with a workspace of exactly the size that was asked for. */
static void run_public(const attn_gemm *gemm, const struct problem *problem, size_t first, size_t m, size_t threads,
                       float *y) {
    attn_parallel parallel = {.run = run_backwards, .threads = threads};
    attn_gemm_run_args args = {.m = m, .parallel = threads > 1 ? &parallel : NULL};
    attn_error error = {0};
    args.x = (attn_tensor){.data = problem->x + first * problem->k, .row_stride = problem->k};
    args.y = (attn_tensor_out){.data = y, .row_stride = problem->n};
    assert_ok(attn_gemm_workspace(gemm, &args, &args.workspace_bytes, &error));
    args.workspace = poisoned_alloc(args.workspace_bytes, FLUSH_END);
    assert_ok(attn_gemm_run(gemm, &args, &error));
    guarded_free(args.workspace);
}

static void public_functions_equal_reference(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const size_t sizes[][3] = {{1, 1, 1}, {3, 2, 5}, {37, 100, 66}, {150, 50, 70}, {1, 700, 400}, {64, 256, 512}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t threads = 1; threads <= 3; threads++) {
            struct problem problem =
                new_problem(&random, i % 2 ? KIND_NORMAL : KIND_WILD, sizes[i][0], sizes[i][1], sizes[i][2]);
            bool with_bias = (i + threads) % 2;
            const float *expected = with_bias ? problem.biased : problem.plain;
            struct object object = create(&problem, (enum layout)(threads - 1), with_bias);
            float *y = guarded_floats(problem.m * problem.n, FLUSH_END);
            test_case("public m=%zu n=%zu k=%zu threads=%zu", problem.m, problem.n, problem.k, threads);
            run_public(object.gemm, &problem, 0, problem.m, threads, y);
            assert_same_bits(expected, y, problem.m * problem.n);
            guarded_free(y);
            guarded_free(object.memory);
            free_problem(&problem);
        }
}

/* Rows that are not finite are NaN, and others have the bits that they have alone. */
static void rows_do_not_meet(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct problem problem = new_problem(&random, KIND_NORMAL, 31, 67, 100);
    problem.x[3 * problem.k + 5] = NAN;
    problem.x[20 * problem.k + 99] = -INFINITY;
    struct object object = create(&problem, LAYOUT_OUT_IN, true);
    float *all = guarded_floats(problem.m * problem.n, FLUSH_END), *one = guarded_floats(problem.n, FLUSH_END);
    run_public(object.gemm, &problem, 0, problem.m, 1, all);
    for (size_t i = 0; i < problem.m; i++) {
        test_case("row %zu", i);
        run_public(object.gemm, &problem, i, 1, 1, one);
        assert_same_bits(one, all + i * problem.n, problem.n);
        for (size_t j = 0; j < problem.n; j++)
            assert_int_equal(i == 3 || i == 20, isnan(one[j]));
    }
    guarded_free(all);
    guarded_free(one);
    guarded_free(object.memory);
    free_problem(&problem);
}

/* Types of rows: those that were widened outside, and narrowed afterwards. */
static void takes_every_type_of_rows(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const attn_type types[] = {ATTN_F32, ATTN_BF16, ATTN_F16};
    for (size_t t = 0; t < 9; t++) {
        attn_type x_type = types[t / 3], y_type = types[t % 3];
        struct problem problem = new_problem(&random, KIND_NORMAL, 9, 70, 50);
        size_t elements = problem.m * problem.k, results = problem.m * problem.n;
        uint16_t *half = new_bytes(elements * sizeof *half), *narrow = new_bytes(results * sizeof *narrow);
        if (x_type != ATTN_F32) {
            fill_halves(problem.x, elements, x_type, half);
            attn_table_convert(&attn_kernels_scalar)->widen(x_type, elements, half, problem.x);
            answer(&problem);
        }
        if (y_type != ATTN_F32)
            fill_halves(problem.plain, results, y_type, narrow);
        struct object object = create(&problem, LAYOUT_IN_OUT, false);
        size_t bytes = results * attn_type_size(y_type);
        void *y = guarded_alloc(bytes, sizeof(float), FLUSH_END);
        attn_gemm_run_args args = {.m = problem.m};
        attn_error error = {0};
        args.x = (attn_tensor){
            .data = x_type == ATTN_F32 ? (void *)problem.x : half, .type = x_type, .row_stride = problem.k};
        args.y = (attn_tensor_out){.data = y, .type = y_type, .row_stride = problem.n};
        assert_ok(attn_gemm_workspace(object.gemm, &args, &args.workspace_bytes, &error));
        args.workspace = poisoned_alloc(args.workspace_bytes, FLUSH_END);
        assert_ok(attn_gemm_run(object.gemm, &args, &error));
        test_case("types %d, %d", (int)x_type, (int)y_type);
        assert_memory_equal(y_type == ATTN_F32 ? (void *)problem.plain : narrow, y, bytes);
        guarded_free(args.workspace);
        guarded_free(y);
        guarded_free(object.memory);
        free(half);
        free(narrow);
        free_problem(&problem);
    }
}

/* ---- Bad input ---- */

#define BAD(expected, name, ...)                                                                                       \
    do {                                                                                                               \
        attn_gemm_config bad = config;                                                                                 \
        attn_error error = {0};                                                                                        \
        attn_gemm *gemm = NULL;                                                                                        \
        __VA_ARGS__;                                                                                                   \
        test_case("%s", #__VA_ARGS__);                                                                                 \
        assert_status(expected, attn_gemm_create(&bad, memory, sizeof memory, &gemm, &error));                         \
        assert_string_equal(name, error.field);                                                                        \
        assert_null(gemm);                                                                                             \
    } while (0)

static void refuses_bad_weights(void **state) {
    (void)state;
    static _Alignas(ATTN_ALIGNMENT) char memory[1 << 14];
    float floats[64 * 3] = {0}, scales[] = {1, 2, 3}, bad_scales[] = {1, 2, NAN}, infinite[] = {-INFINITY, 2, 3};
    uint8_t zero_points[3] = {0};
    attn_gemm_config config = {.isa = test_isa(), .k = 64, .n = 3};
    config.w = (attn_linear){.weight = floats, .in_stride = 1, .out_stride = 64, .type = ATTN_INT8, .scales = scales};
    BAD(ATTN_NULL_POINTER, "w.scales", bad.w.scales = NULL);
    BAD(ATTN_BAD_VALUE, "w.scales", bad.w.scales = bad_scales);
    BAD(ATTN_BAD_VALUE, "w.scales", bad.w.scales = infinite);
    BAD(ATTN_BAD_VALUE, "w.scales", bad.w.type = ATTN_F32);
    BAD(ATTN_BAD_VALUE, "w.scales", bad.w.type = ATTN_BF16);
    BAD(ATTN_BAD_VALUE, "w.scale_type", bad.w.scale_type = ATTN_F16);
    BAD(ATTN_BAD_VALUE, "w.block", bad.w.block = 32);
    BAD(ATTN_BAD_VALUE, "w.zero_points", bad.w.zero_points = zero_points);
    BAD(ATTN_BAD_VALUE, "w.type", bad.w.type = ATTN_BOOL);
    BAD(ATTN_BAD_VALUE, "w.type", bad.w.type = (attn_type)100);
    BAD(ATTN_NULL_POINTER, "w.weight", bad.w.weight = NULL);
    BAD(ATTN_BAD_STRIDE, "w.out_stride", bad.w.out_stride = 0);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantises_rows),
        cmocka_unit_test(quantises_to_the_nearest),
        cmocka_unit_test(quantises_what_is_special),
        cmocka_unit_test(equals_reference_on_every_tail),
        cmocka_unit_test(equals_reference_on_every_k),
        cmocka_unit_test(equals_reference_on_many_rows),
        cmocka_unit_test(equals_reference_on_long_chains),
        cmocka_unit_test(is_the_integer_sum),
        cmocka_unit_test(public_functions_equal_reference),
        cmocka_unit_test(rows_do_not_meet),
        cmocka_unit_test(takes_every_type_of_rows),
        cmocka_unit_test(refuses_bad_weights),
    };
    weight_type = ATTN_INT8;
    return test_run(tests);
}
