/* The two products of attention for few rows: one ISA's kernels against the reference, over panels of each type of
 * keys and values, and in place. In class BF16 the reference reads panels too, because pairs are those of their rows. */
#include "dispatch.h"
#include "format.h"
#include "support.h"
#include "types.h"

#include <stdlib.h>
#include <string.h>

/* Of keys and values; main goes through them. */
static attn_type type;

static const struct attn_gemm_kernel *gemm_of(const struct attn_kernels *table) {
    return attn_gemm_for_stored(table, type, ATTN_ARITHMETIC_PORTABLE);
}

static const struct attn_decode_kernel *decode_of(const struct attn_kernels *table) {
    return attn_decode_for(table, gemm_of(table));
}

static const struct attn_convert_kernel *convert(void) {
    return attn_table_convert(&attn_kernels_scalar);
}

enum { MOST_ROWS = 12, MOST_KEYS = 5 * ATTN_BLOCK, MOST_SIZE = 300, FURTHER = 31 };

/* Keys or values as rows, and what multiplies them. */
struct problem {
    size_t rows, keys, size;
    float *given;   /* [keys][size], what elements are once they are widened */
    void *stored;   /* the same as elements of the type */
    float *query;   /* [rows][size] */
    float *weight;  /* [rows][keys] */
    float *output;  /* [rows][size]: where chains start */
    float *factors; /* [blocks][MOST_ROWS] */
};

static float *random_floats(struct test_random *random, enum test_values values, size_t n) {
    float *x = guarded_floats(n, FLUSH_END);
    random_fill(random, values, x, n);
    return x;
}

/* Elements of the type, of INT8 any; x becomes what they are. */
static void *store(struct test_random *random, float *x, size_t n) {
    size_t size = attn_type_size(type);
    char *stored = guarded_alloc(n * size, size, FLUSH_END);
    if (type == ATTN_INT8)
        for (size_t i = 0; i < n; i++)
            stored[i] = (char)random_below(random, 256);
    else
        convert()->narrow(type, n, x, stored);
    convert()->widen(type, n, stored, x);
    return stored;
}

static struct problem new_problem(struct test_random *random, enum test_values values) {
    const struct attn_decode_kernel *kernel = decode_of(test_table());
    size_t most_rows = random_below(random, 2) ? kernel->rows : attn_max(kernel->rows, kernel->rows_in_place);
    size_t rows = random_between(random, 1, most_rows), most = random_below(random, 3) ? 100 : MOST_KEYS;
    size_t keys = random_between(random, 1, most), size = random_between(random, 1, MOST_SIZE);
    size_t blocks = (keys + ATTN_BLOCK - 1) / ATTN_BLOCK;
    float *given = random_floats(random, values, keys * size), *query = random_floats(random, values, rows * size);
    float *weight = random_floats(random, values, rows * keys);
    if (type == ATTN_BF16) { /* the products take BF16 numbers alone */
        convert()->round_bf16(rows * size, query, query);
        convert()->round_bf16(rows * keys, weight, weight);
    }
    return (struct problem){.rows = rows,
                            .keys = keys,
                            .size = size,
                            .given = given,
                            .stored = store(random, given, keys * size),
                            .query = query,
                            .weight = weight,
                            .output = random_floats(random, values, rows * size),
                            .factors = random_floats(random, values, blocks * MOST_ROWS)};
}

static void free_problem(struct problem *problem) {
    guarded_free(problem->given);
    guarded_free(problem->stored);
    guarded_free(problem->query);
    guarded_free(problem->weight);
    guarded_free(problem->output);
    guarded_free(problem->factors);
}

/* How the kernel finds keys or values. */
enum source { WIDE, NARROW, IN_PLACE, SOURCES };

static const char *const source_names[] = {"panels", "narrow panels", "in place"};

/* The given rows as columns (keys) or rows (values) of panels from number `first` on, in guarded memory. What lies
 * beside them in pairs is NaN. */
