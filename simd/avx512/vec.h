/* AVX-512: 16 floats a register, 32 registers, masks for tails. */
#ifndef ATTN_AVX512_VEC_H
#define ATTN_AVX512_VEC_H

#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define VEC_LANES 16
#define SUM_VECS  (16 / VEC_LANES) /* registers that hold the 16 lanes of a sum */
#define INLINE    static inline __attribute__((always_inline))

/* Names carry the ISA, unless one that builds on this has its own, so that profilers and debuggers tell the kernels
 * apart: ISA_FN(f) is avx512_f, ISA_OBJECT(f) attn_avx512_f. */
#ifndef ISA_NAME
#define ISA_NAME         "avx512"
#define ISA_FN(name)     avx512_##name
#define ISA_OBJECT(name) attn_avx512_##name
#endif

/* Every loop so marked vanishes: its arrays are registers. Clang takes GCC's pragma as a partial unrolling. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* For AVX2, which has fewer registers. */
#define vec_settle(x) ((void)0)

typedef __m512 vec;
typedef __mmask16 vec_mask; /* lanes that exist */

INLINE vec vec_zero(void) {
    return _mm512_setzero_ps();
}
INLINE vec vec_set(float x) {
    return _mm512_set1_ps(x);
}
INLINE vec vec_load(const float *p) {
    return _mm512_loadu_ps(p);
}
INLINE void vec_store(float *p, vec x) {
    _mm512_storeu_ps(p, x);
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
    return _mm512_fmadd_ps(a, b, c);
}
INLINE vec vec_mul(vec a, vec b) {
    return _mm512_mul_ps(a, b);
}
INLINE vec vec_add(vec a, vec b) {
    return _mm512_add_ps(a, b);
}
INLINE vec vec_sub(vec a, vec b) {
    return _mm512_sub_ps(a, b);
}

/* a b and a - b; outside the mask +0, and nothing is computed that could raise an exception. */
INLINE vec vec_mul_mask(vec_mask mask, vec a, vec b) {
    return _mm512_maskz_mul_ps(mask, a, b);
}
INLINE vec vec_sub_mask(vec_mask mask, vec a, vec b) {
    return _mm512_maskz_sub_ps(mask, a, b);
}

/* x > m ? x : m, so that NaN in x is passed over. */
INLINE vec vec_max(vec m, vec x) {
    return _mm512_max_ps(x, m);
}

/* Lanes lo <= i < hi; lo and hi at most VEC_LANES. */
INLINE vec_mask vec_lanes(size_t lo, size_t hi) {
    return (vec_mask)(((1u << hi) - 1) & ~((1u << lo) - 1));
}
/* Lanes of the vector at column c < end that are below `end`. */
INLINE vec_mask below(size_t c, size_t end) {
    return end - c >= VEC_LANES ? (vec_mask)-1 : vec_lanes(0, end - c);
}
/* Lanes outside the mask are neither read nor written; loaded they are +0. */
INLINE vec vec_load_mask(vec_mask mask, const float *p) {
    return _mm512_maskz_loadu_ps(mask, p);
}
INLINE void vec_store_mask(vec_mask mask, float *p, vec x) {
    _mm512_mask_storeu_ps(p, mask, x);
}
/* The first n lanes, all from VEC_LANES up. */
INLINE vec vec_load_first(size_t n, const float *p) {
    return vec_load_mask(below(0, n), p);
}
INLINE void vec_store_first(size_t n, float *p, vec x) {
    vec_store_mask(below(0, n), p, x);
}
/* Where a row ends in its last register, for loads and stores of the first lanes: their mask, which a loop keeps for
 * itself. */
typedef vec_mask vec_tail;
#define VEC_WHOLE ((vec_mask)-1)

INLINE vec_tail vec_tail_of(size_t n) {
    return vec_lanes(0, n);
}
INLINE vec vec_load_tail(vec_tail tail, const float *p) {
    return vec_load_mask(tail, p);
}
INLINE void vec_store_tail(vec_tail tail, float *p, vec x) {
    vec_store_mask(tail, p, x);
}
/* x in the mask, other outside. */
INLINE vec vec_select(vec_mask mask, vec x, vec other) {
    return _mm512_mask_mov_ps(other, mask, x);
}
/* Lanes where a is b. */
INLINE vec_mask vec_equal(vec a, vec b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}

/* The first n lanes, -inf beyond: that changes no maximum, and its exp, +0, changes no sum. */
INLINE vec vec_load_logits(size_t n, const float *p) {
    return _mm512_mask_loadu_ps(vec_set(-INFINITY), below(0, n), p);
}

