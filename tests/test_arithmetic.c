/* The arithmetic that every bit rests on: attn_fmaf and its emulation against cases worked out by hand, against the
 * machine's instruction where it has one, and against hashes of that instruction's results where it has none. What
 * flushes denormal numbers against doubles, and against x86 under FTZ and DAZ. */
#include "support.h"

#include "arithmetic.h"
#include "bf16_model.h"
#include <inttypes.h>
#include <math.h>

typedef float fma_function(float, float, float);

static float chosen(float a, float b, float c) {
    return attn_fmaf(a, b, c);
}

static float emulated(float a, float b, float c) {
    return attn_fmaf_emulated(a, b, c);
}

/* The instruction, or NULL. */
#if defined(__x86_64__) || defined(__i386__)
__attribute__((target("fma"))) static float fused(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
}

static fma_function *instruction(void) {
    return __builtin_cpu_supports("fma") ? fused : NULL;
}
#elif defined(__FP_FAST_FMAF) || defined(__ARM_FEATURE_FMA)
static float fused(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
}

static fma_function *instruction(void) {
    return fused;
}
#else
static fma_function *instruction(void) {
    return NULL;
}
#endif

static void check(float a, float b, float c, float expected) {
    float results[] = {attn_fmaf(a, b, c), attn_fmaf_emulated(a, b, c)};
    for (size_t i = 0; i < 2; i++) {
        test_case("fma(%a, %a, %a), %s", (double)a, (double)b, (double)c, i ? "emulated" : "as chosen");
        assert_same_bits(&expected, &results[i], 1);
    }
}

