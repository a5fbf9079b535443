/* Rows of floats from and to BF16, F16 and F8, and from INT8: the bits of the reference, and the reference beside
 * double arithmetic.
 *
 * The sweep narrows every N-th float: all 2^32 with ATTN_TEST_LONG=1, or what --step N says. */
#include "flags.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "types.h"

/* A prime, so that every exponent is met with many fractions. */
enum { STEP = 4093, QUICK_STEP = 65537 };

static const struct attn_convert_kernel *kernel(void) {
    return attn_table_convert(test_table());
}

static const struct attn_convert_kernel *reference(void) {
    return attn_table_convert(&attn_kernels_scalar);
}

/* The types of 16 and of 8 bits, described for the arithmetic of doubles. Elements are held in 16 bits. */
struct type {
    attn_type type;
    const char *name;
    unsigned bits, fraction_bits;
    int lowest;      /* exponent of normal numbers */
    double smallest; /* a lesser magnitude becomes a zero; +0: none does */
    double largest;
    uint16_t last;      /* the largest number's bits */
    bool has_infinity;  /* whose bits come after them */
    uint16_t quiet_nan; /* to which bits of the fraction come */
};

static const struct type types[] = {
    {ATTN_BF16, "bf16", 16, 7, -126, FLT_MIN, 0x1.fep127, 0x7f7f, true, 0x7fc0},
    {ATTN_F16, "f16", 16, 10, -14, 0, 65504, 0x7bff, true, 0x7e00},
    {ATTN_F8_E4M3, "e4m3", 8, 3, -6, 0, 448, 0x7e, false, 0x7f},
    {ATTN_F8_E5M2, "e5m2", 8, 2, -14, 0, 57344, 0x7b, true, 0x7e},
};
enum { TYPES = sizeof types / sizeof *types };

static uint32_t bits_of(const float *x) {
    uint32_t bits;
    memcpy(&bits, x, sizeof bits);
    return bits;
}

static unsigned sign_bit(const struct type *t) {
    return 1u << (t->bits - 1);
}

/* Elements of 16 bits. */
enum { ALL = 1 << 16 };

static size_t all_of(const struct type *t) {
    return (size_t)1 << t->bits;
}

/* Numbers beyond the largest one do not become infinite. */
static bool saturates(const struct type *t) {
    return t->bits == 8;
}

/* The kernels' functions on elements that are held in 16 bits, at most ALL at a time. */
static void widen(const struct attn_convert_kernel *by, const struct type *t, size_t n, const uint16_t *x, float *y) {
    static uint8_t bytes[ALL];
    for (size_t i = 0; t->bits == 8 && i < n; i++)
        bytes[i] = (uint8_t)x[i];
    by->widen(t->type, n, t->bits == 8 ? (const void *)bytes : x, y);
}

static void narrow(const struct attn_convert_kernel *by, const struct type *t, size_t n, const float *x, uint16_t *y) {
    static uint8_t bytes[ALL];
    by->narrow(t->type, n, x, t->bits == 8 ? (void *)bytes : y);
    for (size_t i = 0; t->bits == 8 && i < n; i++)
        y[i] = bytes[i];
}

/* ---- The oracle ---- */

/* The number that an element stands for. */
static double value_of(const struct type *t, uint16_t x) {
    uint16_t magnitude = (uint16_t)(x & (sign_bit(t) - 1));
    int exponent = magnitude >> t->fraction_bits, fraction = magnitude & ((1 << t->fraction_bits) - 1);
    double value;
    if (magnitude > t->last)
        value = t->has_infinity && magnitude == t->last + 1 ? (double)INFINITY : (double)NAN;
    else if (exponent == 0)
        value = ldexp(fraction, t->lowest - (int)t->fraction_bits);
    else
        value = ldexp(fraction + (1 << t->fraction_bits), exponent - 1 + t->lowest - (int)t->fraction_bits);
    return x & sign_bit(t) ? -value : value;
}

