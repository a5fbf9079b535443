/* attn-compare: times subjects one slice at a time, so that whoever drives it (tools/bench) can interleave slices of
 * ours and of peers, in this process and in others, and clock drift meets all of them alike.
 *
 * Each line of standard input is a request, each line of standard output its answer, a JSON object:
 *
 *   list                        {"names": [...]}
 *   shapes                      {NAME: {"batch": .., "q_len": .., ...}, ...}: of attention, layers and products, for
 *                               other programs
 *   about                       versions, compiler, ISA, cache sizes
 *   ceiling NAME BYTES          {"gflops": what the units that the subject needs reach, where that is known,
 *                               "gbytes_per_s": of reading a buffer of that size}
 *   time NAME SECONDS           {"samples_us": [...], "first_us": .., "share": .., "flops": .., "bytes": ..}
 *   cold NAME SECONDS MEBIBYTES likewise; every call finds its data in no cache, since others with data of their own, so
 *                               many MiB together, have been called in between
 *   forget                      {}: frees what was made for these
 *
 * or {"error": "..."}. A subject is made by the first request that names it; "first_us" is how long its first call
 * took. "share" is the part of the slice in which this process had the core. The peers run on the ISA that ATTN_MAX_ISA
 * allows. */
#include "ceiling.h"
#include "shapes.h"
#include "subject.h"
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <map>
#include <sstream>

