/* Which ISA a process runs on: names, tables, the choice and ATTN_MAX_ISA.
 *
 * --expect ISA says what must have been chosen here, for emulated processors whose answer is known. */
#define _GNU_SOURCE 1
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifndef _WIN32
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "cpu.h"
#include "dispatch.h"

/* ---- Fresh processes ----
 *
 * The library reads ATTN_MAX_ISA once. Each value needs a process that has not called it yet: main forks them before
 * its own first call, which works under an emulator too, where executing the program again may leave the emulator.
 * Windows cannot fork: there the program runs itself with --answer. */

struct observation {
    const char *max_isa; /* value of ATTN_MAX_ISA, NULL for none */
    bool verbose;        /* with ATTN_VERBOSE=1 */
    attn_isa chosen;
    int supported[ATTN_ISA_COUNT];
    char stderr_text[512];
};

#define LONG_NAME             "scalar of a name that is longer than any"

#define ISA(name, NAME, arch) {.max_isa = #name},
static struct observation observations[] = {
    {.max_isa = NULL},
    {.max_isa = ""},
    {.max_isa = "best"},
    {.max_isa = "BEST"},
    {.max_isa = "sse9"},
    {.max_isa = "AVX2"},
    {.max_isa = "Neon"},
    {.max_isa = "avx2 "},
    {.max_isa = "sCaLaR"},
    {.max_isa = LONG_NAME},
    {.max_isa = "avx2", .verbose = true},
    {.max_isa = "neon", .verbose = true},
    {.max_isa = "scalar", .verbose = true},
#include "isa.def"
};
#undef ISA

enum { OBSERVATION_COUNT = sizeof observations / sizeof *observations };

static const char *shown(const char *max_isa) {
    return max_isa ? max_isa : "(unset)";
}

static bool set_variable(const char *name, const char *value) {
#ifdef _WIN32
    return _putenv_s(name, value ? value : "") == 0;
#else
    return (value ? setenv(name, value, 1) : unsetenv(name)) == 0;
#endif
}

static bool set_variables(const struct observation *o) {
    return set_variable("ATTN_MAX_ISA", o->max_isa) && set_variable("ATTN_VERBOSE", o->verbose ? "1" : NULL);
}

/* Asks twice, because the report is to come once. */
static void ask(struct observation *o) {
    for (int i = 0; i < 2; i++)
        o->chosen = attn_isa_chosen();
    for (int isa = 0; isa < ATTN_ISA_COUNT; isa++)
        o->supported[isa] = attn_isa_supported((attn_isa)isa);
}

static void no_answer(const struct observation *o) {
    fprintf(stderr, "no answer from the process with ATTN_MAX_ISA=%s\n", shown(o->max_isa));
    exit(1);
}

#ifdef _WIN32

/* The child's answer: a line of numbers after what the library has printed. */
static int answer(void) {
    struct observation o = {0};
    ask(&o);
    printf("answer %d", (int)o.chosen);
    for (int isa = 0; isa < ATTN_ISA_COUNT; isa++)
        printf(" %d", o.supported[isa]);
    return 0;
}

static bool read_answer(struct observation *o, char *text) {
    char *next = strstr(text, "answer ");
    if (!next)
        return false;
    *next = '\0';
    o->chosen = (attn_isa)strtol(next + strlen("answer "), &next, 10);
    for (int isa = 0; isa < ATTN_ISA_COUNT; isa++)
        o->supported[isa] = (int)strtol(next, &next, 10);
    return true;
}

static void observe(struct observation *o, const char *program_path) {
    char command[1024];
    snprintf(command, sizeof command, "\"\"%s\" --answer 2>&1\"", program_path);
    FILE *child = set_variables(o) ? _popen(command, "r") : NULL;
    if (!child)
        no_answer(o);
    size_t length = fread(o->stderr_text, 1, sizeof o->stderr_text - 1, child);
    o->stderr_text[length] = '\0';
    if (_pclose(child) != 0 || !read_answer(o, o->stderr_text))
        no_answer(o);
    set_variables(&(struct observation){0});
}

#else

static void answer(struct observation *o, int answer_pipe) {
    if (!set_variables(o))
        abort();
    ask(o);
    bool sent = write(answer_pipe, o, sizeof *o) == (ssize_t)sizeof *o;
    _exit(sent ? 0 : 1);
}

