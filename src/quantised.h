/* Rows of A of the classes of integers, as pack_a writes and `run` reads them.
 *
 * A row x[k] has a scale and integers q[k] of -127 to 127, so that q * scale is nearly x:
 *     largest = the largest abs(x)
 *     not finite where some x is not:   scale = NaN, q = 0: every output of the row is NaN
 *     below ATTN_QUANTISE_LEAST:        scale = 0, q = 0
 *     else: inverse = 127 / largest; q = x * inverse, rounded to the nearest integer, the even one of two;
 *           scale = largest / 127
 * Each operation is rounded to a float. abs(q) is at most 127: x * inverse is at most 127 (1 + 2^-22).
 *
 * In memory: q, of k_padded elements, those from k on 0 as far as the next multiple of 4; the scale; and for each block
 * of elements the sum of its q, an int32. */
#ifndef ATTN_QUANTISED_H
#define ATTN_QUANTISED_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "checked.h"

/* Below, 127 / largest would become infinite or the scale denormal. */
#define ATTN_QUANTISE_LEAST 0x1p-119f

/* Elements that kernels write at a time. */
enum { ATTN_QUANTISED_UNIT = 16 };

/* Where the scale begins. */
static inline size_t attn_quantised_padded(size_t k) {
    return (k + ATTN_QUANTISED_UNIT - 1) / ATTN_QUANTISED_UNIT * ATTN_QUANTISED_UNIT;
}

/* Blocks of a row, the last one perhaps shorter; one at least. */
static inline size_t attn_quantised_blocks(size_t k, size_t block) {
    return k / block + (k % block != 0 || k == 0);
}

/* *bytes = those of a row. False where that does not fit. */
static inline bool attn_quantised_bytes(size_t k, size_t block, size_t *bytes) {
    size_t tail = 0;
    return attn_round_up(k, ATTN_QUANTISED_UNIT, bytes) &&
           attn_mul(attn_quantised_blocks(k, block) + 1, sizeof(float), &tail) && attn_add(*bytes, tail, bytes);
}

/* What stands behind the elements. */
static inline float attn_quantised_scale(const void *row, size_t k) {
    float scale;
    memcpy(&scale, (const char *)row + attn_quantised_padded(k), sizeof scale);
    return scale;
}

static inline int32_t attn_quantised_sum(const void *row, size_t k, size_t block) {
    int32_t sum;
    memcpy(&sum, (const char *)row + attn_quantised_padded(k) + (block + 1) * sizeof sum, sizeof sum);
    return sum;
}

/* Writes both. */
static inline void attn_quantised_set_scale(void *row, size_t k, float scale) {
    memcpy((char *)row + attn_quantised_padded(k), &scale, sizeof scale);
}

static inline void attn_quantised_set_sum(void *row, size_t k, size_t block, int32_t sum) {
    memcpy((char *)row + attn_quantised_padded(k) + (block + 1) * sizeof sum, &sum, sizeof sum);
}

#endif
