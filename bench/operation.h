/* One operation is one body and a list of shapes; it is registered for every ISA of the architecture. */
#ifndef ATTN_BENCH_OPERATION_H
#define ATTN_BENCH_OPERATION_H

#include "buffers.h"
#include <attn/attn.h>
#include <benchmark/benchmark.h>
#include <cstddef>
#include <new>
#include <string>

namespace bench {

/* Each registers its operation for `isa`, as operation/isa/shape. */
void register_gemm(attn_isa isa);
void register_softmax(attn_isa isa);
void register_transposes(attn_isa isa);
void register_attention(attn_isa isa);
void register_layer(attn_isa isa);
void register_exp(attn_isa isa);
/* Those that they are compared with and that are no ISA's. */
void register_exp_libm();

/* What one call has to do at least; a figure that is 0 is not reported. */
struct work {
    double flops;    /* also as a share of the core's multiply-adds */
    double bytes;    /* of inputs read once and outputs written once */
    double elements; /* where time per element is what people quote */
};

void report(benchmark::State &state, attn_isa isa, const work &work);

/* False for ATTN_OK; else the benchmark ends with the status and the field as its error. */
bool failed(benchmark::State &state, attn_status status, const char *const *field);

/* Times call(&field), which returns a status. The call before the first timed one finds errors and faults pages in. */
template <class Call> void measure(benchmark::State &state, attn_isa isa, const work &work, Call call) {
    const char *field = nullptr;
    if (failed(state, call(&field), &field))
        return;
    for (auto _ : state) {
        benchmark::DoNotOptimize(call(&field));
        benchmark::ClobberMemory();
    }
    report(state, isa, work);
}

/* The object that size() and create() of the public API make of `config`, in `memory`; NULL after a failure. */
template <class Object, class Config>
Object *
create(benchmark::State &state, const Config &config, attn_status (*size)(const Config *, std::size_t *, const char **),
       attn_status (*make)(const Config *, void *, std::size_t, Object **, const char **), buffer<char> &memory) {
    std::size_t bytes = 0;
    Object *object = nullptr;
    const char *field = nullptr;
    if (failed(state, size(&config, &bytes, &field), &field))
        return nullptr;
    memory = buffer<char>(bytes);
    if (failed(state, make(&config, memory.data(), bytes, &object, &field), &field))
        return nullptr;
    return object;
}

/* How the message of a benchmark begins that was not run, as opposed to one that failed. */
constexpr char skipped[] = "SKIPPED";

/* Registers body(state) under `name`. What needs an ISA that this machine lacks is reported as skipped. */
template <class Body> void register_benchmark(const std::string &name, attn_isa isa, Body body) {
    benchmark::RegisterBenchmark(name.c_str(), [isa, body](benchmark::State &state) {
        if (!attn_isa_supported(isa)) {
            state.SkipWithError((std::string(skipped) + ": this machine has no " + attn_isa_name(isa)).c_str());
            return;
        }
        try {
            body(state);
        } catch (const std::bad_alloc &) {
            state.SkipWithError((std::string(skipped) + ": this machine has not enough memory").c_str());
        }
    })->Unit(benchmark::kMicrosecond);
}

/* The reference is there to be right: shapes that would take it seconds are left out. */
inline bool worth_measuring(attn_isa isa, double flops) {
    return isa != ATTN_ISA_SCALAR || flops <= 1e9;
}

inline std::string benchmark_name(const char *operation, attn_isa isa, const char *shape) {
    return std::string(operation) + "/" + attn_isa_name(isa) + "/" + shape;
}

} /* namespace bench */

#endif