/* Lanes whose byte is 0, of the first n bytes; the others are not read. */
INLINE vec_mask vec_zero_bytes(size_t n, const uint8_t *p) {
    vec_mask mask = below(0, n);
    __m128i bytes = _mm_maskz_loadu_epi8(mask, p);
    return _mm_mask_testn_epi8_mask(mask, bytes, bytes);
}

/* abs(first), abs(first + 1) and so on, each a rounded integer. */
INLINE vec vec_distances(int32_t first) {
    __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_abs_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_set1_epi32(first), lane)));
}

/* Lanes 1, 0, 3, 2 and so on. */
INLINE vec vec_swap_pairs(vec x) {
    return _mm512_permute_ps(x, 0xb1);
}

/* For NEON, where gcc would keep sums on the stack. */
#define vec_pin(x) ((void)0)

/* The tree of attn_lane_sum. Lanes that are not wanted add up what others do: twice one of them might overflow. */
INLINE float vec_lane_sum(const vec x[SUM_VECS]) {
    __m256 t8 = _mm256_add_ps(_mm512_castps512_ps256(x[0]), _mm512_extractf32x8_ps(x[0], 1));
    __m128 t4 = _mm_add_ps(_mm256_castps256_ps128(t8), _mm256_extractf128_ps(t8, 1));
    __m128 t2 = _mm_add_ps(t4, _mm_permute_ps(t4, 0x4e));
    return _mm_cvtss_f32(_mm_add_ss(t2, _mm_movehdup_ps(t2)));
}

/* The largest lane; no lane is NaN, and which of two zeros comes out is open. */
INLINE float vec_lane_max(vec x) {
    return _mm512_reduce_max_ps(x);
}

/* The same of 16 registers: that of register i in lane i. Each step halves the registers, twice as many of which
 * share one. */
INLINE vec vec_lane_max_each(const vec x[VEC_LANES]) {
    vec t[8];
    UNROLL for (int i = 0; i < 8; i++) t[i] =
        _mm512_max_ps(_mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]), _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]));
    UNROLL for (int i = 0; i < 4; i++) {
        __m512d a = _mm512_castps_pd(t[2 * i]), b = _mm512_castps_pd(t[2 * i + 1]);
        t[i] = _mm512_max_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    UNROLL for (int n = 2; n > 0; n /= 2) UNROLL for (int i = 0; i < n; i++) t[i] = _mm512_max_ps(
        _mm512_shuffle_f32x4(t[2 * i], t[2 * i + 1], 0x88), _mm512_shuffle_f32x4(t[2 * i], t[2 * i + 1], 0xdd));
    return t[0];
}

/* x one lane further up, with first's highest lane below it. */
INLINE vec vec_after(vec first, vec x) {
    return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(x), _mm512_castps_si512(first), VEC_LANES - 1));
}

/* The largest of each lane and those below it; which of two zeros is open. */
INLINE vec vec_running_max(vec x) {
    __m512i low = _mm512_castps_si512(_mm512_set1_ps(-INFINITY));
    x = vec_max(x, _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(x), low, 15)));
    x = vec_max(x, _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(x), low, 14)));
    x = vec_max(x, _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(x), low, 12)));
    return vec_max(x, _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(x), low, 8)));
}

/* Lanes i < n where a[i] is less than b[i]. */
INLINE vec_mask vec_less_counts(size_t n, const uint32_t *a, const uint32_t *b) {
    vec_mask mask = below(0, n);
    return _mm512_mask_cmplt_epu32_mask(mask, _mm512_maskz_loadu_epi32(mask, a), _mm512_maskz_loadu_epi32(mask, b));
}

/* Magnitudes as the integers that their bits are: infinity's, 0x7f800000, is above those of numbers, NaN's above it.
 * No operation here raises an exception. */
typedef __m512i vec_magnitude;

INLINE vec_magnitude vec_magnitude_of(vec x) {
    return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}
INLINE vec_magnitude vec_larger(vec_magnitude a, vec_magnitude b) {
    return _mm512_max_epu32(a, b);
}
/* 1 where no lane is infinity's or NaN's. */
INLINE int vec_all_finite(vec_magnitude m) {
    return _mm512_cmpge_epu32_mask(m, _mm512_set1_epi32(0x7f800000)) == 0;
}

/* ---- What elementary functions are made of ---- */

