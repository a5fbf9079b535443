/* Elementary functions of one ISA against SLEEF's deterministic ones, bit for bit: over all 2^32 inputs of exp and, on
 * SIMD ISAs, all that the attention loop may give to its exp, elsewhere over every N-th.
 *
 * --step N, or ATTN_TEST_EXP_STEP=N, takes every N-th input in all sweeps; the first one follows from the seed. */
#include "support.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

typedef void array_function(const float *x, float *y, size_t n);

/* ---- SLEEF, over arrays of a multiple of 16 ----
 *
 * Declared here: sleef.h has a vector function only where the flags of the whole file allow its type. */

#define EACH_FUNCTION(F) F(exp) F(log) F(tanh) F(sin) F(cos)
#define SLEEF_KERNEL(isa)                                                                                              \
    {                                                                                                                  \
        .name = "SLEEF", .exp = sleef_exp_##isa, .log = sleef_log_##isa, .tanh = sleef_tanh_##isa,                     \
        .sin = sleef_sin_##isa, .cos = sleef_cos_##isa                                                                 \
    }

#define SLEEF_SCALAR(name)                                                                                             \
    float Sleef_finz_##name##f1_u10purecfma(float);                                                                    \
    static void sleef_##name##_scalar(const float *x, float *y, size_t n) {                                            \
        for (size_t i = 0; i < n; i++)                                                                                 \
            y[i] = Sleef_finz_##name##f1_u10purecfma(x[i]);                                                            \
    }
EACH_FUNCTION(SLEEF_SCALAR)
static const struct attn_elementary_kernel sleef_scalar = SLEEF_KERNEL(scalar);

#if defined(__x86_64__)
#define TARGET_AVX2   __attribute__((target("avx2,fma")))
#define TARGET_AVX512 __attribute__((target("avx512f")))

#define SLEEF_AVX2(name)                                                                                               \
    TARGET_AVX2 __m256 Sleef_finz_##name##f8_u10avx2(__m256);                                                          \
    TARGET_AVX2 static void sleef_##name##_avx2(const float *x, float *y, size_t n) {                                  \
        for (size_t i = 0; i < n; i += 8)                                                                              \
            _mm256_storeu_ps(y + i, Sleef_finz_##name##f8_u10avx2(_mm256_loadu_ps(x + i)));                            \
    }
EACH_FUNCTION(SLEEF_AVX2)
static const struct attn_elementary_kernel sleef_avx2 = SLEEF_KERNEL(avx2);

#define SLEEF_AVX512(name)                                                                                             \
    TARGET_AVX512 __m512 Sleef_finz_##name##f16_u10avx512f(__m512);                                                    \
    TARGET_AVX512 static void sleef_##name##_avx512(const float *x, float *y, size_t n) {                              \
        for (size_t i = 0; i < n; i += 16)                                                                             \
            _mm512_storeu_ps(y + i, Sleef_finz_##name##f16_u10avx512f(_mm512_loadu_ps(x + i)));                        \
    }
EACH_FUNCTION(SLEEF_AVX512)
static const struct attn_elementary_kernel sleef_avx512 = SLEEF_KERNEL(avx512);
#elif defined(__aarch64__)
#define SLEEF_NEON(name)                                                                                               \
    float32x4_t Sleef_finz_##name##f4_u10advsimd(float32x4_t);                                                         \
    static void sleef_##name##_neon(const float *x, float *y, size_t n) {                                              \
        for (size_t i = 0; i < n; i += 4)                                                                              \
            vst1q_f32(y + i, Sleef_finz_##name##f4_u10advsimd(vld1q_f32(x + i)));                                      \
    }
EACH_FUNCTION(SLEEF_NEON)
static const struct attn_elementary_kernel sleef_neon = SLEEF_KERNEL(neon);
#endif

/* SLEEF's scalar functions contain FMA instructions. */
static bool machine_has_fma(void) {
#if defined(__x86_64__)
    return __builtin_cpu_supports("fma");
#else
    return true;
#endif
}

/* How SLEEF does it on the ISA under test; NULL in every field where this machine cannot run it. */
static const struct attn_elementary_kernel *sleef(void) {
    static const struct attn_elementary_kernel none;
    switch (test_isa()) {
#if defined(__x86_64__)
    case ATTN_ISA_AVX2:
        return &sleef_avx2;
    case ATTN_ISA_AVX512:
        return &sleef_avx512;
#elif defined(__aarch64__)
    case ATTN_ISA_NEON:
        return &sleef_neon;
#endif
    default:
        return machine_has_fma() ? &sleef_scalar : &none;
    }
}

