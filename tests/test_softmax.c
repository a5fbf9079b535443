/* Masked softmax: the row kernel of one ISA against the reference, and attn_masked_softmax. */
#include "flags.h"

#include "types.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct attn_softmax_kernel *kernel(void) {
    return attn_table_softmax(test_table());
}
static const struct attn_softmax_kernel *reference(void) {
    return attn_table_softmax(&attn_kernels_scalar);
}

static void row_of_floats(const struct attn_softmax_kernel *of, const float *x, size_t valid, size_t cols, float *y) {
    of->rows(&(struct attn_softmax_rows){.rows = 1, .cols = cols, .valid = &valid, .x = x, .y = y});
}

/* ---- The row kernel ---- */

/* x[0..valid) against the reference, out of place with nothing readable behind x[valid - 1], and in place. */
static void check_row(const float *x, size_t valid, size_t cols, enum flush flush) {
    float *expected = guarded_floats(cols, flush);
    float *input = guarded_copy(x, valid, flush), *y = guarded_floats(cols, flush);
    assert_same_flags(0, row_of_floats(reference(), x, valid, cols, expected),
                      row_of_floats(kernel(), input, valid, cols, y));
    assert_same_bits(expected, y, cols);
    assert_same_bits(x, input, valid);
    guarded_free(input);
    guarded_free(y);

    float *both = guarded_floats(cols, flush);
    fill_poison(both + valid, cols - valid);
    memcpy(both, x, valid * sizeof *x);
    row_of_floats(kernel(), both, valid, cols, both);
    assert_same_bits(expected, both, cols);
    guarded_free(both);
    guarded_free(expected);
}

static void equals_reference_on_every_tail(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    float x[101];
    for (size_t cols = 1; cols <= 100; cols += test_quick() ? random_between(&random, 1, 6) : 1)
        for (size_t valid = 1; valid <= cols; valid += test_quick() ? random_between(&random, 1, 6) : 1) {
            random_fill(&random, TEST_NORMAL, x, valid);
            test_case("valid=%zu cols=%zu", valid, cols);
            check_row(x, valid, cols, FLUSH_END);
            check_row(x, valid, cols, FLUSH_START);
        }
}

static void equals_reference_on_long_rows(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const size_t around[] = {128, 256, 512, 1000, 1024, 4096};
    static float x[4096 + 18];
    for (size_t i = 0; i < sizeof around / sizeof *around; i++)
        for (size_t cols = around[i] - 17; cols <= around[i] + 17; cols += test_quick() ? 7 : 1) {
            size_t some = random_between(&random, 1, cols);
            random_fill(&random, i % 2 ? TEST_NORMAL : TEST_NASTY, x, cols);
            test_case("valid=cols=%zu", cols);
            check_row(x, cols, cols, FLUSH_END);
            test_case("valid=%zu cols=%zu", some, cols);
            check_row(x, some, cols, FLUSH_START);
        }
}

static void equals_reference_on_any_values(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    float x[300];
    for (size_t i = 0; i < (test_quick() ? 300 : 10000); i++) {
        size_t cols = random_between(&random, 1, i % 10 ? 60 : 300), valid = random_between(&random, 1, cols);
        random_fill(&random, i % 2 ? TEST_WILD : TEST_NASTY, x, valid);
        /* Logits with many a probability that is denormal, or the last one above 0. */
        for (size_t c = 0; i % 3 == 0 && c < valid; c++)
            x[c] = random_uniform(&random, -110.0f, 0.0f);
        test_case("round %zu: valid=%zu cols=%zu", i, valid, cols);
        check_row(x, valid, cols, i % 4 < 2 ? FLUSH_END : FLUSH_START);
    }
}

/* Rows of one value and rows with one other value at every place. */
static void equals_reference_on_special_rows(void **state) {
    (void)state;
    const float values[] = {-INFINITY, INFINITY, NAN,   -FLT_MAX, FLT_MAX, 0.0f,
                            -0.0f,     FLT_MIN,  1e30f, -104.0f,  89.0f,   FLT_TRUE_MIN};
    const size_t lengths[] = {1, 3, 8, 15, 16, 17, 31, 32, 33, 40, 64, 65};
    size_t value_count = sizeof values / sizeof *values;
    float x[65];
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l += test_quick() ? 3 : 1)
        for (size_t i = 0; i < value_count; i++)
            for (size_t j = 0; j < value_count; j++)
                for (size_t at = 0; at < lengths[l]; at += test_quick() ? 7 : 1) {
                    for (size_t c = 0; c < lengths[l]; c++)
                        x[c] = values[i];
                    x[at] = values[j];
                    test_case("%zu of %g, but [%zu] = %g", lengths[l], (double)values[i], at, (double)values[j]);
                    check_row(x, lengths[l], lengths[l] + 3, FLUSH_END);
                }
}

