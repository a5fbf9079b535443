/* Products of classes BF16 and BF16_TILE: packers and kernels of one ISA against the class' reference, and the
 * references against doubles. */
#include "flags.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bf16_model.h"
#include "bounds.h"
#include "dispatch.h"
#include "format.h"

enum { STARTS = ATTN_START_SCALE + 1 };

static const char *const start_names[] = {"zero", "bias", "c", "scaled c"};

/* The kernel under test; main goes through the ISA's list. */
static const struct attn_gemm_kernel *kernel;

static const struct attn_gemm_kernel *reference(void) {
    return attn_gemm_find(&attn_kernels_scalar, kernel->arithmetic);
}

/* ---- Numbers ---- */

enum values {
    VALUES_NORMAL,
    VALUES_TINY,     /* products and sums around 2^-126 */
    VALUES_EDGE,     /* sums of 2^-126 and a product of a few units of 2^-152 */
    VALUES_DENORMAL, /* every other number */
    VALUES_ANY,      /* any bits: infinities and NaN too */
    VALUES
};

static const char *const values_names[] = {"normal", "tiny", "edge", "denormal", "any"};

static uint32_t sign_of(struct test_random *random) {
    return (uint32_t)random_below(random, 2) << 31;
}

/* Of a BF16 number or of a float, with an exponent of `low` to `high`. */
static uint32_t number(struct test_random *random, int low, int high, uint32_t fraction_mask) {
    uint32_t exponent = (uint32_t)(low + 127) + (uint32_t)random_below(random, (size_t)(high - low + 1));
    return sign_of(random) | exponent << 23 | ((uint32_t)random_bits(random) & fraction_mask);
}

enum { FRACTION = 0x7fffff, FRACTION_BF16 = 0x7f0000, FRACTION_SHORT = 0x600000 };

/* An element of a or b. */
static uint16_t element(struct test_random *random, enum values values) {
    switch (values) {
    case VALUES_NORMAL:
        return (uint16_t)(number(random, -6, 5, FRACTION_BF16) >> 16);
    case VALUES_TINY:
        return (uint16_t)(number(random, -72, -57, FRACTION_BF16) >> 16);
    case VALUES_EDGE:
        return (uint16_t)(number(random, -76, -74, FRACTION_SHORT) >> 16);
    case VALUES_DENORMAL:
        return (uint16_t)(random_below(random, 2) ? (sign_of(random) >> 16 | random_below(random, 0x80))
                                                  : number(random, -1, 60, FRACTION_BF16) >> 16);
    default:
        return (uint16_t)random_bits(random);
    }
}

/* What a chain starts from. */
static float start_number(struct test_random *random, enum values values) {
    switch (values) {
    case VALUES_NORMAL:
        return model_float(number(random, -6, 5, FRACTION));
    case VALUES_TINY:
        return model_float(number(random, -126, -118, FRACTION));
    case VALUES_EDGE:
        return model_float(number(random, -126, -126, 3));
    case VALUES_DENORMAL:
        return model_float(random_below(random, 2) ? number(random, -127, -127, FRACTION)
                                                   : number(random, -126, -100, FRACTION));
    default:
        return model_float((uint32_t)random_bits(random));
    }
}

/* A factor of c: small where the product with c is to be tiny. */
static float factor(struct test_random *random, enum values values) {
    switch (values) {
    case VALUES_NORMAL:
    case VALUES_TINY:
    case VALUES_EDGE:
        return model_float(number(random, -3, 0, random_below(random, 2) ? 0 : FRACTION));
    default:
        return start_number(random, values);
    }
}

static void *new_array(size_t count, size_t size) {
    void *x = malloc((count + 1) * size);
    assert_non_null(x);
    return x;
}

/* ---- Problems ---- */

/* Dense matrices: [m][k], [rows][n], of which the product takes rows row .. row + k - 1. */
struct problem {
    size_t m, n, k, rows, row;
    uint16_t *a, *b;
    float *bias, *scale, *c; /* [n], [m], [m][n] */
};

static struct problem new_problem(struct test_random *random, enum values values, size_t m, size_t n, size_t k,
                                  size_t row, size_t more) {
    struct problem p = {.m = m, .n = n, .k = k, .rows = row + k + more, .row = row};
    p.a = new_array(m * k, sizeof *p.a);
    p.b = new_array(p.rows * n, sizeof *p.b);
    p.bias = new_array(n, sizeof *p.bias);
    p.scale = new_array(m, sizeof *p.scale);
    p.c = new_array(m * n, sizeof *p.c);
    for (size_t i = 0; i < m * k; i++)
        p.a[i] = element(random, values);
    for (size_t i = 0; i < p.rows * n; i++)
        p.b[i] = element(random, values);
    for (size_t j = 0; j < n; j++)
        p.bias[j] = start_number(random, values);
    for (size_t i = 0; i < m; i++)
        p.scale[i] = factor(random, values);
    for (size_t i = 0; i < m * n; i++)
        p.c[i] = start_number(random, values);
    return p;
}

