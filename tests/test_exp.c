/* Elementary functions of one ISA, bit for bit: the library's kernels, the vector code of simd/body/elementary.h, the
 * reference and, in a build with SLEEF, SLEEF's functions, all of which have the same bits on every input.
 *
 * The sweeps take every N-th input: all 2^32 with ATTN_TEST_LONG=1, or what --step N says. The first one follows from
 * the seed. */
#include "flags.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

#if defined(HAVE_SLEEF) && defined(__x86_64__)
#include <immintrin.h>
#elif defined(HAVE_SLEEF) && defined(__aarch64__)
#include <arm_neon.h>
#endif

typedef void array_function(const float *x, float *y, size_t n);

static const struct attn_elementary_kernel none;

#ifdef HAVE_SLEEF
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

/* SLEEF on the ISA under test; NULL in every field where this machine cannot run it. */
static const struct attn_elementary_kernel *sleef(void) {
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

/* The vector code that this build of the library leaves out: simd/body/elementary.c compiled once more, without
 * SLEEF. */
extern const struct attn_elementary_kernel test_avx2_elementary, test_avx512_elementary, test_neon_elementary,
    test_sve256_elementary;

static const struct attn_elementary_kernel *without_sleef(void) {
    switch (test_isa()) {
#if defined(__x86_64__)
    case ATTN_ISA_AVX2:
        return &test_avx2_elementary;
    case ATTN_ISA_AVX512:
        return &test_avx512_elementary;
#elif defined(__aarch64__)
    case ATTN_ISA_NEON:
        return &test_neon_elementary;
    case ATTN_ISA_SVE256:
        return &test_sve256_elementary;
#endif
    default:
        return &none;
    }
}
#else
static const struct attn_elementary_kernel *sleef(void) {
    return &none;
}

static const struct attn_elementary_kernel *without_sleef(void) {
    return &none;
}
#endif

static const struct attn_elementary_kernel *library(void) {
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

/* ---- Functions and their variants ---- */

#define MAGNITUDE UINT32_C(0x7fffffff)
#define FOUR      UINT32_C(0x40800000) /* 4.0f */

struct function {
    const char *name;
    double (*exact)(double);
    uint32_t largest; /* bit pattern of the largest input's magnitude */
    bool negative;    /* inputs are negative or zero */
    double ulps;      /* the largest error */
    uint64_t hash;    /* hash_of_results of SLEEF's */
    size_t field;     /* in attn_elementary_kernel */
};

#define FIELD(name) offsetof(struct attn_elementary_kernel, name)

static const struct function exp_function = {"exp",     exp, MAGNITUDE, false, 1.0, UINT64_C(0x033d329ec194d9ea),
                                             FIELD(exp)};
static const struct function log_function = {"log",     log, MAGNITUDE, false, 1.0, UINT64_C(0x393c189f4d93dc2a),
                                             FIELD(log)};
/* Near 2^-24, where tanh(x) is x, SLEEF may give the next float: an error of a unit, or slightly more. */
static const struct function tanh_function = {
    "tanh", tanh, MAGNITUDE, false, 1.0 + 1e-7, UINT64_C(0x957e77d8ca71c85d), FIELD(tanh)};
static const struct function sin_function = {"sin", sin, FOUR, false, 1.0, UINT64_C(0x0ff9f834cde95b61), FIELD(sin)};
static const struct function cos_function = {"cos", cos, FOUR, false, 1.0, UINT64_C(0xc28aab77383883ad), FIELD(cos)};
/* The exp that is inlined in the attention loop, for which no logit is above the shift. */
static const struct function attention_exp_function = {"attention's exp", exp, MAGNITUDE, true, 1.0, 0, FIELD(exp)};

static array_function *function_of(const struct attn_elementary_kernel *kernel, const struct function *function) {
    return *(array_function *const *)((const char *)kernel + function->field);
}

/* exp(x - 0) * 1 has the bits of exp(x). */
static void attention_exp(const float *x, float *y, size_t n) {
    attn_table_attention(test_table())->weights(x, 0, n, n, 0.0f, 1.0f, y);
}

static array_function *library_function(const struct function *function) {
    return function == &attention_exp_function ? attention_exp : function_of(library(), function);
}

static array_function *reference_function(const struct function *function) {
    return function_of(attn_table_elementary(&attn_kernels_scalar), function);
}

/* One function computed in several ways; the first is what the others are held to. */
struct variants {
    size_t count;
    struct variant {
        const char *name;
        array_function *run;
    } each[4];
};

static void add_variant(struct variants *variants, const char *name, array_function *run) {
    for (size_t i = 0; i < variants->count; i++)
        if (variants->each[i].run == run)
            return;
    if (run)
        variants->each[variants->count++] = (struct variant){name, run};
}

/* Skips where there is one variant alone: the reference, without SLEEF. */
static struct variants variants_of(const struct function *function) {
    struct variants variants = {0};
    add_variant(&variants, "SLEEF", function_of(sleef(), function));
    add_variant(&variants, "the reference", reference_function(function));
    add_variant(&variants, "the kernel", library_function(function));
    if (function != &attention_exp_function)
        add_variant(&variants, "the vector code without SLEEF", function_of(without_sleef(), function));
    if (variants.count == 1)
        skip();
    return variants;
}

static bool same(float a, float b) {
    return bits_of(a) == bits_of(b) || (isnan(a) && isnan(b));
}

/* ---- The sweep ---- */

enum { CHUNK = 4096, THREADS = 2 };

/* Bit patterns first + i * step for every i in [from, to). */
struct sweep {
    const struct variants *variants;
    uint64_t first, step, from, to;
    bool differs;
    const struct variant *variant; /* that differs, on `input` */
    float input, expected, actual;
};

static void note_difference(struct sweep *sweep, const struct variant *variant, const float *x, const float *expected,
                            const float *actual) {
    for (size_t i = 0; i < CHUNK && !sweep->differs; i++)
        if (!same(expected[i], actual[i])) {
            sweep->differs = true;
            sweep->variant = variant;
            sweep->input = x[i];
            sweep->expected = expected[i];
            sweep->actual = actual[i];
        }
}

/* Only the main thread may fail a test: others leave the first difference behind. */
static void *run_sweep(void *arg) {
    struct sweep *sweep = arg;
    const struct variants *variants = sweep->variants;
    static _Thread_local _Alignas(64) float x[CHUNK], expected[CHUNK], actual[CHUNK];
    uint32_t step = (uint32_t)sweep->step;
    for (uint64_t at = sweep->from; at < sweep->to && !sweep->differs; at += CHUNK) {
        uint32_t base = (uint32_t)(sweep->first + at * step);
        uint32_t n = sweep->to - at < CHUNK ? (uint32_t)(sweep->to - at) : CHUNK;
        for (uint32_t i = 0; i < n; i++)
            x[i] = float_of(base + i * step);
        for (uint32_t i = n; i < CHUNK; i++)
            x[i] = x[0];
        variants->each[0].run(x, expected, CHUNK);
        for (size_t v = 1; v < variants->count; v++) {
            variants->each[v].run(x, actual, CHUNK);
            if (memcmp(expected, actual, sizeof expected) != 0)
                note_difference(sweep, &variants->each[v], x, expected, actual);
        }
    }
    return NULL;
}

static void report(const struct function *function, const struct sweep *sweep) {
    if (sweep->differs)
        test_fail("%s(%08" PRIx32 " = %a): %s has %08" PRIx32 " (%a), %s %08" PRIx32 " (%a)", function->name,
                  bits_of(sweep->input), (double)sweep->input, sweep->variants->each[0].name, bits_of(sweep->expected),
                  (double)sweep->expected, sweep->variant->name, bits_of(sweep->actual), (double)sweep->actual);
}

/* Every step-th input of one sign, which is 0 or the sign bit. */
static void sweep_sign(const struct function *function, const struct variants *variants, uint64_t step, uint64_t sign) {
    struct test_random random = test_random(function->name);
    uint64_t inputs = (uint64_t)function->largest + 1;
    uint64_t first = sign + random_below(&random, (size_t)(step < inputs ? step : inputs));
    uint64_t count = (sign + inputs - first + step - 1) / step;
    struct sweep sweeps[THREADS];
    pthread_t threads[THREADS];
    for (uint64_t i = 0; i < THREADS; i++) {
        sweeps[i] = (struct sweep){.variants = variants,
                                   .first = first,
                                   .step = step,
                                   .from = count * i / THREADS,
                                   .to = count * (i + 1) / THREADS};
        if (pthread_create(&threads[i], NULL, run_sweep, &sweeps[i]) != 0)
            test_fail("no thread");
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < THREADS; i++)
        report(function, &sweeps[i]);
    print_message("%s: %" PRIu64 " inputs, every %" PRIu64 " from %" PRIx64 "\n", function->name, count, step, first);
}

static uint64_t sweep_step(void) {
    uint64_t step = test_option_number("step", test_exhaustive() ? 1 : test_quick() ? 10007 : 307);
    if (step == 0 || step > UINT32_C(0x7fffffff))
        test_fail("a step from 1 to 2^31 - 1 is needed");
    return step;
}

static void has_the_same_bits(void **state) {
    const struct function *function = *state;
    struct variants variants = variants_of(function);
    for (size_t i = 0; i < variants.count; i++)
        print_message("%s: %s%s\n", function->name, variants.each[i].name, i ? "" : ", the measure");
    uint64_t step = sweep_step();
    if (!function->negative)
        sweep_sign(function, &variants, step, 0);
    sweep_sign(function, &variants, step, UINT64_C(1) << 31);
}

/* 4096 neighbours of each point where a branch, a sign, an exponent or a rounding changes. */
static void has_the_same_bits_at_edges(void **state) {
    const struct function *function = *state;
    const float edges[] = {0.0f,    1.0f,         -1.0f,        0.75f,        1.5f,        0.5f,         2.0f,
                           -104.0f, -103.972f,    100.0f,       88.72284f,    -87.33655f,  0.34657f,     FLT_MIN,
                           FLT_MAX, FLT_TRUE_MIN, INFINITY,     -0.0f,        -FLT_MIN,    -0.34657359f, -INFINITY,
                           -88.37f, NAN,          0x1p-64f,     1.03972077f,  8.66433974f, -8.6643397f,  1.57079637f,
                           4.0f,    -4.0f,        -1.57079637f, -3.14159274f, 3.14159274f, -1.0397207f};
    struct variants variants = variants_of(function);
    static float x[CHUNK], expected[CHUNK], actual[CHUNK];
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        struct sweep sweep = {.variants = &variants};
        for (uint32_t j = 0; j < CHUNK; j++) {
            uint32_t bits = bits_of(edges[i]) - CHUNK / 2 + j;
            bool within = (bits & MAGNITUDE) <= function->largest && (bits > MAGNITUDE || !function->negative);
            x[j] = within ? float_of(bits) : -0.0f;
        }
        variants.each[0].run(x, expected, CHUNK);
        for (size_t v = 1; v < variants.count; v++) {
            variants.each[v].run(x, actual, CHUNK);
            note_difference(&sweep, &variants.each[v], x, expected, actual);
        }
        report(function, &sweep);
    }
}

/* FNV-1a over the results of a fixed sweep, NaN as one number: SLEEF's bits, where there is no SLEEF to ask. */
static uint64_t hash_of_results(const struct function *function, array_function *run) {
    const uint32_t step = 10007;
    static float x[CHUNK], y[CHUNK];
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int negative = 0; negative < 2; negative++)
        for (uint64_t bits = 0; bits <= function->largest; bits += (uint64_t)CHUNK * step) {
            size_t n = 0;
            for (; n < CHUNK && bits + n * step <= function->largest; n++)
                x[n] = float_of((uint32_t)(bits + n * step) | (negative ? UINT32_C(1) << 31 : 0));
            run(x, y, n);
            for (size_t i = 0; i < n; i++) {
                uint32_t result = isnan(y[i]) ? UINT32_C(0x7fc00000) : bits_of(y[i]);
                for (int byte = 0; byte < 4; byte++)
                    hash = (hash ^ (result >> 8 * byte & 0xff)) * UINT64_C(0x100000001b3);
            }
        }
    return hash;
}

