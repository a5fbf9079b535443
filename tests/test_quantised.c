/* Weights of INT8, without blocks and with, and of INT4, and of INT4 that is dequantised, class F32: packer and kernel
 * of one ISA against the reference, the reference against integers and doubles, and the public functions around
 * them. */
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bounds.h"
#include "dispatch.h"
#include "format.h"
#include "quantised.h"

/* The weights under test; main goes through them. */
static attn_type weight_type;
static bool has_blocks;
static bool dequantised; /* of INT4 */

static const struct attn_gemm_kernel *kernel_of(const struct attn_kernels *table) {
    const attn_linear linear = {.type = weight_type, .block = has_blocks ? 32 : 0, .dequantised = dequantised};
    return attn_gemm_for_linear(table, &linear, ATTN_ARITHMETIC_FASTEST);
}
static const struct attn_gemm_kernel *kernel(void) {
    return kernel_of(test_table());
}
static const struct attn_gemm_kernel *reference(void) {
    return kernel_of(&attn_kernels_scalar);
}

static void *new_bytes(size_t n) {
    void *x = calloc(n + 1, 1);
    assert_non_null(x);
    return x;
}

/* ---- Problems ---- */

/* y[m][n] = x[m][k] w + bias. Without blocks a column has one. */
struct problem {
    size_t m, n, k, blocks;
    struct attn_scaling scaling;
    float *x;              /* [m][k] */
    int8_t *w;             /* [n][k]; of INT4 0 to 15 */
    float *scales, *bias;  /* [n][blocks], [n] */
    uint16_t *halves;      /* the scales as F16, where they have that type */
    uint8_t *zero_points;  /* [n][blocks], or of INT4 [n][(blocks + 1) / 2]; or NULL */
    float *plain, *biased; /* the reference's answers, [m][n] */
};

static const void *scales_of(const struct problem *problem) {
    return problem->halves ? (const void *)problem->halves : problem->scales;
}
static size_t scale_bytes(const struct problem *problem) {
    return attn_type_size(problem->scaling.type);
}
static size_t zero_point_bytes(const struct problem *problem) {
    size_t bytes = weight_type == ATTN_INT4 ? (problem->blocks + 1) / 2 : problem->blocks;
    return problem->scaling.has_zero_point ? bytes : 0;
}

/* What is taken from element p of column j. */
static int zero_point(const struct problem *problem, size_t j, size_t p) {
    size_t b = p / problem->scaling.block;
    if (weight_type == ATTN_INT8)
        return problem->zero_points ? (int8_t)problem->zero_points[j * problem->blocks + b] : 0;
    return problem->zero_points ? problem->zero_points[j * zero_point_bytes(problem) + b / 2] >> b % 2 * 4 & 15 : 8;
}

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
    if (weight_type == ATTN_INT4)
        return (int8_t)(kind == KIND_EXTREME ? random_below(random, 8) ? 15 : 0 : random_below(random, 16));
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
                            size_t block, size_t x_stride, size_t gap) {
    struct rows rows = {0};
    assert_true(attn_quantised_bytes(k, block, &rows.stride));
    size_t bytes = rows.stride;
    rows.stride += gap * sizeof(float);
    rows.data = guarded_alloc(m ? (m - 1) * rows.stride + bytes : 0, sizeof(float), FLUSH_END);
    by->pack_a(&(struct attn_quantise_args){.m = m,
                                            .k = k,
                                            .block = block,
                                            .type = type,
                                            .x = x,
                                            .a = rows.data,
                                            .x_stride = x_stride,
                                            .a_stride = rows.stride});
    return rows;
}

/* The problem's first m rows. */
static struct rows quantise_problem(const struct attn_gemm_kernel *by, const struct problem *problem, size_t m,
                                    size_t gap) {
    if (dequantised) { /* they stay floats */
        struct rows rows = {.stride = (problem->k + gap) * sizeof(float)};
        size_t bytes = problem->k * sizeof(float);
        rows.data = guarded_alloc(m ? (m - 1) * rows.stride + bytes : 0, sizeof(float), FLUSH_END);
        for (size_t i = 0; i < m && bytes > 0; i++)
            memcpy(rows.data + i * rows.stride, problem->x + i * problem->k, bytes);
        return rows;
    }
    return quantise(by, problem->x, ATTN_F32, m, problem->k, problem->scaling.block, problem->k * sizeof(float), gap);
}

