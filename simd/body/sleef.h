/* sin and cos of a register as calls of SLEEF's functions, VEC_SLEEF(name) of each vec.h. */
#ifndef ATTN_BODY_SLEEF_H
#define ATTN_BODY_SLEEF_H

#include <sleef.h>

#include "vec.h"

INLINE vec vec_sin(vec x) {
    return VEC_SLEEF(sin)(x);
}
INLINE vec vec_cos(vec x) {
    return VEC_SLEEF(cos)(x);
}

#endif
