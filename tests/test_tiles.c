/* The processor's tile instructions do what tests/amx_model.c does, with the same bits, and trap where it refuses; the
 * library's kernels leave the tiles as they found them. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "amx_instructions.h"
#include "amx_model.h"
#include "support.h"
#include "tile_tasks.h"
#include "tiles.h"

/* ---- Refusals ---- */

struct misuse {
    struct tile_config config;
    const char *name;
    enum use { CONFIGURE, LOAD, ZERO, STORE, PAIRS, QUADS, FACTOR, RELEASED } use;
};

static unsigned char memory[TILE_ROWS + 1][2 * TILE_BYTES];

/* The model and the processor as one. */
struct tiles {
    void (*load_config)(const struct tile_config *config);
    void (*release)(void);
    void (*zero)(int t);
    void (*load)(int t, const void *rows, size_t stride);
    void (*store)(int t, void *rows, size_t stride);
    void (*pairs)(void), (*quads)(void), (*factor)(void);
};

static void model_pairs(void) {
    amx_model_multiply_add_pairs(0, 1, 2);
}

static void model_quads(void) {
    amx_model_multiply_add_quads(0, 1, 2);
}

static void model_factor(void) {
    amx_model_multiply_add_pairs(1, 1, 2);
}

static const struct tiles model = {amx_model_load_config, amx_model_release, amx_model_zero, amx_model_load,
                                   amx_model_store,       model_pairs,       model_quads,    model_factor};
static const struct tiles processor = {amx_load_config,
                                       amx_release,
                                       amx_zero,
                                       amx_load,
                                       amx_store,
                                       amx_multiply_add_pairs,
                                       amx_multiply_add_quads,
                                       amx_multiply_into_a_factor};

static void use(const struct tiles *tiles, const struct misuse *misuse) {
    tiles->load_config(&misuse->config);
    if (misuse->use == ZERO)
        tiles->zero(0);
    else if (misuse->use == STORE)
        tiles->store(0, memory, sizeof *memory);
    else if (misuse->use == PAIRS)
        tiles->pairs();
    else if (misuse->use == QUADS)
        tiles->quads();
    else if (misuse->use == FACTOR)
        tiles->factor();
    else if (misuse->use == RELEASED)
        tiles->release();
    if (misuse->use == LOAD || misuse->use == RELEASED)
        tiles->load(0, memory, sizeof *memory);
    tiles->release();
}

/* The signal that the use ends with in a child process, 0 for none. */
static int signal_of(const struct tiles *tiles, const struct misuse *misuse) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(1);
        signal(SIGILL, SIG_DFL); /* cmocka takes both */
        signal(SIGSEGV, SIG_DFL);
        use(tiles, misuse);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(child, waitpid(child, &status, 0));
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

#define CONFIG(...)                                                                                                    \
    { .palette = TILE_PALETTE, __VA_ARGS__ }

