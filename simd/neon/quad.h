/* Registers as quads of four floats, for attention over few keys. NEON: a register is one quad. */
#ifndef ATTN_NEON_QUAD_H
#define ATTN_NEON_QUAD_H

#include <math.h>

#include "vec.h"

#include "body/flush_arm.h"

enum { ROWS = 4, KEYS = VEC_LANES / ROWS };

/* Registers: of keys in a tile, and while MANY_STRIPS or more share it; of value columns that one strip or two take
 * at a time. Four keys over four strips make sixteen chains; one strip takes eight keys. */
enum { KEY_VECS = 8, KEY_VECS_OF_MANY = 4, MANY_STRIPS = 2, VALUE_VECS = 6, PAIR_VECS = 2 };

/* Keys stay in registers while their four elements are used. Part of a register takes several loads or stores. */
enum { KEYS_STAY = 1, TAILS_OVERLAP = 1 };

/* Class BF16 takes the general path: its products may have to be computed twice (flush_arm.h). */
enum { HAS_PAIRS = 0 };
#define quad_swap(x) (x)

/* Four floats in each quad. */
INLINE vec quad_broadcast(const float *p) {
    return vec_load(p);
}

/* Quad i holds four floats from p[i] + d on. */
INLINE vec quad_join(const float *const p[KEYS], size_t d) {
    return vec_load(p[0] + d);
}

/* The same of n < 4 floats, +0 beyond. */
INLINE vec quad_join_first(const float *const p[KEYS], size_t d, size_t n) {
    return vec_load_first(n, p[0] + d);
}

/* Quad i holds four elements of 16 bits from p[i] + d on. */
INLINE vec_u16 quad_join_u16(const uint16_t *const p[KEYS], size_t d) {
    return vec_load_u16(p[0] + d);
}

/* Numbers of keys, one for each row, in each quad. */
typedef uint32x4_t quad_count;

/* x, and -inf for the rows that do not see key `key`. */
INLINE vec quad_hide(vec x, size_t key, quad_count hi) {
    return vec_select(vcgtq_u32(hi, vdupq_n_u32((uint32_t)key)), x, vec_set(-INFINITY));
}

/* Of n <= ROWS rows; 0 for the others. */
INLINE quad_count quad_visible(const uint32_t *hi, size_t n) {
    if (n == ROWS)
        return vld1q_u32(hi);
    quad_count counts = vld1q_lane_u32(hi, vdupq_n_u32(0), 0);
    if (n > 1)
        counts = vld1q_lane_u32(hi + 1, counts, 1);
    if (n > 2)
        counts = vld1q_lane_u32(hi + 2, counts, 2);
    return counts;
}

/* No quad of a register is absent. */
INLINE void quad_hide_absent(float *p, size_t n) {
    (void)p, (void)n;
}

/* A register is one quad: there is nothing to reduce. */
INLINE vec quad_max(vec x) {
    return x;
}
INLINE vec quad_sum(vec x) {
    return x;
}

/* 1 / x, or 0 where x is 0. */
INLINE void quad_inverse(vec x, float inverse[ROWS]) {
    vec one = vec_set(1.0f);
    vec_mask none = vec_equal(x, vec_zero());
    vec_store(inverse, vec_select(none, vec_zero(), vdivq_f32(one, vec_select(none, one, x))));
}

/* acc += x * lane i, a literal, of each quad of k. */
#define quad_fma(acc, x, k, i) vec_fma_lane(acc, x, k, i)

/* acc += x * p[i], i a literal below 4; `row` is quad_row(p, i). */
#define quad_row(p, i)               vec_load(p)
#define quad_fma_row(acc, x, row, i) vec_fma_lane(acc, x, row, i)

#endif
