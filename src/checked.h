/* Size arithmetic that notices when it wraps, and an arena: one piece of memory, taken in aligned parts. */
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

/* A piece of memory whose parts are taken one after the other, each aligned to ATTN_ALIGNMENT if `base` is. The
 * function that takes an object's parts is called twice: with a NULL base it measures, and `used` is then the size that
 * the object needs; with the memory's address it yields the parts. Start from { .base = ... }. Once a size overflows,
 * `overflow` stays set and every part is NULL. */
struct attn_arena {
    char *base;
    size_t used;
    bool overflow;
};

static inline void *attn_arena_take(struct attn_arena *arena, size_t count, size_t element_size) {
    size_t begin = arena->used, bytes, end;
    /* No object is larger than PTRDIFF_MAX: differences of pointers into it would wrap. */
    if (arena->overflow || !attn_mul(count, element_size, &bytes) || !attn_round_up(bytes, ATTN_ALIGNMENT, &bytes) ||
        !attn_add(begin, bytes, &end) || end > PTRDIFF_MAX) {
        arena->overflow = true;
        return NULL;
    }
    arena->used = end;
    return arena->base ? arena->base + begin : NULL;
}

#endif
