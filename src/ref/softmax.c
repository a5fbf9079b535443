/* Reference masked softmax. */
#include "kernels.h"
#include "ref/elementary.h"

static float softmax_max(const float *x, size_t n) {
    float max = -INFINITY;
    for (size_t c = 0; c < n; c++)
        max = x[c] > max ? x[c] : max;
    return max;
}

static void softmax_row(const float *x, size_t valid, size_t cols, float *y) {
    float max = softmax_max(x, valid), shift = max == -INFINITY ? 0.0f : max;

    float lanes[ATTN_LANES] = {0};
    for (size_t c = 0; c < valid; c++) {
        y[c] = ref_exp(x[c] - shift);
        lanes[c % ATTN_LANES] += y[c];
    }
    float sum = attn_lane_sum(lanes);
    float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    for (size_t c = 0; c < valid; c++)
        y[c] *= inverse;
    for (size_t c = valid; c < cols; c++)
        y[c] = 0.0f;
}

const struct attn_softmax_kernel attn_ref_softmax = {.name = "scalar", .max = softmax_max, .row = softmax_row};
