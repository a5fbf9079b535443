/* Registers as quads of four floats, for attention over few keys. AVX-512: four quads a register. */
#ifndef ATTN_AVX512_QUAD_H
#define ATTN_AVX512_QUAD_H

#include <math.h>

#include "vec.h"

#include "body/flush_x86.h"

enum { ROWS = 4, KEYS = VEC_LANES / ROWS };

/* Registers: of keys in a tile, and while MANY_STRIPS or more share it; of value columns that one strip or two take
 * at a time. Four key registers over up to four strips make up to sixteen chains. */
enum { KEY_VECS = 4, KEY_VECS_OF_MANY = 4, MANY_STRIPS = 5, VALUE_VECS = 4, PAIR_VECS = 2 };

/* Keys stay in registers while their four elements are used; part of a register is loaded under a mask. */
enum { KEYS_STAY = 1, TAILS_OVERLAP = 0 };

/* Class BF16 is computed here too. */
enum { HAS_PAIRS = 1 };

/* Four floats in each quad. */
INLINE vec quad_broadcast(const float *p) {
    return _mm512_broadcast_f32x4(_mm_loadu_ps(p));
}

/* Quad i holds four floats from p[i] + d on. */
INLINE vec quad_join(const float *const p[KEYS], size_t d) {
    vec x = _mm512_castps128_ps512(_mm_loadu_ps(p[0] + d));
    x = _mm512_insertf32x4(x, _mm_loadu_ps(p[1] + d), 1);
    x = _mm512_insertf32x4(x, _mm_loadu_ps(p[2] + d), 2);
    return _mm512_insertf32x4(x, _mm_loadu_ps(p[3] + d), 3);
}

/* The same of n < 4 floats, +0 beyond. */
INLINE vec quad_join_first(const float *const p[KEYS], size_t d, size_t n) {
    __mmask8 mask = (__mmask8)vec_lanes(0, n);
    vec x = _mm512_castps128_ps512(_mm_maskz_loadu_ps(mask, p[0] + d));
    x = _mm512_insertf32x4(x, _mm_maskz_loadu_ps(mask, p[1] + d), 1);
    x = _mm512_insertf32x4(x, _mm_maskz_loadu_ps(mask, p[2] + d), 2);
    return _mm512_insertf32x4(x, _mm_maskz_loadu_ps(mask, p[3] + d), 3);
}

/* Quad i holds four elements of 16 bits from p[i] + d on. */
INLINE vec_u16 quad_join_u16(const uint16_t *const p[KEYS], size_t d) {
    __m128i low = _mm_unpacklo_epi64(_mm_loadu_si64(p[0] + d), _mm_loadu_si64(p[1] + d));
    __m128i high = _mm_unpacklo_epi64(_mm_loadu_si64(p[2] + d), _mm_loadu_si64(p[3] + d));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

/* The quads from n on of the register at p become -inf. */
INLINE void quad_hide_absent(float *p, size_t n) {
    vec_store_mask(vec_lanes(n * ROWS, VEC_LANES), p, vec_set(-INFINITY));
}

/* Quads 2 i and 2 i + 1 change places. */
INLINE vec quad_swap(vec x) {
    return _mm512_shuffle_f32x4(x, x, 0xb1);
}

/* Numbers of keys, one for each row, in each quad. */
typedef __m512i quad_count;

/* x, and -inf for the rows that do not see the key of their quad, which for quad i is key `key` + i. */
INLINE vec quad_hide(vec x, size_t key, quad_count hi) {
    __m512i keys = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    quad_count left = _mm512_sub_epi32(hi, _mm512_set1_epi32((int)key));
    return vec_select(_mm512_cmplt_epi32_mask(keys, left), x, vec_set(-INFINITY));
}

/* Of n <= ROWS rows; 0 for the others. */
INLINE quad_count quad_visible(const uint32_t *hi, size_t n) {
    return _mm512_broadcast_i32x4(_mm_maskz_loadu_epi32((__mmask8)vec_lanes(0, n), hi));
}

/* The largest of each row, in every quad. */
INLINE vec quad_max(vec x) {
    x = vec_max(x, _mm512_shuffle_f32x4(x, x, 0x4e));
    return vec_max(x, _mm512_shuffle_f32x4(x, x, 0xb1));
}

/* The last steps of the tree of attn_lane_sum, from four lanes on: lane i is quad i of each row. */
INLINE vec quad_sum(vec x) {
    x = vec_add(x, _mm512_shuffle_f32x4(x, x, 0x4e));
    return vec_add(x, _mm512_shuffle_f32x4(x, x, 0xb1));
}

/* 1 / x, or 0 where x is 0, of the first quad. */
INLINE void quad_inverse(vec x, float inverse[ROWS]) {
    __m128 low = _mm512_castps512_ps128(x);
    __mmask8 any = _mm_cmp_ps_mask(low, _mm_setzero_ps(), _CMP_NEQ_UQ);
    _mm_storeu_ps(inverse, _mm_maskz_div_ps(any, _mm_set1_ps(1.0f), low));
}

/* acc += x * lane i, a literal, of each quad of k. */
#define quad_fma(acc, x, k, i) (acc = vec_fma(x, _mm512_permute_ps(k, (i)*0x55), acc))

/* acc += x * p[i], i a literal below 4; `row` is quad_row(p, i). */
#define quad_row(p, i)               vec_set((p)[i])
#define quad_fma_row(acc, x, row, i) (acc = vec_fma(row, x, acc))

#endif
