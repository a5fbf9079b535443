/* Registers as quads of four floats, for attention over few keys. SVE of 256 bits: two quads a register. */
#ifndef ATTN_SVE256_QUAD_H
#define ATTN_SVE256_QUAD_H

#include <math.h>

#include "vec.h"

#include "body/flush_arm.h"

enum { ROWS = 4, KEYS = VEC_LANES / ROWS };

/* Registers: of keys in a tile, and while MANY_STRIPS or more share it; of value columns that one strip or two take
 * at a time. As AVX2; nobody has measured others. */
enum { KEY_VECS = 4, KEY_VECS_OF_MANY = 2, MANY_STRIPS = 3, VALUE_VECS = 3, PAIR_VECS = 1 };

/* Keys stay in registers while their four elements are used; what ends in part of a register is loaded by a
 * predicate. */
enum { KEYS_STAY = 1, TAILS_OVERLAP = 0 };

/* Class BF16 takes the general path: its products may have to be computed twice (flush_arm.h). */
enum { HAS_PAIRS = 0 };
#define quad_swap(x) (x)

/* Four floats in each quad. */
INLINE vec quad_broadcast(const float *p) {
    return vec_load_quads(p);
}

/* Quad i holds four floats from p[i] + d on. */
INLINE vec quad_join(const float *const p[KEYS], size_t d) {
    return vec_join(p[0] + d, p[1] + d);
}

/* The same of n < 4 floats, +0 beyond. */
INLINE vec quad_join_first(const float *const p[KEYS], size_t d, size_t n) {
    return vec_select(QUAD, vec_load_first(n, p[0] + d), vec_swap_quads(vec_load_first(n, p[1] + d)));
}

/* Quad i holds four elements of 16 bits from p[i] + d on. */
INLINE vec_u16 quad_join_u16(const uint16_t *const p[KEYS], size_t d) {
    svuint32_t high = svld1uh_u32(QUAD, p[1] + d);
    return svsel_u32(QUAD, svld1uh_u32(QUAD, p[0] + d), svext_u32(high, high, 4));
}

/* The quads from n on of the register at p become -inf. */
INLINE void quad_hide_absent(float *p, size_t n) {
    svst1_f32(QUAD, p + n * ROWS, vec_set(-INFINITY));
}

/* Numbers of keys, one for each row, in each quad. */
typedef vec_int quad_count;

/* x, and -inf for the rows that do not see the key of their quad, which for quad i is key `key` + i. */
INLINE vec quad_hide(vec x, size_t key, quad_count hi) {
    vec_int keys = vec_int_shift_right(svindex_s32(0, 1), 2);
    return vec_select(vec_int_greater(vec_int_sub(hi, vec_int_set((int)key)), keys), x, vec_set(-INFINITY));
}

/* Of n <= ROWS rows; 0 for the others. */
INLINE quad_count quad_visible(const uint32_t *hi, size_t n) {
    svint32_t x = svreinterpret_s32_u32(svld1_u32(vec_first(n), hi));
    return svsel_s32(QUAD, x, svext_s32(x, x, 4));
}

/* The largest of each row, in every quad. */
INLINE vec quad_max(vec x) {
    return vec_max(x, vec_swap_quads(x));
}

/* The last step of the tree of attn_lane_sum, from two lanes on: lane i is quad i of each row. */
INLINE vec quad_sum(vec x) {
    return vec_add(x, vec_swap_quads(x));
}

/* 1 / x, or 0 where x is 0, of the first quad. */
INLINE void quad_inverse(vec x, float inverse[ROWS]) {
    svbool_t some = svcmpne_n_f32(QUAD, x, 0.0f);
    svst1_f32(QUAD, inverse, svdivr_n_f32_z(some, x, 1.0f));
}

/* acc += x * lane i, a literal, of each quad of k. */
#define quad_fma(acc, x, k, i) vec_fma_lane(acc, x, k, i)

/* acc += x * p[i], i a literal below 4; `row` is quad_row(p, i). */
#define quad_row(p, i)               vec_load_quads(p)
#define quad_fma_row(acc, x, row, i) vec_fma_lane(acc, x, row, i)

#endif
