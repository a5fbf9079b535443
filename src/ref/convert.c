/* Reference conversion of rows between types of elements. */
#include "ref/convert.h"
#include "kernels.h"

#include <string.h>

static uint32_t load_bits(const float *x) {
    uint32_t bits;
    memcpy(&bits, x, sizeof bits);
    return bits;
}

static void store_bits(float *y, uint32_t bits) {
    memcpy(y, &bits, sizeof bits);
}

static uint32_t bits_of_int(int8_t x) {
    float y = x;
    return load_bits(&y);
}

/* The bits of x[j], as a float. */
static uint32_t widened(attn_type type, const void *x, size_t j) {
    switch (type) {
    case ATTN_BF16:
        return ref_widen_bf16(((const uint16_t *)x)[j]);
    case ATTN_F16:
        return ref_widen_f16(((const uint16_t *)x)[j]);
    case ATTN_F8_E4M3:
        return ref_widen_e4m3(((const uint8_t *)x)[j]);
    case ATTN_F8_E5M2:
        return ref_widen_e5m2(((const uint8_t *)x)[j]);
    case ATTN_INT8:
        return bits_of_int(((const int8_t *)x)[j]);
    default:
        return load_bits((const float *)x + j);
    }
}

/* y[j] = the float with these bits. */
static void narrow_one(attn_type type, uint32_t bits, void *y, size_t j) {
    switch (type) {
    case ATTN_BF16:
        ((uint16_t *)y)[j] = ref_narrow_bf16(bits);
        break;
    case ATTN_F16:
        ((uint16_t *)y)[j] = ref_narrow_f16(bits);
        break;
    case ATTN_F8_E4M3:
        ((uint8_t *)y)[j] = ref_narrow_e4m3(bits);
        break;
    case ATTN_F8_E5M2:
        ((uint8_t *)y)[j] = ref_narrow_e5m2(bits);
        break;
    default:
        store_bits((float *)y + j, bits);
    }
}

static void widen(attn_type type, size_t n, const void *x, float *y) {
    for (size_t j = 0; j < n; j++)
        store_bits(y + j, widened(type, x, j));
}

static void narrow(attn_type type, size_t n, const float *x, void *y) {
    for (size_t j = 0; j < n; j++)
        narrow_one(type, load_bits(x + j), y, j);
}

static void normalize(attn_type type, const struct attn_normalize_args *args) {
    for (size_t r = 0; r < args->rows; r++)
        for (size_t j = 0; j < args->size; j++) { /* -0, also one that underflowed, becomes +0 */
            float x = args->output[r * args->output_stride + j] * args->inverse[r] + 0.0f;
            narrow_one(type, load_bits(&x), args->out, r * args->out_stride + j);
        }
}

static void round_bf16(size_t n, const float *x, float *y) {
    for (size_t j = 0; j < n; j++)
        store_bits(y + j, ref_widen_bf16(ref_narrow_bf16(load_bits(x + j))));
}

const struct attn_convert_kernel attn_ref_convert = {
    .name = "scalar", .widen = widen, .narrow = narrow, .normalize = normalize, .round_bf16 = round_bf16};