enum layout { LAYOUT_IN_OUT, LAYOUT_OUT_IN, LAYOUT_GENERAL, LAYOUT_COUNT };

/* Two to a byte, columns one after the other. */
static int8_t *laid_out_int4(const struct problem *problem, size_t n) {
    size_t bytes = problem->k / 2;
    int8_t *w = guarded_alloc(n * bytes, 1, FLUSH_END);
    for (size_t j = 0; j < n; j++)
        for (size_t p = 0; p < bytes; p++) {
            const int8_t *pair = problem->w + j * problem->k + 2 * p;
            w[j * bytes + p] = (int8_t)(pair[0] | pair[1] * 16);
        }
    return w;
}

/* The weights of the first n columns in the layout; strides in elements. INT4 has one layout. */
static int8_t *laid_out(const struct problem *problem, size_t n, enum layout layout, size_t *k_stride,
                        size_t *n_stride) {
    size_t step = layout == LAYOUT_GENERAL ? 3 : 1;
    if (weight_type == ATTN_INT4) {
        *k_stride = 1;
        *n_stride = problem->k;
        return laid_out_int4(problem, n);
    }
    *k_stride = layout == LAYOUT_OUT_IN ? 1 : n * step;
    *n_stride = layout == LAYOUT_OUT_IN ? problem->k : step;
    size_t bytes = n && problem->k ? (n - 1) * *n_stride + (problem->k - 1) * *k_stride + 1 : 0;
    int8_t *w = guarded_alloc(bytes, 1, FLUSH_END);
    for (size_t j = 0; j < n; j++)
        for (size_t p = 0; p < problem->k; p++)
            w[j * *n_stride + p * *k_stride] = problem->w[j * problem->k + p];
    return w;
}

/* A copy that ends before a guard page; NULL for none. */
static void *guarded_bytes(const void *x, size_t bytes, size_t alignment) {
    void *copy = x ? guarded_alloc(bytes, alignment, FLUSH_END) : NULL;
    if (bytes > 0 && x)
        memcpy(copy, x, bytes);
    return copy;
}

static struct attn_panels pack(const struct attn_gemm_kernel *by, const struct problem *problem, size_t n,
                               enum layout layout) {
    size_t k_stride, n_stride, bytes = 0, cols = by->b.cols;
    int8_t *w = laid_out(problem, n, layout, &k_stride, &n_stride);
    assert_true(attn_weight_panel_bytes(&by->b, &problem->scaling, problem->k, cols, &bytes));
    struct attn_panels panels = {.cols = cols, .stride = bytes};
    panels.data = guarded_alloc((n + cols - 1) / cols * bytes, ATTN_ALIGNMENT, FLUSH_END);
    void *scales = guarded_bytes(scales_of(problem), n * problem->blocks * scale_bytes(problem), scale_bytes(problem));
    void *zero_points = guarded_bytes(problem->zero_points, n * zero_point_bytes(problem), 1);
    by->pack(&(struct attn_pack_args){.k = problem->k,
                                      .n = n,
                                      .b = w,
                                      .k_stride = k_stride,
                                      .n_stride = weight_type == ATTN_INT4 ? n_stride / 2 : n_stride,
                                      .packed = panels,
                                      .scaling = problem->scaling,
                                      .scales = scales,
                                      .zero_points = zero_points});
    guarded_free(zero_points);
    guarded_free(scales);
    guarded_free(w);
    return panels;
}

