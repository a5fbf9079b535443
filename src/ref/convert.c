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

static void widen(attn_type type, size_t n, const void *x, float *y) {
    const float *floats = x;
    const uint16_t *halves = x;
    for (size_t j = 0; j < n; j++)
        if (type == ATTN_BF16)
            store_bits(y + j, ref_widen_bf16(halves[j]));
        else if (type == ATTN_F16)
            store_bits(y + j, ref_widen_f16(halves[j]));
        else
            store_bits(y + j, load_bits(floats + j));
}

static void narrow(attn_type type, size_t n, const float *x, void *y) {
    float *floats = y;
    uint16_t *halves = y;
    for (size_t j = 0; j < n; j++)
        if (type == ATTN_BF16)
            halves[j] = ref_narrow_bf16(load_bits(x + j));
        else if (type == ATTN_F16)
            halves[j] = ref_narrow_f16(load_bits(x + j));
        else
            store_bits(floats + j, load_bits(x + j));
}

static void round_bf16(size_t n, const float *x, float *y) {
    for (size_t j = 0; j < n; j++)
        store_bits(y + j, ref_widen_bf16(ref_narrow_bf16(load_bits(x + j))));
}

const struct attn_convert_kernel attn_ref_convert = {
    .name = "scalar", .widen = widen, .narrow = narrow, .round_bf16 = round_bf16};
