/* The kernels of the attention loop of one ISA against the reference, all but the online softmax
 * (test_online_softmax.c). */
#include "flags.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "arithmetic.h"

static const struct attn_attention_kernel *kernel(void) {
    return attn_table_attention(test_table());
}
static const struct attn_attention_kernel *reference(void) {
    return attn_table_attention(&attn_kernels_scalar);
}

/* ---- merge ---- */

struct span {
    float *max, *sum;
    struct test_matrix output;
};

static struct span new_span(size_t rows, size_t size, size_t gap) {
    return (struct span){.max = guarded_floats(rows, FLUSH_END),
                         .sum = guarded_floats(rows, FLUSH_END),
                         .output = test_matrix(rows, size, size + gap, FLUSH_END)};
}

static struct span random_span(struct test_random *random, size_t rows, size_t size, size_t gap,
                               enum test_values values) {
    struct span span = new_span(rows, size, gap);
    for (size_t r = 0; r < rows; r++) {
        bool empty = random_below(random, 4) == 0;
        span.max[r] = empty ? -INFINITY : random_float(random, values);
        span.sum[r] = empty ? 0.0f : random_uniform(random, 1.0f, 100.0f);
        for (size_t j = 0; j < size; j++)
            span.output.data[r * span.output.stride + j] = empty ? 0.0f : random_float(random, values);
    }
    return span;
}

static struct span copy_span(const struct span *from) {
    const struct test_matrix *output = &from->output;
    struct span span = new_span(output->rows, output->cols, output->stride - output->cols);
    memcpy(span.max, from->max, output->rows * sizeof *span.max);
    memcpy(span.sum, from->sum, output->rows * sizeof *span.sum);
    for (size_t r = 0; output->cols > 0 && r < output->rows; r++)
        memcpy(span.output.data + r * output->stride, output->data + r * output->stride,
               output->cols * sizeof *output->data);
    return span;
}

static void free_span(struct span *span) {
    guarded_free(span->max);
    guarded_free(span->sum);
    test_matrix_free(&span->output);
}

static void run_merge(const struct attn_attention_kernel *of, struct span *into, const struct span *later) {
    of->merge(into->output.rows, into->output.cols, into->max, into->sum, into->output.data, later->max, later->sum,
              later->output.data, into->output.stride);
}

static void check_merge(struct test_random *random, size_t rows, size_t size, size_t gap, enum test_values values) {
    test_case("merge rows=%zu size=%zu gap=%zu values=%d", rows, size, gap, (int)values);
    struct span earlier = random_span(random, rows, size, gap, values), expected = copy_span(&earlier);
    struct span later = random_span(random, rows, size, gap, values), kept = copy_span(&later);
    assert_same_flags(0, run_merge(reference(), &expected, &later), run_merge(kernel(), &earlier, &later));
    assert_same_bits(expected.max, earlier.max, rows);
    assert_same_bits(expected.sum, earlier.sum, rows);
    assert_same_matrix(&expected.output, &earlier.output);
    assert_same_matrix(&kept.output, &later.output);
    free_span(&earlier);
    free_span(&expected);
    free_span(&later);
    free_span(&kept);
}

static void merge_equals_reference(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const enum test_values values[] = {TEST_NORMAL, TEST_NASTY, TEST_WILD};
    for (size_t size = 0; size <= 70; size++)
        for (size_t i = 0; i < (test_quick() ? 3 : 30); i++)
            check_merge(&random, random_between(&random, 0, ATTN_MAX_ROWS), size, random_below(&random, 9),
                        values[i % 3]);
    check_merge(&random, 16, 128, 0, TEST_NORMAL);
}

