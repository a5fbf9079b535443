/* AVX2 and FMA: 8 floats a register, 16 registers. Tails go in pieces of four, two and one float: masked stores take
 * tens of operations on AMD's Zen 1 to 3, and masked loads read, and fault on, the absent lanes under emulation
 * (QEMU 7.2). */
#ifndef ATTN_AVX2_VEC_H
#define ATTN_AVX2_VEC_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define VEC_LANES 8
#define SUM_VECS  (16 / VEC_LANES) /* registers that hold the 16 lanes of a sum */
#define INLINE    static inline __attribute__((always_inline))

/* Names carry the ISA, unless one that builds on this has its own, so that profilers and debuggers tell the kernels
 * apart: ISA_FN(f) is avx2_f, ISA_OBJECT(f) attn_avx2_f. */
#ifndef ISA_NAME
#define ISA_NAME         "avx2"
#define ISA_FN(name)     avx2_##name
#define ISA_OBJECT(name) attn_avx2_##name
#endif

/* Every loop so marked vanishes: its arrays are registers. Clang takes GCC's pragma as a partial unrolling. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* Of a loop that leaves no register unused: x is computed before what follows is begun, or clang 19 keeps some on
 * the stack. */
#ifdef __clang__
#define vec_settle(x) __asm__ volatile("" : "+x"(x) : : "memory")
#else
#define vec_settle(x) ((void)0)
#endif

typedef __m256 vec;
typedef __m256i vec_mask; /* all bits of each lane that exists */

INLINE vec vec_zero(void) {
    return _mm256_setzero_ps();
}
INLINE vec vec_set(float x) {
    return _mm256_set1_ps(x);
}
INLINE vec vec_load(const float *p) {
    return _mm256_loadu_ps(p);
}
INLINE void vec_store(float *p, vec x) {
    _mm256_storeu_ps(p, x);
}
/* Fetches the line of p[offset], which need not exist. */
INLINE void vec_prefetch(const float *p, size_t offset) {
    _mm_prefetch((const char *)(p + offset), _MM_HINT_T0);
}
/* Fetches the line of p, which need not exist, no nearer than L2. */
INLINE void vec_prefetch_l2(const float *p) {
    _mm_prefetch((const char *)p, _MM_HINT_T1);
}
INLINE vec vec_fma(vec a, vec b, vec c) {
    return _mm256_fmadd_ps(a, b, c);
}
INLINE vec vec_mul(vec a, vec b) {
    return _mm256_mul_ps(a, b);
}
INLINE vec vec_add(vec a, vec b) {
    return _mm256_add_ps(a, b);
}
INLINE vec vec_sub(vec a, vec b) {
    return _mm256_sub_ps(a, b);
}

/* a - b; outside the mask +0, and nothing is computed that could raise an exception. */
INLINE vec vec_sub_mask(vec_mask mask, vec a, vec b) {
    return vec_sub(_mm256_and_ps(_mm256_castsi256_ps(mask), a), _mm256_and_ps(_mm256_castsi256_ps(mask), b));
}

/* x > m ? x : m, so that NaN in x is passed over. */
INLINE vec vec_max(vec m, vec x) {
    return _mm256_max_ps(x, m);
}

/* Lanes lo <= i < hi; lo and hi at most VEC_LANES. */
INLINE vec_mask vec_lanes(size_t lo, size_t hi) {
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_and_si256(_mm256_cmpgt_epi32(lane, _mm256_set1_epi32((int)lo - 1)),
                            _mm256_cmpgt_epi32(_mm256_set1_epi32((int)hi), lane));
}
/* The first n lanes, all from VEC_LANES up. The others are neither read nor written; loaded they are +0. */
INLINE vec vec_load_first(size_t n, const float *p) {
    if (n >= VEC_LANES)
        return vec_load(p);
    __m128 x = _mm_setzero_ps();
    if (n & 1) { /* p may have the alignment of a smaller element */
        int32_t bits;
        memcpy(&bits, p + n - 1, sizeof bits);
        x = _mm_castsi128_ps(_mm_cvtsi32_si128(bits));
    }
    if (n & 2)
        x = _mm_movelh_ps(_mm_castsi128_ps(_mm_loadu_si64(p + (n & 4))), x);
    return n & 4 ? _mm256_set_m128(x, _mm_loadu_ps(p)) : _mm256_zextps128_ps256(x);
}
INLINE void vec_store_first(size_t n, float *p, vec x) {
    if (n >= VEC_LANES) {
        vec_store(p, x);
        return;
    }
    __m128 rest = _mm256_castps256_ps128(x);
    if (n & 4) {
        _mm_storeu_ps(p, rest);
        rest = _mm256_extractf128_ps(x, 1);
    }
    if (n & 2) {
        _mm_storeu_si64(p + (n & 4), _mm_castps_si128(rest));
        rest = _mm_movehl_ps(rest, rest);
    }
    if (n & 1) { /* as above */
        int32_t bits = _mm_cvtsi128_si32(_mm_castps_si128(rest));
        memcpy(p + n - 1, &bits, sizeof bits);
    }
}
/* Where a row ends in its last register, for loads and stores of the first lanes: their number, VEC_LANES in WHOLE. */
typedef size_t vec_tail;
#define VEC_WHOLE VEC_LANES

