/* The model of tile instructions refuses what a processor traps at, and tasks over it leave tiles as they found
 * them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "amx_model.h"
#include "dispatch.h"
#include "format.h"
#include "quantised.h"
#include "support.h"
#include "tile_tasks.h"
#include "tiles.h"

/* Tile 0 is 3 x 5 floats, tile 1 3 rows of 6 pairs, tile 2 6 rows of 5 pairs. */
static struct tile_config small_config(void) {
    return (struct tile_config){.palette = TILE_PALETTE, .rows = {3, 3, 6}, .bytes = {20, 24, 20}};
}

/* Whether `act` ends the process, tried in a child process. */
static bool ends(void (*act)(void)) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct tile_config config = small_config();
        if (!freopen("/dev/null", "w", stderr))
            _exit(1);
        amx_model_load_config(&config);
        act();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(child, waitpid(child, &status, 0));
    return WIFSIGNALED(status) || WEXITSTATUS(status) != 0;
}

static unsigned char memory[TILE_ROWS * TILE_BYTES];

static void use_well(void) {
    amx_model_load(1, memory, TILE_BYTES);
    amx_model_load(2, memory, TILE_BYTES);
    amx_model_zero(0);
    amx_model_multiply_add_pairs(0, 1, 2);
    amx_model_store(0, memory, TILE_BYTES);
    amx_model_release();
}
static void use_unconfigured(void) {
    amx_model_zero(3);
}
static void use_released(void) {
    amx_model_release();
    amx_model_load(1, memory, TILE_BYTES);
}
static void use_number_8(void) {
    amx_model_zero(8);
}
static void multiply_other_shapes(void) {
    amx_model_multiply_add_pairs(0, 2, 1);
}
static void multiply_into_a_factor(void) {
    amx_model_multiply_add_pairs(1, 1, 2);
}
static void multiply_other_shapes_of_quads(void) {
    amx_model_multiply_add_quads(0, 2, 1);
}
static void load_half_a_float(void) {
    struct tile_config config = small_config();
    config.bytes[1] = 22;
    amx_model_load_config(&config);
    amx_model_load(1, memory, TILE_BYTES);
}
static void configure_17_rows(void) {
    struct tile_config config = small_config();
    config.rows[0] = TILE_ROWS + 1;
    amx_model_load_config(&config);
}
static void configure_no_bytes(void) {
    struct tile_config config = small_config();
    config.bytes[0] = 0;
    amx_model_load_config(&config);
}
static void configure_palette_2(void) {
    struct tile_config config = small_config();
    config.palette = 2;
    amx_model_load_config(&config);
}

static void refuses_misuse(void **state) {
    (void)state;
    assert_false(ends(use_well));
    assert_true(ends(use_unconfigured));
    assert_true(ends(use_released));
    assert_true(ends(use_number_8));
    assert_true(ends(multiply_other_shapes));
    assert_true(ends(multiply_into_a_factor));
    assert_true(ends(multiply_other_shapes_of_quads));
    assert_true(ends(load_half_a_float));
    assert_true(ends(configure_17_rows));
    assert_true(ends(configure_no_bytes));
    assert_true(ends(configure_palette_2));
}

/* Beyond the configured rows and bytes a load reads nothing, and a store writes nothing. */
static void keeps_to_rows_and_bytes(void **state) {
    (void)state;
    unsigned char x[3 * 20], y[3 * 30];
    struct tile_config config = small_config();
    for (size_t i = 0; i < sizeof x; i++)
        x[i] = (unsigned char)i;
    memset(y, 0xcc, sizeof y);
    amx_model_load_config(&config);
    amx_model_load(0, x, 20);
    amx_model_store(0, y, 30);
    amx_model_release();
    for (size_t r = 0; r < 3; r++)
        for (size_t i = 0; i < 30; i++)
            assert_int_equal(i < 20 ? x[r * 20 + i] : 0xcc, y[r * 30 + i]);
}

