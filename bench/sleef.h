/* exp and softmax as one writes them who calls SLEEF's exp for every vector: peers of the kernels. */
#ifndef ATTN_BENCH_SLEEF_H
#define ATTN_BENCH_SLEEF_H

#include <attn/attn.h>
#include <cstddef>

namespace bench {

/* y[i] = exp(x[i]) */
using exp_function = void (*)(const float *x, float *y, std::size_t n);
/* Over the first `valid` of `cols` columns, at least 1; the others become 0. y may be x. */
using softmax_function = void (*)(const float *x, std::size_t valid, std::size_t cols, float *y);

struct sleef_functions {
    exp_function exp;
    softmax_function softmax;
};

/* NULL where SLEEF has no vector function for the ISA, or is not there. */
sleef_functions sleef_for(attn_isa isa);

} /* namespace bench */

#endif