static void observe(struct observation *o, const char *program_path) {
    (void)program_path;
    int answers[2];
    FILE *errors = tmpfile();
    if (!errors || pipe(answers) != 0)
        abort();
    pid_t child = fork();
    if (child == 0) {
        dup2(fileno(errors), STDERR_FILENO);
        answer(o, answers[1]);
    }
    close(answers[1]);
    int status = -1;
    struct observation answered;
    bool complete = read(answers[0], &answered, sizeof answered) == (ssize_t)sizeof answered;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0 || !complete)
        no_answer(o);
    *o = answered;
    rewind(errors);
    size_t length = fread(o->stderr_text, 1, sizeof o->stderr_text - 1, errors);
    o->stderr_text[length] = '\0';
    fclose(errors);
    close(answers[0]);
}

#endif

static const struct observation *observed_with(const char *max_isa, bool verbose) {
    for (size_t i = 0; i < OBSERVATION_COUNT; i++) {
        const char *value = observations[i].max_isa;
        if (observations[i].verbose == verbose &&
            (value == max_isa || (value && max_isa && strcmp(value, max_isa) == 0)))
            return &observations[i];
    }
    test_fail("ATTN_MAX_ISA=%s was not observed", shown(max_isa));
}

static const struct observation *observed(const char *max_isa) {
    return observed_with(max_isa, false);
}

static attn_isa best(void) {
    return observed(NULL)->chosen;
}

/* Whether `isa` is `from` or an ISA below it. */
static bool at_or_below(attn_isa isa, attn_isa from) {
    const struct attn_kernels *table = attn_table(from);
    while (table && table->isa != isa)
        table = table->lower;
    return table != NULL;
}

/* ---- The choice ---- */

static void chooses_what_is_expected(void **state) {
    (void)state;
    const char *name = test_option("expect");
    if (!name) {
        print_message("--expect was not given: what this machine should choose is not known\n");
        skip();
    }
    attn_isa expected = ATTN_ISA_BEST;
    assert_ok(attn_isa_from_name(name, &expected));
    assert_string_equal(attn_isa_name(attn_isa_chosen()), attn_isa_name(expected));
    assert_string_equal(attn_isa_name(best()), attn_isa_name(expected));
}

static void chooses_the_best_supported(void **state) {
    (void)state;
    assert_true(attn_isa_supported(best()));
    for (int isa = (int)best() + 1; isa < ATTN_ISA_COUNT; isa++)
        if (attn_isa_supported((attn_isa)isa))
            test_fail("%s is supported, but %s was chosen", attn_isa_name((attn_isa)isa), attn_isa_name(best()));
}

/* What a table inherits from comes before it in isa.def, runs wherever it runs, and is this: */
static void tables_stand_on_each_other(void **state) {
    (void)state;
    static const struct {
        attn_isa isa, lower;
    } tree[] = {
        {ATTN_ISA_AVX2, ATTN_ISA_SCALAR},
        {ATTN_ISA_AVX2_VNNI, ATTN_ISA_AVX2},
        {ATTN_ISA_AVX512, ATTN_ISA_AVX2},
        {ATTN_ISA_AVX512_VNNI, ATTN_ISA_AVX512},
        {ATTN_ISA_AVX512_BF16, ATTN_ISA_AVX512_VNNI},
        {ATTN_ISA_AMX, ATTN_ISA_AVX512_BF16},
        {ATTN_ISA_NEON, ATTN_ISA_SCALAR},
        {ATTN_ISA_NEON_DOT, ATTN_ISA_NEON},
        {ATTN_ISA_NEON_MM, ATTN_ISA_NEON_DOT},
        {ATTN_ISA_SVE256, ATTN_ISA_NEON},
    };
    assert_int_equal(sizeof tree / sizeof *tree, ATTN_ISA_COUNT - 2); /* all but best and scalar */
    for (size_t i = 0; i < sizeof tree / sizeof *tree; i++) {
        const struct attn_kernels *table = attn_table(tree[i].isa);
        test_case("%s", attn_isa_name(tree[i].isa));
        if (!table)
            continue;
        assert_int_equal(tree[i].lower, table->lower->isa);
        assert_true(tree[i].lower < tree[i].isa);
        if (attn_isa_supported(tree[i].isa))
            assert_true(attn_isa_supported(tree[i].lower));
    }
}

