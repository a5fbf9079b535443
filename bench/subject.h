/* What is timed. One operation is one body and a list of shapes; attn-bench times it with Google Benchmark,
 * attn-compare beside its peers. */
#ifndef ATTN_BENCH_SUBJECT_H
#define ATTN_BENCH_SUBJECT_H

#include "buffers.h"
#include "shapes.h"
#include <attn/attn.h>
#include <cstddef>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bench {

/* What one call has to do at least; a figure that is 0 is not reported. */
struct work {
    double flops;                             /* also as a share of the core's multiply-adds */
    double bytes;                             /* of inputs read once and outputs written once */
    double elements;                          /* where time per element is what people quote */
    double bf16_flops = 0, integer_flops = 0; /* of flops, those that units for BF16 and for integers do */
};

/* A call on buffers of its own, ready to be repeated. */
struct subject {
    bench::work work;
    std::function<attn_status(attn_error *error)> call;
};

/* The subject whose call is that of a T(args...), which it owns. */
template <class T, class... Args> subject make_subject(const work &work, Args &&...args) {
    const auto state = std::make_shared<T>(std::forward<Args>(args)...);
    return {work, [state](attn_error *error) { return (*state)(error); }};
}

/* Who computes attention and layers that are made from now on; NULL for the calling thread. */
inline const attn_parallel *&parallel_of_subjects() {
    static const attn_parallel *parallel = nullptr;
    return parallel;
}

/* A subject's name is operation/variant/shape, or operation/variant/shape/types where they are not all f32: those of
 * activations[-weights][-cache]. The variant is an ISA of ours, or a peer. */
struct entry {
    std::string operation, variant, shape;
    attn_isa isa; /* whose ceiling it has; what it needs of the machine */
    std::function<subject()> make;
    bool inherited = false; /* the ISA has its kernels from another: a row of its own would be measured twice */

    std::string types = {};

    std::string name() const { return operation + "/" + variant + "/" + shape + (types.empty() ? "" : "/" + types); }
};
using catalogue = std::vector<entry>;

/* Every subject of every ISA of the architecture, and of every peer that this program was built with. */
catalogue all_subjects();

/* Each adds its operation for `isa`. */
void add_gemm(catalogue &to, attn_isa isa);
void add_softmax(catalogue &to, attn_isa isa);
void add_transposes(catalogue &to, attn_isa isa);
void add_attention(catalogue &to, attn_isa isa);
void add_layer(catalogue &to, attn_isa isa);
void add_exp(catalogue &to, attn_isa isa);
void add_features(catalogue &to, attn_isa isa);
void add_blobs(catalogue &to, attn_isa isa);

/* The peers run on the best ISA, or the one below that ATTN_MAX_ISA names. */
void add_libc(catalogue &to);
#if defined(HAVE_ONEDNN)
void add_onednn(catalogue &to);
std::string onednn_version();

/* Dense operands: [m][k], [k][n], [m][n]; [batch * heads][len][head_size], scores [batch * heads][q_len][kv_len]. */
struct onednn_gemm {
    const void *x, *weight;
    void *y;
};
struct onednn_attention {
    const void *q, *k, *v;
    void *scores, *o;
};
/* Once, of these numbers: of F32 or BF16, results and scores too. */
void run_onednn(const gemm_shape &shape, attn_type type, const onednn_gemm &of);
void run_onednn(const attention_shape &shape, attn_type type, const onednn_attention &of);
#endif
#if defined(HAVE_OPENBLAS)
void add_openblas(catalogue &to);
std::string openblas_version();
#endif

struct failure : std::runtime_error {
    using runtime_error::runtime_error;
};

/* What this machine or this version of a peer cannot do: a benchmark that is not run, not one that failed. */
struct unsupported : failure {
    using failure::failure;
};

/* Throws a failure with the error's text, unless the status is ATTN_OK. */
void check(attn_status status, const attn_error &error);

/* The object that size() and create() of the public API make of `config`, in `memory`. */
template <class Object, class Config>
Object *create(const Config &config, attn_status (*size)(const Config *, std::size_t *, attn_error *),
               attn_status (*make)(const Config *, void *, std::size_t, Object **, attn_error *),
               buffer<char> &memory) {
    std::size_t bytes = 0;
    Object *object = nullptr;
    attn_error error{};
    check(size(&config, &bytes, &error), error);
    memory = buffer<char>(bytes);
    check(make(&config, memory.data(), bytes, &object, &error), error);
    return object;
}

/* A cache for the keys and values of `args`; `config` has what these do not say. */
inline attn_cache *make_cache(const attn_attention_args &args, attn_cache_config config, buffer<char> &memory) {
    config.isa = args.isa;
    config.arithmetic = args.arithmetic;
    config.batch = args.batch;
    config.kv_heads = args.kv_heads != 0 ? args.kv_heads : args.heads;
    config.head_size = args.head_size;
    config.capacity = args.kv_len;
    return create(config, attn_cache_size, attn_cache_create, memory);
}

/* From here on `args` has them there. */
inline void fill_cache(attn_cache *cache, attn_attention_args &args) {
    attn_cache_append_args append = {};
    append.len = args.kv_len;
    append.k = args.k;
    append.v = args.v;
    attn_error error{};
    check(attn_cache_append(cache, &append, &error), error);
    args.cache = cache;
}

/* The reference is there to be right: shapes that would take it seconds are left out. */
inline bool worth_measuring(attn_isa isa, double flops) {
    return isa != ATTN_ISA_SCALAR || flops <= 1e9;
}

} /* namespace bench */

#endif
