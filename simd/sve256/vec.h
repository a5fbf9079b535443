/* AArch64 SVE with registers of 256 bits, no more and no less: 8 floats a register, 32 registers, predicates for
 * tails. */
#ifndef ATTN_SVE256_VEC_H
#define ATTN_SVE256_VEC_H

#include <arm_sve.h>
#include <stddef.h>
#include <stdint.h>

#define VEC_LANES 8
#define SUM_VECS  (16 / VEC_LANES) /* registers that hold the 16 lanes of a sum */
#define INLINE    static inline __attribute__((always_inline))

/* Names carry the ISA, so that profilers and debuggers tell the kernels apart: ISA_FN(f) is sve256_f, ISA_OBJECT(f)
 * attn_sve256_f. */
#define ISA_NAME         "sve256"
#define ISA_FN(name)     sve256_##name
#define ISA_OBJECT(name) attn_sve256_##name

/* Every loop so marked vanishes: its arrays are registers. Clang takes GCC's pragma as a partial unrolling. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* For AVX2, which has fewer registers. */
#define vec_settle(x) ((void)0)

/* Types of known size: they can be elements of arrays. */
#define SVE256 __attribute__((arm_sve_vector_bits(256)))
typedef svfloat32_t vec SVE256;
typedef svbool_t vec_mask SVE256; /* lanes that exist */

#define ALL  svptrue_pat_b32(SV_VL8)
#define QUAD svptrue_pat_b32(SV_VL4) /* the first four lanes */

INLINE vec vec_zero(void) {
    return svdup_n_f32(0.0f);
}
INLINE vec vec_set(float x) {
    return svdup_n_f32(x);
}
INLINE vec vec_load(const float *p) {
    return svld1_f32(ALL, p);
}
INLINE void vec_store(float *p, vec x) {
    svst1_f32(ALL, p, x);
}
/* Four floats in each quad; the float at p in the first lane of each, for vec_fma_lane. */
INLINE vec vec_load_quads(const float *p) {
    return svld1rq_f32(ALL, p);
}
INLINE vec vec_load_one(const float *p) {
    return vec_set(*p);
}
/* Fetches the line of p[offset], which need not exist. */
INLINE void vec_prefetch(const float *p, size_t offset) {
    __builtin_prefetch(p + offset);
}
/* Fetches the line of p, which need not exist, no nearer than L2. */
INLINE void vec_prefetch_l2(const float *p) {
    __builtin_prefetch(p, 0, 2);
}
INLINE vec vec_fma(vec a, vec b, vec c) {
    return svmla_f32_x(ALL, c, a, b);
}
/* acc += x * y[lane] of the same quad, lane a literal; the instruction takes y from the first eight registers. */
#define vec_fma_lane(acc, x, y, lane) __asm__ volatile("fmla %0.s, %1.s, %2.s[" #lane "]" : "+w"(acc) : "w"(x), "y"(y))
INLINE vec vec_mul(vec a, vec b) {
    return svmul_f32_x(ALL, a, b);
}
INLINE vec vec_add(vec a, vec b) {
    return svadd_f32_x(ALL, a, b);
}
INLINE vec vec_sub(vec a, vec b) {
    return svsub_f32_x(ALL, a, b);
}

/* a - b; outside the mask +0, and nothing is computed that could raise an exception. */
INLINE vec vec_sub_mask(vec_mask mask, vec a, vec b) {
    return svsub_f32_z(mask, a, b);
}

/* x > m ? x : m, so that NaN in x is passed over. A signalling NaN is not; but no arithmetic makes one, and a row
 * that holds one is NaN whatever its maximum. */
INLINE vec vec_max(vec m, vec x) {
    return svmaxnm_f32_x(ALL, m, x);
}