/* Two halves of a row's keys, merged, are the whole of them: against double. */
static void merge_is_near_double(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < 100; i++) {
        struct span a = random_span(&random, 3, 7, 0, TEST_NORMAL), b = random_span(&random, 3, 7, 0, TEST_NORMAL);
        struct span merged = copy_span(&a);
        test_case("round %zu", i);
        run_merge(kernel(), &merged, &b);
        for (size_t r = 0; r < 3; r++) {
            double max = fmax((double)a.max[r], (double)b.max[r]), shift = isinf(max) ? 0.0 : max;
            double f0 = exp((double)a.max[r] - shift), f1 = exp((double)b.max[r] - shift);
            assert_near(max, (double)merged.max[r], 0.0);
            assert_near((double)a.sum[r] * f0 + (double)b.sum[r] * f1, (double)merged.sum[r], 1e-4);
            for (size_t j = r * 7; j < r * 7 + 7; j++)
                assert_near((double)a.output.data[j] * f0 + (double)b.output.data[j] * f1,
                            (double)merged.output.data[j], 1e-5);
        }
        free_span(&a);
        free_span(&b);
        free_span(&merged);
    }
}

/* ---- soft_cap ---- */

static void soft_cap_equals_reference(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const float caps[] = {30.0f, 50.0f, 0.3f, 1.0f, 0x1p-100f, FLT_MAX};
    for (size_t n = 0; n <= 150; n += test_quick() ? random_between(&random, 1, 5) : 1)
        for (size_t i = 0; i < sizeof caps / sizeof *caps; i++) {
            float *x = guarded_floats(n, n % 2 ? FLUSH_START : FLUSH_END), *expected = guarded_floats(n, FLUSH_END);
            test_case("soft_cap n=%zu cap=%g", n, (double)caps[i]);
            for (size_t c = 0; c < n; c++)
                x[c] = random_below(&random, 2) ? random_float(&random, TEST_WILD) : 40.0f * random_normal(&random);
            memcpy(expected, x, n * sizeof *x);
            assert_same_flags(0, reference()->soft_cap(expected, n, caps[i], 1.0f / caps[i]),
                              kernel()->soft_cap(x, n, caps[i], 1.0f / caps[i]));
            assert_same_bits(expected, x, n);
            guarded_free(x);
            guarded_free(expected);
        }
}

static void soft_cap_is_near_double(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const double cap = 50.0;
    float x[1000], y[1000];
    for (size_t c = 0; c < 1000; c++)
        y[c] = x[c] = 60.0f * random_normal(&random);
    kernel()->soft_cap(y, 1000, (float)cap, (float)(1.0 / cap));
    for (size_t c = 0; c < 1000; c++) {
        double expected = cap * tanh((double)x[c] / cap);
        test_case("soft_cap of %a", (double)x[c]);
        assert_near(expected, (double)y[c], 5e-7 * fabs(expected));
    }
}

/* ---- bias ---- */

/* One logit by the words of the contract. */
static float biased(const struct attn_bias_args *args, size_t c) {
    float x = args->x[c];
    if (args->slope != 0.0f)
        x = attn_fmaf(-args->slope, (float)llabs((long long)args->distance + (long long)c), x);
    if (args->add)
        x = args->add[c] == -INFINITY ? -INFINITY
            : args->factor == 1.0f    ? x + args->add[c]
                                      : attn_fmaf(args->factor, args->add[c], x);
    return args->visible && args->visible[c] == 0 ? -INFINITY : x;
}

/* 1, as often as not, and whatever else is finite. */
static float random_factor(struct test_random *random) {
    static const float factors[] = {0.5f, -2.0f, 0.70710677f, 0.0f, -0.0f, -1.0f, FLT_MAX, 0x1p-149f};
    return random_below(random, 2) ? 1.0f : factors[random_below(random, sizeof factors / sizeof *factors)];
}

enum { BIAS_SLOPE = 1, BIAS_ADD = 2, BIAS_VISIBLE = 4, BIAS_ALL = 7 };

