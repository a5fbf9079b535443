/* Powers of a base, for rotary embedding, against what arbitrary precision rounds to (mpmath with 300 bits), on any
 * machine. */
#include "support.h"

#include "ops/power.h"
#include "ops/rotary.h"
#include <inttypes.h>

static uint64_t bits_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static void is_the_nearest_double(void **state) {
    (void)state;
    const struct {
        double base;
        size_t n, d;
        double power;
    } cases[] = {
        {8e6, 62, 128, 0x1.db3e333f50c35p-12},
        {8e6, 126, 128, 0x1.581cd7bf96842p-23},
        {10000.0, 2, 128, 0x1.bb5fad00ab22cp-1},
        {10000.0, 126, 128, 0x1.e459c57e28a47p-14},
        {500000.0, 64, 128, 0x1.72ba43fff3717p-10},
        {1e6, 1, 2, 0x1.0624dd2f1a9fcp-10},
        {3.0, 1, 3, 0x1.63003fbb4c375p-1},
        {3.0, 0, 3, 1.0},
        {2.0, 1, 2, 0x1.6a09e667f3bcdp-1},
        {2.0, 1, 1, 0.5},
        {0.5, 1, 2, 0x1.6a09e667f3bcdp+0},
        {4.0, 1, 2, 0.5},
        {1.0, 5, 7, 1.0},
        /* Powers within 2^-20 of a unit of the middle of two doubles. */
        {700000.0, 314, 522, 0x1.3f95234b051d0p-12},
        {600000.0, 142, 368, 0x1.823fb5d3f7117p-8},
        {150000.0, 232, 242, 0x1.6e0e283e38e40p-17},
        {8e6, 218, 324, 0x1.7c3b4bea34cfbp-16},
        /* A bit beside 1, of whose powers some lie closer still. */
        {0x1.0000000000001p+0, 1, 2, 0x1.fffffffffffffp-1},
        {0x1.0000000000001p+0, 1, 1, 0x1.ffffffffffffep-1},
        {0x1.fffffffffffffp-1, 1, 2, 1.0},
        /* The ends of the range. */
        {0x1p-1022, 1, 2, 0x1p+511},
        {0x1p-1074, 1, 3, 0x1p+358},
        {0x1.fffffffffffffp+1023, 98, 100, 0x1.650debc147336p-1004},
        {0x1.fffffffffffffp+1023, 1, 1024, 0.5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double power = attn_power(cases[i].base, cases[i].n, cases[i].d);
        if (bits_of(power) != bits_of(cases[i].power))
            test_fail("%a^(-%zu/%zu) is %a instead of %a", cases[i].base, cases[i].n, cases[i].d, power,
                      cases[i].power);
    }
}

/* FNV-1a over the frequencies of all even sizes up to 256, from lowest to highest byte. */
static uint64_t hash_of_powers(double base) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t dims = 2; dims <= 256; dims += 2)
        for (size_t i = 0; i < dims / 2; i++) {
            const attn_rotary_config config = {.dims = dims, .base = base};
            uint64_t bits = bits_of(attn_rotary_frequency(&config, i));
            for (int byte = 0; byte < 8; byte++)
                hash = (hash ^ (bits >> 8 * byte & 0xff)) * UINT64_C(0x100000001b3);
        }
    return hash;
}

static void all_frequencies_are_the_nearest_doubles(void **state) {
    (void)state;
    const struct {
        double base;
        uint64_t hash;
    } cases[] = {
        {10000.0, UINT64_C(0x4f66e8def6e696d0)},  {500000.0, UINT64_C(0x7a36384f9a5585df)},
        {1e6, UINT64_C(0x002d0b988b4b8fd9)},      {8e6, UINT64_C(0xc87f355d03effa8e)},
        {150000.0, UINT64_C(0x60539bbf424020c6)}, {1e7, UINT64_C(0xb3a3d48d1eaf6ce0)},
        {3.0, UINT64_C(0x999f98453d5e38d7)},      {0.5, UINT64_C(0x4fc05ff8dc9f116f)},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t hash = hash_of_powers(cases[i].base);
        if (hash != cases[i].hash)
            test_fail("base %g: hash %016" PRIx64 " instead of %016" PRIx64, cases[i].base, hash, cases[i].hash);
    }
}

static void products_are_exact(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < 100000; i++) {
        uint64_t a = random_bits(&random) >> 11, b = random_bits(&random) >> 11;
        struct attn_double2 p = attn_product((double)a, (double)b);
        /* The product in two words of 64 bits. */
        uint64_t low = a & 0xffffffff, carry = low * (b >> 32) + (low * (b & 0xffffffff) >> 32);
        uint64_t middle = (a >> 32) * (b & 0xffffffff) + (carry & 0xffffffff);
        uint64_t exact_low = a * b, exact_high = (a >> 32) * (b >> 32) + (carry >> 32) + (middle >> 32);
        /* Less p.hi it must be p.lo. */
        uint64_t whole = (uint64_t)(p.hi * 0x1p-64), part = (uint64_t)(p.hi - (double)whole * 0x1p64);
        int64_t lo = (int64_t)(exact_low - part);
        if (exact_high - whole - (exact_low < part) + (lo < 0) != 0 || (double)lo != p.lo)
            test_fail("%" PRIu64 " times %" PRIu64 ": %a + %a", a, b, p.hi, p.lo);
    }
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_the_nearest_double),
        cmocka_unit_test(all_frequencies_are_the_nearest_doubles),
        cmocka_unit_test(products_are_exact),
    };
    return test_run(tests);
}
