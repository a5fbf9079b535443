/* Reference of what the classes of integers do with rows of A. */
#include "ref/quantise.h"

#include "ref/convert.h"
#include "types.h"

static float load(const struct attn_quantise_args *args, size_t i, size_t p) {
    const char *element = (const char *)args->x + i * args->x_stride + p * attn_type_size(args->type);
    uint32_t bits;
    uint16_t half;
    if (args->type == ATTN_F32) {
        memcpy(&bits, element, sizeof bits);
    } else {
        memcpy(&half, element, sizeof half);
        bits = args->type == ATTN_BF16 ? ref_widen_bf16(half) : ref_widen_f16(half);
    }
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The largest magnitude of the row; NaN where an element is not finite. */
static float largest_of(const struct attn_quantise_args *args, size_t i) {
    float largest = 0.0f;
    for (size_t p = 0; p < args->k; p++) {
        float x = fabsf(load(args, i, p));
        if (!isfinite(x))
            return NAN;
        largest = x > largest ? x : largest;
    }
    return largest;
}

static void quantise_row(const struct attn_quantise_args *args, size_t i) {
    char *row = (char *)args->a + i * args->a_stride;
    float largest = largest_of(args, i), inverse = 0.0f, scale = isnan(largest) ? NAN : 0.0f;
    int32_t sum = 0;
    if (largest >= ATTN_QUANTISE_LEAST) {
        inverse = 127.0f / largest;
        scale = largest / 127.0f;
    }
    memset(row, 0, attn_quantised_padded(args->k));
    attn_quantised_set_sum(row, args->k, 0, 0);
    for (size_t p = 0; p < args->k; p++) {
        int8_t q = 0;
        if (inverse > 0.0f)
            q = (int8_t)rintf(load(args, i, p) * inverse);
        memcpy(row + p, &q, sizeof q);
        sum += q;
        if (p + 1 == args->k || (p + 1) % args->block == 0) {
            attn_quantised_set_sum(row, args->k, p / args->block, sum);
            sum = 0;
        }
    }
    attn_quantised_set_scale(row, args->k, scale);
}

void attn_ref_quantise(const struct attn_quantise_args *args) {
    for (size_t i = 0; i < args->m; i++)
        quantise_row(args, i);
}
