/* attn-threads: attention and layers with one thread and with several, alternating, first on free cores and then while
 * another process spins on one of them.
 *
 *   attn-threads [PATTERN] [THREADS]      PATTERN is a regular expression over operation/shape; THREADS is 2 by default
 *
 * Prints, for each shape: microseconds with one thread, how many times faster several are, and p99 / p50 with several
 * threads while a neighbour spins. */
#include "subject.h"
#include <algorithm>
#include <attn/pthreadpool.h>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <regex>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bench {
namespace {

constexpr double seconds_per_case = 0.5;
constexpr std::size_t least_samples = 20;

double now_us() {
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double time_call(const subject &subject) {
    const char *field = nullptr;
    const double start = now_us();
    check(subject.call(&field), field);
    return now_us() - start;
}

double quantile(std::vector<double> samples, double part) {
    std::sort(samples.begin(), samples.end());
    return samples[std::min(samples.size() - 1, static_cast<std::size_t>(part * static_cast<double>(samples.size())))];
}

/* A process that has the last core for itself as long as it lives. */
class neighbour {
  public:
    neighbour() : child(fork()) {
        if (child != 0)
            return;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        cpu_set_t cores;
        CPU_ZERO(&cores);
        CPU_SET(static_cast<std::size_t>(sysconf(_SC_NPROCESSORS_ONLN) - 1), &cores);
        sched_setaffinity(0, sizeof cores, &cores);
        for (volatile unsigned turns = 0;; turns = turns + 1)
            ;
    }
    neighbour(const neighbour &) = delete;
    neighbour &operator=(const neighbour &) = delete;
    ~neighbour() {
        kill(child, SIGKILL);
        waitpid(child, nullptr, 0);
    }

  private:
    pid_t child;
};

/* Calls of one subject, then of the other, and again. */
struct samples {
    std::vector<double> one, several;
};

samples alternate(const subject &one, const subject &several) {
    samples result;
    time_call(one);
    time_call(several);
    for (const double start = now_us();
         result.one.size() < least_samples || now_us() - start < seconds_per_case * 1e6;) {
        result.one.push_back(time_call(one));
        result.several.push_back(time_call(several));
    }
    return result;
}

std::vector<double> repeat(const subject &subject) {
    std::vector<double> result;
    for (const double start = now_us(); result.size() < least_samples || now_us() - start < seconds_per_case * 1e6;)
        result.push_back(time_call(subject));
    return result;
}

void measure(const entry &entry, const attn_parallel &parallel) {
    const subject one = entry.make();
    parallel_of_subjects() = &parallel;
    const subject several = entry.make();
    parallel_of_subjects() = nullptr;
    const samples free = alternate(one, several);
    double tail = 0;
    {
        const neighbour spinning;
        const std::vector<double> beside = repeat(several);
        tail = quantile(beside, 0.99) / quantile(beside, 0.5);
    }
    const double single = quantile(free.one, 0.5);
    std::printf("%-34s %12.2f %10.2f %10.2f\n", (entry.operation + "/" + entry.shape).c_str(), single,
                single / quantile(free.several, 0.5), tail);
    std::fflush(stdout);
}

} /* namespace */
} /* namespace bench */

int main(int argc, char **argv) {
    using namespace bench;
    const std::regex pattern(argc > 1 ? argv[1] : "");
    const pthreadpool_t pool = pthreadpool_create(argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 2);
    if (!pool)
        return EXIT_FAILURE;
    const attn_parallel parallel = attn_parallel_pthreadpool(pool);
    const attn_isa best = attn_isa_chosen();
    std::printf("%-34s %12s %9zux %10s\n", attn_isa_name(best), "1 thread us", parallel.threads, "p99 / p50");
    for (const entry &entry : all_subjects()) {
        const bool threaded = entry.operation == "layer" || entry.operation.rfind("attention", 0) == 0;
        if (threaded && entry.variant == attn_isa_name(best) &&
            std::regex_search(entry.operation + "/" + entry.shape, pattern))
            measure(entry, parallel);
    }
    pthreadpool_destroy(pool);
    return EXIT_SUCCESS;
}