/* The first n lanes, all from VEC_LANES up. */
INLINE vec_mask vec_first(size_t n) {
    return svwhilelt_b32_u64(0, n);
}
/* Lanes lo <= i < hi. */
INLINE vec_mask vec_lanes(size_t lo, size_t hi) {
    return svbic_b_z(ALL, vec_first(hi), vec_first(lo));
}
/* The first n lanes, all from VEC_LANES up. The others are neither read nor written; loaded they are +0. */
INLINE vec vec_load_first(size_t n, const float *p) {
    return svld1_f32(vec_first(n), p);
}
INLINE void vec_store_first(size_t n, float *p, vec x) {
    svst1_f32(vec_first(n), p, x);
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
    return svsel_f32(mask, x, other);
}
/* Lanes where a is b. */
INLINE vec_mask vec_equal(vec a, vec b) {
    return svcmpeq_f32(ALL, a, b);
}
/* The first n lanes, -inf beyond: that changes no maximum, and its exp, +0, changes no sum. */
INLINE vec vec_load_logits(size_t n, const float *p) {
    return vec_select(vec_first(n), vec_load_first(n, p), vec_set(-__builtin_inff()));
}

/* Lanes whose byte is 0, of the first n bytes; the others are not read. */
INLINE vec_mask vec_zero_bytes(size_t n, const uint8_t *p) {
    svbool_t mask = vec_first(n);
    return svcmpeq_n_u32(mask, svld1ub_u32(mask, p), 0);
}

/* abs(first), abs(first + 1) and so on, each a rounded integer. */
INLINE vec vec_distances(int32_t first) {
    return svabs_f32_x(ALL, svcvt_f32_s32_x(ALL, svindex_s32(first, 1)));
}

/* Lanes 1, 0, 3, 2 and so on. */
INLINE vec vec_swap_pairs(vec x) {
    return svreinterpret_f32_u64(svrevw_u64_x(ALL, svreinterpret_u64_f32(x)));
}
/* The other quad's lanes in each. */
INLINE vec vec_swap_quads(vec x) {
    return svext_f32(x, x, 4);
}

/* For NEON, where gcc would keep sums on the stack. */
#define vec_pin(x) ((void)0)

/* The tree of attn_lane_sum. Lanes that are not wanted add up what others do: twice one of them might overflow. */
INLINE float vec_lane_sum(const vec x[SUM_VECS]) {
    vec t8 = vec_add(x[0], x[1]), t4 = vec_add(t8, vec_swap_quads(t8));
    vec t2 = vec_add(t4, svext_f32(t4, t4, 2));
    return t2[0] + t2[1];
}

/* The largest lane; no lane is NaN, and which of two zeros comes out is open. */
INLINE float vec_lane_max(vec x) {
    return svmaxnmv_f32(ALL, x);
}

/* Lanes i < n where a[i] is less than b[i]. */
INLINE vec_mask vec_less_counts(size_t n, const uint32_t *a, const uint32_t *b) {
    svbool_t mask = vec_first(n);
    return svcmplt_u32(mask, svld1_u32(mask, a), svld1_u32(mask, b));
}

/* Magnitudes as the integers that their bits are: infinity's, 0x7f800000, is above those of numbers, NaN's above it.
 * No operation here raises an exception. */
typedef svuint32_t vec_magnitude SVE256;

INLINE vec_magnitude vec_magnitude_of(vec x) {
    return svand_n_u32_x(ALL, svreinterpret_u32_f32(x), 0x7fffffff);
}
INLINE vec_magnitude vec_larger(vec_magnitude a, vec_magnitude b) {
    return svmax_u32_x(ALL, a, b);
}
/* 1 where no lane is infinity's or NaN's. */
INLINE int vec_all_finite(vec_magnitude m) {
    return svmaxv_u32(ALL, m) < 0x7f800000;
}

/* ---- What elementary functions are made of ---- */

/* SLEEF's function of that name for one register. */
#define VEC_SLEEF(name) Sleef_finz_##name##fx_u10sve

INLINE vec vec_div(vec a, vec b) {
    return svdiv_f32_x(ALL, a, b);
}
INLINE vec vec_neg(vec x) {
    return svneg_f32_x(ALL, x);
}
/* The nearest integer, the even one of two. */
INLINE vec vec_round(vec x) {
    return svrintn_f32_x(ALL, x);
}
INLINE vec vec_abs(vec x) {
    return svabs_f32_x(ALL, x);
}

/* An int32 in each lane. No operation on them raises an exception. */
typedef svint32_t vec_int SVE256;

