#include "weights.h"

#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "types.h"

const struct weight_kind weight_kinds[] = {
    {.type = ATTN_F32},
    {.type = ATTN_BF16},
    {.type = ATTN_INT8},
    {ATTN_INT4, 32, ATTN_F32, false, false},
    {ATTN_INT4, 32, ATTN_F16, true, false},
    {ATTN_INT4, 64, ATTN_F16, false, false},
    {ATTN_INT4, 128, ATTN_F32, true, false},
    {.type = ATTN_F16},
    {ATTN_INT4, 32, ATTN_F16, true, true},
    {ATTN_INT4, 128, ATTN_F32, false, true},
    {ATTN_INT8, 32, ATTN_F16, false, false},
    {ATTN_INT8, 32, ATTN_F32, true, false},
    {ATTN_INT8, 64, ATTN_F16, true, false},
    {ATTN_INT8, 128, ATTN_F32, false, false},
};
const size_t weight_kind_count = sizeof weight_kinds / sizeof *weight_kinds;

static void *zeroed(size_t bytes) {
    void *memory = calloc(bytes + 1, 1);
    assert_non_null(memory);
    return memory;
}

/* Positive and negative, of ordinary size, in F32 or F16. */
static void *random_scales(struct test_random *random, attn_type type, size_t n) {
    uint16_t *halves = zeroed(n * sizeof *halves);
    float *floats = zeroed(n * sizeof *floats);
    for (size_t i = 0; i < n; i++) {
        halves[i] = (uint16_t)(random_below(random, 2) << 15 | random_between(random, 8, 16) << 10 |
                               random_below(random, 1024));
        floats[i] = random_normal(random);
    }
    free(type == ATTN_F16 ? (void *)floats : halves);
    return type == ATTN_F16 ? (void *)halves : floats;
}

/* Numbers of 4 bits, two to a byte, the first in its lower half; each row begins with a byte. */
static uint8_t *two_to_a_byte(const uint8_t *numbers, size_t rows, size_t n) {
    size_t bytes = (n + 1) / 2;
    uint8_t *packed = zeroed(rows * bytes);
    for (size_t j = 0; j < rows; j++)
        for (size_t i = 0; i < n; i++)
            packed[j * bytes + i / 2] |= (uint8_t)(numbers[j * n + i] << i % 2 * 4);
    return packed;
}

/* As numbers with a sign, [cols][rows] of [rows][cols]. */
static uint8_t *less_128(const uint8_t *numbers, size_t rows, size_t cols) {
    uint8_t *turned = zeroed(rows * cols);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++)
            turned[j * rows + i] = (uint8_t)(numbers[i * cols + j] - 128);
    return turned;
}

static void draw_blocks(struct test_random *random, const struct weight_kind *kind, struct weight *weight) {
    size_t in = weight->in, out = weight->out, blocks = weight->blocks;
    bool int4 = kind->type == ATTN_INT4;
    unsigned numbers = int4 ? 16 : 256;
    weight->elements = zeroed(out * in);
    weight->zero_points = zeroed(out * blocks);
    for (size_t i = 0; i < out * in; i++)
        weight->elements[i] = (uint8_t)random_below(random, numbers);
    for (size_t i = 0; i < out * blocks; i++)
        weight->zero_points[i] = (uint8_t)(kind->has_zero_points ? random_below(random, numbers) : numbers / 2);
    weight->data = int4 ? two_to_a_byte(weight->elements, out, in) : less_128(weight->elements, out, in);
    if (kind->has_zero_points)
        weight->packed_zero_points =
            int4 ? two_to_a_byte(weight->zero_points, out, blocks) : less_128(weight->zero_points, out * blocks, 1);
}