static void free_problem(struct problem *p) {
    free(p->a);
    free(p->b);
    free(p->bias);
    free(p->scale);
    free(p->c);
}

static const float *factors_of(const struct problem *p, enum attn_start start) {
    return start == ATTN_START_BIAS ? p->bias : start == ATTN_START_SCALE ? p->scale : NULL;
}

/* What the reference gives, [m][n]; the caller frees it. */
static float *expected(const struct problem *p, enum attn_start start) {
    size_t stride = (p->rows + 1) / 2 * 2 * sizeof *p->b;
    float *a = new_array(p->m * p->k, sizeof *a), *c = new_array(p->m * p->n, sizeof *c);
    struct attn_panels panels = {new_array(p->n, stride), 1, stride};
    for (size_t i = 0; i < p->m * p->k; i++)
        a[i] = model_widened(p->a[i]);
    memcpy(c, p->c, p->m * p->n * sizeof *c);
    reference()->pack(&(struct attn_pack_args){.k = p->rows,
                                               .n = p->n,
                                               .b = p->b,
                                               .k_stride = p->n * sizeof *p->b,
                                               .n_stride = sizeof *p->b,
                                               .packed = panels});
    reference()->run(&(struct attn_gemm_args){.m = p->m,
                                              .n = p->n,
                                              .k = p->k,
                                              .a = a,
                                              .a_stride = p->k * sizeof *a,
                                              .b = panels,
                                              .row = p->row,
                                              .start = start,
                                              .factors = factors_of(p, start),
                                              .c = c,
                                              .c_stride = p->n * sizeof *c});
    free(a);
    free(panels.data);
    return c;
}

/* ---- Packing ---- */

/* How b lies in memory before it is packed. */
enum layout { LAYOUT_N_UNIT, LAYOUT_K_UNIT, LAYOUT_GENERAL, LAYOUTS };

static const char *const layout_names[] = {"n_stride=1", "k_stride=1", "general strides"};

static struct attn_panels new_panels(size_t rows, size_t n, bool narrow, size_t gap, enum flush flush) {
    struct attn_panels panels = {.cols = narrow && kernel->b.cols > ATTN_LANES ? ATTN_LANES : kernel->b.cols};
    size_t bytes = 0, count = (n + panels.cols - 1) / panels.cols;
    assert_true(attn_panel_bytes(&kernel->b, rows, panels.cols, &bytes));
    panels.stride = bytes + gap * sizeof(float);
    panels.data = guarded_alloc(count ? (count - 1) * panels.stride + bytes : 0, ATTN_ALIGNMENT, flush);
    return panels;
}

/* Rows row .. row + k - 1 and columns column .. column + n - 1 of the problem's b, from guarded memory in that
 * layout, which may begin at any multiple of 2. */
static void pack_piece(struct test_random *random, const struct problem *p, const struct attn_panels *panels,
                       size_t row, size_t k, size_t column, size_t n, enum layout layout) {
    size_t gap = random_below(random, 4), step = layout == LAYOUT_GENERAL ? 3 : 1;
    bool by_column = layout == LAYOUT_K_UNIT;
    size_t outer = by_column ? n : k, inner = by_column ? k : n, stride = inner * step + gap;
    size_t count = outer && inner ? (outer - 1) * stride + (inner - 1) * step + 1 : 0;
    uint16_t *b = guarded_alloc(count * sizeof *b, sizeof *b, random_below(random, 2) ? FLUSH_END : FLUSH_START);
    size_t k_stride = by_column ? 1 : stride, n_stride = by_column ? stride : step;
    for (size_t q = 0; q < k; q++)
        for (size_t j = 0; j < n; j++)
            b[q * k_stride + j * n_stride] = p->b[(row + q) * p->n + column + j];
    kernel->pack(&(struct attn_pack_args){.k = k,
                                          .n = n,
                                          .b = b,
                                          .k_stride = k_stride * sizeof *b,
                                          .n_stride = n_stride * sizeof *b,
                                          .packed = *panels,
                                          .row = row,
                                          .column = column});
    guarded_free(b);
}

static struct attn_panels pack(struct test_random *random, const struct problem *p, enum layout layout, bool narrow) {
    struct attn_panels panels = new_panels(p->rows, p->n, narrow, random_below(random, 2) * random_below(random, 20),
                                           random_below(random, 2) ? FLUSH_END : FLUSH_START);
    pack_piece(random, p, &panels, 0, p->rows, 0, p->n, layout);
    return panels;
}

