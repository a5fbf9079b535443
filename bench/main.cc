/* attn-bench: every operation on every ISA, and what it is compared with, as operation/isa/shape or
 * operation/peer/shape, with the options of Google Benchmark.
 *
 *   attn-bench --benchmark_filter=gemm/avx512
 *   attn-bench --benchmark_filter=bert_512 --benchmark_format=json */
#include "ceiling.h"
#include "commit.h"
#include "isas.h"
#include "subject.h"
#include <benchmark/benchmark.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

namespace bench {

namespace {

void report(benchmark::State &state, attn_isa isa, const work &work) {
    using benchmark::Counter;
    const Counter::Flags rate = Counter::kIsIterationInvariantRate;
    if (work.bytes > 0)
        state.counters["GB/s"] = Counter(work.bytes * 1e-9, rate);
    if (work.elements > 0)
        state.counters["ns/element"] =
            Counter(work.elements * 1e-9, static_cast<Counter::Flags>(rate | Counter::kInvert));
    if (work.flops > 0) {
        const double gflop = work.flops * 1e-9, ceiling = flop_ceiling(isa, work);
        state.counters["GFLOP/s"] = Counter(gflop, rate);
        if (ceiling > 0)
            state.counters["peak%"] = Counter(100 * gflop / ceiling, rate);
    }
}

/* How the message of a benchmark begins that was not run, as opposed to one that failed. */
constexpr char skipped[] = "SKIPPED";

/* The call before the first timed one finds errors and faults pages in. */
void run(benchmark::State &state, const entry &entry) {
    try {
        if (!attn_isa_supported(entry.isa))
            throw unsupported("this machine has no " + std::string(attn_isa_name(entry.isa)));
        const subject subject = entry.make();
        attn_error error{};
        check(subject.call(&error), error);
        for (auto _ : state) {
            benchmark::DoNotOptimize(subject.call(&error));
            benchmark::ClobberMemory();
        }
        report(state, entry.isa, subject.work);
    } catch (const unsupported &reason) {
        state.SkipWithError((std::string(skipped) + ": " + reason.what()).c_str());
    } catch (const std::bad_alloc &) {
        state.SkipWithError((std::string(skipped) + ": this machine has not enough memory").c_str());
    } catch (const std::exception &error) {
        state.SkipWithError(error.what());
    }
}

/* The message of a run that was ended by SkipWithError, otherwise "". Google Benchmark 1.8 renamed the member. */
template <class Run> auto message_of(const Run &run, int) -> decltype(std::string(run.error_message)) {
    return run.error_message;
}
template <class Run> auto message_of(const Run &run, long) -> decltype(std::string(run.skip_message)) {
    return run.skip_message;
}

/* Google Benchmark appends "/s" to what it shows of a rate; here the counters' names hold their units. And it does not
 * tell whether a benchmark failed. */
class reporter : public benchmark::BenchmarkReporter {
  public:
    bool ReportContext(const Context &context) override { return wrapped->ReportContext(context); }

    void ReportRuns(const std::vector<Run> &runs) override {
        std::vector<Run> plain = runs;
        for (Run &run : plain) {
            for (auto &counter : run.counters)
                counter.second.flags = benchmark::Counter::kDefaults;
            const std::string message = message_of(run, 0);
            failures |= !message.empty() && message.rfind(skipped, 0) != 0;
        }
        wrapped->ReportRuns(plain);
    }

    void Finalize() override { wrapped->Finalize(); }

    bool any_failures() const { return failures; }

  private:
    std::unique_ptr<benchmark::BenchmarkReporter> wrapped{benchmark::CreateDefaultDisplayReporter()};
    bool failures = false;
};

/* What an ISA inherits is measured where the filter names the ISA. */
void register_subjects() {
    const std::string filter = benchmark::GetBenchmarkFilter();
    for (const entry &entry : all_subjects()) {
        if (entry.inherited && filter.find(entry.variant) == std::string::npos)
            continue;
        benchmark::RegisterBenchmark(entry.name().c_str(), [entry](benchmark::State &state) {
            run(state, entry);
        })->Unit(benchmark::kMicrosecond);
    }
}

std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4g", value);
    return text;
}

/* To stderr in one line, and into the context that JSON carries. */
void report_ceilings() {
    std::string rates, read;
    for (const attn_isa isa : isas_of_architecture())
        for (const unit unit : all_units) {
            const double gflops = unit_ceiling(isa, unit);
            if (gflops <= 0)
                continue;
            const std::string name = std::string(attn_isa_name(isa)) + "." + unit_name(unit);
            rates += " " + name + " " + number(gflops);
            benchmark::AddCustomContext("ceiling." + name + ".gflops", number(gflops));
        }
    for (const read_ceiling &ceiling : read_ceilings()) {
        const std::string level = ceiling.level;
        read += " " + level + " " + number(ceiling.gbytes_per_sec);
        benchmark::AddCustomContext("ceiling.read." + level + ".gbytes_per_second", number(ceiling.gbytes_per_sec));
    }
    std::fprintf(stderr, "ceilings of one core: GFLOP/s%s; read GB/s%s\n", rates.c_str(), read.c_str());
}

void describe_build() {
    benchmark::AddCustomContext("attn.version", attn_version());
    benchmark::AddCustomContext("attn.commit", ATTN_COMMIT);
    benchmark::AddCustomContext("attn.isa", attn_isa_name(attn_isa_chosen()));
#if defined(__clang__)
    benchmark::AddCustomContext("attn.compiler", __VERSION__);
#else
    benchmark::AddCustomContext("attn.compiler", "gcc " __VERSION__);
#endif
}

/* What Google Benchmark takes for true. */
bool truthy(const char *value) {
    const std::string text = value;
    for (const char *no : {"0", "f", "n", "F", "N", "no", "off", "false"})
        if (text == no)
            return false;
    return !text.empty();
}

/* Whether names only are asked for: nothing is measured then. Google Benchmark does not tell what it made of its
 * options, so this reads that one as it does. */
bool lists_only(int argc, char **argv) {
    const char *const option = "--benchmark_list_tests";
    const std::size_t length = std::strlen(option);
    const char *variable = std::getenv("BENCHMARK_LIST_TESTS");
    bool list = variable && truthy(variable);
    for (int i = 1; i < argc; i++) {
        if (std::strncmp(argv[i], option, length) != 0)
            continue;
        if (argv[i][length] == '\0')
            list = true;
        else if (argv[i][length] == '=')
            list = truthy(argv[i] + length + 1);
    }
    return list;
}

} /* namespace */
} /* namespace bench */

int main(int argc, char **argv) {
    const bool list = bench::lists_only(argc, argv);
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv))
        return 1;
    bench::register_subjects();
    bench::reporter reporter;
    if (!list) {
        bench::report_ceilings();
        bench::describe_build();
    }
    benchmark::RunSpecifiedBenchmarks(&reporter);
    benchmark::Shutdown();
    return reporter.any_failures() ? 1 : 0;
}
