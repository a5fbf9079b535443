/* Reference steps of the attention loop. */
#include "kernels.h"
#include "ref/elementary.h"

static void soft_cap(float *x, size_t n, float cap, float inverse) {
    for (size_t c = 0; c < n; c++)
        x[c] = cap * ref_tanh(x[c] * inverse);
}

static void bias(const struct attn_bias_args *args) {
    for (size_t c = args->lo; c < args->hi; c++) {
        float *x = args->x + c;
        if (args->slope != 0.0f)
            *x = attn_fmaf(-args->slope, fabsf((float)(args->distance + (int32_t)c)), *x);
        if (args->add)
            *x = args->add[c] == -INFINITY ? -INFINITY : attn_fmaf(args->factor, args->add[c], *x);
        if (args->visible && !args->visible[c])
            *x = -INFINITY;
    }
}

static void rotate(const float *x, const float *cos, const float *sin, size_t dims, int interleaved, float *y) {
    for (size_t i = 0; i < dims / 2; i++) {
        size_t j0 = interleaved ? 2 * i : i, j1 = interleaved ? j0 + 1 : j0 + dims / 2;
        float x0 = x[j0], x1 = x[j1];
        y[j0] = attn_fmaf(x1, sin[j0], x0 * cos[j0]);
        y[j1] = attn_fmaf(x0, sin[j1], x1 * cos[j1]);
    }
}

static float shift_of(float max) {
    return max == -INFINITY ? 0.0f : max;
}

static void online_softmax_row(const struct attn_online_softmax_args *args, size_t r) {
    float *p = args->scores + r * args->score_stride;
    size_t lo = args->lo[r], hi = args->hi[r];
    args->rescale[r] = 1.0f;
    if (lo < hi) {
        float max = args->max[r];
        for (size_t c = lo; c < hi; c++)
            max = p[c] > max ? p[c] : max;
        float shift = shift_of(max), rescale = ref_exp(args->max[r] - shift);
        args->max[r] = max + 0.0f; /* of two zeros either may be the maximum: it is +0 */

        args->rescale[r] = rescale;
        float *lanes = args->lanes + r * ATTN_LANES;
        for (size_t i = 0; i < ATTN_LANES; i++)
            lanes[i] *= rescale;
        for (size_t c = lo; c < hi; c++) {
            p[c] = ref_exp(p[c] - shift);
            lanes[c % ATTN_LANES] += p[c];
        }
    }
    for (size_t c = args->begin; c < args->end; c++)
        if (c < lo || c >= hi)
            p[c] = 0.0f;
}

static void online_softmax(const struct attn_online_softmax_args *args) {
    for (size_t r = 0; r < args->rows; r++)
        online_softmax_row(args, r);
}

static void merge(size_t rows, size_t size, float *max0, float *sum0, float *output0, const float *max1,
                  const float *sum1, const float *output1, size_t output_stride) {
    for (size_t r = 0; r < rows; r++) {
        float max = max1[r] > max0[r] ? max1[r] : max0[r], shift = shift_of(max);
        float f0 = ref_exp(max0[r] - shift), f1 = ref_exp(max1[r] - shift);
        max0[r] = max + 0.0f;
        sum0[r] = attn_fmaf(sum1[r], f1, sum0[r] * f0);
        for (size_t j = r * output_stride; j < r * output_stride + size; j++)
            output0[j] = attn_fmaf(output1[j], f1, output0[j] * f0);
    }
}

static void sum(size_t rows, const float *lanes, float *sum) {
    for (size_t r = 0; r < rows; r++)
        sum[r] = attn_lane_sum(lanes + r * ATTN_LANES);
}

static void normalize(size_t rows, size_t size, const float *output, size_t output_stride, const float *inverse,
                      float *out, size_t out_stride) {
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < size; j++) /* -0, also one that underflowed, becomes +0 */
            out[r * out_stride + j] = output[r * output_stride + j] * inverse[r] + 0.0f;
}

static void weights(const float *x, size_t lo, size_t hi, size_t cols, float shift, float inverse, float *y) {
    for (size_t c = 0; c < cols; c++)
        y[c] = lo <= c && c < hi ? ref_exp(x[c] - shift) * inverse : 0.0f;
}

static void scale(size_t rows, size_t size, const float *x, size_t x_stride, float factor, float *y, size_t y_stride) {
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < size; j++)
            y[r * y_stride + j] = x[r * x_stride + j] * factor;
}

static void scale_columns(size_t rows, size_t n, float *x, size_t x_stride, const float *factors) {
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < n; c++)
            x[r * x_stride + c] = x[r * x_stride + c] * factors[c];
}

static int all_finite(const float *x, size_t n) {
    for (size_t j = 0; j < n; j++)
        if (!isfinite(x[j]))
            return 0;
    return 1;
}

const struct attn_attention_kernel attn_ref_attention = {.name = "scalar",
                                                         .soft_cap = soft_cap,
                                                         .bias = bias,
                                                         .rotate = rotate,
                                                         .online_softmax = online_softmax,
                                                         .merge = merge,
                                                         .sum = sum,
                                                         .normalize = normalize,
                                                         .weights = weights,
                                                         .scale = scale,
                                                         .scale_columns = scale_columns,
                                                         .all_finite = all_finite};