/* ---- Running ---- */

/* Rows of a as the kernel takes them, `stride` elements from one to the next. */
static void *new_a(const struct problem *p, size_t stride, enum flush flush) {
    size_t size = kernel->a == ATTN_BF16 ? sizeof(uint16_t) : sizeof(float);
    size_t count = p->m && p->k ? (p->m - 1) * stride + p->k : 0;
    char *a = guarded_alloc(count * size, size, flush);
    for (size_t i = 0; i < p->m; i++)
        for (size_t q = 0; q < p->k; q++) {
            float x = model_widened(p->a[i * p->k + q]);
            const void *from = kernel->a == ATTN_BF16 ? (const void *)&p->a[i * p->k + q] : &x;
            memcpy(a + (i * stride + q) * size, from, size);
        }
    return a;
}

/* Whether the run under test ends the process where it raises an exception that README lets programs trap. A kernel
 * that puts the control bits back puts back the flags too, which would tell of nothing. */
static bool traps;

static void run(const struct attn_gemm_args *args) {
#ifdef __SSE__
    const unsigned before = __builtin_ia32_stmxcsr(), masks = WATCHED_FLAGS << 7;
    if (traps)
        __builtin_ia32_ldmxcsr(before & ~masks & ~(unsigned)FE_ALL_EXCEPT);
    kernel->run(args);
    if (traps)
        __builtin_ia32_ldmxcsr(before);
#else
    kernel->run(args);
#endif
}

/* The same product with C of BF16, where the kernel writes that: its results rounded once. */
static void check_narrow_run(const struct problem *p, const struct attn_gemm_args *wide, const float *wanted,
                             enum flush flush) {
    enum { GAP = 3, UNTOUCHED = 0x5a5a };
    size_t stride = p->n + GAP, count = p->m && p->n ? (p->m - 1) * stride + p->n : 0;
    struct attn_gemm_args args = *wide;
    if (kernel->c != ATTN_BF16 || p->k > kernel->c_most || args.start > ATTN_START_BIAS)
        return;
    uint16_t *c = guarded_alloc(count * sizeof *c, sizeof *c, flush);
    for (size_t e = 0; e < count; e++)
        c[e] = UNTOUCHED;
    args.c = c;
    args.c_stride = stride * sizeof *c;
    args.c_type = ATTN_BF16;
    run(&args);
    for (size_t e = 0; e < count; e++) {
        size_t i = e / stride, j = e % stride;
        float expected_here = j < p->n ? model_rounded_bf16(wanted[i * p->n + j]) : 0, actual = model_widened(c[e]);
        if (j < p->n)
            assert_same_bits(&expected_here, &actual, 1);
        else
            assert_int_equal(UNTOUCHED, c[e]);
    }
    guarded_free(c);
}

/* Memory for what the kernel widens, in half of the products from row 0 on. */
static void *new_widened(struct test_random *random, const struct problem *p) {
    size_t bytes = p->row == 0 ? attn_gemm_widened_bytes(kernel, p->m, p->k) : 0;
    return bytes > 0 && random_below(random, 2) ? guarded_alloc(bytes, ATTN_ALIGNMENT, FLUSH_END) : NULL;
}

static void check_run(struct test_random *random, const struct problem *p, const struct attn_panels *panels,
                      enum attn_start start) {
    size_t gap = random_below(random, 2) * random_below(random, 6), a_stride = p->k + random_below(random, 4);
    enum flush flush = random_below(random, 2) ? FLUSH_END : FLUSH_START;
    size_t a_size = kernel->a == ATTN_BF16 ? sizeof(uint16_t) : sizeof(float);
    void *a = new_a(p, a_stride, flush);
    size_t factor_count = start == ATTN_START_BIAS ? p->n : start == ATTN_START_SCALE ? p->m : 0;
    float *factors = factor_count ? guarded_copy(factors_of(p, start), factor_count, flush) : NULL;
    struct test_matrix c = test_matrix(p->m, p->n, p->n + gap, flush);
    for (size_t i = 0; i < p->m && start >= ATTN_START_C; i++)
        memcpy(c.data + i * c.stride, p->c + i * p->n, p->n * sizeof *p->c);
    struct attn_gemm_args args = {.m = p->m,
                                  .n = p->n,
                                  .k = p->k,
                                  .a = a,
                                  .a_stride = a_stride * a_size,
                                  .b = *panels,
                                  .row = p->row,
                                  .start = start,
                                  .factors = factors,
                                  .c = c.data,
                                  .c_stride = c.stride * sizeof *c.data};
    void *widened = new_widened(random, p);
    args.widened = widened;
    run(&args);
    float *wanted = expected(p, start);
    for (size_t i = 0; i < p->m; i++)
        assert_same_bits(wanted + i * p->n, c.data + i * c.stride, p->n);
    check_narrow_run(p, &args, wanted, flush);
    guarded_free(widened);
    test_matrix_free(&c);
    free(wanted);
    guarded_free(a);
    guarded_free(factors);
}