static const struct attn_elementary_kernel *kernel(void) {
    return attn_table_elementary(test_table());
}

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* An operation and its inputs: bit patterns up to `largest`, the sign apart. The sweep takes every `step`-th. */
struct operation {
    const char *name;
    array_function *kernel, *sleef; /* sleef: NULL where this machine cannot run it */
    double (*exact)(double);
    uint32_t largest;
    bool negative; /* of the negative sign only */
    double ulps;   /* the largest error */
    uint64_t step;
};

#define MAGNITUDE UINT32_C(0x7fffffff)

/* `simd` on a SIMD ISA, `scalar` on the reference, whose multiply-add is a call. */
static uint64_t step_of(uint64_t simd, uint64_t scalar) {
    const char *text = getenv("ATTN_TEST_EXP_STEP");
    uint64_t step = test_isa() == ATTN_ISA_SCALAR ? scalar : simd;
    if (test_quick())
        step = 10007;
    if (text && *text)
        step = strtoull(text, NULL, 10);
    step = test_option_number("step", step);
    if (step == 0 || step > UINT32_C(0x7fffffff))
        test_fail("a step from 1 to 2^31 - 1 is needed");
    return step;
}

static struct operation exp_operation(void) {
    return (struct operation){.name = "exp",
                              .kernel = kernel()->exp,
                              .sleef = sleef()->exp,
                              .exact = exp,
                              .largest = MAGNITUDE,
                              .ulps = 1.0,
                              .step = step_of(1, 1)};
}

/* The exp that is inlined in the attention loop, for which no logit is above the shift: exp(x - 0) * 1 is its very bits. */
static void attention_exp(const float *x, float *y, size_t n) {
    attn_table_attention(test_table())->weights(x, 0, n, n, 0.0f, 1.0f, y);
}

static struct operation attention_exp_operation(void) {
    struct operation operation = exp_operation();
    operation.name = "attention's exp";
    operation.kernel = attention_exp;
    operation.negative = true;
    operation.step = step_of(1, 7);
    return operation;
}

static struct operation log_operation(void) {
    return (struct operation){.name = "log",
                              .kernel = kernel()->log,
                              .sleef = sleef()->log,
                              .exact = log,
                              .largest = MAGNITUDE,
                              .ulps = 1.0,
                              .step = step_of(3, 21)};
}

/* Near 2^-24, where tanh(x) is x, SLEEF may give the next float and so be a whole unit off, and a hair. */
static struct operation tanh_operation(void) {
    return (struct operation){.name = "tanh",
                              .kernel = kernel()->tanh,
                              .sleef = sleef()->tanh,
                              .exact = tanh,
                              .largest = MAGNITUDE,
                              .ulps = 1.0 + 1e-7,
                              .step = step_of(23, 31)};
}

static struct operation sin_operation(void) {
    return (struct operation){.name = "sin",
                              .kernel = kernel()->sin,
                              .sleef = sleef()->sin,
                              .exact = sin,
                              .largest = bits_of(4.0f),
                              .ulps = 1.0,
                              .step = step_of(23, 31)};
}

static struct operation cos_operation(void) {
    struct operation operation = sin_operation();
    operation.name = "cos";
    operation.kernel = kernel()->cos;
    operation.sleef = sleef()->cos;
    operation.exact = cos;
    return operation;
}

static void skip_without_sleef(const struct operation *operation) {
    if (operation->sleef)
        return;
    print_message("SLEEF's %s needs FMA instructions, which this machine lacks\n", operation->name);
    skip();
}

/* ---- The sweep ---- */

enum { CHUNK = 4096, THREADS = 2 };

/* Bit patterns first + i * step for every i in [from, to). */
struct sweep {
    const struct operation *operation;
    uint64_t first, from, to;
    bool differs;
    uint32_t input;
    float expected, actual;
};

static bool same(float a, float b) {
    return bits_of(a) == bits_of(b) || (isnan(a) && isnan(b));
}

static void note_difference(struct sweep *sweep, const float *x, const float *expected, const float *actual) {
    for (size_t i = 0; i < CHUNK && !sweep->differs; i++)
        if (!same(expected[i], actual[i])) {
            sweep->differs = true;
            sweep->input = bits_of(x[i]);
            sweep->expected = expected[i];
            sweep->actual = actual[i];
        }
}

