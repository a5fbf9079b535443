/* Steps of the attention loop. The scores of a tile lie in L1, in rows of ATTN_BLOCK floats: a pass of loads finds a
 * row's maximum, a second one replaces logits by probabilities. */
#include <math.h>

#include "body/elementary.h"
#include "body/objects.h"
#include "body/online_softmax.h"

static void ISA_FN(scale)(size_t rows, size_t size, const float *x, size_t x_stride, float factor, float *y,
                          size_t y_stride) {
    vec f = vec_set(factor);
    for (size_t r = 0; r < rows; r++)
        scale_row(x + r * x_stride, f, y + r * y_stride, size);
}

/* ---- Logits ---- */

/* In passes, so that no factor has to live through vec_tanh. */
static void ISA_FN(soft_cap)(float *x, size_t n, float cap, float inverse) {
    ISA_FN(scale)(1, n, x, 0, inverse, x, 0);
    for (size_t c = 0; c < n; c += VEC_LANES)
        vec_store_first(n - c, x + c, vec_tanh(vec_load_first(n - c, x + c)));
    ISA_FN(scale)(1, n, x, 0, cap, x, 0);
}

INLINE vec add_slope(vec x, vec slope, int32_t distance) {
    return vec_fma(slope, vec_distances(distance), x);
}

INLINE void bias_slope(float *x, size_t n, float slope, int32_t distance) {
    vec factor = vec_set(-slope);
    size_t c = 0;
    for (; c + VEC_LANES <= n; c += VEC_LANES)
        vec_store(x + c, add_slope(vec_load(x + c), factor, distance + (int32_t)c));
    if (c < n) {
        size_t left = n - c;
        vec_store_first(left, x + c, add_slope(vec_load_first(left, x + c), factor, distance + (int32_t)c));
    }
}

/* -inf hides, whatever logit and factor are: it is added, times 1, to +0. */
INLINE vec add_bias(vec x, vec factor, vec add) {
    vec_mask hidden = vec_equal(add, vec_set(-INFINITY));
    return vec_fma(vec_select(hidden, vec_set(1.0f), factor), add, vec_select(hidden, vec_zero(), x));
}

INLINE void bias_add(float *x, size_t n, float factor, const float *add) {
    vec f = vec_set(factor);
    size_t c = 0;
    for (; c + VEC_LANES <= n; c += VEC_LANES)
        vec_store(x + c, add_bias(vec_load(x + c), f, vec_load(add + c)));
    if (c < n) {
        size_t left = n - c;
        vec_store_first(left, x + c, add_bias(vec_load_first(left, x + c), f, vec_load_first(left, add + c)));
    }
}

INLINE vec hide_lanes(vec x, vec_mask hidden) {
    return vec_select(hidden, vec_set(-INFINITY), x);
}

INLINE void bias_visible(float *x, size_t n, const uint8_t *visible) {
    size_t c = 0;
    for (; c + VEC_LANES <= n; c += VEC_LANES)
        vec_store(x + c, hide_lanes(vec_load(x + c), vec_zero_bytes(VEC_LANES, visible + c)));
    if (c < n) {
        size_t left = n - c;
        vec_store_first(left, x + c, hide_lanes(vec_load_first(left, x + c), vec_zero_bytes(left, visible + c)));
    }
}

/* A pass for each part: the row lies in L1, and a logit seldom has more than one. */
static void ISA_FN(bias)(const struct attn_bias_args *args) {
    if (args->lo >= args->hi)
        return;
    size_t lo = args->lo, n = args->hi - lo;
    if (args->slope != 0.0f)
        bias_slope(args->x + lo, n, args->slope, args->distance + (int32_t)lo);
    if (args->add)
        bias_add(args->x + lo, n, args->factor, args->add + lo);
    if (args->visible)
        bias_visible(args->x + lo, n, args->visible + lo);
}

/* ---- Rotary embedding ---- */

INLINE vec rotated(vec x, vec partner, vec cos, vec sin) {
    return vec_fma(partner, sin, vec_mul(x, cos));
}

INLINE void rotate_pairs(const float *x, const float *cos, const float *sin, size_t dims, float *y) {
    for (size_t j = 0; j < dims; j += VEC_LANES) {
        size_t left = dims - j;
        vec v = vec_load_first(left, x + j);
        v = rotated(v, vec_swap_pairs(v), vec_load_first(left, cos + j), vec_load_first(left, sin + j));
        vec_store_first(left, y + j, v);
    }
}

INLINE void rotate_halves(const float *x, const float *cos, const float *sin, size_t half, float *y) {
    for (size_t j = 0; j < half; j += VEC_LANES) {
        size_t left = half - j, k = j + half;
        vec x0 = vec_load_first(left, x + j), x1 = vec_load_first(left, x + k);
        vec_store_first(left, y + j, rotated(x0, x1, vec_load_first(left, cos + j), vec_load_first(left, sin + j)));
        vec_store_first(left, y + k, rotated(x1, x0, vec_load_first(left, cos + k), vec_load_first(left, sin + k)));
    }
}

