/* attn-threads: attention and layers with one thread, with several, and as independent calls of as many threads, in
 * turns on free cores; then with several threads while another process spins on one of the cores.
 *
 *   attn-threads [PATTERN] [THREADS] [POOL]
 *
 * PATTERN is a regular expression over operation/shape, THREADS is 2 by default, POOL is pthreadpool, whose threads
 * spin while they wait, or openmp, where OMP_WAIT_POLICY says whether they do.
 *
 * Prints, for each shape: microseconds with one thread; how many times faster several are; how many times more calls
 * independent threads complete than one, which is what the cores had to give at that time; and p50 and p99 / p50 with
 * several threads while a neighbour spins. */
#include "subject.h"
#include <algorithm>
#include <atomic>
#include <attn/openmp.h>
#include <attn/pthreadpool.h>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <regex>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace bench {
namespace {

constexpr int turns = 5;
constexpr double seconds_per_turn = 0.06;

double now_us() {
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double time_call(const subject &subject) {
    attn_error error{};
    const double start = now_us();
    check(subject.call(&error), error);
    return now_us() - start;
}

double quantile(std::vector<double> samples, double part) {
    std::sort(samples.begin(), samples.end());
    return samples[std::min(samples.size() - 1, static_cast<std::size_t>(part * static_cast<double>(samples.size())))];
}

/* A process that wants the last core for itself while it is not stopped. It begins before there are buffers: what a
 * process shares with its child is copied, page by page, when it writes to it. */
class neighbour {
  public:
    neighbour() : child(fork()) {
        if (child == 0)
            spin();
        stop();
    }
    neighbour(const neighbour &) = delete;
    neighbour &operator=(const neighbour &) = delete;
    ~neighbour() {
        kill(child, SIGKILL);
        waitpid(child, nullptr, 0);
    }

    void go() const { kill(child, SIGCONT); }
    void stop() const { kill(child, SIGSTOP); }

  private:
    pid_t child;

    [[noreturn]] static void spin() {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        cpu_set_t cores;
        CPU_ZERO(&cores);
        CPU_SET(static_cast<std::size_t>(sysconf(_SC_NPROCESSORS_ONLN) - 1), &cores);
        sched_setaffinity(0, sizeof cores, &cores);
        for (volatile unsigned count = 0;; count = count + 1)
            ;
    }
};

/* Threads that go on calling, each a subject of its own, as long as this lives. */
class callers {
  public:
    explicit callers(const std::vector<subject> &subjects) : waiting(subjects.size()) {
        for (const subject &each : subjects)
            threads.emplace_back([this, &each] {
                waiting--;
                while (!done)
                    time_call(each);
            });
        while (waiting != 0)
            ;
    }
    callers(const callers &) = delete;
    callers &operator=(const callers &) = delete;
    ~callers() {
        done = true;
        for (std::thread &thread : threads)
            thread.join();
    }

  private:
    std::atomic<std::size_t> waiting;
    std::atomic<bool> done{false};
    std::vector<std::thread> threads;
};

/* Repeats a call for so long, twice at least, and adds what each took. */
void repeat(const subject &subject, double seconds, std::vector<double> &samples) {
    const std::size_t least = samples.size() + 2;
    for (const double start = now_us(); samples.size() < least || now_us() - start < seconds * 1e6;)
        samples.push_back(time_call(subject));
}

void measure(const entry &entry, const attn_parallel &parallel, const neighbour &neighbour) {
    const subject one = entry.make();
    std::vector<subject> others;
    while (others.size() + 1 < parallel.threads)
        others.push_back(entry.make());
    parallel_of_subjects() = &parallel;
    const subject several = entry.make();
    parallel_of_subjects() = nullptr;

    /* The pool's threads spin for a while after a call: not while others need their cores. */
    std::vector<double> together, alone, independent, beside;
    for (int turn = 0; turn < turns; turn++) {
        repeat(several, seconds_per_turn, together);
        repeat(one, seconds_per_turn, alone);
        const callers calling(others);
        repeat(one, seconds_per_turn, independent);
    }
    neighbour.go();
    repeat(several, 2 * turns * seconds_per_turn, beside);
    neighbour.stop();
    const double single = quantile(alone, 0.5);
    std::printf("%-34s %12.2f %10.2f %12.2f %12.2f %10.2f\n", (entry.operation + "/" + entry.shape).c_str(), single,
                single / quantile(together, 0.5),
                static_cast<double>(parallel.threads) * single / quantile(independent, 0.5), quantile(beside, 0.5),
                quantile(beside, 0.99) / quantile(beside, 0.5));
    std::fflush(stdout);
}

void measure_all(const std::regex &pattern, const attn_parallel &parallel, const neighbour &neighbour) {
    const attn_isa best = attn_isa_chosen();
    std::printf("%-34s %12s %9zux %12s %12s %10s\n", attn_isa_name(best), "1 thread us", parallel.threads,
                "independent", "neighbour us", "p99 / p50");
    for (const entry &entry : all_subjects()) {
        const bool threaded = entry.operation == "layer" || entry.operation.rfind("attention", 0) == 0;
        if (threaded && entry.variant == attn_isa_name(best) &&
            std::regex_search(entry.operation + "/" + entry.shape, pattern))
            measure(entry, parallel, neighbour);
    }
}

} /* namespace */
} /* namespace bench */

int main(int argc, char **argv) {
    const bench::neighbour neighbour;
    const std::regex pattern(argc > 1 ? argv[1] : "");
    const std::size_t threads = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 2;
    const std::string pool_name = argc > 3 ? argv[3] : "pthreadpool";
    if (pool_name == "openmp") {
        bench::measure_all(pattern, attn_parallel_openmp(static_cast<int>(threads)), neighbour);
        return EXIT_SUCCESS;
    }
    const pthreadpool_t pool = pool_name == "pthreadpool" ? pthreadpool_create(threads) : nullptr;
    if (!pool) {
        std::fprintf(stderr, "no pool named %s\n", pool_name.c_str());
        return EXIT_FAILURE;
    }
    bench::measure_all(pattern, attn_parallel_pthreadpool(pool), neighbour);
    pthreadpool_destroy(pool);
    return EXIT_SUCCESS;
}
