/* Thresholds that were measured, not derived: in bytes and rows. A wrong value costs time, never bits. */
#ifndef ATTN_TUNING_H
#define ATTN_TUNING_H

#include <attn/attn.h>
#include <stddef.h>

struct attn_tuning {
    /* Of so many bytes of keys and values the last-level cache, which other programs share, does not hold all, or holds
     * little. */
    size_t partly_distant_bytes, distant_bytes;
    /* For up to so many GEMM tiles of query rows it takes less time to read keys and values in place, once per tile,
     * than to pack them. */
    size_t in_place_tiles;
    /* Where rows of values follow each other, fill registers, and have at most so many elements, only keys are packed. */
    size_t in_place_value_size;
};

/* Those for the kernels of an ISA. */
const struct attn_tuning *attn_tuning_for(attn_isa isa);

#endif
