/* GEMM of class F32: packer and kernels of one ISA, for B of floats and of each type that is widened, against the
 * reference; and the public functions around them. */
#include "flags.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch.h"
#include "types.h"

#define START_COUNT (ATTN_START_SCALE + 1)

/* How b lies in memory before it is packed. */
enum layout { LAYOUT_N_UNIT, LAYOUT_K_UNIT, LAYOUT_GENERAL, LAYOUT_COUNT };

static const char *const start_names[] = {"zero", "bias", "c", "scaled c"};
static const char *const layout_names[] = {"n_stride=1", "k_stride=1", "general strides"};

/* The kernel under test, one of class F32; main goes through them. Other classes have tests of their own. */
static const struct attn_gemm_kernel *kernel_of_run;

static const struct attn_gemm_kernel *kernel(void) {
    return kernel_of_run;
}
/* Of the class over floats: its B is what the kernel's is once it is widened. */
static const struct attn_gemm_kernel *reference(void) {
    return attn_gemm_find(&attn_kernels_scalar, ATTN_CLASS_F32);
}

static const struct attn_convert_kernel *convert(void) {
    return attn_table_convert(&attn_kernels_scalar);
}

/* Of an element of the kernel's B. */
static attn_type type(void) {
    return kernel()->b.type;
}
static size_t size(void) {
    return attn_type_size(type());
}

/* n elements of B that are these floats, which they can be: narrowing to E5M2 would leave no infinity. */
static void store_elements(const float *x, size_t n, void *to) {
    for (size_t i = 0; i < n; i++)
        if (type() == ATTN_INT8) {
            ((int8_t *)to)[i] = (int8_t)x[i];
        } else if (type() == ATTN_F8_E5M2) {
            uint16_t half;
            convert()->narrow(ATTN_F16, 1, x + i, &half);
            ((uint8_t *)to)[i] = (uint8_t)(half >> 8);
        } else {
            convert()->narrow(type(), 1, x + i, (char *)to + i * size());
        }
}

/* Makes x[n] numbers that elements of B can be: of INT8 integers that follow from the bits. */
static void round_elements(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        if (type() == ATTN_INT8) {
            x[i] = (float)((int)(bits >> 16 & 0xff) - 128);
        } else if (type() != ATTN_F8_E5M2 || !isinf(x[i])) {
            convert()->narrow(type(), 1, x + i, &bits);
            convert()->widen(type(), 1, &bits, x + i);
        }
    }
}

static void check_element(float expected, const void *actual) {
    float x;
    convert()->widen(type(), 1, actual, &x);
    assert_same_bits(&expected, &x, 1);
}

/* Floats as bytes. */
static size_t bytes_of(size_t floats) {
    return floats * sizeof(float);
}

static float *new_floats(size_t n) {
    float *x = malloc((n + 1) * sizeof *x);
    assert_non_null(x);
    return x;
}

static float *new_random(struct test_random *random, enum test_values values, size_t n) {
    float *x = new_floats(n);
    random_fill(random, values, x, n);
    return x;
}

/* Dense matrices and the reference's answers. An element depends on one row and one column alone, so that every smaller
 * problem of this k is the top left corner of this one. */
struct problem {
    size_t m, n, k;
    float *a, *b, *bias, *c;      /* [m][k], [k][n], [n], [m][n] */
    float *scale;                 /* [m] */
    float *expected[START_COUNT]; /* [m][n] */
};

/* The reference's first `cols` columns of c for keys [k0, k1), k0 < k1 or both 0. */
static void run_reference(const struct problem *problem, size_t cols, size_t k0, size_t k1, enum attn_start start,
                          float *c) {
    size_t k = problem->k, n = problem->n;
    float *packed = new_floats(k * n);
    struct attn_panels panels = {packed, 1, bytes_of(k)};
    reference()->pack(&(struct attn_pack_args){
        .k = k, .n = n, .b = problem->b, .k_stride = bytes_of(n), .n_stride = bytes_of(1), .packed = panels});
    memcpy(c, problem->c, problem->m * n * sizeof *c);
    reference()->run(&(struct attn_gemm_args){.m = problem->m,
                                              .n = cols,
                                              .k = k1 - k0,
                                              .a = problem->a + k0,
                                              .a_stride = bytes_of(k),
                                              .b = panels,
                                              .row = k0,
                                              .start = start,
                                              .factors = start == ATTN_START_BIAS ? problem->bias : problem->scale,
                                              .c = c,
                                              .c_stride = bytes_of(n)});
    free(packed);
}

