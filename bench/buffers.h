/* Memory and inputs of the benchmarks. */
#ifndef ATTN_BENCH_BUFFERS_H
#define ATTN_BENCH_BUFFERS_H

#include <attn/attn.h>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace bench {

/* Of all buffers so far, whether or not they still are: differences say how large something was that was made
 * between. */
inline std::size_t &allocated_bytes() {
    static std::size_t bytes = 0;
    return bytes;
}

/* Owned memory for `count` elements, aligned to ATTN_ALIGNMENT, not initialised. */
template <class T> class buffer {
  public:
    explicit buffer(std::size_t count) : memory(allocate(count * sizeof(T))) {}

    T *data() { return memory.get(); }
    const T *data() const { return memory.get(); }

  private:
    struct release {
        void operator()(T *pointer) const { std::free(pointer); }
    };

    static T *allocate(std::size_t bytes) {
        const std::size_t units = bytes / ATTN_ALIGNMENT + 1;
        void *pointer = std::aligned_alloc(ATTN_ALIGNMENT, units * ATTN_ALIGNMENT);
        if (!pointer)
            throw std::bad_alloc();
        allocated_bytes() += bytes;
        return static_cast<T *>(pointer);
    }

    std::unique_ptr<T, release> memory;
};

/* The same pseudo-random numbers on every machine and in every run: SplitMix64. */
class random_bits {
  public:
    explicit random_bits(std::uint64_t seed) : state(seed) {}

    std::uint64_t next() {
        state += 0x9e3779b97f4a7c15u;
        std::uint64_t z = state;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }

  private:
    std::uint64_t state;
};

/* `count` numbers of mean 0 and standard deviation `deviation`, near to normal: each is the sum of four uniform ones,
 * which is quick enough to fill a layer of 67 million weights anew for every trial run. */
inline buffer<float> random_normal(std::size_t count, std::uint64_t seed, double deviation = 1) {
    buffer<float> numbers(count);
    random_bits bits(seed);
    /* A uniform number of 16 bits has the variance 2^32 / 12 (less 1 / 12, which no float sees). */
    const float unit = static_cast<float>(deviation * std::sqrt(3.0) / 65536);
    for (std::size_t i = 0; i < count; i++) {
        const std::uint64_t b = bits.next();
        const std::uint64_t sum = (b & 0xffff) + (b >> 16 & 0xffff) + (b >> 32 & 0xffff) + (b >> 48);
        numbers.data()[i] = (static_cast<float>(sum) - 2 * 65535.0f) * unit;
    }
    return numbers;
}

} /* namespace bench */

#endif
