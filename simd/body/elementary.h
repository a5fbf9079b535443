/* log, tanh, sin and cos of a register, for every ISA: the operations of ref/elementary.h in their order. With
 * ATTN_SLEEF sin and cos are calls of SLEEF's functions, which have the same bits. log and tanh are not: a call
 * costs an inner loop more than it computes, and SLEEF raises exceptions that the reference does not. Where the
 * reference branches, lanes whose answer is a constant compute with a harmless number and take the answer at the
 * end. These lanes are told by their bits as integers, because comparing NaN as a float raises an exception on NEON. */
#ifndef ATTN_BODY_ELEMENTARY_H
#define ATTN_BODY_ELEMENTARY_H

#include <math.h>

#include "vec.h"

/* An unevaluated sum hi + lo. */
struct vec_pair {
    vec hi, lo;
};

/* a + b exactly (Knuth's two-sum). */
INLINE struct vec_pair vec_two_sum(vec a, vec b) {
    vec s = vec_add(a, b), v = vec_sub(s, a);
    return (struct vec_pair){s, vec_add(vec_sub(a, vec_sub(s, v)), vec_sub(b, v))};
}

INLINE struct vec_pair vec_pair_add(struct vec_pair a, struct vec_pair b) {
    struct vec_pair s = vec_two_sum(a.hi, b.hi);
    return (struct vec_pair){s.hi, vec_add(s.lo, vec_add(a.lo, b.lo))};
}

INLINE struct vec_pair vec_pair_add_one(struct vec_pair a, vec b) {
    return vec_pair_add(a, (struct vec_pair){b, vec_zero()});
}

INLINE struct vec_pair vec_pair_mul(struct vec_pair a, struct vec_pair b) {
    vec p = vec_mul(a.hi, b.hi);
    return (struct vec_pair){p, vec_fma(a.hi, b.lo, vec_fma(a.lo, b.hi, vec_fma(a.hi, b.hi, vec_neg(p))))};
}

INLINE struct vec_pair vec_pair_square(struct vec_pair a) {
    vec p = vec_mul(a.hi, a.hi);
    return (struct vec_pair){p, vec_fma(vec_add(a.hi, a.hi), a.lo, vec_fma(a.hi, a.hi, vec_neg(p)))};
}

INLINE struct vec_pair vec_pair_div(struct vec_pair n, struct vec_pair d) {
    vec t = vec_div(vec_set(1.0f), d.hi), s = vec_mul(n.hi, t);
    vec u = vec_fma(t, n.hi, vec_neg(s));
    vec v = vec_fma(vec_neg(d.lo), t, vec_fma(vec_neg(d.hi), t, vec_set(1.0f)));
    return (struct vec_pair){s, vec_fma(s, v, vec_fma(n.lo, t, u))};
}

/* exp(x) as a pair, 0 <= x < 9: x = q ln2 + s, exp(s) = 1 + s + s^2 (1/2 + s (1/6 + s u)) with a cubic u. */
INLINE struct vec_pair vec_exp_pair(vec x) {
    vec q = vec_round(vec_mul(x, vec_set(0x1.715476p+0f)));
    struct vec_pair s = vec_two_sum(x, vec_mul(q, vec_set(-0x1.62e4p-1f)));
    s = vec_pair_add_one(s, vec_mul(q, vec_set(-0x1.7f7d1cp-20f)));
    vec u = vec_set(0x1.9f6ffep-13f);
    u = vec_fma(u, s.hi, vec_set(0x1.6d7ef8p-10f));
    u = vec_fma(u, s.hi, vec_set(0x1.11121ap-7f));
    u = vec_fma(u, s.hi, vec_set(0x1.5554b8p-5f));
    struct vec_pair t = vec_pair_add_one(vec_pair_mul(s, (struct vec_pair){u, vec_zero()}), vec_set(0x1.555554p-3f));
    t = vec_pair_add_one(vec_pair_mul(s, t), vec_set(0.5f));
    t = vec_pair_add(s, vec_pair_mul(vec_pair_square(s), t));
    t = vec_pair_add_one(t, vec_set(1.0f));
    vec scale = vec_from_bits(vec_int_shift_left(vec_int_add(vec_to_int(q), vec_int_set(127)), 23));
    return (struct vec_pair){vec_mul(t.hi, scale), vec_mul(t.lo, scale)};
}

/* a + b where abs(a.hi) >= abs(b.hi), its low words added one after the other. */
INLINE struct vec_pair vec_pair_add_smaller(struct vec_pair a, struct vec_pair b) {
    vec s = vec_add(a.hi, b.hi);
    return (struct vec_pair){s, vec_add(vec_add(vec_add(vec_sub(a.hi, s), b.hi), a.lo), b.lo)};
}

/* a - b likewise. */
INLINE struct vec_pair vec_pair_sub_smaller(struct vec_pair a, struct vec_pair b) {
    vec s = vec_sub(a.hi, b.hi);
    return (struct vec_pair){s, vec_sub(vec_add(vec_sub(vec_sub(a.hi, s), b.hi), a.lo), b.lo)};
}

/* (e - 1 / e) / (e + 1 / e) with e = exp(abs(x)); 1 from where that rounds to 1. */
INLINE vec vec_tanh(vec x) {
    vec one = vec_set(1.0f), a = vec_abs(x);
    vec_mask large = vec_int_greater(vec_bits(a), vec_bits(vec_set(0x1.154246p+3f)));
    vec_mask nan = vec_int_greater(vec_bits(a), vec_int_set(0x7f800000));
    struct vec_pair e = vec_exp_pair(vec_select(large, one, a));
    struct vec_pair inverse = vec_pair_div((struct vec_pair){one, vec_zero()}, e);
    struct vec_pair y = vec_pair_div(vec_pair_sub_smaller(e, inverse), vec_pair_add_smaller(e, inverse));
    return vec_select(nan, x, vec_copysign(vec_select(large, one, vec_add(y.hi, y.lo)), x));
}

