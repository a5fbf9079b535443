/* How far results may be from the mathematical ones of the numbers that are multiplied: bounds that hold for all
 * numbers, short of overflow. docs/accuracy.md derives them. */
#ifndef ATTN_TESTS_BOUNDS_H
#define ATTN_TESTS_BOUNDS_H

#include <math.h>
#include <stddef.h>

#include "kernels.h"

/* Relative errors of rounding to nearest: half of the distance between numbers, in units of the lower. */
#define BOUND_F32  0x1p-24
#define BOUND_BF16 0x1p-8
#define BOUND_F16  0x1p-11

/* What `roundings` to F32 on top of each other make of a number, as a part of it. */
static inline double bound_of(double roundings) {
    return roundings * BOUND_F32 / (1 - roundings * BOUND_F32);
}

/* ---- Products ---- */

/* Roundings that a product of two elements goes through on its way into a sum over k, the last one included. `block`
 * is INT4's. */
static inline double bound_product_roundings(enum attn_class arithmetic, size_t k, size_t block) {
    switch (arithmetic) {
    case ATTN_CLASS_BF16_TILE: /* half of a tile's rows, both halves, and a sum for each tile */
        return ATTN_TILE_K / 2 + 1 + (double)(k + ATTN_TILE_K - 1) / ATTN_TILE_K + 1;
    case ATTN_CLASS_INT8: /* each part to a float, sums of parts, the product of the scales, the last fma */
        return (double)((k + ATTN_INT8_PART - 1) / ATTN_INT8_PART) + 2;
    case ATTN_CLASS_INT8_BLOCKS:
    case ATTN_CLASS_INT4: /* an fma for each block, the last one */
        return (double)((k + block - 1) / block) + 1;
    default:
        return (double)k;
    }
}

/* Of an element of a product: `magnitude` is the sum of abs(a b), scales included, and of abs(bias). What class BF16
 * flushes, less than FLT_MIN in each step, comes on top. */
static inline double bound_product(enum attn_class arithmetic, size_t k, size_t block, double magnitude) {
    return bound_of(bound_product_roundings(arithmetic, k, block)) * magnitude;
}

/* ---- What is stored ---- */

/* How far a stored number is from the one that was given: at most `part` of that, and `most` besides. */
struct bound_stored {
    double part, most;
};

/* `scale` is that of an F8's head. `largest` is the largest magnitude of an INT8's row; also of a row of x that meets
 * quantised weights. Numbers are neither too large for the type nor, of INT8, below ATTN_QUANTISE_LEAST. */
static inline struct bound_stored bound_of_stored(attn_type type, double scale, double largest) {
    const double scaling = 3 * BOUND_F32; /* the division by a scale, the product with it, the scale itself */
    switch (type) {
    case ATTN_BF16:
        return (struct bound_stored){BOUND_BF16, 0x1p-126};
    case ATTN_F16:
        return (struct bound_stored){BOUND_F16, 0x1p-25};
    case ATTN_INT8:
        return (struct bound_stored){scaling, largest / 254 * (1 + 0x1p-13)};
    case ATTN_F8_E4M3:
        return (struct bound_stored){0x1p-4 + 2 * scaling, 0x1p-10 * scale};
    case ATTN_F8_E5M2:
        return (struct bound_stored){0x1p-3 + 2 * scaling, 0x1p-17 * scale};
    default:
        return (struct bound_stored){0, 0};
    }
}

/* ---- Attention ---- */

/* A row's keys, and the largest sum of abs(q k) * scale among those that count. */
struct bound_row {
    size_t head_size, keys;
    double score;
};

/* Of an output, as a part of the sum of abs(weight * value). In class BF16 `rotated` says that queries and keys were
 * rotated and then rounded. */
static inline double bound_attention(int is_bf16, const struct bound_row *row, int rotated) {
    const double blocks = (double)(row->keys / ATTN_BLOCK + 1);
    const double logit =
        bound_of((double)row->head_size + 48) * row->score + (is_bf16 && rotated ? 0x1.01p-7 * row->score : 0);
    const double exponential = bound_of(4 + 4 * blocks) + (is_bf16 ? 0x1p-13 : 0);
    const double weight = (1 + expm1(logit)) * (1 + exponential) - 1;
    const double probability = is_bf16 ? BOUND_BF16 : BOUND_F32;
    const double above = (1 + weight) * (1 + probability) * (1 + bound_of((double)row->keys + 8 * blocks + 24));
    const double below = (1 - weight) * (1 - bound_of((double)row->keys / ATTN_LANES + 8 * blocks + 24));
    return below > 0 ? above / below - 1 : INFINITY;
}

/* How much an output changes where keys and values are those stored: `score` and `magnitude` are of the numbers given,
 * `query` is the sum of abs(q) * scale of the row. */
static inline double bound_of_storing(struct bound_stored k, struct bound_stored v, double score, double query,
                                      double magnitude) {
    const double weight = exp(2 * (k.part * score + k.most * query));
    return (weight * (1 + v.part) - 1) * magnitude + weight * v.most;
}

#endif
