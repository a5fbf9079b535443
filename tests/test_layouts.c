/* Weights in the layouts of other engines' files. The writers here follow the descriptions of those files. */
#include "weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Element k of output j, its zero point and its scale, from the arrays that a plain weight is made of. */
static uint8_t element_of(const struct weight *weight, size_t j, size_t k) {
    return weight->elements[j * weight->in + k];
}

static uint8_t zero_point_of(const struct weight *weight, size_t j, size_t b) {
    return weight->zero_points[j * weight->blocks + b];
}

static size_t scale_bytes(const struct weight *weight) {
    return weight->linear.scale_type == ATTN_F16 ? sizeof(uint16_t) : sizeof(float);
}

static const char *scale_of(const struct weight *weight, size_t j, size_t b) {
    return (const char *)weight->scales + (j * weight->blocks + b) * scale_bytes(weight);
}

/* ---- Writers ---- */

/* A weight's arrays as a file has them, each up to a guard page. */
struct file {
    attn_linear linear;
    void *weight, *scales, *zero_points;
    int32_t *g_idx;
};

static void free_file(struct file *file) {
    guarded_free(file->weight);
    guarded_free(file->scales);
    guarded_free(file->zero_points);
    guarded_free(file->g_idx);
}

/* struct block_q4_0 { ggml_half d; uint8_t qs[16]; }: qs[i] holds element i in its lower half and element 16 + i in its
 * upper one. `gap` blocks lie between the rows. */
static struct file write_q4_0(const struct weight *weight, size_t gap) {
    size_t blocks = weight->in / 32 + gap;
    uint8_t *to = guarded_alloc(((weight->out - 1) * blocks + weight->in / 32) * 18, 2, FLUSH_END);
    struct file file = {.weight = to};
    for (size_t j = 0; j < weight->out; j++)
        for (size_t b = 0; b < weight->in / 32; b++) {
            uint8_t *block = to + (j * blocks + b) * 18;
            memcpy(block, scale_of(weight, j, b), 2);
            for (size_t i = 0; i < 16; i++)
                block[2 + i] =
                    (uint8_t)(element_of(weight, j, b * 32 + i) + 16 * element_of(weight, j, b * 32 + 16 + i));
        }
    file.linear = (attn_linear){.weight = to,
                                .in_stride = 1,
                                .out_stride = blocks * 32,
                                .bias = weight->bias,
                                .type = ATTN_INT4,
                                .layout = ATTN_LAYOUT_GGML_Q4_0};
    return file;
}

/* struct block_q8_0 { ggml_half d; int8_t qs[32]; }. */
static struct file write_q8_0(const struct weight *weight, size_t gap) {
    size_t blocks = weight->in / 32 + gap;
    uint8_t *to = guarded_alloc(((weight->out - 1) * blocks + weight->in / 32) * 34, 2, FLUSH_END);
    struct file file = {.weight = to};
    for (size_t j = 0; j < weight->out; j++)
        for (size_t b = 0; b < weight->in / 32; b++) {
            uint8_t *block = to + (j * blocks + b) * 34;
            memcpy(block, scale_of(weight, j, b), 2);
            for (size_t i = 0; i < 32; i++)
                block[2 + i] = (uint8_t)(element_of(weight, j, b * 32 + i) - 128);
        }
    file.linear = attn_linear_transposed(to, ATTN_INT8, blocks * 32, weight->bias);
    file.linear.layout = ATTN_LAYOUT_GGML_Q8_0;
    return file;
}

/* MatMulNBits of 8 bits: B [N][blocks][block] of uint8, scales [N][blocks], zero_points [N][blocks] of uint8. */
static struct file write_onnx(const struct weight *weight) {
    size_t elements = weight->in * weight->out, blocks = weight->out * weight->blocks;
    struct file file = {.weight = guarded_alloc(elements, 1, FLUSH_END)};
    memcpy(file.weight, weight->elements, elements);
    file.scales = guarded_alloc(blocks * scale_bytes(weight), scale_bytes(weight), FLUSH_END);
    memcpy(file.scales, weight->scales, blocks * scale_bytes(weight));
    if (weight->linear.zero_points) {
        file.zero_points = guarded_alloc(blocks, 1, FLUSH_END);
        memcpy(file.zero_points, weight->zero_points, blocks);
    }
    file.linear = attn_linear_transposed(file.weight, ATTN_INT8, weight->in, weight->bias);
    file.linear.scales = file.scales;
    file.linear.scale_type = weight->linear.scale_type;
    file.linear.block = weight->linear.block;
    file.linear.zero_points = file.zero_points;
    file.linear.layout = ATTN_LAYOUT_UNSIGNED;
    return file;
}