static struct problem new_problem(struct test_random *random, enum test_values values, size_t m, size_t n, size_t k) {
    struct problem problem = {.m = m, .n = n, .k = k};
    problem.a = new_random(random, values, m * k);
    problem.b = new_random(random, values, k * n);
    round_elements(problem.b, k * n);
    problem.bias = new_random(random, values, n);
    problem.c = new_random(random, values, m * n);
    problem.scale = new_random(random, values, m);
    for (int start = 0; start < START_COUNT; start++) {
        problem.expected[start] = new_floats(m * n);
        run_reference(&problem, n, 0, k, (enum attn_start)start, problem.expected[start]);
    }
    return problem;
}

static void free_problem(struct problem *problem) {
    free(problem->a);
    free(problem->b);
    free(problem->bias);
    free(problem->c);
    free(problem->scale);
    for (int start = 0; start < START_COUNT; start++)
        free(problem->expected[start]);
}

/* A guarded copy of the top left corner of a dense matrix. */
static struct test_matrix corner(const float *dense, size_t dense_cols, size_t rows, size_t cols, size_t gap,
                                 enum flush flush) {
    struct test_matrix matrix = test_matrix(rows, cols, cols + gap, flush);
    for (size_t i = 0; cols > 0 && i < rows; i++)
        memcpy(matrix.data + i * matrix.stride, dense + i * dense_cols, cols * sizeof *dense);
    return matrix;
}

/* ---- Packing ---- */

struct packed {
    char *data;
    size_t cols, count, panel_stride; /* in elements */
};

static struct attn_panels panels_of(const struct packed *packed) {
    return (struct attn_panels){packed->data, packed->cols, packed->panel_stride * size()};
}

static const char *element_at(const struct packed *packed, size_t p, size_t j) {
    return packed->data + (j / packed->cols * packed->panel_stride + p * packed->cols + j % packed->cols) * size();
}

static size_t panel_count(const struct packed *packed, size_t n) {
    return (n + packed->cols - 1) / packed->cols;
}

static size_t panel_cols(int narrow) {
    return narrow && kernel()->b.cols > ATTN_LANES ? ATTN_LANES : kernel()->b.cols;
}

/* Packs the first n columns of the problem's b from guarded memory in the given layout into guarded memory. */
static struct packed pack(const struct problem *problem, size_t n, enum layout layout, size_t gap, enum flush flush,
                          int narrow) {
    size_t k = problem->k, cols = panel_cols(narrow), step = layout == LAYOUT_GENERAL ? 3 : 1;
    bool by_column = layout == LAYOUT_K_UNIT;
    size_t rows = by_column ? n : k, width = by_column ? k : n;
    size_t row = width * step + gap, count = rows && width ? (rows - 1) * row + (width - 1) * step + 1 : 0;
    char *b = guarded_alloc(count * size(), size(), flush);
    size_t k_stride = by_column ? 1 : row, n_stride = by_column ? row : step;
    for (size_t p = 0; p < k; p++)
        for (size_t j = 0; j < n; j++)
            store_elements(problem->b + p * problem->n + j, 1, b + (p * k_stride + j * n_stride) * size());

    struct packed packed = {.cols = cols, .panel_stride = k * cols + gap};
    packed.count = n == 0 ? 0 : (panel_count(&packed, n) - 1) * packed.panel_stride + k * cols;
    packed.data = guarded_alloc(packed.count * size(), ATTN_ALIGNMENT, flush);
    kernel()->pack(&(struct attn_pack_args){.k = k,
                                            .n = n,
                                            .b = b,
                                            .k_stride = k_stride * size(),
                                            .n_stride = n_stride * size(),
                                            .packed = panels_of(&packed)});
    guarded_free(b);
    return packed;
}

/* Every column in its place, the last one again beyond it, nothing between the panels. */
static void check_packed(const struct problem *problem, size_t n, const struct packed *packed) {
    size_t k = problem->k, cols = packed->cols;
    for (size_t i = 0; i < panel_count(packed, n); i++)
        for (size_t p = 0; p < k; p++)
            for (size_t j = i * cols; j < (i + 1) * cols; j++)
                check_element(problem->b[p * problem->n + (j < n ? j : n - 1)], element_at(packed, p, j));
    for (size_t i = 0; i + 1 < panel_count(packed, n); i++) {
        const char *gap = element_at(packed, k, i * cols),
                   *end = packed->data + (i + 1) * packed->panel_stride * size();
        while ((uintptr_t)gap % sizeof(float) != 0)
            gap++;
        for (; gap + sizeof(float) <= end; gap += sizeof(float))
            assert_true(is_untouched((const float *)(const void *)gap));
    }
}

