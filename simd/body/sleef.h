/* log, tanh, sin and cos of a register as calls of SLEEF's functions, VEC_SLEEF(name) of each vec.h. */
#ifndef ATTN_BODY_SLEEF_H
#define ATTN_BODY_SLEEF_H

#include <sleef.h>

#include "vec.h"

/* Of x > 0, finite. From 2^64 on SLEEF raises FE_OVERFLOW with AVX2 and NEON; what is added up here is far below. */
INLINE vec vec_log_number(vec x) {
    return VEC_SLEEF(log)(x);
}
/* tanh(9) is 1: no larger number and no NaN reaches SLEEF, which would raise exceptions. One mask lives through the call. */
INLINE vec vec_tanh(vec x) {
    vec_int magnitude = vec_bits(vec_abs(x));
    vec_mask large = vec_int_greater(magnitude, vec_bits(vec_set(9.0f)));
    vec_mask nan = vec_int_greater(magnitude, vec_int_set(0x7f800000));
    return vec_select(nan, vec_set(NAN), VEC_SLEEF(tanh)(vec_select(large, vec_copysign(vec_set(9.0f), x), x)));
}
INLINE vec vec_sin(vec x) {
    return VEC_SLEEF(sin)(x);
}
INLINE vec vec_cos(vec x) {
    return VEC_SLEEF(cos)(x);
}

#endif
