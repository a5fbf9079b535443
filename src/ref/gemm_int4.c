/* Reference GEMM of class INT4, and of class F32 over INT4 that is dequantised: one column a panel. Of each block
 * the elements as they came, its scale, its zero point. */
#include "ref/quantise.h"

#include "format.h"
#include "ref/convert.h"
#include "ref/gemm.h"

static size_t block_bytes(const struct attn_scaling *scaling) {
    return attn_int4_block_bytes(scaling, 1);
}

/* Number p of numbers of 4 bits, two to a byte. */
static int32_t half_byte(const uint8_t *bytes, size_t p) {
    return bytes[p / 2] >> p % 2 * 4 & 15;
}

static void pack_block(const struct attn_pack_args *args, size_t j, size_t b, uint8_t *to) {
    const struct attn_scaling *scaling = &args->scaling;
    size_t bytes = scaling->block / 2, blocks = args->k / scaling->block, element = attn_type_size(scaling->type);
    memcpy(to, (const char *)args->b + j * args->n_stride + b * bytes, bytes);
    memcpy(to + bytes, (const char *)args->scales + (j * blocks + b) * element, element);
    if (scaling->has_zero_point)
        to[bytes + element] = (uint8_t)half_byte(args->zero_points + j * ((blocks + 1) / 2), b);
}

static void pack(const struct attn_pack_args *args) {
    for (size_t j = 0; j < args->n; j++)
        for (size_t b = 0; b < args->k / args->scaling.block; b++)
            pack_block(args, j, b,
                       (uint8_t *)args->packed.data + j * args->packed.stride + b * block_bytes(&args->scaling));
}

static float scale_of(const struct attn_scaling *scaling, const uint8_t *block) {
    uint32_t bits;
    uint16_t half;
    float scale;
    memcpy(&half, block + scaling->block / 2, sizeof half);
    memcpy(&bits, block + scaling->block / 2, scaling->type == ATTN_F16 ? sizeof half : sizeof bits);
    bits = scaling->type == ATTN_F16 ? ref_widen_f16(half) : bits;
    memcpy(&scale, &bits, sizeof scale);
    return scale;
}

static int32_t zero_point_of(const struct attn_scaling *scaling, const uint8_t *block) {
    return scaling->has_zero_point ? block[scaling->block / 2 + attn_type_size(scaling->type)] : 8;
}

static int32_t dot(const struct attn_scaling *scaling, const int8_t *a, const uint8_t *block) {
    int32_t sum = 0, zero = zero_point_of(scaling, block);
    for (size_t p = 0; p < scaling->block; p++)
        sum += a[p] * (half_byte(block, p) - zero);
    return sum;
}

static float element(const struct attn_gemm_args *args, size_t i, size_t j) {
    const struct attn_scaling *scaling = &args->scaling;
    const int8_t *a = (const int8_t *)args->a + i * args->a_stride;
    const uint8_t *block = (const uint8_t *)args->b.data + (args->column + j) * args->b.stride;
    float t = 0.0f, start = args->start == ATTN_START_BIAS ? args->factors[j] : 0.0f;
    for (size_t p = 0; p < args->k; p += scaling->block, block += block_bytes(scaling))
        t = attn_fmaf((float)dot(scaling, a + p, block), scale_of(scaling, block), t);
    return attn_fmaf(t, attn_quantised_scale(a, args->k), start);
}

static void run(const struct attn_gemm_args *args) {
    for (size_t i = 0; i < args->m; i++)
        for (size_t j = 0; j < args->n; j++)
            ((float *)((char *)args->c + i * args->c_stride))[j] = element(args, i, j);
}

const struct attn_gemm_kernel attn_ref_gemm_int4 = {.name = "scalar_int4_1x1",
                                                    .arithmetic = ATTN_CLASS_INT4,
                                                    .a = ATTN_INT8,
                                                    .b = {.type = ATTN_INT4, .cols = 1, .k_unit = 2},
                                                    .rows = 1,
                                                    .pack = pack,
                                                    .pack_a = attn_ref_quantise,
                                                    .run = run};

/* ---- Dequantised ---- */

/* Element p of a column. */
static float dequantised(const struct attn_scaling *scaling, const uint8_t *column, size_t p) {
    const uint8_t *block = column + p / scaling->block * block_bytes(scaling);
    int32_t integer = half_byte(block, p % scaling->block) - zero_point_of(scaling, block);
    return (float)integer * scale_of(scaling, block);
}

static float dequantised_element(const struct attn_gemm_args *args, size_t i, size_t j) {
    const float *a = (const float *)((const char *)args->a + i * args->a_stride);
    const float *c = (const float *)((const char *)args->c + i * args->c_stride);
    const uint8_t *column = (const uint8_t *)args->b.data + (args->column + j) * args->b.stride;
    float acc = ref_start(args, c, i, j);
    for (size_t p = 0; p < args->k; p++)
        acc = attn_fmaf(a[p], dequantised(&args->scaling, column, p), acc);
    return acc;
}

static void run_dequantised(const struct attn_gemm_args *args) {
    for (size_t i = 0; i < args->m; i++)
        for (size_t j = 0; j < args->n; j++)
            ((float *)((char *)args->c + i * args->c_stride))[j] = dequantised_element(args, i, j);
}

const struct attn_gemm_kernel attn_ref_gemm_int4_f32 = {.name = "scalar_int4_f32_1x1",
                                                        .arithmetic = ATTN_CLASS_F32,
                                                        .b = {.type = ATTN_INT4, .cols = 1, .k_unit = 2},
                                                        .rows = 1,
                                                        .pack = pack,
                                                        .run = run_dequantised};