static void packs_every_tail(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const size_t ks[] = {0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 70};
    size_t gaps[] = {0, 16, 5};
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
        struct problem problem = new_problem(&random, TEST_WILD, 0, 2 * kernel()->b.cols + 1, ks[i]);
        for (size_t n = 0; n <= problem.n; n += test_quick() ? random_between(&random, 1, 5) : 1)
            for (enum layout layout = 0; layout < LAYOUT_COUNT; layout++) {
                size_t gap = gaps[(n + i) % 3];
                enum flush flush = n % 2 ? FLUSH_START : FLUSH_END;
                test_case("pack k=%zu n=%zu %s gap=%zu flush=%d", problem.k, n, layout_names[layout], gap, (int)flush);
                for (int narrow = 0; narrow < 2; narrow++) {
                    struct packed packed = pack(&problem, n, layout, gap, flush, narrow);
                    check_packed(&problem, n, &packed);
                    guarded_free(packed.data);
                }
            }
        free_problem(&problem);
    }
}

/* Rows row .. row + k - 1 and columns column .. column + n - 1 of the problem's b to their places. */
static void pack_piece(const struct problem *problem, const struct packed *packed, size_t row, size_t k, size_t column,
                       size_t n) {
    char *b = guarded_alloc(k * n * size(), size(), FLUSH_END);
    for (size_t p = 0; p < k; p++)
        store_elements(problem->b + (row + p) * problem->n + column, n, b + p * n * size());
    kernel()->pack(&(struct attn_pack_args){.k = k,
                                            .n = n,
                                            .b = b,
                                            .k_stride = n * size(),
                                            .n_stride = size(),
                                            .packed = panels_of(packed),
                                            .row = row,
                                            .column = column});
    guarded_free(b);
}

/* Columns appended in pieces, as keys are, or rows, as values are. */
static void packs_in_pieces(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < (test_quick() ? 100 : 1000); i++) {
        struct problem problem = new_problem(&random, TEST_WILD, 0, random_between(&random, 1, 3 * ATTN_MAX_COLS),
                                             random_between(&random, 1, 40));
        bool columns = i % 2;
        struct packed packed = pack(&problem, problem.n, LAYOUT_N_UNIT, i % 3, FLUSH_END, i % 4 < 2);
        size_t total = columns ? problem.n : problem.k;
        memset(packed.data, 0xff, packed.count * size());
        test_case("pack k=%zu n=%zu in pieces of %s", problem.k, problem.n, columns ? "columns" : "rows");
        for (size_t done = 0, taken; done < total; done += taken) {
            taken = random_between(&random, 1, total - done);
            if (columns)
                pack_piece(&problem, &packed, 0, problem.k, done, taken);
            else
                pack_piece(&problem, &packed, done, taken, 0, problem.n);
        }
        for (size_t p = 0; p < problem.k; p++)
            for (size_t j = 0; j < problem.n; j++)
                check_element(problem.b[p * problem.n + j], element_at(&packed, p, j));
        guarded_free(packed.data);
        free_problem(&problem);
    }
}

/* One element that is not finite, among the rows that are asked for or not. E4M3 has NaN alone, INT8 has none. */
static void finds_what_is_not_finite(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const float values[] = {INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < (test_quick() ? 200 : 2000); i++) {
        struct problem problem = new_problem(&random, TEST_NORMAL, 0, random_between(&random, 1, 3 * ATTN_MAX_COLS),
                                             random_between(&random, 1, 40));
        size_t bad_row = random_below(&random, problem.k), bad_column = random_below(&random, problem.n);
        size_t row = random_below(&random, problem.k), k = random_between(&random, 1, problem.k - row);
        float *bad = problem.b + bad_row * problem.n + bad_column;
        *bad = type() == ATTN_F8_E4M3 ? NAN : values[i % 3];
        round_elements(bad, 1);
        struct packed packed = pack(&problem, problem.n, LAYOUT_N_UNIT, 0, FLUSH_END, 0);
        struct attn_panels panels = panels_of(&packed);
        test_case("rows %zu .. %zu, %g in row %zu", row, row + k - 1, (double)values[i % 3], bad_row);
        assert_int_equal(kernel()->finite(&panels, row, k, problem.n),
                         type() == ATTN_INT8 || bad_row < row || bad_row >= row + k);
        guarded_free(packed.data);
        free_problem(&problem);
    }
}

/* ---- Running ---- */

struct run_case {
    size_t m, n;
    enum attn_start start;
    size_t gap; /* floats between rows and between panels */
    enum flush flush;
};

/* Which function takes b from where. */
enum side { SIDE_PACKED, SIDE_NARROW, SIDE_ROWS, SIDE_COLUMNS, SIDE_COUNT };

static const char *const side_names[] = {"packed", "packed narrow", "rows", "columns"};

/* The first n columns of the problem's b in every form in which a kernel takes them. */
struct right {
    struct packed packed, narrow;
    struct test_matrix rows, columns; /* [k][n], [n][k] */
};

