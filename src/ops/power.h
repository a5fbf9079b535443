/* Powers of a rotary embedding's base, and exact products, which powers and angles need. The C library's pow is not
 * used because its bits differ between libraries and, in glibc, between processors. */
#ifndef ATTN_OPS_POWER_H
#define ATTN_OPS_POWER_H

#include <stddef.h>

#include "arithmetic.h"

/* A number of about 106 bits as the unevaluated sum hi + lo, abs(lo) at most half a unit of hi's last place. */
struct attn_double2 {
    double hi, lo;
};

/* a * b exactly (Dekker): abs(a) and abs(b) below 2^996, neither so small that their product's last bit is lost. */
struct attn_double2 attn_product(double a, double b);

/* The double nearest to base^(-n / d) for a finite base above 0 and 0 <= n <= d < 2^53. It is computed to about 100
 * bits: only a power within 2^-40 units of the middle between two doubles could be rounded to the wrong one. */
double attn_power(double base, size_t n, size_t d);

#endif