/* Only elements [lo, hi) of x, add and visible exist. */
static void check_bias(struct test_random *random, size_t lo, size_t hi, int parts, float slope, int32_t distance,
                       enum flush flush) {
    size_t n = hi > lo ? hi - lo : 0;
    float *x = guarded_floats(n, flush), *add = guarded_floats(n, flush), *expected = guarded_floats(n, flush);
    uint8_t *visible = guarded_alloc(n, 1, flush);
    random_fill(random, TEST_WILD, x, n);
    random_fill(random, TEST_WILD, add, n);
    for (size_t c = 0; c < n; c += random_between(random, 1, 12))
        add[c] = -INFINITY;
    for (size_t c = 0; c < n; c++)
        visible[c] = (uint8_t)(random_below(random, 2) ? 0 : 1u << random_below(random, 8));
    test_case("bias lo=%zu hi=%zu parts=%d slope=%g distance=%d flush=%d", lo, hi, parts, (double)slope, (int)distance,
              (int)flush);
    struct attn_bias_args args = {.x = x - lo,
                                  .lo = lo,
                                  .hi = hi,
                                  .slope = parts & BIAS_SLOPE ? slope : 0.0f,
                                  .distance = distance,
                                  .add = parts & BIAS_ADD ? add - lo : NULL,
                                  .factor = parts & BIAS_ADD ? random_factor(random) : NAN,
                                  .visible = parts & BIAS_VISIBLE ? visible - lo : NULL};
    struct attn_bias_args copied = args;
    float *copy = guarded_copy(x, n, FLUSH_END);
    for (size_t c = 0; c < n; c++)
        expected[c] = biased(&args, lo + c);
    copied.x = copy - lo;
    /* Columns that are not seen have distances too. */
    int more = flags_of_factor(args.slope) | (isinf(args.slope * 0x1p31f) ? FE_OVERFLOW : 0);
    assert_same_flags(more, reference()->bias(&copied), kernel()->bias(&args));
    assert_same_bits(expected, x, n);
    guarded_free(copy);
    guarded_free(x);
    guarded_free(add);
    guarded_free(expected);
    guarded_free(visible);
}

static float random_slope(struct test_random *random) {
    const float slopes[] = {0.5f, 0.70710677f, -0.3f, 0x1p-8f, 1e30f, -0.0f, INFINITY};
    return slopes[random_below(random, sizeof slopes / sizeof *slopes)];
}

/* Distances of either sign, of both in one row, and those at which floats no longer hold every integer. */
static int32_t random_distance(struct test_random *random, size_t hi) {
    const int32_t distances[] = {
        0, -5, -20, -1000, 77, (1 << 24) - 9, -(1 << 24) - 9, INT32_MIN, INT32_MAX - (int32_t)hi};
    return distances[random_below(random, sizeof distances / sizeof *distances)];
}

static void bias_equals_reference_on_every_offset(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    size_t step = test_quick() ? 8 : 1;
    for (size_t lo = 0; lo <= 17; lo += random_between(&random, 1, step))
        for (size_t hi = 0; hi <= lo + 67; hi += random_between(&random, 1, step))
            for (int parts = 0; parts <= BIAS_ALL; parts++)
                for (enum flush flush = FLUSH_END; flush <= FLUSH_START; flush++)
                    check_bias(&random, lo, hi, parts, random_slope(&random), random_distance(&random, hi), flush);
}

static void bias_equals_reference_on_long_rows(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < (test_quick() ? 50 : 2000); i++) {
        size_t lo = random_below(&random, ATTN_BLOCK), hi = random_between(&random, lo, ATTN_BLOCK);
        check_bias(&random, lo, hi, (int)random_between(&random, 1, BIAS_ALL), random_slope(&random),
                   random_distance(&random, hi), i % 2 ? FLUSH_START : FLUSH_END);
    }
}

/* ---- rotate ---- */

static size_t partner_of(size_t j, size_t dims, bool interleaved) {
    if (interleaved)
        return j % 2 ? j - 1 : j + 1;
    return j < dims / 2 ? j + dims / 2 : j - dims / 2;
}