static void check_problem(struct test_random *random, const struct problem *p, enum values values,
                          enum attn_start start) {
    enum layout layout = (enum layout)random_below(random, LAYOUTS);
    bool narrow = random_below(random, 2);
    test_case("%s: m=%zu n=%zu k=%zu, rows from %zu of %zu, %s numbers, start=%s, %s, narrow=%d", kernel->name, p->m,
              p->n, p->k, p->row, p->rows, values_names[values], start_names[start], layout_names[layout], narrow);
    struct attn_panels panels = pack(random, p, layout, narrow);
    check_run(random, p, &panels, start);
    guarded_free(panels.data);
}

/* ---- What is tested ---- */

static void describes_itself(void **state) {
    (void)state;
    assert_true(attn_class_is_bf16(kernel->arithmetic));
    assert_int_equal(ATTN_BF16, kernel->b.type);
    assert_true(kernel->c == ATTN_F32 || kernel->c == ATTN_BF16);
    assert_true(kernel->a == ATTN_F32 || kernel->a == ATTN_BF16);
    assert_in_range(kernel->rows, 1, ATTN_MAX_ROWS);
    assert_int_equal(0, ATTN_MAX_COLS % kernel->b.cols);
    /* What the softmax stores is what the product takes. */
    assert_int_equal(kernel->a, attn_bf16_for(test_table(), kernel)->type);
}

/* An element of a, and one of b, of row `row` of packed b: +0 where the product lacks it. */
static float model_step(const struct problem *p, size_t i, size_t j, size_t row, float acc) {
    bool inside = row >= p->row && row < p->row + p->k;
    return model_fma(inside ? model_widened(p->a[i * p->k + row - p->row]) : 0.0f,
                     inside ? model_widened(p->b[row * p->n + j]) : 0.0f, acc);
}

/* One chain over pairs in doubles. */
static float chain_of_pairs(const struct problem *p, size_t i, size_t j, float acc) {
    for (size_t row = p->row / 2 * 2; row < p->row + p->k; row += 2)
        acc = model_step(p, i, j, row, model_step(p, i, j, row + 1, acc));
    return acc;
}

/* 32 rows in two chains, and so on. */
static float chains_of_tiles(const struct problem *p, size_t i, size_t j, float acc) {
    for (size_t first = p->row / 32 * 32; first < p->row + p->k; first += 32) {
        float sum[2] = {0.0f, 0.0f};
        for (size_t row = first; row < first + 32; row++)
            sum[row % 2] = model_step(p, i, j, row, sum[row % 2]);
        acc = model_add(acc, model_add(sum[0], sum[1]));
    }
    return acc;
}

static float chain(const struct problem *p, enum attn_start start, size_t i, size_t j) {
    float c = p->c[i * p->n + j];
    float acc = start == ATTN_START_BIAS    ? p->bias[j]
                : start == ATTN_START_C     ? c
                : start == ATTN_START_SCALE ? model_mul(c, p->scale[i])
                                            : 0.0f;
    if (p->k == 0)
        return acc;
    return kernel->arithmetic == ATTN_CLASS_BF16 ? chain_of_pairs(p, i, j, acc) : chains_of_tiles(p, i, j, acc);
}

static void is_the_chain_in_doubles(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < (test_quick() ? 200 : 2000); i++) {
        enum values values = (enum values)(i % VALUES);
        enum attn_start start = (enum attn_start)(i / VALUES % STARTS);
        struct problem p = new_problem(&random, values, random_between(&random, 1, 5), random_between(&random, 1, 40),
                                       random_below(&random, 70), random_below(&random, 4), random_below(&random, 3));
        test_case("m=%zu n=%zu k=%zu, rows from %zu, %s numbers, start=%s", p.m, p.n, p.k, p.row, values_names[values],
                  start_names[start]);
        float *wanted = expected(&p, start);
        for (size_t e = 0; e < p.m * p.n; e++) {
            float y = chain(&p, start, e / p.n, e % p.n);
            assert_same_bits(&y, wanted + e, 1);
        }
        free(wanted);
        free_problem(&p);
    }
}