static struct attn_panels pack(const struct attn_gemm_kernel *gemm, const struct problem *problem, bool as_columns,
                               bool narrow, size_t first) {
    size_t cols = narrow ? attn_min(gemm->b.cols, ATTN_LANES) : gemm->b.cols, panel = 0, element = attn_type_size(type);
    size_t k = as_columns ? problem->size : first + problem->keys,
           n = as_columns ? first + problem->keys : problem->size;
    assert_true(attn_panel_bytes(&gemm->b, k, cols, &panel));
    size_t bytes = (n + cols - 1) / cols * panel;
    struct attn_panels panels = {guarded_alloc(bytes, ATTN_ALIGNMENT, FLUSH_END), cols, panel};
    memset(panels.data, type == ATTN_BF16 ? 0xff : 0, bytes);
    gemm->pack(&(struct attn_pack_args){.k = as_columns ? k : problem->keys,
                                        .n = as_columns ? problem->keys : n,
                                        .b = problem->stored,
                                        .k_stride = as_columns ? element : problem->size * element,
                                        .n_stride = as_columns ? problem->size * element : element,
                                        .packed = panels,
                                        .row = as_columns ? 0 : first,
                                        .column = as_columns ? first : 0});
    return panels;
}

/* The rows in place, with a gap between them; what is not theirs is NaN, or not there. */
static struct attn_panels place(struct test_random *random, const struct problem *problem) {
    size_t element = attn_type_size(type), row = problem->size * element;
    size_t stride = row + random_below(random, 4) * element, bytes = (problem->keys - 1) * stride + row;
    char *rows = guarded_alloc(bytes, element, random_below(random, 2) ? FLUSH_END : FLUSH_START);
    memset(rows, 0xff, bytes);
    for (size_t i = 0; i < problem->keys; i++)
        memcpy(rows + i * stride, (char *)problem->stored + i * row, row);
    return (struct attn_panels){.data = rows, .stride = stride};
}

/* Rows with a gap between them, and room for what the kernel may write beyond. */
static float *new_result(const struct problem *problem, size_t width, size_t stride, const float *start) {
    float *y = guarded_floats((problem->rows - 1) * stride + width + FURTHER, FLUSH_END);
    for (size_t r = 0; r < problem->rows; r++)
        for (size_t i = 0; i < width + FURTHER; i++)
            y[r * stride + i] = start && i < width ? start[r * width + i] : 0.0f;
    return y;
}

static void compare(const struct problem *problem, size_t width, const float *expected, const float *y, size_t stride) {
    for (size_t r = 0; r < problem->rows; r++)
        assert_same_bits(expected + r * width, y + r * stride, width);
}

/* Of the class' reference: in class F32 from rows in place, of whatever type they are. */
static float *reference(const struct problem *problem, struct attn_decode_args args, bool of_values) {
    const struct attn_kernels *scalar = &attn_kernels_scalar;
    bool in_place = type != ATTN_BF16;
    const struct attn_decode_kernel *kernel = in_place ? attn_table_decode(scalar) : decode_of(scalar);
    size_t width = of_values ? problem->size : problem->keys;
    args.first = in_place ? 0 : args.first;
    args.b = in_place ? (struct attn_panels){.data = problem->given, .stride = problem->size * sizeof(float)}
                      : pack(gemm_of(scalar), problem, !of_values, false, args.first);
    args.y = guarded_floats(problem->rows * width, FLUSH_END);
    args.y_stride = width;
    if (of_values)
        memcpy(args.y, problem->output, problem->rows * width * sizeof(float));
    if (in_place)
        (of_values ? kernel->values_in_place : kernel->scores_in_place)(&args);
    else
        (of_values ? kernel->values : kernel->scores)(&args);
    if (!in_place)
        guarded_free(args.b.data);
    return args.y;
}

/* x as a kernel of class BF16 takes it, which has BF16 numbers for it: of probabilities each block begins as many floats
 * after the one before it as a block has keys. */
static void *new_x(const struct problem *problem, const struct attn_decode_kernel *kernel, bool of_values,
                   size_t *stride) {
    size_t width = of_values ? problem->keys : problem->size, size = attn_type_size(kernel->x);
    size_t last = of_values ? (width - 1) / ATTN_BLOCK * ATTN_BLOCK : 0;
    const float *from = of_values ? problem->weight : problem->query;
    *stride = last * sizeof(float) + (width - last) * size;
    char *x = guarded_alloc(problem->rows * *stride, size, FLUSH_END);
    for (size_t r = 0; r < problem->rows; r++)
        for (size_t i = 0, n; i < width; i += n) {
            n = of_values ? attn_min(ATTN_BLOCK, width - i) : width;
            convert()->narrow(kernel->x, n, from + r * width + i, x + r * *stride + i * sizeof(float));
        }
    return x;
}