/* scales [groups][out]. */
static void *write_row_scales(const struct weight *weight, size_t cols) {
    size_t bytes = scale_bytes(weight);
    char *to = guarded_alloc(((weight->blocks - 1) * cols + weight->out) * bytes, bytes, FLUSH_END);
    for (size_t b = 0; b < weight->blocks; b++)
        for (size_t j = 0; j < weight->out; j++)
            memcpy(to + (b * cols + j) * bytes, scale_of(weight, j, b), bytes);
    return to;
}

static attn_linear row_linear(const struct weight *weight, const struct file *file, size_t cols, attn_layout layout) {
    return (attn_linear){.weight = file->weight,
                         .in_stride = cols,
                         .out_stride = 1,
                         .bias = weight->bias,
                         .type = weight->linear.type,
                         .scales = file->scales,
                         .scale_type = weight->linear.scale_type,
                         .block = weight->linear.block,
                         .dequantised = weight->linear.dequantised,
                         .zero_points = file->zero_points,
                         .layout = layout,
                         .g_idx = file->g_idx};
}

static uint32_t *new_words(size_t n) {
    uint32_t *words = guarded_alloc(n * sizeof *words, sizeof *words, FLUSH_END);
    memset(words, 0, n * sizeof *words);
    return words;
}

/* AutoGPTQ: qweight [in / 8][cols], element k in bits 4 (k % 8); qzeros [groups][cols / 8], that of column j in bits 4
 * (j % 8), less `less`; g_idx[k] = k / group. Of 8 bits a word has 4. The arrays have `cols` columns, of which the
 * weight is the first. */
static struct file write_gptq(const struct weight *weight, size_t cols, bool v2) {
    size_t in_word = weight->linear.type == ATTN_INT8 ? 4 : 8, bits = 32 / in_word;
    size_t words = weight->in / in_word, zero_words = (weight->out + in_word - 1) / in_word, less = v2 ? 0 : 1;
    uint32_t *q = new_words((words - 1) * cols + weight->out);
    uint32_t *z = weight->linear.zero_points ? new_words((weight->blocks - 1) * (cols / in_word) + zero_words) : NULL;
    struct file file = {.weight = q, .scales = write_row_scales(weight, cols), .zero_points = z};
    file.g_idx = guarded_alloc(weight->in * sizeof *file.g_idx, sizeof *file.g_idx, FLUSH_END);
    for (size_t k = 0; k < weight->in; k++)
        file.g_idx[k] = (int32_t)(k / weight->linear.block);
    for (size_t j = 0; j < weight->out; j++) {
        for (size_t k = 0; k < weight->in; k++)
            q[k / in_word * cols + j] |= (uint32_t)element_of(weight, j, k) << bits * (k % in_word);
        for (size_t b = 0; z && b < weight->blocks; b++)
            z[b * (cols / in_word) + j / in_word] |= (uint32_t)(uint8_t)(zero_point_of(weight, j, b) - less)
                                                     << bits * (j % in_word);
    }
    file.linear = row_linear(weight, &file, cols, v2 ? ATTN_LAYOUT_GPTQ_V2 : ATTN_LAYOUT_GPTQ);
    return file;
}

/* AutoAWQ: order_map = [0, 2, 4, 6, 1, 3, 5, 7]; bits 4 i of word c are column 8 c + order_map[i]. */
static void put_awq(uint32_t *row, size_t j, uint8_t value) {
    static const size_t order_map[] = {0, 2, 4, 6, 1, 3, 5, 7};
    for (size_t i = 0; i < 8; i++)
        if (order_map[i] == j % 8)
            row[j / 8] |= (uint32_t)value << 4 * i;
}

