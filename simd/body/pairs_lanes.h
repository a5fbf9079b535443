/* Tiles of pairs on Arm: A is multiplied by lane, PAIRS_AT_ONCE pairs of a row at a time. What came out as zero because
 * it was tiny is computed again, one register of C after the other.
 *
 * pairs.h gives, for each ISA:
 *
 *     PAIRS_AT_ONCE                       pairs in a register of A, 2 or 4
 *     PAIR_TEMPORARIES                    registers that the halves of B take beside the units
 *     pair_load_a, pair_load_one          elements of A: of PAIRS_AT_ONCE pairs, of one pair
 *     pair_load_element                   one element, as number 0
 *     pair_upper, pair_lower              what the halves of units of B are multiplied as
 *     pair_fma_second, pair_fma_first     by element number n of A
 *     pair_float                          an element of A as a float
 *     pair_any                            whether a lane is in the mask
 *     PAIRS_RESERVE                       keeps accumulators out of registers that A has to be in */
#ifndef ATTN_BODY_PAIRS_LANES_H
#define ATTN_BODY_PAIRS_LANES_H

#include "body/flush_arm.h"

_Static_assert(COLS == ATTN_LANES && !NARROWS, "every panel is as wide as a tile, C is f32");

/* ---- Where results are tiny ---- */

/* x, or a zero of its sign where it is denormal. */
INLINE vec exact_flush(vec x) {
    vec_int magnitude = vec_int_and(vec_bits(x), vec_int_set(INT32_MAX));
    vec zero = vec_from_bits(vec_int_and(vec_bits(x), vec_int_set(INT32_MIN)));
    return vec_select(vec_int_greater(vec_int_set(0x00800000), magnitude), zero, x);
}

/* Whether a lane is 2^-126: it may have come from below. */
INLINE bool exact_is_open(vec x) {
    return pair_any(vec_equal(vec_abs(x), vec_set(FLT_MIN)));
}

/* attn_fmaf_flushed in each lane. */
static __attribute__((noinline)) void ISA_FN(pairs_exact_lanes)(float a, const float *b, float *acc) {
    for (int i = 0; i < VEC_LANES; i++)
        acc[i] = attn_fmaf_flushed(a, b[i], acc[i]);
}

/* Of operands that are no denormal numbers. */
INLINE vec exact_multiply_add(float a, vec b, vec acc) {
    vec y = vec_fma(vec_set(a), b, acc);
    if (exact_is_open(y)) {
        float bs[VEC_LANES], cs[VEC_LANES];
        vec_store(bs, b);
        vec_store(cs, acc);
        ISA_FN(pairs_exact_lanes)(a, bs, cs);
        y = vec_load(cs);
    }
    return exact_flush(y);
}

/* x * y - 0 is x * y, its sign included. */
INLINE vec exact_start(const struct tile *t, size_t i, size_t j, vec_tail tail) {
    const float *c = t->c;
    if (t->scale)
        return exact_multiply_add(attn_flush(t->scale[i]), exact_flush(vec_load_tail(tail, c + i * t->c_stride + j)),
                                  vec_set(-0.0f));
    return exact_flush(t->bias ? vec_load_tail(tail, t->bias + j) : vec_zero());
}

enum part { WHOLE, FIRST, LAST };

/* A pair, or a half of one, of VECS registers at b. */
INLINE const PAIR_A *exact_pair(const PAIR_A *a, const float *b, vec *acc, enum part part) {
    float first = part == FIRST ? 0.0f : attn_flush(pair_float(*a++));
    float second = part == LAST ? 0.0f : attn_flush(pair_float(*a++));
    int32_t half = part == FIRST ? (int32_t)0xffff0000 : part == LAST ? 0xffff : -1;
    UNROLL for (int j = 0; j < VECS; j++) {
        vec_int unit = vec_int_and(vec_bits(vec_load(b + j * VEC_LANES)), vec_int_set(half));
        vec upper = vec_from_bits(vec_int_and(unit, vec_int_set((int32_t)0xffff0000)));
        vec lower = vec_from_bits(vec_int_shift_left(unit, 16));
        acc[j] = exact_multiply_add(second, exact_flush(upper), acc[j]);
        acc[j] = exact_multiply_add(first, exact_flush(lower), acc[j]);
    }
    return a;
}

/* Row i of a tile in one panel, of which there may be others. */
INLINE void exact_row(const struct tile *t, size_t i, size_t panel, bool is_alone) {
    const PAIR_A *a = t->a + i * t->a_stride;
    const float *b = t->b + panel * t->layout.panel;
    float *c = t->c;
    vec acc[VECS];
    UNROLL for (size_t j = 0; j < VECS; j++) acc[j] =
        exact_start(t, i, panel * COLS + j * VEC_LANES, is_alone ? t->tail[j] : VEC_WHOLE);
    for (size_t p = 0; p < t->first + t->pairs + t->last; p++, b += t->layout.step)
        a = exact_pair(a, b, acc, p < t->first ? FIRST : p < t->first + t->pairs ? WHOLE : LAST);
    UNROLL for (size_t j = 0; j < VECS; j++)
        vec_store_tail(is_alone ? t->tail[j] : VEC_WHOLE, c + i * t->c_stride + panel * COLS + j * VEC_LANES, acc[j]);
}

