#include "api/check.h"

#include <math.h>
#include <string.h>

#include "dispatch.h"

const struct attn_names attn_names_q = ATTN_NAMES("q"), attn_names_k = ATTN_NAMES("k"), attn_names_v = ATTN_NAMES("v"),
                        attn_names_o = ATTN_NAMES("o"), attn_names_x = ATTN_NAMES("x"), attn_names_y = ATTN_NAMES("y");

attn_status attn_check_memory(const void *memory, size_t bytes, size_t needed, const char *name, attn_error *error) {
    if (needed == 0)
        return ATTN_OK;
    RETURN_IF_ERROR(attn_check_pointer(memory, name, error));
    if ((uintptr_t)memory % ATTN_ALIGNMENT != 0)
        return attn_fail(ATTN_MISALIGNED, name, error);
    return bytes < needed ? attn_fail_size(ATTN_TOO_SMALL, "bytes", needed, bytes, error) : ATTN_OK;
}

attn_status attn_check_parallel(const attn_parallel *parallel, const char *name, attn_error *error) {
    return parallel && parallel->threads > 1 && !parallel->run ? attn_fail(ATTN_NULL_POINTER, name, error) : ATTN_OK;
}

attn_status attn_check_valid(const attn_valid_lens *valid, const char *kind_name, const char *lens_name,
                             const char *batch_stride_name, const char *row_stride_name, attn_error *error) {
    attn_valid_kind kind = valid->kind;
    RETURN_IF_ERROR(attn_check_enum((int)kind, ATTN_VALID_PER_ROW, kind_name, error));
    RETURN_IF_ERROR(attn_check_ints(&valid->lens, lens_name, error));
    RETURN_IF_ERROR(attn_check_used(attn_ints_given(&valid->lens), kind != ATTN_VALID_ALL, lens_name, error));
    RETURN_IF_ERROR(attn_check_used(valid->batch_stride != 0, kind != ATTN_VALID_ALL, batch_stride_name, error));
    return attn_check_used(valid->row_stride != 0, kind == ATTN_VALID_PER_ROW, row_stride_name, error);
}

attn_status attn_check_rows(const struct attn_strided *rows, struct attn_named_bytes *range,
                            const struct attn_names *names, attn_error *error) {
    range->name = names->tensor;
    range->data = rows->data;
    range->bytes = 0;
    if (rows->dims[1] == 0 || rows->dims[2] == 0)
        return ATTN_OK;
    RETURN_IF_ERROR(attn_check_pointer(rows->data, names->data, error));
    RETURN_IF_ERROR(attn_check_row_type(rows, names, error));
    if (rows->strides[0] != 0)
        return attn_fail(ATTN_BAD_STRIDE, names->head_stride, error);
    if (rows->dims[2] > 1 && rows->strides[2] < rows->width)
        return attn_fail_size(ATTN_BAD_STRIDE, names->row_stride, rows->width, rows->strides[2], error);
    RETURN_IF_ERROR(attn_check_strides(rows, names->batch_stride, error));
    return attn_check_extent(rows, &range->bytes, names->batch_stride, error);
}

attn_status attn_check_apart(int count, const size_t *dims, const size_t *strides, size_t width, const char *name,
                             attn_error *error) {
    size_t covered = width;
    bool done[ATTN_CHECK_DIMS + 1] = {false};
    for (int d = 0; d < count; d++)
        if (dims[d] == 0)
            return ATTN_OK;
    for (int n = 0; n < count; n++) {
        int least = -1;
        for (int d = 0; d < count; d++)
            if (!done[d] && dims[d] > 1 && (least < 0 || strides[d] < strides[least]))
                least = d;
        if (least < 0)
            return ATTN_OK;
        if (strides[least] < covered)
            return attn_fail(ATTN_BAD_STRIDE, name, error);
        /* attn_check_extent has seen that this does not wrap. */
        covered += (dims[least] - 1) * strides[least];
        done[least] = true;
    }
    return ATTN_OK;
}

attn_status attn_check_disjoint(const void *a, size_t a_bytes, const void *b, size_t b_bytes, const char *name,
                                attn_error *error) {
    uintptr_t a_begin = (uintptr_t)a, b_begin = (uintptr_t)b;
    if (a_bytes == 0 || b_bytes == 0 || a_begin >= b_begin + b_bytes || b_begin >= a_begin + a_bytes)
        return ATTN_OK;
    return attn_fail(ATTN_OVERLAP, name, error);
}

/* Each byte of the tensor lies some t bytes behind its first one. Returns a bound that t modulo `period` is below: a
 * dimension whose stride is a multiple of the period adds nothing to it. No dimension is 0. */
static size_t spread_modulo(const struct attn_strided *tensor, size_t period) {
    size_t element = attn_type_size(tensor->type), bytes = tensor->width * element;
    for (int d = 0; d < ATTN_CHECK_DIMS; d++) {
        size_t stride = tensor->strides[d] * element; /* attn_check_extent: it fits unless the dimension is 1 */
        if (stride % period != 0)
            bytes += (tensor->dims[d] - 1) * stride;
    }
    return bytes;
}