/* The number that would come after the largest. */
static double beyond(const struct type *t) {
    int exponent;
    frexp(t->largest, &exponent);
    return t->largest + ldexp(1, exponent - 1 - (int)t->fraction_bits);
}

/* A number rounded to the type, as a double: rint takes the nearest integer, of two the even one. */
static double rounded(const struct type *t, double x) {
    if (fabs(x) < t->smallest)
        return copysign(0, x);
    if (saturates(t) && fabs(x) > t->largest)
        return copysign(t->largest, x);
    int exponent;
    frexp(x, &exponent);
    exponent = exponent - 1 < t->lowest ? t->lowest : exponent - 1;
    double unit = ldexp(1, exponent - (int)t->fraction_bits), y = rint(x / unit) * unit;
    return fabs(y) <= t->largest ? y : copysign((double)INFINITY, x);
}

static bool same_double(double a, double b) {
    return memcmp(&a, &b, sizeof a) == 0;
}

/* What narrowing x gave. */
static void check_number(const struct type *t, const float *x, uint16_t y) {
    uint32_t bits = bits_of(x);
    bool nan = (bits & INT32_MAX) > 0x7f800000;
    if (nan) {
        unsigned left_out = 23 - t->fraction_bits;
        uint32_t sign = bits >> 31 ? sign_bit(t) : 0, fraction = (bits & 0x7fffff) >> left_out;
        if (y != (sign | t->quiet_nan | fraction))
            test_fail("%s: NaN %08x becomes %04x", t->name, (unsigned)bits, y);
    } else if (!same_double(rounded(t, (double)*x), value_of(t, y)))
        test_fail("%s: %08x (%a) becomes %04x (%a)", t->name, (unsigned)bits, (double)*x, y, value_of(t, y));
}

/* ---- Comparison ---- */

static void check_u16(const struct type *t, const float *x, const uint16_t *expected, const uint16_t *actual,
                      size_t n) {
    for (size_t i = 0; memcmp(expected, actual, n * sizeof *expected) != 0 && i < n; i++)
        if (expected[i] != actual[i])
            test_fail("%s: element %zu of %zu: %08x becomes %04x, not %04x", t->name, i, n, (unsigned)bits_of(x + i),
                      actual[i], expected[i]);
}

static void check_floats(const char *what, const float *expected, const float *actual, size_t n) {
    for (size_t i = 0; n && memcmp(expected, actual, n * sizeof *expected) != 0 && i < n; i++)
        if (bits_of(expected + i) != bits_of(actual + i))
            test_fail("%s: element %zu of %zu is %08x, not %08x", what, i, n, (unsigned)bits_of(actual + i),
                      (unsigned)bits_of(expected + i));
}

/* Floats that are narrowed at once. */
enum { MOST = 4096 };

struct batch {
    const struct type *type;
    size_t n;
    float x[MOST];
};

/* The reference by the oracle, the kernel by the reference; and the rounding to BF16 by both ways. */
static void check_batch(const struct batch *b) {
    static uint16_t expected[MOST], actual[MOST];
    static float there_and_back[MOST], at_once[MOST];
    narrow(reference(), b->type, b->n, b->x, expected);
    for (size_t i = 0; i < b->n; i++)
        check_number(b->type, b->x + i, expected[i]);
    narrow(kernel(), b->type, b->n, b->x, actual);
    check_u16(b->type, b->x, expected, actual, b->n);
    if (b->type->type != ATTN_BF16)
        return;
    reference()->widen(ATTN_BF16, b->n, expected, there_and_back);
    reference()->round_bf16(b->n, b->x, at_once);
    check_floats("the reference's round_bf16", there_and_back, at_once, b->n);
    kernel()->round_bf16(b->n, b->x, at_once);
    check_floats("round_bf16", there_and_back, at_once, b->n);
}

/* Adds a float to the batch; a full batch is checked. */
static void add_bits(struct batch *b, uint32_t bits) {
    memcpy(b->x + b->n++, &bits, sizeof bits);
    if (b->n == MOST) {
        check_batch(b);
        b->n = 0;
    }
}

