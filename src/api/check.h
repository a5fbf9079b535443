/* Argument checks: each function returns ATTN_OK, or a status after describing it in *error. */
#ifndef ATTN_API_CHECK_H
#define ATTN_API_CHECK_H

#include "checked.h"
#include "ops/layouts.h"
#include "ops/tensor.h"

/* Returns from the calling function if `expression` is a status other than ATTN_OK. */
#define RETURN_IF_ERROR(expression)                                                                                    \
    do {                                                                                                               \
        attn_status checked_status = (expression);                                                                     \
        if (checked_status != ATTN_OK)                                                                                 \
            return checked_status;                                                                                     \
    } while (0)

/* Describes a failure in *error, unless that is NULL, and returns `status`. */
static inline attn_status attn_fail(attn_status status, const char *name, attn_error *error) {
    if (error)
        *error = (attn_error){.status = status, .field = name};
    return status;
}

/* The same where a size is compared with a limit. */
static inline attn_status attn_fail_size(attn_status status, const char *name, size_t needed, size_t given,
                                         attn_error *error) {
    if (error)
        *error = (attn_error){.status = status, .field = name, .needed = needed, .given = given};
    return status;
}

static inline attn_status attn_check_pointer(const void *pointer, const char *name, attn_error *error) {
    return pointer ? ATTN_OK : attn_fail(ATTN_NULL_POINTER, name, error);
}

/* least <= size <= PTRDIFF_MAX. */
static inline attn_status attn_check_size(size_t size, size_t least, const char *name, attn_error *error) {
    if (size >= least && size <= PTRDIFF_MAX)
        return ATTN_OK;
    return attn_fail_size(ATTN_BAD_SIZE, name, size < least ? least : PTRDIFF_MAX, size, error);
}

/* size <= most. */
static inline attn_status attn_check_most(size_t size, size_t most, const char *name, attn_error *error) {
    return size <= most ? ATTN_OK : attn_fail_size(ATTN_BAD_SIZE, name, most, size, error);
}

/* low <= value <= high for an enumeration. */
static inline attn_status attn_check_enum(int value, int high, const char *name, attn_error *error) {
    return value < 0 || value > high ? attn_fail(ATTN_BAD_VALUE, name, error) : ATTN_OK;
}

static inline attn_status attn_check_arithmetic(attn_arithmetic arithmetic, const char *name, attn_error *error) {
    return attn_check_enum((int)arithmetic, ATTN_ARITHMETIC_PORTABLE, name, error);
}

/* Memory that must hold `needed` bytes; `name` is the pointer's. */
attn_status attn_check_memory(const void *memory, size_t bytes, size_t needed, const char *name, attn_error *error);

/* A pool of more than one thread needs a run function; `name` is that function's. */
attn_status attn_check_parallel(const attn_parallel *parallel, const char *name, attn_error *error);

/* ATTN_BAD_VALUE under `name` for what is given though nothing would use it: that can only be a mistake. */
static inline attn_status attn_check_used(bool given, bool used, const char *name, attn_error *error) {
    return given && !used ? attn_fail(ATTN_BAD_VALUE, name, error) : ATTN_OK;
}

/* At most one of the two arrays is given. */
static inline attn_status attn_check_ints(const attn_ints *ints, const char *name, attn_error *error) {
    return ints->i64 && ints->i32 ? attn_fail(ATTN_BAD_VALUE, name, error) : ATTN_OK;
}

/* The kind of lengths exists; without one nothing else is given, and no stride of rows without lengths of rows. The
 * names begin with `prefix`, a literal. */
#define ATTN_CHECK_VALID(valid, prefix, error)                                                                         \
    attn_check_valid(valid, prefix "valid.kind", prefix "valid.lens", prefix "valid.batch_stride",                     \
                     prefix "valid.row_stride", error)
attn_status attn_check_valid(const attn_valid_lens *valid, const char *kind_name, const char *lens_name,
                             const char *batch_stride_name, const char *row_stride_name, attn_error *error);

/* Lengths are given if their kind, which has been checked, needs them. */
static inline attn_status attn_check_valid_lens(const attn_valid_lens *valid, const char *name, attn_error *error) {
    bool given = attn_ints_given(&valid->lens);
    return given || valid->kind == ATTN_VALID_ALL ? ATTN_OK : attn_fail(ATTN_NULL_POINTER, name, error);
}

/* What errors call a tensor and its fields. */
struct attn_names {
    const char *tensor, *data, *type, *batch_stride, *head_stride, *row_stride, *col_stride;
};
#define ATTN_NAMES(x)                                                                                                  \
    { x, x ".data", x ".type", x ".batch_stride", x ".head_stride", x ".row_stride", x ".col_stride" }