static void has_the_bits_worked_out_by_hand(void **state) {
    (void)state;
    const struct {
        float a, b, c, expected;
    } cases[] = {
        /* Just above half a unit: mingw's fmaf gives 1. */
        {0x1.000002p0f, 0x1p-24f, 1.0f, 0x1.000002p0f},
        {-0x1.000002p0f, 0x1p-24f, -1.0f, -0x1.000002p0f},
        /* Half a unit exactly, to the even of two; just below it. */
        {1.0f, 0x1p-24f, 1.0f, 1.0f},
        {1.0f, 0x1p-24f, 0x1.000002p0f, 0x1.000004p0f},
        {0x1.fffffep-1f, 0x1p-24f, 1.0f, 1.0f},
        {0x1.fffffep-1f, 0x1p-24f, 0x1.000002p0f, 0x1.000002p0f},
        /* Half a unit less 2^-70 and more 2^-57, neither of which a double holds. */
        {0x1.000002p-12f, 0x1.fffffcp-13f, 0x1.000002p0f, 0x1.000002p0f},
        {0x1.002p-12f, 0x1.ffc008p-13f, 1.0f, 0x1.000002p0f},
        {0x1.002p-12f, -0x1.ffc008p-13f, -1.0f, -0x1.000002p0f},
        {0x1.000002p-12f, 0x1.000002p-12f, 1.0f, 0x1.000002p0f},
        {0x1.000002p-12f, -0x1.000002p-12f, 1.0f, 0x1.fffffep-1f},
        /* The same with a denormal result, where half a unit is 2^-150: musl's fmaf gives 0x1.00004p-130. */
        {0x1.000002p-75f, 0x1.fffffcp-76f, 0x1.00002p-130f, 0x1.00002p-130f},
        {0x1.000002p-75f, 0x1.fffffcp-76f, 0x1.000004p-127f, 0x1.000004p-127f},
        {0x1.000002p-75f, 0x1p-75f, 0x1p-130f, 0x1.00002p-130f},
        {0x1p-75f, 0x1p-75f, 0x1p-149f, 0x1p-148f},
        {0x1p-75f, 0x1p-75f, 0.0f, 0.0f},
        {0x1.000002p-75f, 0x1p-75f, 0.0f, 0x1p-149f},
        {0x1.000002p-75f, -0x1p-75f, 0.0f, -0x1p-149f},
        /* From a denormal number up to the smallest normal one, and just not. */
        {0x1.fffffep-64f, 0x1p-63f, 0x1p-149f, 0x1p-126f},
        {0x1.fffffep-64f, 0x1p-64f, 0x1.fffff8p-128f, 0x1.fffffcp-127f},
        {0x1p-75f, 0x1p-75f, 0x1.fffffcp-127f, 0x1p-126f},
        /* A product out of a float's range, with a sum within it. */
        {0x1p100f, 0x1p100f, -INFINITY, -INFINITY},
        {0x1.fffffep127f, 2.0f, -0x1.fffffep127f, 0x1.fffffep127f},
        {0x1p-149f, 0x1p-149f, 1.0f, 1.0f},
        {0x1p-149f, 0x1p-149f, 0x1p-149f, 0x1p-149f},
        {0x1p-149f, 0x1p-149f, 0.0f, 0.0f},
        {0x1p-149f, -0x1p-149f, 0.0f, -0.0f},
        /* From half a unit above the largest number on the result overflows; below that it does not. */
        {0x1p103f, 1.0f, 0x1.fffffep127f, INFINITY},
        {0x1.fffffep102f, 1.0f, 0x1.fffffep127f, 0x1.fffffep127f},
        {-0x1p103f, 1.0f, -0x1.fffffep127f, -INFINITY},
        /* Signs of zero. */
        {0.0f, 0.0f, -0.0f, 0.0f},
        {-0.0f, 0.0f, -0.0f, -0.0f},
        {-0.0f, 1.0f, 0.0f, 0.0f},
        {1.0f, 1.0f, -1.0f, 0.0f},
        {0x1p-149f, -1.0f, 0x1p-149f, 0.0f},
        /* Infinities and NaN. */
        {INFINITY, 1.0f, -INFINITY, NAN},
        {INFINITY, 0.0f, 1.0f, NAN},
        {INFINITY, -1.0f, 1.0f, -INFINITY},
        {1.0f, 1.0f, INFINITY, INFINITY},
        {NAN, 1.0f, 1.0f, NAN},
        {1.0f, NAN, INFINITY, NAN},
        {1.0f, 1.0f, NAN, NAN},
        {0.0f, INFINITY, NAN, NAN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(cases[i].a, cases[i].b, cases[i].c, cases[i].expected);
}

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return isnan(x) ? UINT32_C(0x7fc00000) : bits;
}

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Numbers of one kind, always the same. */
struct kind {
    const char *name;
    void (*next)(struct test_random *random, float x[3]);
    uint64_t hash; /* of the instruction's results */
};

static uint32_t any_bits(struct test_random *random) {
    return (uint32_t)(random_bits(random) >> 32);
}

static void any(struct test_random *random, float x[3]) {
    for (int i = 0; i < 3; i++)
        x[i] = float_of(any_bits(random));
}

/* A number with few or with many bits set, or few bits clear, and an exponent of `low` to `high`. */
static float number(struct test_random *random, int low, int high) {
    uint32_t bits = any_bits(random), mantissa = bits & 0x7fffff;
    if (bits >> 30 & 1)
        mantissa = UINT32_C(1) << mantissa % 23 | (bits >> 29 & 1);
    if (bits >> 28 & 1)
        mantissa ^= 0x7fffff;
    uint32_t exponent = (uint32_t)(low + 127) + (uint32_t)random_below(random, (size_t)(high - low + 1));
    return float_of((bits & UINT32_C(0x80000000)) | exponent << 23 | mantissa);
}

/* The product lies near half a unit in the last place of the third number. */
static void halfway(struct test_random *random, float x[3]) {
    x[0] = number(random, -1, 1);
    x[1] = number(random, -27, -22);
    x[2] = number(random, -1, 1);
}

/* Product and third number are so far apart that the smaller one decides a tie, or nothing. */
static void far_apart(struct test_random *random, float x[3]) {
    x[0] = number(random, -63, 63);
    x[1] = number(random, -63, 63);
    x[2] = number(random, -126, 127);
}

/* Results around the smallest normal number and below. */
static void tiny(struct test_random *random, float x[3]) {
    x[0] = number(random, -76, -74);
    x[1] = number(random, -76, random_below(random, 2) ? -74 : -52);
    x[2] = number(random, -126, -124);
    if (random_below(random, 2))
        x[2] = float_of(bits_of(x[2]) & 0x807fffff);
}

/* Results around the largest number and above. */
static void huge(struct test_random *random, float x[3]) {
    x[0] = number(random, 50, 64);
    x[1] = number(random, 50, 64);
    x[2] = number(random, 100, 127);
}

/* The third number cancels the product but for its last bits. */
static void cancelling(struct test_random *random, float x[3]) {
    x[0] = number(random, -40, 40);
    x[1] = number(random, -40, 40);
    x[2] = -(float)((double)x[0] * (double)x[1]);
    if (random_below(random, 2))
        x[2] = float_of(bits_of(x[2]) ^ (uint32_t)random_below(random, 4));
}

static const struct kind kinds[] = {
    {"any", any, UINT64_C(0x85daa17254c62c36)},
    {"halfway", halfway, UINT64_C(0xad546c82f8b30523)},
    {"far apart", far_apart, UINT64_C(0xecbe63248d1ac523)},
    {"tiny", tiny, UINT64_C(0x86049a874f8375f3)},
    {"huge", huge, UINT64_C(0x32ba3da0fd316cdc)},
    {"cancelling", cancelling, UINT64_C(0xe663a4d835bdcd70)},
};

enum { KINDS = sizeof kinds / sizeof *kinds };

static void compare(const struct kind *kind, fma_function *function, const char *what, size_t count) {
    struct test_random random = test_random(kind->name);
    for (size_t i = 0; i < count; i++) {
        float x[3];
        kind->next(&random, x);
        float expected = function(x[0], x[1], x[2]), actual = emulated(x[0], x[1], x[2]);
        if (bits_of(expected) != bits_of(actual))
            test_fail("%s: fma(%a, %a, %a): %s gives %a, the emulation %a", kind->name, (double)x[0], (double)x[1],
                      (double)x[2], what, (double)expected, (double)actual);
    }
}

static void emulation_has_the_bits_of_the_instruction(void **state) {
    (void)state;
    if (!instruction()) {
        print_message("this machine has no such instruction\n");
        skip();
    }
    for (size_t i = 0; i < KINDS; i++)
        compare(&kinds[i], instruction(), "the instruction", test_quick() ? 100000 : 3000000);
}

static void what_is_chosen_has_the_bits_of_the_emulation(void **state) {
    (void)state;
    for (size_t i = 0; i < KINDS; i++)
        compare(&kinds[i], chosen, "attn_fmaf", test_quick() ? 100000 : 1000000);
}

#define HASH_BEGIN UINT64_C(0xcbf29ce484222325)

static uint64_t hash_add(uint64_t hash, float x) {
    return (hash ^ bits_of(x)) * UINT64_C(0x100000001b3);
}

static void check_hash(const char *name, uint64_t hash, uint64_t expected) {
    if (hash != expected)
        test_fail("%s: hash %016" PRIx64 " instead of %016" PRIx64, name, hash, expected);
}

/* Hashes, where there is no instruction to compare with. */
static void results_have_the_hash_of_the_instructions(void **state) {
    (void)state;
    for (size_t i = 0; i < KINDS; i++) {
        struct test_random always = {{1, 2, 3, 4}};
        uint64_t hash = HASH_BEGIN;
        for (size_t n = 0; n < 100000; n++) {
            float x[3];
            kinds[i].next(&always, x);
            hash = hash_add(hash, emulated(x[0], x[1], x[2]));
        }
        check_hash(kinds[i].name, hash, kinds[i].hash);
    }
}

/* Every triple of the numbers at which something changes. */
static void specials_have_the_bits_of_the_instruction(void **state) {
    (void)state;
    const float magnitudes[] = {0.0f,
                                0x1p-149f,
                                0x1.8p-148f,
                                0x1.fffffcp-127f,
                                0x1p-126f,
                                0x1.000002p-126f,
                                0x1p-75f,
                                0x1.000002p-75f,
                                0x1p-24f,
                                0x1.fffffep-1f,
                                1.0f,
                                0x1.000002p0f,
                                0x1p24f,
                                0x1p63f,
                                0x1p64f,
                                0x1p103f,
                                0x1.fffffep127f,
                                INFINITY,
                                NAN};
    enum { COUNT = 2 * sizeof magnitudes / sizeof *magnitudes };
    float x[COUNT];
    for (size_t i = 0; i < COUNT; i++)
        x[i] = i % 2 ? -magnitudes[i / 2] : magnitudes[i / 2];
    uint64_t hash = HASH_BEGIN;
    for (size_t i = 0; i < (size_t)COUNT * COUNT * COUNT; i++) {
        float a = x[i % COUNT], b = x[i / COUNT % COUNT], c = x[i / COUNT / COUNT], y = emulated(a, b, c);
        if (instruction())
            check(a, b, c, instruction()(a, b, c));
        hash = hash_add(hash, y);
    }
    check_hash("special numbers", hash, UINT64_C(0x664239c837304de5));
}

/* Sets or clears what makes the processor take denormal results (FTZ) and operands (DAZ) for 0. */
#if defined(__SSE__)
static void flush_denormals(bool results, bool operands) {
    unsigned control = __builtin_ia32_stmxcsr() & ~0x8040u;
    __builtin_ia32_ldmxcsr(control | (results ? 0x8000u : 0) | (operands ? 0x40u : 0));
}
#elif defined(__aarch64__)
static void flush_denormals(bool results, bool operands) {
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    control = (control & ~(UINT64_C(1) << 24)) | (uint64_t)(results || operands) << 24;
    __asm__ volatile("msr fpcr, %0" : : "r"(control));
}
#else
#define NO_FLUSH
#endif

static void tells_whether_denormals_are_kept(void **state) {
    (void)state;
    assert_true(attn_denormals_are_kept());
#ifdef NO_FLUSH
    print_message("how this processor flushes denormals is not known here\n");
#else
    for (int what = 1; what < 4; what++) {
        flush_denormals(what & 1, what & 2);
        bool kept = attn_denormals_are_kept();
        flush_denormals(false, false);
        assert_false(kept);
        assert_true(attn_denormals_are_kept());
    }
#endif
}

/* ---- Denormal numbers as 0 ---- */

static float flushed(float a, float b, float c) {
    return attn_fmaf_flushed(a, b, c);
}

static float modelled(float a, float b, float c) {
    return model_fma(a, b, c);
}

#if defined(__x86_64__)
__attribute__((target("fma"), noinline)) static float fused_under_flush(float a, float b, float c) {
    unsigned before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before | 0x8040);
    volatile float x = a, y = b, z = c;
    volatile float result = __builtin_fmaf(x, y, z);
    __builtin_ia32_ldmxcsr(before);
    return result;
}