static void add_neighbours(struct batch *b, float x) {
    uint32_t bits = bits_of(&x);
    for (int i = -1; i <= 1; i++)
        add_bits(b, bits + (uint32_t)i);
}

static void finish_batch(struct batch *b) {
    check_batch(b);
    b->n = 0;
}

/* ---- Every bit ---- */

static void widens_every_input(void **state) {
    (void)state;
    static uint16_t x[ALL];
    static float expected[ALL], actual[ALL];
    for (size_t i = 0; i < ALL; i++)
        x[i] = (uint16_t)i;
    for (const struct type *t = types; t < types + TYPES; t++) {
        size_t all = all_of(t);
        widen(reference(), t, all, x, expected);
        for (size_t i = 0; i < all; i++) {
            double value = value_of(t, x[i]);
            if (isnan(value) ? !isnan(expected[i]) || !signbit(expected[i]) != !(x[i] & sign_bit(t))
                             : !same_double(value, (double)expected[i]))
                test_fail("%s: %04x becomes %a", t->name, x[i], (double)expected[i]);
        }
        widen(kernel(), t, all, x, actual);
        check_floats(t->name, expected, actual, all);
        for (size_t row = 1; row <= 16; row *= 2) { /* part of a register, one and two of each ISA */
            for (size_t i = 0; i < all; i += row)
                widen(kernel(), t, row, x + i, actual + i);
            check_floats(t->name, expected, actual, all);
        }
    }
}

static void widens_every_integer(void **state) {
    (void)state;
    int8_t x[256];
    float expected[256], actual[256];
    for (int i = 0; i < 256; i++)
        x[i] = (int8_t)(i - 128);
    reference()->widen(ATTN_INT8, 256, x, expected);
    for (int i = 0; i < 256; i++)
        assert_true(same_double(expected[i], i - 128));
    kernel()->widen(ATTN_INT8, 256, x, actual);
    check_floats("int8", expected, actual, 256);
}

/* What was widened comes back when it is narrowed, except numbers that are flushed, infinities that saturate, and
 * NaN that become quiet. */
static void widened_numbers_come_back(void **state) {
    (void)state;
    static uint16_t x[ALL], back[ALL];
    static float y[ALL];
    for (size_t i = 0; i < ALL; i++)
        x[i] = (uint16_t)i;
    for (const struct type *t = types; t < types + TYPES; t++) {
        size_t all = all_of(t);
        widen(kernel(), t, all, x, y);
        narrow(kernel(), t, all, y, back);
        size_t same = 0;
        for (size_t i = 0; i < all; i++)
            if (fabsf(y[i]) >= FLT_MIN || y[i] == 0)
                same += x[i] == back[i];
        size_t numbers = 2 * ((size_t)t->last + 1 + !saturates(t)); /* with infinities and zeros */
        assert_int_equal(same, numbers - (t->type == ATTN_BF16 ? 2 * 127 : 0));
    }
}

/* Each number, what lies halfway to the next larger magnitude, and the floats on either side of both. */
static void narrows_every_tie(void **state) {
    (void)state;
    static struct batch b;
    for (const struct type *t = types; t < types + TYPES; t++) {
        b.type = t;
        for (uint32_t i = 0; i < all_of(t); i++) {
            uint16_t x = (uint16_t)i, magnitude = (uint16_t)(i & (sign_bit(t) - 1));
            if (magnitude > t->last)
                continue;
            double value = value_of(t, x), next = value_of(t, (uint16_t)(x + 1));
            if (magnitude == t->last)
                next = copysign(beyond(t), value);
            add_neighbours(&b, (float)value);
            add_neighbours(&b, (float)((value + next) / 2));
        }
        finish_batch(&b);
    }
}

static void narrows_across_all_floats(void **state) {
    (void)state;
    static struct batch b;
    uint64_t step = test_option_number("step", test_exhaustive() ? 1 : test_quick() ? QUICK_STEP : STEP);
    for (const struct type *t = types; t < types + TYPES; t++) {
        b.type = t;
        for (uint64_t bits = 0; bits <= UINT32_MAX; bits += step)
            add_bits(&b, (uint32_t)bits);
        finish_batch(&b);
    }
}