static void processor_traps_where_model_refuses(void **state) {
    (void)state;
    static const struct misuse misuses[] = {
        {CONFIG(.rows = {3, 3, 6}, .bytes = {20, 24, 20}), "nothing", CONFIGURE},
        {CONFIG(.rows = {3, 3, 6}, .bytes = {20, 24, 20}), "a load", LOAD},
        {CONFIG(.rows = {3, 3, 6}, .bytes = {20, 24, 20}), "a zero", ZERO},
        {CONFIG(.rows = {3, 3, 6}, .bytes = {20, 24, 20}), "a store", STORE},
        {CONFIG(.rows = {3, 3, 6}, .bytes = {20, 24, 20}), "a product of pairs", PAIRS},
        {CONFIG(.rows = {3, 3, 6}, .bytes = {20, 24, 20}), "a product of quads", QUADS},
        {CONFIG(.rows = {3, 3, 6}, .bytes = {20, 24, 20}), "a factor as the result", FACTOR},
        {CONFIG(.rows = {3, 3, 6}, .bytes = {20, 24, 20}), "a load after a release", RELEASED},
        {CONFIG(.rows = {17}, .bytes = {20}), "17 rows", CONFIGURE},
        {CONFIG(.rows = {16}, .bytes = {65}), "65 bytes", CONFIGURE},
        {CONFIG(.rows = {16}, .bytes = {320}), "320 bytes", CONFIGURE},
        {CONFIG(.rows = {16}, .bytes = {64}), "the largest tile", LOAD},
        {CONFIG(.rows = {3}), "rows without bytes", CONFIGURE},
        {CONFIG(.bytes = {20}), "bytes without rows", CONFIGURE},
        {CONFIG(.rows = {[8] = 3}, .bytes = {[8] = 20}), "tile 8", CONFIGURE},
        {CONFIG(.rows = {[15] = 3}, .bytes = {[15] = 20}), "tile 15", CONFIGURE},
        {{.palette = 2, .rows = {3}, .bytes = {20}}, "palette 2", CONFIGURE},
        {CONFIG(.reserved = {1}, .rows = {3}, .bytes = {20}), "byte 2", CONFIGURE},
        {CONFIG(.reserved = {[13] = 1}, .rows = {3}, .bytes = {20}), "byte 15", CONFIGURE},
        {CONFIG(.rows = {0, 3}, .bytes = {0, 20}), "a load of an empty tile", LOAD},
        {CONFIG(.rows = {0, 3}, .bytes = {0, 20}), "a zero of an empty tile", ZERO},
        {CONFIG(.rows = {0, 3}, .bytes = {0, 20}), "a store of an empty tile", STORE},
        {CONFIG(.rows = {3}, .bytes = {18}), "a load of 18 bytes", LOAD},
        {CONFIG(.rows = {3}, .bytes = {18}), "a store of 18 bytes", STORE},
        {CONFIG(.rows = {3, 4, 6}, .bytes = {20, 24, 20}), "more rows on the left", PAIRS},
        {CONFIG(.rows = {3, 2, 6}, .bytes = {20, 24, 20}), "fewer rows on the left", QUADS},
        {CONFIG(.rows = {3, 3, 5}, .bytes = {20, 24, 20}), "fewer rows on the right", PAIRS},
        {CONFIG(.rows = {3, 3, 7}, .bytes = {20, 24, 20}), "more rows on the right", QUADS},
        {CONFIG(.rows = {3, 3, 6}, .bytes = {20, 24, 24}), "more columns on the right", PAIRS},
        {CONFIG(.rows = {3, 3, 6}, .bytes = {24, 24, 20}), "more columns of the result", QUADS},
        {CONFIG(.rows = {3, 3}, .bytes = {20, 24}), "no right factor", PAIRS},
        {CONFIG(.rows = {3, 0, 6}, .bytes = {20, 0, 20}), "no left factor", QUADS},
        {CONFIG(.rows = {0, 3, 6}, .bytes = {0, 24, 20}), "no result", PAIRS},
    };
    int differ = 0;
    for (size_t i = 0; i < sizeof misuses / sizeof *misuses; i++) {
        int refused = signal_of(&model, &misuses[i]), trapped = signal_of(&processor, &misuses[i]);
        if ((refused == 0) != (trapped == 0)) {
            printf("%s: the model ends with signal %d, the processor with %d\n", misuses[i].name, refused, trapped);
            differ++;
        }
    }
    assert_int_equal(0, differ);
}

/* ---- Results ---- */

enum { GUARD = 12, WIDEST = TILE_BYTES + GUARD };

struct operands {
    unsigned char a[TILE_ROWS][WIDEST], b[TILE_ROWS][WIDEST], c[TILE_ROWS][WIDEST];
};

/* Mostly about 1, in a few trials special, or with products about 2^-126 where `tiny`. */
static uint16_t some_bf16(struct test_random *random, bool tiny) {
    static const uint16_t special[] = {0x0000, 0x8000, 0x0001, 0x807f, 0x0080, 0x8080, 0x7f7f, 0xff7f, 0x7f80, 0xff80};
    uint16_t sign = (uint16_t)(random_below(random, 2) << 15), fraction = (uint16_t)random_below(random, 128);
    if (random_below(random, 500) == 0)
        return special[random_below(random, sizeof special / sizeof *special)];
    return (uint16_t)(sign | (random_between(random, 0, 3) + (tiny ? 62 : 125)) << 7 | fraction);
}

static uint32_t some_float(struct test_random *random, bool tiny) {
    uint32_t sign = (uint32_t)random_below(random, 2) << 31, fraction = (uint32_t)random_below(random, 1 << 23);
    return sign | (uint32_t)(random_between(random, 0, 4) + (tiny ? 0 : 125)) << 23 | fraction;
}

static void fill_pairs(struct test_random *random, struct operands *x) {
    bool tiny = random_below(random, 2);
    for (size_t r = 0; r < TILE_ROWS; r++)
        for (size_t i = 0; i < WIDEST; i += 4) {
            uint16_t a[2] = {some_bf16(random, tiny), some_bf16(random, tiny)};
            uint16_t b[2] = {some_bf16(random, tiny), some_bf16(random, tiny)};
            uint32_t c = some_float(random, tiny);
            memcpy(&x->a[r][i], a, sizeof a);
            memcpy(&x->b[r][i], b, sizeof b);
            memcpy(&x->c[r][i], &c, sizeof c);
        }
}

static void fill_bytes(struct test_random *random, struct operands *x) {
    for (size_t i = 0; i < sizeof *x; i++)
        ((unsigned char *)x)[i] = (unsigned char)random_bits(random);
}