/* The mathematical element, and the sum of the magnitudes. */
static double exact(const struct problem *p, size_t i, size_t j, double start, double *magnitude) {
    double sum = start;
    *magnitude = fabs(start);
    for (size_t q = 0; q < p->k; q++) {
        double term = (double)model_widened(p->a[i * p->k + q]) * (double)model_widened(p->b[(p->row + q) * p->n + j]);
        sum += term;
        *magnitude += fabs(term);
    }
    return sum;
}

/* Ordinary numbers, and such as make results that are flushed: each step then loses less than FLT_MIN. */
static void is_near_double(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    double worst = 0;
    for (size_t i = 0; i < (test_quick() ? 50 : 400); i++) {
        bool tiny = i % 4 == 3;
        struct problem p = new_problem(&random, tiny ? VALUES_TINY : VALUES_NORMAL, random_between(&random, 1, 5),
                                       random_between(&random, 1, 40), random_below(&random, 700), 0, 0);
        float *y = expected(&p, ATTN_START_BIAS);
        test_case("m=%zu n=%zu k=%zu, %s numbers", p.m, p.n, p.k, tiny ? "tiny" : "normal");
        for (size_t e = 0; e < p.m * p.n; e++) {
            double magnitude, sum = exact(&p, e / p.n, e % p.n, (double)p.bias[e % p.n], &magnitude);
            double bound = bound_product(kernel->arithmetic, p.k, 0, magnitude);
            bound += tiny ? ((double)p.k + 1) * (double)FLT_MIN : 0;
            assert_near(sum, (double)y[e], bound);
            worst = fmax(worst, bound > 0 ? fabs(sum - (double)y[e]) / bound : 0);
        }
        free(y);
        free_problem(&p);
    }
    print_message("  %s: largest error %.2g of the bound\n", kernel->name, worst);
}

static void equals_reference_on_every_tail(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    size_t most_m = 2 * kernel->rows + 2, most_n = 2 * ATTN_MAX_COLS + 2, step = test_quick() ? 7 : 1;
    for (size_t m = 0; m <= most_m; m += random_between(&random, 1, step))
        for (size_t n = 0; n <= most_n; n += random_between(&random, 1, step)) {
            enum values values = (enum values)random_below(&random, VALUES);
            struct problem p = new_problem(&random, values, m, n, random_below(&random, 12), random_below(&random, 3),
                                           random_below(&random, 3));
            check_problem(&random, &p, values, (enum attn_start)random_below(&random, STARTS));
            free_problem(&p);
        }
}

/* Chains of every length, from even and odd rows on, also rows that lie within those that class BF16_TILE adds up
 * together. */
static void equals_reference_on_every_k(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const size_t rows[] = {0, 1, 2, 31, 46}, count = kernel->arithmetic == ATTN_CLASS_BF16_TILE ? 5 : 3;
    for (size_t k = 0; k <= 70; k++)
        for (size_t r = 0; r < count; r++)
            for (size_t start = 0; start < STARTS; start++)
                for (size_t v = 0; v < VALUES; v++) {
                    size_t row = rows[r];
                    struct problem p =
                        new_problem(&random, (enum values)v, random_between(&random, 1, kernel->rows + 1),
                                    random_between(&random, 1, 40), k, row, random_below(&random, 3));
                    if (!test_quick() || (k + row + start + v) % 7 == 0)
                        check_problem(&random, &p, (enum values)v, (enum attn_start)start);
                    free_problem(&p);
                }
}

/* More rows than pass over a panel together, and chains that are taken in several passes. */
static void equals_reference_on_large_sizes(void **state) {
    (void)state;
    static const size_t sizes[][4] = {{130, 33, 64, 0}, {300, 16, 40, 1},  {3, 40, 2048, 0},
                                      {3, 40, 2049, 1}, {3, 40, 2048, 1},  {17, 70, 4100, 1},
                                      {1, 600, 300, 0}, {13, 40, 1027, 0}, {40, 100, 2080, 1}};
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < (test_quick() ? 3 : 4 * sizeof sizes / sizeof *sizes); i++) {
        const size_t *s = sizes[i % (sizeof sizes / sizeof *sizes)];
        enum values values = (enum values)(i % VALUES_ANY);
        struct problem p = new_problem(&random, values, s[0], s[1], s[2], s[3], i % 2);
        check_problem(&random, &p, values, (enum attn_start)(i % STARTS));
        free_problem(&p);
    }
}