extern const struct attn_names attn_names_q, attn_names_k, attn_names_v, attn_names_o, attn_names_x, attn_names_y;

/* One of a set of types. */
static inline attn_status attn_check_type(attn_type type, unsigned types, const char *name, attn_error *error) {
    return attn_type_is_in(type, types) ? ATTN_OK : attn_fail_size(ATTN_BAD_VALUE, name, types, (unsigned)type, error);
}

/* A type of floating-point numbers. */
static inline attn_status attn_check_float_type(attn_type type, const char *name, attn_error *error) {
    return attn_check_type(type, ATTN_TYPES_FLOAT, name, error);
}

/* A type of keys or values. */
static inline attn_status attn_check_stored_type(attn_type type, const char *name, attn_error *error) {
    return attn_check_type(type, ATTN_TYPE_BIT(ATTN_F32) | ATTN_TYPE_BIT(ATTN_BF16), name, error);
}

/* A named range of bytes. */
struct attn_named_bytes {
    const char *name;
    const void *data;
    size_t bytes;
};

/* A tensor of rows of `width` elements, its dimensions and strides outermost first. */
enum { ATTN_CHECK_DIMS = 3 };
struct attn_strided {
    const void *data;
    size_t dims[ATTN_CHECK_DIMS], strides[ATTN_CHECK_DIMS], width;
    attn_type type;
    bool any_float; /* it may have any floating-point type, else F32 alone */
    size_t col_stride;
};

/* Contiguous rows of a type that the field takes. */
static inline attn_status attn_check_row_type(const struct attn_strided *rows, const struct attn_names *names,
                                              attn_error *error) {
    unsigned types = rows->any_float ? ATTN_TYPES_FLOAT : ATTN_TYPE_BIT(ATTN_F32);
    RETURN_IF_ERROR(attn_check_type(rows->type, types, names->type, error));
    return rows->col_stride > 1 ? attn_fail(ATTN_BAD_STRIDE, names->col_stride, error) : ATTN_OK;
}

/* [batch, heads, len, width]. Field by field: a copy of a struct in pieces of 16 bytes waits for stores of 8 bytes to
 * reach the cache, which for four tensors is a tenth of the smallest call. */
static inline struct attn_strided attn_heads_of(const attn_tensor *x, size_t batch, size_t heads, size_t len,
                                                size_t width) {
    struct attn_strided rows;
    rows.data = x->data;
    rows.dims[0] = batch;
    rows.dims[1] = heads;
    rows.dims[2] = len;
    rows.strides[0] = x->batch_stride;
    rows.strides[1] = x->head_stride;
    rows.strides[2] = x->row_stride;
    rows.width = width;
    rows.type = x->type;
    rows.any_float = false;
    rows.col_stride = x->col_stride;
    return rows;
}

/* [batch, len, width], for attn_check_rows. */
static inline struct attn_strided attn_rows_of(const attn_tensor *x, size_t batch, size_t len, size_t width) {
    struct attn_strided rows = attn_heads_of(x, 1, batch, len, width);
    rows.strides[0] = x->head_stride;
    rows.strides[1] = x->batch_stride;
    return rows;
}

/* *bytes = the bytes from the first to the last element of a tensor of rows of `width` elements, 0 if a dimension is 0.
 * ATTN_OVERFLOW under `name` if that does not fit. Inline, because some calls take less than a microsecond. */
static inline attn_status attn_check_elements(const size_t dims[ATTN_CHECK_DIMS], const size_t strides[ATTN_CHECK_DIMS],
                                              size_t width, size_t element_size, size_t *bytes, const char *name,
                                              attn_error *error) {
    size_t elements = width;
    for (int d = 0; d < ATTN_CHECK_DIMS; d++) {
        size_t step;
        if (dims[d] == 0) {
            *bytes = 0;
            return ATTN_OK;
        }
        if (!attn_mul(dims[d] - 1, strides[d], &step) || !attn_add(elements, step, &elements))
            return attn_fail(ATTN_OVERFLOW, name, error);
    }
    if (!attn_mul(elements, element_size, bytes) || *bytes > PTRDIFF_MAX)
        return attn_fail(ATTN_OVERFLOW, name, error);
    return ATTN_OK;
}

/* The same for a tensor. */
static inline attn_status attn_check_extent(const struct attn_strided *tensor, size_t *bytes, const char *name,
                                            attn_error *error) {
    return attn_check_elements(tensor->dims, tensor->strides, tensor->width, attn_type_size(tensor->type), bytes, name,
                               error);
}