INLINE vec_tail vec_tail_of(size_t n) {
    return n;
}
INLINE vec vec_load_tail(vec_tail tail, const float *p) {
    return vec_load_first(tail, p);
}
INLINE void vec_store_tail(vec_tail tail, float *p, vec x) {
    vec_store_first(tail, p, x);
}
/* x in the mask, other outside. */
INLINE vec vec_select(vec_mask mask, vec x, vec other) {
    return _mm256_blendv_ps(other, x, _mm256_castsi256_ps(mask));
}
/* Lanes where a is b. */
INLINE vec_mask vec_equal(vec a, vec b) {
    return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_EQ_OQ));
}
/* Lanes where a is less than b. */
INLINE vec_mask vec_less(vec a, vec b) {
    return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
/* The first n lanes, -inf beyond: that changes no maximum, and its exp, +0, changes no sum. */
INLINE vec vec_load_logits(size_t n, const float *p) {
    return n < VEC_LANES ? vec_select(vec_lanes(0, n), vec_load_first(n, p), vec_set(-__builtin_inff())) : vec_load(p);
}

/* Lanes whose byte is 0, of the first n bytes; the others are not read, and their lanes are open. */
INLINE vec_mask vec_zero_bytes(size_t n, const uint8_t *p) {
    uint64_t bytes = 0;
    uint32_t four;
    uint16_t two;
    if (n >= VEC_LANES)
        memcpy(&bytes, p, sizeof bytes);
    else {
        if (n & 1)
            bytes = p[n - 1];
        if (n & 2) {
            memcpy(&two, p + (n & 4), sizeof two);
            bytes = bytes << 16 | two;
        }
        if (n & 4) {
            memcpy(&four, p, sizeof four);
            bytes = bytes << 32 | four;
        }
    }
    return _mm256_cvtepi8_epi32(_mm_cmpeq_epi8(_mm_cvtsi64_si128((int64_t)bytes), _mm_setzero_si128()));
}

/* abs(first), abs(first + 1) and so on, each a rounded integer. */
INLINE vec vec_distances(int32_t first) {
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    vec x = _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_set1_epi32(first), lane));
    return _mm256_andnot_ps(vec_set(-0.0f), x);
}

/* Lanes 1, 0, 3, 2 and so on. */
INLINE vec vec_swap_pairs(vec x) {
    return _mm256_permute_ps(x, 0xb1);
}

/* For NEON, where gcc would keep sums on the stack. */
#define vec_pin(x) ((void)0)

/* The tree of attn_lane_sum. Lanes that are not wanted add up what others do: twice one of them might overflow. */
INLINE float vec_lane_sum(const vec x[SUM_VECS]) {
    __m256 t8 = _mm256_add_ps(x[0], x[1]);
    __m128 t4 = _mm_add_ps(_mm256_castps256_ps128(t8), _mm256_extractf128_ps(t8, 1));
    __m128 t2 = _mm_add_ps(t4, _mm_permute_ps(t4, 0x4e));
    return _mm_cvtss_f32(_mm_add_ss(t2, _mm_movehdup_ps(t2)));
}

/* The largest lane; no lane is NaN, and which of two zeros comes out is open. */
INLINE float vec_lane_max(vec x) {
    __m128 t4 = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 t2 = _mm_max_ps(t4, _mm_movehl_ps(t4, t4));
    return _mm_cvtss_f32(_mm_max_ss(t2, _mm_movehdup_ps(t2)));
}