/* SLEEF's function of that name for one register. */
#define VEC_SLEEF(name) Sleef_finz_##name##f16_u10avx512f

INLINE vec vec_div(vec a, vec b) {
    return _mm512_div_ps(a, b);
}
INLINE vec vec_neg(vec x) {
    return -x;
}
/* The nearest integer, the even one of two. */
INLINE vec vec_round(vec x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE vec vec_abs(vec x) {
    return _mm512_abs_ps(x);
}
/* abs(x) with the sign of `sign`. */
INLINE vec vec_copysign(vec x, vec sign) {
    return _mm512_or_ps(vec_abs(x), _mm512_and_ps(vec_set(-0.0f), sign));
}

/* An int32 in each lane. No operation on them raises an exception. */
typedef __m512i vec_int;

INLINE vec_int vec_int_set(int32_t i) {
    return _mm512_set1_epi32(i);
}
INLINE vec_int vec_bits(vec x) {
    return _mm512_castps_si512(x);
}
INLINE vec vec_from_bits(vec_int i) {
    return _mm512_castsi512_ps(i);
}
/* Of an integral x. */
INLINE vec_int vec_to_int(vec x) {
    return _mm512_cvtps_epi32(x);
}
INLINE vec vec_from_int(vec_int i) {
    return _mm512_cvtepi32_ps(i);
}
INLINE vec_int vec_int_add(vec_int a, vec_int b) {
    return _mm512_add_epi32(a, b);
}
INLINE vec_int vec_int_sub(vec_int a, vec_int b) {
    return _mm512_sub_epi32(a, b);
}
INLINE vec_int vec_int_and(vec_int a, vec_int b) {
    return _mm512_and_si512(a, b);
}
INLINE vec_int vec_int_or(vec_int a, vec_int b) {
    return _mm512_or_si512(a, b);
}
/* a & ~b */
INLINE vec_int vec_int_and_not(vec_int a, vec_int b) {
    return _mm512_andnot_si512(b, a);
}
#define vec_int_shift_left(a, n)  _mm512_slli_epi32(a, n)
#define vec_int_shift_right(a, n) _mm512_srai_epi32(a, n) /* copies of the sign come in */
/* -x where i is odd. */
INLINE vec vec_flip(vec x, vec_int i) {
    return _mm512_xor_ps(x, vec_from_bits(vec_int_shift_left(i, 31)));
}
/* Lanes where a is greater than b. */
INLINE vec_mask vec_int_greater(vec_int a, vec_int b) {
    return _mm512_cmpgt_epi32_mask(a, b);
}

/* ---- Elements of 16 bits ---- */

/* One for each lane. */
typedef __m256i vec_u16;

INLINE vec_u16 vec_load_u16(const uint16_t *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}
INLINE void vec_store_u16(uint16_t *p, vec_u16 x) {
    _mm256_storeu_si256((__m256i *)p, x);
}
/* The first n, all from VEC_LANES up. The others are neither read nor written; loaded they are 0. */
INLINE vec_u16 vec_load_u16_first(size_t n, const uint16_t *p) {
    return _mm256_maskz_loadu_epi16(below(0, n), p);
}
INLINE void vec_store_u16_first(size_t n, uint16_t *p, vec_u16 x) {
    _mm256_mask_storeu_epi16(p, below(0, n), x);
}
/* From and to the upper 16 bits of each lane; the lower ones become 0, or are left out. */
INLINE vec_int vec_from_upper(vec_u16 x) {
    return _mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16);
}
INLINE vec_u16 vec_to_upper(vec_int i) {
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(i, 16));
}
/* From and to IEEE binary16. */
INLINE vec vec_from_f16(vec_u16 x) {
    return _mm512_cvtph_ps(x);
}
INLINE vec_u16 vec_to_f16(vec x) {
    return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
}

/* ---- Elements of 8 bits ---- */

/* One for each lane, its sign copied upwards, or zeros. */
INLINE vec_int vec_load_s8(const int8_t *p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
}
INLINE vec_int vec_load_u8(const uint8_t *p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
/* The lowest 8 bits of each lane. */
INLINE void vec_store_s8(int8_t *p, vec_int i) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(i));
}

/* 16 bits for each lane of two registers, or of one in the lower half. `n` registers, 1 or 2, a literal. */
typedef __m512i vec_u16s;