static struct right new_right(const struct problem *problem, size_t n, enum layout layout, size_t gap,
                              enum flush flush) {
    struct right right = {.packed = pack(problem, n, layout, gap, flush, 0),
                          .narrow = pack(problem, n, layout, gap, flush, 1),
                          .rows = corner(problem->b, problem->n, problem->k, n, gap, flush),
                          .columns = test_matrix(n, problem->k, problem->k + gap, flush)};
    for (size_t j = 0; j < n; j++)
        for (size_t p = 0; p < problem->k; p++)
            right.columns.data[j * right.columns.stride + p] = problem->b[p * problem->n + j];
    return right;
}

static void free_right(struct right *right) {
    guarded_free(right->packed.data);
    guarded_free(right->narrow.data);
    test_matrix_free(&right->rows);
    test_matrix_free(&right->columns);
}

static void run_side(struct attn_gemm_args *args, const struct right *right, enum side side) {
    if (side == SIDE_PACKED || side == SIDE_NARROW) {
        const struct packed *packed = side == SIDE_PACKED ? &right->packed : &right->narrow;
        args->b = panels_of(packed);
        kernel()->run(args);
    } else if (side == SIDE_ROWS) {
        args->b = (struct attn_panels){.data = right->rows.data, .stride = bytes_of(right->rows.stride)};
        kernel()->run_rows(args);
    } else {
        args->b = (struct attn_panels){.data = right->columns.data, .stride = bytes_of(right->columns.stride)};
        kernel()->run_columns(args);
    }
}

/* Exceptions that the reference raises over the top left m x n, with the start asked for and with +0: the last
 * column, with a start of +0, fills up the last panel. Where rows in place end within a register, infinities in a
 * are multiplied by zeros. */
static int reference_flags(const struct problem *problem, const struct run_case *run, enum side side) {
    struct problem part = *problem;
    int infinite = 0;
    float *c = new_floats(problem->m * problem->n);
    part.m = run->m;
    flags_clear();
    run_reference(&part, run->n, 0, part.k, run->start, c);
    run_reference(&part, run->n, 0, part.k, ATTN_START_ZERO, c);
    int flags = flags_raised();
    for (size_t i = 0; i < run->m * part.k; i++)
        infinite |= flags_of_factor(part.a[i]);
    for (size_t i = 0; i < run->m && run->start == ATTN_START_SCALE; i++)
        flags |= flags_of_factor(part.scale[i]);
    free(c);
    return flags | (side == SIDE_ROWS ? infinite : 0);
}

/* Memory for what the kernel widens, in every other case. */
static void *new_widened(const struct run_case *run, size_t k) {
    size_t bytes = attn_gemm_widened_bytes(kernel(), run->m, k);
    return bytes > 0 && (run->m + run->n) % 2 == 0 ? poisoned_alloc(bytes, FLUSH_END) : NULL;
}

/* The top left m x n of the problem, all memory guarded and exactly as large as described. */
static void check_side(const struct problem *problem, const struct run_case *run, const struct right *right,
                       enum side side) {
    test_case("m=%zu n=%zu k=%zu start=%s gap=%zu flush=%d %s", run->m, run->n, problem->k, start_names[run->start],
              run->gap, (int)run->flush, side_names[side]);
    struct test_matrix a = corner(problem->a, problem->k, run->m, problem->k, run->gap, run->flush);
    struct test_matrix expected =
        corner(problem->expected[run->start], problem->n, run->m, run->n, run->gap, run->flush);
    struct test_matrix c = run->start >= ATTN_START_C
                               ? corner(problem->c, problem->n, run->m, run->n, run->gap, run->flush)
                               : test_matrix(run->m, run->n, run->n + run->gap, run->flush);
    float *scale = run->start == ATTN_START_SCALE ? guarded_copy(problem->scale, run->m, run->flush) : NULL;
    float *bias = run->start == ATTN_START_BIAS ? guarded_copy(problem->bias, run->n, run->flush) : NULL;
    void *widened = new_widened(run, problem->k);
    flags_clear();
    run_side(&(struct attn_gemm_args){.m = run->m,
                                      .n = run->n,
                                      .k = problem->k,
                                      .a = a.data,
                                      .a_stride = bytes_of(a.stride),
                                      .start = run->start,
                                      .factors = bias ? bias : scale,
                                      .c = c.data,
                                      .c_stride = bytes_of(c.stride),
                                      .widened = widened},
             right, side);
    int raised = flags_raised();
    if (raised)
        assert_flags(raised, reference_flags(problem, run, side));
    assert_same_matrix(&expected, &c);
    guarded_free(widened);
    guarded_free(bias);
    guarded_free(scale);
    test_matrix_free(&c);
    test_matrix_free(&expected);
    test_matrix_free(&a);
}

/* B in place is floats. */
static void check_run(const struct problem *problem, const struct run_case *run, const struct right *right) {
    for (enum side side = 0; side < (type() == ATTN_F32 ? SIDE_COUNT : SIDE_ROWS); side++)
        check_side(problem, run, right, side);
}

