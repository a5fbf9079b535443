/* Reference masked softmax. */
#include "kernels.h"
#include "ref/elementary.h"
#include "types.h"

extern const struct attn_convert_kernel attn_ref_convert;

static float logit_at(attn_type type, const void *x, size_t c) {
    float logit;
    attn_ref_convert.widen(type, 1, (const char *)x + c * attn_type_size(type), &logit);
    return logit;
}

static float max_of(attn_type type, const void *x, size_t n) {
    float max = -INFINITY;
    for (size_t c = 0; c < n; c++) {
        float logit = logit_at(type, x, c);
        max = logit > max ? logit : max;
    }
    return max;
}

static __attribute__((noinline)) float exp_at(attn_type type, const void *x, size_t c, float shift) {
    return ref_exp(logit_at(type, x, c) - shift);
}

static float sum_of(attn_type type, const void *x, size_t n, float shift) {
    float lanes[ATTN_LANES] = {0};
    for (size_t c = 0; c < n; c++)
        lanes[c % ATTN_LANES] += exp_at(type, x, c, shift);
    return attn_lane_sum(lanes);
}

static void softmax_row(const struct attn_softmax_rows *args, const void *x, size_t valid, void *y) {
    size_t element = attn_type_size(args->to);
    float max = max_of(args->from, x, valid), shift = max == -INFINITY ? 0.0f : max;
    float sum = sum_of(args->from, x, valid, shift), inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    for (size_t c = 0; c < valid; c++) {
        float p = exp_at(args->from, x, c, shift) * inverse;
        attn_ref_convert.narrow(args->to, 1, &p, (char *)y + c * element);
    }
    memset((char *)y + valid * element, 0, (args->cols - valid) * element);
}

static void softmax_rows(const struct attn_softmax_rows *args) {
    for (size_t i = 0; i < args->rows; i++)
        if (args->valid[i] > 0)
            softmax_row(args, (const char *)args->x + i * args->x_stride, args->valid[i],
                        (char *)args->y + i * args->y_stride);
}

const struct attn_softmax_kernel attn_ref_softmax = {.name = "scalar", .rows = softmax_rows};
