#include "api/check.h"

#include <math.h>

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

attn_status attn_check_linear_type(const attn_linear *linear, size_t in, const struct attn_linear_names *names,
                                   attn_error *error) {
    const unsigned types =
        ATTN_TYPE_BIT(ATTN_F32) | ATTN_TYPE_BIT(ATTN_BF16) | ATTN_TYPE_BIT(ATTN_INT8) | ATTN_TYPE_BIT(ATTN_INT4);
    bool int8 = linear->type == ATTN_INT8, int4 = linear->type == ATTN_INT4;
    RETURN_IF_ERROR(attn_check_type(linear->type, types, names->type, error));
    RETURN_IF_ERROR(attn_check_used(linear->scales != NULL, int8 || int4, names->scales, error));
    RETURN_IF_ERROR(attn_check_used(linear->scale_type != ATTN_F32, int4, names->scale_type, error));
    RETURN_IF_ERROR(attn_check_used(linear->block != 0, int4, names->block, error));
    RETURN_IF_ERROR(attn_check_used(linear->zero_points != NULL, int4, names->zero_points, error));
    if (!int4)
        return ATTN_OK;
    const unsigned scale_types = ATTN_TYPE_BIT(ATTN_F32) | ATTN_TYPE_BIT(ATTN_F16);
    RETURN_IF_ERROR(attn_check_type(linear->scale_type, scale_types, names->scale_type, error));
    bool is_block = linear->block == 32 || linear->block == 64 || linear->block == 128;
    return is_block && in % linear->block == 0 ? ATTN_OK : attn_fail(ATTN_BAD_SIZE, names->block, error);
}

static bool is_finite_scale(const attn_linear *linear, size_t i) {
    const uint16_t exponent = 0x7c00;
    if (linear->scale_type == ATTN_F16)
        return (((const uint16_t *)linear->scales)[i] & exponent) != exponent;
    return isfinite(((const float *)linear->scales)[i]);
}

/* `out` scales of each output's `blocks`. */
static attn_status check_scales(const attn_linear *linear, size_t out, size_t blocks, const char *name,
                                attn_error *error) {
    RETURN_IF_ERROR(attn_check_pointer(linear->scales, name, error));
    for (size_t i = 0; i < out * blocks; i++)
        if (!is_finite_scale(linear, i))
            return attn_fail(ATTN_BAD_VALUE, name, error);
    return ATTN_OK;
}

/* Columns of numbers that follow each other, two to a byte. */
static attn_status check_int4(const attn_linear *linear, size_t in, size_t out, const struct attn_linear_names *names,
                              attn_error *error) {
    size_t bytes;
    if (linear->in_stride != 1)
        return attn_fail_size(ATTN_BAD_STRIDE, names->in_stride, 1, linear->in_stride, error);
    if (out > 1 && (linear->out_stride % 2 != 0 || linear->out_stride < in))
        return attn_fail(ATTN_BAD_STRIDE, names->out_stride, error);
    RETURN_IF_ERROR(attn_check_elements((size_t[]){1, 1, out}, (size_t[]){0, 0, linear->out_stride / 2}, in / 2, 1,
                                        &bytes, names->weight, error));
    return check_scales(linear, out, in / linear->block, names->scales, error);
}

attn_status attn_check_linear(const attn_linear *linear, size_t in, size_t out, const struct attn_linear_names *names,
                              attn_error *error) {
    size_t bytes;
    RETURN_IF_ERROR(attn_check_pointer(linear->weight, names->weight, error));
    if (linear->type == ATTN_INT4)
        return check_int4(linear, in, out, names, error);
    if (in > 1 && linear->in_stride == 0)
        return attn_fail(ATTN_BAD_STRIDE, names->in_stride, error);
    if (out > 1 && linear->out_stride == 0)
        return attn_fail(ATTN_BAD_STRIDE, names->out_stride, error);
    RETURN_IF_ERROR(attn_check_elements((size_t[]){1, in, out}, (size_t[]){0, linear->in_stride, linear->out_stride}, 1,
                                        attn_type_size(linear->type), &bytes, names->weight, error));
    return linear->type == ATTN_INT8 ? check_scales(linear, out, 1, names->scales, error) : ATTN_OK;
}
