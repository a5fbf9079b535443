/* Fetching short segments of packed keys and values, pages mostly, before they are needed. */
#ifndef ATTN_OPS_FETCH_H
#define ATTN_OPS_FETCH_H

#include <stddef.h>

/* Segments of up to this many keys end before the processor's own prefetching gets far. */
enum { ATTN_SHORT_SEGMENT = 64 };

/* How far ahead: one row only waits for memory, so that it needs what comes after the next two. */
static inline size_t attn_fetch_distance(size_t rows, size_t n) {
    return rows > 1 ? n : 3 * n;
}

/* For one row the beginning of each 4 KiB, where the processor's own prefetchers stop: each begins a stream of theirs,
 * and several run at once. More rows have time for every line. */
static inline void attn_fetch(size_t rows, const float *x, size_t floats) {
    enum { LINE = 16, REACH = 1024, HEAD = 64 }; /* floats */
    size_t taken = rows > 1 ? REACH : HEAD;
    for (size_t i = 0; i < floats; i += REACH)
        for (size_t j = 0; j < taken && i + j < floats; j += LINE)
            __builtin_prefetch(x + i + j);
}

#endif