static void tells_its_configuration(void **state) {
    (void)state;
    struct tile_config config = small_config(), told, none = {0};
    amx_model_load_config(&config);
    amx_model_store_config(&told);
    assert_memory_equal(&config, &told, sizeof config);
    amx_model_release();
    amx_model_store_config(&told);
    assert_memory_equal(&none, &told, sizeof none);
}

/* TDPBSSD, as Intel's manual has it: DPBD for each dword of a row of a, over the dwords of a row of b. */
static int32_t dpbd(int32_t c, const int8_t *x, const int8_t *y) {
    int64_t sum = c;
    for (int i = 0; i < 4; i++)
        sum += (int32_t)x[i] * (int32_t)y[i];
    return (int32_t)(uint32_t)sum;
}

static int8_t some_byte(struct test_random *random, bool extreme) {
    return (int8_t)(extreme ? -128 : (int)random_below(random, 256) - 128);
}

static void check_quads(struct test_random *random, size_t rows, size_t columns, size_t k, bool extreme) {
    int8_t a[TILE_ROWS][TILE_BYTES], b[TILE_ROWS][TILE_BYTES];
    int32_t c[TILE_ROWS][TILE_ROWS], actual[TILE_ROWS][TILE_ROWS];
    struct tile_config config = {.palette = TILE_PALETTE,
                                 .rows = {(uint8_t)rows, (uint8_t)rows, (uint8_t)(k / 4)},
                                 .bytes = {(uint16_t)(4 * columns), (uint16_t)k, (uint16_t)(4 * columns)}};
    for (size_t r = 0; r < TILE_ROWS; r++) {
        for (size_t i = 0; i < TILE_BYTES; i++) {
            a[r][i] = some_byte(random, extreme);
            b[r][i] = some_byte(random, extreme);
        }
        for (size_t n = 0; n < TILE_ROWS; n++)
            c[r][n] = extreme ? INT32_MAX - 1000 : (int32_t)random_bits(random);
    }
    memcpy(actual, c, sizeof c);
    amx_model_load_config(&config);
    amx_model_load(0, c, sizeof *c);
    amx_model_load(1, a, sizeof *a);
    amx_model_load(2, b, sizeof *b);
    amx_model_multiply_add_quads(0, 1, 2);
    amx_model_store(0, actual, sizeof *actual);
    amx_model_release();
    for (size_t m = 0; m < rows; m++)
        for (size_t q = 0; q < k / 4; q++)
            for (size_t n = 0; n < columns; n++)
                c[m][n] = dpbd(c[m][n], &a[m][4 * q], &b[q][4 * n]);
    assert_memory_equal(c, actual, sizeof c);
}

/* Of either sign, the largest ones, and sums that wrap around; tiles of every shape. */
static void multiplies_quads_as_published(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    check_quads(&random, TILE_ROWS, TILE_ROWS, TILE_BYTES, true);
    for (size_t i = 0; i < 200; i++)
        check_quads(&random, random_between(&random, 1, TILE_ROWS), random_between(&random, 1, TILE_ROWS),
                    4 * random_between(&random, 1, TILE_BYTES / 4), false);
}

/* ---- Kernels ---- */

static const enum attn_class classes[] = {ATTN_CLASS_BF16_TILE, ATTN_CLASS_INT8, ATTN_CLASS_INT4};
enum { CLASSES = sizeof classes / sizeof *classes };

/* A product of m rows, all zeros. Returns how often tiles were configured. Of class INT4 k is the next multiple of
 * 32. */