static void run(const struct attn_gemm_kernel *by, const struct problem *problem, const struct rows *a,
                const struct attn_panels *b, size_t m, size_t n, const float *bias, float *c, size_t c_stride) {
    by->run(&(struct attn_gemm_args){.m = m,
                                     .n = n,
                                     .k = problem->k,
                                     .a = a->data,
                                     .a_stride = a->stride,
                                     .b = *b,
                                     .scaling = problem->scaling,
                                     .start = bias ? ATTN_START_BIAS : ATTN_START_ZERO,
                                     .factors = bias,
                                     .c = c,
                                     .c_stride = c_stride * sizeof *c});
}

static void answer(const struct problem *problem) {
    struct rows a = quantise_problem(reference(), problem, problem->m, 0);
    struct attn_panels b = pack(reference(), problem, problem->n, LAYOUT_OUT_IN);
    run(reference(), problem, &a, &b, problem->m, problem->n, NULL, problem->plain, problem->n);
    run(reference(), problem, &a, &b, problem->m, problem->n, problem->bias, problem->biased, problem->n);
    guarded_free(a.data);
    guarded_free(b.data);
}

static void fill_halves(const float *x, size_t n, attn_type type, uint16_t *half) {
    for (size_t i = 0; i < n; i++)
        attn_table_convert(&attn_kernels_scalar)->narrow(type, 1, x + i, half + i);
}

/* Of blocks one that divides k, either type of scales, with zero points or without. */
static void draw_scaling(struct test_random *random, struct problem *problem) {
    problem->scaling.block = ATTN_INT8_PART;
    problem->blocks = 1;
    if (!has_blocks)
        return;
    do
        problem->scaling.block = (size_t)32 << random_below(random, 3);
    while (problem->k % problem->scaling.block != 0);
    problem->scaling.type = random_below(random, 2) ? ATTN_F16 : ATTN_F32;
    problem->scaling.has_zero_point = random_below(random, 2);
    problem->blocks = problem->k / problem->scaling.block;
}

static void draw_scales(struct test_random *random, enum kind kind, struct problem *problem) {
    size_t count = problem->n * problem->blocks;
    bool wild = kind == KIND_WILD && problem->scaling.type == ATTN_F32;
    problem->scales = new_bytes(count * sizeof(float));
    for (size_t i = 0; i < count; i++)
        problem->scales[i] = wild ? random_float(random, TEST_NASTY) : random_uniform(random, -0.002f, 0.02f);
    if (problem->scaling.type == ATTN_F16) {
        problem->halves = new_bytes(count * sizeof(uint16_t));
        fill_halves(problem->scales, count, ATTN_F16, problem->halves);
        attn_table_convert(&attn_kernels_scalar)->widen(ATTN_F16, count, problem->halves, problem->scales);
    }
    if (problem->scaling.has_zero_point) {
        problem->zero_points = new_bytes(problem->n * zero_point_bytes(problem));
        for (size_t i = 0; i < problem->n * zero_point_bytes(problem); i++)
            problem->zero_points[i] =
                kind == KIND_EXTREME ? (weight_type == ATTN_INT4 ? 0 : 127) : (uint8_t)random_below(random, 256);
    }
}

/* Of blocks k is the next multiple of 32. */
static struct problem new_problem(struct test_random *random, enum kind kind, size_t m, size_t n, size_t k) {
    k = has_blocks ? (k + 31) / 32 * 32 : k;
    struct problem problem = {.m = m, .n = n, .k = k};
    draw_scaling(random, &problem);
    problem.x = new_bytes(m * k * sizeof(float));
    problem.w = new_bytes(n * k);
    problem.bias = new_bytes(n * sizeof(float));
    problem.plain = new_bytes(m * n * sizeof(float));
    problem.biased = new_bytes(m * n * sizeof(float));
    for (size_t i = 0; i < m * k; i++)
        problem.x[i] = random_element(random, kind, i / k);
    for (size_t i = 0; i < n * k; i++)
        problem.w[i] = random_weight(random, kind);
    for (size_t j = 0; j < n; j++)
        problem.bias[j] = kind == KIND_WILD ? random_float(random, TEST_WILD) : random_normal(random);
    draw_scales(random, kind, &problem);
    answer(&problem);
    return problem;
}

