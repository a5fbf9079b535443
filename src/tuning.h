/* Thresholds that were measured, not derived: in bytes, rows and nanoseconds. A wrong value costs time, never bits. */
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
    /* Where rows of values follow each other, fill registers, and have at most so many elements, only keys are
     * packed. */
    size_t in_place_value_size;

    /* Work of fewer nanoseconds is done sooner by one thread than after waking others. What work is estimated to
     * take in one thread: a multiply-add of a product, a float that is computed or converted, a byte that is copied. */
    double wake_ns, multiply_add_ns, float_ns, byte_ns;
    /* Attention is shared out from so many times wake_ns on: its shares are less equal than a product's, so that the
     * wait for the last thread is longer. Where tasks share packed keys and values, these come from the cache of the
     * core that has packed them. */
    double uneven, uneven_shared;
    /* If the whole call takes no more than this, threads take whole heads where each gets the same number: a late
     * thread costs little. */
    double even_ns;
    /* Transposes of up to so many bytes whose rows alias in L1 go few rows at a time. More come from memory, which
     * is faster at long runs. */
    double aliased_bytes;
};

/* Those for the kernels of an ISA. */
const struct attn_tuning *attn_tuning_for(attn_isa isa);

#endif
