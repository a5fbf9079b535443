/* Size arithmetic that notices when it wraps, and the carving of one block of memory into aligned parts. */
#ifndef ATTN_CHECKED_H
#define ATTN_CHECKED_H

#include <attn/attn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arithmetic.h"

/* *out = a * b, a + b. False where that does not fit in size_t; *out is then meaningless. */
static inline bool attn_mul(size_t a, size_t b, size_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool attn_add(size_t a, size_t b, size_t *out) {
    return !__builtin_add_overflow(a, b, out);
}

static inline size_t attn_min(size_t a, size_t b) {
    return a < b ? a : b;
}
static inline size_t attn_max(size_t a, size_t b) {
    return a > b ? a : b;
}

/* *out = the least multiple of `unit` (at least 1) that is not below a. False where that does not fit. */
static inline bool attn_round_up(size_t a, size_t unit, size_t *out) {
    size_t rest = a % unit;
    *out = a;
    return rest == 0 || attn_add(a, unit - rest, out);
}

/* Takes parts off a block of memory, each aligned to ATTN_ALIGNMENT, provided that `base` is. One function that
 * takes the parts in order serves twice: with a NULL base it measures (`used` is then the size of the block), with
 * the block's address it yields the parts. Start from { .base = ... }. Once `overflow` is set it stays set, and
 * every part is NULL. */
struct attn_carve {
    char *base;
    size_t used;
    bool overflow;
};

static inline void *attn_carve_take(struct attn_carve *carve, size_t count, size_t element_size) {
    size_t begin = carve->used, bytes, end;
    /* Blocks above PTRDIFF_MAX cannot exist: pointer differences in them would wrap. */
    if (carve->overflow || !attn_mul(count, element_size, &bytes) || !attn_round_up(bytes, ATTN_ALIGNMENT, &bytes) ||
        !attn_add(begin, bytes, &end) || end > PTRDIFF_MAX) {
        carve->overflow = true;
        return NULL;
    }
    carve->used = end;
    return carve->base ? carve->base + begin : NULL;
}

#endif