/* The compiler's own detection, which looks at XCR0 too. */
static void agrees_with_the_compiler(void **state) {
    (void)state;
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    assert_int_equal(attn_isa_supported(ATTN_ISA_AVX2), avx2 && attn_isa_built(ATTN_ISA_AVX2));
    assert_int_equal(attn_isa_supported(ATTN_ISA_AVX512), avx512 && attn_isa_built(ATTN_ISA_AVX512));
    bool vnni = avx512 && __builtin_cpu_supports("avx512vnni"), bf16 = vnni && __builtin_cpu_supports("avx512bf16");
    assert_int_equal(attn_isa_supported(ATTN_ISA_AVX512_VNNI), vnni && attn_isa_built(ATTN_ISA_AVX512_VNNI));
    assert_int_equal(attn_isa_supported(ATTN_ISA_AVX512_BF16), bf16 && attn_isa_built(ATTN_ISA_AVX512_BF16));
    assert_int_equal(attn_isa_supported(ATTN_ISA_NEON), 0);
#elif defined(__aarch64__)
    assert_int_equal(attn_isa_supported(ATTN_ISA_AVX2), 0);
    assert_int_equal(attn_isa_supported(ATTN_ISA_AVX512), 0);
    assert_int_equal(attn_isa_supported(ATTN_ISA_NEON), attn_isa_built(ATTN_ISA_NEON));
#else
    assert_int_equal(best(), ATTN_ISA_SCALAR);
#endif
}

/* ---- ATTN_MAX_ISA ---- */

/* Whether `isa` is one of the architecture that this program is compiled for. */
static bool is_of_here(attn_isa isa) {
#if defined(__x86_64__)
    return isa <= ATTN_ISA_AMX;
#elif defined(__aarch64__)
    return isa == ATTN_ISA_SCALAR || isa >= ATTN_ISA_NEON;
#else
    return isa == ATTN_ISA_SCALAR;
#endif
}

/* The last in isa.def that runs here and is not after `isa`. */
static attn_isa best_up_to(attn_isa isa) {
    attn_isa found = ATTN_ISA_SCALAR;
    for (int i = ATTN_ISA_SCALAR; i <= (int)isa; i++)
        if (attn_isa_supported((attn_isa)i))
            found = (attn_isa)i;
    return found;
}

static void max_isa_only_lowers(void **state) {
    (void)state;
    for (int i = ATTN_ISA_SCALAR; i < ATTN_ISA_COUNT; i++) {
        attn_isa isa = (attn_isa)i;
        test_case("ATTN_MAX_ISA=%s, best is %s", attn_isa_name(isa), attn_isa_name(best()));
        const struct observation *o = observed(attn_isa_name(isa));
        assert_int_equal(o->chosen, is_of_here(isa) ? best_up_to(isa) : best());
        assert_string_equal(o->stderr_text, "");
    }
}

static void max_isa_of_another_architecture_is_said_if_asked(void **state) {
    (void)state;
    const attn_isa isas[] = {ATTN_ISA_SCALAR, ATTN_ISA_AVX2, ATTN_ISA_NEON};
    for (size_t i = 0; i < 3; i++) {
        const char *name = attn_isa_name(isas[i]);
        char expected[128];
        snprintf(expected, sizeof expected, "attn: ATTN_MAX_ISA=%s is of another architecture, ignored\n", name);
        test_case("ATTN_MAX_ISA=%s", name);
        bool said = strstr(observed_with(name, true)->stderr_text, expected) != NULL;
        assert_int_equal(!is_of_here(isas[i]), said);
    }
}

static void max_isa_may_be_unset_or_best(void **state) {
    (void)state;
    const char *const values[] = {NULL, "", "best", "BEST"};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(observed(values[i])->chosen, best());
        assert_string_equal(observed(values[i])->stderr_text, "");
    }
}

static void max_isa_ignores_case(void **state) {
    (void)state;
    const char *const pairs[][2] = {{"AVX2", "avx2"}, {"Neon", "neon"}, {"sCaLaR", "scalar"}};
    for (size_t i = 0; i < 3; i++) {
        const struct observation *mixed = observed(pairs[i][0]), *lower = observed(pairs[i][1]);
        test_case("ATTN_MAX_ISA=%s printed '%s'", pairs[i][0], mixed->stderr_text);
        assert_int_equal(lower->chosen, mixed->chosen);
        assert_int_equal(lower->stderr_text[0] == '\0', mixed->stderr_text[0] == '\0');
    }
    assert_int_equal(ATTN_ISA_SCALAR, observed("sCaLaR")->chosen);
}

/* The ISAs that are built, as the report lists them. */
static void list_names(char *text, size_t size) {
    size_t used = 0;
    for (int isa = ATTN_ISA_SCALAR; isa < ATTN_ISA_COUNT; isa++)
        if (attn_isa_built((attn_isa)isa))
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", attn_isa_name((attn_isa)isa));
}

