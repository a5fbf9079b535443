/* AArch64 Advanced SIMD: 4 floats a register, 32 registers, element counts for tails. */
#ifndef ATTN_NEON_VEC_H
#define ATTN_NEON_VEC_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define VEC_LANES 4
#define SUM_VECS  (16 / VEC_LANES) /* registers that hold the 16 lanes of a sum */
#define INLINE    static inline __attribute__((always_inline))

/* Names carry the ISA, unless one that builds on this has its own, so that profilers and debuggers tell the kernels
 * apart: ISA_FN(f) is neon_f, ISA_OBJECT(f) attn_neon_f. */
#ifndef ISA_NAME
#define ISA_NAME         "neon"
#define ISA_FN(name)     neon_##name
#define ISA_OBJECT(name) attn_neon_##name
#endif

/* Every loop so marked vanishes: its arrays are registers. Clang takes GCC's pragma as a partial unrolling. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* For AVX2, which has fewer registers. */
#define vec_settle(x) ((void)0)

typedef float32x4_t vec;
typedef uint32x4_t vec_mask; /* all bits of each lane that exists */

INLINE vec vec_zero(void) {
    return vdupq_n_f32(0.0f);
}
INLINE vec vec_set(float x) {
    return vdupq_n_f32(x);
}
INLINE vec vec_load(const float *p) {
    return vld1q_f32(p);
}
INLINE void vec_store(float *p, vec x) {
    vst1q_f32(p, x);
}
/* Four floats in each quad; the float at p in the first lane of each, for vec_fma_lane. */
INLINE vec vec_load_quads(const float *p) {
    return vec_load(p);
}
INLINE vec vec_load_one(const float *p) {
    return vld1q_lane_f32(p, vec_zero(), 0);
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
    return vfmaq_f32(c, a, b);
}
/* acc += x * y[lane], lane a literal. As an intrinsic gcc 12 reorders a tile's loads and spills accumulators (48
 * times in the 6 x 16 loop); volatile keeps the order that is written. */
