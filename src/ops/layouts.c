#include "ops/layouts.h"

#include <string.h>

#include "dispatch.h"
#include "ref/convert.h"

struct attn_scaling attn_linear_scaling(const attn_linear *linear) {
    bool ggml = linear->layout == ATTN_LAYOUT_GGML_Q4_0 || linear->layout == ATTN_LAYOUT_GGML_Q8_0;
    if (!attn_linear_has_blocks(linear))
        return (struct attn_scaling){.block = ATTN_INT8_PART};
    if (ggml)
        return (struct attn_scaling){.block = ATTN_GGML_BLOCK, .type = ATTN_F16};
    return (struct attn_scaling){linear->block, linear->scale_type, linear->zero_points != NULL};
}

struct attn_linear_reader attn_linear_reader_of(const attn_linear *linear, size_t k) {
    return (struct attn_linear_reader){linear, attn_linear_scaling(linear), k};
}

/* Scale number i of the array. */
static void copy_scale(const struct attn_linear_reader *reader, size_t i, void *to) {
    size_t bytes = attn_type_size(reader->scaling.type);
    memcpy(to, (const char *)reader->linear->scales + i * bytes, bytes);
}

/* ---- Plain: scales of each output, one after the other ---- */

static void plain_scale(const void *context, size_t j, size_t b, void *to) {
    const struct attn_linear_reader *reader = context;
    size_t blocks = attn_has_blocks(&reader->scaling) ? reader->k / reader->scaling.block : 1;
    copy_scale(reader, j * blocks + b, to);
}

/* ---- The same, but integers of 8 bits have no sign, and 128 more ---- */

static void unsigned_elements(const void *context, size_t j, size_t p, size_t count, void *to) {
    const attn_linear *linear = ((const struct attn_linear_reader *)context)->linear;
    const uint8_t *from = (const uint8_t *)linear->weight + j * linear->out_stride + p * linear->in_stride;
    for (size_t i = 0; i < count; i++)
        ((uint8_t *)to)[i] = from[i * linear->in_stride] ^ 0x80;
}

static uint8_t unsigned_zero_point(const void *context, size_t j, size_t b) {
    const struct attn_linear_reader *reader = context;
    return ((const uint8_t *)reader->linear->zero_points)[j * (reader->k / reader->scaling.block) + b];
}

/* ---- ggml: rows of blocks of 32, an F16 scale before the elements ---- */

static const uint8_t *ggml_block(const struct attn_linear_reader *reader, size_t j, size_t p, size_t bytes) {
    size_t blocks = reader->linear->out_stride / ATTN_GGML_BLOCK;
    return (const uint8_t *)reader->linear->weight + (j * blocks + p / ATTN_GGML_BLOCK) * bytes;
}

/* Q4_0: the lower halves of 16 bytes are the first elements. */
static void q4_0_elements(const void *context, size_t j, size_t p, size_t count, void *to) {
    const uint8_t *bytes = ggml_block(context, j, p, ATTN_Q4_0_BYTES) + sizeof(uint16_t);
    uint8_t *elements = to;
    for (size_t i = 0; i < count / 2; i++) {
        elements[i] = bytes[i] & 15;
        elements[count / 2 + i] = bytes[i] >> 4;
    }
}

static void q4_0_scale(const void *context, size_t j, size_t b, void *to) {
    memcpy(to, ggml_block(context, j, b * ATTN_GGML_BLOCK, ATTN_Q4_0_BYTES), sizeof(uint16_t));
}

/* Q8_0 as it is. */
static void q8_0_elements(const void *context, size_t j, size_t p, size_t count, void *to) {
    memcpy(to, ggml_block(context, j, p, ATTN_Q8_0_BYTES) + sizeof(uint16_t), count);
}

/* Q8_0 as floats, exactly: an element has 8 bits and a scale 11. */
static void q8_0_floats(const void *context, size_t j, size_t p, size_t count, void *to) {
    float *elements = to;
    for (size_t first = 0; first < count; first += ATTN_GGML_BLOCK, elements += ATTN_GGML_BLOCK) {
        const uint8_t *block = ggml_block(context, j, p + first, ATTN_Q8_0_BYTES);
        uint16_t half;
        float scale;
        memcpy(&half, block, sizeof half);
        uint32_t bits = ref_widen_f16(half);
        memcpy(&scale, &bits, sizeof scale);
        for (size_t i = 0; i < ATTN_GGML_BLOCK; i++)
            elements[i] = (float)(int8_t)block[sizeof half + i] * scale;
    }
}

