/* Registers as quads of four floats, for attention over few keys. AVX2: two quads a register. */
#ifndef ATTN_AVX2_QUAD_H
#define ATTN_AVX2_QUAD_H

#include <math.h>

#include "vec.h"

#include "body/flush_x86.h"

enum { ROWS = 4, KEYS = VEC_LANES / ROWS };

/* Registers: of keys in a tile, and while MANY_STRIPS or more share it; of value columns that one strip or two take
 * at a time. Two key registers over four strips make eight chains. */
enum { KEY_VECS = 4, KEY_VECS_OF_MANY = 2, MANY_STRIPS = 3, VALUE_VECS = 3, PAIR_VECS = 1 };

/* Keys are read again for each of their four elements: there are too few registers to keep them. Part of a register takes
 * several loads or stores. */
enum { KEYS_STAY = 0, TAILS_OVERLAP = 1 };

/* Class BF16 is computed here too. */
enum { HAS_PAIRS = 1 };

/* Four floats in each quad. */
INLINE vec quad_broadcast(const float *p) {
    return _mm256_broadcast_ps((const __m128 *)p);
}

/* Quad i holds four floats from p[i] + d on. */
INLINE vec quad_join(const float *const p[KEYS], size_t d) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p[0] + d)), _mm_loadu_ps(p[1] + d), 1);
}

/* The same of n < 4 floats, +0 beyond. */
INLINE vec quad_join_first(const float *const p[KEYS], size_t d, size_t n) {
    return _mm256_permute2f128_ps(vec_load_first(n, p[0] + d), vec_load_first(n, p[1] + d), 0x20);
}

/* Quad i holds four elements of 16 bits from p[i] + d on. */
INLINE vec_u16 quad_join_u16(const uint16_t *const p[KEYS], size_t d) {
    return _mm_unpacklo_epi64(_mm_loadu_si64(p[0] + d), _mm_loadu_si64(p[1] + d));
}

/* The quads from n on of the register at p become -inf. */
INLINE void quad_hide_absent(float *p, size_t n) {
    _mm_storeu_ps(p + n * ROWS, _mm_set1_ps(-INFINITY));
}

/* Quads 2 i and 2 i + 1 change places. */
INLINE vec quad_swap(vec x) {
    return _mm256_permute2f128_ps(x, x, 0x01);
}

/* Numbers of keys, one for each row, in each quad. */
typedef __m256i quad_count;

/* x, and -inf for the rows that do not see the key of their quad, which for quad i is key `key` + i. */
INLINE vec quad_hide(vec x, size_t key, quad_count hi) {
    __m256i keys = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    quad_count left = _mm256_sub_epi32(hi, _mm256_set1_epi32((int)key));
    return vec_select(_mm256_cmpgt_epi32(left, keys), x, vec_set(-INFINITY));
}

/* Of n <= ROWS rows; 0 for the others. */
INLINE quad_count quad_visible(const uint32_t *hi, size_t n) {
    if (n == ROWS)
        return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)hi));
    uint32_t counts[ROWS] = {0};
    UNROLL for (size_t r = 0; r < ROWS; r++) if (r < n) counts[r] = hi[r];
    return _mm256_broadcastsi128_si256(_mm_setr_epi32((int)counts[0], (int)counts[1], (int)counts[2], (int)counts[3]));
}

/* The largest of each row, in every quad. */
INLINE vec quad_max(vec x) {
    return vec_max(x, _mm256_permute2f128_ps(x, x, 0x01));
}

/* The last step of the tree of attn_lane_sum, from two lanes on: lane i is quad i of each row. */
INLINE vec quad_sum(vec x) {
    return vec_add(x, _mm256_permute2f128_ps(x, x, 0x01));
}

/* 1 / x, or 0 where x is 0, of the first quad. */
INLINE void quad_inverse(vec x, float inverse[ROWS]) {
    __m128 low = _mm256_castps256_ps128(x), one = _mm_set1_ps(1.0f), none = _mm_cmpeq_ps(low, _mm_setzero_ps());
    _mm_storeu_ps(inverse, _mm_andnot_ps(none, _mm_div_ps(one, _mm_blendv_ps(low, one, none))));
}

/* acc += x * lane i, a literal, of each quad of k. */
#define quad_fma(acc, x, k, i) (acc = vec_fma(x, _mm256_permute_ps(k, (i)*0x55), acc))

/* acc += x * p[i], i a literal below 4; `row` is quad_row(p, i). */
#define quad_row(p, i)               vec_set((p)[i])
#define quad_fma_row(acc, x, row, i) (acc = vec_fma(row, x, acc))

#endif
