#include "sleef.h"

#ifdef HAVE_SLEEF
#include <cmath>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define TARGET_AVX2   __attribute__((target("avx2,fma")))
#define TARGET_AVX512 __attribute__((target("avx512f")))

/* sleef.h declares a vector function only to files that are compiled for its ISA; here single functions are. */
extern "C" {
#if defined(__x86_64__)
TARGET_AVX2 __m256 Sleef_finz_expf8_u10avx2(__m256);
TARGET_AVX512 __m512 Sleef_finz_expf16_u10avx512f(__m512);
#elif defined(__aarch64__)
float32x4_t Sleef_finz_expf4_u10advsimd(float32x4_t);
#endif
}

namespace bench {
namespace {

/* The last vector of a row is a copy filled up with -inf, whose exp is 0, and is stored in part. */
#define SLEEF_FUNCTIONS(name, target, vector, vector_exp)                                                              \
    target void exp_##name(const float *x, float *y, std::size_t n) {                                                  \
        constexpr std::size_t lanes = sizeof(vector) / sizeof(float);                                                  \
        const std::size_t whole = n - n % lanes;                                                                       \
        for (std::size_t i = 0; i < whole; i += lanes) {                                                               \
            vector v;                                                                                                  \
            std::memcpy(&v, x + i, sizeof v);                                                                          \
            v = vector_exp(v);                                                                                         \
            std::memcpy(y + i, &v, sizeof v);                                                                          \
        }                                                                                                              \
        vector last = {};                                                                                              \
        std::memcpy(&last, x + whole, (n - whole) * sizeof(float));                                                    \
        last = vector_exp(last);                                                                                       \
        std::memcpy(y + whole, &last, (n - whole) * sizeof(float));                                                    \
    }                                                                                                                  \
    target void softmax_##name(const float *x, std::size_t valid, std::size_t cols, float *y) {                        \
        constexpr std::size_t lanes = sizeof(vector) / sizeof(float);                                                  \
        const std::size_t whole = valid - valid % lanes;                                                               \
        vector last = vector{} - INFINITY, max = last, sum = {};                                                       \
        std::memcpy(&last, x + whole, (valid - whole) * sizeof(float));                                                \
        for (std::size_t i = 0; i < whole; i += lanes) {                                                               \
            vector v;                                                                                                  \
            std::memcpy(&v, x + i, sizeof v);                                                                          \
            max = v > max ? v : max;                                                                                   \
        }                                                                                                              \
        max = last > max ? last : max;                                                                                 \
        float row_max = max[0], row_sum = 0;                                                                           \
        for (std::size_t lane = 1; lane < lanes; lane++)                                                               \
            row_max = max[lane] > row_max ? max[lane] : row_max;                                                       \
        for (std::size_t i = 0; i < whole; i += lanes) {                                                               \
            vector v;                                                                                                  \
            std::memcpy(&v, x + i, sizeof v);                                                                          \
            v = vector_exp(v - row_max);                                                                               \
            sum += v;                                                                                                  \
            std::memcpy(y + i, &v, sizeof v);                                                                          \
        }                                                                                                              \
        if (whole < valid) {                                                                                           \
            last = vector_exp(last - row_max);                                                                         \
            sum += last;                                                                                               \
        }                                                                                                              \
        for (std::size_t lane = 0; lane < lanes; lane++)                                                               \
            row_sum += sum[lane];                                                                                      \
        const float inverse = 1 / row_sum;                                                                             \
        for (std::size_t i = 0; i < whole; i += lanes) {                                                               \
            vector v;                                                                                                  \
            std::memcpy(&v, y + i, sizeof v);                                                                          \
            v *= inverse;                                                                                              \
            std::memcpy(y + i, &v, sizeof v);                                                                          \
        }                                                                                                              \
        last *= inverse;                                                                                               \
        std::memcpy(y + whole, &last, (valid - whole) * sizeof(float));                                                \
        std::memset(y + valid, 0, (cols - valid) * sizeof(float));                                                     \
    }

#if defined(__x86_64__)
SLEEF_FUNCTIONS(avx2, TARGET_AVX2, __m256, Sleef_finz_expf8_u10avx2)
SLEEF_FUNCTIONS(avx512, TARGET_AVX512, __m512, Sleef_finz_expf16_u10avx512f)
#elif defined(__aarch64__)
SLEEF_FUNCTIONS(neon, , float32x4_t, Sleef_finz_expf4_u10advsimd)
#endif

} /* namespace */

/* Not for sve256: the vectors of SLEEF's function for SVE have no size unless a flag says it for the whole file, and
 * SLEEF_FUNCTIONS needs one. */
sleef_functions sleef_for(attn_isa isa) {
    switch (isa) {
#if defined(__x86_64__)
    case ATTN_ISA_AVX2:
        return {exp_avx2, softmax_avx2};
    case ATTN_ISA_AVX512:
        return {exp_avx512, softmax_avx512};
#elif defined(__aarch64__)
    case ATTN_ISA_NEON:
        return {exp_neon, softmax_neon};
#endif
    default:
        return {nullptr, nullptr};
    }
}

} /* namespace bench */
#else
bench::sleef_functions bench::sleef_for(attn_isa) {
    return {nullptr, nullptr};
}
#endif