static void check(struct test_random *random, const struct problem *problem, bool of_values, enum source source) {
    const struct attn_gemm_kernel *gemm = gemm_of(test_table());
    const struct attn_decode_kernel *kernel = decode_of(test_table());
    size_t width = of_values ? problem->size : problem->keys, stride = width + FURTHER + random_below(random, 9);
    size_t first = source == IN_PLACE ? 0 : random_below(random, 3) * ATTN_MAX_COLS;
    if (of_values)
        first += random_below(random, source == IN_PLACE ? gemm->b.k_unit : ATTN_MAX_COLS);
    struct attn_decode_args args = {.rows = problem->rows,
                                    .keys = problem->keys,
                                    .size = problem->size,
                                    .x = of_values ? problem->weight : problem->query,
                                    .x_stride = (of_values ? problem->keys : problem->size) * sizeof(float),
                                    .first = first,
                                    .fetched = random_below(random, 2),
                                    .distant = (int)random_below(random, 3)};
    if (of_values) {
        static const enum attn_start starts[] = {ATTN_START_ZERO, ATTN_START_C, ATTN_START_SCALE};
        args.start = starts[random_below(random, 3)];
        args.factors = problem->factors;
        args.factor_stride = MOST_ROWS;
    }
    test_case("%s of %zu rows, %zu keys of %zu, %s from %zu on, start %d", of_values ? "values" : "scores",
              problem->rows, problem->keys, problem->size, source_names[source], first, (int)args.start);
    float *expected = reference(problem, args, of_values);
    args.b = source == IN_PLACE ? place(random, problem)
                                : pack(gemm, problem, !of_values, source == NARROW && !of_values, first);
    void *x = new_x(problem, kernel, of_values, &args.x_stride);
    args.x = x;
    args.y = new_result(problem, width, stride, of_values ? problem->output : NULL);
    args.y_stride = stride;
    if (source == IN_PLACE)
        (of_values ? kernel->values_in_place : kernel->scores_in_place)(&args);
    else
        (of_values ? kernel->values : kernel->scores)(&args);
    compare(problem, width, expected, args.y, stride);
    guarded_free(x);
    guarded_free(args.y);
    guarded_free(expected);
    guarded_free(args.b.data);
}

static void check_values_of(struct test_random *random, enum test_values values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        struct problem problem = new_problem(random, values);
        const struct attn_decode_kernel *kernel = decode_of(test_table());
        enum source first = problem.rows <= kernel->rows ? WIDE : IN_PLACE;
        for (enum source source = first; source < (kernel->scores_in_place ? SOURCES : IN_PLACE); source++) {
            check(random, &problem, false, source);
            check(random, &problem, true, source);
        }
        free_problem(&problem);
    }
}

static void equals_reference(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    check_values_of(&random, TEST_NORMAL, test_quick() ? 30 : 300);
}

/* Overflow, denormals, infinities and NaN go through the chain as in the reference. */
static void equals_reference_on_any_values(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    check_values_of(&random, TEST_WILD, test_quick() ? 10 : 100);
    check_values_of(&random, TEST_NASTY, test_quick() ? 10 : 100);
}

static void is_for_few_rows(void **state) {
    (void)state;
    const struct attn_decode_kernel *kernel = decode_of(test_table());
    const struct attn_gemm_kernel *gemm = gemm_of(test_table());
    assert_non_null(kernel->name);
    assert_int_equal(kernel->rows, 2);
    assert_true(kernel->scores_in_place ? kernel->rows_in_place >= 2 && kernel->rows_in_place <= MOST_ROWS
                                        : kernel->rows_in_place == 0);
    assert_int_equal(kernel->arithmetic, gemm->arithmetic);
    assert_int_equal(kernel->type, type);
    assert_int_equal(kernel->x, gemm->a);
    assert_int_equal(kernel->scores_in_place != NULL, kernel->values_in_place != NULL);
    assert_true(type != ATTN_F32 || kernel->scores_in_place);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_for_few_rows),
        cmocka_unit_test(equals_reference),
        cmocka_unit_test(equals_reference_on_any_values),
    };
    static const attn_type types[] = {ATTN_F32, ATTN_F16, ATTN_INT8, ATTN_F8_E4M3, ATTN_F8_E5M2, ATTN_BF16};
    int failed = 0;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        type = types[i];
        if (decode_of(test_table())) /* scalar has none of types that are widened, Arm none of class BF16 */
            failed += test_run(tests);
    }
    return failed;
}