__attribute__((noinline)) static float multiplied_under_flush(float a, float b) {
    unsigned before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before | 0x8040);
    volatile float x = a, y = b;
    volatile float result = x * y;
    __builtin_ia32_ldmxcsr(before);
    return result;
}

static fma_function *flushing_instruction(void) {
    return __builtin_cpu_supports("fma") ? fused_under_flush : NULL;
}
#else
static float multiplied_under_flush(float a, float b) {
    return model_mul(a, b);
}

static fma_function *flushing_instruction(void) {
    return NULL;
}
#endif

static void check_flushed(float a, float b, float c, float expected) {
    float y = flushed(a, b, c), z = modelled(a, b, c);
    test_case("flushed fma(%a, %a, %a)", (double)a, (double)b, (double)c);
    assert_same_bits(&expected, &y, 1);
    assert_same_bits(&expected, &z, 1);
    if (flushing_instruction()) {
        float machine = flushing_instruction()(a, b, c);
        assert_same_bits(&expected, &machine, 1);
    }
}

/* What is tiny is tiny after rounding to 24 bits: half a unit in the last place of 2^-127 is 2^-151. */
static void flushes_as_worked_out_by_hand(void **state) {
    (void)state;
    const float denormal = 0x1.fffffcp-127f;
    check_flushed(-0x1p-75f, 0x1.8p-76f, 0x1p-126f, 0.0f);    /* less 0.75 * 2^-150 */
    check_flushed(-0x1p-75f, 0x1p-76f, 0x1p-126f, 0x1p-126f); /* less half a unit: to the even one */
    check_flushed(-0x1p-76f, 0x1p-76f, 0x1p-126f, 0x1p-126f); /* less 0.25 * 2^-150 */
    check_flushed(0x1p-75f, 0x1.8p-76f, -0x1p-126f, -0.0f);
    check_flushed(0x1p-76f, 0x1p-76f, -0x1p-126f, -0x1p-126f);
    check_flushed(-0x1p-75f, 0x1.000002p-76f, 0x1p-126f, 0.0f);      /* less a little more than half a unit */
    check_flushed(-0x1p-75f, 0x1.fffffep-77f, 0x1p-126f, 0x1p-126f); /* less a little less than half a unit */
    check_flushed(0x1.fffffep-64f, 0x1p-63f, 0.0f, 0.0f);            /* 2^-126 less a unit of 2^-150 */
    check_flushed(0x1.000002p-63f, 0x1.fffffep-64f, 0.0f, 0x1p-126f);
    check_flushed(0x1.000002p-63f, 0x1.fffffcp-64f, 0.0f, 0x1p-126f); /* less 2^-172: rounded up */
    check_flushed(denormal, 1.0f, 0.0f, 0.0f);
    check_flushed(-denormal, 1.0f, -0.0f, -0.0f);
    check_flushed(1.0f, denormal, 0x1p-126f, 0x1p-126f);
    check_flushed(0x1p127f, denormal, 0.0f, 0.0f);
    check_flushed(1.0f, 0x1p-126f, denormal, 0x1p-126f);
    check_flushed(1.0f, 0x1p-126f, -denormal, 0x1p-126f);
    check_flushed(1.0f, 0x1.8p-126f, -0x1p-126f, 0.0f);
    check_flushed(1.0f, 0x1p-126f, -0x1.8p-126f, -0.0f);
    check_flushed(denormal, INFINITY, 1.0f, NAN);
    check_flushed(1.0f, INFINITY, denormal, INFINITY);
    check_flushed(NAN, 1.0f, denormal, NAN);
}

