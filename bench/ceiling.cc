/* Ceilings are the best of several runs: disturbances only ever lower a rate. Volatile assembler statements keep the
 * compiler from thinning the work out, and separate variables in place of an array keep the chains in registers,
 * whatever the optimiser unrolls.
 *
 * A core that starts two multiply-adds per cycle, each with a latency of four or five, needs eight to ten chains; one
 * that starts four of them needs sixteen. AVX2 has 16 registers, two of which hold the factors: twelve chains there,
 * and eleven where a product needs a register beside its chain. */
#include "ceiling.h"
#include "buffers.h"
#include "isas.h"
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <ctime>
#include <unistd.h>

namespace bench {
namespace {

#define FOUR(step, ...) step(0, __VA_ARGS__) step(1, __VA_ARGS__) step(2, __VA_ARGS__) step(3, __VA_ARGS__)
#define EIGHT(step, ...)                                                                                               \
    FOUR(step, __VA_ARGS__)                                                                                            \
    step(4, __VA_ARGS__) step(5, __VA_ARGS__) step(6, __VA_ARGS__) step(7, __VA_ARGS__)
#define ELEVEN(step, ...)                                                                                              \
    EIGHT(step, __VA_ARGS__)                                                                                           \
    step(8, __VA_ARGS__) step(9, __VA_ARGS__) step(10, __VA_ARGS__)
#define TWELVE(step, ...)                                                                                              \
    EIGHT(step, __VA_ARGS__)                                                                                           \
    step(8, __VA_ARGS__) step(9, __VA_ARGS__) step(10, __VA_ARGS__) step(11, __VA_ARGS__)
#define SIXTEEN(step, ...)                                                                                             \
    TWELVE(step, __VA_ARGS__)                                                                                          \
    step(12, __VA_ARGS__) step(13, __VA_ARGS__) step(14, __VA_ARGS__) step(15, __VA_ARGS__)

#define CHAIN(i, type)           type chain##i = b;
#define FMA(i, instruction, reg) asm volatile(instruction : "+" reg(chain##i) : reg(a), reg(b));
/* With registers beside the chain. */
#if defined(__aarch64__)
#define DOT_CLOBBERS "v31"
#else
#define DOT_CLOBBERS
#endif
#define DOT(i, instructions, reg)                                                                                      \
    asm volatile(instructions : "+" reg(chain##i), "=&" reg(beside) : reg(a), reg(b) : DOT_CLOBBERS);
#define LOAD(i, reg) asm volatile("" : : reg(vectors[i]));

/* <kind>_<name>: `rounds` multiply-adds in each of the chains, whose time does not depend on what the bits are: to the
 * compiler all of them are floats.
 * read_<name>: the first `bytes` of `data`, a multiple of eight vectors. */
#define CHAIN_KERNEL(kind, name, target, chains, STEP, reg, instruction)                                               \
    target void kind##_##name(std::size_t rounds) {                                                                    \
        const name##_vector a = name##_vector{} + 0.999f, b = name##_vector{} + 1.001f;                                \
        [[maybe_unused]] name##_vector beside;                                                                         \
        chains(CHAIN, name##_vector) for (std::size_t round = 0; round < rounds; round++) {                            \
            chains(STEP, instruction, reg)                                                                             \
        }                                                                                                              \
    }
#define VECTOR_KERNELS(name, target, size, chains, reg, instruction)                                                   \
    typedef float name##_vector __attribute__((vector_size(size), may_alias));                                         \
    CHAIN_KERNEL(fma, name, target, chains, FMA, reg, instruction)                                                     \
    target void read_##name(const char *data, std::size_t bytes) {                                                     \
        for (std::size_t offset = 0; offset < bytes; offset += 8 * size) {                                             \
            const name##_vector *vectors = reinterpret_cast<const name##_vector *>(data + offset);                     \
            EIGHT(LOAD, reg)                                                                                           \
        }                                                                                                              \
    }

#if defined(__x86_64__)
VECTOR_KERNELS(avx2, __attribute__((target("avx2,fma"))), 32, TWELVE, "x", "vfmadd231ps %2, %1, %0")
VECTOR_KERNELS(avx512, __attribute__((target("avx512f"))), 64, SIXTEEN, "v", "vfmadd231ps %2, %1, %0")

/* What takes the place of a dot product where there is no instruction for it. */
CHAIN_KERNEL(without_dot, avx2, __attribute__((target("avx2,fma"))), ELEVEN, DOT, "x",
             "vpmaddubsw %3, %2, %1; vpmaddwd %3, %1, %1; vpaddd %1, %0, %0")
CHAIN_KERNEL(without_dot, avx512, __attribute__((target("avx512f"))), SIXTEEN, DOT, "v",
             "vpmaddubsw %3, %2, %1; vpmaddwd %3, %1, %1; vpaddd %1, %0, %0")
CHAIN_KERNEL(dot, avx2, __attribute__((target("avx2,fma"))), TWELVE, FMA, "x", "%{vex%} vpdpbusd %2, %1, %0")
CHAIN_KERNEL(dot, avx512, __attribute__((target("avx512f"))), SIXTEEN, FMA, "v", "vpdpbusd %2, %1, %0")
CHAIN_KERNEL(bf16, avx512, __attribute__((target("avx512f"))), SIXTEEN, FMA, "v", "vdpbf16ps %2, %1, %0")

/* What LDTILECFG reads: eight tiles of 16 rows of 64 bytes. */
struct tile_config {
    unsigned char palette = 1, start_row = 0, reserved[14] = {};
    unsigned short bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    unsigned char rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

/* As AMX's kernels do: four products of two tiles of A and two of B, each of which is loaded, here from L1. */
#define TILE_LOAD(offset, t)        "tileloadd " #offset "(%0,%1,1), %%tmm" #t "\n"
#define TILE_ADD(c, a, b, multiply) multiply " %%tmm" #b ", %%tmm" #a ", %%tmm" #c "\n"
#define TILE_KERNEL(name, multiply)                                                                                    \
    void tiles_##name(std::size_t rounds) {                                                                            \
        static const tile_config config;                                                                               \
        alignas(64) char tiles[4][16 * 64];                                                                            \
        std::memset(tiles, 0x3f, sizeof tiles);                                                                        \
        asm volatile("ldtilecfg %0; tilezero %%tmm0; tilezero %%tmm1; tilezero %%tmm2; tilezero %%tmm3"                \
                     :                                                                                                 \
                     : "m"(config));                                                                                   \
        for (std::size_t round = 0; round < rounds; round++)                                                           \
            asm volatile(TILE_LOAD(0, 4) TILE_LOAD(1024, 5) TILE_LOAD(2048, 6) TILE_ADD(0, 4, 6, multiply)             \
                             TILE_ADD(1, 5, 6, multiply) TILE_LOAD(3072, 7) TILE_ADD(2, 4, 7, multiply)                \
                                 TILE_ADD(3, 5, 7, multiply)                                                           \
                         :                                                                                             \
                         : "r"(&tiles), "r"(std::size_t{64})                                                           \
                         : "memory");                                                                                  \
        asm volatile("tilerelease");                                                                                   \
    }
TILE_KERNEL(bf16, "tdpbf16ps")
TILE_KERNEL(int8, "tdpbssd")
#define SCALAR_REGISTER "x"
#elif defined(__aarch64__)
VECTOR_KERNELS(neon, , 16, SIXTEEN, "w", "fmla %0.4s, %1.4s, %2.4s")
CHAIN_KERNEL(without_dot, neon, , SIXTEEN, DOT, "w",
             "smull %1.8h, %2.8b, %3.8b; smull2 v31.8h, %2.16b, %3.16b; saddlp %1.4s, %1.8h; saddlp v31.4s, v31.8h;"
             "addp %1.4s, %1.4s, v31.4s; add %0.4s, %0.4s, %1.4s")
CHAIN_KERNEL(dot, neon, __attribute__((target("arch=armv8.2-a+dotprod"))), SIXTEEN, FMA, "w",
             "sdot %0.4s, %1.16b, %2.16b")
CHAIN_KERNEL(bf16, neon, __attribute__((target("arch=armv8.2-a+bf16"))), SIXTEEN, FMA, "w",
             "bfmlalt %0.4s, %1.8h, %2.8h; bfmlalb %0.4s, %1.8h, %2.8h")

/* This file is compiled without SVE, so the compiler keeps nothing in its registers: loops are assembler as a whole. */
#define SVE_FMA(i, a, b)  "fmla z" #i ".s, p0/m, " a ".s, " b ".s\n"
#define SVE_LOAD(i, from) "ldr z" #i ", [" from ", #" #i ", mul vl]\n"

void fma_sve256(std::size_t rounds) {
    asm volatile(".arch_extension sve\n"
                 "ptrue p0.s\n"
                 "fmov z30.s, #1.0\n"
                 "fmov z31.s, #0.5\n"
                 "1:\n" SIXTEEN(SVE_FMA, "z30", "z31") "subs %0, %0, #1\n"
                                                       "b.ne 1b\n"
                 : "+r"(rounds)
                 :
                 : "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14",
                   "v15", "v30", "v31");
}

void read_sve256(const char *data, std::size_t bytes) {
    for (std::size_t offset = 0; offset < bytes; offset += 8 * 32)
        asm volatile(".arch_extension sve\n" EIGHT(SVE_LOAD, "%0")
                     :
                     : "r"(data + offset)
                     : "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7");
}

#define SCALAR_REGISTER   "w"
#else
#define SCALAR_REGISTER "m"
#endif

/* As the reference is compiled: an instruction where the baseline has one, else a call into libm. A call preserves no
 * vector register, so only one chain at a time stays in one: chains are short, and the processor overlaps them. */
#define FMAF(i, reg)                                                                                                   \
    chain = std::fmaf(a, b, chain);                                                                                    \
    asm volatile("" : "+" reg(chain));

void fma_scalar(std::size_t rounds) {
    volatile float factor = 0.999f;
    const float a = factor, b = factor;
    for (std::size_t round = 0; round < rounds; round++) {
        float chain = b;
        FOUR(FMAF, SCALAR_REGISTER)
    }
}

void read_scalar(const char *data, std::size_t bytes) {
    for (std::size_t offset = 0; offset < bytes; offset += 8 * sizeof(std::size_t)) {
        const std::size_t *vectors = reinterpret_cast<const std::size_t *>(data + offset);
        EIGHT(LOAD, "r")
    }
}

using chains = void (*)(std::size_t rounds);

struct probe {
    attn_isa isa;
    std::size_t per_round; /* multiply-adds per round, all chains together */
    chains fma;
    void (*read)(const char *data, std::size_t bytes);
};

/* Worst to best within an architecture. */
constexpr probe probes[] = {
    {ATTN_ISA_SCALAR, 4, fma_scalar, read_scalar},
#if defined(__x86_64__)
    {ATTN_ISA_AVX2, 12 * 8, fma_avx2, read_avx2},
    {ATTN_ISA_AVX512, 16 * 16, fma_avx512, read_avx512},
#elif defined(__aarch64__)
    {ATTN_ISA_NEON, 16 * 4, fma_neon, read_neon},
    {ATTN_ISA_SVE256, 16 * 8, fma_sve256, read_sve256},
#endif
};

/* What multiplies other types than F32. */
struct unit_probe {
    attn_isa isa;
    bench::unit unit;
    std::size_t per_round;
    chains run;
};
constexpr unit_probe unit_probes[] = {
#if defined(__x86_64__)
    {ATTN_ISA_AVX2, unit::int8, 11 * 32, without_dot_avx2},
    {ATTN_ISA_AVX512, unit::int8, 16 * 64, without_dot_avx512},
    {ATTN_ISA_AVX2_VNNI, unit::int8, 12 * 32, dot_avx2},
    {ATTN_ISA_AVX512_VNNI, unit::int8, 16 * 64, dot_avx512},
    {ATTN_ISA_AVX512_BF16, unit::int8, 16 * 64, dot_avx512},
    {ATTN_ISA_AVX512_BF16, unit::bf16, 16 * 32, bf16_avx512},
    {ATTN_ISA_AMX, unit::int8, 4 * 16 * 16 * 64, tiles_int8},
    {ATTN_ISA_AMX, unit::bf16, 4 * 16 * 16 * 32, tiles_bf16},
#elif defined(__aarch64__)
    {ATTN_ISA_NEON, unit::int8, 16 * 16, without_dot_neon}, {ATTN_ISA_SVE256, unit::int8, 16 * 16, without_dot_neon},
    {ATTN_ISA_NEON_DOT, unit::int8, 16 * 16, dot_neon},     {ATTN_ISA_NEON_MM, unit::int8, 16 * 16, dot_neon},
    {ATTN_ISA_NEON_MM, unit::bf16, 16 * 8, bf16_neon},
#else
    {ATTN_ISA_COUNT, unit::int8, 0, nullptr}, /* C++ has no empty arrays */
#endif
};

/* Of this thread, as Google Benchmark counts for its rates: other processes on the core do not lower a ceiling. */
double cpu_seconds() {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/* Calls of run() per second: the best of several trials, each of which takes `shortest` to twice as many seconds. */
template <class Run> double best_rate(double shortest, Run run) {
    constexpr int trials = 7;
    double best = 0;
    std::size_t calls = 1;
    for (int done = 0; done < trials;) {
        const double start = cpu_seconds();
        for (std::size_t i = 0; i < calls; i++)
            run();
        const double seconds = cpu_seconds() - start;
        if (seconds < shortest) {
            calls *= 2;
            continue;
        }
        best = std::max(best, static_cast<double>(calls) / seconds);
        done++;
    }
    return best;
}

constexpr double thorough = 0.01, quick = 0.002; /* seconds per trial */

double measure_chains(chains run, std::size_t per_round, double shortest) {
    constexpr std::size_t rounds = 1000;
    const double flops = static_cast<double>(2 * rounds * per_round);
    return best_rate(shortest, [&] { run(rounds); }) * flops * 1e-9;
}

double measure_read(const probe &probe, std::size_t bytes, double shortest) {
    buffer<char> data(bytes);
    std::memset(data.data(), 1, bytes);
    return best_rate(shortest, [&] { probe.read(data.data(), bytes); }) * static_cast<double>(bytes) * 1e-9;
}

/* NULL where this machine lacks the ISA. */
const probe *probe_of(attn_isa isa) {
    for (const probe &probe : probes)
        if (probe.isa == f32_isa(isa) && attn_isa_supported(isa))
            return &probe;
    return nullptr;
}

double measure_unit(attn_isa isa, unit unit, double shortest) {
    const probe *f32 = probe_of(isa);
    if (!f32)
        return 0;
    for (const unit_probe &probe : unit_probes)
        if (probe.isa == isa && probe.unit == unit)
            return measure_chains(probe.run, probe.per_round, shortest);
    /* The reference's products of integers are no chain of multiply-adds that could be measured alone. */
    return unit == unit::int8 ? 0 : measure_chains(f32->fma, f32->per_round, shortest);
}

/* `rate` says what a unit reaches. */
template <class Rate> double combined(const work &work, Rate rate) {
    const double flops[] = {work.flops - work.bf16_flops - work.integer_flops, work.bf16_flops, work.integer_flops};
    double time = 0;
    for (const unit unit : all_units) {
        const double part = flops[static_cast<int>(unit)];
        if (part <= 0)
            continue;
        const double reached = rate(unit);
        if (reached <= 0)
            return 0;
        time += part / reached;
    }
    return time > 0 ? work.flops / time : rate(unit::f32);
}

std::size_t cache_bytes(int name, std::size_t otherwise) {
    const long bytes = sysconf(name);
    return bytes > 0 ? static_cast<std::size_t>(bytes) : otherwise;
}

struct ceilings {
    std::array<std::array<double, 3>, ATTN_ISA_COUNT> rates{};
    std::vector<read_ceiling> read;

    ceilings() {
        const probe *widest = nullptr;
        for (const probe &probe : probes) {
            if (attn_isa_supported(probe.isa))
                widest = &probe;
        }
        for (const attn_isa isa : isas_of_architecture())
            for (const unit unit : all_units)
                rates[isa][static_cast<std::size_t>(unit)] = measure_unit(isa, unit, thorough);
        if (!widest)
            return;

        const std::size_t kib = 1024, mib = 1024 * kib;
        const std::size_t l1 = cache_bytes(_SC_LEVEL1_DCACHE_SIZE, 32 * kib);
        const std::size_t l2 = cache_bytes(_SC_LEVEL2_CACHE_SIZE, 1 * mib);
        const std::size_t l3 = cache_bytes(_SC_LEVEL3_CACHE_SIZE, 32 * mib);
        /* Each buffer is well inside its level and well outside the one before. A virtual machine may be shown the
         * whole of a large L3 of which it gets a part: L3's buffer stays near to L2's size, and memory's affordable. */
        const std::array<read_ceiling, 4> levels = {{{"L1", l1 / 2, 0},
                                                     {"L2", l2 / 2, 0},
                                                     {"L3", std::min(4 * l2, l3 / 2), 0},
                                                     {"memory", std::min(4 * l3, 512 * mib), 0}}};
        for (read_ceiling level : levels) {
            level.bytes -= level.bytes % 4096;
            level.gbytes_per_sec = measure_read(*widest, level.bytes, thorough);
            read.push_back(level);
        }
    }
};

const ceilings &measured() {
    static const ceilings once;
    return once;
}

} /* namespace */

const char *unit_name(unit unit) {
    return unit == unit::f32 ? "f32" : unit == unit::bf16 ? "bf16" : "int8";
}

double unit_ceiling(attn_isa isa, unit unit) {
    return measured().rates[isa][static_cast<std::size_t>(unit)];
}

double flop_ceiling(attn_isa isa, const work &work) {
    return combined(work, [isa](unit unit) { return unit_ceiling(isa, unit); });
}

const std::vector<read_ceiling> &read_ceilings() {
    return measured().read;
}

double flop_ceiling_now(attn_isa isa, const work &work) {
    return combined(work, [isa](unit unit) { return measure_unit(isa, unit, quick); });
}

double read_ceiling_now(attn_isa isa, std::size_t bytes) {
    const probe *probe = probe_of(isa);
    const std::size_t page = 4096;
    return probe ? measure_read(*probe, (bytes + page - 1) / page * page, quick) : 0;
}

std::size_t last_level_bytes() {
    return cache_bytes(_SC_LEVEL3_CACHE_SIZE, 32 * 1024 * 1024);
}

} /* namespace bench */