/* Tries each of the output's strides as a period. Modulo the period, let the input begin `from` bytes behind the
 * output, and let a and b be the spreads of output and input. Counted from the output's first byte, the output's bytes
 * then have residues 0 .. a - 1 and the input's from .. from + b - 1. If a <= from and from + b <= period, no residue
 * is in both, hence no byte. */
bool attn_are_columns(const struct attn_strided *output, const struct attn_strided *input) {
    for (int d = 0; d < ATTN_CHECK_DIMS; d++) {
        size_t period = output->strides[d] * attn_type_size(output->type);
        if (period == 0)
            continue;
        size_t a = (uintptr_t)output->data % period, b = (uintptr_t)input->data % period;
        size_t from = b >= a ? b - a : b + period - a;
        if (spread_modulo(output, period) <= from && spread_modulo(input, period) <= period - from)
            return true;
    }
    return false;
}

static bool is_ggml(attn_layout layout) {
    return layout == ATTN_LAYOUT_GGML_Q4_0 || layout == ATTN_LAYOUT_GGML_Q8_0;
}

/* The types that go with a layout. */
static unsigned layout_types(attn_layout layout) {
    switch (layout) {
    case ATTN_LAYOUT_GGML_Q8_0:
        return ATTN_TYPE_BIT(ATTN_F32) | ATTN_TYPE_BIT(ATTN_INT8);
    case ATTN_LAYOUT_GPTQ:
    case ATTN_LAYOUT_GPTQ_V2:
        return ATTN_TYPE_BIT(ATTN_INT4) | ATTN_TYPE_BIT(ATTN_INT8);
    case ATTN_LAYOUT_UNSIGNED:
        return ATTN_TYPE_BIT(ATTN_INT8);
    default:
        return ATTN_TYPE_BIT(ATTN_INT4);
    }
}

/* What a layout says already is not given beside it. */
static attn_status check_layout(const attn_linear *linear, size_t in, const struct attn_linear_names *names,
                                attn_error *error) {
    attn_layout layout = linear->layout;
    bool gptq = layout == ATTN_LAYOUT_GPTQ || layout == ATTN_LAYOUT_GPTQ_V2, ggml = is_ggml(layout);
    RETURN_IF_ERROR(attn_check_enum((int)layout, ATTN_LAYOUT_UNSIGNED, names->layout, error));
    bool fits = attn_type_is_in(linear->type, layout_types(layout));
    RETURN_IF_ERROR(attn_check_used(layout != ATTN_LAYOUT_PLAIN, fits, names->layout, error));
    RETURN_IF_ERROR(attn_check_used(linear->g_idx != NULL, gptq, names->g_idx, error));
    RETURN_IF_ERROR(attn_check_used(linear->scales != NULL, !ggml, names->scales, error));
    RETURN_IF_ERROR(attn_check_used(linear->scale_type != ATTN_F32, !ggml, names->scale_type, error));
    RETURN_IF_ERROR(attn_check_used(linear->block != 0, !ggml, names->block, error));
    RETURN_IF_ERROR(attn_check_used(linear->zero_points != NULL, !ggml, names->zero_points, error));
    return ggml && in % ATTN_GGML_BLOCK != 0 ? attn_fail(ATTN_BAD_SIZE, names->block, error) : ATTN_OK;
}

attn_status attn_check_linear_type(const attn_linear *linear, size_t in, const struct attn_linear_names *names,
                                   attn_error *error) {
    const unsigned types = ATTN_TYPES_FLOAT | ATTN_TYPE_BIT(ATTN_INT8) | ATTN_TYPE_BIT(ATTN_INT4);
    bool int8 = linear->type == ATTN_INT8, int4 = linear->type == ATTN_INT4, blocks = attn_linear_has_blocks(linear);
    RETURN_IF_ERROR(attn_check_type(linear->type, types, names->type, error));
    RETURN_IF_ERROR(check_layout(linear, in, names, error));
    RETURN_IF_ERROR(attn_check_used(linear->scales != NULL, int8 || int4, names->scales, error));
    RETURN_IF_ERROR(attn_check_used(linear->scale_type != ATTN_F32, blocks, names->scale_type, error));
    RETURN_IF_ERROR(attn_check_used(linear->block != 0, blocks, names->block, error));
    RETURN_IF_ERROR(attn_check_used(linear->zero_points != NULL, blocks, names->zero_points, error));
    RETURN_IF_ERROR(attn_check_used(linear->dequantised != 0, int4, names->dequantised, error));
    if (!blocks)
        return ATTN_OK;
    const unsigned scale_types = ATTN_TYPE_BIT(ATTN_F32) | ATTN_TYPE_BIT(ATTN_F16);
    struct attn_scaling scaling = attn_linear_scaling(linear);
    RETURN_IF_ERROR(attn_check_type(scaling.type, scale_types, names->scale_type, error));
    bool is_block = scaling.block == 32 || scaling.block == 64 || scaling.block == 128;
    return is_block && in % scaling.block == 0 ? ATTN_OK : attn_fail(ATTN_BAD_SIZE, names->block, error);
}