static size_t max_m(void) {
    return 2 * kernel()->rows + 1;
}
static size_t max_n(void) {
    return 2 * kernel()->b.cols + 1;
}

/* Every m x n up to the problem's with every start, gap and side; in quick runs one of these at random for each n. */
static void check_all_tails(struct test_random *random, const struct problem *problem) {
    enum { GAPS = 3, ROUNDS = START_COUNT * GAPS * 2 };
    const size_t gaps[GAPS] = {0, 3, 16};
    for (size_t n = 0; n <= problem->n; n++)
        for (size_t i = 0; i < (test_quick() ? 1 : ROUNDS); i++) {
            size_t round = test_quick() ? random_below(random, ROUNDS) : i;
            struct run_case run = {.n = n,
                                   .start = (enum attn_start)(round % START_COUNT),
                                   .gap = gaps[round / START_COUNT % GAPS],
                                   .flush = round >= ROUNDS / 2 ? FLUSH_START : FLUSH_END};
            struct right right = new_right(problem, n, (enum layout)(n % LAYOUT_COUNT), run.gap, run.flush);
            for (run.m = 0; run.m <= problem->m; run.m++)
                check_run(problem, &run, &right);
            free_right(&right);
        }
}

static void check_some_tails(struct test_random *random, const struct problem *problem, size_t count) {
    for (size_t i = 0; i < count; i++) {
        struct run_case run = {.m = random_below(random, problem->m + 1),
                               .n = random_below(random, problem->n + 1),
                               .start = (enum attn_start)random_below(random, START_COUNT),
                               .gap = random_below(random, 20),
                               .flush = i % 2 ? FLUSH_START : FLUSH_END};
        if (i == 0)
            run.m = problem->m, run.n = problem->n;
        struct right right = new_right(problem, run.n, (enum layout)(i % LAYOUT_COUNT), run.gap, run.flush);
        check_run(problem, &run, &right);
        free_right(&right);
    }
}

static void equals_reference_on_every_tail(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const size_t ks[] = {0, 1, 2, 3, 5, 17};
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
        struct problem problem = new_problem(&random, TEST_NORMAL, max_m(), max_n(), ks[i]);
        check_all_tails(&random, &problem);
        free_problem(&problem);
    }
}

static void equals_reference_on_every_k(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t k = 0; k <= 70; k++) {
        struct problem problem = new_problem(&random, TEST_NORMAL, max_m(), max_n(), k);
        check_some_tails(&random, &problem, test_quick() ? 4 : 60);
        free_problem(&problem);
    }
}

static void equals_reference_on_large_sizes(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const size_t sizes[][3] = {{37, 300, 100}, {16, 100, 255}, {15, 65, 256},  {29, 33, 257},  {17, 70, 511},
                               {9, 49, 513},   {20, 64, 1025}, {31, 47, 1100}, {130, 40, 400}, {115, 70, 1024},
                               {25, 33, 2048}, {1, 300, 100},  {2, 200, 130},  {4, 130, 200},  {6, 128, 256},
                               {20, 40, 4097}, {31, 64, 4200}};
    size_t count = sizeof sizes / sizeof *sizes;
    for (size_t i = 0; i < count; i++) {
        struct problem problem = new_problem(&random, TEST_NORMAL, sizes[i][0], sizes[i][1], sizes[i][2]);
        check_some_tails(&random, &problem, test_quick() ? 1 : 8);
        free_problem(&problem);
    }
}

/* Overflow, denormals, infinities and NaN go through the chain as in the reference. */
static void equals_reference_on_any_values(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < (test_quick() ? 10 : 100); i++) {
        enum test_values values = i % 2 ? TEST_WILD : TEST_NASTY;
        struct problem problem = new_problem(&random, values, max_m(), max_n(), random_below(&random, 24));
        check_some_tails(&random, &problem, 6);
        free_problem(&problem);
    }
}

/* Infinity times what fills up the last panel raises nothing that infinity times the columns does not. */
static void infinite_rows_raise_nothing(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t k = 1; k <= 20; k++) {
        struct problem problem = new_problem(&random, TEST_NORMAL, max_m(), max_n(), k);
        for (size_t i = 0; i < problem.m * k; i++)
            problem.a[i] = INFINITY;
        for (size_t i = 0; i < k * problem.n; i++)
            problem.b[i] = (float)(1 + i % 8); /* in every type */
        for (int start = 0; start < START_COUNT; start++)
            run_reference(&problem, problem.n, 0, k, (enum attn_start)start, problem.expected[start]);
        check_some_tails(&random, &problem, 20);
        free_problem(&problem);
    }
}