/* Elements of whole bytes: any bits for INT8, ordinary numbers for the others. */
static void draw_elements(struct test_random *random, attn_type type, struct weight *weight) {
    size_t n = weight->in * weight->out, size = attn_type_size(type);
    weight->data = zeroed(n * size);
    for (size_t i = 0; i < n; i++) {
        float x = random_normal(random);
        uint8_t byte = (uint8_t)random_below(random, 256);
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        uint16_t upper = (uint16_t)(bits >> 16), half;
        attn_table_convert(&attn_kernels_scalar)->narrow(ATTN_F16, 1, &x, &half);
        memcpy((char *)weight->data + i * size,
               type == ATTN_F32    ? (void *)&x
               : type == ATTN_BF16 ? (void *)&upper
               : type == ATTN_F16  ? (void *)&half
                                   : &byte,
               size);
    }
}

struct weight new_weight(struct test_random *random, struct weight_kind kind, size_t in, size_t out, bool has_bias) {
    bool int4 = kind.type == ATTN_INT4, int8 = kind.type == ATTN_INT8;
    struct weight weight = {.in = in, .out = out, .blocks = kind.block ? in / kind.block : 1};
    if (kind.block)
        draw_blocks(random, &kind, &weight);
    else
        draw_elements(random, kind.type, &weight);
    if (int4 || int8)
        weight.scales = random_scales(random, kind.scale_type, out * weight.blocks);
    if (has_bias) {
        weight.bias = zeroed(out * sizeof *weight.bias);
        random_fill(random, TEST_NORMAL, weight.bias, out);
    }
    weight.linear = (int4 ? attn_linear_transposed(weight.data, kind.type, in, weight.bias)
                          : attn_linear_dense(weight.data, kind.type, out, weight.bias));
    weight.linear.scales = weight.scales;
    weight.linear.scale_type = kind.scale_type;
    weight.linear.block = kind.block;
    weight.linear.zero_points = weight.packed_zero_points;
    weight.linear.dequantised = kind.dequantised;
    return weight;
}

void free_weight(struct weight *weight) {
    free(weight->elements);
    free(weight->zero_points);
    free(weight->data);
    free(weight->scales);
    free(weight->packed_zero_points);
    free(weight->bias);
}

attn_gemm *new_gemm(const struct weight *weight, attn_arithmetic arithmetic) {
    attn_gemm_config config = {
        .isa = test_isa(), .k = weight->in, .n = weight->out, .w = weight->linear, .arithmetic = arithmetic};
    attn_error error = {0};
    attn_gemm *gemm = NULL;
    size_t bytes = 0;
    assert_ok(attn_gemm_size(&config, &bytes, &error));
    void *memory = poisoned_alloc(bytes, FLUSH_END);
    attn_status status = attn_gemm_create(&config, memory, bytes, &gemm, &error);
    if (status != ATTN_OK)
        test_fail("%s: %s", error.field, attn_status_string(status));
    assert_ptr_equal(memory, gemm);
    return gemm;
}

void multiply_rows(const attn_gemm *gemm, size_t in, size_t out, size_t m, const float *x, float *y) {
    attn_error error = {0};
    attn_gemm_run_args args = {.m = m};
    args.x = attn_rows_dense(x, ATTN_F32, m, in);
    args.y = attn_rows_out_dense(y, ATTN_F32, m, out);
    assert_ok(attn_gemm_workspace(gemm, &args, &args.workspace_bytes, &error));
    args.workspace = poisoned_alloc(args.workspace_bytes, FLUSH_END);
    assert_ok(attn_gemm_run(gemm, &args, &error));
    guarded_free(args.workspace);
}

void forward_rows(const attn_layer *layer, size_t in, size_t out, size_t len, const float *x, float *y) {
    attn_layer_args args = {.batch = 1, .q_len = len, .kv_len = len, .options = {.causal = 1}};
    attn_error error = {0};
    size_t bytes = 0;
    args.q = args.k = args.v = attn_rows_dense(x, ATTN_F32, len, in);
    args.y = attn_rows_out_dense(y, ATTN_F32, len, out);
    assert_ok(attn_layer_workspace(layer, &args, &bytes, &error));
    void *workspace = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_layer_forward(layer, &args, workspace, bytes, &error));
    guarded_free(workspace);
}
