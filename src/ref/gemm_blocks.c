/* Reference GEMM of the classes INT4 and INT8_BLOCKS, and of class F32 over INT4 that is dequantised: one column a
 * panel. Of each block the elements as they came, its scale, its zero point, of INT8 plus 128. */
#include "ref/quantise.h"

#include "format.h"
#include "ref/convert.h"
#include "ref/gemm.h"

static size_t block_bytes(attn_type type, const struct attn_scaling *scaling) {
    return attn_block_bytes(type, scaling, 1);
}

/* Number p of numbers of 4 bits, two to a byte. */
static int32_t half_byte(const uint8_t *bytes, size_t p) {
    return bytes[p / 2] >> p % 2 * 4 & 15;
}

/* The elements of block b. */
static void pack_elements(attn_type type, const struct attn_pack_args *args, size_t j, size_t b, uint8_t *to) {
    size_t block = args->scaling.block, bytes = attn_block_elements(type, block);
    const char *column = (const char *)args->b + j * args->n_stride;
    if (type == ATTN_INT4)
        memcpy(to, column + b * bytes, bytes);
    for (size_t p = 0; type == ATTN_INT8 && p < block; p++)
        memcpy(to + p, column + (b * block + p) * args->k_stride, 1);
}

static void pack_block(attn_type type, const struct attn_pack_args *args, size_t j, size_t b, uint8_t *to) {
    const struct attn_scaling *scaling = &args->scaling;
    size_t bytes = attn_block_elements(type, scaling->block), blocks = args->k / scaling->block;
    size_t element = attn_type_size(scaling->type);
    pack_elements(type, args, j, b, to);
    memcpy(to + bytes, (const char *)args->scales + (j * blocks + b) * element, element);
    if (scaling->has_zero_point)
        to[bytes + element] = attn_zero_point_of(type, args->zero_points, blocks, j, b);
}

static void pack(attn_type type, const struct attn_pack_args *args) {
    for (size_t j = 0; j < args->n; j++)
        for (size_t b = 0; b < args->k / args->scaling.block; b++)
            pack_block(type, args, j, b,
                       (uint8_t *)args->packed.data + j * args->packed.stride + b * block_bytes(type, &args->scaling));
}

static void pack_int4(const struct attn_pack_args *args) {
    pack(ATTN_INT4, args);
}

static void pack_int8(const struct attn_pack_args *args) {
    pack(ATTN_INT8, args);
}

static float scale_of(attn_type type, const struct attn_scaling *scaling, const uint8_t *block) {
    uint32_t bits;
    uint16_t half;
    float scale;
    block += attn_block_elements(type, scaling->block);
    memcpy(&half, block, sizeof half);
    memcpy(&bits, block, scaling->type == ATTN_F16 ? sizeof half : sizeof bits);
    bits = scaling->type == ATTN_F16 ? ref_widen_f16(half) : bits;
    memcpy(&scale, &bits, sizeof scale);
    return scale;
}

/* Element p of a block less its zero point. */
static int32_t integer_of(attn_type type, const struct attn_scaling *scaling, const uint8_t *block, size_t p) {
    const uint8_t *zero = block + attn_block_elements(type, scaling->block) + attn_type_size(scaling->type);
    if (type == ATTN_INT4)
        return half_byte(block, p) - (scaling->has_zero_point ? *zero : 8);
    return (int8_t)block[p] - (scaling->has_zero_point ? *zero - 128 : 0);
}

static int32_t dot(attn_type type, const struct attn_scaling *scaling, const int8_t *a, const uint8_t *block) {
    int32_t sum = 0;
    for (size_t p = 0; p < scaling->block; p++)
        sum += a[p] * integer_of(type, scaling, block, p);
    return sum;
}

static float element(attn_type type, const struct attn_gemm_args *args, size_t i, size_t j) {
    const struct attn_scaling *scaling = &args->scaling;
    const int8_t *a = (const int8_t *)args->a + i * args->a_stride;
    const uint8_t *block = (const uint8_t *)args->b.data + (args->column + j) * args->b.stride;
    float t = 0.0f, start = args->start == ATTN_START_BIAS ? args->factors[j] : 0.0f;
    for (size_t p = 0; p < args->k; p += scaling->block, block += block_bytes(type, scaling))
        t = attn_fmaf((float)dot(type, scaling, a + p, block), scale_of(type, scaling, block), t);
    return attn_fmaf(t, attn_quantised_scale(a, args->k), start);
}

static void run(attn_type type, const struct attn_gemm_args *args) {
    for (size_t i = 0; i < args->m; i++)
        for (size_t j = 0; j < args->n; j++)
            ((float *)((char *)args->c + i * args->c_stride))[j] = element(type, args, i, j);
}

static void run_int4(const struct attn_gemm_args *args) {
    run(ATTN_INT4, args);
}

static void run_int8(const struct attn_gemm_args *args) {
    run(ATTN_INT8, args);
}

const struct attn_gemm_kernel attn_ref_gemm_int4 = {.name = "scalar_int4_1x1",
                                                    .arithmetic = ATTN_CLASS_INT4,
                                                    .a = ATTN_INT8,
                                                    .b = {.type = ATTN_INT4, .cols = 1, .k_unit = 2},
                                                    .rows = 1,
                                                    .pack = pack_int4,
                                                    .pack_a = attn_ref_quantise,
                                                    .run = run_int4};

const struct attn_gemm_kernel attn_ref_gemm_int8_blocks = {.name = "scalar_int8_blocks_1x1",
                                                           .arithmetic = ATTN_CLASS_INT8_BLOCKS,
                                                           .a = ATTN_INT8,
                                                           .b = {.type = ATTN_INT8, .cols = 1, .k_unit = 1},
                                                           .rows = 1,
                                                           .pack = pack_int8,
                                                           .pack_a = attn_ref_quantise,
                                                           .run = run_int8};

/* ---- Dequantised ---- */

/* Element p of a column. */
static float dequantised(const struct attn_scaling *scaling, const uint8_t *column, size_t p) {
    const uint8_t *block = column + p / scaling->block * block_bytes(ATTN_INT4, scaling);
    return (float)integer_of(ATTN_INT4, scaling, block, p % scaling->block) * scale_of(ATTN_INT4, scaling, block);
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
                                                        .pack = pack_int4,
                                                        .run = run_dequantised};
