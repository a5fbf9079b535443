/* What this core can do at most. */
#ifndef ATTN_BENCH_CEILING_H
#define ATTN_BENCH_CEILING_H

#include "subject.h"
#include <attn/attn.h>
#include <cstddef>
#include <vector>

namespace bench {

/* What multiplies: fused multiply-adds of floats; the instruction for pairs of BF16, or the same multiply-adds where
 * there is none; the dot product of integers of 8 bits, or the three instructions that take its place. */
enum class unit { f32, bf16, int8 };
constexpr unit all_units[] = {unit::f32, unit::bf16, unit::int8};
const char *unit_name(unit unit);

/* ---- Measured once in this process, by the first call of any of these ---- */

/* GFLOP/s of multiply-adds, two FLOPs each, on vectors in registers. For scalar it is what calls of fmaf() reach,
 * since that is what the reference consists of. 0 where this machine lacks the ISA or nothing here measures it. */
double unit_ceiling(attn_isa isa, unit unit);

/* Of work that several units share, one after the other. 0 where one of them is not known. */
double flop_ceiling(attn_isa isa, const work &work);

/* Reading one buffer again and again with the widest loads of this machine. */
struct read_ceiling {
    const char *level; /* of the memory hierarchy: "L1", "L2", "L3", "memory" */
    std::size_t bytes; /* of the buffer */
    double gbytes_per_sec;
};
const std::vector<read_ceiling> &read_ceilings();

/* ---- Measured anew by every call, in some ten milliseconds, because clocks drift ---- */

double flop_ceiling_now(attn_isa isa, const work &work);

/* GB/s of reading a buffer of this size, page faults and first pass aside, with that ISA's loads. */
double read_ceiling_now(attn_isa isa, std::size_t bytes);

/* Bytes of the last level that sysconf() knows. */
std::size_t last_level_bytes();

} /* namespace bench */

#endif
