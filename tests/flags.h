/* Floating-point exceptions: no kernel raises one that the reference does not. Left out are inexact, underflow and
 * denormal, which follow from how powers of two are multiplied by.
 *
 * Of a library that clang has compiled none are compared, which test_flags reports as skipped: clang assumes that
 * nobody looks at them, divides before it knows whether the quotient is wanted and computes all lanes under a mask.
 * With -ffp-exception-behavior=maytrap it still does the latter, and a GEMM tile takes up to 124 instructions more. */
#ifndef ATTN_TESTS_FLAGS_H
#define ATTN_TESTS_FLAGS_H

#include <fenv.h>
#include <math.h>

#include "support.h"

#ifdef __clang__
enum { WATCHED_FLAGS = 0 };
#else
enum { WATCHED_FLAGS = FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW };
#endif

static inline void flags_clear(void) {
    feclearexcept(FE_ALL_EXCEPT);
}

/* Since they were cleared. */
static inline int flags_raised(void) {
    return fetestexcept(WATCHED_FLAGS);
}

/* Nothing but `allowed` was raised. */
#define assert_flags(raised, allowed) test_flags(raised, allowed, __FILE__, __LINE__)
static inline void test_flags(int raised, int allowed, const char *file, int line) {
    int more = raised & ~allowed;
    if (more)
        test_fail_at(file, line, "exceptions that the reference does not raise:%s%s%s",
                     more & FE_INVALID ? " FE_INVALID" : "", more & FE_DIVBYZERO ? " FE_DIVBYZERO" : "",
                     more & FE_OVERFLOW ? " FE_OVERFLOW" : "");
}

/* What an infinite factor may raise, which kernels multiply by the zeros that fill up registers. */
static inline int flags_of_factor(float factor) {
    return isinf(factor) ? FE_INVALID : 0;
}

/* Evaluates the second expression, a call of a kernel, which may raise `more` and what the first one, the reference's,
 * raises. */
#define assert_same_flags(more, reference, kernel)                                                                     \
    do {                                                                                                               \
        flags_clear();                                                                                                 \
        reference;                                                                                                     \
        int reference_flags = flags_raised() | (more);                                                                 \
        flags_clear();                                                                                                 \
        kernel;                                                                                                        \
        assert_flags(flags_raised(), reference_flags);                                                                 \
    } while (0)

#endif