static void check_rotate(struct test_random *random, size_t dims, bool interleaved, enum flush flush,
                         enum test_values values) {
    float *x = guarded_floats(dims, flush), *y = guarded_floats(dims, flush), *expected = guarded_floats(dims, flush);
    float *cosines = guarded_floats(dims, flush), *sines = guarded_floats(dims, flush);
    random_fill(random, values, x, dims);
    random_fill(random, values, cosines, dims);
    random_fill(random, values, sines, dims);
    test_case("rotate dims=%zu interleaved=%d flush=%d values=%d", dims, interleaved, (int)flush, (int)values);
    assert_same_flags(0, reference()->rotate(x, cosines, sines, dims, interleaved, expected),
                      kernel()->rotate(x, cosines, sines, dims, interleaved, y));
    for (size_t j = 0; j < dims; j++)
        expected[j] = attn_fmaf(x[partner_of(j, dims, interleaved)], sines[j], x[j] * cosines[j]);
    assert_same_bits(expected, y, dims);
    kernel()->rotate(x, cosines, sines, dims, interleaved, x);
    assert_same_bits(expected, x, dims);
    guarded_free(x);
    guarded_free(y);
    guarded_free(expected);
    guarded_free(cosines);
    guarded_free(sines);
}

static void rotate_equals_reference(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const enum test_values values[] = {TEST_UNIFORM, TEST_NASTY, TEST_WILD};
    for (size_t dims = 2; dims <= 200; dims += 2)
        for (size_t i = 0; i < 12; i++)
            check_rotate(&random, dims, i & 1, i & 2 ? FLUSH_START : FLUSH_END, values[i / 4]);
}

/* A rotation keeps the length of each pair and rotates it by the angle. */
static void rotate_turns_pairs(void **state) {
    (void)state;
    enum { DIMS = 70 };
    struct test_random random = test_random(__func__);
    for (size_t interleaved = 0; interleaved <= 1; interleaved++) {
        float x[DIMS], y[DIMS], cosines[DIMS], sines[DIMS], angles[DIMS / 2];
        random_fill(&random, TEST_NORMAL, x, DIMS);
        for (size_t i = 0; i < DIMS / 2; i++) {
            size_t j0 = interleaved ? 2 * i : i, j1 = partner_of(j0, DIMS, interleaved);
            angles[i] = random_uniform(&random, -3.0f, 3.0f);
            cosines[j0] = cosines[j1] = cosf(angles[i]);
            sines[j1] = sinf(angles[i]);
            sines[j0] = -sines[j1];
        }
        kernel()->rotate(x, cosines, sines, DIMS, (int)interleaved, y);
        for (size_t i = 0; i < DIMS / 2; i++) {
            size_t j0 = interleaved ? 2 * i : i, j1 = partner_of(j0, DIMS, interleaved);
            double angle = (double)angles[i], x0 = (double)x[j0], x1 = (double)x[j1];
            test_case("interleaved=%zu pair %zu by %g", interleaved, i, angle);
            assert_near(x0 * cos(angle) - x1 * sin(angle), (double)y[j0], 1e-6);
            assert_near(x0 * sin(angle) + x1 * cos(angle), (double)y[j1], 1e-6);
        }
    }
}

/* ---- sum, normalize, weights, scale, scale_columns, all_finite ---- */