/* A negative zero survives as the start, and +0 * -x added to +0 stays +0. */
static void keeps_signs_of_zero(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t k = 0; k < 3; k++) {
        struct problem problem = new_problem(&random, TEST_NORMAL, max_m(), max_n(), k);
        for (size_t i = 0; i < problem.m * k; i++)
            problem.a[i] = i % 3 ? -0.0f : 0.0f;
        for (size_t i = 0; i < problem.n; i++)
            problem.bias[i] = i % 2 ? -0.0f : 0.0f;
        for (size_t i = 0; i < problem.m * problem.n; i++)
            problem.c[i] = i % 2 ? 0.0f : -0.0f;
        for (int start = 0; start < START_COUNT; start++)
            run_reference(&problem, problem.n, 0, k, (enum attn_start)start, problem.expected[start]);
        check_some_tails(&random, &problem, 30);
        free_problem(&problem);
    }
}

/* One row may have any a_stride. */
static void ignores_the_stride_of_one_row(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct problem problem = new_problem(&random, TEST_NORMAL, 1, max_n(), 9);
    struct packed packed = pack(&problem, problem.n, LAYOUT_N_UNIT, 0, FLUSH_END, 0);
    const size_t strides[] = {0, 1, PTRDIFF_MAX / 4};
    for (size_t i = 0; i < 3; i++) {
        test_case("a_stride=%zu", strides[i]);
        float *a = guarded_copy(problem.a, problem.k, FLUSH_END), *c = guarded_floats(problem.n, FLUSH_END);
        kernel()->run(&(struct attn_gemm_args){.m = 1,
                                               .n = problem.n,
                                               .k = problem.k,
                                               .a = a,
                                               .a_stride = bytes_of(strides[i]),
                                               .b = panels_of(&packed),
                                               .c = c,
                                               .c_stride = bytes_of(problem.n)});
        assert_same_bits(problem.expected[ATTN_START_ZERO], c, problem.n);
        guarded_free(a);
        guarded_free(c);
    }
    guarded_free(packed.data);
    free_problem(&problem);
}

/* The product over [k0, k1) of panels that hold more, as attention takes it from packed values. */
static void check_k_range(const struct problem *problem, const struct packed *packed, size_t k0, size_t k1) {
    size_t m = problem->m, n = problem->n, k = k1 - k0;
    float *expected = new_floats(m * n);
    run_reference(problem, n, k0, k1, ATTN_START_ZERO, expected);
    struct test_matrix a = test_matrix(m, k, problem->k, FLUSH_END);
    for (size_t i = 0; i < m; i++)
        memcpy(a.data + i * a.stride, problem->a + i * problem->k + k0, k * sizeof(float));
    float *c = guarded_floats(m * n, FLUSH_END);
    kernel()->run(&(struct attn_gemm_args){.m = m,
                                           .n = n,
                                           .k = k,
                                           .a = a.data,
                                           .a_stride = bytes_of(a.stride),
                                           .b = panels_of(packed),
                                           .row = k0,
                                           .c = c,
                                           .c_stride = bytes_of(n)});
    assert_same_bits(expected, c, m * n);
    guarded_free(c);
    test_matrix_free(&a);
    free(expected);
}

static void runs_on_a_range_of_k(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < (test_quick() ? 6 : 60); i++) {
        size_t m = random_between(&random, 1, max_m()), n = random_between(&random, 1, max_n());
        struct problem problem = new_problem(&random, TEST_NORMAL, m, n, random_between(&random, 1, 300));
        struct packed packed = pack(&problem, n, LAYOUT_N_UNIT, i % 2 * 16, FLUSH_END, 0);
        size_t k0 = random_below(&random, problem.k), k1 = random_between(&random, k0 + 1, problem.k);
        test_case("m=%zu n=%zu k=[%zu, %zu) of %zu", m, n, k0, k1, problem.k);
        check_k_range(&problem, &packed, k0, k1);
        guarded_free(packed.data);
        free_problem(&problem);
    }
}

/* A bias first, the rest of k accumulated: the chain of one call. */
static void continues_a_chain(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct problem problem = new_problem(&random, TEST_NORMAL, max_m(), max_n(), 40);
    struct packed packed = pack(&problem, problem.n, LAYOUT_K_UNIT, 0, FLUSH_END, 0);
    float *c = guarded_floats(problem.m * problem.n, FLUSH_START);
    const size_t cuts[] = {0, 0, 1, 14, 15, 32, 40};
    for (size_t i = 0; i + 1 < sizeof cuts / sizeof *cuts; i++)
        kernel()->run(&(struct attn_gemm_args){.m = problem.m,
                                               .n = problem.n,
                                               .k = cuts[i + 1] - cuts[i],
                                               .a = problem.a + cuts[i],
                                               .a_stride = bytes_of(problem.k),
                                               .b = panels_of(&packed),
                                               .row = cuts[i],
                                               .start = i == 0 ? ATTN_START_BIAS : ATTN_START_C,
                                               .factors = i == 0 ? problem.bias : NULL,
                                               .c = c,
                                               .c_stride = bytes_of(problem.n)});
    assert_same_bits(problem.expected[ATTN_START_BIAS], c, problem.m * problem.n);
    guarded_free(c);
    guarded_free(packed.data);
    free_problem(&problem);
}