/* A thread of its own may not fail a test: it leaves the first difference behind. */
static void *run_sweep(void *arg) {
    struct sweep *sweep = arg;
    static _Thread_local _Alignas(64) float x[CHUNK], expected[CHUNK], actual[CHUNK];
    uint32_t step = (uint32_t)sweep->operation->step;
    for (uint64_t at = sweep->from; at < sweep->to && !sweep->differs; at += CHUNK) {
        uint32_t base = (uint32_t)(sweep->first + at * step);
        uint32_t n = sweep->to - at < CHUNK ? (uint32_t)(sweep->to - at) : CHUNK;
        for (uint32_t i = 0; i < n; i++)
            x[i] = float_of(base + i * step);
        for (uint32_t i = n; i < CHUNK; i++)
            x[i] = x[0];
        sweep->operation->sleef(x, expected, CHUNK);
        sweep->operation->kernel(x, actual, CHUNK);
        if (memcmp(expected, actual, sizeof expected) != 0)
            note_difference(sweep, x, expected, actual);
    }
    return NULL;
}

/* Every step-th input of one sign, which is 0 or the sign bit. */
static void check_sign(const struct operation *operation, uint64_t sign) {
    struct test_random random = test_random(operation->name);
    uint64_t inputs = (uint64_t)operation->largest + 1;
    uint64_t first = sign + random_below(&random, operation->step < inputs ? operation->step : inputs);
    uint64_t count = (sign + inputs - first + operation->step - 1) / operation->step;
    struct sweep sweeps[THREADS];
    pthread_t threads[THREADS];
    for (uint64_t i = 0; i < THREADS; i++) {
        sweeps[i] = (struct sweep){
            .operation = operation, .first = first, .from = count * i / THREADS, .to = count * (i + 1) / THREADS};
        if (pthread_create(&threads[i], NULL, run_sweep, &sweeps[i]) != 0)
            test_fail("no thread");
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < THREADS; i++)
        if (sweeps[i].differs)
            test_fail("%s(%08" PRIx32 " = %a): SLEEF has %08" PRIx32 " (%a), the kernel %08" PRIx32 " (%a)",
                      operation->name, sweeps[i].input, (double)float_of(sweeps[i].input), bits_of(sweeps[i].expected),
                      (double)sweeps[i].expected, bits_of(sweeps[i].actual), (double)sweeps[i].actual);
    print_message("%s: %" PRIu64 " inputs, every %" PRIu64 " from %" PRIx64 "\n", operation->name, count,
                  operation->step, first);
}

static void check_sweep(const struct operation *operation) {
    skip_without_sleef(operation);
    if (!operation->negative)
        check_sign(operation, 0);
    check_sign(operation, UINT64_C(1) << 31);
}

static void attention_exp_equals_sleef(void **state) {
    (void)state;
    struct operation operation = attention_exp_operation();
    check_sweep(&operation);
}

static void exp_equals_sleef(void **state) {
    (void)state;
    struct operation operation = exp_operation();
    check_sweep(&operation);
}

static void log_equals_sleef(void **state) {
    (void)state;
    struct operation operation = log_operation();
    check_sweep(&operation);
}

static void tanh_equals_sleef(void **state) {
    (void)state;
    struct operation operation = tanh_operation();
    check_sweep(&operation);
}

static void sin_equals_sleef(void **state) {
    (void)state;
    struct operation operation = sin_operation();
    check_sweep(&operation);
}

static void cos_equals_sleef(void **state) {
    (void)state;
    struct operation operation = cos_operation();
    check_sweep(&operation);
}

/* Whatever the step: 4096 neighbours of each point where a branch, a sign, an exponent or a rounding changes. */
static void check_edges(const struct operation *operation) {
    skip_without_sleef(operation);
    const float edges[] = {0.0f,    1.0f,         -1.0f,        0.75f,        1.5f,        0.5f,         2.0f,
                           -104.0f, -103.972f,    100.0f,       88.72284f,    -87.33655f,  0.34657f,     FLT_MIN,
                           FLT_MAX, FLT_TRUE_MIN, INFINITY,     -0.0f,        -FLT_MIN,    -0.34657359f, -INFINITY,
                           -88.37f, NAN,          0x1p-64f,     1.03972077f,  8.66433974f, -8.6643397f,  1.57079637f,
                           4.0f,    -4.0f,        -1.57079637f, -3.14159274f, 3.14159274f, -1.0397207f};
    static float x[CHUNK], expected[CHUNK], actual[CHUNK];
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        test_case("%s around %g", operation->name, (double)edges[i]);
        for (uint32_t j = 0; j < CHUNK; j++) {
            uint32_t bits = bits_of(edges[i]) - CHUNK / 2 + j;
            x[j] = (bits & MAGNITUDE) <= operation->largest ? float_of(bits) : 0.0f;
        }
        operation->sleef(x, expected, CHUNK);
        operation->kernel(x, actual, CHUNK);
        for (size_t j = 0; j < CHUNK; j++) {
            test_case("%s(%a)", operation->name, (double)x[j]);
            assert_same_bits(&expected[j], &actual[j], 1);
        }
    }
}