static void compare_flushed(const struct kind *kind, size_t count) {
    struct test_random random = test_random(kind->name);
    for (size_t i = 0; i < count; i++) {
        float x[3];
        kind->next(&random, x);
        float expected = modelled(x[0], x[1], x[2]), product = model_mul(x[0], x[1]);
        bool same = bits_of(expected) == bits_of(flushed(x[0], x[1], x[2]));
        if (flushing_instruction())
            same = same && bits_of(expected) == bits_of(flushing_instruction()(x[0], x[1], x[2])) &&
                   bits_of(product) == bits_of(multiplied_under_flush(x[0], x[1]));
        if (!same || bits_of(product) != bits_of(attn_mul_flushed(x[0], x[1])))
            test_fail("%s: flushed fma(%a, %a, %a) is %a, in doubles %a; the product %a, in doubles %a", kind->name,
                      (double)x[0], (double)x[1], (double)x[2], (double)flushed(x[0], x[1], x[2]), (double)expected,
                      (double)attn_mul_flushed(x[0], x[1]), (double)product);
    }
}

/* A sum of 2^-126 or a little more and a product of a few units of 2^-152. */
static void near_the_edge(struct test_random *random, float x[3]) {
    x[0] = number(random, -76, -74);
    x[1] = number(random, -77, -74);
    x[2] = float_of((any_bits(random) & UINT32_C(0x80000003)) | UINT32_C(0x00800000));
}

