/* What every test shares: options, random numbers, memory between guard pages, comparison bit by bit.
 *
 * A test program is `test_NAME [--isa ISA] [--seed N] [--filter PATTERN]` and tests one ISA, the best by default. It
 * exits with 77, which meson counts as skipped, where this build or this machine lacks that ISA. Its main is
 *
 *     int main(int argc, char **argv) {
 *         test_init(argc, argv, NULL);
 *         const struct CMUnitTest tests[] = {cmocka_unit_test(...)};
 *         return test_run(tests);
 *     }
 */
#ifndef ATTN_TESTS_SUPPORT_H
#define ATTN_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels.h"
#include "verbose.h"
#include <attn/attn.h>

/* ---- Program ---- */

#define TEST_EXIT_SKIP 77

/* Reads the options and prints the seed. `options` are the names of the program's own options, each of which takes a
 * value ("step" for --step N), up to a NULL; may be NULL itself. Exits with 77 for an ISA that cannot run here, 2 for
 * misuse. */
void test_init(int argc, char **argv, const char *const *options);
/* The value given for one of the program's own options, or NULL. */
const char *test_option(const char *name);
/* Same, from a decimal number; `otherwise` where it was not given. */
uint64_t test_option_number(const char *name, uint64_t otherwise);

/* The ISA under test, never ATTN_ISA_BEST, and its table. */
attn_isa test_isa(void);
const struct attn_kernels *test_table(void);
/* Whether to take a fraction of each sweep: ATTN_TEST_QUICK=1, meant for emulators. Without that variable scalar takes
 * one where the machine has another ISA, whose sweeps go the same ways through the library in a fifth of the time;
 * ATTN_TEST_QUICK=0 asks for all of it. */
bool test_quick(void);
/* Whether to sweep without gaps, for as long as that takes: ATTN_TEST_LONG=1. */
bool test_exhaustive(void);

/* Runs the tests as the group "program/isa"; the exit status of main. */
#define test_run(tests) cmocka_run_group_tests_name(test_group(), tests, NULL, NULL)
const char *test_group(void);

/* Says what is being computed from now on in this test ("m=3 n=17"); printed when a comparison fails or memory
 * faults. */
void test_case(const char *format, ...) ATTN_PRINTF(1, 2);

/* ---- Options ---- */

/* Causality and the position of rows at once, for sweeps over both. */
enum order { ORDER_NONE, ORDER_BOTTOM_RIGHT, ORDER_TOP_LEFT, ORDER_OFFSET };
void set_order(attn_options *options, enum order order);

/* ---- Random numbers ---- */

struct test_random {
    uint64_t state[4];
};

/* A generator that depends on the seed and on `name` alone, so that a test gives the same numbers when it runs by
 * itself; use test_random(__func__). */
struct test_random test_random(const char *name);
uint64_t random_bits(struct test_random *random);
/* Uniform in [0, bound), 0 for a bound of 0. */
size_t random_below(struct test_random *random, size_t bound);
/* Uniform in [low, high]. */
size_t random_between(struct test_random *random, size_t low, size_t high);
float random_uniform(struct test_random *random, float low, float high);
/* Standard normal, nearly: the sum of twelve uniform numbers. */
float random_normal(struct test_random *random);

enum test_values {
    TEST_UNIFORM, /* -1 to 1 */
    TEST_NORMAL,  /* mean 0, deviation 1 */
    TEST_NASTY,   /* finite: any exponent, denormals, both zeros, +-FLT_MAX, small integers */
    TEST_WILD     /* the same with infinities and NaN */
};

float random_float(struct test_random *random, enum test_values values);
void random_fill(struct test_random *random, enum test_values values, float *x, size_t n);

/* ---- Memory between guard pages ----
 *
 * Every byte starts as part of a canary, a quiet NaN. What is left of the first and last page keeps the canary, and
 * guarded_free fails the test if it was overwritten. */

enum flush {
    FLUSH_END,  /* one byte after the last faults, alignment permitting */
    FLUSH_START /* one byte before the first faults */
};

/* `alignment` is a power of two up to a page. With 0 bytes any access faults. */
void *guarded_alloc(size_t bytes, size_t alignment, enum flush flush);
/* `count` floats with no more than a float's alignment where they are flush to the end. */
float *guarded_floats(size_t count, enum flush flush);
/* The same with ATTN_ALIGNMENT. */
float *guarded_aligned_floats(size_t count, enum flush flush);
/* Fails the test where bytes around the memory changed. NULL is ignored. */
void guarded_free(void *memory);
/* Copies with every other bit pattern intact, into memory of its own. */
float *guarded_copy(const float *x, size_t count, enum flush flush);
/* Whether x[0] is still the canary. */
bool is_untouched(const float *x);
/* Fills floats that must have no effect with poison: each with the canary, which a maximum ignores, or with +inf, which
 * it does not. Successive calls swap the two. */
void fill_poison(float *x, size_t n);
/* Memory for an object or a workspace, full of poison. */
void *poisoned_alloc(size_t bytes, enum flush flush);
/* Lets valgrind accept that such memory is compared whole, unwritten parts included. */
void make_defined(const void *memory, size_t bytes);

/* rows x cols with `stride` floats from row to row. Gaps hold the canary; the last row has no gap after it. */
struct test_matrix {
    float *data;
    size_t rows, cols, stride;
};

struct test_matrix test_matrix(size_t rows, size_t cols, size_t stride, enum flush flush);
void test_matrix_fill(const struct test_matrix *matrix, struct test_random *random, enum test_values values);
/* Fails the test where a gap changed. */
void test_matrix_check(const struct test_matrix *matrix);
/* Checks and frees. */
void test_matrix_free(struct test_matrix *matrix);

/* ---- Calls ---- */

/* attn_gemm_run with its arguments in a row. */
attn_status gemm_rows(const attn_gemm *gemm, size_t m, const float *x, size_t x_stride, float *y, size_t y_stride,
                      const attn_parallel *parallel, attn_error *error);

/* ---- Comparison ---- */

/* Every float has the same bits; a NaN equals any NaN. */
#define assert_same_bits(expected, actual, n) test_same_bits(expected, actual, n, __FILE__, __LINE__)
void test_same_bits(const float *expected, const float *actual, size_t n, const char *file, int line);

/* The same for the elements of two matrices of one shape. */
#define assert_same_matrix(expected, actual) test_same_matrix(expected, actual, __FILE__, __LINE__)
void test_same_matrix(const struct test_matrix *expected, const struct test_matrix *actual, const char *file, int line);

/* |expected - actual| <= bound; NaN on one side only fails. */
#define assert_near(expected, actual, bound) test_near(expected, actual, bound, __FILE__, __LINE__)
void test_near(double expected, double actual, double bound, const char *file, int line);

/* A status, printed as its sentence where it differs. */
#define assert_status(expected, actual) test_status(expected, actual, __FILE__, __LINE__)
#define assert_ok(actual)               assert_status(ATTN_OK, actual)
void test_status(attn_status expected, attn_status actual, const char *file, int line);

/* Fails with the current case and a message. */
#define test_fail(...) test_fail_at(__FILE__, __LINE__, __VA_ARGS__)
void test_fail_at(const char *file, int line, const char *format, ...) __attribute__((noreturn)) ATTN_PRINTF(3, 4);

#endif