/* Bytes, their sign copied upwards. */
INLINE vec_u16s vec_u16s_load_s8(const int8_t *p, const int n) {
    if (n == 1)
        return _mm512_castsi256_si512(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)));
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
}
#define vec_u16s_shift_left(a, n) _mm512_slli_epi16(a, n)
INLINE vec_u16s vec_u16s_add(vec_u16s a, uint16_t b) {
    return _mm512_add_epi16(a, _mm512_set1_epi16((short)b));
}
/* a ^ (b & mask) */
INLINE vec_u16s vec_u16s_flip(vec_u16s a, vec_u16s b, uint16_t mask) {
    return _mm512_ternarylogic_epi32(a, b, _mm512_set1_epi16((short)mask), 0x78);
}
/* Floats of F16s. A conversion from memory is one operation where one from a register is two: two registers are stored
 * first (decode over E4M3 takes 0.82 of the time). */
INLINE void vec_f16s_widen(vec_u16s a, vec *x, const int n) {
    if (n == 1) {
        *x = _mm512_cvtph_ps(_mm512_castsi512_si256(a));
        return;
    }
    __m256i halves[2];
    _mm512_storeu_si512(halves, a);
    __asm__("" : "+m"(halves)); /* or the compiler takes them from the register */
    UNROLL for (int i = 0; i < 2; i++) x[i] = _mm512_cvtph_ps(halves[i]);
}

/* ---- Transposes ---- */

/* Lane j of quad i of register r becomes lane r of quad i of register j. */
INLINE void vec_transpose_quads(vec r[4]) {
    vec t0 = _mm512_unpacklo_ps(r[0], r[1]), t1 = _mm512_unpackhi_ps(r[0], r[1]);
    vec t2 = _mm512_unpacklo_ps(r[2], r[3]), t3 = _mm512_unpackhi_ps(r[2], r[3]);
    r[0] = _mm512_shuffle_ps(t0, t2, 0x44);
    r[1] = _mm512_shuffle_ps(t0, t2, 0xee);
    r[2] = _mm512_shuffle_ps(t1, t3, 0x44);
    r[3] = _mm512_shuffle_ps(t1, t3, 0xee);
}

/* Row i of the 16 x 16 matrix becomes column i. */
INLINE void vec_transpose(vec r[VEC_LANES]) {
    vec t[VEC_LANES];
    UNROLL for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
        r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
    }
    UNROLL for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
    UNROLL for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
    }
}

/* Registers that hold eight floats of columns i and i + 4 of a half of 16 columns, 0 to 3 of the lower half first:
 * element l of all of them in register l. */
INLINE void vec_turn_columns(vec r[8]) {
    vec t[8];
    vec_transpose_quads(r);
    vec_transpose_quads(r + 4);
    UNROLL for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    }
    UNROLL for (int i = 0; i < 8; i++) r[i] = t[i];
}

/* Every fourth of columns that lie `stride` bytes apart: addressing modes reach the three after it. */
INLINE void vec_reach_columns(const void *p, size_t stride, const char *four[4]) {
    UNROLL for (size_t i = 0; i < 4; i++) {
        four[i] = (const char *)p + i * 4 * stride;
        __asm__("" : "+r"(four[i])); /* or the compiler keeps the distance of each column, some on the stack */
    }
}

/* Eight floats from each of 16 columns, `stride` floats apart: element l of all of them in register l. */
INLINE void vec_load_columns(const float *p, size_t stride, vec r[8]) {
    const char *four[4];
    stride *= sizeof *p;
    vec_reach_columns(p, stride, four);
    UNROLL for (int i = 0; i < 8; i++) {
        __m256 low = _mm256_loadu_ps((const float *)(const void *)(four[i / 4 * 2] + (size_t)(i % 4) * stride));
        __m256 high = _mm256_loadu_ps((const float *)(const void *)(four[i / 4 * 2 + 1] + (size_t)(i % 4) * stride));
        r[i] = _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
    }
    vec_turn_columns(r);
}
/* The same of F16s, `stride` bytes apart. */
INLINE void vec_load_columns_f16(const char *p, size_t stride, vec r[8]) {
    const char *four[4];
    vec_reach_columns(p, stride, four);
    UNROLL for (int i = 0; i < 8; i++) {
        __m128i low = _mm_loadu_si128((const __m128i *)(four[i / 4 * 2] + (size_t)(i % 4) * stride));
        __m128i high = _mm_loadu_si128((const __m128i *)(four[i / 4 * 2 + 1] + (size_t)(i % 4) * stride));
        r[i] = _mm512_cvtph_ps(_mm256_set_m128i(high, low));
    }
    vec_turn_columns(r);
}

#endif