/* One line that names the value and the names that there are, however often the choice is asked for. */
static void max_isa_unknown_is_reported_and_ignored(void **state) {
    (void)state;
    const char *const names[] = {"sse9", "avx2 ", LONG_NAME};
    for (size_t i = 0; i < 3; i++) {
        const struct observation *o = observed(names[i]);
        char known[256] = "", expected[512];
        list_names(known, sizeof known);
        snprintf(expected, sizeof expected,
                 "attn: ATTN_MAX_ISA=%s is not an instruction set of this library (%s), ignored\n", names[i], known);
        assert_int_equal(o->chosen, best());
        assert_string_equal(expected, o->stderr_text);
    }
}

static void max_isa_leaves_explicit_isas_alone(void **state) {
    (void)state;
    for (size_t i = 0; i < OBSERVATION_COUNT; i++)
        for (int isa = 0; isa < ATTN_ISA_COUNT; isa++)
            assert_int_equal(observations[i].supported[isa], attn_isa_supported((attn_isa)isa));
}

/* ---- Names ---- */

static void names_round_trip(void **state) {
    (void)state;
    for (int i = 0; i < ATTN_ISA_COUNT; i++) {
        attn_isa isa = ATTN_ISA_COUNT;
        assert_non_null(attn_isa_name((attn_isa)i));
        assert_ok(attn_isa_from_name(attn_isa_name((attn_isa)i), &isa));
        assert_int_equal(isa, i);
    }
    assert_string_equal(attn_isa_name(ATTN_ISA_BEST), "best");
    assert_null(attn_isa_name(ATTN_ISA_COUNT));
    assert_null(attn_isa_name((attn_isa)-1));
    assert_null(attn_isa_name((attn_isa)1000));
}

static void refuses_unknown_names(void **state) {
    (void)state;
    const char *const names[] = {"", "AVX2", "avx", "avx512f", " avx2", "avx2 ", "scalar\n", "sse2"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        attn_isa isa = ATTN_ISA_COUNT;
        test_case("name '%s'", names[i]);
        assert_status(ATTN_UNKNOWN_ISA, attn_isa_from_name(names[i], &isa));
        assert_int_equal(isa, ATTN_ISA_COUNT);
    }
    attn_isa isa = ATTN_ISA_COUNT;
    assert_status(ATTN_NULL_POINTER, attn_isa_from_name(NULL, &isa));
    assert_status(ATTN_NULL_POINTER, attn_isa_from_name("avx2", NULL));
    assert_int_equal(isa, ATTN_ISA_COUNT);
}

/* ---- Tables ---- */

/* The one that this machine computes with. */
static const struct attn_kernels *table_here(attn_isa isa) {
    struct attn_cpu_registers registers;
    attn_cpu_read(&registers);
    return attn_table_on(isa, attn_cpu_is_slow_at_pairs(&registers));
}

static void supported_is_built(void **state) {
    (void)state;
    assert_true(attn_isa_built(ATTN_ISA_SCALAR) && attn_isa_supported(ATTN_ISA_SCALAR));
    for (int isa = ATTN_ISA_SCALAR; isa < ATTN_ISA_COUNT; isa++) {
        test_case("%s", attn_isa_name((attn_isa)isa));
        assert_true(attn_isa_built((attn_isa)isa) || !attn_isa_supported((attn_isa)isa));
        assert_int_equal(attn_isa_built((attn_isa)isa), attn_table((attn_isa)isa) != NULL);
    }
    const attn_isa none[] = {ATTN_ISA_COUNT, (attn_isa)-1, (attn_isa)1000};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(attn_isa_built(none[i]), 0);
        assert_int_equal(attn_isa_supported(none[i]), 0);
    }
}

static void tables_are_complete(void **state) {
    (void)state;
    for (int isa = ATTN_ISA_SCALAR; isa < ATTN_ISA_COUNT; isa++) {
        const struct attn_kernels *table = attn_table((attn_isa)isa);
        if (!table)
            continue;
        test_case("%s", attn_isa_name((attn_isa)isa));
        assert_int_equal(table->isa, isa);
        assert_true(at_or_below(ATTN_ISA_SCALAR, (attn_isa)isa));
        assert_non_null(attn_gemm_find(table, ATTN_CLASS_F32)->name);
        assert_non_null(attn_table_softmax(table)->name);
        assert_non_null(attn_table_elementary(table)->name);
        assert_non_null(attn_table_attention(table)->name);
        assert_non_null(attn_table_small(table)->name);
        assert_non_null(attn_table_copy(table)->name);
        assert_non_null(attn_table_convert(table)->name);
    }
    assert_null(attn_kernels_scalar.lower);
    assert_null(attn_table(ATTN_ISA_BEST));
    assert_null(attn_table(ATTN_ISA_COUNT));
}