/* From the second panel on: the columns of those panels alone. */
static void runs_on_a_range_of_panels(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    size_t cols = kernel()->b.cols, n = 2 * cols + 1;
    struct problem problem = new_problem(&random, TEST_NORMAL, max_m(), n, 19);
    struct packed packed = pack(&problem, n, LAYOUT_N_UNIT, 0, FLUSH_END, 0);
    for (size_t first = 0; first < n; first += cols) {
        test_case("columns from %zu", first);
        struct test_matrix expected =
            corner(problem.expected[ATTN_START_BIAS] + first, n, problem.m, n - first, 2, FLUSH_END);
        struct test_matrix c = test_matrix(problem.m, n - first, n - first + 2, FLUSH_END);
        kernel()->run(&(struct attn_gemm_args){.m = problem.m,
                                               .n = n - first,
                                               .k = problem.k,
                                               .a = problem.a,
                                               .a_stride = bytes_of(problem.k),
                                               .b = panels_of(&packed),
                                               .column = first,
                                               .start = ATTN_START_BIAS,
                                               .factors = problem.bias + first,
                                               .c = c.data,
                                               .c_stride = bytes_of(c.stride)});
        assert_same_matrix(&expected, &c);
        test_matrix_free(&c);
        test_matrix_free(&expected);
    }
    guarded_free(packed.data);
    free_problem(&problem);
}

static void describes_its_tile(void **state) {
    (void)state;
    assert_non_null(kernel()->name);
    assert_in_range(kernel()->rows, 1, ATTN_MAX_ROWS);
    assert_true(kernel()->b.cols >= 1 && ATTN_BLOCK % kernel()->b.cols == 0);
}

/* ---- Independent of the reference ---- */

static float naive_chain(const struct problem *problem, size_t i, size_t j) {
    float sum = problem->bias[j];
    for (size_t p = 0; p < problem->k; p++)
        sum = attn_fmaf(problem->a[i * problem->k + p], problem->b[p * problem->n + j], sum);
    return sum;
}

/* The sum in double, and in *magnitude that of the absolute values. */
static double double_sum(const struct problem *problem, size_t i, size_t j, double *magnitude) {
    double sum = (double)problem->bias[j];
    *magnitude = fabs(sum);
    for (size_t p = 0; p < problem->k; p++) {
        double product = (double)problem->a[i * problem->k + p] * (double)problem->b[p * problem->n + j];
        sum += product;
        *magnitude += fabs(product);
    }
    return sum;
}

static void is_the_naive_chain(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const size_t ks[] = {0, 1, 2, 10, 100, 333};
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
        struct problem problem = new_problem(&random, TEST_NORMAL, 11, 39, ks[i]);
        struct packed packed = pack(&problem, problem.n, LAYOUT_N_UNIT, 0, FLUSH_END, 0);
        float *c = guarded_floats(problem.m * problem.n, FLUSH_END);
        test_case("m=11 n=39 k=%zu", problem.k);
        kernel()->run(&(struct attn_gemm_args){.m = problem.m,
                                               .n = problem.n,
                                               .k = problem.k,
                                               .a = problem.a,
                                               .a_stride = bytes_of(problem.k),
                                               .b = panels_of(&packed),
                                               .start = ATTN_START_BIAS,
                                               .factors = problem.bias,
                                               .c = c,
                                               .c_stride = bytes_of(problem.n)});
        for (size_t e = 0; e < problem.m * problem.n; e++) {
            float chain = naive_chain(&problem, e / problem.n, e % problem.n);
            double magnitude, sum = double_sum(&problem, e / problem.n, e % problem.n, &magnitude);
            assert_same_bits(&chain, &c[e], 1);
            assert_near(sum, (double)c[e], 0x1p-24 * (double)(problem.k + 1) * magnitude);
        }
        guarded_free(c);
        guarded_free(packed.data);
        free_problem(&problem);
    }
}

/* ---- Public functions ---- */