INLINE vec_int vec_int_set(int32_t i) {
    return svdup_n_s32(i);
}
INLINE vec_int vec_bits(vec x) {
    return svreinterpret_s32_f32(x);
}
INLINE vec vec_from_bits(vec_int i) {
    return svreinterpret_f32_s32(i);
}
/* Of an integral x. */
INLINE vec_int vec_to_int(vec x) {
    return svcvt_s32_f32_x(ALL, x);
}
INLINE vec vec_from_int(vec_int i) {
    return svcvt_f32_s32_x(ALL, i);
}
INLINE vec_int vec_int_add(vec_int a, vec_int b) {
    return svadd_s32_x(ALL, a, b);
}
INLINE vec_int vec_int_sub(vec_int a, vec_int b) {
    return svsub_s32_x(ALL, a, b);
}
INLINE vec_int vec_int_and(vec_int a, vec_int b) {
    return svand_s32_x(ALL, a, b);
}
INLINE vec_int vec_int_or(vec_int a, vec_int b) {
    return svorr_s32_x(ALL, a, b);
}
/* a & ~b */
INLINE vec_int vec_int_and_not(vec_int a, vec_int b) {
    return svbic_s32_x(ALL, a, b);
}
#define vec_int_shift_left(a, n)  ((vec_int)svlsl_n_s32_x(ALL, a, n))
#define vec_int_shift_right(a, n) ((vec_int)svasr_n_s32_x(ALL, a, n)) /* copies of the sign come in */
/* -x where i is odd. */
INLINE vec vec_flip(vec x, vec_int i) {
    return vec_from_bits(sveor_s32_x(ALL, vec_bits(x), vec_int_shift_left(i, 31)));
}
/* abs(x) with the sign of `sign`. */
INLINE vec vec_copysign(vec x, vec sign) {
    return vec_from_bits(svorr_s32_x(ALL, vec_bits(vec_abs(x)), svand_n_s32_x(ALL, vec_bits(sign), INT32_MIN)));
}
/* Lanes where a is greater than b. */
INLINE vec_mask vec_int_greater(vec_int a, vec_int b) {
    return svcmpgt_s32(ALL, a, b);
}

/* ---- Elements of 16 bits ---- */

/* One for each lane, in its lower half. */
typedef svuint32_t vec_u16 SVE256;

INLINE vec_u16 vec_load_u16(const uint16_t *p) {
    return svld1uh_u32(ALL, p);
}
INLINE void vec_store_u16(uint16_t *p, vec_u16 x) {
    svst1h_u32(ALL, p, x);
}
/* The first n, all from VEC_LANES up. The others are neither read nor written; loaded they are 0. */
INLINE vec_u16 vec_load_u16_first(size_t n, const uint16_t *p) {
    return svld1uh_u32(vec_first(n), p);
}
INLINE void vec_store_u16_first(size_t n, uint16_t *p, vec_u16 x) {
    svst1h_u32(vec_first(n), p, x);
}
/* From and to the upper 16 bits of each lane; the lower ones become 0, or are left out. */
INLINE vec_int vec_from_upper(vec_u16 x) {
    return svreinterpret_s32_u32(svlsl_n_u32_x(ALL, x, 16));
}
INLINE vec_u16 vec_to_upper(vec_int i) {
    return svlsr_n_u32_x(ALL, svreinterpret_u32_s32(i), 16);
}
/* From and to IEEE binary16. */
INLINE vec vec_from_f16(vec_u16 x) {
    return svcvt_f32_f16_x(ALL, svreinterpret_f16_u32(x));
}
INLINE vec_u16 vec_to_f16(vec x) {
    return svreinterpret_u32_f16(svcvt_f16_f32_x(ALL, x));
}

/* ---- Elements of 8 bits ---- */

/* One for each lane, its sign copied upwards, or zeros. */
INLINE vec_int vec_load_s8(const int8_t *p) {
    return svld1sb_s32(ALL, p);
}
INLINE vec_int vec_load_u8(const uint8_t *p) {
    return svld1ub_s32(ALL, p);
}
/* The lowest 8 bits of each lane. */
INLINE void vec_store_s8(int8_t *p, vec_int i) {
    svst1b_s32(ALL, p, i);
}