/* The table of a processor that is slow at pairs of BF16 differs in products of class BF16, and in few rows. */
static void slow_pairs_are_multiplied_by_fma(void **state) {
    (void)state;
    for (int i = ATTN_ISA_SCALAR; i < ATTN_ISA_COUNT; i++) {
        attn_isa isa = (attn_isa)i;
        const struct attn_kernels *table = attn_table_on(isa, false), *slow = attn_table_on(isa, true);
        test_case("%s", attn_isa_name(isa));
        assert_ptr_equal(table, attn_table(isa));
        assert_int_equal(slow != table, table && (isa == ATTN_ISA_AVX512_BF16 || isa == ATTN_ISA_AMX));
        if (slow == table)
            continue;
        const struct attn_gemm_kernel *by_pairs = attn_gemm_find(table, ATTN_CLASS_BF16),
                                      *by_fma = attn_gemm_find(slow, ATTN_CLASS_BF16),
                                      *tile = attn_gemm_find(table, ATTN_CLASS_BF16_TILE);
        assert_int_equal(slow->isa, isa);
        assert_null(slow->by_fma);
        assert_ptr_equal(by_fma, attn_gemm_find(attn_table(ATTN_ISA_AVX512), ATTN_CLASS_BF16));
        assert_ptr_equal(by_pairs, attn_gemm_find(attn_table(ATTN_ISA_AVX512_BF16), ATTN_CLASS_BF16));
        assert_int_equal(by_fma->b.type, by_pairs->b.type);
        assert_int_equal(by_fma->b.cols, by_pairs->b.cols);
        assert_int_equal(by_fma->b.k_unit, by_pairs->b.k_unit);
        assert_int_equal(attn_bf16_for(table, by_pairs)->type, by_pairs->a);
        assert_int_equal(attn_bf16_for(slow, by_fma)->type, by_fma->a);
        assert_ptr_equal(attn_bf16_for(slow, tile), attn_bf16_for(table, tile));
        assert_null(attn_decode_for(slow, by_fma));
        assert_non_null(attn_decode_for(table, by_pairs));
        for (int arithmetic = ATTN_CLASS_F32; arithmetic <= ATTN_CLASS_INT8_BLOCKS; arithmetic++)
            for (int type = ATTN_F32; type <= ATTN_F8_E5M2; type++)
                if (arithmetic != ATTN_CLASS_BF16)
                    assert_ptr_equal(attn_gemm_find_type(slow, (enum attn_class)arithmetic, (attn_type)type),
                                     attn_gemm_find_type(table, (enum attn_class)arithmetic, (attn_type)type));
        assert_ptr_equal(attn_table_convert(slow), attn_table_convert(table));
        assert_ptr_equal(attn_table_small(slow), attn_table_small(table));
        assert_ptr_equal(attn_table_attention(slow), attn_table_attention(table));
        assert_ptr_equal(attn_table_decode(slow), attn_table_decode(table));
    }
}

static void table_for_checks_the_isa(void **state) {
    (void)state;
    const struct attn_kernels *table = NULL;
    assert_ok(attn_table_for(ATTN_ISA_BEST, &table));
    assert_ptr_equal(table, table_here(attn_isa_chosen()));
    for (int i = ATTN_ISA_SCALAR; i <= ATTN_ISA_COUNT; i++) {
        attn_isa isa = (attn_isa)i;
        attn_status expected = !attn_isa_built(isa)       ? ATTN_UNKNOWN_ISA
                               : !attn_isa_supported(isa) ? ATTN_UNSUPPORTED_ISA
                                                          : ATTN_OK;
        test_case("isa %d", i);
        table = NULL;
        assert_status(expected, attn_table_for(isa, &table));
        assert_ptr_equal(table, expected == ATTN_OK ? table_here(isa) : NULL);
    }
}