static void ISA_FN(rotate)(const float *x, const float *cos, const float *sin, size_t dims, int interleaved, float *y) {
    if (interleaved)
        rotate_pairs(x, cos, sin, dims, y);
    else
        rotate_halves(x, cos, sin, dims / 2, y);
}

/* ---- After the last block ---- */

static void ISA_FN(merge)(size_t rows, size_t size, float *max0, float *sum0, float *output0, const float *max1,
                          const float *sum1, const float *output1, size_t output_stride) {
    for (size_t r = 0; r < rows; r++, output0 += output_stride, output1 += output_stride) {
        float max = max1[r] > max0[r] ? max1[r] : max0[r], shift = max == -INFINITY ? 0.0f : max;
        vec f0 = vec_exp_low(vec_set(max0[r] - shift)), f1 = vec_exp_low(vec_set(max1[r] - shift));
        max0[r] = max + 0.0f;
        /* In whole registers: where its operand lies in memory, fmaf reads more than that under emulation (QEMU
         * 7.2). */
        vec_store_first(1, sum0 + r, vec_fma(vec_set(sum1[r]), f1, vec_mul(vec_set(sum0[r]), f0)));
        for (size_t j = 0; j < size; j += VEC_LANES) {
            size_t left = size - j;
            vec kept = vec_mul(vec_load_first(left, output0 + j), f0);
            vec_store_first(left, output0 + j, vec_fma(vec_load_first(left, output1 + j), f1, kept));
        }
    }
}

static void ISA_FN(sum)(size_t rows, const float *lanes, float *sum) {
    for (size_t r = 0; r < rows; r++, lanes += ATTN_LANES) {
        vec x[SUM_VECS];
        UNROLL for (size_t v = 0; v < SUM_VECS; v++) x[v] = vec_load(lanes + v * VEC_LANES);
        sum[r] = vec_lane_sum(x);
    }
}

INLINE void normalize_row(const float *output, vec f, float *out, size_t size) {
    size_t j = 0;
    for (; j + VEC_LANES <= size; j += VEC_LANES)
        vec_store(out + j, vec_add(vec_mul(vec_load(output + j), f), vec_zero()));
    if (j < size)
        vec_store_first(size - j, out + j, vec_add(vec_mul(vec_load_first(size - j, output + j), f), vec_zero()));
}

static void ISA_FN(normalize)(size_t rows, size_t size, const float *output, size_t output_stride, const float *inverse,
                              float *out, size_t out_stride) {
    for (size_t r = 0; r < rows; r++)
        normalize_row(output + r * output_stride, vec_set(inverse[r]), out + r * out_stride, size);
}

static void ISA_FN(weights)(const float *x, size_t lo, size_t hi, size_t cols, float shift, float inverse, float *y) {
    hi = hi < cols ? hi : cols;
    lo = lo < hi ? lo : hi;
    for (size_t c = lo; c < hi; c += VEC_LANES) {
        vec e = vec_exp_low_quiet(vec_sub(vec_load_logits(hi - c, x + c), vec_set(shift)));
        vec_store_first(hi - c, y + c, vec_mul(e, vec_set(inverse)));
    }
    clear_columns(y, 0, lo);
    clear_columns(y, hi, cols);
}

static void ISA_FN(scale_columns)(size_t rows, size_t n, float *x, size_t x_stride, const float *factors) {
    for (size_t r = 0; r < rows; r++, x += x_stride) {
        size_t c = 0;
        for (; c + VEC_LANES <= n; c += VEC_LANES)
            vec_store(x + c, vec_mul(vec_load(x + c), vec_load(factors + c)));
        if (c < n)
            vec_store_first(n - c, x + c, vec_mul(vec_load_first(n - c, x + c), vec_load_first(n - c, factors + c)));
    }
}

static int ISA_FN(all_finite)(const float *x, size_t n) {
    vec_magnitude m[4];
    UNROLL for (int i = 0; i < 4; i++) m[i] = vec_magnitude_of(vec_zero());
    size_t j = 0;
    for (; j + 4 * VEC_LANES <= n; j += 4 * VEC_LANES)
        UNROLL for (int i = 0; i < 4; i++) m[i] = vec_larger(m[i], vec_magnitude_of(vec_load(x + j + i * VEC_LANES)));
    for (; j < n; j += VEC_LANES)
        m[0] = vec_larger(m[0], vec_magnitude_of(vec_load_first(n - j, x + j)));
    UNROLL for (int i = 1; i < 4; i++) m[0] = vec_larger(m[0], m[i]);
    return vec_all_finite(m[0]);
}

const struct attn_attention_kernel ISA_OBJECT(attention) = {
    .name = ISA_NAME,
    .soft_cap = ISA_FN(soft_cap),
    .bias = ISA_FN(bias),
    .rotate = ISA_FN(rotate),
    .online_softmax = ISA_FN(online_softmax),
    .online_softmax_blocks = ISA_ONLINE_SOFTMAX_BLOCKS,
    .merge = ISA_FN(merge),
    .sum = ISA_FN(sum),
    .normalize = ISA_FN(normalize),
    .weights = ISA_FN(weights),
    .scale = ISA_FN(scale),
    .scale_columns = ISA_FN(scale_columns),
    .all_finite = ISA_FN(all_finite),
};