/* The same of 8 registers: that of register i in lane i. */
INLINE vec vec_lane_max_each(const vec x[VEC_LANES]) {
    vec t[4];
    UNROLL for (int i = 0; i < 4; i++) t[i] =
        _mm256_max_ps(_mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]), _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]));
    UNROLL for (int i = 0; i < 2; i++) t[i] =
        _mm256_max_ps(_mm256_shuffle_ps(t[2 * i], t[2 * i + 1], 0x44), _mm256_shuffle_ps(t[2 * i], t[2 * i + 1], 0xee));
    return _mm256_max_ps(_mm256_permute2f128_ps(t[0], t[1], 0x20), _mm256_permute2f128_ps(t[0], t[1], 0x31));
}

/* Lanes i < n where a[i] is less than b[i], both below 2^31. */
INLINE vec_mask vec_less_counts(size_t n, const uint32_t *a, const uint32_t *b) {
    uint32_t left[VEC_LANES] = {0}, right[VEC_LANES] = {0};
    if (n < VEC_LANES) {
        for (size_t i = 0; i < n; i++)
            left[i] = a[i], right[i] = b[i];
        a = left, b = right;
    }
    return _mm256_cmpgt_epi32(_mm256_loadu_si256((const __m256i *)b), _mm256_loadu_si256((const __m256i *)a));
}

/* Magnitudes as the integers that their bits are: infinity's, 0x7f800000, is above those of numbers, NaN's above it.
 * No operation here raises an exception. */
typedef __m256i vec_magnitude;

INLINE vec_magnitude vec_magnitude_of(vec x) {
    return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}
INLINE vec_magnitude vec_larger(vec_magnitude a, vec_magnitude b) {
    return _mm256_max_epi32(a, b);
}
/* 1 where no lane is infinity's or NaN's. */
INLINE int vec_all_finite(vec_magnitude m) {
    return _mm256_movemask_epi8(_mm256_cmpgt_epi32(m, _mm256_set1_epi32(0x7f7fffff))) == 0;
}

/* ---- What elementary functions are made of ---- */

/* SLEEF's function of that name for one register. */
#define VEC_SLEEF(name) Sleef_finz_##name##f8_u10avx2