/* Zeros, denormals, the edges of numbers, infinities, NaN: quiet, signalling, and with nothing in its upper bits. */
static void narrows_special_floats(void **state) {
    (void)state;
    static const uint32_t special[] = {
        0,          1,          2,          0x003fffff, 0x00400000, 0x007f7fff, 0x007f8000, 0x007fffff,
        0x00800000, 0x00800001, 0x7f7f7fff, 0x7f7f8000, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7f801fff,
        0x7f802000, 0x7f80ffff, 0x7f810000, 0x7fbfffff, 0x7fc00000, 0x7fc00001, 0x7fffe000, 0x7fffffff,
        0x477fefff, 0x477ff000, 0x47800000, 0x33000000, 0x33000001, 0x32ffffff, 0x43e00000, 0x43e00001,
        0x43e80000, 0x43f00000, 0x43f80000, 0x3a800000, 0x3a800001, 0x3a7fffff, 0x3c7fffff, 0x47600000,
        0x476fffff, 0x47700000, 0x37000000, 0x37000001, 0x36ffffff, 0x387fffff};
    static struct batch b;
    for (const struct type *t = types; t < types + TYPES; t++) {
        b.type = t;
        for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
            add_bits(&b, special[i]);
            add_bits(&b, special[i] | UINT32_C(0x80000000));
        }
        finish_batch(&b);
    }
}

/* ---- Every length ---- */

/* Elements between pages that fault. */
static void *guarded_elements(attn_type type, size_t n, enum flush flush) {
    return guarded_alloc(n * attn_type_size(type), attn_type_size(type), flush);
}

static void fill_bytes(struct test_random *random, void *x, size_t bytes) {
    unsigned char *byte = x;
    for (size_t i = 0; i < bytes; i++)
        byte[i] = (unsigned char)random_bits(random);
}

static void check_bytes(const char *what, const void *expected, const void *actual, size_t bytes) {
    if (bytes && memcmp(expected, actual, bytes) != 0)
        test_fail("%s differs from the reference", what);
}

static void check_length(struct test_random *random, attn_type type, size_t n, enum flush flush) {
    test_case("type=%d n=%zu flush=%d", (int)type, n, (int)flush);
    size_t bytes = n * attn_type_size(type);
    void *narrow = guarded_elements(type, n, flush), *expected_narrow = guarded_elements(type, n, flush);
    float *wide = guarded_floats(n, flush), *expected_wide = guarded_floats(n, flush);

    fill_bytes(random, narrow, bytes);
    reference()->widen(type, n, narrow, expected_wide);
    kernel()->widen(type, n, narrow, wide);
    check_bytes("widen", expected_wide, wide, n * sizeof *wide);

    random_fill(random, TEST_WILD, wide, n);
    if (type != ATTN_INT8) {
        reference()->narrow(type, n, wide, expected_narrow);
        kernel()->narrow(type, n, wide, narrow);
        check_bytes("narrow", expected_narrow, narrow, bytes);
    }

    reference()->round_bf16(n, wide, expected_wide);
    kernel()->round_bf16(n, wide, wide);
    check_bytes("round_bf16 in place", expected_wide, wide, n * sizeof *wide);

    guarded_free(narrow);
    guarded_free(expected_narrow);
    guarded_free(wide);
    guarded_free(expected_wide);
}

/* Rows with a gap between them, which is not written. */
static void check_normalize(struct test_random *random, attn_type type, size_t size, enum flush flush) {
    enum { ROWS = 3 };
    static const float inverse[ROWS] = {0.3f, 0.0f, 0x1p-20f};
    size_t stride = size + size % 3, n = size ? (ROWS - 1) * stride + size : 0, bytes = n * attn_type_size(type);
    test_case("normalize type=%d size=%zu flush=%d", (int)type, size, (int)flush);
    void *narrow = guarded_elements(type, n, flush), *expected = guarded_elements(type, n, flush);
    float *x = guarded_floats(n, flush);
    random_fill(random, TEST_WILD, x, n);
    fill_bytes(random, narrow, bytes);
    memcpy(expected, narrow, bytes);
    struct attn_normalize_args args = {ROWS, size, x, stride, inverse, expected, stride};
    reference()->normalize(type, &args);
    args.out = narrow;
    kernel()->normalize(type, &args);
    check_bytes("normalize", expected, narrow, bytes);
    guarded_free(narrow);
    guarded_free(expected);
    guarded_free(x);
}

