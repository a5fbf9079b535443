/* For sigaction and clock_gettime, which C11 does not have. */
#define _GNU_SOURCE 1

#include "support.h"

#include <float.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef _WIN32
#include <windows.h>
#endif

#include "dispatch.h"
#include "pages.h"

/* Without valgrind these do nothing. */
#ifdef HAVE_VALGRIND
#include <valgrind/memcheck.h>
#else
#define VALGRIND_MAKE_MEM_UNDEFINED(address, bytes)
#define VALGRIND_MAKE_MEM_DEFINED(address, bytes)
#endif

/* ---- Program ---- */

static struct {
    attn_isa isa;
    uint64_t seed;
    char group[64];
    const char *const *options;
    char **values; /* parallel to `options` */
} program;

static void usage(const char *name) {
    fprintf(stderr, "usage: %s [--isa NAME] [--seed N] [--filter PATTERN]", name);
    for (size_t i = 0; program.options && program.options[i]; i++)
        fprintf(stderr, " [--%s VALUE]", program.options[i]);
    fprintf(stderr, "\n");
    exit(2);
}

static bool parse_number(const char *text, uint64_t *number) {
    char *end;
    *number = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0';
}

/* The index of one of the program's own options, or the count of them. */
static size_t find_option(const char *name) {
    size_t i = 0;
    while (program.options && program.options[i] && strcmp(program.options[i], name) != 0)
        i++;
    return i;
}

static bool is_own_option(const char *name) {
    return program.options && program.options[find_option(name)];
}

static void parse_isa(const char *name) {
    attn_status status = attn_isa_from_name(name, &program.isa);
    if (status != ATTN_OK) {
        fprintf(stderr, "--isa %s: %s\n", name, attn_status_string(status));
        exit(2);
    }
}

static void parse_option(const char *program_name, const char *option, char *value) {
    const char *name = option + 2;
    if (strncmp(option, "--", 2) != 0 || !value)
        usage(program_name);
    if (strcmp(name, "isa") == 0)
        parse_isa(value);
    else if (strcmp(name, "filter") == 0)
        cmocka_set_test_filter(value);
    else if (is_own_option(name))
        program.values[find_option(name)] = value;
    else if (strcmp(name, "seed") != 0 || !parse_number(value, &program.seed))
        usage(program_name);
}

static void skip_unless_supported(const char *name) {
    if (attn_isa_supported(program.isa))
        return;
    printf("SKIP %s: %s is %s\n", name, attn_isa_name(program.isa),
           attn_isa_built(program.isa) ? "not supported by this machine" : "not built");
    exit(TEST_EXIT_SKIP);
}

static uint64_t fresh_seed(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return ((uint64_t)now.tv_sec * 1000000007u + (uint64_t)now.tv_nsec + (uint64_t)getpid()) % 1000000000u;
}

void test_init(int argc, char **argv, const char *const *options) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
    size_t count = 0;
    while (options && options[count])
        count++;
    program.isa = attn_isa_chosen();
    program.seed = fresh_seed();
    program.options = options;
    program.values = calloc(count + 1, sizeof *program.values);
    if (!program.values)
        abort();
    for (int i = 1; i < argc; i += 2)
        parse_option(name, argv[i], i + 1 < argc ? argv[i + 1] : NULL);
    if (program.isa == ATTN_ISA_BEST)
        program.isa = attn_isa_chosen();
    skip_unless_supported(name);
    snprintf(program.group, sizeof program.group, "%s/%s", name, attn_isa_name(program.isa));
    printf("%s: seed %llu (replay: --seed %llu)\n", program.group, (unsigned long long)program.seed,
           (unsigned long long)program.seed);
}

const char *test_option(const char *name) {
    if (!is_own_option(name))
        test_fail("the program has no option --%s", name);
    return program.values[find_option(name)];
}

uint64_t test_option_number(const char *name, uint64_t otherwise) {
    const char *text = test_option(name);
    uint64_t number = otherwise;
    if (text && !parse_number(text, &number))
        test_fail("--%s %s is not a number", name, text);
    return number;
}

attn_isa test_isa(void) {
    return program.isa;
}

const struct attn_kernels *test_table(void) {
    return attn_table(program.isa);
}

bool test_quick(void) {
    const char *quick = getenv("ATTN_TEST_QUICK");
    if (quick || test_exhaustive())
        return quick && strcmp(quick, "1") == 0;
    return program.isa == ATTN_ISA_SCALAR && attn_isa_chosen() != ATTN_ISA_SCALAR;
}

bool test_exhaustive(void) {
    const char *text = getenv("ATTN_TEST_LONG");
    return text && strcmp(text, "1") == 0;
}

const char *test_group(void) {
    return program.group;
}

/* ---- The current case ---- */

static char current_case[512];