static void exp_equals_sleef_at_edges(void **state) {
    (void)state;
    struct operation operation = exp_operation();
    check_edges(&operation);
}

static void log_equals_sleef_at_edges(void **state) {
    (void)state;
    struct operation operation = log_operation();
    check_edges(&operation);
}

static void tanh_equals_sleef_at_edges(void **state) {
    (void)state;
    struct operation operation = tanh_operation();
    check_edges(&operation);
}

static void sin_equals_sleef_at_edges(void **state) {
    (void)state;
    struct operation operation = sin_operation();
    check_edges(&operation);
}

static void cos_equals_sleef_at_edges(void **state) {
    (void)state;
    struct operation operation = cos_operation();
    check_edges(&operation);
}

/* ---- Tails ---- */

static float random_input(struct test_random *random, const struct operation *operation) {
    float x = random_float(random, TEST_WILD);
    return (bits_of(x) & MAGNITUDE) <= operation->largest ? x : random_uniform(random, -4.0f, 4.0f);
}

/* Every length, between guard pages, in place too, against the scalar reference. */
static void check_tails(struct test_random *random, const struct operation *operation, array_function *reference) {
    for (size_t n = 0; n <= 130; n++)
        for (enum flush flush = FLUSH_END; flush <= FLUSH_START; flush++) {
            test_case("%s of %zu flush=%d", operation->name, n, (int)flush);
            float *x = guarded_floats(n, flush), *y = guarded_floats(n, flush), *expected = guarded_floats(n, flush);
            for (size_t i = 0; i < n; i++)
                x[i] = random_input(random, operation);
            reference(x, expected, n);
            operation->kernel(x, y, n);
            assert_same_bits(expected, y, n);
            operation->kernel(x, x, n);
            assert_same_bits(expected, x, n);
            guarded_free(x);
            guarded_free(y);
            guarded_free(expected);
        }
}

static void every_length_equals_reference(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const struct attn_elementary_kernel *reference = attn_table_elementary(&attn_kernels_scalar);
    const struct operation operations[] = {exp_operation(), log_operation(), tanh_operation(), sin_operation(),
                                           cos_operation()};
    array_function *const references[] = {reference->exp, reference->log, reference->tanh, reference->sin,
                                          reference->cos};
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        check_tails(&random, &operations[i], references[i]);
}

/* ---- Accuracy ---- */

/* The distance of y from `exact` in units of the last place that a float near `exact` has. */
static double ulps(double exact, float y) {
    int exponent;
    frexp(exact, &exponent);
    double ulp = ldexp(1.0, exponent - 24 < -149 ? -149 : exponent - 24);
    return fabs((double)y - exact) / ulp;
}

/* The largest distance over count floats from `first` on, `step` apart in their bit patterns. */
static double worst(const struct operation *operation, uint32_t first, uint32_t step, size_t count) {
    double largest = 0.0;
    static float x[CHUNK], y[CHUNK];
    for (size_t at = 0; at < count; at += CHUNK) {
        size_t n = count - at < CHUNK ? count - at : CHUNK;
        for (size_t i = 0; i < n; i++)
            x[i] = float_of(first + (uint32_t)(at + i) * step);
        operation->kernel(x, y, n);
        for (size_t i = 0; i < n; i++) {
            double distance = ulps(operation->exact((double)x[i]), y[i]);
            if (!(distance <= operation->ulps))
                test_fail("%s(%a) = %a is %g ULP off", operation->name, (double)x[i], (double)y[i], distance);
            largest = distance > largest ? distance : largest;
        }
    }
    return largest;
}

/* Floats in [low, high], both of one sign, high the farther from 0. */
static double worst_between(const struct operation *operation, float low, float high) {
    struct test_random random = test_random(operation->name);
    uint32_t step = test_quick() ? 100003 : 1009, offset = (uint32_t)random_below(&random, step);
    uint32_t first = bits_of(low) + offset, last = bits_of(high);
    return worst(operation, first, step, (last - first) / step + 1);
}

static void exp_is_within_one_ulp(void **state) {
    (void)state;
    struct operation operation = exp_operation();
    double negative = worst_between(&operation, -0.0f, -103.9f), positive = worst_between(&operation, 0.0f, 88.722f);
    print_message("exp: at most %.4f ULP below 0, %.4f above\n", negative, positive);
}