/* The first of the class, in the table's own list before the lower one's. */
static void finds_the_first_gemm_kernel(void **state) {
    (void)state;
    const enum attn_class other = (enum attn_class)(ATTN_CLASS_F32 + 1);
    const struct attn_gemm_kernel first = {0}, second = {0}, below = {0},
                                  of_other = {.arithmetic = other, .b = {.type = ATTN_BF16}};
    const struct attn_gemm_kernel *const list[] = {&first, &second, NULL}, *const low[] = {&below, &of_other, NULL};
    const struct attn_kernels lower = {.gemm = low}, table = {.gemm = list, .lower = &lower},
                              inherits = {.lower = &lower};
    assert_ptr_equal(attn_gemm_find(&table, ATTN_CLASS_F32), &first);
    assert_ptr_equal(attn_gemm_find(&inherits, ATTN_CLASS_F32), &below);
    assert_ptr_equal(attn_gemm_find(&table, other), &of_other);
    assert_null(attn_gemm_find(&table, (enum attn_class)(other + 1)));
}

/* Scalar's kernels are the references of all classes: they make no class the fastest one. */
static void chooses_the_class(void **state) {
    (void)state;
    const struct attn_gemm_kernel tile = {.arithmetic = ATTN_CLASS_BF16_TILE}, plain = {.arithmetic = ATTN_CLASS_F32};
    const struct attn_gemm_kernel *const list[] = {&plain, &tile, NULL}, *const none[] = {&plain, NULL};
    const struct attn_kernels scalar = {.gemm = list}, vectors = {.gemm = none, .lower = &scalar},
                              units = {.gemm = list, .lower = &vectors}, inherits = {.lower = &units};
    const struct attn_kernels *const tables[] = {&scalar, &vectors, &units, &inherits};
    for (size_t i = 0; i < 4; i++) {
        test_case("table %zu", i);
        assert_int_equal(attn_class_for(tables[i], ATTN_BF16, ATTN_ARITHMETIC_FASTEST),
                         i < 2 ? ATTN_CLASS_BF16 : ATTN_CLASS_BF16_TILE);
        assert_int_equal(attn_class_for(tables[i], ATTN_BF16, ATTN_ARITHMETIC_PORTABLE), ATTN_CLASS_BF16);
        assert_int_equal(attn_class_for(tables[i], ATTN_F16, ATTN_ARITHMETIC_FASTEST), ATTN_CLASS_F32);
        assert_int_equal(attn_class_for(tables[i], ATTN_F32, ATTN_ARITHMETIC_FASTEST), ATTN_CLASS_F32);
    }
}

static void version_is_the_header_s(void **state) {
    (void)state;
    char text[64];
    snprintf(text, sizeof text, "%d.%d.%d", ATTN_VERSION_MAJOR, ATTN_VERSION_MINOR, ATTN_VERSION_PATCH);
    assert_string_equal(attn_version(), text);
    assert_int_equal(ATTN_VERSION, attn_version_number());
    assert_int_equal(ATTN_VERSION_MAJOR, ATTN_VERSION / 10000);
    assert_int_equal(ATTN_VERSION_MINOR, ATTN_VERSION / 100 % 100);
    assert_int_equal(ATTN_VERSION_PATCH, ATTN_VERSION % 100);
}

int main(int argc, char **argv) {
#ifdef _WIN32
    if (argc == 2 && strcmp(argv[1], "--answer") == 0)
        return answer();
#endif
    for (size_t i = 0; i < OBSERVATION_COUNT; i++)
        observe(&observations[i], argv[0]);
    test_init(argc, argv, (const char *const[]){"expect", NULL});
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chooses_what_is_expected),
        cmocka_unit_test(chooses_the_best_supported),
        cmocka_unit_test(agrees_with_the_compiler),
        cmocka_unit_test(tables_stand_on_each_other),
        cmocka_unit_test(max_isa_only_lowers),
        cmocka_unit_test(max_isa_of_another_architecture_is_said_if_asked),
        cmocka_unit_test(max_isa_may_be_unset_or_best),
        cmocka_unit_test(max_isa_ignores_case),
        cmocka_unit_test(max_isa_unknown_is_reported_and_ignored),
        cmocka_unit_test(max_isa_leaves_explicit_isas_alone),
        cmocka_unit_test(names_round_trip),
        cmocka_unit_test(refuses_unknown_names),
        cmocka_unit_test(supported_is_built),
        cmocka_unit_test(tables_are_complete),
        cmocka_unit_test(slow_pairs_are_multiplied_by_fma),
        cmocka_unit_test(table_for_checks_the_isa),
        cmocka_unit_test(finds_the_first_gemm_kernel),
        cmocka_unit_test(chooses_the_class),
        cmocka_unit_test(version_is_the_header_s),
    };
    return test_run(tests);
}
