/* What this core can do at most. */
#ifndef ATTN_BENCH_CEILING_H
#define ATTN_BENCH_CEILING_H

#include <attn/attn.h>
#include <cstddef>
#include <vector>

namespace bench {

/* ---- Measured once in this process, by the first call of any of these ---- */

/* GFLOP/s of fused multiply-adds, two FLOPs each, on vectors in registers. For scalar it is what calls of fmaf() reach,
 * since that is what the reference consists of. 0 where this machine lacks the ISA or nothing here measures it. */
double fma_ceiling(attn_isa isa);

/* Reading one buffer again and again with the widest loads of this machine. */
struct read_ceiling {
    const char *level; /* of the memory hierarchy: "L1", "L2", "L3", "memory" */
    std::size_t bytes; /* of the buffer */
    double gbytes_per_sec;
};
const std::vector<read_ceiling> &read_ceilings();

/* ---- Measured anew by every call, in some ten milliseconds, because clocks drift ---- */

double fma_ceiling_now(attn_isa isa);

/* GB/s of reading a buffer of this size, page faults and first pass aside, with that ISA's loads. */
double read_ceiling_now(attn_isa isa, std::size_t bytes);

/* Bytes of the last level that sysconf() knows. */
std::size_t last_level_bytes();

} /* namespace bench */

#endif