static void sum_equals_reference(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t rows = 0; rows <= ATTN_MAX_ROWS; rows++)
        for (size_t i = 0; i < 30; i++) {
            enum flush flush = i % 2 ? FLUSH_START : FLUSH_END;
            float *lanes = guarded_aligned_floats(rows * ATTN_LANES, flush);
            float *expected = guarded_floats(rows, flush), *sum = guarded_floats(rows, flush);
            random_fill(&random, (enum test_values)(i % 4), lanes, rows * ATTN_LANES);
            test_case("sum rows=%zu round %zu", rows, i);
            assert_same_flags(0, reference()->sum(rows, lanes, expected), kernel()->sum(rows, lanes, sum));
            for (size_t r = 0; r < rows; r++)
                expected[r] = attn_lane_sum(lanes + r * ATTN_LANES);
            assert_same_bits(expected, sum, rows);
            guarded_free(lanes);
            guarded_free(expected);
            guarded_free(sum);
        }
}

/* Some rows, with gaps between them. */
struct rows_case {
    size_t rows, size, gap;
    enum flush flush;
};

static struct rows_case rows_case(struct test_random *random, size_t size) {
    return (struct rows_case){random_below(random, 4), size, random_below(random, 3) * 5,
                              size % 2 ? FLUSH_START : FLUSH_END};
}

static struct test_matrix new_rows(struct test_random *random, const struct rows_case *c, enum test_values values) {
    struct test_matrix x = test_matrix(c->rows, c->size, c->size + c->gap, c->flush);
    for (size_t r = 0; r < c->rows; r++)
        random_fill(random, values, x.data + r * x.stride, c->size);
    return x;
}

static void normalize_equals_reference(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const float inverses[] = {0.0f, 1.0f, 0.3f, 0x1p-130f, FLT_MAX, INFINITY, NAN};
    enum { COUNT = sizeof inverses / sizeof *inverses };
    for (size_t size = 0; size <= 150; size++)
        for (size_t i = 0; i < COUNT; i++) {
            struct rows_case c = rows_case(&random, size);
            struct test_matrix x = new_rows(&random, &c, i == 2 ? TEST_WILD : TEST_NASTY);
            struct test_matrix expected = new_rows(&random, &c, TEST_NORMAL), y = new_rows(&random, &c, TEST_NORMAL);
            float *inverse = guarded_floats(c.rows, c.flush);
            test_case("normalize rows=%zu size=%zu gap=%zu inverse=%g", c.rows, size, c.gap, (double)inverses[i]);
            int infinite = 0;
            for (size_t r = 0; r < c.rows; r++) {
                inverse[r] = inverses[(i + r) % COUNT];
                infinite |= flags_of_factor(inverse[r]);
            }
            assert_same_flags(
                infinite,
                reference()->normalize(c.rows, size, x.data, x.stride, inverse, expected.data, expected.stride),
                kernel()->normalize(c.rows, size, x.data, x.stride, inverse, y.data, y.stride));
            for (size_t r = 0; r < c.rows; r++)
                for (size_t j = 0; j < size; j++)
                    expected.data[r * expected.stride + j] = x.data[r * x.stride + j] * inverse[r] + 0.0f;
            assert_same_matrix(&expected, &y);
            test_matrix_check(&y);
            guarded_free(inverse);
            test_matrix_free(&x);
            test_matrix_free(&expected);
            test_matrix_free(&y);
        }
}

/* Of x only [lo, hi) may be read: behind hi is a page that faults and before lo another, or both hold poison. */
static void check_weights(const float *x, size_t lo, size_t hi, size_t cols, float shift, float inverse) {
    float *expected = guarded_floats(cols, FLUSH_END), *y = guarded_floats(cols, FLUSH_END);
    size_t count = lo < hi ? hi - lo : 0;
    float *visible = guarded_copy(x + lo, count, FLUSH_END);
    assert_same_flags(0, reference()->weights(x, lo, hi, cols, shift, inverse, expected),
                      kernel()->weights(visible - (count ? lo : 0), lo, hi, cols, shift, inverse, y));
    assert_same_bits(expected, y, cols);
    guarded_free(visible);

    visible = guarded_copy(x + lo, count, FLUSH_START);
    kernel()->weights(visible - (count ? lo : 0), lo, hi, cols, shift, inverse, y);
    assert_same_bits(expected, y, cols);
    guarded_free(visible);

    fill_poison(y, cols);
    memcpy(y + lo, x + lo, count * sizeof *y);
    kernel()->weights(y, lo, hi, cols, shift, inverse, y);
    assert_same_bits(expected, y, cols);
    guarded_free(y);
    guarded_free(expected);
}