static bool is_nan(uint32_t x) {
    return (x & 0x7fffffff) > 0x7f800000;
}

/* Of a NaN its bits are not compared. */
static void check_result(const struct operands *expected, const struct operands *actual, bool floats) {
    for (size_t r = 0; r < TILE_ROWS; r++)
        for (size_t i = 0; i < WIDEST; i += 4) {
            uint32_t e, a;
            memcpy(&e, &expected->c[r][i], 4);
            memcpy(&a, &actual->c[r][i], 4);
            if (e != a && !(floats && is_nan(e) && is_nan(a)))
                test_fail("row %zu, byte %zu: %08x is not %08x", r, i, (unsigned)a, (unsigned)e);
        }
}

static void multiply_over(const struct tiles *tiles, const struct tile_config *config, struct operands *x,
                          bool floats) {
    tiles->load_config(config);
    tiles->load(0, x->c, WIDEST);
    tiles->load(1, x->a, WIDEST);
    tiles->load(2, x->b, WIDEST);
    (floats ? tiles->pairs : tiles->quads)();
    tiles->store(0, x->c, WIDEST);
}

static void check_product(struct test_random *random, size_t rows, size_t cols, size_t k, bool floats) {
    static struct operands x, expected, actual;
    struct tile_config told, none = {0},
                             config = {.palette = TILE_PALETTE,
                                       .rows = {(uint8_t)rows, (uint8_t)rows, (uint8_t)k},
                                       .bytes = {(uint16_t)(4 * cols), (uint16_t)(4 * k), (uint16_t)(4 * cols)}};
    test_case("%s, rows=%zu cols=%zu k=%zu", floats ? "pairs" : "quads", rows, cols, k);
    (floats ? fill_pairs : fill_bytes)(random, &x);
    expected = actual = x;
    multiply_over(&model, &config, &expected, floats);
    multiply_over(&processor, &config, &actual, floats);
    check_result(&expected, &actual, floats);
    assert_memory_equal(x.a, actual.a, sizeof x.a);

    amx_store_config(&told);
    assert_memory_equal(&config, &told, sizeof told);
    model.release();
    processor.release();
    amx_store_config(&told);
    assert_memory_equal(&none, &told, sizeof told);
}

static void processor_multiplies_as_model(void **state) {
    struct test_random random = test_random(__func__);
    (void)state;
    for (size_t i = 0, trials = test_quick() ? 60 : 2000; i < trials; i++) {
        size_t rows = random_between(&random, 1, TILE_ROWS), cols = random_between(&random, 1, TILE_ROWS);
        size_t k = random_between(&random, 1, TILE_ROWS);
        if (i % 4 == 0)
            rows = cols = k = TILE_ROWS;
        check_product(&random, rows, cols, k, i % 3 != 0);
    }
}

/* A tile keeps what it holds while the process waits for others. */
static void system_saves_tiles(void **state) {
    static unsigned char before[TILE_ROWS][TILE_BYTES], after[TILE_ROWS][TILE_BYTES];
    struct test_random random = test_random(__func__);
    struct tile_config told, config = {.palette = TILE_PALETTE, .rows = {16, 5}, .bytes = {64, 20}};
    (void)state;
    for (size_t i = 0; i < sizeof before; i++)
        before[i / TILE_BYTES][i % TILE_BYTES] = (unsigned char)random_bits(&random);
    amx_load_config(&config);
    amx_load(0, before, TILE_BYTES);
    for (size_t i = 0; i < 20; i++) {
        pid_t child = fork();
        if (child == 0) {
            amx_load_config(&config);
            amx_zero(0);
            _exit(0);
        }
        int status = 1;
        assert_int_equal(child, waitpid(child, &status, 0));
        assert_int_equal(0, status);
    }
    amx_store(0, after, TILE_BYTES);
    amx_store_config(&told);
    amx_release();
    assert_memory_equal(before, after, sizeof before);
    assert_memory_equal(&config, &told, sizeof told);
}

/* ---- Kernels ---- */

static int are_released(void) {
    struct tile_config told, none = {0};
    memset(&told, 0xcc, sizeof told);
    amx_store_config(&told);
    return memcmp(&none, &told, sizeof told) == 0;
}

static void tasks_release_tiles(void **state) {
    (void)state;
    tile_tasks_check(are_released, NULL);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    if (test_isa() != ATTN_ISA_AMX) {
        puts("SKIP test_tiles: only amx has tiles");
        return TEST_EXIT_SKIP;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processor_traps_where_model_refuses),
        cmocka_unit_test(processor_multiplies_as_model),
        cmocka_unit_test(system_saves_tiles),
        cmocka_unit_test(tasks_release_tiles),
    };
    return test_run(tests);
}