static void normalizes_every_tail(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t size = 0; size <= 70; size++)
        for (int i = 0; i < 4; i++)
            check_normalize(&random, i / 2 ? ATTN_F16 : ATTN_BF16, size, i % 2 ? FLUSH_START : FLUSH_END);
}

static void converts_every_tail(void **state) {
    (void)state;
    static const attn_type all[] = {ATTN_F32, ATTN_BF16, ATTN_F16, ATTN_F8_E4M3, ATTN_F8_E5M2, ATTN_INT8};
    struct test_random random = test_random(__func__);
    for (size_t n = 0; n <= 70; n++)
        for (size_t i = 0; i < 2 * sizeof all / sizeof *all; i++)
            check_length(&random, all[i / 2], n, i % 2 ? FLUSH_START : FLUSH_END);
}

/* ---- Exceptions ---- */

/* To BF16 and F8 nothing is raised, whatever x; to F16 what the border says. */
static void raises_what_the_border_says(void **state) {
    (void)state;
    static const uint32_t numbers[] = {0,          1,          0x007fffff, 0x00800000, 0x33000000,
                                       0x387fffff, 0x3f800001, 0x477fefff, 0x7f800000, 0x7fc00001};
    static const uint32_t others[] = {0x477ff000, 0x7f7fffff, 0x7f800001, 0x7fbfffff};
    enum { NUMBERS = sizeof numbers / sizeof *numbers, EVERY = NUMBERS + sizeof others / sizeof *others };
    float x[EVERY], wide[EVERY];
    uint16_t y[EVERY];
    memcpy(x, numbers, sizeof numbers);
    memcpy(x + NUMBERS, others, sizeof others);
    for (size_t n = 0; n <= EVERY; n++) {
        test_case("n=%zu", n);
        assert_same_flags(0, reference()->narrow(ATTN_BF16, n, x, y), kernel()->narrow(ATTN_BF16, n, x, y));
        assert_same_flags(0, reference()->widen(ATTN_BF16, n, y, wide), kernel()->widen(ATTN_BF16, n, y, wide));
        assert_same_flags(0, reference()->round_bf16(n, x, wide), kernel()->round_bf16(n, x, wide));
        assert_same_flags(n > NUMBERS ? FE_OVERFLOW | FE_INVALID : 0, reference()->narrow(ATTN_F16, n, x, y),
                          kernel()->narrow(ATTN_F16, n, x, y));
        assert_same_flags(0, reference()->widen(ATTN_F16, n, y, wide), kernel()->widen(ATTN_F16, n, y, wide));
        for (attn_type f8 = ATTN_F8_E4M3; f8 <= ATTN_F8_E5M2; f8++) {
            assert_same_flags(0, reference()->narrow(f8, n, x, y), kernel()->narrow(f8, n, x, y));
            assert_same_flags(0, reference()->widen(f8, n, y, wide), kernel()->widen(f8, n, y, wide));
        }
    }
}

int main(int argc, char **argv) {
    test_init(argc, argv, (const char *const[]){"step", NULL});
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(widens_every_input),        cmocka_unit_test(widens_every_integer),
        cmocka_unit_test(widened_numbers_come_back), cmocka_unit_test(narrows_every_tie),
        cmocka_unit_test(narrows_across_all_floats), cmocka_unit_test(narrows_special_floats),
        cmocka_unit_test(converts_every_tail),       cmocka_unit_test(raises_what_the_border_says),
        cmocka_unit_test(normalizes_every_tail),
    };
    return test_run(tests);
}
