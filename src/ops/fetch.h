/* Prefetching packed keys and values that lie in short segments, such as pages. */
#ifndef ATTN_OPS_FETCH_H
#define ATTN_OPS_FETCH_H

#include <stddef.h>

/* Segments of up to this many keys end before the hardware prefetchers get far. */
enum { ATTN_SHORT_SEGMENT = 64 };

/* The prefetch distance in keys, where a product takes n. A single row computes little and waits for memory: it
 * prefetches three products ahead. */
static inline size_t attn_fetch_distance(size_t rows, size_t n) {
    return rows > 1 ? n : 3 * n;
}

/* One row prefetches the first lines of each 4 KiB: the hardware prefetchers stop at such borders, and each of these
 * lines starts them again, several streams at once. More rows have time to prefetch every line. */
static inline void attn_fetch(size_t rows, const void *x, size_t bytes) {
    enum { LINE = 64, REACH = 4096, HEAD = 512 };
    size_t taken = rows > 1 ? REACH : HEAD;
    for (size_t i = 0; i < bytes; i += REACH)
        for (size_t j = 0; j < taken && i + j < bytes; j += LINE)
            __builtin_prefetch((const char *)x + i + j);
}

#endif
