/* Reference of attention's steps of class BF16. */
#include <math.h>

#include "kernels.h"
#include "ref/convert.h"
#include "ref/elementary.h"

static float shift_of(float max) {
    return max == -INFINITY ? 0.0f : max;
}

static float exp2_low(float t) {
    if (isnan(t))
        return t;
    if (t < -125.0f)
        return 0.0f;
    float n = rintf(t), f = t - n;
    return ldexpf(attn_fmaf(attn_fmaf(attn_fmaf(ATTN_EXP2_C3, f, ATTN_EXP2_C2), f, ATTN_EXP2_C1), f, 1.0f), (int)n);
}

static float rounded(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = ref_widen_bf16(ref_narrow_bf16(bits));
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void take_row(const struct attn_online_softmax_args *args, size_t r) {
    float *p = args->scores + r * args->score_stride, scale = args->scale, max = args->max[r];
    size_t lo = args->lo[r], hi = args->hi[r];
    for (size_t c = lo; c < hi; c++) {
        p[c] *= scale;
        max = p[c] > max ? p[c] : max;
    }
    float shift = shift_of(max), rescale = ref_exp(args->max[r] - shift);
    args->max[r] = max + 0.0f;
    args->rescale[r] = rescale;
    float *lanes = args->lanes + r * ATTN_LANES;
    for (size_t i = 0; i < ATTN_LANES; i++)
        lanes[i] *= rescale;
    for (size_t c = lo; c < hi; c++) {
        float e = exp2_low((p[c] - shift) * ATTN_LOG2_E);
        lanes[c % ATTN_LANES] += e;
        p[c] = rounded(e);
    }
}

static void online_softmax(const struct attn_online_softmax_args *args) {
    for (size_t r = 0; r < args->rows; r++) {
        args->rescale[r] = 1.0f;
        if (args->lo[r] < args->hi[r])
            take_row(args, r);
        for (size_t c = args->begin; c < args->end; c++)
            if (c < args->lo[r] || c >= args->hi[r])
                args->scores[r * args->score_stride + c] = 0.0f;
    }
}

const struct attn_bf16_kernel attn_ref_bf16 = {.name = "scalar", .type = ATTN_F32, .online_softmax = online_softmax};
