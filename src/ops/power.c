#include "ops/power.h"

#include <math.h>

static const struct attn_double2 one = {1.0, 0.0}, ln2 = {0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};

/* a + b exactly (Knuth). */
static struct attn_double2 two_sum(double a, double b) {
    double s = a + b, v = s - a;
    return (struct attn_double2){s, (a - (s - v)) + (b - v)};
}

/* x in two halves of 26 bits. */
static struct attn_double2 split(double x) {
    double c = 0x1.000002p27 * x, hi = c - (c - x);
    return (struct attn_double2){hi, x - hi};
}

struct attn_double2 attn_product(double a, double b) {
    struct attn_double2 x = split(a), y = split(b);
    double p = a * b;
    return (struct attn_double2){p, ((x.hi * y.hi - p) + x.hi * y.lo + x.lo * y.hi) + x.lo * y.lo};
}

/* Out of line, as products are: 2 KB less, of what fills a rotary table once. */
static __attribute__((noinline)) struct attn_double2 add(struct attn_double2 a, struct attn_double2 b) {
    struct attn_double2 s = two_sum(a.hi, b.hi), t = two_sum(a.lo, b.lo);
    s = two_sum(s.hi, s.lo + t.hi);
    return two_sum(s.hi, s.lo + t.lo);
}

static __attribute__((noinline)) struct attn_double2 multiply(struct attn_double2 a, struct attn_double2 b) {
    struct attn_double2 p = attn_product(a.hi, b.hi);
    return two_sum(p.hi, p.lo + (a.hi * b.lo + a.lo * b.hi));
}

static struct attn_double2 whole(double x) {
    return (struct attn_double2){x, 0.0};
}

static struct attn_double2 scaled(struct attn_double2 a, double b) {
    return multiply(a, whole(b));
}

static struct attn_double2 divide(struct attn_double2 a, struct attn_double2 b) {
    double q = a.hi / b.hi;
    struct attn_double2 rest = add(a, scaled(b, -q));
    return two_sum(q, rest.hi / b.hi);
}

/* x = 2^e m with m in [1/sqrt2, sqrt2): log(x) = e ln2 + 2 artanh(z), z = (m - 1) / (m + 1), abs(z) < 0.1716. The 22nd
 * term z^(2j + 1) / (2j + 1) of the series is below 2^-115. */
static struct attn_double2 logarithm(double x) {
    int e;
    double m = frexp(x, &e);
    if (m < 0x1.6a09e667f3bcdp-1) {
        m *= 2.0;
        e--;
    }
    struct attn_double2 z = divide(whole(m - 1.0), two_sum(m, 1.0)), z2 = multiply(z, z);
    struct attn_double2 series = {0.0, 0.0};
    for (int j = 21; j >= 0; j--)
        series = add(divide(one, whole(2 * j + 1)), multiply(z2, series));
    return add(scaled(ln2, e), scaled(multiply(z, series), 2.0));
}

/* x = n ln2 + r, abs(r) < 0.35: exp(x) = 2^n (1 + r (1 + r/2 (1 + r/3 (...)))), whose 25th term is below 2^-120. */
static double exponential(struct attn_double2 x) {
    double n = rint(x.hi / ln2.hi);
    struct attn_double2 r = add(x, scaled(ln2, -n)), series = one;
    for (int k = 24; k > 0; k--)
        series = add(one, multiply(divide(r, whole(k)), series));
    return ldexp(series.hi, (int)n);
}

double attn_power(double base, size_t n, size_t d) {
    return exponential(multiply(divide(whole(-(double)n), whole((double)d)), logarithm(base)));
}