static bool is_finite_scale(attn_type type, const void *scale) {
    const uint16_t exponent = 0x7c00;
    uint16_t half;
    float number;
    memcpy(&half, scale, sizeof half);
    memcpy(&number, scale, sizeof number);
    return type == ATTN_F16 ? (half & exponent) != exponent : isfinite(number);
}

attn_status attn_check_scales(const struct attn_weight_source *source, attn_type type, size_t out, size_t blocks,
                              const char *name, attn_error *error) {
    float scale = 0;
    for (size_t j = 0; j < out; j++)
        for (size_t b = 0; b < blocks; b++) {
            source->scale(source->context, j, b, &scale);
            if (!is_finite_scale(type, &scale))
                return attn_fail(ATTN_BAD_VALUE, name, error);
        }
    return ATTN_OK;
}

/* Columns whose elements follow each other, in pieces of `piece` elements that take `bytes`: of two to a byte, or of
 * ggml's blocks. */
static attn_status check_columns(const attn_linear *linear, size_t in, size_t out, size_t piece, size_t bytes,
                                 const struct attn_linear_names *names, attn_error *error) {
    size_t range;
    if (linear->in_stride != 1)
        return attn_fail_size(ATTN_BAD_STRIDE, names->in_stride, 1, linear->in_stride, error);
    if (out > 1 && (linear->out_stride % piece != 0 || linear->out_stride < in))
        return attn_fail(ATTN_BAD_STRIDE, names->out_stride, error);
    return attn_check_elements((size_t[]){1, 1, out}, (size_t[]){0, 0, linear->out_stride / piece}, in / piece, bytes,
                               &range, names->weight, error);
}

/* Rows of words, GPTQ's or AWQ's. */
static attn_status check_words(const attn_linear *linear, size_t in, size_t out, const struct attn_linear_names *names,
                               attn_error *error) {
    size_t range;
    size_t in_word = attn_word_elements(linear->type);
    if (linear->in_stride % in_word != 0 || linear->in_stride < out)
        return attn_fail(ATTN_BAD_STRIDE, names->in_stride, error);
    if (linear->out_stride != 1)
        return attn_fail(ATTN_BAD_STRIDE, names->out_stride, error);
    for (size_t p = 0; linear->g_idx && p < in; p++)
        if (linear->g_idx[p] < 0 || (size_t)linear->g_idx[p] != p / linear->block)
            return attn_fail(ATTN_BAD_VALUE, names->g_idx, error);
    return attn_check_elements((size_t[]){1, 1, in / in_word}, (size_t[]){0, 0, linear->in_stride}, out,
                               ATTN_WORD_BYTES, &range, names->weight, error);
}

/* Any strides. */
static attn_status check_strided(const attn_linear *linear, size_t in, size_t out,
                                 const struct attn_linear_names *names, attn_error *error) {
    size_t bytes;
    if (in > 1 && linear->in_stride == 0)
        return attn_fail(ATTN_BAD_STRIDE, names->in_stride, error);
    if (out > 1 && linear->out_stride == 0)
        return attn_fail(ATTN_BAD_STRIDE, names->out_stride, error);
    return attn_check_elements((size_t[]){1, in, out}, (size_t[]){0, linear->in_stride, linear->out_stride}, 1,
                               attn_type_size(linear->type), &bytes, names->weight, error);
}

static attn_status check_elements(const attn_linear *linear, size_t in, size_t out,
                                  const struct attn_linear_names *names, attn_error *error) {
    switch (linear->layout) {
    case ATTN_LAYOUT_PLAIN:
    case ATTN_LAYOUT_UNSIGNED:
        return linear->type == ATTN_INT4 ? check_columns(linear, in, out, 2, 1, names, error)
                                         : check_strided(linear, in, out, names, error);
    case ATTN_LAYOUT_GGML_Q4_0:
        return check_columns(linear, in, out, ATTN_GGML_BLOCK, ATTN_Q4_0_BYTES, names, error);
    case ATTN_LAYOUT_GGML_Q8_0:
        return check_columns(linear, in, out, ATTN_GGML_BLOCK, ATTN_Q8_0_BYTES, names, error);
    default:
        return check_words(linear, in, out, names, error);
    }
}

attn_status attn_check_linear(const attn_linear *linear, size_t in, size_t out, const struct attn_linear_names *names,
                              attn_error *error) {
    struct attn_linear_reader reader = attn_linear_reader_of(linear, in);
    struct attn_weight_source source = attn_linear_source(&reader);
    RETURN_IF_ERROR(attn_check_pointer(linear->weight, names->weight, error));
    RETURN_IF_ERROR(check_elements(linear, in, out, names, error));
    if (is_ggml(linear->layout))
        return attn_check_scales(&source, ATTN_F16, out, in / ATTN_GGML_BLOCK, names->weight, error);
    if (linear->type != ATTN_INT8 && linear->type != ATTN_INT4)
        return ATTN_OK;
    RETURN_IF_ERROR(attn_check_pointer(linear->scales, names->scales, error));
    return attn_check_scales(&source, reader.scaling.type, out,
                             attn_has_blocks(&reader.scaling) ? in / reader.scaling.block : 1, names->scales, error);
}