/* What the contract says without the reference. */
static void obeys_its_contract(void **state) {
    (void)state;
    float x[40], y[40];
    for (size_t valid = 1; valid <= 40; valid++) {
        test_case("valid=%zu of 40", valid);
        fill_poison(x, 40);
        for (size_t c = 0; c < valid; c++)
            x[c] = -INFINITY;
        row_of_floats(kernel(), x, valid, 40, y);
        for (size_t c = 0; c < 40; c++)
            assert_true(y[c] == 0.0f && !signbit(y[c]));

        for (size_t c = 0; c < valid; c++)
            x[c] = -FLT_MAX;
        row_of_floats(kernel(), x, valid, 40, y);
        for (size_t c = 0; c < 40; c++)
            assert_near(c < valid ? 1.0 / (double)valid : 0.0, (double)y[c], 0x1p-24);

        x[valid / 2] = NAN;
        row_of_floats(kernel(), x, valid, 40, y);
        for (size_t c = 0; c < 40; c++)
            assert_true(c < valid ? isnan(y[c]) : y[c] == 0.0f);
    }
}

/* ---- Against double precision ---- */

/* exp is off by at most 1 ULP (2^-23), the difference in its argument by half an ULP of |x - max|, each of two
 * roundings and the sum of n terms by 2^-24 for each step; 16 lanes take n / 16 + 5 steps. */
static double bound_of(size_t n, double distance, double probability) {
    double steps = (double)n / 16 + 5;
    return probability * (0x1p-23 * 2 + 0x1p-24 * (steps + 4 + distance)) + 0x1p-148;
}

static void check_against_double(const float *x, size_t valid, const float *y) {
    double max = -INFINITY, min = INFINITY, sum = 0.0;
    for (size_t c = 0; c < valid; c++) {
        max = (double)x[c] > max ? (double)x[c] : max;
        min = (double)x[c] < min ? (double)x[c] : min;
    }
    for (size_t c = 0; c < valid; c++)
        sum += exp((double)x[c] - max);
    for (size_t c = 0; c < valid; c++) {
        double probability = exp((double)x[c] - max) / sum;
        assert_near(probability, (double)y[c], bound_of(valid, 2 * (max - min), probability));
    }
}

static void is_near_double(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    float x[600], y[600];
    for (size_t i = 0; i < (test_quick() ? 60 : 1000); i++) {
        size_t cols = random_between(&random, 1, 600), valid = random_between(&random, 1, cols);
        float width = random_uniform(&random, 0.1f, 40.0f);
        for (size_t c = 0; c < valid; c++)
            x[c] = random_uniform(&random, -width, width);
        test_case("valid=%zu cols=%zu logits within +-%g", valid, cols, (double)width);
        row_of_floats(kernel(), x, valid, cols, y);
        check_against_double(x, valid, y);
    }
}

/* ---- attn_masked_softmax ---- */

struct tensor {
    float *data;
    size_t batch_stride, row_stride, count;
};

/* [batch][rows][cols] with gaps of `gap` between rows and, if not broadcast, between matrices. */
static struct tensor new_tensor(size_t batch, size_t rows, size_t cols, size_t gap, bool broadcast) {
    struct tensor t = {.row_stride = cols + gap};
    t.batch_stride = broadcast ? 0 : rows * t.row_stride + gap;
    if (batch > 0 && rows > 0 && cols > 0)
        t.count = (batch - 1) * t.batch_stride + (rows - 1) * t.row_stride + cols;
    t.data = guarded_floats(t.count, FLUSH_END);
    return t;
}

static size_t visible(const attn_valid_lens *valid, size_t b, size_t i, size_t rows, size_t cols) {
    if (valid->kind == ATTN_VALID_ALL)
        return cols;
    int64_t len = valid->lens.i64[valid->kind == ATTN_VALID_PER_SEQUENCE ? b : b * rows + i];
    return len < 0 ? 0 : (uint64_t)len > cols ? cols : (size_t)len;
}

static void expected_row(const float *x, size_t valid, size_t cols, attn_empty_rows empty, float *y) {
    if (valid > 0) {
        row_of_floats(reference(), x, valid, cols, y);
        return;
    }
    for (size_t c = 0; c < cols; c++)
        y[c] = empty == ATTN_EMPTY_MEAN ? 1.0f / (float)cols : 0.0f;
}