/* The maximum of the visible logits, as attention passes it, or slightly more. */
static float shift_above(struct test_random *random, const float *x, size_t lo, size_t hi) {
    float max = -FLT_MAX;
    for (size_t c = lo; c < hi; c++)
        max = x[c] > max ? x[c] : max;
    return random_below(random, 2) ? max : max + random_uniform(random, 0.0f, 3.0f);
}

static void weights_equal_reference(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    float x[64];
    for (size_t cols = 0; cols <= 50; cols += test_quick() ? random_between(&random, 1, 6) : 1)
        for (size_t lo = 0; lo <= cols; lo += test_quick() ? random_between(&random, 1, 6) : 1)
            for (size_t hi = 0; hi <= cols; hi += test_quick() ? random_between(&random, 1, 6) : 1) {
                random_fill(&random, hi % 3 ? TEST_NORMAL : TEST_WILD, x, cols);
                float shift = shift_above(&random, x, lo, hi);
                float inverse = random_uniform(&random, 0.0f, 2.0f);
                test_case("weights lo=%zu hi=%zu cols=%zu shift=%a inverse=%a", lo, hi, cols, (double)shift,
                          (double)inverse);
                check_weights(x, lo, hi, cols, shift, inverse);
            }
}

/* One special logit at every place of a row of others, none above the shift. */
static void weights_equal_reference_on_special_rows(void **state) {
    (void)state;
    const float values[] = {-INFINITY, NAN, -FLT_MAX, -1e20f, -1e4f, -300.0f, -105.0f, -104.0f, -103.5f, -88.0f, -0.0f};
    const float shifts[] = {0.0f, 88.0f, 1e4f, FLT_MAX, INFINITY};
    float x[40];
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        for (size_t j = 0; j < sizeof shifts / sizeof *shifts; j++)
            for (size_t at = 0; at < 40; at += test_quick() ? 3 : 1) {
                for (size_t c = 0; c < 40; c++)
                    x[c] = c % 2 ? shifts[j] : 0.0f;
                x[at] = values[i];
                test_case("weights of 40, [%zu]=%g shift=%g inverse=0.5", at, (double)values[i], (double)shifts[j]);
                check_weights(x, 0, 40, 40, shifts[j], 0.5f);
            }
}

static void weights_equal_reference_on_long_rows(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static float x[1100];
    for (size_t i = 0; i < (test_quick() ? 20 : 300); i++) {
        size_t cols = random_between(&random, 200, 1100), lo = random_below(&random, cols);
        size_t hi = random_between(&random, lo, cols);
        random_fill(&random, TEST_NORMAL, x, cols);
        test_case("weights lo=%zu hi=%zu cols=%zu", lo, hi, cols);
        check_weights(x, lo, hi, cols, shift_above(&random, x, lo, hi), 0.01f);
    }
}

static void scale_equals_reference(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const float factors[] = {0.125f, 0.2236068f, -1.0f, 0.0f, 0x1p-140f, FLT_MAX};
    for (size_t size = 0; size <= 150; size++)
        for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
            struct rows_case c = rows_case(&random, size);
            struct test_matrix x = new_rows(&random, &c, TEST_WILD);
            struct test_matrix expected = new_rows(&random, &c, TEST_NORMAL), y = new_rows(&random, &c, TEST_NORMAL);
            test_case("scale rows=%zu size=%zu gap=%zu factor=%g", c.rows, size, c.gap, (double)factors[i]);
            assert_same_flags(
                0, reference()->scale(c.rows, size, x.data, x.stride, factors[i], expected.data, expected.stride),
                kernel()->scale(c.rows, size, x.data, x.stride, factors[i], y.data, y.stride));
            for (size_t r = 0; r < c.rows; r++)
                for (size_t j = 0; j < size; j++)
                    expected.data[r * expected.stride + j] = x.data[r * x.stride + j] * factors[i];
            assert_same_matrix(&expected, &y);
            test_matrix_check(&y);
            test_matrix_free(&x);
            test_matrix_free(&expected);
            test_matrix_free(&y);
        }
}