/* Keys are columns and values rows, appended one at a time or some at a time, where a panel has others already. */
static void packs_in_pieces(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < (test_quick() ? 60 : 600); i++) {
        enum values values = (enum values)random_below(&random, VALUES);
        struct problem p =
            new_problem(&random, values, random_between(&random, 1, 4), random_between(&random, 1, 3 * ATTN_MAX_COLS),
                        random_between(&random, 1, 40), random_below(&random, 3), random_below(&random, 3));
        bool columns = i % 2, one_by_one = i / 2 % 2;
        size_t total = columns ? p.n : p.rows;
        struct attn_panels panels = new_panels(p.rows, p.n, i / 4 % 2, i % 3, FLUSH_END);
        test_case("%s: n=%zu rows=%zu in pieces of %s, one by one: %d", kernel->name, p.n, p.rows,
                  columns ? "columns" : "rows", one_by_one);
        for (size_t done = 0, taken; done < total; done += taken) {
            enum layout layout = (enum layout)random_below(&random, LAYOUTS);
            taken = one_by_one ? 1 : random_between(&random, 1, total - done);
            if (columns)
                pack_piece(&random, &p, &panels, 0, p.rows, done, taken, layout);
            else
                pack_piece(&random, &p, &panels, done, taken, 0, p.n, layout);
        }
        check_run(&random, &p, &panels, (enum attn_start)random_below(&random, STARTS));
        guarded_free(panels.data);
        free_problem(&p);
    }
}

/* A row of b times 1: one element of a pair, and nothing of the other one, even if that is infinite. */
static void keeps_elements_apart(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < (test_quick() ? 30 : 300); i++) {
        struct problem p =
            new_problem(&random, VALUES_ANY, 1, random_between(&random, 1, 70), 1, 0, random_below(&random, 20));
        struct attn_panels panels = pack(&random, &p, (enum layout)(i % LAYOUTS), i % 2);
        p.a[0] = 0x3f80;
        for (p.row = 0; p.row < p.rows; p.row++) {
            test_case("%s: row %zu of %zu, %zu columns", kernel->name, p.row, p.rows, p.n);
            check_run(&random, &p, &panels, ATTN_START_ZERO);
            float *y = expected(&p, ATTN_START_ZERO);
            for (size_t j = 0; j < p.n; j++) {
                float x = model_widened(p.b[p.row * p.n + j]), element_alone = (float)model_flushed(x) + 0.0f;
                assert_same_bits(&element_alone, y + j, 1);
            }
            free(y);
        }
        guarded_free(panels.data);
        free_problem(&p);
    }
}

/* From a panel of a larger matrix on. */
static void runs_on_a_range_of_panels(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < (test_quick() ? 20 : 200); i++) {
        struct problem p =
            new_problem(&random, VALUES_NORMAL, random_between(&random, 1, kernel->rows + 2),
                        random_between(&random, 1, 100), random_between(&random, 1, 20), random_below(&random, 3), 1);
        struct attn_panels panels = pack(&random, &p, LAYOUT_N_UNIT, i % 2);
        size_t first = random_below(&random, (p.n + panels.cols - 1) / panels.cols) * panels.cols, cols = p.n - first;
        float *wanted = expected(&p, ATTN_START_ZERO);
        void *a = new_a(&p, p.k, FLUSH_END);
        struct test_matrix c = test_matrix(p.m, cols, cols, FLUSH_END);
        test_case("%s: m=%zu k=%zu, columns %zu .. %zu", kernel->name, p.m, p.k, first, p.n - 1);
        kernel->run(
            &(struct attn_gemm_args){.m = p.m,
                                     .n = cols,
                                     .k = p.k,
                                     .a = a,
                                     .a_stride = p.k * (kernel->a == ATTN_BF16 ? sizeof(uint16_t) : sizeof(float)),
                                     .b = panels,
                                     .row = p.row,
                                     .column = first,
                                     .c = c.data,
                                     .c_stride = cols * sizeof *c.data});
        for (size_t r = 0; r < p.m; r++)
            assert_same_bits(wanted + r * p.n + first, c.data + r * cols, cols);
        test_matrix_free(&c);
        guarded_free(a);
        guarded_free(panels.data);
        free(wanted);
        free_problem(&p);
    }
}