static void has_the_bits_of_sleef(void **state) {
    const struct function *function = *state;
    uint64_t hash = hash_of_results(function, library_function(function));
    if (hash != function->hash)
        test_fail("%s: hash %016" PRIx64 " instead of SLEEF's %016" PRIx64, function->name, hash, function->hash);
}

/* ---- Tails ---- */

static float random_input(struct test_random *random, const struct function *function) {
    float x = random_float(random, TEST_WILD);
    return (bits_of(x) & MAGNITUDE) <= function->largest ? x : random_uniform(random, -4.0f, 4.0f);
}

/* Every length, between guard pages, in place too, against the reference. */
static void every_length_equals_reference(void **state) {
    const struct function *function = *state;
    struct test_random random = test_random(function->name);
    array_function *run = library_function(function), *reference = reference_function(function);
    for (size_t n = 0; n <= 130; n++)
        for (enum flush flush = FLUSH_END; flush <= FLUSH_START; flush++) {
            test_case("%s of %zu flush=%d", function->name, n, (int)flush);
            float *x = guarded_floats(n, flush), *y = guarded_floats(n, flush), *expected = guarded_floats(n, flush);
            for (size_t i = 0; i < n; i++)
                x[i] = random_input(&random, function);
            assert_same_flags(0, reference(x, expected, n), run(x, y, n));
            assert_same_bits(expected, y, n);
            run(x, x, n);
            assert_same_bits(expected, x, n);
            guarded_free(x);
            guarded_free(y);
            guarded_free(expected);
        }
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
static double worst(const struct function *function, uint32_t first, uint32_t step, size_t count) {
    double largest = 0.0;
    static float x[CHUNK], y[CHUNK];
    for (size_t at = 0; at < count; at += CHUNK) {
        size_t n = count - at < CHUNK ? count - at : CHUNK;
        for (size_t i = 0; i < n; i++)
            x[i] = float_of(first + (uint32_t)(at + i) * step);
        library_function(function)(x, y, n);
        for (size_t i = 0; i < n; i++) {
            double distance = ulps(function->exact((double)x[i]), y[i]);
            if (!(distance <= function->ulps))
                test_fail("%s(%a) = %a is %g ULP off", function->name, (double)x[i], (double)y[i], distance);
            largest = distance > largest ? distance : largest;
        }
    }
    return largest;
}

/* Floats from low to high, both of one sign, high the farther from 0. */
static double worst_between(const struct function *function, float low, float high) {
    struct test_random random = test_random(function->name);
    uint32_t step = test_quick() ? 100003 : 1009, offset = (uint32_t)random_below(&random, step);
    uint32_t first = bits_of(low) + offset, last = bits_of(high);
    return worst(function, first, step, (last - first) / step + 1);
}

static void exp_is_within_one_ulp(void **state) {
    (void)state;
    double negative = worst_between(&exp_function, -0.0f, -103.9f),
           positive = worst_between(&exp_function, 0.0f, 88.722f);
    print_message("exp: at most %.4f ULP below 0, %.4f above\n", negative, positive);
}

static void log_is_within_one_ulp(void **state) {
    (void)state;
    double denormal = worst_between(&log_function, FLT_TRUE_MIN, FLT_MIN),
           normal = worst_between(&log_function, FLT_MIN, FLT_MAX);
    print_message("log: at most %.4f ULP, %.4f for denormals\n", normal, denormal);
}

/* tanh, sin and cos. */
static void is_within_one_ulp(void **state) {
    const struct function *function = *state;
    float largest = function->largest == MAGNITUDE ? FLT_MAX : float_of(function->largest);
    double negative = worst_between(function, -0.0f, -largest), positive = worst_between(function, 0.0f, largest);
    print_message("%s: at most %.4f ULP\n", function->name, fmax(negative, positive));
}

/* ---- Limits ---- */

static void check_limits(const struct function *function, const float *x, const float *expected, size_t n) {
    float y[16];
    test_case("%s", function->name);
    library_function(function)(x, y, n);
    assert_same_bits(expected, y, n);
}

static void has_the_limits_of_the_contract(void **state) {
    (void)state;
    const float x[] = {-104.5f, -1000.0f, -INFINITY, 100.5f, 1000.0f, INFINITY, NAN, 0.0f, -0.0f};
    const float exps[] = {0.0f, 0.0f, 0.0f, INFINITY, INFINITY, INFINITY, NAN, 1.0f, 1.0f};
    check_limits(&exp_function, x, exps, 9);

    const float z[] = {0.0f, -0.0f, 1.0f, INFINITY, -1.0f, -INFINITY, NAN, -NAN, -FLT_TRUE_MIN};
    const float logs[] = {-INFINITY, -INFINITY, 0.0f, INFINITY, NAN, NAN, NAN, NAN, NAN};
    check_limits(&log_function, z, logs, 9);

    const float t[] = {0.0f, -0.0f, 9.0f, -9.0f, INFINITY, -INFINITY, NAN, FLT_TRUE_MIN, -FLT_MAX};
    const float tanhs[] = {0.0f, -0.0f, 1.0f, -1.0f, 1.0f, -1.0f, NAN, FLT_TRUE_MIN, -1.0f};
    check_limits(&tanh_function, t, tanhs, 9);

    const float angles[] = {0.0f, -0.0f, FLT_TRUE_MIN, -FLT_TRUE_MIN};
    const float cosines[] = {1.0f, 1.0f, 1.0f, 1.0f};
    check_limits(&sin_function, angles, angles, 4);
    check_limits(&cos_function, angles, cosines, 4);
}

#define TEST(test, name)                                                                                               \
    { #name " " #test, test, NULL, NULL, (void *)&name##_function }
#define EACH(test) TEST(test, exp), TEST(test, log), TEST(test, tanh), TEST(test, sin), TEST(test, cos)

int main(int argc, char **argv) {
    test_init(argc, argv, (const char *const[]){"step", NULL});
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(has_the_limits_of_the_contract),
        EACH(every_length_equals_reference),
        EACH(has_the_same_bits_at_edges),
        TEST(has_the_same_bits_at_edges, attention_exp),
        EACH(has_the_bits_of_sleef),
        cmocka_unit_test(exp_is_within_one_ulp),
        cmocka_unit_test(log_is_within_one_ulp),
        TEST(is_within_one_ulp, tanh),
        TEST(is_within_one_ulp, sin),
        TEST(is_within_one_ulp, cos),
        EACH(has_the_same_bits),
        TEST(has_the_same_bits, attention_exp),
    };
    return test_run(tests);
}