static void free_problem(struct problem *problem) {
    free(problem->x);
    free(problem->w);
    free(problem->scales);
    free(problem->halves);
    free(problem->zero_points);
    free(problem->bias);
    free(problem->plain);
    free(problem->biased);
}

/* ---- Rows ---- */

/* Every element as far as the next multiple of 4, scale and sums. */
static void check_rows(const struct rows *expected, const struct rows *actual, size_t m, size_t k, size_t block) {
    for (size_t i = 0; i < m; i++) {
        const char *e = expected->data + i * expected->stride, *a = actual->data + i * actual->stride;
        float scales[] = {attn_quantised_scale(e, k), attn_quantised_scale(a, k)};
        assert_same_bits(&scales[0], &scales[1], 1);
        if (memcmp(e, a, (k + 3) / 4 * 4) != 0)
            test_fail("elements of row %zu differ", i);
        for (size_t b = 0; b < attn_quantised_blocks(k, block); b++)
            assert_int_equal(attn_quantised_sum(e, k, b), attn_quantised_sum(a, k, b));
    }
}

static void quantises_rows(void **state) {
    (void)state;
    if (dequantised)
        return;
    struct test_random random = test_random(__func__);
    const attn_type types[] = {ATTN_F32, ATTN_BF16, ATTN_F16};
    for (size_t k = 0; k <= 150; k += k < 40 ? 1 : 11)
        for (enum kind kind = 0; kind < KIND_COUNT; kind++)
            for (size_t t = 0; t < 3; t++) {
                enum { M = 12 };
                size_t block = (size_t)32 << k % 3;
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
                struct rows expected = quantise(reference(), typed, types[t], M, k, block, (k + gap) * bytes, 0);
                struct rows actual = quantise(kernel(), typed, types[t], M, k, block, (k + gap) * bytes, gap);
                check_rows(&expected, &actual, M, k, block);
                guarded_free(expected.data);
                guarded_free(actual.data);
                guarded_free(typed);
                free(x);
            }
}