INLINE vec vec_div(vec a, vec b) {
    return _mm256_div_ps(a, b);
}
INLINE vec vec_neg(vec x) {
    return -x;
}
/* The nearest integer, the even one of two. */
INLINE vec vec_round(vec x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE vec vec_abs(vec x) {
    return _mm256_andnot_ps(vec_set(-0.0f), x);
}
/* abs(x) with the sign of `sign`. */
INLINE vec vec_copysign(vec x, vec sign) {
    return _mm256_or_ps(vec_abs(x), _mm256_and_ps(vec_set(-0.0f), sign));
}

/* An int32 in each lane. No operation on them raises an exception. */
typedef __m256i vec_int;

INLINE vec_int vec_int_set(int32_t i) {
    return _mm256_set1_epi32(i);
}
INLINE vec_int vec_bits(vec x) {
    return _mm256_castps_si256(x);
}
INLINE vec vec_from_bits(vec_int i) {
    return _mm256_castsi256_ps(i);
}
/* Of an integral x. */
INLINE vec_int vec_to_int(vec x) {
    return _mm256_cvtps_epi32(x);
}
INLINE vec vec_from_int(vec_int i) {
    return _mm256_cvtepi32_ps(i);
}
INLINE vec_int vec_int_add(vec_int a, vec_int b) {
    return _mm256_add_epi32(a, b);
}
INLINE vec_int vec_int_sub(vec_int a, vec_int b) {
    return _mm256_sub_epi32(a, b);
}
INLINE vec_int vec_int_and(vec_int a, vec_int b) {
    return _mm256_and_si256(a, b);
}
INLINE vec_int vec_int_or(vec_int a, vec_int b) {
    return _mm256_or_si256(a, b);
}
/* a & ~b */
INLINE vec_int vec_int_and_not(vec_int a, vec_int b) {
    return _mm256_andnot_si256(b, a);
}
#define vec_int_shift_left(a, n)  _mm256_slli_epi32(a, n)
#define vec_int_shift_right(a, n) _mm256_srai_epi32(a, n) /* copies of the sign come in */
/* -x where i is odd. */
INLINE vec vec_flip(vec x, vec_int i) {
    return _mm256_xor_ps(x, vec_from_bits(vec_int_shift_left(i, 31)));
}
/* Lanes where a is greater than b. */
INLINE vec_mask vec_int_greater(vec_int a, vec_int b) {
    return _mm256_cmpgt_epi32(a, b);
}

/* ---- Elements of 16 bits ---- */

/* One for each lane. */
typedef __m128i vec_u16;

INLINE vec_u16 vec_load_u16(const uint16_t *p) {
    return _mm_loadu_si128((const __m128i *)p);
}
INLINE void vec_store_u16(uint16_t *p, vec_u16 x) {
    _mm_storeu_si128((__m128i *)p, x);
}
/* The first n, all from VEC_LANES up. The others are neither read nor written; loaded they are 0. */
INLINE vec_u16 vec_load_u16_first(size_t n, const uint16_t *p) {
    if (n >= VEC_LANES)
        return vec_load_u16(p);
    uint64_t four, rest = 0;
    uint32_t two;
    if (n & 1)
        rest = p[n - 1];
    if (n & 2) {
        memcpy(&two, p + (n & 4), sizeof two);
        rest = rest << 32 | two;
    }
    if (!(n & 4))
        return _mm_cvtsi64_si128((int64_t)rest);
    memcpy(&four, p, sizeof four);
    return _mm_set_epi64x((int64_t)rest, (int64_t)four);
}
INLINE void vec_store_u16_first(size_t n, uint16_t *p, vec_u16 x) {
    if (n >= VEC_LANES) {
        vec_store_u16(p, x);
        return;
    }
    if (n & 4) {
        _mm_storeu_si64(p, x);
        x = _mm_unpackhi_epi64(x, x);
    }
    uint64_t rest = (uint64_t)_mm_cvtsi128_si64(x);
    uint32_t two = (uint32_t)rest;
    if (n & 2) {
        memcpy(p + (n & 4), &two, sizeof two);
        rest >>= 32;
    }
    if (n & 1)
        p[n - 1] = (uint16_t)rest;
}
/* From and to the upper 16 bits of each lane; the lower ones become 0, or are left out. */
INLINE vec_int vec_from_upper(vec_u16 x) {
    const __m256i places = _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7, -1, -1, 8, 9, -1,
                                            -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(x), places);
}
INLINE vec_u16 vec_to_upper(vec_int i) {
    __m256i upper = _mm256_srli_epi32(i, 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
}
/* The upper 16 bits of two registers. */
#define VEC_U16_TWO
INLINE void vec_store_upper_two(uint16_t *p, vec_int a, vec_int b) {
    __m256i quads = _mm256_packus_epi32(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16));
    _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(quads, 0xd8));
}
/* Whether an exponent of a or b is the smallest or the largest: of either and one more the upper 7 bits are 0. */
INLINE int vec_any_extreme(vec a, vec b) {
    const __m256i one = _mm256_set1_epi32(1 << 23), upper = _mm256_set1_epi32(0x7f000000);
    __m256i x = _mm256_and_si256(_mm256_add_epi32(_mm256_castps_si256(a), one), upper);
    __m256i y = _mm256_and_si256(_mm256_add_epi32(_mm256_castps_si256(b), one), upper);
    return _mm256_movemask_epi8(_mm256_cmpeq_epi32(_mm256_min_epu32(x, y), _mm256_setzero_si256())) != 0;
}
/* Two registers of probabilities (see body/bf16.h) to 16 elements of BF16, in 15 operations where each alone takes 11:
 * all 16 are rounded at once. That is by the carry out of lower + 0x7fff + odd, half of which is an average. Not the
 * way of vec_store_upper_two: on a Zen 5 the softmax takes 1.05 of the time by that one, and narrowing 1.16 by this
 * one. */
INLINE void vec_store_probabilities_bf16(uint16_t *p, vec x, vec y) {
    const __m256i apart = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12,
                                           13, 2, 3, 6, 7, 10, 11, 14, 15);
    __m256i a = _mm256_shuffle_epi8(_mm256_castps_si256(x), apart);
    __m256i b = _mm256_shuffle_epi8(_mm256_castps_si256(y), apart);
    __m256i lower = _mm256_unpacklo_epi64(a, b), upper = _mm256_unpackhi_epi64(a, b);
    __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi16(1));
    __m256i half = _mm256_avg_epu16(lower, _mm256_add_epi16(odd, _mm256_set1_epi16(0x7ffe)));
    __m256i rounded = _mm256_sub_epi16(upper, _mm256_cmpgt_epi16(_mm256_setzero_si256(), half));
    __m256i is_normal = _mm256_cmpgt_epi16(upper, _mm256_set1_epi16(0x7f));
    rounded = _mm256_permute4x64_epi64(_mm256_and_si256(rounded, is_normal), 0xd8);
    _mm256_storeu_si256((__m256i *)p, rounded);
}
#define VEC_PROBABILITIES_TO_BF16 vec_store_probabilities_bf16
/* From and to IEEE binary16. */
INLINE vec vec_from_f16(vec_u16 x) {
    return _mm256_cvtph_ps(x);
}
INLINE vec_u16 vec_to_f16(vec x) {
    return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
}