/* The whole tile, whose results are not stored yet. A bias is an operand only where there are pairs; but where there
 * are none nothing is tiny. */
static __attribute__((noinline)) void ISA_FN(pairs_exact)(const struct tile *t, size_t rows, size_t width) {
    uint64_t control = flush_pause();
    for (size_t i = 0; i < rows; i++)
        for (size_t panel = 0; panel < width / VECS; panel++)
            exact_row(t, i, panel, width == VECS);
    flush_resume(control);
}

/* ---- Where none is ---- */

/* Register j of the panels of B, n pairs on. */
INLINE const float *pair_at(const float *const b[4], const int n, const int j) {
    return b[j / VECS] + n * COLS + j % VECS * VEC_LANES;
}

/* Pair number n of those in av, whose elements there are `first` and `second`. As many registers of B at a time as
 * are left; where none is, each is read again for its other half: the barrier keeps the compiler from putting it on
 * the stack instead. */
#define PAIR(n, first, second)                                                                                         \
    UNROLL for (int g = 0; g < width; g += group) {                                                                    \
        vec unit[WIDE];                                                                                                \
        if (!reads_twice)                                                                                              \
            UNROLL for (int j = g; j < g + group; j++) unit[j] = vec_load(pair_at(b, n, j));                           \
        UNROLL for (int j = g; j < g + group; j++) {                                                                   \
            vec bv = pair_upper(reads_twice ? vec_load(pair_at(b, n, j)) : unit[j]);                                   \
            UNROLL for (int i = 0; i < rows; i++) pair_fma_second(acc[i * width + j], bv, av[i], second);              \
        }                                                                                                              \
        if (reads_twice)                                                                                               \
            __asm__ volatile("" : : : "memory");                                                                       \
        UNROLL for (int j = g; j < g + group; j++) {                                                                   \
            vec bv = pair_lower(reads_twice ? vec_load(pair_at(b, n, j)) : unit[j]);                                   \
            UNROLL for (int i = 0; i < rows; i++) pair_fma_first(acc[i * width + j], bv, av[i], first);                \
        }                                                                                                              \
    }

/* A half of a pair, by element 0 of A. The other half is +0 times +0, of which only -0 would know. */
#define HALF(half, fma)                                                                                                \
    UNROLL for (int j = 0; j < width; j++) {                                                                           \
        vec bv = half(vec_load(pair_at(b, 0, j)));                                                                     \
        UNROLL for (int i = 0; i < rows; i++) fma(acc[i * width + j], bv, av[i], 0);                                   \
    }
#define ADD_ZERO                                                                                                       \
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < width; j++) acc[i * width + j] =                  \
        vec_add(acc[i * width + j], vec_zero());

/* Registers of B's units, at most, and panels, of a tile. */
enum { WIDE = 4 * VECS, PANELS = 4, REGISTERS = 32 };

INLINE void tile_run(const struct tile *t, const int rows, const int width) {
    const int left = REGISTERS - rows * width - rows - PAIR_TEMPORARIES, panels = width / VECS;
    const bool reads_twice = left < 2;
    const int group = reads_twice ? width : left < VECS ? 2 : VECS;
    vec acc[REGISTERS - 4];
    const PAIR_A *a = t->a;
    const float *b[PANELS];
    size_t stride = t->a_stride, p = 0;
    tile_begin(t, acc, rows, width);
    PAIRS_RESERVE;
    UNROLL for (int q = 0; q < panels; q++) b[q] = t->b + (size_t)q * t->layout.panel;
    if (t->first) {
        vec av[ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = pair_load_element(a + (size_t)i * stride);
        HALF(pair_upper, pair_fma_second)
        ADD_ZERO
        UNROLL for (int q = 0; q < panels; q++) b[q] += COLS;
        a++;
    }
    for (; p + PAIRS_AT_ONCE <= t->pairs; p += PAIRS_AT_ONCE, a += 2 * PAIRS_AT_ONCE) {
        vec av[ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = pair_load_a(a + (size_t)i * stride);
        PAIR(0, 0, 1)
        PAIR(1, 2, 3)
#if PAIRS_AT_ONCE == 4
        PAIR(2, 4, 5)
        PAIR(3, 6, 7)
#endif
        UNROLL for (int q = 0; q < panels; q++) b[q] += PAIRS_AT_ONCE * COLS;
    }
    for (; p < t->pairs; p++, a += 2) {
        vec av[ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = pair_load_one(a + (size_t)i * stride);
        PAIR(0, 0, 1)
        UNROLL for (int q = 0; q < panels; q++) b[q] += COLS;
    }
    if (t->last) {
        vec av[ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = pair_load_element(a + (size_t)i * stride);
        ADD_ZERO
        HALF(pair_lower, pair_fma_first)
    }
    /* What is computed before the flags are read. */
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < width; j++) __asm__ volatile("" : "+w"(acc[i * width + j]));
    if (__builtin_expect(flush_failed(), 0)) {
        ISA_FN(pairs_exact)(t, (size_t)rows, (size_t)width);
        return;
    }
    tile_end(t, acc, rows, width);
}

#endif