/* The reference is what quantised.h says. */
static void quantises_to_the_nearest(void **state) {
    (void)state;
    if (dequantised)
        return;
    struct test_random random = test_random(__func__);
    enum { K = 97 };
    for (int round = 0; round < 300; round++) {
        float x[K], largest = 0.0f, factor = ldexpf(1.0f, (int)random_between(&random, 0, 240) - 118);
        for (size_t p = 0; p < K; p++) {
            x[p] = random_uniform(&random, -1.0f, 1.0f) * factor;
            largest = fmaxf(largest, fabsf(x[p]));
        }
        struct rows row = quantise(reference(), x, ATTN_F32, 1, K, 128, sizeof x, 0);
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

/* An element that is infinite or NaN makes its row NaN; one that is tiny counts as 0. */
static void quantises_what_is_special(void **state) {
    (void)state;
    if (dequantised)
        return;
    enum { K = 21 };
    const float last[] = {INFINITY, -INFINITY, NAN, 0x1p-120f, 0x1p-149f, -0.0f};
    for (size_t i = 0; i < sizeof last / sizeof *last; i++) {
        float x[K] = {0}, zero = 0.0f;
        x[K - 1] = last[i];
        struct rows row = quantise(kernel(), x, ATTN_F32, 1, K, 128, sizeof x, 0);
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
    run(kernel(), problem, a, b, m, n, bias, c.data, c.stride);
    for (size_t i = 0; i < m; i++)
        assert_same_bits((with_bias ? problem->biased : problem->plain) + i * problem->n, c.data + i * c.stride, n);
    guarded_free(bias);
    test_matrix_free(&c);
}

static void check_corners(struct test_random *random, const struct problem *problem, size_t count) {
    for (size_t i = 0; i < count; i++) {
        size_t m = i ? random_below(random, problem->m + 1) : problem->m,
               n = i ? random_below(random, problem->n + 1) : problem->n;
        struct rows a = quantise_problem(kernel(), problem, m, i % 3);
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
    struct rows a = quantise_problem(kernel(), &problem, problem.m, 1);
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

/* Beyond ATTN_INT8_PART: the largest sums that there are, in the first two rows and columns, and in others such as
 * tell by their rounding where a part ends. */
static void equals_reference_on_long_chains(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const size_t ks[] = {ATTN_INT8_PART + 1, 2 * ATTN_INT8_PART + 7, ATTN_INT8_PART, ATTN_INT8_PART - 1, 65794};
    for (size_t i = 0; !has_blocks && i < (test_quick() ? 3 : sizeof ks / sizeof *ks); i++) {
        size_t k = ks[i];
        struct problem problem = new_problem(&random, KIND_NORMAL, 3, kernel()->b.cols + 2, k);
        for (size_t p = 0; p < k; p++) {
            problem.x[p] = 1.0f;
            problem.x[k + p] = -1.0f;
            problem.x[2 * k + p] = fabsf(problem.x[2 * k + p]);
            problem.w[p] = -128;
            problem.w[k + p] = 127;
        }
        for (size_t e = 2 * k; e < problem.n * k; e++)
            problem.w[e] = (int8_t)abs(problem.w[e] | 1);
        answer(&problem);
        check_corners(&random, &problem, 3);
        free_problem(&problem);
    }
}

/* Blocks are no parts of ATTN_INT8_PART, however many there are. */
static void equals_reference_on_many_blocks(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; has_blocks && i < 8; i++) {
        struct problem problem = new_problem(&random, KIND_NORMAL, 5, kernel()->b.cols + 2, ATTN_INT8_PART + 1);
        check_corners(&random, &problem, 3);
        free_problem(&problem);
    }
}

/* ---- Against integers and doubles ---- */

/* y is the sum over blocks of (integers * scale) * scale of the row + bias, but for the roundings that bounds.h
 * counts. */
static void is_the_integer_sum(void **state) {
    (void)state;
    if (dequantised)
        return;
    struct test_random random = test_random(__func__);
    const size_t ks[] = {1, 4, 100, 1023, ATTN_INT8_PART + 5};
    for (size_t s = 0; s < sizeof ks / sizeof *ks; s++) {
        struct problem problem = new_problem(&random, s % 2 ? KIND_EXTREME : KIND_NORMAL, 5, 7, ks[s]);
        size_t k = problem.k, block = problem.scaling.block;
        struct rows a = quantise_problem(reference(), &problem, problem.m, 0);
        test_case("k=%zu block=%zu", k, block);
        for (size_t i = 0; i < problem.m; i++)
            for (size_t j = 0; j < problem.n; j++) {
                const int8_t *q = (const int8_t *)(a.data + i * a.stride);
                double sum = 0, magnitude = 0, row = (double)attn_quantised_scale(q, k);
                for (size_t p = 0; p < k; p++) {
                    size_t b = has_blocks ? p / block : 0;
                    int w = problem.w[j * k + p] - zero_point(&problem, j, p);
                    double term = q[p] * w * (double)problem.scales[j * problem.blocks + b];
                    sum += term;
                    magnitude += fabs(term);
                }
                double bias = (double)problem.bias[j];
                assert_near(
                    sum * row + bias, (double)problem.biased[i * problem.n + j],
                    bound_product(attn_class_of_weights(weight_type, &problem.scaling), k, block, magnitude * row) +
                        bound_of(1) * fabs(bias));
            }
        guarded_free(a.data);
        free_problem(&problem);
    }
}

/* Of floats: y is the naive chain, and near the sum in double. */
static void is_the_chain_of_floats(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const size_t ks[] = {32, 96, 128, 512, 1056};
    for (size_t s = 0; dequantised && s < sizeof ks / sizeof *ks; s++) {
        struct problem problem = new_problem(&random, s % 2 ? KIND_EXTREME : KIND_NORMAL, 5, 7, ks[s]);
        size_t k = problem.k, block = problem.scaling.block;
        test_case("k=%zu block=%zu", k, block);
        for (size_t e = 0; e < problem.m * problem.n; e++) {
            size_t i = e / problem.n, j = e % problem.n;
            float chain = problem.bias[j];
            double sum = (double)chain, magnitude = fabs(sum);
            for (size_t p = 0; p < k; p++) {
                float integer = (float)(problem.w[j * k + p] - zero_point(&problem, j, p));
                float w = integer * problem.scales[j * problem.blocks + p / block];
                double term = (double)problem.x[i * k + p] * (double)w;
                chain = attn_fmaf(problem.x[i * k + p], w, chain);
                sum += term;
                magnitude += fabs(term);
            }
            assert_same_bits(&chain, &problem.biased[e], 1);
            assert_near(sum, (double)problem.biased[e], bound_product(ATTN_CLASS_F32, k, block, magnitude));
        }
        free_problem(&problem);
    }
}

/* Random floats [n][k] become the problem's weights, each the nearest integer that there is. *units is what each is off
 * by, in scales. */
static float *quantised_floats(struct test_random *random, struct problem *problem, double *units) {
    size_t k = problem->k, block = has_blocks ? problem->scaling.block : k;
    int lowest = weight_type == ATTN_INT4 ? 0 : -127, highest = weight_type == ATTN_INT4 ? 15 : 127;
    float *w = new_bytes(problem->n * k * sizeof *w);
    *units = 0;
    for (size_t i = 0; i < problem->n * k; i++)
        w[i] = random_normal(random);
    for (size_t j = 0; j < problem->n; j++)
        for (size_t p = 0; p < k; p++) {
            float scale = problem->scales[j * problem->blocks + p / block] = weight_type == ATTN_INT4 ? 0.5f : 0.04f;
            float x = rintf(w[j * k + p] / scale) + (float)zero_point(problem, j, p);
            x = fminf(fmaxf(x, (float)lowest), (float)highest);
            problem->w[j * k + p] = (int8_t)x;
            double stored = ((double)x - zero_point(problem, j, p)) * (double)scale;
            *units = fmax(*units, fabs(stored - (double)w[j * k + p]) / (double)scale);
        }
    if (problem->halves)
        fill_halves(problem->scales, problem->n * problem->blocks, ATTN_F16, problem->halves);
    return w;
}

/* Of the product of the floats themselves: each element of x is off by what bounds.h says, unless rows stay floats,
 * each weight by so many scales. */
static void check_floats(const struct problem *problem, const float *w, double units, size_t i, size_t j) {
    double sum = (double)problem->bias[j], magnitude = 0, largest = 0, weights = 0, rows = 0;
    for (size_t p = 0; p < problem->k; p++)
        largest = fmax(largest, fabs((double)problem->x[i * problem->k + p]));
    struct bound_stored stored = bound_of_stored(dequantised ? ATTN_F32 : ATTN_INT8, 1, largest);
    for (size_t p = 0; p < problem->k; p++) {
        double x = (double)problem->x[i * problem->k + p], y = (double)w[j * problem->k + p];
        double off = units * (double)problem->scales[j * problem->blocks], x_off = stored.part * fabs(x) + stored.most;
        sum += x * y;
        weights += fabs(x) * off;
        rows += x_off * (fabs(y) + off);
        magnitude += (fabs(x) + x_off) * (fabs(y) + off);
    }
    /* A dequantised weight is rounded once more. */
    enum attn_class arithmetic = dequantised ? ATTN_CLASS_F32 : attn_class_of_weights(weight_type, &problem->scaling);
    double bound = bound_product(arithmetic, problem->k, problem->scaling.block, magnitude) + bound_of(1) * magnitude;
    assert_near(sum, (double)problem->biased[i * problem->n + j],
                weights + rows + bound + bound_of((double)problem->k) * fabs((double)problem->bias[j]));
}

static void is_near_the_product_of_the_floats(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const size_t ks[] = {1, 32, 100, 512, 1023};
    for (size_t s = 0; s < sizeof ks / sizeof *ks; s++) {
        struct problem problem = new_problem(&random, KIND_NORMAL, 5, 7, ks[s]);
        double units;
        float *w = quantised_floats(&random, &problem, &units);
        answer(&problem);
        test_case("k=%zu block=%zu, weights off by %g scales", problem.k, problem.scaling.block, units);
        assert_true(has_blocks || units < 0.51);
        for (size_t e = 0; e < problem.m * problem.n; e++)
            check_floats(&problem, w, units, e / problem.n, e % problem.n);
        free(w);
        free_problem(&problem);
    }
}

/* ---- Public functions ---- */

/* The problem's weights, as they lie in the layout; *w is to be freed. */
static attn_linear linear_of(const struct problem *problem, enum layout layout, bool with_bias, int8_t **w) {
    attn_linear linear = {.bias = with_bias ? problem->bias : NULL,
                          .type = weight_type,
                          .scales = scales_of(problem),
                          .scale_type = problem->scaling.type,
                          .block = has_blocks ? problem->scaling.block : 0,
                          .zero_points = problem->zero_points,
                          .dequantised = dequantised};
    linear.weight = *w = laid_out(problem, problem->n, layout, &linear.in_stride, &linear.out_stride);
    return linear;
}

struct object {
    void *memory;
    attn_gemm *gemm;
};

static struct object create_of(size_t k, size_t n, const attn_linear *w) {
    struct object object = {0};
    size_t bytes = 0;
    attn_gemm_config config = {.isa = test_isa(), .k = k, .n = n, .w = *w};
    attn_error error = {0};
    assert_ok(attn_gemm_size(&config, &bytes, &error));
    object.memory = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_gemm_create(&config, object.memory, bytes, &object.gemm, &error));
    return object;
}

static struct object create(const struct problem *problem, enum layout layout, bool with_bias) {
    int8_t *w;
    attn_linear linear = linear_of(problem, layout, with_bias, &w);
    struct object object = create_of(problem->k, problem->n, &linear);
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

/* Rows that are not finite are NaN, dequantised not finite, and others have the bits that they have alone. */
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
            assert_int_equal(i == 3 || i == 20, dequantised ? !isfinite(one[j]) : isnan(one[j]));
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

/* ---- Layers ---- */

enum { WIDTH = 64, LAYER_HEADS = 4, LAYER_ROWS = 7 };

/* One of a layer's weights: quantised, or floats. */
struct layer_weight {
    struct problem problem;
    int8_t *w;
    float *floats;
    attn_linear linear;
};

static struct layer_weight new_layer_weight(struct test_random *random, bool quantised) {
    struct layer_weight weight = {.problem = new_problem(random, KIND_NORMAL, LAYER_ROWS, WIDTH, WIDTH)};
    if (quantised) {
        weight.linear = linear_of(&weight.problem, LAYOUT_IN_OUT, true, &weight.w);
        return weight;
    }
    weight.floats = new_bytes(WIDTH * WIDTH * sizeof(float));
    random_fill(random, TEST_UNIFORM, weight.floats, WIDTH * WIDTH);
    weight.linear = attn_linear_dense(weight.floats, ATTN_F32, WIDTH, weight.problem.bias);
    return weight;
}

static void free_layer_weight(struct layer_weight *weight) {
    guarded_free(weight->w);
    free(weight->floats);
    free_problem(&weight->problem);
}

static void multiply(const struct layer_weight *weight, const float *x, float *y) {
    struct object object = create_of(WIDTH, WIDTH, &weight->linear);
    struct problem rows = {.k = WIDTH, .n = WIDTH, .x = (float *)(uintptr_t)x};
    run_public(object.gemm, &rows, 0, LAYER_ROWS, 1, y);
    guarded_free(object.memory);
}

static void attend(const float *q, const float *k, const float *v, float *o) {
    attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = LAYER_HEADS, .q_len = LAYER_ROWS};
    attn_tensor rows = {.batch_stride = LAYER_ROWS * WIDTH, .head_stride = WIDTH / LAYER_HEADS, .row_stride = WIDTH};
    attn_error error = {0};
    size_t bytes = 0;
    args.kv_len = LAYER_ROWS;
    args.head_size = WIDTH / LAYER_HEADS;
    args.q = args.k = args.v = rows;
    args.q.data = q;
    args.k.data = k;
    args.v.data = v;
    args.o = (attn_tensor_out){
        .data = o, .batch_stride = rows.batch_stride, .head_stride = rows.head_stride, .row_stride = WIDTH};
    assert_ok(attn_attention_workspace(&args, &bytes, &error));
    void *workspace = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_attention(&args, workspace, bytes, &error));
    guarded_free(workspace);
}

/* w: of q, k, v and the output. */
static void forward(const struct layer_weight *w, const float *x, float *y) {
    attn_layer_config config = {.isa = test_isa(), .query_width = WIDTH, .key_width = WIDTH, .value_width = WIDTH};
    config.hidden = WIDTH;
    config.heads = LAYER_HEADS;
    config.w_q = w[0].linear;
    config.w_k = w[1].linear;
    config.w_v = w[2].linear;
    config.w_o = w[3].linear;
    attn_layer_args args = {.batch = 1, .q_len = LAYER_ROWS, .kv_len = LAYER_ROWS};
    args.q = args.k = args.v = (attn_tensor){.data = x, .batch_stride = LAYER_ROWS * WIDTH, .row_stride = WIDTH};
    args.y = (attn_tensor_out){.data = y, .batch_stride = LAYER_ROWS * WIDTH, .row_stride = WIDTH};
    attn_error error = {0};
    attn_layer *layer = NULL;
    size_t bytes = 0, work = 0;
    assert_ok(attn_layer_size(&config, &bytes, &error));
    void *memory = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_layer_create(&config, memory, bytes, &layer, &error));
    assert_ok(attn_layer_workspace(layer, &args, &work, &error));
    void *workspace = poisoned_alloc(work, FLUSH_END);
    assert_ok(attn_layer_forward(layer, &args, workspace, work, &error));
    guarded_free(workspace);
    guarded_free(memory);
}

/* Each of the four weights quantised or not: the bits of the products and of attention, one after the other. */
static void layers_are_their_parts(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { FLOATS = LAYER_ROWS * WIDTH };
    for (unsigned which = 1; which < 16; which++) {
        struct layer_weight w[4];
        float x[FLOATS], q[FLOATS], k[FLOATS], v[FLOATS], o[FLOATS], expected[FLOATS];
        float *y = guarded_floats(FLOATS, FLUSH_END);
        for (unsigned i = 0; i < 4; i++)
            w[i] = new_layer_weight(&random, which >> i & 1);
        random_fill(&random, TEST_NORMAL, x, FLOATS);
        test_case("layer, quantised weights %x", which);
        multiply(&w[0], x, q);
        multiply(&w[1], x, k);
        multiply(&w[2], x, v);
        attend(q, k, v, o);
        multiply(&w[3], o, expected);
        forward(w, x, y);
        assert_same_bits(expected, y, FLOATS);
        for (unsigned i = 0; i < 4; i++)
            free_layer_weight(&w[i]);
        guarded_free(y);
    }
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
        cmocka_unit_test(equals_reference_on_many_blocks),
        cmocka_unit_test(is_the_integer_sum),
        cmocka_unit_test(is_the_chain_of_floats),
        cmocka_unit_test(is_near_the_product_of_the_floats),
        cmocka_unit_test(public_functions_equal_reference),
        cmocka_unit_test(rows_do_not_meet),
        cmocka_unit_test(takes_every_type_of_rows),
        cmocka_unit_test(layers_are_their_parts),
    };
    int failed = 0;
    const attn_type types[] = {ATTN_INT8, ATTN_INT8, ATTN_INT4, ATTN_INT4};
    for (int i = 0; i < 4; i++) {
        weight_type = types[i];
        has_blocks = i > 0;
        dequantised = i == 3;
        failed += test_run(tests);
    }
    return failed;
}