static attn_gemm *create(const struct problem *problem, bool out_by_in, bool with_bias, void **memory) {
    size_t k = problem->k, n = problem->n, bytes = 0;
    char *weight = guarded_alloc(k * n * size(), size(), FLUSH_END);
    for (size_t p = 0; p < k; p++)
        for (size_t j = 0; j < n; j++)
            store_elements(problem->b + p * n + j, 1, weight + (out_by_in ? j * k + p : p * n + j) * size());
    float *bias = with_bias ? guarded_copy(problem->bias, n, FLUSH_END) : NULL;
    attn_gemm_config config = {.isa = test_isa(), .k = k, .n = n};
    config.w = (attn_linear){.weight = weight,
                             .type = type(),
                             .in_stride = out_by_in ? 1 : n,
                             .out_stride = out_by_in ? k : 1,
                             .bias = bias};
    attn_error error = {0};
    attn_gemm *gemm = NULL;
    assert_ok(attn_gemm_size(&config, &bytes, &error));
    *memory = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_gemm_create(&config, *memory, bytes, &gemm, &error));
    assert_null(error.field);
    assert_non_null(gemm);

    /* The weights are not needed any more: whoever reads them now finds NaN. */
    memset(weight, 0xff, k * n * size());
    if (bias)
        memset(bias, 0xff, n * sizeof *bias);
    guarded_free(weight);
    guarded_free(bias);
    return gemm;
}

static void check_public(struct test_random *random, const struct problem *problem) {
    bool out_by_in = random_below(random, 2), with_bias = random_below(random, 2);
    size_t gap = random_below(random, 4);
    test_case("public m=%zu n=%zu k=%zu %s bias=%d gap=%zu", problem->m, problem->n, problem->k,
              out_by_in ? "[out, in]" : "[in, out]", with_bias, gap);
    void *memory;
    attn_gemm *gemm = create(problem, out_by_in, with_bias, &memory);
    attn_error error = {0};
    for (size_t m = 0; m <= problem->m; m += problem->m > 4 ? problem->m : 1) {
        struct test_matrix x = corner(problem->a, problem->k, m, problem->k, gap, FLUSH_END);
        struct test_matrix y = test_matrix(m, problem->n, problem->n + gap, FLUSH_END);
        struct test_matrix expected = corner(problem->expected[with_bias ? ATTN_START_BIAS : ATTN_START_ZERO],
                                             problem->n, m, problem->n, gap, FLUSH_END);
        assert_ok(gemm_rows(gemm, m, x.data, x.stride, y.data, y.stride, NULL, &error));
        assert_null(error.field);
        assert_same_matrix(&expected, &y);
        test_matrix_free(&x);
        test_matrix_free(&y);
        test_matrix_free(&expected);
    }
    guarded_free(memory);
}

static void public_functions_equal_reference(void **state) {
    (void)state;
    if (type() != ATTN_F32 && type() != ATTN_F16) /* are no types of weights of this class */
        return;
    struct test_random random = test_random(__func__);
    const size_t sizes[][3] = {{1, 1, 1},     {3, 2, 1},      {37, 300, 100}, {130, 50, 70},
                               {5, 33, 1100}, {24, 40, 1024}, {64, 64, 64}};
    size_t count = sizeof sizes / sizeof *sizes, rounds = test_quick() ? count + 6 : count + 60;
    for (size_t i = 0; i < rounds; i++) {
        struct problem problem =
            i < count ? new_problem(&random, TEST_NORMAL, sizes[i][0], sizes[i][1], sizes[i][2])
                      : new_problem(&random, TEST_NASTY, random_between(&random, 1, 2 * max_m()),
                                    random_between(&random, 1, 2 * max_n()), random_between(&random, 1, 80));
        check_public(&random, &problem);
        free_problem(&problem);
    }
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(describes_its_tile),
        cmocka_unit_test(packs_every_tail),
        cmocka_unit_test(packs_in_pieces),
        cmocka_unit_test(finds_what_is_not_finite),
        cmocka_unit_test(equals_reference_on_every_tail),
        cmocka_unit_test(equals_reference_on_every_k),
        cmocka_unit_test(equals_reference_on_large_sizes),
        cmocka_unit_test(equals_reference_on_any_values),
        cmocka_unit_test(infinite_rows_raise_nothing),
        cmocka_unit_test(keeps_signs_of_zero),
        cmocka_unit_test(ignores_the_stride_of_one_row),
        cmocka_unit_test(runs_on_a_range_of_k),
        cmocka_unit_test(continues_a_chain),
        cmocka_unit_test(runs_on_a_range_of_panels),
        cmocka_unit_test(is_the_naive_chain),
        cmocka_unit_test(public_functions_equal_reference),
    };
    static const attn_type types[] = {ATTN_F32, ATTN_F16, ATTN_INT8, ATTN_F8_E4M3, ATTN_F8_E5M2};
    int failed = 0;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        kernel_of_run = attn_gemm_find_type(test_table(), ATTN_CLASS_F32, types[i]);
        printf("%s\n", kernel_of_run->name);
        failed += test_run(tests);
    }
    return failed;
}