/* Lengths below 0, 0, inside, equal to and above cols, the limits of the type among them. */
static int64_t random_length(struct test_random *random, size_t cols) {
    const int64_t limits[] = {INT64_MIN, -1, 0, (int64_t)cols, (int64_t)cols + 1, INT64_MAX};
    return random_below(random, 2) ? (int64_t)random_below(random, cols + 1) : limits[random_below(random, 6)];
}

/* What attn_masked_softmax has to leave in y, gaps included. */
static float *expected_output(const attn_softmax_args *args, size_t count) {
    float *expected = guarded_floats(count, FLUSH_END);
    if (args->y.data == args->x.data)
        memcpy(expected, args->y.data, count * sizeof *expected);
    for (size_t b = 0; b < args->batch; b++)
        for (size_t i = 0; i < args->rows; i++)
            expected_row((const float *)args->x.data + b * args->x.batch_stride + i * args->x.row_stride,
                         visible(&args->valid, b, i, args->rows, args->cols), args->cols, args->empty,
                         expected + b * args->y.batch_stride + i * args->y.row_stride);
    return expected;
}

/* One random call. Columns that are not visible hold poison. */
static void check_public(struct test_random *random, size_t batch, size_t rows, size_t cols, bool in_place) {
    bool broadcast = !in_place && random_below(random, 3) == 0;
    struct tensor x = new_tensor(batch, rows, cols, random_below(random, 5), broadcast);
    struct tensor y = in_place ? x : new_tensor(batch, rows, cols, random_below(random, 5), false);
    attn_valid_kind kind = (attn_valid_kind)random_below(random, 3);
    size_t len_count = kind == ATTN_VALID_ALL ? 0 : kind == ATTN_VALID_PER_SEQUENCE ? batch : batch * rows;
    int64_t *lens = guarded_alloc(len_count * sizeof *lens, sizeof *lens, FLUSH_END);
    for (size_t i = 0; i < len_count; i++)
        lens[i] = random_length(random, cols);
    attn_softmax_args args = {.isa = test_isa(),
                              .batch = batch,
                              .rows = rows,
                              .cols = cols,
                              .x.data = x.data,
                              .x.batch_stride = x.batch_stride,
                              .x.row_stride = x.row_stride,
                              .y.data = y.data,
                              .y.batch_stride = y.batch_stride,
                              .y.row_stride = y.row_stride,
                              .valid = {.kind = kind, .lens.i64 = len_count ? lens : NULL},
                              .empty = random_below(random, 2) ? ATTN_EMPTY_MEAN : ATTN_EMPTY_ZERO};
    test_case("public batch=%zu rows=%zu cols=%zu kind=%d empty=%d in_place=%d broadcast=%d", batch, rows, cols,
              (int)kind, (int)args.empty, in_place, broadcast);
    fill_poison(x.data, x.count);
    for (size_t b = 0; b < batch; b++)
        for (size_t i = 0; i < rows; i++)
            random_fill(random, TEST_NORMAL, x.data + b * x.batch_stride + i * x.row_stride,
                        visible(&args.valid, b, i, rows, cols));
    float *expected = expected_output(&args, y.count);
    attn_error error = {0};
    assert_ok(attn_masked_softmax(&args, &error));
    assert_null(error.field);
    assert_same_bits(expected, y.data, y.count);
    guarded_free(expected);
    guarded_free(lens);
    if (!in_place)
        guarded_free(y.data);
    guarded_free(x.data);
}

static void public_function_equals_reference(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < (test_quick() ? 100 : 2000); i++) {
        size_t cols = random_between(&random, 1, i % 20 ? 50 : 600);
        check_public(&random, random_between(&random, 1, 4), random_between(&random, 1, 6), cols, i % 2);
    }
}

static void public_function_takes_empty_sizes(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < 3; i++)
        for (size_t in_place = 0; in_place < 2; in_place++)
            check_public(&random, i == 0 ? 0 : 3, i == 1 ? 0 : 4, i == 2 ? 0 : 5, in_place);

    attn_softmax_args args = {.isa = test_isa(), .rows = 2, .cols = 3, .x.row_stride = 3, .y.row_stride = 3};
    test_case("no batch and no pointers");
    assert_ok(attn_masked_softmax(&args, NULL));
}