static struct file write_awq(const struct weight *weight, size_t cols) {
    size_t words = cols / 8, last = (weight->out + 7) / 8;
    uint32_t *q = new_words((weight->in - 1) * words + last);
    uint32_t *z = weight->linear.zero_points ? new_words((weight->blocks - 1) * words + last) : NULL;
    struct file file = {.weight = q, .scales = write_row_scales(weight, cols), .zero_points = z};
    for (size_t j = 0; j < weight->out; j++) {
        for (size_t k = 0; k < weight->in; k++)
            put_awq(q + k * words, j, element_of(weight, j, k));
        for (size_t b = 0; z && b < weight->blocks; b++)
            put_awq(z + b * words, j, zero_point_of(weight, j, b));
    }
    file.linear = row_linear(weight, &file, cols, ATTN_LAYOUT_AWQ);
    return file;
}

/* ---- Products ---- */

enum { ROWS = 5 };

/* Products with the weight as a file has it are those with the plain arrays. */
static void check_file(struct test_random *random, const struct weight *weight, const struct file *file) {
    struct weight there = *weight;
    float *x = guarded_floats(ROWS * weight->in, FLUSH_END);
    float *expected = guarded_floats(ROWS * weight->out, FLUSH_END), *y = guarded_floats(ROWS * weight->out, FLUSH_END);
    there.linear = file->linear;
    attn_gemm *plain = new_gemm(weight, ATTN_ARITHMETIC_FASTEST), *made = new_gemm(&there, ATTN_ARITHMETIC_FASTEST);
    random_fill(random, TEST_NORMAL, x, ROWS * weight->in);
    multiply_rows(plain, weight->in, weight->out, ROWS, x, expected);
    multiply_rows(made, weight->in, weight->out, ROWS, x, y);
    assert_same_bits(expected, y, ROWS * weight->out);
    guarded_free(plain);
    guarded_free(made);
    guarded_free(x);
    guarded_free(expected);
    guarded_free(y);
}

static const size_t sizes[][2] = {{128, 8}, {256, 40}, {128, 3}, {384, 67}, {256, 32}};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* Zero points that the file can hold: GPTQ's of 4 bits are at least 1. Of 8 bits 0 is 255 in the file. */
static void raise_zero_points(struct weight *weight) {
    uint8_t *packed = weight->packed_zero_points;
    for (size_t i = 0; packed && weight->linear.type == ATTN_INT4 && i < weight->out * weight->blocks; i++)
        if (weight->zero_points[i] == 0) {
            size_t j = i / weight->blocks, b = i % weight->blocks;
            weight->zero_points[i] = 1;
            packed[j * ((weight->blocks + 1) / 2) + b / 2] |= (uint8_t)(b % 2 ? 16 : 1);
        }
}

static void q4_0_equals_plain(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < SIZES; i++)
        for (size_t gap = 0; gap < 2; gap++) {
            struct weight weight = new_weight(&random, (struct weight_kind){ATTN_INT4, 32, ATTN_F16, false, false},
                                              sizes[i][0], sizes[i][1], i % 2);
            struct file file = write_q4_0(&weight, gap);
            test_case("q4_0 %zu x %zu gap %zu", weight.in, weight.out, gap);
            check_file(&random, &weight, &file);
            free_file(&file);
            free_weight(&weight);
        }
}

static void q8_0_equals_plain(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < SIZES; i++)
        for (size_t gap = 0; gap < 2; gap++) {
            struct weight weight = new_weight(&random, (struct weight_kind){ATTN_INT8, 32, ATTN_F16, false, false},
                                              sizes[i][0], sizes[i][1], i % 2);
            struct file file = write_q8_0(&weight, gap);
            test_case("q8_0 %zu x %zu gap %zu", weight.in, weight.out, gap);
            check_file(&random, &weight, &file);
            free_file(&file);
            free_weight(&weight);
        }
}

static void unsigned_equals_plain(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t kind = 0; kind < weight_kind_count; kind++)
        for (size_t i = 0; weight_kinds[kind].type == ATTN_INT8 && weight_kinds[kind].block > 0 && i < SIZES; i++) {
            struct weight weight = new_weight(&random, weight_kinds[kind], sizes[i][0], sizes[i][1], i % 2);
            struct file file = write_onnx(&weight);
            test_case("kind %zu %zu x %zu", kind, weight.in, weight.out);
            check_file(&random, &weight, &file);
            free_file(&file);
            free_weight(&weight);
        }
}

