#include "weights.h"
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

static size_t whole(struct side side) {
    return side.groups * side.room;
}

/* Where element i of a side lies. */
static size_t place(struct side side, size_t i) {
    return i / side.size * side.room + i % side.size;
}

static void spread(struct weights *weights, const float *weight, const float *bias, struct side out, struct side in) {
    const size_t rows = out.groups * out.size, cols = in.groups * in.size;
    for (size_t row = 0; row < rows; row++) {
        float *to = weights->floats + place(out, row) * whole(in);
        for (size_t col = 0; col < cols; col++)
            to[place(in, col)] = weight[row * cols + col];
        if (bias)
            weights->bias[place(out, row)] = bias[row];
    }
}

/* ---- Each type ---- */

/* The library's transposes convert elements; with one head they move none. */
static bool round_floats(struct weights *weights, attn_type type, size_t rows, size_t cols, struct error *error) {
    attn_transpose_args args = {.batch = 1, .len = rows, .heads = 1, .head_size = cols};
    attn_error fault = {0};
    char text[128];
    args.x = attn_rows_dense(weights->floats, ATTN_F32, rows, cols);
    args.y = attn_tensor_out_dense(weights->elements, type, 1, rows, cols);
    if (attn_transpose_qkv(&args, &fault) == ATTN_OK)
        return true;
    attn_error_text(&fault, text, sizeof text);
    return refuse(error, "rounding weights: %s", text);
}

/* The one of the largest magnitude, with its sign. */
static float largest(const float *x, size_t n) {
    float most = 0;
    for (size_t i = 0; i < n; i++)
        most = fabsf(x[i]) > fabsf(most) ? x[i] : most;
    return most;
}

/* x / scale to the nearest integer that there is. */
static int integer(float x, float scale, int lowest, int highest) {
    const float y = scale != 0 ? rintf(x / scale) : 0;
    if (!(y > (float)lowest))
        return lowest;
    return y < (float)highest ? (int)y : highest;
}

static void quantise_int8(struct weights *weights, size_t rows, size_t cols) {
    for (size_t row = 0; row < rows; row++) {
        const float *x = weights->floats + row * cols;
        weights->scales[row] = fabsf(largest(x, cols)) / 127;
        for (size_t i = 0; i < cols; i++)
            ((int8_t *)weights->elements)[row * cols + i] = (int8_t)integer(x[i], weights->scales[row], -127, 127);
    }
}

/* The largest magnitude of a block becomes -8, of -8 to 7: one more than if its sign were kept. */
static void quantise_int4(struct weights *weights, size_t count) {
    uint8_t *pairs = weights->elements;
    for (size_t begin = 0; begin < count; begin += WEIGHTS_BLOCK) {
        const float *x = weights->floats + begin, scale = largest(x, WEIGHTS_BLOCK) / -8;
        weights->scales[begin / WEIGHTS_BLOCK] = scale;
        for (size_t i = 0; i < WEIGHTS_BLOCK; i += 2) {
            const int low = integer(x[i], scale, -8, 7) + 8, high = integer(x[i + 1], scale, -8, 7) + 8;
            pairs[(begin + i) / 2] = (uint8_t)(low | high << 4);
        }
    }
}

static bool convert(struct weights *weights, attn_type type, size_t rows, size_t cols, struct error *error) {
    switch (type) {
    case ATTN_F32:
        return true;
    case ATTN_BF16:
    case ATTN_F16:
        return round_floats(weights, type, rows, cols, error);
    case ATTN_INT8:
        quantise_int8(weights, rows, cols);
        return true;
    case ATTN_INT4:
        quantise_int4(weights, rows * cols);
        return true;
    default:
        return refuse(error, "weights cannot be of that type");
    }
}

/* ---- A weight ---- */

static bool is_quantised(attn_type type) {
    return type == ATTN_INT8 || type == ATTN_INT4;
}

bool weights_make(struct weights *weights, attn_type type, const float *weight, const float *bias, struct side out,
                  struct side in, struct error *error) {
    const size_t rows = whole(out), cols = whole(in);
    *weights = (struct weights){.floats = calloc(rows * cols, sizeof(float)),
                                .scales = calloc(rows * (cols / WEIGHTS_BLOCK + 1), sizeof(float)),
                                .bias = calloc(rows, sizeof(float)),
                                .elements = calloc(rows * cols, sizeof(uint16_t))};
    if (!weights->floats || !weights->scales || !weights->bias || !weights->elements)
        return refuse(error, "no memory for %zu weights", rows * cols);
    spread(weights, weight, bias, out, in);
    if (!convert(weights, type, rows, cols, error))
        return false;
    weights->linear = attn_linear_transposed(type == ATTN_F32 ? weights->floats : weights->elements, type, cols,
                                             bias ? weights->bias : NULL);
    weights->linear.scales = is_quantised(type) ? weights->scales : NULL;
    weights->linear.block = type == ATTN_INT4 ? WEIGHTS_BLOCK : 0;
    return true;
}

void weights_free(struct weights *weights) {
    free(weights->floats);
    free(weights->scales);
    free(weights->bias);
    free(weights->elements);
    *weights = (struct weights){0};
}