static void log_is_within_one_ulp(void **state) {
    (void)state;
    struct operation operation = log_operation();
    double denormal = worst_between(&operation, FLT_TRUE_MIN, FLT_MIN),
           normal = worst_between(&operation, FLT_MIN, FLT_MAX);
    print_message("log: at most %.4f ULP, %.4f for denormals\n", normal, denormal);
}

static void tanh_is_within_one_ulp(void **state) {
    (void)state;
    struct operation operation = tanh_operation();
    double negative = worst_between(&operation, -0.0f, -FLT_MAX), positive = worst_between(&operation, 0.0f, FLT_MAX);
    print_message("tanh: at most %.4f ULP\n", fmax(negative, positive));
}

static void sin_is_within_one_ulp(void **state) {
    (void)state;
    struct operation operation = sin_operation();
    double negative = worst_between(&operation, -0.0f, -4.0f), positive = worst_between(&operation, 0.0f, 4.0f);
    print_message("sin: at most %.4f ULP\n", fmax(negative, positive));
}

static void cos_is_within_one_ulp(void **state) {
    (void)state;
    struct operation operation = cos_operation();
    double negative = worst_between(&operation, -0.0f, -4.0f), positive = worst_between(&operation, 0.0f, 4.0f);
    print_message("cos: at most %.4f ULP\n", fmax(negative, positive));
}

static void has_the_limits_of_the_contract(void **state) {
    (void)state;
    const float x[] = {-104.5f, -1000.0f, -INFINITY, 100.5f, 1000.0f, INFINITY, NAN, 0.0f, -0.0f};
    const float exps[] = {0.0f, 0.0f, 0.0f, INFINITY, INFINITY, INFINITY, NAN, 1.0f, 1.0f};
    float y[9];
    test_case("exp");
    kernel()->exp(x, y, 9);
    assert_same_bits(exps, y, 9);

    const float z[] = {0.0f, -0.0f, 1.0f, INFINITY, -1.0f, -INFINITY, NAN, -FLT_TRUE_MIN};
    const float logs[] = {-INFINITY, -INFINITY, 0.0f, INFINITY, NAN, NAN, NAN, NAN};
    test_case("log");
    kernel()->log(z, y, 8);
    assert_same_bits(logs, y, 8);

    const float t[] = {0.0f, -0.0f, 9.0f, -9.0f, INFINITY, -INFINITY, NAN, FLT_TRUE_MIN, -FLT_MAX};
    const float tanhs[] = {0.0f, -0.0f, 1.0f, -1.0f, 1.0f, -1.0f, NAN, FLT_TRUE_MIN, -1.0f};
    test_case("tanh");
    kernel()->tanh(t, y, 9);
    assert_same_bits(tanhs, y, 9);

    const float angles[] = {0.0f, -0.0f, FLT_TRUE_MIN, -FLT_TRUE_MIN};
    const float cosines[] = {1.0f, 1.0f, 1.0f, 1.0f};
    test_case("sin");
    kernel()->sin(angles, y, 4);
    assert_same_bits(angles, y, 4);
    test_case("cos");
    kernel()->cos(angles, y, 4);
    assert_same_bits(cosines, y, 4);
}

int main(int argc, char **argv) {
    test_init(argc, argv, (const char *const[]){"step", NULL});
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(has_the_limits_of_the_contract),
        cmocka_unit_test(every_length_equals_reference),
        cmocka_unit_test(exp_equals_sleef_at_edges),
        cmocka_unit_test(log_equals_sleef_at_edges),
        cmocka_unit_test(tanh_equals_sleef_at_edges),
        cmocka_unit_test(sin_equals_sleef_at_edges),
        cmocka_unit_test(cos_equals_sleef_at_edges),
        cmocka_unit_test(exp_is_within_one_ulp),
        cmocka_unit_test(log_is_within_one_ulp),
        cmocka_unit_test(tanh_is_within_one_ulp),
        cmocka_unit_test(sin_is_within_one_ulp),
        cmocka_unit_test(cos_is_within_one_ulp),
        cmocka_unit_test(exp_equals_sleef),
        cmocka_unit_test(attention_exp_equals_sleef),
        cmocka_unit_test(log_equals_sleef),
        cmocka_unit_test(tanh_equals_sleef),
        cmocka_unit_test(sin_equals_sleef),
        cmocka_unit_test(cos_equals_sleef),
    };
    return test_run(tests);
}
