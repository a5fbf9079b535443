/* Weights that cannot be: a status, the name of the field, and not a byte written. */
#include "support.h"

#include <math.h>
#include <string.h>

enum { MEMORY = 1 << 15 };
static _Alignas(ATTN_ALIGNMENT) unsigned char memory[MEMORY], before[MEMORY];

static void expect(attn_status expected, const char *field, attn_status actual, const attn_error *error) {
    assert_status(expected, actual);
    assert_string_equal(field, error->field);
    assert_int_equal(expected, error->status);
    assert_memory_equal(before, memory, MEMORY);
}

/* What the statements make of the config `bad` is refused. */
#define BAD(expected, name, ...)                                                                                       \
    do {                                                                                                               \
        attn_gemm_config bad = config;                                                                                 \
        attn_error error = {0};                                                                                        \
        attn_gemm *gemm = NULL;                                                                                        \
        __VA_ARGS__;                                                                                                   \
        test_case("type %d, layout %d: %s", (int)config.w.type, (int)config.w.layout, #__VA_ARGS__);                   \
        expect(expected, name, attn_gemm_create(&bad, memory, sizeof memory, &gemm, &error), &error);                  \
        assert_null(gemm);                                                                                             \
    } while (0)

/* What any weight of 64 rows refuses that has a scale for each 32; of bad_scales one is not finite. */
static void refuse_bad_scales_of_blocks(attn_gemm_config config, const void *bad_scales) {
    BAD(ATTN_NULL_POINTER, "w.weight", bad.w.weight = NULL);
    BAD(ATTN_NULL_POINTER, "w.scales", bad.w.scales = NULL);
    BAD(ATTN_BAD_VALUE, "w.scales", bad.w.scales = bad_scales);
    BAD(ATTN_BAD_VALUE, "w.scale_type", bad.w.scale_type = ATTN_BF16);
    BAD(ATTN_BAD_SIZE, "w.block", bad.w.block = 16);
    BAD(ATTN_BAD_SIZE, "w.block", bad.w.block = 128);
}

/* The same, and what else plain rows refuse whose scales are of either type; of bad_halves one is not finite. */
static void refuse_bad_blocks(attn_gemm_config config, const float *bad_scales, const uint16_t *bad_halves) {
    refuse_bad_scales_of_blocks(config, bad_scales);
    BAD(ATTN_BAD_VALUE, "w.scales", bad.w.scales = bad_halves; bad.w.scale_type = ATTN_F16);
    BAD(ATTN_BAD_SIZE, "w.block", bad.k = 63);
    BAD(ATTN_OVERFLOW, "w.weight", bad.w.out_stride = SIZE_MAX - 1);
}

/* What layouts refuse whose scales stand among the elements. */
static void refuse_scales_beside(attn_gemm_config config) {
    static const float scales[6];
    BAD(ATTN_NULL_POINTER, "w.weight", bad.w.weight = NULL);
    BAD(ATTN_BAD_VALUE, "w.scales", bad.w.scales = scales);
    BAD(ATTN_BAD_VALUE, "w.scale_type", bad.w.scale_type = ATTN_F16);
    BAD(ATTN_BAD_VALUE, "w.block", bad.w.block = 32);
    BAD(ATTN_BAD_VALUE, "w.zero_points", bad.w.zero_points = scales);
}

static void refuses_bad_int8(void **state) {
    (void)state;
    float floats[64 * 3] = {0}, scales[] = {1, 2, 3}, bad_scales[] = {1, 2, NAN}, infinite[] = {-INFINITY, 2, 3};
    uint8_t zero_points[3] = {0};
    attn_gemm_config config = {.isa = test_isa(), .k = 64, .n = 3};
    config.w = (attn_linear){.weight = floats, .in_stride = 1, .out_stride = 64, .type = ATTN_INT8, .scales = scales};
    BAD(ATTN_NULL_POINTER, "w.scales", bad.w.scales = NULL);
    BAD(ATTN_BAD_VALUE, "w.scales", bad.w.scales = bad_scales);
    BAD(ATTN_BAD_VALUE, "w.scales", bad.w.scales = infinite);
    BAD(ATTN_BAD_VALUE, "w.scales", bad.w.type = ATTN_F32);
    BAD(ATTN_BAD_VALUE, "w.scales", bad.w.type = ATTN_BF16);
    BAD(ATTN_BAD_VALUE, "w.scale_type", bad.w.scale_type = ATTN_F16);
    BAD(ATTN_BAD_SIZE, "w.block", bad.w.block = 16);
    BAD(ATTN_BAD_VALUE, "w.zero_points", bad.w.zero_points = zero_points);
    BAD(ATTN_BAD_VALUE, "w.dequantised", bad.w.dequantised = 1);
    BAD(ATTN_BAD_VALUE, "w.scales", bad.w.type = ATTN_F16);
    BAD(ATTN_BAD_VALUE, "w.dequantised", bad.w.type = ATTN_F16; bad.w.scales = NULL; bad.w.dequantised = 1);
    BAD(ATTN_BAD_VALUE, "w.type", bad.w.type = ATTN_F8_E4M3);
    BAD(ATTN_BAD_VALUE, "w.type", bad.w.type = ATTN_F8_E5M2);
    BAD(ATTN_BAD_VALUE, "w.type", bad.w.type = ATTN_BOOL);
    BAD(ATTN_BAD_VALUE, "w.type", bad.w.type = (attn_type)100);
    BAD(ATTN_NULL_POINTER, "w.weight", bad.w.weight = NULL);
    BAD(ATTN_BAD_STRIDE, "w.out_stride", bad.w.out_stride = 0);
}

static void refuses_bad_blocks_of_int8(void **state) {
    (void)state;
    int8_t elements[3 * 64] = {0}, zero_points[6] = {0};
    float scales[] = {1, 2, 3, 4, 5, 6}, bad_scales[] = {1, 2, 3, 4, 5, NAN};
    uint16_t halves[6] = {0, 0, 0, 0, 0, 0xfc00};
    attn_gemm_config config = {.isa = test_isa(), .k = 64, .n = 3};
    config.w = (attn_linear){
        .weight = elements, .in_stride = 1, .out_stride = 64, .type = ATTN_INT8, .scales = scales, .block = 32};
    config.w.zero_points = zero_points;
    for (int layout = 0; layout < 2; layout++) {
        config.w.layout = layout ? ATTN_LAYOUT_UNSIGNED : ATTN_LAYOUT_PLAIN;
        refuse_bad_blocks(config, bad_scales, halves);
        BAD(ATTN_BAD_VALUE, "w.dequantised", bad.w.dequantised = 1);
        BAD(ATTN_BAD_SIZE, "w.block", bad.w.block = 256);
        BAD(ATTN_BAD_SIZE, "w.block", bad.w.block = ATTN_INT8_PART);
        BAD(ATTN_BAD_SIZE, "w.block", bad.w.block = SIZE_MAX);
        BAD(ATTN_BAD_STRIDE, "w.in_stride", bad.w.in_stride = 0);
        BAD(ATTN_BAD_STRIDE, "w.out_stride", bad.w.out_stride = 0);
        BAD(ATTN_BAD_VALUE, "w.g_idx", bad.w.g_idx = (const int32_t *)(const void *)scales);
    }
    BAD(ATTN_BAD_SIZE, "w.block", bad.w.block = 0); /* UNSIGNED has blocks */
    BAD(ATTN_BAD_VALUE, "w.layout", bad.w.type = ATTN_INT4);
    BAD(ATTN_BAD_VALUE, "w.layout", bad.w.type = ATTN_F32);
}

static void refuses_bad_int4(void **state) {
    (void)state;
    uint8_t elements[3 * 64 / 2] = {0}, zero_points[3] = {0};
    float scales[] = {1, 2, 3, 4, 5, 6}, bad_scales[] = {1, 2, 3, 4, 5, NAN};
    uint16_t halves[6] = {0, 0, 0, 0, 0, 0x7c00};
    attn_gemm_config config = {.isa = test_isa(), .k = 64, .n = 3};
    config.w = (attn_linear){
        .weight = elements, .in_stride = 1, .out_stride = 64, .type = ATTN_INT4, .scales = scales, .block = 32};
    config.w.zero_points = zero_points;
    refuse_bad_blocks(config, bad_scales, halves);
    BAD(ATTN_BAD_SIZE, "w.block", bad.w.block = 0);
    BAD(ATTN_BAD_STRIDE, "w.in_stride", bad.w.in_stride = 2);
    BAD(ATTN_BAD_STRIDE, "w.out_stride", bad.w.out_stride = 62);
    BAD(ATTN_BAD_STRIDE, "w.out_stride", bad.w.out_stride = 65);
}

/* A weight of INT4 described as if it were stored [in, out]: the error says which stride it must have. */
static void says_how_int4_is_stored(void **state) {
    (void)state;
    uint8_t elements[3 * 64 / 2] = {0};
    float scales[6] = {0};
    attn_gemm_config config = {.isa = test_isa(), .k = 64, .n = 3};
    attn_gemm *gemm;
    attn_error error;
    char text[128];
    config.w = attn_linear_dense(elements, ATTN_INT4, 3, NULL);
    config.w.scales = scales;
    config.w.block = 32;
    assert_status(ATTN_BAD_STRIDE, attn_gemm_create(&config, memory, sizeof memory, &gemm, &error));
    attn_error_text(&error, text, sizeof text);
    assert_string_equal("w.in_stride: too large: at most 1, but 3 given", text);
}

/* ---- Layouts ---- */

static void refuses_bad_q4_0(void **state) {
    (void)state;
    uint16_t blocks[3 * 2 * 9] = {0}, infinite[3 * 2 * 9] = {0};
    attn_gemm_config config = {.isa = test_isa(), .k = 64, .n = 3};
    config.w = attn_linear_transposed(blocks, ATTN_INT4, 64, NULL);
    config.w.layout = ATTN_LAYOUT_GGML_Q4_0;
    infinite[5 * 9] = 0xfc00;
    BAD(ATTN_BAD_VALUE, "w.layout", bad.w.layout = (attn_layout)-1);
    BAD(ATTN_BAD_VALUE, "w.layout", bad.w.layout = (attn_layout)(ATTN_LAYOUT_UNSIGNED + 1));
    BAD(ATTN_BAD_VALUE, "w.layout", bad.w.type = ATTN_F32);
    BAD(ATTN_BAD_VALUE, "w.layout", bad.w.type = ATTN_INT8);
    BAD(ATTN_BAD_VALUE, "w.g_idx", bad.w.g_idx = (const int32_t *)(const void *)blocks);
    BAD(ATTN_BAD_SIZE, "w.block", bad.k = 48);
    refuse_scales_beside(config);
    BAD(ATTN_BAD_VALUE, "w.weight", bad.w.weight = infinite);
    BAD(ATTN_BAD_STRIDE, "w.in_stride", bad.w.in_stride = 2);
    BAD(ATTN_BAD_STRIDE, "w.out_stride", bad.w.out_stride = 32);
    BAD(ATTN_BAD_STRIDE, "w.out_stride", bad.w.out_stride = 80);
    BAD(ATTN_OVERFLOW, "w.weight", bad.w.out_stride = SIZE_MAX / 64 * 32);
}

static void refuses_bad_q8_0(void **state) {
    (void)state;
    uint16_t blocks[3 * 2 * 17] = {0}, infinite[3 * 2 * 17] = {0};
    attn_gemm_config config = {.isa = test_isa(), .k = 64, .n = 3};
    infinite[5 * 17] = 0x7c01;
    for (int integers = 0; integers < 2; integers++) {
        config.w = attn_linear_transposed(blocks, integers ? ATTN_INT8 : ATTN_F32, 64, NULL);
        config.w.layout = ATTN_LAYOUT_GGML_Q8_0;
        BAD(ATTN_BAD_VALUE, "w.layout", bad.w.type = ATTN_INT4);
        BAD(ATTN_BAD_VALUE, "w.layout", bad.w.type = ATTN_F16);
        BAD(ATTN_BAD_VALUE, "w.dequantised", bad.w.dequantised = 1);
        BAD(ATTN_BAD_SIZE, "w.block", bad.k = 63);
        refuse_scales_beside(config);
        BAD(ATTN_BAD_VALUE, "w.weight", bad.w.weight = infinite);
        BAD(ATTN_BAD_STRIDE, "w.in_stride", bad.w.in_stride = 3);
        BAD(ATTN_BAD_STRIDE, "w.out_stride", bad.w.out_stride = 72);
    }
}

static void refuses_bad_words(void **state) {
    (void)state;
    static uint32_t words[64 * 16], zeros[2 * 16]; /* more than any layout has */
    uint16_t scales[2 * 16] = {0}, infinite[2 * 16] = {0};
    int32_t in_order[64], moved[64], negative[64];
    for (int32_t i = 0; i < 64; i++)
        in_order[i] = moved[i] = negative[i] = i / 32;
    moved[31] = 1;
    moved[32] = 0; /* desc_act: as many of each group, in another order */
    negative[0] = -1;
    infinite[16 + 9] = 0x7e00; /* NaN */
    static const struct {
        attn_layout layout;
        attn_type type;
    } some[] = {{ATTN_LAYOUT_GPTQ, ATTN_INT4},
                {ATTN_LAYOUT_GPTQ_V2, ATTN_INT4},
                {ATTN_LAYOUT_AWQ, ATTN_INT4},
                {ATTN_LAYOUT_GPTQ, ATTN_INT8},
                {ATTN_LAYOUT_GPTQ_V2, ATTN_INT8}};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        attn_gemm_config config = {.isa = test_isa(), .k = 64, .n = 10};
        config.w = attn_linear_dense(words, some[i].type, 16, NULL);
        config.w.layout = some[i].layout;
        config.w.scales = scales;
        config.w.scale_type = ATTN_F16;
        config.w.zero_points = zeros;
        config.w.block = 32;
        BAD(ATTN_BAD_VALUE, "w.layout", bad.w.type = ATTN_BF16);
        refuse_bad_scales_of_blocks(config, infinite);
        BAD(ATTN_BAD_SIZE, "w.block", bad.w.block = 0);
        BAD(ATTN_BAD_STRIDE, "w.in_stride", bad.w.in_stride = 8);
        BAD(ATTN_BAD_STRIDE, "w.in_stride", bad.w.in_stride = some[i].type == ATTN_INT8 ? 14 : 12);
        BAD(ATTN_BAD_STRIDE, "w.out_stride", bad.w.out_stride = 2);
        BAD(ATTN_OVERFLOW, "w.weight", bad.w.in_stride = SIZE_MAX / 8 * 8);
        if (some[i].layout == ATTN_LAYOUT_AWQ) {
            BAD(ATTN_BAD_VALUE, "w.layout", bad.w.type = ATTN_INT8);
            BAD(ATTN_BAD_VALUE, "w.g_idx", bad.w.g_idx = in_order);
        } else {
            BAD(ATTN_BAD_VALUE, "w.g_idx", bad.w.g_idx = moved);
            BAD(ATTN_BAD_VALUE, "w.g_idx", bad.w.g_idx = negative);
        }
    }
}