/* Fills in the tensor's range. If the range is not empty the tensor must have data, and rows of its types. */
static inline attn_status attn_check_tensor(const struct attn_strided *tensor, struct attn_named_bytes *range,
                                            const struct attn_names *names, attn_error *error) {
    range->name = names->tensor;
    range->data = tensor->data;
    RETURN_IF_ERROR(attn_check_extent(tensor, &range->bytes, names->tensor, error));
    if (range->bytes == 0)
        return ATTN_OK;
    RETURN_IF_ERROR(attn_check_pointer(tensor->data, names->data, error));
    return attn_check_row_type(tensor, names, error);
}

/* The same for rows of [batch, len, width] that may not overlap in a sequence. */
attn_status attn_check_rows(const struct attn_strided *rows, struct attn_named_bytes *range,
                            const struct attn_names *names, attn_error *error);

/* ATTN_BAD_STRIDE under `name` for an input of more than one row whose strides are all 0: they were forgotten. */
static inline attn_status attn_check_strides(const struct attn_strided *tensor, const char *name, attn_error *error) {
    const size_t *dims = tensor->dims, *strides = tensor->strides;
    bool none = (strides[0] | strides[1] | strides[2]) == 0, many = (dims[0] | dims[1] | dims[2]) > 1;
    bool empty = dims[0] == 0 || dims[1] == 0 || dims[2] == 0;
    return none && many && !empty ? attn_fail(ATTN_BAD_STRIDE, name, error) : ATTN_OK;
}

/* ATTN_BAD_STRIDE under `name` unless an output's rows lie apart: with dimensions in order of their strides, each
 * stride must be at least what the dimensions before it cover. There are at most ATTN_CHECK_DIMS + 1 dimensions. */
attn_status attn_check_apart(int count, const size_t *dims, const size_t *strides, size_t width, const char *name,
                             attn_error *error);
/* The same for a tensor. */
static inline attn_status attn_check_rows_apart(const struct attn_strided *rows, const char *name, attn_error *error) {
    return attn_check_apart(ATTN_CHECK_DIMS, rows->dims, rows->strides, rows->width, name, error);
}

/* ATTN_OVERLAP under `name` if two ranges of bytes overlap. */
attn_status attn_check_disjoint(const void *a, size_t a_bytes, const void *b, size_t b_bytes, const char *name,
                                attn_error *error);

/* Whether an output and an input share no byte though their ranges may overlap, because they are different columns of
 * one buffer, as q, k, v and o side by side in [batch, len, 4 * heads * head_size]. Both extents have been checked. */
bool attn_are_columns(const struct attn_strided *output, const struct attn_strided *input);

/* ATTN_OVERLAP under the output's name if the two may share a byte. */
static inline attn_status attn_check_input(const struct attn_strided *output,
                                           const struct attn_named_bytes *output_range,
                                           const struct attn_strided *input, const struct attn_named_bytes *input_range,
                                           attn_error *error) {
    uintptr_t a = (uintptr_t)output->data, b = (uintptr_t)input->data;
    size_t a_bytes = output_range->bytes, b_bytes = input_range->bytes;
    bool meet = a_bytes > 0 && b_bytes > 0 && a < b + b_bytes && b < a + a_bytes;
    return meet && !attn_are_columns(output, input) ? attn_fail(ATTN_OVERLAP, output_range->name, error) : ATTN_OK;
}

/* What errors call a weight's fields. */
struct attn_linear_names {
    const char *weight, *in_stride, *out_stride, *type, *scales, *scale_type, *block, *zero_points, *layout, *g_idx,
        *dequantised;
};
#define ATTN_LINEAR_NAMES(w)                                                                                           \
    {                                                                                                                  \
        w ".weight", w ".in_stride", w ".out_stride", w ".type", w ".scales", w ".scale_type", w ".block",             \
            w ".zero_points", w ".layout", w ".g_idx", w ".dequantised"                                                \
    }

/* Its type, and that what belongs to other types was not given. Data is not looked at. */
attn_status attn_check_linear_type(const attn_linear *linear, size_t in, const struct attn_linear_names *names,
                                   attn_error *error);

/* A weight of [in, out] whose type has been checked: pointers, strides and scales. Strides of 0 where a size is
 * above 1 are ATTN_BAD_STRIDE. */
attn_status attn_check_linear(const attn_linear *linear, size_t in, size_t out, const struct attn_linear_names *names,
                              attn_error *error);

/* BAD_VALUE under `name` where a scale of [out][blocks] is not finite. */
attn_status attn_check_scales(const struct attn_weight_source *source, attn_type type, size_t out, size_t blocks,
                              const char *name, attn_error *error);

#endif