/* Each of these at each place among finite numbers, the largest among them. */
static void scale_columns_equals_reference(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t size = 0; size <= 150; size++) {
        struct rows_case c = rows_case(&random, size);
        struct test_matrix x = new_rows(&random, &c, TEST_WILD), expected = new_rows(&random, &c, TEST_NORMAL);
        float *factors = guarded_floats(size, random_below(&random, 2) ? FLUSH_END : FLUSH_START);
        random_fill(&random, TEST_WILD, factors, size);
        test_case("scale_columns rows=%zu size=%zu gap=%zu", c.rows, size, c.gap);
        for (size_t r = 0; r < c.rows; r++)
            memcpy(expected.data + r * expected.stride, x.data + r * x.stride, size * sizeof(float));
        assert_same_flags(0, reference()->scale_columns(c.rows, size, expected.data, expected.stride, factors),
                          kernel()->scale_columns(c.rows, size, x.data, x.stride, factors));
        assert_same_matrix(&expected, &x);
        test_matrix_check(&x);
        guarded_free(factors);
        test_matrix_free(&x);
        test_matrix_free(&expected);
    }
}

static void all_finite_finds_every_one(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const float values[] = {INFINITY, -INFINITY, NAN, -NAN, FLT_MAX, -FLT_MAX, FLT_TRUE_MIN};
    const uint32_t signalling = 0x7f800001;
    for (size_t n = 0; n <= 150; n += test_quick() ? random_between(&random, 1, 12) : 1) {
        enum flush flush = n % 2 ? FLUSH_START : FLUSH_END;
        float *x = guarded_floats(n, flush);
        random_fill(&random, TEST_NASTY, x, n);
        test_case("all_finite n=%zu", n);
        assert_int_equal(kernel()->all_finite(x, n), 1);
        for (size_t at = 0; at < n; at++) {
            float before = x[at];
            for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
                test_case("all_finite n=%zu [%zu]=%g", n, at, (double)values[i]);
                x[at] = values[i];
                flags_clear();
                assert_int_equal(kernel()->all_finite(x, n), isfinite(values[i]) ? 1 : 0);
                assert_flags(flags_raised(), 0);
            }
            memcpy(&x[at], &signalling, sizeof signalling);
            assert_same_flags(0, reference()->all_finite(x, n), assert_int_equal(kernel()->all_finite(x, n), 0));
            x[at] = before;
        }
        guarded_free(x);
    }
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merge_equals_reference),
        cmocka_unit_test(merge_is_near_double),
        cmocka_unit_test(soft_cap_equals_reference),
        cmocka_unit_test(soft_cap_is_near_double),
        cmocka_unit_test(bias_equals_reference_on_every_offset),
        cmocka_unit_test(bias_equals_reference_on_long_rows),
        cmocka_unit_test(rotate_equals_reference),
        cmocka_unit_test(rotate_turns_pairs),
        cmocka_unit_test(sum_equals_reference),
        cmocka_unit_test(normalize_equals_reference),
        cmocka_unit_test(weights_equal_reference),
        cmocka_unit_test(weights_equal_reference_on_special_rows),
        cmocka_unit_test(weights_equal_reference_on_long_rows),
        cmocka_unit_test(scale_equals_reference),
        cmocka_unit_test(scale_columns_equals_reference),
        cmocka_unit_test(all_finite_finds_every_one),
    };
    return test_run(tests);
}