/* ---- Layers ---- */

enum { WIDTH = 64, HEADS = 2 };

/* Weight i of a layer is w, the others are floats. */
static attn_status create_layer(int i, attn_linear w, attn_error *error) {
    static _Alignas(ATTN_ALIGNMENT) char object[1 << 17];
    attn_layer_config config = {.isa = test_isa(), .query_width = WIDTH, .key_width = WIDTH, .value_width = WIDTH};
    attn_linear *const linears[] = {&config.w_q, &config.w_k, &config.w_v, &config.w_o};
    attn_layer *layer = NULL;
    config.hidden = WIDTH;
    config.heads = HEADS;
    for (int j = 0; j < 4; j++)
        *linears[j] = attn_linear_dense(w.weight, ATTN_F32, WIDTH, NULL);
    *linears[i] = w;
    return attn_layer_create(&config, object, sizeof object, &layer, error);
}

/* A layer's errors name the weight. */
static void layers_name_their_weights(void **state) {
    (void)state;
    static const float elements[WIDTH * WIDTH], scales[WIDTH * WIDTH]; /* more than any weight has */
    static const char *const names[][2] = {{"w_q.scales", "w_q.block"},
                                           {"w_k.scales", "w_k.block"},
                                           {"w_v.scales", "w_v.block"},
                                           {"w_o.scales", "w_o.block"}};
    static const attn_linear kinds[] = {{.type = ATTN_INT8},
                                        {.type = ATTN_INT8, .block = 32},
                                        {.type = ATTN_INT4, .block = 32},
                                        {.type = ATTN_INT4, .block = 32, .dequantised = 1}};
    for (int kind = 0; kind < 4; kind++)
        for (int i = 0; i < 4; i++) {
            attn_error error = {0};
            attn_linear w = attn_linear_transposed(elements, kinds[kind].type, WIDTH, NULL);
            w.block = kinds[kind].block;
            w.dequantised = kinds[kind].dequantised;
            test_case("kind %d, weight %d", kind, i);
            assert_status(ATTN_NULL_POINTER, create_layer(i, w, &error));
            assert_string_equal(names[i][0], error.field);
            w.scales = scales;
            assert_ok(create_layer(i, w, &error));
            w.block = 16;
            assert_status(ATTN_BAD_SIZE, create_layer(i, w, &error));
            assert_string_equal(names[i][1], error.field);
        }
}

static int set_up(void **state) {
    (void)state;
    memset(memory, 0xa5, MEMORY);
    memcpy(before, memory, MEMORY);
    return 0;
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(refuses_bad_int8, set_up),  cmocka_unit_test_setup(refuses_bad_blocks_of_int8, set_up),
        cmocka_unit_test_setup(refuses_bad_int4, set_up),  cmocka_unit_test_setup(says_how_int4_is_stored, set_up),
        cmocka_unit_test_setup(refuses_bad_q4_0, set_up),  cmocka_unit_test_setup(refuses_bad_q8_0, set_up),
        cmocka_unit_test_setup(refuses_bad_words, set_up), cmocka_unit_test(layers_name_their_weights),
    };
    return test_run(tests);
}