#define vec_fma_lane(acc, x, y, lane)                                                                                  \
    __asm__ volatile("fmla %0.4s, %1.4s, %2.s[" #lane "]" : "+w"(acc) : "w"(x), "w"(y))
INLINE vec vec_mul(vec a, vec b) {
    return vmulq_f32(a, b);
}
INLINE vec vec_add(vec a, vec b) {
    return vaddq_f32(a, b);
}
INLINE vec vec_sub(vec a, vec b) {
    return vsubq_f32(a, b);
}

/* a - b; outside the mask +0, and nothing is computed that could raise an exception. */
INLINE vec vec_sub_mask(vec_mask mask, vec a, vec b) {
    uint32x4_t left = vandq_u32(mask, vreinterpretq_u32_f32(a)), right = vandq_u32(mask, vreinterpretq_u32_f32(b));
    return vec_sub(vreinterpretq_f32_u32(left), vreinterpretq_f32_u32(right));
}

/* x > m ? x : m, so that NaN in x is passed over. A signalling NaN is not; but no arithmetic makes one, and a row
 * that holds one is NaN whatever its maximum. */
INLINE vec vec_max(vec m, vec x) {
    return vmaxnmq_f32(m, x);
}

/* Lanes lo <= i < hi. */
INLINE vec_mask vec_lanes(size_t lo, size_t hi) {
    static const uint32_t index[VEC_LANES] = {0, 1, 2, 3};
    uint32x4_t i = vld1q_u32(index);
    return vandq_u32(vcgeq_u32(i, vdupq_n_u32((uint32_t)lo)), vcltq_u32(i, vdupq_n_u32((uint32_t)hi)));
}
/* The first n lanes, all from VEC_LANES up. The others are neither read nor written; loaded they are +0. */
INLINE vec vec_load_first(size_t n, const float *p) {
    if (n >= VEC_LANES)
        return vec_load(p);
    vec x = vec_zero();
    if (n >= 2)
        x = vcombine_f32(vld1_f32(p), vdup_n_f32(0.0f));
    if (n == 3)
        x = vld1q_lane_f32(p + 2, x, 2);
    if (n == 1)
        x = vld1q_lane_f32(p, x, 0);
    return x;
}
INLINE void vec_store_first(size_t n, float *p, vec x) {
    if (n >= VEC_LANES) {
        vec_store(p, x);
        return;
    }
    if (n >= 2)
        vst1_f32(p, vget_low_f32(x));
    if (n == 3)
        vst1q_lane_f32(p + 2, x, 2);
    if (n == 1)
        vst1q_lane_f32(p, x, 0);
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
    return vbslq_f32(mask, x, other);
}
/* Lanes where a is b. */
INLINE vec_mask vec_equal(vec a, vec b) {
    return vceqq_f32(a, b);
}
/* The first n lanes, -inf beyond: that changes no maximum, and its exp, +0, changes no sum. */
INLINE vec vec_load_logits(size_t n, const float *p) {
    return n < VEC_LANES ? vec_select(vec_lanes(0, n), vec_load_first(n, p), vec_set(-__builtin_inff())) : vec_load(p);
}

/* Lanes whose byte is 0, of the first n bytes; the others are not read, and their lanes are open. */
INLINE vec_mask vec_zero_bytes(size_t n, const uint8_t *p) {
    uint32_t bytes = 0;
    uint16_t two;
    if (n >= VEC_LANES)
        memcpy(&bytes, p, sizeof bytes);
    else {
        if (n & 1)
            bytes = p[n - 1];
        if (n & 2) {
            memcpy(&two, p, sizeof two);
            bytes = bytes << 16 | two;
        }
    }
    int8x8_t zero = vreinterpret_s8_u8(vceqz_u8(vreinterpret_u8_u32(vdup_n_u32(bytes))));
    return vreinterpretq_u32_s32(vmovl_s16(vget_low_s16(vmovl_s8(zero))));
}

/* abs(first), abs(first + 1) and so on, each a rounded integer. */
INLINE vec vec_distances(int32_t first) {
    static const int32_t lane[VEC_LANES] = {0, 1, 2, 3};
    return vabsq_f32(vcvtq_f32_s32(vaddq_s32(vdupq_n_s32(first), vld1q_s32(lane))));
}

/* Lanes 1, 0, 3, 2. */
INLINE vec vec_swap_pairs(vec x) {
    return vrev64q_f32(x);
}

/* Sums stay in registers: gcc would keep two of four on the stack. */
#define vec_pin(x) __asm__("" : "+w"(x))

/* The tree of attn_lane_sum. */
INLINE float vec_lane_sum(const vec x[SUM_VECS]) {
    vec t4 = vec_add(vec_add(x[0], x[2]), vec_add(x[1], x[3]));
    float32x2_t t2 = vadd_f32(vget_low_f32(t4), vget_high_f32(t4));
    return vget_lane_f32(t2, 0) + vget_lane_f32(t2, 1);
}

/* The largest lane; no lane is NaN, and which of two zeros comes out is open. */
INLINE float vec_lane_max(vec x) {
    return vmaxnmvq_f32(x);
}

/* The same of 4 registers: that of register i in lane i. */
INLINE vec vec_lane_max_each(const vec x[VEC_LANES]) {
    return vpmaxnmq_f32(vpmaxnmq_f32(x[0], x[1]), vpmaxnmq_f32(x[2], x[3]));
}

/* Lanes i < n where a[i] is less than b[i]. */
INLINE vec_mask vec_less_counts(size_t n, const uint32_t *a, const uint32_t *b) {
    uint32_t left[VEC_LANES] = {0}, right[VEC_LANES] = {0};
    if (n < VEC_LANES) {
        for (size_t i = 0; i < n; i++)
            left[i] = a[i], right[i] = b[i];
        a = left, b = right;
    }
    return vcltq_u32(vld1q_u32(a), vld1q_u32(b));
}

/* Magnitudes as the integers that their bits are: infinity's, 0x7f800000, is above those of numbers, NaN's above it.
 * No operation here raises an exception. */
typedef uint32x4_t vec_magnitude;

INLINE vec_magnitude vec_magnitude_of(vec x) {
    return vbicq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x80000000));
}
INLINE vec_magnitude vec_larger(vec_magnitude a, vec_magnitude b) {
    return vmaxq_u32(a, b);
}
/* 1 where no lane is infinity's or NaN's. */
INLINE int vec_all_finite(vec_magnitude m) {
    return vmaxvq_u32(m) < 0x7f800000;
}