static size_t run_kernel(enum attn_class arithmetic, size_t m, size_t n, size_t k) {
    const struct attn_gemm_kernel *kernel = attn_gemm_find(test_table(), arithmetic);
    struct attn_scaling scaling = {.block = arithmetic == ATTN_CLASS_INT4 ? 32 : ATTN_INT8_PART};
    size_t stride = 0, a_stride = 0, before = amx_model_configurations();
    k = arithmetic == ATTN_CLASS_INT4 ? (k + 31) / 32 * 32 : k;
    assert_true(attn_weight_panel_bytes(&kernel->b, &scaling, k, kernel->b.cols, &stride));
    if (attn_class_is_quantised(arithmetic))
        assert_true(attn_quantised_bytes(k, scaling.block, &a_stride));
    else
        a_stride = k * sizeof(uint16_t);
    void *a = calloc(m * a_stride + 1, 1), *b = calloc(n / kernel->b.cols + 1, stride + 1);
    float *c = calloc(m * n + 1, sizeof *c);
    assert_true(a && b && c);
    kernel->run(&(struct attn_gemm_args){.m = m,
                                         .n = n,
                                         .k = k,
                                         .a = a,
                                         .a_stride = a_stride,
                                         .b = {b, kernel->b.cols, stride},
                                         .scaling = scaling,
                                         .c = c,
                                         .c_stride = n * sizeof *c});
    free(a);
    free(b);
    free(c);
    return amx_model_configurations() - before;
}

static void end_task(enum attn_class arithmetic) {
    attn_gemm_end_task(attn_gemm_find(test_table(), arithmetic));
    assert_true(amx_model_is_clean());
}

/* Once where all parts of C have one number of rows. Rows that fill no part come after the others: for all columns, of
 * class INT4 for two panels, of which there are three pairs. One whole tile of rows takes what two take where groups
 * have 64 bytes. */
static void kernels_configure_when_shapes_change(void **state) {
    (void)state;
    for (size_t i = 0; i < CLASSES; i++) {
        static const size_t sizes[][5] = {{0, 64, 64, 0, 0},   {1, 640, 64, 1, 1}, {64, 64, 70, 1, 1},
                                          {256, 32, 32, 1, 1}, {20, 90, 64, 1, 1}, {48, 81, 64, 1, 6},
                                          {40, 81, 300, 2, 6}, {197, 90, 64, 2, 6}};
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            const size_t *size = sizes[s];
            test_case("class %d, m=%zu n=%zu k=%zu", (int)classes[i], size[0], size[1], size[2]);
            assert_int_equal(size[classes[i] == ATTN_CLASS_INT4 ? 4 : 3],
                             run_kernel(classes[i], size[0], size[1], size[2]));
            end_task(classes[i]);
        }
    }
}

/* The next product of a task finds what this one has left, be it of another class, and does not take it where it is
 * made for another depth. */
static void kernels_keep_a_configuration(void **state) {
    (void)state;
    assert_int_equal(2, run_kernel(ATTN_CLASS_BF16_TILE, 39, 40, 64));
    assert_int_equal(0, run_kernel(ATTN_CLASS_BF16_TILE, 7, 8, 100)); /* the last rows */
    assert_int_equal(1, run_kernel(ATTN_CLASS_BF16_TILE, 16, 16, 100));
    assert_int_equal(0, run_kernel(ATTN_CLASS_BF16_TILE, 32, 5, 100));
    assert_int_equal(1, run_kernel(ATTN_CLASS_BF16_TILE, 7, 5, 100));
    assert_int_equal(0, run_kernel(ATTN_CLASS_INT8, 7, 8, 100));
    assert_int_equal(1, run_kernel(ATTN_CLASS_INT4, 7, 8, 128));
    assert_int_equal(0, run_kernel(ATTN_CLASS_INT4, 7, 8, 32));
    end_task(ATTN_CLASS_INT4);
    assert_int_equal(1, run_kernel(ATTN_CLASS_INT4, 7, 8, 32));
    end_task(ATTN_CLASS_INT4);
}

/* ---- Tasks ---- */

static void tasks_release_tiles(void **state) {
    (void)state;
    tile_tasks_check(amx_model_is_clean, amx_model_configurations);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_misuse),
        cmocka_unit_test(keeps_to_rows_and_bytes),
        cmocka_unit_test(tells_its_configuration),
        cmocka_unit_test(multiplies_quads_as_published),
        cmocka_unit_test(kernels_configure_when_shapes_change),
        cmocka_unit_test(kernels_keep_a_configuration),
        cmocka_unit_test(tasks_release_tiles),
    };
    return test_run(tests);
}