/* struct block_q8_0 { ggml_half d; int8_t qs[32]; }, packed as floats. */
static void q8_0_equals_floats(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < SIZES; i++) {
        struct weight weight =
            new_weight(&random, (struct weight_kind){.type = ATTN_F32}, sizes[i][0], sizes[i][1], i % 2);
        size_t in = weight.in, out = weight.out, blocks = in / 32 + i % 2;
        uint8_t *to = guarded_alloc(((out - 1) * blocks + in / 32) * 34, 2, FLUSH_END);
        struct file file = {.weight = to};
        for (size_t j = 0; j < out; j++)
            for (size_t b = 0; b < in / 32; b++) {
                uint8_t *block = to + (j * blocks + b) * 34;
                unsigned exponent = (unsigned)random_below(&random, 31),
                         fraction = (unsigned)random_below(&random, 1024);
                uint16_t half = (uint16_t)(random_below(&random, 2) << 15 | exponent << 10 | fraction);
                double d = (half >> 15 ? -1 : 1) *
                           (exponent ? ldexp(1024 + fraction, (int)exponent - 25) : ldexp(fraction, -24));
                memcpy(block, &half, sizeof half);
                for (size_t k = 0; k < 32; k++) {
                    int element = (int)random_below(&random, 256) - 128;
                    double exact = d * element;
                    block[2 + k] = (uint8_t)element;
                    ((float *)weight.data)[(b * 32 + k) * out + j] = (float)exact;
                    assert_true((double)(float)exact == exact);
                }
            }
        file.linear = attn_linear_transposed(to, ATTN_F32, blocks * 32, weight.bias);
        file.linear.layout = ATTN_LAYOUT_GGML_Q8_0;
        test_case("q8_0 %zu x %zu", in, out);
        check_file(&random, &weight, &file);
        free_file(&file);
        free_weight(&weight);
    }
}

static void word_layouts_equal_plain(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t kind = 0; kind < weight_kind_count; kind++)
        for (size_t i = 0; weight_kinds[kind].block > 0 && i < SIZES; i++)
            for (size_t layout = 0; layout < (weight_kinds[kind].type == ATTN_INT4 ? 6 : 4); layout++) {
                struct weight weight = new_weight(&random, weight_kinds[kind], sizes[i][0], sizes[i][1], i % 2);
                size_t cols = (weight.out + 7) / 8 * 8 + (layout % 2 ? 16 : 0);
                if (layout < 2)
                    raise_zero_points(&weight);
                struct file file = layout < 4 ? write_gptq(&weight, cols, layout >= 2) : write_awq(&weight, cols);
                test_case("layout %zu kind %zu %zu x %zu", layout, kind, weight.in, weight.out);
                check_file(&random, &weight, &file);
                free_file(&file);
                free_weight(&weight);
            }
}

/* GPTQ's zero points go up to 16, which plain arrays cannot hold. With an x whose elements are all 127, which is
 * quantised exactly, scales of powers of two and few elements, the product is the sum of integers. */
static void gptq_zero_points_reach_16(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { IN = 64, OUT = 24 };
    const struct weight_kind kind = {ATTN_INT4, 32, ATTN_F32, true, false};
    struct weight weight = new_weight(&random, kind, IN, OUT, false);
    for (size_t i = 0; i < (size_t)OUT * weight.blocks; i++) {
        weight.zero_points[i] = (uint8_t)(i % 3 == 0 ? 16 : 1 + random_below(&random, 16));
        ((float *)weight.scales)[i] = 0.5f;
    }
    struct file file = write_gptq(&weight, OUT, false);
    struct weight there = weight;
    float x[IN], y[OUT];
    there.linear = file.linear;
    for (size_t k = 0; k < IN; k++)
        x[k] = 127.0f;
    attn_gemm *gemm = new_gemm(&there, ATTN_ARITHMETIC_FASTEST);
    multiply_rows(gemm, IN, OUT, 1, x, y);
    for (size_t j = 0; j < OUT; j++) {
        long sum = 0;
        for (size_t k = 0; k < IN; k++)
            sum += (long)element_of(&weight, j, k) - zero_point_of(&weight, j, k / 32);
        test_case("column %zu", j);
        assert_true(y[j] == (float)sum * 63.5f);
    }
    guarded_free(gemm);
    free_file(&file);
    free_weight(&weight);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(q4_0_equals_plain),        cmocka_unit_test(q8_0_equals_plain),
        cmocka_unit_test(q8_0_equals_floats),       cmocka_unit_test(unsigned_equals_plain),
        cmocka_unit_test(word_layouts_equal_plain), cmocka_unit_test(gptq_zero_points_reach_16),
    };
    return test_run(tests);
}