/* ---- Elements of 8 bits ---- */

/* One for each lane, its sign copied upwards, or zeros. */
INLINE vec_int vec_load_s8(const int8_t *p) {
    return _mm256_cvtepi8_epi32(_mm_loadu_si64(p));
}
INLINE vec_int vec_load_u8(const uint8_t *p) {
    return _mm256_cvtepu8_epi32(_mm_loadu_si64(p));
}
/* The lowest 8 bits of each lane. */
INLINE void vec_store_s8(int8_t *p, vec_int i) {
    __m256i bytes = _mm256_shuffle_epi8(i, _mm256_set1_epi32(0x0c080400));
    _mm_storeu_si64(p, _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
}

/* 16 bits for each lane of two registers, or of one in the lower half. `n` registers, 1 or 2, a literal. */
typedef __m256i vec_u16s;

/* Bytes, their sign copied upwards. */
INLINE vec_u16s vec_u16s_load_s8(const int8_t *p, const int n) {
    if (n == 1)
        return _mm256_castsi128_si256(_mm_cvtepi8_epi16(_mm_loadu_si64(p)));
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
}
#define vec_u16s_shift_left(a, n) _mm256_slli_epi16(a, n)
INLINE vec_u16s vec_u16s_add(vec_u16s a, uint16_t b) {
    return _mm256_add_epi16(a, _mm256_set1_epi16((short)b));
}
/* a ^ (b & mask) */
INLINE vec_u16s vec_u16s_flip(vec_u16s a, vec_u16s b, uint16_t mask) {
    return _mm256_xor_si256(a, _mm256_and_si256(b, _mm256_set1_epi16((short)mask)));
}
/* Floats of F16s. A conversion from memory is one operation where one from a register is two: two registers are stored
 * first (decode over E4M3 takes 0.82 of the time). */
INLINE void vec_f16s_widen(vec_u16s a, vec *x, const int n) {
    if (n == 1) {
        *x = _mm256_cvtph_ps(_mm256_castsi256_si128(a));
        return;
    }
    __m128i halves[2];
    _mm256_storeu_si256((__m256i *)halves, a);
    __asm__("" : "+m"(halves)); /* or the compiler takes them from the register */
    UNROLL for (int i = 0; i < 2; i++) x[i] = _mm256_cvtph_ps(halves[i]);
}

/* ---- Transposes ---- */

/* Lane j of quad i of register r becomes lane r of quad i of register j. */
INLINE void vec_transpose_quads(vec r[4]) {
    vec t0 = _mm256_unpacklo_ps(r[0], r[1]), t1 = _mm256_unpackhi_ps(r[0], r[1]);
    vec t2 = _mm256_unpacklo_ps(r[2], r[3]), t3 = _mm256_unpackhi_ps(r[2], r[3]);
    r[0] = _mm256_shuffle_ps(t0, t2, 0x44);
    r[1] = _mm256_shuffle_ps(t0, t2, 0xee);
    r[2] = _mm256_shuffle_ps(t1, t3, 0x44);
    r[3] = _mm256_shuffle_ps(t1, t3, 0xee);
}

/* Row i of the 8 x 8 matrix becomes column i. */
INLINE void vec_transpose(vec r[VEC_LANES]) {
    vec t[VEC_LANES];
    vec_transpose_quads(r);
    vec_transpose_quads(r + 4);
    UNROLL for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    UNROLL for (int i = 0; i < 8; i++) r[i] = t[i];
}

/* Four floats from each of 8 columns: element l of all of them in register l. */
INLINE void vec_load_columns(const float *p, size_t stride, vec r[4]) {
    UNROLL for (size_t i = 0; i < 4; i++) r[i] =
        _mm256_set_m128(_mm_loadu_ps(p + (i + 4) * stride), _mm_loadu_ps(p + i * stride));
    vec_transpose_quads(r);
}
/* The same of F16s, `stride` bytes apart. */
INLINE void vec_load_columns_f16(const char *p, size_t stride, vec r[4]) {
    UNROLL for (size_t i = 0; i < 4; i++) r[i] =
        _mm256_cvtph_ps(_mm_unpacklo_epi64(_mm_loadu_si64(p + i * stride), _mm_loadu_si64(p + (i + 4) * stride)));
    vec_transpose_quads(r);
}

#endif