/* ---- What elementary functions are made of ---- */

/* SLEEF's function of that name for one register. */
#define VEC_SLEEF(name) Sleef_finz_##name##f4_u10advsimd

INLINE vec vec_div(vec a, vec b) {
    return vdivq_f32(a, b);
}
INLINE vec vec_neg(vec x) {
    return -x;
}
/* The nearest integer, the even one of two. */
INLINE vec vec_round(vec x) {
    return vrndnq_f32(x);
}
INLINE vec vec_abs(vec x) {
    return vabsq_f32(x);
}
/* abs(x) with the sign of `sign`. */
INLINE vec vec_copysign(vec x, vec sign) {
    return vbslq_f32(vdupq_n_u32(0x80000000), sign, x);
}

/* An int32 in each lane. No operation on them raises an exception. */
typedef int32x4_t vec_int;

INLINE vec_int vec_int_set(int32_t i) {
    return vdupq_n_s32(i);
}
INLINE vec_int vec_bits(vec x) {
    return vreinterpretq_s32_f32(x);
}
INLINE vec vec_from_bits(vec_int i) {
    return vreinterpretq_f32_s32(i);
}
/* Of an integral x. */
INLINE vec_int vec_to_int(vec x) {
    return vcvtq_s32_f32(x);
}
INLINE vec vec_from_int(vec_int i) {
    return vcvtq_f32_s32(i);
}
INLINE vec_int vec_int_add(vec_int a, vec_int b) {
    return vaddq_s32(a, b);
}
INLINE vec_int vec_int_sub(vec_int a, vec_int b) {
    return vsubq_s32(a, b);
}
INLINE vec_int vec_int_and(vec_int a, vec_int b) {
    return vandq_s32(a, b);
}
INLINE vec_int vec_int_or(vec_int a, vec_int b) {
    return vorrq_s32(a, b);
}
/* a & ~b */
INLINE vec_int vec_int_and_not(vec_int a, vec_int b) {
    return vbicq_s32(a, b);
}
#define vec_int_shift_left(a, n)  vshlq_n_s32(a, n)
#define vec_int_shift_right(a, n) vshrq_n_s32(a, n) /* copies of the sign come in */
/* -x where i is odd. */
INLINE vec vec_flip(vec x, vec_int i) {
    return vec_from_bits(veorq_s32(vec_bits(x), vec_int_shift_left(i, 31)));
}
/* Lanes where a is greater than b. */
INLINE vec_mask vec_int_greater(vec_int a, vec_int b) {
    return vcgtq_s32(a, b);
}

/* ---- Elements of 16 bits ---- */

/* One for each lane. */
typedef uint16x4_t vec_u16;

INLINE vec_u16 vec_load_u16(const uint16_t *p) {
    return vld1_u16(p);
}
INLINE void vec_store_u16(uint16_t *p, vec_u16 x) {
    vst1_u16(p, x);
}
/* The first n, all from VEC_LANES up. The others are neither read nor written; loaded they are 0. */
INLINE vec_u16 vec_load_u16_first(size_t n, const uint16_t *p) {
    if (n >= VEC_LANES)
        return vec_load_u16(p);
    vec_u16 x = vdup_n_u16(0);
    if (n >= 1)
        x = vld1_lane_u16(p, x, 0);
    if (n >= 2)
        x = vld1_lane_u16(p + 1, x, 1);
    if (n == 3)
        x = vld1_lane_u16(p + 2, x, 2);
    return x;
}
INLINE void vec_store_u16_first(size_t n, uint16_t *p, vec_u16 x) {
    if (n >= VEC_LANES) {
        vec_store_u16(p, x);
        return;
    }
    if (n >= 1)
        vst1_lane_u16(p, x, 0);
    if (n >= 2)
        vst1_lane_u16(p + 1, x, 1);
    if (n == 3)
        vst1_lane_u16(p + 2, x, 2);
}
/* From and to the upper 16 bits of each lane; the lower ones become 0, or are left out. */
INLINE vec_int vec_from_upper(vec_u16 x) {
    return vreinterpretq_s32_u32(vshll_n_u16(x, 16));
}
INLINE vec_u16 vec_to_upper(vec_int i) {
    return vshrn_n_u32(vreinterpretq_u32_s32(i), 16);
}
/* From and to IEEE binary16. */
INLINE vec vec_from_f16(vec_u16 x) {
    return vcvt_f32_f16(vreinterpret_f16_u16(x));
}
INLINE vec_u16 vec_to_f16(vec x) {
    return vreinterpret_u16_f16(vcvt_f16_f32(x));
}

