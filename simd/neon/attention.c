/* Steps of the attention loop for NEON. The scores tile (6 rows of 256 floats) lies in L1: a pass of loads finds the maximum,
 * a second one replaces logits by probabilities, four registers at a time, one for each quarter of the 16 lanes: as many exp
 * are in flight. Both passes need no mask: invisible logits in the registers at the ends are made -inf first, whose
 * probability is the +0 asked for. */
#include <math.h>

#include "exp.h"
#include "kernels.h"

INLINE float shift_of(float max) {
    return max == -INFINITY ? 0.0f : max;
}

INLINE float exp_one(float x) {
    return vgetq_lane_f32(vec_exp_low(vec_set(x)), 0);
}

/* Lanes of the vector at column c that lie in [lo, hi). */
INLINE vec_mask visible(size_t c, size_t lo, size_t hi) {
    return vec_lanes(lo > c ? lo - c : 0, hi > c ? hi - c : 0);
}

/* -inf over the invisible ones of the 16 logits at column c. */
INLINE void hide(float *p, size_t c, size_t lo, size_t hi) {
    for (size_t end = c + ATTN_LANES; c < end; c += VEC_LANES)
        vec_store(p + c, vec_select(visible(c, lo, hi), vec_load(p + c), vec_set(-INFINITY)));
}

INLINE void clear(float *p, size_t lo, size_t hi) {
    for (size_t c = lo; c < hi; c += VEC_LANES)
        vec_store_first(hi - c, p + c, vec_zero());
}

static void scale(const float *x, float factor, float *y, size_t n) {
    vec f = vec_set(factor);
    for (size_t j = 0; j < n; j += VEC_LANES)
        vec_store_first(n - j, y + j, vec_mul(vec_load_first(n - j, x + j), f));
}

/* lo and hi are multiples of 16 here. */
static float row_max(const float *p, size_t lo, size_t hi, float max) {
    vec m[SUM_VECS];
    UNROLL for (size_t v = 0; v < SUM_VECS; v++) m[v] = vec_set(max);
    for (size_t c = lo; c < hi; c += ATTN_LANES)
        UNROLL for (size_t v = 0; v < SUM_VECS; v++) m[v] = vec_max(m[v], vec_load(p + c + v * VEC_LANES));
    return vec_lane_max(m) + 0.0f;
}

static void block_row(const struct attn_block_args *args, size_t r) {
    float *p = args->scores + r * args->score_stride;
    size_t lo = args->lo[r], hi = args->hi[r];
    size_t first = lo / ATTN_LANES * ATTN_LANES, last = (hi + ATTN_LANES - 1) / ATTN_LANES * ATTN_LANES;
    if (first < lo)
        hide(p, first, lo, hi);
    if (hi < last)
        hide(p, last - ATTN_LANES, lo, hi);
    float max = row_max(p, first, last, args->max[r]), shift = shift_of(max),
          correction = exp_one(args->max[r] - shift);
    float *output = args->output + r * args->output_stride, *lane = args->lanes + r * ATTN_LANES;
    args->max[r] = max;
    if (correction != 1.0f)
        scale(output, correction, output, args->size);

    vec lanes[SUM_VECS], s = vec_set(shift), factor = vec_set(correction);
    UNROLL for (size_t v = 0; v < SUM_VECS; v++) lanes[v] = vec_mul(vec_load(lane + v * VEC_LANES), factor);
    clear(p, args->begin, first);
    for (size_t c = first; c < last; c += ATTN_LANES)
        UNROLL for (size_t v = 0; v < SUM_VECS; v++) {
            vec e = vec_exp_low(vec_sub(vec_load(p + c + v * VEC_LANES), s));
            lanes[v] = vec_add(lanes[v], e);
            vec_store(p + c + v * VEC_LANES, e);
        }
    clear(p, last, args->end);
    UNROLL for (size_t v = 0; v < SUM_VECS; v++) vec_store(lane + v * VEC_LANES, lanes[v]);
}

static void block(const struct attn_block_args *args) {
    for (size_t r = 0; r < args->rows; r++) {
        if (args->lo[r] < args->hi[r])
            block_row(args, r);
        else
            clear(args->scores + r * args->score_stride, args->begin, args->end);
    }
}

static void merge(size_t rows, size_t size, float *max0, float *sum0, float *output0, const float *max1,
                  const float *sum1, const float *output1, size_t output_stride) {
    for (size_t r = 0; r < rows; r++) {
        float max = max1[r] > max0[r] ? max1[r] : max0[r], shift = shift_of(max);
        float f0 = exp_one(max0[r] - shift), f1 = exp_one(max1[r] - shift);
        max0[r] = max + 0.0f;
        sum0[r] = fmaf(sum1[r], f1, sum0[r] * f0);
        float *o0 = output0 + r * output_stride;
        const float *o1 = output1 + r * output_stride;
        for (size_t j = 0; j < size; j += VEC_LANES) {
            size_t n = size - j;
            vec kept = vec_mul(vec_load_first(n, o0 + j), vec_set(f0));
            vec_store_first(n, o0 + j, vec_fma(vec_load_first(n, o1 + j), vec_set(f1), kept));
        }
    }
}

static void sum(size_t rows, const float *lanes, float *sum) {
    for (size_t r = 0; r < rows; r++, lanes += ATTN_LANES) {
        vec x[SUM_VECS];
        UNROLL for (size_t v = 0; v < SUM_VECS; v++) x[v] = vec_load(lanes + v * VEC_LANES);
        sum[r] = vec_lane_sum(x);
    }
}

static void finish(const float *output, float inverse, float *out, size_t size) {
    for (size_t j = 0; j < size; j += VEC_LANES) {
        size_t n = size - j;
        vec_store_first(n, out + j, vec_add(vec_mul(vec_load_first(n, output + j), vec_set(inverse)), vec_zero()));
    }
}

static void weights(const float *x, size_t lo, size_t hi, size_t cols, float shift, float inverse, float *y) {
    hi = hi < cols ? hi : cols;
    lo = lo < hi ? lo : hi;
    for (size_t c = lo; c < hi; c += VEC_LANES) {
        vec e = vec_exp_low(vec_sub(vec_load_first(hi - c, x + c), vec_set(shift)));
        vec_store_first(hi - c, y + c, vec_mul(e, vec_set(inverse)));
    }
    clear(y, 0, lo);
    clear(y, hi, cols);
}

static int all_finite(const float *x, size_t n) {
    for (size_t j = 0; j < n; j += VEC_LANES)
        if (!vec_all_finite(vec_load_first(n - j, x + j)))
            return 0;
    return 1;
}

const struct attn_attention_kernel attn_neon_attention = {.name = "neon",
                                                          .block = block,
                                                          .merge = merge,
                                                          .sum = sum,
                                                          .finish = finish,
                                                          .weights = weights,
                                                          .scale = scale,
                                                          .all_finite = all_finite};