static void q8_0_scale(const void *context, size_t j, size_t b, void *to) {
    memcpy(to, ggml_block(context, j, b * ATTN_GGML_BLOCK, ATTN_Q8_0_BYTES), sizeof(uint16_t));
}

/* ---- Words of eight elements of 4 bits or four of 8, without a sign, the first in the lowest bits ---- */

/* Element `place` of the word that is number i of the array. */
static uint8_t word_element(attn_type type, const void *words, size_t i, size_t place) {
    uint32_t word;
    memcpy(&word, (const char *)words + i * sizeof word, sizeof word);
    return (uint8_t)(type == ATTN_INT8 ? word >> 8 * place : word >> 4 * place & 15);
}

static size_t words_of_row(const struct attn_linear_reader *reader) {
    return reader->linear->in_stride / attn_word_elements(reader->linear->type);
}

/* GPTQ and AWQ have a row of scales, and of words of zero points, for each block. */
static void row_scale(const void *context, size_t j, size_t b, void *to) {
    const struct attn_linear_reader *reader = context;
    copy_scale(reader, b * reader->linear->in_stride + j, to);
}

/* GPTQ: a word holds elements of one column. */
static void gptq_elements(const void *context, size_t j, size_t p, size_t count, void *to) {
    const attn_linear *linear = ((const struct attn_linear_reader *)context)->linear;
    const uint8_t flip = linear->type == ATTN_INT8 ? 0x80 : 0;
    size_t in_word = attn_word_elements(linear->type);
    for (size_t i = 0; i < count; i++)
        ((uint8_t *)to)[i] =
            flip ^ word_element(linear->type, linear->weight, (p + i) / in_word * linear->in_stride + j, i % in_word);
}

static uint8_t gptq_v2_zero_point(const void *context, size_t j, size_t b) {
    const struct attn_linear_reader *reader = context;
    size_t in_word = attn_word_elements(reader->linear->type);
    return word_element(reader->linear->type, reader->linear->zero_points, b * words_of_row(reader) + j / in_word,
                        j % in_word);
}

static uint8_t gptq_zero_point(const void *context, size_t j, size_t b) {
    return (uint8_t)(gptq_v2_zero_point(context, j, b) + 1);
}

/* AWQ: a word holds elements of eight columns, in the order 0, 2, 4, 6, 1, 3, 5, 7. */
static uint8_t awq_element(const struct attn_linear_reader *reader, const void *words, size_t row, size_t j) {
    static const uint8_t place[] = {0, 4, 1, 5, 2, 6, 3, 7};
    return word_element(ATTN_INT4, words, row * words_of_row(reader) + j / 8, place[j % 8]);
}

static void awq_elements(const void *context, size_t j, size_t p, size_t count, void *to) {
    const struct attn_linear_reader *reader = context;
    for (size_t i = 0; i < count; i++)
        ((uint8_t *)to)[i] = awq_element(reader, reader->linear->weight, p + i, j);
}

static uint8_t awq_zero_point(const void *context, size_t j, size_t b) {
    const struct attn_linear_reader *reader = context;
    return awq_element(reader, reader->linear->zero_points, b, j);
}

struct attn_weight_source attn_linear_source(const struct attn_linear_reader *reader) {
    switch (reader->linear->layout) {
    case ATTN_LAYOUT_GGML_Q4_0:
        return (struct attn_weight_source){reader, q4_0_elements, q4_0_scale, NULL};
    case ATTN_LAYOUT_GGML_Q8_0:
        return (struct attn_weight_source){reader, reader->linear->type == ATTN_INT8 ? q8_0_elements : q8_0_floats,
                                           q8_0_scale, NULL};
    case ATTN_LAYOUT_GPTQ:
        return (struct attn_weight_source){reader, gptq_elements, row_scale, gptq_zero_point};
    case ATTN_LAYOUT_GPTQ_V2:
        return (struct attn_weight_source){reader, gptq_elements, row_scale, gptq_v2_zero_point};
    case ATTN_LAYOUT_AWQ:
        return (struct attn_weight_source){reader, awq_elements, row_scale, awq_zero_point};
    case ATTN_LAYOUT_UNSIGNED:
        return (struct attn_weight_source){reader, unsigned_elements, plain_scale, unsigned_zero_point};
    case ATTN_LAYOUT_PLAIN:
        break;
    }
    return (struct attn_weight_source){reader, NULL, plain_scale, NULL};
}
