/* Reference of the two products of attention for few rows: the chains of the reference GEMM, whose panels they read. */
#include "kernels.h"

static const float *row_at(const struct attn_panels *b, size_t n) {
    return (const float *)((const char *)b->data + n * b->stride);
}

static float x_at(const struct attn_decode_args *args, size_t r, size_t n) {
    return ((const float *)((const char *)args->x + r * args->x_stride))[n];
}

static void multiply_keys(const struct attn_decode_args *args, size_t first) {
    for (size_t r = 0; r < args->rows; r++)
        for (size_t key = 0; key < args->keys; key++) {
            const float *k = row_at(&args->b, first + key);
            float acc = 0.0f;
            for (size_t d = 0; d < args->size; d++)
                acc = attn_fmaf(x_at(args, r, d), k[d], acc);
            args->y[r * args->y_stride + key] = acc;
        }
}

/* A key is a panel of one column. */
static void scores(const struct attn_decode_args *args) {
    multiply_keys(args, args->first);
}

static void scores_in_place(const struct attn_decode_args *args) {
    multiply_keys(args, 0);
}

static float start(const struct attn_decode_args *args, size_t r, float y) {
    if (args->start == ATTN_START_ZERO)
        return 0.0f;
    return args->start == ATTN_START_SCALE ? y * args->factors[r] : y;
}

/* Element `j` of a value. */
static float multiply_values(const struct attn_decode_args *args, size_t r, size_t j, bool in_place) {
    float acc = start(args, r, args->y[r * args->y_stride + j]);
    for (size_t key = 0; key < args->keys; key++) {
        if (key > 0 && key % ATTN_BLOCK == 0)
            acc *= args->factors[key / ATTN_BLOCK * args->factor_stride + r];
        float v = in_place ? row_at(&args->b, key)[j] : row_at(&args->b, j)[args->first + key];
        acc = attn_fmaf(x_at(args, r, key), v, acc);
    }
    return acc;
}

static void values(const struct attn_decode_args *args) {
    for (size_t r = 0; r < args->rows; r++)
        for (size_t j = 0; j < args->size; j++)
            args->y[r * args->y_stride + j] = multiply_values(args, r, j, false);
}

static void values_in_place(const struct attn_decode_args *args) {
    for (size_t r = 0; r < args->rows; r++)
        for (size_t j = 0; j < args->size; j++)
            args->y[r * args->y_stride + j] = multiply_values(args, r, j, true);
}

const struct attn_decode_kernel attn_ref_decode = {.name = "scalar",
                                                   .rows = 2,
                                                   .rows_in_turns = 2,
                                                   .rows_in_place = 2,
                                                   .scores = scores,
                                                   .scores_in_place = scores_in_place,
                                                   .values = values,
                                                   .values_in_place = values_in_place};