/* Says what was being computed when memory faulted. */
static void report_fault(const void *address) {
    char text[700];
    int length = snprintf(text, sizeof text, "[  FAULT   ] at address %p: %s\n", address, current_case);
    if (write(STDERR_FILENO, text, (unsigned)length) < 0)
        _exit(1);
}

#ifdef _WIN32

static LONG CALLBACK handle_exception(EXCEPTION_POINTERS *exception) {
    const EXCEPTION_RECORD *record = exception->ExceptionRecord;
    if (record->ExceptionCode == EXCEPTION_ACCESS_VIOLATION)
        report_fault((const void *)record->ExceptionInformation[1]);
    return EXCEPTION_CONTINUE_SEARCH;
}

static void watch_faults(void) {
    static PVOID handler;
    if (!handler)
        handler = AddVectoredExceptionHandler(1, handle_exception);
}

#else

static struct sigaction other_handler[2];
static const int fault_signals[2] = {SIGSEGV, SIGBUS};

/* Lets the fault happen again under the handler that was there before. */
static void handle_fault(int number, siginfo_t *info, void *context) {
    (void)context;
    report_fault(info->si_addr);
    for (size_t i = 0; i < 2; i++)
        if (fault_signals[i] == number)
            sigaction(number, &other_handler[i], NULL);
}

/* cmocka puts its own handlers in place before each test, so ours go on top of them again. */
static void watch_faults(void) {
    struct sigaction now, ours = {.sa_sigaction = handle_fault, .sa_flags = SA_SIGINFO};
    for (size_t i = 0; i < 2; i++) {
        sigaction(fault_signals[i], NULL, &now);
        if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == handle_fault)
            continue;
        other_handler[i] = now;
        sigaction(fault_signals[i], &ours, NULL);
    }
}

#endif

void test_case(const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(current_case, sizeof current_case, format, list);
    va_end(list);
    watch_faults();
}

void test_fail_at(const char *file, int line, const char *format, ...) {
    va_list list;
    va_start(list, format);
    char text[512];
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    print_error("%s: %s\n  case: %s\n  replay: --isa %s --seed %llu\n", program.group, text, current_case,
                attn_isa_name(program.isa), (unsigned long long)program.seed);
    _fail(file, line);
    abort();
}

/* ---- Options ---- */

void set_order(attn_options *options, enum order order) {
    static const attn_position positions[] = {
        [ORDER_TOP_LEFT] = ATTN_POSITION_TOP_LEFT, [ORDER_OFFSET] = ATTN_POSITION_OFFSET};
    options->causal = order != ORDER_NONE;
    options->position = positions[order];
}

/* ---- Random numbers: xoshiro256** of a splitmix64 seed ---- */

