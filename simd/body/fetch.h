/* What fetches ahead of products. */
#ifndef ATTN_BODY_FETCH_H
#define ATTN_BODY_FETCH_H

#include "vec.h"

enum { LINE = 16 }; /* floats of a cache line */

/* The first lines of the pages of n floats that are needed soon: the processor's own prefetching ends with each. */
INLINE void fetch_pages(const float *b, size_t n) {
    enum { PAGE = 1024 };
    for (size_t i = 0; i < n; i += PAGE)
        vec_prefetch(b, i);
    __asm__ volatile(""); /* or gcc takes a function that only fetches for one that does nothing */
}

#endif
