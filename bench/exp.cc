/* exp of the kernels beside the function that defines its bits (SLEEF's, called once per vector) and libm's. */
#include "operation.h"
#include "shapes.h"
#include <cmath>
extern "C" {
#include "dispatch.h"
}
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

/* y[i] = exp(x[i]) */
using exp_function = void (*)(const float *x, float *y, std::size_t n);

constexpr bool sizes_fill_vectors() {
    for (const exp_shape &shape : exp_shapes)
        if (shape.elements % 16 != 0)
            return false;
    return true;
}
static_assert(sizes_fill_vectors(), "the loops over SLEEF's functions have no tails");

#if defined(__x86_64__)
TARGET_AVX2 void sleef_avx2(const float *x, float *y, std::size_t n) {
    for (std::size_t i = 0; i < n; i += 8)
        _mm256_storeu_ps(y + i, Sleef_finz_expf8_u10avx2(_mm256_loadu_ps(x + i)));
}

TARGET_AVX512 void sleef_avx512(const float *x, float *y, std::size_t n) {
    for (std::size_t i = 0; i < n; i += 16)
        _mm512_storeu_ps(y + i, Sleef_finz_expf16_u10avx512f(_mm512_loadu_ps(x + i)));
}
#elif defined(__aarch64__)
void sleef_neon(const float *x, float *y, std::size_t n) {
    for (std::size_t i = 0; i < n; i += 4)
        vst1q_f32(y + i, Sleef_finz_expf4_u10advsimd(vld1q_f32(x + i)));
}
#endif

void libm(const float *x, float *y, std::size_t n) {
    for (std::size_t i = 0; i < n; i++)
        y[i] = std::exp(x[i]);
}

/* NULL where SLEEF has no vector function for the ISA. */
exp_function sleef_exp(attn_isa isa) {
    switch (isa) {
#if defined(__x86_64__)
    case ATTN_ISA_AVX2:
        return sleef_avx2;
    case ATTN_ISA_AVX512:
        return sleef_avx512;
#elif defined(__aarch64__)
    case ATTN_ISA_NEON:
        return sleef_neon;
#endif
    default:
        return nullptr;
    }
}

void run(benchmark::State &state, attn_isa isa, const exp_shape &shape, exp_function exp) {
    const buffer<float> x = random_normal(shape.elements, 1);
    buffer<float> y(shape.elements);
    const double elements = static_cast<double>(shape.elements);
    /* From here on the compiler cannot know which function it is, nor find out that nobody reads what it writes. */
    benchmark::DoNotOptimize(exp);
    measure(state, isa, {0, 2 * sizeof(float) * elements, elements}, [&](const char **) {
        exp(x.data(), y.data(), shape.elements);
        return ATTN_OK;
    });
}

} /* namespace */

void register_exp(attn_isa isa) {
    for (const exp_shape &shape : exp_shapes) {
        register_benchmark(benchmark_name("exp", isa, shape.name), isa, [isa, &shape](benchmark::State &state) {
            run(state, isa, shape, attn_table_softmax(attn_table(isa))->exp);
        });
        if (const exp_function sleef = sleef_exp(isa))
            register_benchmark(benchmark_name("exp", isa, shape.name).insert(4, "sleef_"), isa,
                               [isa, &shape, sleef](benchmark::State &state) { run(state, isa, shape, sleef); });
    }
}

void register_exp_libm() {
    for (const exp_shape &shape : exp_shapes)
        register_benchmark(std::string("exp/libm/") + shape.name, ATTN_ISA_SCALAR,
                           [&shape](benchmark::State &state) { run(state, ATTN_ISA_SCALAR, shape, libm); });
}

} /* namespace bench */