/* log(m) = 2 artanh((m - 1) / (m + 1)) for m in [0.75, 1.5), plus `exponent` ln2. */
INLINE vec vec_log_parts(vec exponent, vec m) {
    vec hi = vec_mul(vec_set(0x1.62e43p-1f), exponent);
    vec lo = vec_fma(vec_set(-0x1.05c61p-29f), exponent, vec_fma(vec_set(0x1.62e43p-1f), exponent, vec_neg(hi)));
    vec one = vec_set(1.0f);
    struct vec_pair y = vec_pair_div(vec_two_sum(vec_set(-1.0f), m), vec_two_sum(one, m));
    vec y2 = vec_mul(y.hi, y.hi);
    vec t = vec_fma(vec_set(0x1.35feb8p-2f), y2, vec_set(0x1.993394p-2f));
    t = vec_fma(t, y2, vec_set(0x1.5555b4p-1f));

    vec twice = vec_add(y.hi, y.hi), sum = vec_add(hi, twice);
    vec low = vec_add(vec_add(y.lo, y.lo), vec_add(lo, vec_add(vec_sub(hi, sum), twice)));
    vec tail = vec_mul(vec_mul(y2, y.hi), t), total = vec_add(sum, tail);
    return vec_add(total, vec_add(low, vec_add(vec_sub(sum, total), tail)));
}

/* log(x) of finite x > 0. */
INLINE vec vec_log_number(vec x) {
    vec_mask denormal = vec_int_greater(vec_int_set(0x00800000), vec_bits(x));
    x = vec_mul(x, vec_select(denormal, vec_set(0x1p64f), vec_set(1.0f)));
    vec_int quarters = vec_bits(vec_mul(x, vec_set(1.0f / 0.75f)));
    vec_int e = vec_int_sub(vec_int_shift_right(quarters, 23), vec_int_set(127));
    vec m = vec_from_bits(vec_int_sub(vec_bits(x), vec_int_shift_left(e, 23)));
    vec exponent = vec_from_int(e);
    return vec_log_parts(vec_select(denormal, vec_sub(exponent, vec_set(64.0f)), exponent), m);
}

INLINE vec vec_log(vec x) {
    vec_int bits = vec_bits(x);
    vec_mask positive = vec_int_greater(bits, vec_int_set(0));
    vec_mask finite = vec_int_greater(vec_int_set(0x7f800000), bits);
    vec y = vec_log_number(vec_select(positive, vec_select(finite, x, vec_set(1.0f)), vec_set(1.0f)));
    vec_mask zero = vec_int_greater(vec_int_set(1), vec_bits(vec_abs(x)));
    vec rest = vec_select(zero, vec_set(-INFINITY), vec_set(NAN));
    return vec_select(positive, vec_select(finite, y, x), rest);
}

#ifdef ATTN_SLEEF
#include "body/sleef.h"
#else

/* sin(s) = s (1 + s^2 (-1/6 + s^2 u)) with a linear u, abs(s) <= pi / 2. */
INLINE vec vec_sin_pair(struct vec_pair s) {
    struct vec_pair s2 = vec_pair_square(s);
    vec u = vec_set(0x1.5e150ep-19f);
    u = vec_fma(u, s2.hi, vec_set(-0x1.9f75d6p-13f));
    u = vec_fma(u, s2.hi, vec_set(0x1.110eeep-7f));
    struct vec_pair t = vec_pair_mul(vec_two_sum(vec_set(-0x1.55554cp-3f), vec_mul(u, s2.hi)), s2);
    t = vec_pair_add_one(t, vec_set(1.0f));
    return vec_fma(s.hi, t.hi, vec_fma(s.lo, t.hi, vec_mul(s.hi, t.lo)));
}

/* abs(x) <= 4: x = q pi + s, pi in three words; the sign is that of an even or odd q. */
INLINE vec vec_sin(vec x) {
    vec q = vec_round(vec_mul(x, vec_set(0x1.45f306p-2f)));
    struct vec_pair s = vec_two_sum(vec_fma(q, vec_set(-0x1.921cp+1f), x), vec_mul(q, vec_set(-0x1.daap-14f)));
    vec y = vec_sin_pair(vec_pair_add_one(s, vec_mul(q, vec_set(-0x1.10b462p-29f))));
    return vec_select(vec_equal(x, vec_zero()), x, vec_flip(y, vec_to_int(q)));
}

/* Likewise: x = (2 i + 1) pi / 2 + s. */
INLINE vec vec_cos(vec x) {
    vec i = vec_round(vec_fma(x, vec_set(0x1.45f306p-2f), vec_set(-0.5f)));
    vec q = vec_fma(i, vec_set(2.0f), vec_set(1.0f));
    struct vec_pair s = vec_two_sum(x, vec_mul(q, vec_set(-0x1.921cp+0f)));
    s = vec_pair_add_one(s, vec_mul(q, vec_set(-0x1.daap-15f)));
    vec y = vec_sin_pair(vec_pair_add_one(s, vec_mul(q, vec_set(-0x1.10b462p-30f))));
    return vec_flip(vec_neg(y), vec_to_int(i));
}

#endif

#endif