/* Several sequences may write to the same matrix only by mistake, but read the same one by design. */
static void public_function_reads_one_matrix_for_all(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { BATCH = 3, ROWS = 2, COLS = 21 };
    float x[ROWS * COLS], y[BATCH][ROWS * COLS], alone[ROWS * COLS];
    random_fill(&random, TEST_NORMAL, x, ROWS * COLS);
    const int64_t lens[BATCH] = {21, 7, 16};
    attn_softmax_args args = {.isa = test_isa(),
                              .batch = BATCH,
                              .rows = ROWS,
                              .cols = COLS,
                              .x.data = x,
                              .x.batch_stride = 0,
                              .x.row_stride = COLS,
                              .y.data = y[0],
                              .y.batch_stride = ROWS * COLS,
                              .y.row_stride = COLS,
                              .valid = {.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = lens}};
    assert_ok(attn_masked_softmax(&args, NULL));
    for (size_t b = 0; b < BATCH; b++) {
        test_case("sequence %zu", b);
        for (size_t i = 0; i < ROWS; i++)
            row_of_floats(reference(), x + i * COLS, (size_t)lens[b], COLS, alone + i * COLS);
        assert_same_bits(alone, y[b], ROWS * COLS);
    }
}

/* ---- Types ---- */

static const struct attn_convert_kernel *convert(void) {
    return attn_table_convert(&attn_kernels_scalar);
}

/* A matrix of elements of a type in guarded memory, `stride` elements from row to row. */
struct typed_matrix {
    unsigned char *data;
    attn_type type;
    size_t rows, cols, stride;
};

static struct typed_matrix new_typed(struct test_random *random, attn_type type, size_t rows, size_t cols) {
    struct typed_matrix m = {.type = type, .rows = rows, .cols = cols, .stride = cols + random_below(random, 4)};
    size_t element = attn_type_size(type), count = (rows - 1) * m.stride + cols;
    m.data = guarded_alloc(count * element, element, random_below(random, 2) ? FLUSH_END : FLUSH_START);
    return m;
}

static void *typed_at(const struct typed_matrix *m, size_t row) {
    return m->data + row * m->stride * attn_type_size(m->type);
}

/* Logits of all sizes: close to each other, far apart, now and then NaN or infinite; poison behind the first
 * `valid`. */
static void fill_typed(struct test_random *random, const struct typed_matrix *m, size_t row, size_t valid) {
    float *x = guarded_floats(m->cols, FLUSH_END);
    enum test_values values = random_below(random, 8) ? TEST_NORMAL : TEST_WILD;
    float width = random_below(random, 2) ? 1.0f : 30.0f;
    random_fill(random, values, x, valid);
    for (size_t c = 0; c < valid; c++)
        x[c] *= width;
    for (size_t c = 0; random_below(random, 4) == 0 && c < valid; c++)
        x[c] = -INFINITY;
    fill_poison(x + valid, m->cols - valid);
    convert()->narrow(m->type, m->cols, x, typed_at(m, row));
    guarded_free(x);
}

/* What is to be at row `row` of y: the softmax of the widened row, rounded. */
static void expect_typed(const struct typed_matrix *x, size_t row, size_t valid, attn_empty_rows empty, attn_type type,
                         unsigned char *y) {
    float *wide = guarded_floats(x->cols, FLUSH_END);
    convert()->widen(x->type, valid, typed_at(x, row), wide);
    expected_row(wide, valid, x->cols, empty, wide);
    convert()->narrow(type, x->cols, wide, y);
    guarded_free(wide);
}

/* The same elements, of which a NaN is any NaN. */
static void assert_same_elements(attn_type type, size_t n, const void *expected, const void *actual) {
    float *e = guarded_floats(n, FLUSH_END), *a = guarded_floats(n, FLUSH_END);
    convert()->widen(type, n, expected, e);
    convert()->widen(type, n, actual, a);
    assert_same_bits(e, a, n);
    guarded_free(e);
    guarded_free(a);
}