/* 16 bits for each lane of two registers, or of one in the lower half. `n` registers, 1 or 2, a literal. */
typedef svuint16_t vec_u16s SVE256;

/* Bytes, their sign copied upwards. */
INLINE vec_u16s vec_u16s_load_s8(const int8_t *p, const int n) {
    svbool_t lanes = n == 1 ? svptrue_pat_b16(SV_VL8) : svptrue_b16();
    return svreinterpret_u16_s16(svld1sb_s16(lanes, p));
}
#define vec_u16s_shift_left(a, n) ((vec_u16s)svlsl_n_u16_x(svptrue_b16(), a, n))
INLINE vec_u16s vec_u16s_add(vec_u16s a, uint16_t b) {
    return svadd_n_u16_x(svptrue_b16(), a, b);
}
/* a ^ (b & mask) */
INLINE vec_u16s vec_u16s_flip(vec_u16s a, vec_u16s b, uint16_t mask) {
    return sveor_u16_x(svptrue_b16(), a, svand_n_u16_x(svptrue_b16(), b, mask));
}
/* Floats of F16s. */
INLINE void vec_f16s_widen(vec_u16s a, vec *x, const int n) {
    x[0] = vec_from_f16(svunpklo_u32(a));
    if (n == 2)
        x[1] = vec_from_f16(svunpkhi_u32(a));
}

/* ---- Transposes ---- */

INLINE vec vec_pairs_even(vec a, vec b) {
    return svreinterpret_f32_u64(svtrn1_u64(svreinterpret_u64_f32(a), svreinterpret_u64_f32(b)));
}
INLINE vec vec_pairs_odd(vec a, vec b) {
    return svreinterpret_f32_u64(svtrn2_u64(svreinterpret_u64_f32(a), svreinterpret_u64_f32(b)));
}
/* Lane j of quad i of register r becomes lane r of quad i of register j. */
INLINE void vec_transpose_quads(vec r[4]) {
    vec t0 = svtrn1_f32(r[0], r[1]), t1 = svtrn2_f32(r[0], r[1]);
    vec t2 = svtrn1_f32(r[2], r[3]), t3 = svtrn2_f32(r[2], r[3]);
    r[0] = vec_pairs_even(t0, t2);
    r[1] = vec_pairs_even(t1, t3);
    r[2] = vec_pairs_odd(t0, t2);
    r[3] = vec_pairs_odd(t1, t3);
}
/* Row i of the 8 x 8 matrix becomes column i. */
INLINE void vec_transpose(vec r[VEC_LANES]) {
    vec_transpose_quads(r);
    vec_transpose_quads(r + 4);
    UNROLL for (int i = 0; i < 4; i++) {
        vec low = svsel_f32(QUAD, r[i], vec_swap_quads(r[i + 4]));
        r[i + 4] = svsel_f32(QUAD, vec_swap_quads(r[i]), r[i + 4]);
        r[i] = low;
    }
}
/* Four floats from p, then four from q. */
INLINE vec vec_join(const float *p, const float *q) {
    return svsel_f32(QUAD, svld1_f32(QUAD, p), vec_load_quads(q));
}
/* Four floats from each of 8 columns: element l of all of them in register l. */
INLINE void vec_load_columns(const float *p, size_t stride, vec r[4]) {
    UNROLL for (size_t i = 0; i < 4; i++) r[i] = vec_join(p + i * stride, p + (i + 4) * stride);
    vec_transpose_quads(r);
}
/* The largest lanes of 8 registers: that of register i in lane i; no lane is NaN. */
INLINE vec vec_lane_max_each(const vec x[VEC_LANES]) {
    vec r[VEC_LANES];
    UNROLL for (int i = 0; i < VEC_LANES; i++) r[i] = x[i];
    vec_transpose(r);
    UNROLL for (int n = VEC_LANES / 2; n > 0; n /= 2) UNROLL for (int i = 0; i < n; i++) r[i] = vec_max(r[i], r[i + n]);
    return r[0];
}

#endif
