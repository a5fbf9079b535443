/* The model of tile instructions refuses what a processor traps at, and the kernels over it leave tiles as they
 * found them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "amx_model.h"
#include "dispatch.h"
#include "support.h"
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
    amx_model_multiply_add(0, 1, 2);
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
    amx_model_multiply_add(0, 2, 1);
}
static void multiply_into_a_factor(void) {
    amx_model_multiply_add(1, 1, 2);
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

/* A product of m rows, all zeros. Returns how often tiles were configured. */
static size_t run_kernel(size_t m, size_t n, size_t k) {
    const struct attn_gemm_kernel *kernel = attn_gemm_find(test_table(), ATTN_CLASS_BF16_TILE);
    size_t rows = (k + 1) / 2 * 2, stride = rows * kernel->b.cols * sizeof(uint16_t),
           before = amx_model_configurations();
    void *a = calloc(m * k + 1, sizeof(uint16_t)), *b = calloc(n / kernel->b.cols + 1, stride);
    float *c = calloc(m * n + 1, sizeof *c);
    assert_true(a && b && c);
    kernel->run(&(struct attn_gemm_args){.m = m,
                                         .n = n,
                                         .k = k,
                                         .a = a,
                                         .a_stride = k * sizeof(uint16_t),
                                         .b = {b, kernel->b.cols, stride},
                                         .c = c,
                                         .c_stride = n * sizeof *c});
    free(a);
    free(b);
    free(c);
    return amx_model_configurations() - before;
}

static void kernels_release_tiles(void **state) {
    (void)state;
    for (size_t m = 0; m < 70; m += 9)
        for (size_t n = 0; n < 70; n += 7)
            for (size_t k = 0; k < 70; k += 23) {
                run_kernel(m, n, k);
                test_case("m=%zu n=%zu k=%zu", m, n, k);
                assert_true(amx_model_is_clean());
            }
}

/* Once where all parts of C have one shape. */
static void kernels_configure_when_shapes_change(void **state) {
    (void)state;
    assert_int_equal(0, run_kernel(0, 64, 64));
    assert_int_equal(1, run_kernel(1, 640, 64));
    assert_int_equal(1, run_kernel(64, 64, 70));
    assert_int_equal(1, run_kernel(256, 32, 32));
    assert_int_equal(2, run_kernel(20, 90, 64));
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_misuse),
        cmocka_unit_test(keeps_to_rows_and_bytes),
        cmocka_unit_test(kernels_release_tiles),
        cmocka_unit_test(kernels_configure_when_shapes_change),
    };
    return test_run(tests);
}