/* A chain that stops after rows that are added up at once, and goes on from c, is the whole chain. */
static void continues_a_chain(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    size_t unit = kernel->arithmetic == ATTN_CLASS_BF16_TILE ? ATTN_TILE_K : 2;
    for (size_t i = 0; i < (test_quick() ? 20 : 200); i++) {
        struct problem p = new_problem(&random, (enum values)(i % VALUES), random_between(&random, 1, kernel->rows),
                                       random_between(&random, 1, 40), random_between(&random, 2, 20 + 2 * unit), 0, 0);
        float *whole = expected(&p, ATTN_START_C), *c = p.c;
        size_t first = random_below(&random, p.k / unit + 1) * unit;
        struct problem head = p, tail = p;
        uint16_t *head_a = new_array(p.m * first, sizeof *head_a), *tail_a = new_array(p.m * p.k, sizeof *tail_a);
        for (size_t r = 0; r < p.m; r++) {
            memcpy(head_a + r * first, p.a + r * p.k, first * sizeof *head_a);
            memcpy(tail_a + r * (p.k - first), p.a + r * p.k + first, (p.k - first) * sizeof *tail_a);
        }
        head.k = first;
        head.a = head_a;
        tail.k = p.k - first;
        tail.row = first;
        tail.a = tail_a;
        tail.c = expected(&head, ATTN_START_C);
        float *parts = expected(&tail, ATTN_START_C);
        test_case("k=%zu, %zu first", p.k, first);
        assert_same_bits(whole, parts, p.m * p.n);
        struct attn_panels panels = pack(&random, &tail, LAYOUT_GENERAL, i % 2);
        check_run(&random, &tail, &panels, ATTN_START_C);
        guarded_free(panels.data);
        free(tail.c);
        free(parts);
        free(whole);
        free(head_a);
        free(tail_a);
        p.c = c;
        free_problem(&p);
    }
}

/* One element that is not finite, among the rows and columns that are asked for or not. */
static void finds_what_is_not_finite(void **state) {
    (void)state;
    static const uint16_t bad[] = {0x7f80, 0xff80, 0x7fc0, 0xffff, 0x7f81};
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < (test_quick() ? 200 : 3000); i++) {
        struct problem p =
            new_problem(&random, i % 2 ? VALUES_DENORMAL : VALUES_NORMAL, 0,
                        random_between(&random, 1, 3 * ATTN_MAX_COLS), 0, 0, random_between(&random, 1, 30));
        size_t bad_row = random_below(&random, p.rows), bad_column = random_below(&random, p.n);
        size_t row = random_below(&random, p.rows), k = random_below(&random, p.rows - row + 1);
        size_t n = kernel->b.wide ? p.n : random_between(&random, 1, p.n); /* of floats whole panels */
        p.b[bad_row * p.n + bad_column] = bad[i % (sizeof bad / sizeof *bad)];
        struct attn_panels panels = pack(&random, &p, (enum layout)(i / 2 % LAYOUTS), i / 6 % 2);
        bool asked = bad_row >= row && bad_row < row + k && bad_column < n;
        test_case("%s: rows %zu .. %zu of %zu, %zu columns, %04x in row %zu, column %zu", kernel->name, row,
                  row + k - 1, p.rows, n, (unsigned)bad[i % 5], bad_row, bad_column);
        assert_int_equal(!asked, kernel->finite(&panels, row, k, n));
        guarded_free(panels.data);
        free_problem(&p);
    }
}

static void ignores_the_stride_of_one_row(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct problem p = new_problem(&random, VALUES_NORMAL, 1, 37, 9, 1, 0);
    struct attn_panels panels = pack(&random, &p, LAYOUT_N_UNIT, false);
    float *wanted = expected(&p, ATTN_START_ZERO);
    const size_t strides[] = {0, 2, SIZE_MAX / 2};
    for (size_t i = 0; i < sizeof strides / sizeof *strides; i++) {
        void *a = new_a(&p, p.k, FLUSH_END);
        float *c = guarded_floats(p.n, FLUSH_END);
        kernel->run(&(struct attn_gemm_args){.m = 1,
                                             .n = p.n,
                                             .k = p.k,
                                             .a = a,
                                             .a_stride = strides[i],
                                             .b = panels,
                                             .row = p.row,
                                             .c = c,
                                             .c_stride = p.n * sizeof *c});
        assert_same_bits(wanted, c, p.n);
        guarded_free(a);
        guarded_free(c);
    }
    free(wanted);
    guarded_free(panels.data);
    free_problem(&p);
}

/* What the columns beyond the last hold before they are packed, infinities and NaN, raises no exception. */
static void raises_what_the_reference_raises(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < (test_quick() ? 30 : 600); i++) {
        struct problem p = new_problem(&random, VALUES_NORMAL, random_between(&random, 1, kernel->rows),
                                       random_between(&random, 1, 70), random_between(&random, 1, 9),
                                       random_below(&random, 3), random_below(&random, 3));
        struct attn_panels panels = new_panels(p.rows, p.n, i % 2, 0, FLUSH_END);
        size_t bytes = 0, count = (p.n + panels.cols - 1) / panels.cols;
        attn_panel_bytes(&kernel->b, p.rows, panels.cols, &bytes);
        for (size_t e = 0; e < ((count - 1) * panels.stride + bytes) / sizeof(uint16_t); e++)
            ((uint16_t *)panels.data)[e] = e % 3 == 0 ? 0x7f80 : e % 3 == 1 ? 0xff80 : 0x7f81;
        if (i / 2 % 2)
            pack_piece(&random, &p, &panels, 0, p.rows, 0, p.n, (enum layout)(i / 4 % LAYOUTS));
        for (size_t row = 0; !(i / 2 % 2) && row < p.rows; row++)
            pack_piece(&random, &p, &panels, row, 1, 0, p.n, (enum layout)(i / 4 % LAYOUTS));
        test_case("%s: m=%zu n=%zu k=%zu, rows from %zu of %zu, %s, narrow=%zu", kernel->name, p.m, p.n, p.k, p.row,
                  p.rows, layout_names[i / 4 % LAYOUTS], i % 2);
        flags_clear();
        traps = true;
        check_run(&random, &p, &panels, (enum attn_start)(i % STARTS));
        traps = false;
        assert_flags(flags_raised(), 0);
        guarded_free(panels.data);
        free_problem(&p);
    }
}