static void check_types(struct test_random *random, attn_type from, attn_type to, size_t rows, size_t cols,
                        bool in_place) {
    size_t element = attn_type_size(to), bytes;
    struct typed_matrix x = new_typed(random, from, rows, cols), y = in_place ? x : new_typed(random, to, rows, cols);
    int64_t *lens = guarded_alloc(rows * sizeof *lens, sizeof *lens, FLUSH_END);
    attn_softmax_args args = {.isa = test_isa(), .batch = 1, .rows = rows, .cols = cols};
    args.x = (attn_tensor){x.data, from, 0, 0, x.stride, 1};
    args.y = (attn_tensor_out){y.data, to, 0, 0, y.stride, 1};
    args.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_ROW, .lens.i64 = lens};
    args.empty = random_below(random, 2) ? ATTN_EMPTY_MEAN : ATTN_EMPTY_ZERO;
    y.type = to;
    bytes = ((rows - 1) * y.stride + cols) * element;
    unsigned char *expected = guarded_alloc(bytes, element, FLUSH_END);
    test_case("from=%d to=%d rows=%zu cols=%zu in_place=%d", (int)from, (int)to, rows, cols, in_place);
    for (size_t i = 0; i < rows; i++) {
        lens[i] = random_below(random, 3) ? random_length(random, cols) : (int64_t)cols;
        fill_typed(random, &x, i, visible(&args.valid, 0, i, rows, cols));
    }
    memcpy(expected, y.data, bytes); /* gaps */
    for (size_t i = 0; i < rows; i++)
        expect_typed(&x, i, visible(&args.valid, 0, i, rows, cols), args.empty, to, expected + i * y.stride * element);
    assert_ok(attn_masked_softmax(&args, NULL));
    for (size_t i = 0; i < rows; i++) {
        unsigned char *wanted = expected + i * y.stride * element;
        assert_same_elements(to, cols, wanted, typed_at(&y, i));
        memcpy(wanted, typed_at(&y, i), cols * element);
    }
    assert_memory_equal(expected, y.data, bytes);
    guarded_free(expected);
    guarded_free(lens);
    if (!in_place)
        guarded_free(y.data);
    guarded_free(x.data);
}

/* Short rows are computed several at a time, rows of more than 2048 visible columns in pieces. */
static void rounds_the_softmax_of_widened_rows(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const attn_type types[] = {ATTN_F32, ATTN_BF16, ATTN_F16};
    static const size_t long_rows[] = {1023, 1025, 2047, 2048, 2049, 2065, 9000};
    for (size_t i = 0; i < (test_quick() ? 7 : 70) * 9; i++) {
        attn_type from = types[i % 3], to = types[i / 3 % 3];
        size_t cols = i % 2 ? random_between(&random, 1, 90) : long_rows[i / 9 % 7] + random_below(&random, 2);
        bool in_place = attn_type_size(from) == attn_type_size(to) && random_below(&random, 2);
        check_types(&random, from, to, random_between(&random, 1, i % 2 ? 40 : 4), cols, in_place);
    }
}

/* The largest logit comes last, so that each piece has another maximum. A sum that is off by its last bit changes one
 * in some 2^13 results of F16. */
static void rounds_rows_whose_logits_grow(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { ROWS = 40, COLS = 5000 };
    float *x = guarded_floats((size_t)ROWS * COLS, FLUSH_END), *wide = guarded_floats(COLS, FLUSH_END);
    uint16_t *y = guarded_alloc((size_t)ROWS * COLS * sizeof *y, sizeof *y, FLUSH_END);
    uint16_t *expected = guarded_alloc(COLS * sizeof *expected, sizeof *expected, FLUSH_END);
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++)
        x[i] = (float)(i % COLS) / COLS + random_uniform(&random, 0.0f, 0.5f);
    attn_softmax_args args = {.isa = test_isa(), .batch = 1, .rows = ROWS, .cols = COLS};
    args.x = (attn_tensor){x, ATTN_F32, 0, 0, COLS, 1};
    args.y = (attn_tensor_out){y, ATTN_F16, 0, 0, COLS, 1};
    assert_ok(attn_masked_softmax(&args, NULL));
    for (size_t i = 0; i < ROWS; i++) {
        row_of_floats(reference(), x + i * COLS, COLS, COLS, wide);
        convert()->narrow(ATTN_F16, COLS, wide, expected);
        assert_same_elements(ATTN_F16, COLS, expected, y + i * COLS);
    }
    guarded_free(x);
    guarded_free(wide);
    guarded_free(y);
    guarded_free(expected);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_reference_on_every_tail),
        cmocka_unit_test(equals_reference_on_long_rows),
        cmocka_unit_test(equals_reference_on_any_values),
        cmocka_unit_test(equals_reference_on_special_rows),
        cmocka_unit_test(obeys_its_contract),
        cmocka_unit_test(is_near_double),
        cmocka_unit_test(public_function_equals_reference),
        cmocka_unit_test(public_function_takes_empty_sizes),
        cmocka_unit_test(public_function_reads_one_matrix_for_all),
        cmocka_unit_test(rounds_the_softmax_of_widened_rows),
        cmocka_unit_test(rounds_rows_whose_logits_grow),
    };
    return test_run(tests);
}