/* A product of 2^-126 less or more a few units. */
static void product_near_the_edge(struct test_random *random, float x[3]) {
    int exponent = (int)random_below(random, 100) - 99;
    x[0] = number(random, exponent, exponent);
    x[1] = (float)((random_below(random, 2) ? 0x1p-126 : -0x1p-126) / (double)x[0]);
    x[1] = float_of(bits_of(x[1]) + (uint32_t)random_below(random, 3) - 1);
    x[2] = random_below(random, 2) ? 0.0f : -0.0f;
}

static void flushes_as_doubles_and_the_instruction_do(void **state) {
    (void)state;
    static const struct kind edges[] = {{"near the edge", near_the_edge, 0},
                                        {"product near the edge", product_near_the_edge, 0}};
    for (size_t i = 0; i < KINDS; i++)
        compare_flushed(&kinds[i], test_quick() ? 20000 : 500000);
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++)
        compare_flushed(&edges[i], test_quick() ? 20000 : 1000000);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(has_the_bits_worked_out_by_hand),
        cmocka_unit_test(specials_have_the_bits_of_the_instruction),
        cmocka_unit_test(results_have_the_hash_of_the_instructions),
        cmocka_unit_test(emulation_has_the_bits_of_the_instruction),
        cmocka_unit_test(what_is_chosen_has_the_bits_of_the_emulation),
        cmocka_unit_test(flushes_as_worked_out_by_hand),
        cmocka_unit_test(flushes_as_doubles_and_the_instruction_do),
        cmocka_unit_test(tells_whether_denormals_are_kept),
    };
    return test_run(tests);
}