/* What a program may set: MXCSR's FTZ and DAZ, FPCR's FZ and a rounding mode; none, each, both. */
#if defined(__SSE__)
static const uint64_t controls[4] = {0, 0x8000, 0x40, 0x8040};

static uint64_t control(void) {
    return __builtin_ia32_stmxcsr() & 0xffc0;
}
static void set_control(uint64_t bits) {
    __builtin_ia32_ldmxcsr((unsigned)bits);
}
#elif defined(__aarch64__)
static const uint64_t controls[4] = {0, 1 << 24, 1 << 22, 1 << 24 | 1 << 22};

static uint64_t control(void) {
    uint64_t bits;
    __asm__ volatile("mrs %0, fpcr" : "=r"(bits));
    return bits;
}
static void set_control(uint64_t bits) {
    __asm__ volatile("msr fpcr, %0" : : "r"(bits) : "memory");
}
#else
static const uint64_t controls[4];

static uint64_t control(void) {
    return 0;
}
static void set_control(uint64_t bits) {
    (void)bits;
}
#endif

/* Rounding, what becomes of denormal numbers and the masks of exceptions are as before, whatever they were. */
static void leaves_the_control_bits_alone(void **state) {
    (void)state;
    if (!controls[3])
        skip();
    struct test_random random = test_random(__func__);
    const uint64_t before = control();
    for (size_t i = 0; i < sizeof controls / sizeof *controls; i++) {
        uint64_t set = (before & ~controls[3]) | controls[i];
        struct problem p = new_problem(&random, VALUES_TINY, 5, 40, 7, 1, 0);
        struct attn_panels panels = pack(&random, &p, LAYOUT_N_UNIT, false);
        void *a = new_a(&p, p.k, FLUSH_END);
        float *c = guarded_floats(p.m * p.n, FLUSH_END);
        struct attn_gemm_args args = {.m = p.m,
                                      .n = p.n,
                                      .k = p.k,
                                      .a = a,
                                      .a_stride = p.k * (kernel->a == ATTN_BF16 ? sizeof(uint16_t) : sizeof(float)),
                                      .b = panels,
                                      .row = p.row,
                                      .c = c,
                                      .c_stride = p.n * sizeof *c};
        set_control(set);
        kernel->run(&args);
        uint64_t after = control();
        set_control(before);
        assert_int_equal(after, set);
        guarded_free(a);
        guarded_free(c);
        guarded_free(panels.data);
        free_problem(&p);
    }
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(describes_itself),
        cmocka_unit_test(is_the_chain_in_doubles),
        cmocka_unit_test(is_near_double),
        cmocka_unit_test(equals_reference_on_every_tail),
        cmocka_unit_test(equals_reference_on_every_k),
        cmocka_unit_test(equals_reference_on_large_sizes),
        cmocka_unit_test(packs_in_pieces),
        cmocka_unit_test(keeps_elements_apart),
        cmocka_unit_test(runs_on_a_range_of_panels),
        cmocka_unit_test(continues_a_chain),
        cmocka_unit_test(finds_what_is_not_finite),
        cmocka_unit_test(ignores_the_stride_of_one_row),
        cmocka_unit_test(raises_what_the_reference_raises),
        cmocka_unit_test(leaves_the_control_bits_alone),
    };
    /* Once for each of the ISA's own kernels of these classes, or for that which it inherits where it has none. */
    const struct attn_gemm_kernel *const none[] = {NULL}, *const *list = test_table()->gemm ? test_table()->gemm : none;
    int failed = 0, own = 0;
    for (; *list; list++)
        if (attn_class_is_bf16((*list)->arithmetic)) {
            own++;
            kernel = *list;
            failed += test_run(tests);
        }
    kernel = attn_gemm_find(test_table(), ATTN_CLASS_BF16);
    return own ? failed : test_run(tests);
}