namespace bench {
namespace {

double now_us() {
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/* What reading the clock adds to a sample. */
double clock_us() {
    static const double once = [] {
        std::vector<double> differences(1001);
        for (double &difference : differences) {
            const double start = now_us();
            difference = now_us() - start;
        }
        std::nth_element(differences.begin(), differences.begin() + 500, differences.end());
        return differences[500];
    }();
    return once;
}

void call(const subject &subject) {
    attn_error error{};
    check(subject.call(&error), error);
}

double time_calls(const subject &subject, std::size_t calls) {
    const double start = now_us();
    for (std::size_t i = 0; i < calls; i++)
        call(subject);
    return std::max(0.0, now_us() - start - clock_us()) / static_cast<double>(calls);
}

double processor_us() {
    timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return 1e6 * static_cast<double>(now.tv_sec) + 1e-3 * static_cast<double>(now.tv_nsec);
}

struct slice {
    std::vector<double> samples;
    double share; /* of the time in which this process had the core */
};

/* Samples for so long: one at least, and no more than are of use. */
template <class Sample> slice sample_for(double seconds, Sample sample) {
    constexpr std::size_t most = 2000;
    const double start = now_us(), processor_start = processor_us();
    slice slice = {};
    do
        slice.samples.push_back(sample());
    while (slice.samples.size() < most && now_us() - start < seconds * 1e6);
    slice.share = (processor_us() - processor_start) / (now_us() - start);
    return slice;
}

/* Data in the caches as far as it fits. A sample is one call, or the mean of as many as take 5 us, of which the clock
 * is a small part. */
slice time_warm(const subject &subject, double seconds) {
    const double start = now_us(), warm_up = std::min(0.1 * seconds, 0.02) * 1e6;
    double shortest = time_calls(subject, 1);
    while (now_us() - start < warm_up)
        shortest = std::min(shortest, time_calls(subject, 1));
    const std::size_t calls = static_cast<std::size_t>(std::ceil(5 / std::max(shortest, 0.005)));
    return sample_for(seconds, [&] { return time_calls(subject, calls); });
}

class server {
  public:
    std::string answer(const std::string &line) {
        std::istringstream request(line);
        std::string verb, name;
        double seconds = 0, mebibytes = 0;
        request >> verb;
        if (verb == "list")
            return list();
        if (verb == "shapes")
            return shapes();
        if (verb == "about")
            return about();
        if (verb == "forget") {
            warm.clear();
            cold.clear();
            return "{}";
        }
        if (verb == "ceiling" && request >> name >> mebibytes)
            return ceiling(find(name), mebibytes);
        if (verb == "time" && request >> name >> seconds)
            return answer_time(find(name), seconds);
        if (verb == "cold" && request >> name >> seconds >> mebibytes)
            return answer_cold(find(name), seconds, mebibytes * 1048576);
        throw failure("not a request: " + line);
    }

  private:
    struct made {
        bench::subject subject;
        double first_us;
        std::size_t bytes; /* allocated for it */
    };
    struct instances {
        std::vector<made> all;
        std::size_t next = 0;
    };

    catalogue subjects = all_subjects();
    std::map<std::string, made> warm;
    std::map<std::string, instances> cold;

    const entry &find(const std::string &name) const {
        for (const entry &entry : subjects)
            if (entry.name() == name && attn_isa_supported(entry.isa))
                return entry;
        throw failure("no subject of this machine: " + name);
    }

    static made make(const entry &entry) {
        const std::size_t before = allocated_bytes();
        const subject subject = entry.make();
        const std::size_t bytes = allocated_bytes() - before;
        return {subject, time_calls(subject, 1), bytes};
    }

    const made &made_for(const entry &entry) {
        const std::string name = entry.name();
        auto found = warm.find(name);
        if (found == warm.end())
            found = warm.emplace(name, make(entry)).first;
        return found->second;
    }

    std::string answer_time(const entry &entry, double seconds) {
        const made &subject = made_for(entry);
        return timed(subject, time_warm(subject.subject, seconds));
    }

    std::string answer_cold(const entry &entry, double seconds, double total) {
        instances &rotation = cold[entry.name()];
        if (rotation.all.empty()) {
            rotation.all.push_back(make(entry));
            const double each = static_cast<double>(std::max<std::size_t>(rotation.all[0].bytes, 1));
            const std::size_t count = static_cast<std::size_t>(std::ceil(total / each));
            while (rotation.all.size() < count)
                rotation.all.push_back(make(entry));
        }
        return timed(rotation.all[0], sample_for(seconds, [&rotation] {
                         rotation.next = (rotation.next + 1) % rotation.all.size();
                         return time_calls(rotation.all[rotation.next].subject, 1);
                     }));
    }

    static std::string timed(const made &made, const slice &slice) {
        std::ostringstream text;
        text.precision(6);
        text << "{\"first_us\": " << made.first_us << ", \"share\": " << slice.share
             << ", \"flops\": " << made.subject.work.flops << ", \"bytes\": " << made.subject.work.bytes
             << ", \"elements\": " << made.subject.work.elements << ", \"samples_us\": [";
        for (std::size_t i = 0; i < slice.samples.size(); i++)
            text << (i ? ", " : "") << slice.samples[i];
        text << "]}";
        return text.str();
    }

    std::string ceiling(const entry &entry, double bytes) {
        const double gflops = flop_ceiling_now(entry.isa, made_for(entry).subject.work);
        std::ostringstream text;
        text << "{";
        if (gflops > 0)
            text << "\"gflops\": " << gflops << ", ";
        text << "\"gbytes_per_s\": " << read_ceiling_now(entry.isa, static_cast<std::size_t>(bytes)) << "}";
        return text.str();
    }

    std::string list() const {
        std::string text = "{\"names\": [";
        for (const entry &entry : subjects)
            if (attn_isa_supported(entry.isa) && !entry.inherited)
                text += (text.back() == '[' ? "\"" : ", \"") + entry.name() + "\"";
        return text + "]}";
    }

    static std::string shapes() {
        std::ostringstream text;
        const char *separator = "{";
        for (const attention_shape &shape : attention_shapes) {
            text << separator << "\"" << shape.name << "\": {\"batch\": " << shape.batch
                 << ", \"q_len\": " << shape.q_len << ", \"kv_len\": " << shape.kv_len << ", \"heads\": " << shape.heads
                 << ", \"kv_heads\": " << shape.key_heads() << ", \"head_size\": " << shape.head_size
                 << ", \"causal\": " << (shape.causal ? "true" : "false") << ", \"hidden\": " << shape.hidden
                 << ", \"valid\": " << shape.visible_keys() << "}";
            separator = ", ";
        }
        for (const gemm_shape &shape : gemm_shapes)
            text << separator << "\"" << shape.name << "\": {\"m\": " << shape.m << ", \"n\": " << shape.n
                 << ", \"k\": " << shape.k << "}";
        return text.str() + "}";
    }

    static std::string about() {
        std::ostringstream text;
        text << "{\"attn\": \"" << attn_version() << "\", \"isa\": \"" << attn_isa_name(attn_isa_chosen())
             << "\", \"last_level_bytes\": " << last_level_bytes();
#if defined(__clang__)
        text << ", \"compiler\": \"" << __VERSION__ << "\"";
#else
        text << ", \"compiler\": \"gcc " << __VERSION__ << "\"";
#endif
#if defined(HAVE_ONEDNN)
        text << ", \"onednn\": \"" << onednn_version() << "\"";
#endif
#if defined(HAVE_OPENBLAS)
        text << ", \"openblas\": \"" << openblas_version() << "\"";
#endif
        text << ", \"read\": {";
        const char *separator = "";
        for (const read_ceiling &level : read_ceilings()) {
            text << separator << "\"" << level.level << "\": " << level.gbytes_per_sec;
            separator = ", ";
        }
        text << "}}";
        return text.str();
    }
};

/* Messages come from the library and from oneDNN, and the names of requests are echoed. */
std::string quoted(const std::string &text) {
    std::string result = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\')
            result += '\\';
        result += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
    }
    return result + "\"";
}

} /* namespace */
} /* namespace bench */

int main() {
    bench::server server;
    for (std::string line; std::getline(std::cin, line);) {
        try {
            std::cout << server.answer(line) << std::endl;
        } catch (const std::exception &error) {
            std::cout << "{\"error\": " << bench::quoted(error.what()) << "}" << std::endl;
        }
    }
}