/* ---- Elements of 8 bits ---- */

/* 16 bits for each lane of two registers, or of one in the lower half. `n` registers, 1 or 2, a literal. */
typedef uint16x8_t vec_u16s;

/* Bytes, their sign copied upwards. */
INLINE vec_u16s vec_u16s_load_s8(const int8_t *p, const int n) {
    if (n == 2)
        return vreinterpretq_u16_s16(vmovl_s8(vld1_s8(p)));
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return vreinterpretq_u16_s16(vmovl_s8(vcreate_s8(four)));
}
#define vec_u16s_shift_left(a, n) vshlq_n_u16(a, n)
INLINE vec_u16s vec_u16s_add(vec_u16s a, uint16_t b) {
    return vaddq_u16(a, vdupq_n_u16(b));
}
/* a ^ (b & mask) */
INLINE vec_u16s vec_u16s_flip(vec_u16s a, vec_u16s b, uint16_t mask) {
    return veorq_u16(a, vandq_u16(b, vdupq_n_u16(mask)));
}
/* Floats of F16s. */
INLINE void vec_f16s_widen(vec_u16s a, vec *x, const int n) {
    x[0] = vec_from_f16(vget_low_u16(a));
    if (n == 2)
        x[1] = vec_from_f16(vget_high_u16(a));
}

/* A byte for each lane, its sign copied upwards, or zeros. */
INLINE vec_int vec_load_s8(const int8_t *p) {
    return vmovl_s16(vget_low_s16(vreinterpretq_s16_u16(vec_u16s_load_s8(p, 1))));
}
INLINE vec_int vec_load_u8(const uint8_t *p) {
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four)))));
}
/* The lowest 8 bits of each lane. */
INLINE void vec_store_s8(int8_t *p, vec_int i) {
    int16x4_t halves = vmovn_s32(i);
    int8x8_t bytes = vmovn_s16(vcombine_s16(halves, halves));
    uint32_t four = vget_lane_u32(vreinterpret_u32_s8(bytes), 0);
    memcpy(p, &four, sizeof four);
}

/* ---- Transposes ---- */

/* Row i of the 4 x 4 matrix becomes column i. */
INLINE void vec_transpose(vec r[VEC_LANES]) {
    float64x2_t t0 = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1])), t1 = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
    float64x2_t t2 = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3])), t3 = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));
    r[0] = vreinterpretq_f32_f64(vtrn1q_f64(t0, t2));
    r[1] = vreinterpretq_f32_f64(vtrn1q_f64(t1, t3));
    r[2] = vreinterpretq_f32_f64(vtrn2q_f64(t0, t2));
    r[3] = vreinterpretq_f32_f64(vtrn2q_f64(t1, t3));
}

/* The same: a register is one quad. */
INLINE void vec_transpose_quads(vec r[4]) {
    vec_transpose(r);
}

/* Four floats from each of 4 columns: element l of all of them in register l. */
INLINE void vec_load_columns(const float *p, size_t stride, vec r[4]) {
    UNROLL for (size_t i = 0; i < 4; i++) r[i] = vec_load(p + i * stride);
    vec_transpose(r);
}

#endif