static uint64_t splitmix(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint64_t rotate_left(uint64_t x, int by) {
    return x << by | x >> (64 - by);
}

struct test_random test_random(const char *name) {
    uint64_t state = program.seed;
    for (; *name; name++)
        state = splitmix(&state) ^ (unsigned char)*name;
    struct test_random random;
    for (size_t i = 0; i < 4; i++)
        random.state[i] = splitmix(&state);
    current_case[0] = '\0'; /* a test starts: what the one before computed is over */
    return random;
}

uint64_t random_bits(struct test_random *random) {
    uint64_t *s = random->state, result = rotate_left(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

size_t random_below(struct test_random *random, size_t bound) {
    return bound == 0 ? 0 : (size_t)((random_bits(random) >> 32) * (uint64_t)bound >> 32);
}

size_t random_between(struct test_random *random, size_t low, size_t high) {
    return low + random_below(random, high - low + 1);
}

float random_uniform(struct test_random *random, float low, float high) {
    return low + (high - low) * ((float)(random_bits(random) >> 40) * 0x1p-24f);
}

float random_normal(struct test_random *random) {
    float sum = -6.0f;
    for (int i = 0; i < 12; i++)
        sum += random_uniform(random, 0.0f, 1.0f);
    return sum;
}

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static float random_nasty(struct test_random *random) {
    uint32_t bits = (uint32_t)(random_bits(random) >> 32), sign = bits & 0x80000000u;
    switch (random_below(random, 8)) {
    case 0:
        return float_of(sign);
    case 1:
        return float_of(bits & 0x807fffffu);
    case 2:
        return sign ? -FLT_MAX : FLT_MAX;
    case 3:
        return (float)(int)(bits % 17) - 8.0f;
    case 4: /* any exponent, the largest one excepted: it holds infinity and NaN */
        return float_of((bits & 0x7f800000u) == 0x7f800000u ? bits & 0x807fffffu : bits);
    default:
        return random_uniform(random, -4.0f, 4.0f);
    }
}

static float random_wild(struct test_random *random) {
    switch (random_below(random, 24)) {
    case 0:
        return INFINITY;
    case 1:
    case 2:
        return -INFINITY;
    case 3:
        return NAN;
    default:
        return random_nasty(random);
    }
}

float random_float(struct test_random *random, enum test_values values) {
    switch (values) {
    case TEST_NORMAL:
        return random_normal(random);
    case TEST_NASTY:
        return random_nasty(random);
    case TEST_WILD:
        return random_wild(random);
    case TEST_UNIFORM:
        break;
    }
    return random_uniform(random, -1.0f, 1.0f);
}

void random_fill(struct test_random *random, enum test_values values, float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] = random_float(random, values);
}

/* ---- Memory between guard pages ---- */

#define CANARY 0x7fc5a53cu

struct block {
    struct block *next;
    char *pages; /* without the guard pages */
    size_t page_count;
    char *data; /* NULL while unused */
    size_t bytes;
};

/* Blocks in use, and unused ones for the next allocation of as many pages: a sweep allocates the same few sizes
 * again and again, and mapping pages would take most of its time. */
static struct block *blocks;

/* A page full of canary. */
static const char *canary_page(void) {
    static char *page;
    if (!page) {
        page = malloc(page_size());
        if (!page)
            abort();
        uint32_t canary = CANARY;
        for (size_t i = 0; i < page_size(); i += sizeof canary)
            memcpy(page + i, &canary, sizeof canary);
    }
    return page;
}

/* Bytes from `address` to the end of its page, at most up to `end`. */
static size_t run_length(const char *address, const char *end) {
    size_t rest = page_size() - (uintptr_t)address % page_size(), length = (size_t)(end - address);
    return length < rest ? length : rest;
}

static void fill_canary(char *from, const char *end) {
    while (from < end) {
        size_t length = run_length(from, end);
        memcpy(from, canary_page() + (uintptr_t)from % page_size(), length);
        from += length;
    }
}

static bool holds_canary(const char *from, const char *end) {
    while (from < end) {
        size_t length = run_length(from, end);
        if (memcmp(from, canary_page() + (uintptr_t)from % page_size(), length) != 0)
            return false;
        from += length;
    }
    return true;
}

static struct block *map_block(size_t page_count) {
    size_t guard = page_size(), bytes = page_count * page_size();
    char *map = pages_new(bytes + 2 * guard);
    struct block *block = calloc(1, sizeof *block);
    if (!block)
        abort();
    if (bytes)
        pages_open(map + guard, bytes);
    *block = (struct block){.next = blocks, .pages = map + guard, .page_count = page_count};
    blocks = block;
    return block;
}

static struct block *take_block(size_t page_count) {
    for (struct block *block = blocks; block; block = block->next)
        if (!block->data && block->page_count == page_count)
            return block;
    return map_block(page_count);
}

void *guarded_alloc(size_t bytes, size_t alignment, enum flush flush) {
    size_t page_count = (bytes + page_size() - 1) / page_size();
    struct block *block = take_block(page_count);
    char *end = block->pages + page_count * page_size();
    size_t slack = (size_t)(end - block->pages) - bytes;
    block->data = flush == FLUSH_START ? block->pages : block->pages + slack / alignment * alignment;
    block->bytes = bytes;
    fill_canary(block->pages, end);
    return block->data;
}

float *guarded_floats(size_t count, enum flush flush) {
    return guarded_alloc(count * sizeof(float), sizeof(float), flush);
}

float *guarded_aligned_floats(size_t count, enum flush flush) {
    return guarded_alloc(count * sizeof(float), ATTN_ALIGNMENT, flush);
}

void guarded_free(void *memory) {
    if (!memory)
        return;
    struct block *block = blocks;
    while (block && block->data != memory)
        block = block->next;
    if (!block)
        test_fail("guarded_free of %p, which guarded_alloc did not return", memory);
    const char *end = block->pages + block->page_count * page_size();
    const char *data = block->data, *data_end = data + block->bytes;
    block->data = NULL;
    if (!holds_canary(block->pages, data))
        test_fail("bytes before %p were written", memory);
    if (!holds_canary(data_end, end))
        test_fail("bytes after the %zu at %p were written", block->bytes, memory);
}

float *guarded_copy(const float *x, size_t count, enum flush flush) {
    float *copy = guarded_floats(count, flush);
    memcpy(copy, x, count * sizeof *x);
    return copy;
}

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

bool is_untouched(const float *x) {
    uint32_t canary = CANARY;
    return memcmp(x, &canary, sizeof canary) == 0;
}

void fill_poison(float *x, size_t n) {
    static uint32_t calls;
    uint32_t canary = CANARY, turn = calls++;
    for (size_t i = 0; i < n; i++)
        if (((uint32_t)i * 0x9e3779b1u >> 31 ^ turn) & 1) /* in an order that no vector or row repeats */
            x[i] = INFINITY;
        else
            memcpy(x + i, &canary, sizeof canary);
}

void *poisoned_alloc(size_t bytes, enum flush flush) {
    void *memory = guarded_alloc(bytes, ATTN_ALIGNMENT, flush);
    fill_poison(memory, bytes / sizeof(float));
    VALGRIND_MAKE_MEM_UNDEFINED(memory, bytes);
    return memory;
}

void make_defined(const void *memory, size_t bytes) {
    VALGRIND_MAKE_MEM_DEFINED(memory, bytes);
    (void)memory;
    (void)bytes;
}

struct test_matrix test_matrix(size_t rows, size_t cols, size_t stride, enum flush flush) {
    size_t count = rows == 0 ? 0 : (rows - 1) * stride + cols;
    return (struct test_matrix){.data = guarded_floats(count, flush), .rows = rows, .cols = cols, .stride = stride};
}

void test_matrix_fill(const struct test_matrix *matrix, struct test_random *random, enum test_values values) {
    for (size_t i = 0; i < matrix->rows; i++)
        random_fill(random, values, matrix->data + i * matrix->stride, matrix->cols);
}

void test_matrix_check(const struct test_matrix *matrix) {
    for (size_t i = 0; i + 1 < matrix->rows; i++) {
        const float *row = matrix->data + i * matrix->stride;
        if (matrix->stride > matrix->cols &&
            !holds_canary((const char *)(row + matrix->cols), (const char *)(row + matrix->stride)))
            test_fail("the gap after row %zu of %zu x %zu, stride %zu, was written", i, matrix->rows, matrix->cols,
                      matrix->stride);
    }
}

void test_matrix_free(struct test_matrix *matrix) {
    test_matrix_check(matrix);
    guarded_free(matrix->data);
    matrix->data = NULL;
}

/* ---- Calls ---- */

attn_status gemm_rows(const attn_gemm *gemm, size_t m, const float *x, size_t x_stride, float *y, size_t y_stride,
                      const attn_parallel *parallel, attn_error *error) {
    attn_gemm_run_args args = {.m = m, .parallel = parallel};
    args.x = (attn_tensor){.data = x, .row_stride = x_stride};
    args.y = (attn_tensor_out){.data = y, .row_stride = y_stride};
    if (attn_gemm_workspace(gemm, &args, &args.workspace_bytes, NULL) == ATTN_OK && args.workspace_bytes > 0)
        args.workspace = poisoned_alloc(args.workspace_bytes, FLUSH_END);
    attn_status status = attn_gemm_run(gemm, &args, error);
    guarded_free(args.workspace);
    return status;
}

/* ---- Comparison ---- */

static bool same_float(float a, float b) {
    return bits_of(a) == bits_of(b) || (isnan(a) && isnan(b));
}

void test_same_bits(const float *expected, const float *actual, size_t n, const char *file, int line) {
    if (n == 0 || memcmp(expected, actual, n * sizeof *expected) == 0)
        return;
    for (size_t i = 0; i < n; i++)
        if (!same_float(expected[i], actual[i]))
            test_fail_at(file, line, "float %zu of %zu: expected %08x (%a, %g), is %08x (%a, %g)", i, n,
                         bits_of(expected[i]), (double)expected[i], (double)expected[i], bits_of(actual[i]),
                         (double)actual[i], (double)actual[i]);
}

void test_same_matrix(const struct test_matrix *expected, const struct test_matrix *actual, const char *file,
                      int line) {
    if (expected->rows != actual->rows || expected->cols != actual->cols)
        test_fail_at(file, line, "matrices of different shapes are compared");
    for (size_t i = 0; i < expected->rows; i++) {
        const float *e = expected->data + i * expected->stride, *a = actual->data + i * actual->stride;
        for (size_t j = 0; j < expected->cols; j++)
            if (!same_float(e[j], a[j]))
                test_fail_at(file, line, "element [%zu][%zu] of %zu x %zu: expected %08x (%a), is %08x (%a)", i, j,
                             expected->rows, expected->cols, bits_of(e[j]), (double)e[j], bits_of(a[j]), (double)a[j]);
    }
}

void test_near(double expected, double actual, double bound, const char *file, int line) {
    if (isnan(expected) && isnan(actual))
        return;
    if (expected == actual || fabs(expected - actual) <= bound)
        return;
    test_fail_at(file, line, "expected %.17g within %g, is %.17g: %g off", expected, bound, actual,
                 fabs(expected - actual));
}

void test_status(attn_status expected, attn_status actual, const char *file, int line) {
    if (expected != actual)
        test_fail_at(file, line, "expected status %d (%s), is %d (%s)", (int)expected, attn_status_string(expected),
                     (int)actual, attn_status_string(actual));
}
