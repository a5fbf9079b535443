/* Tiles of C that are sums of products of integers, and what floats they become. A part takes the groups that are added
 * up as integers. Its sums become floats when the tile instructions of the next part have begun, which takes its place
 * in memory after that: vectors and tiles compute beside each other.
 *
 * A class says before it includes this:
 *
 *     struct memory                     with `sums`, and the part that they are of, or one without rows
 *     struct column                     what the columns of a register have: scales, and so on
 *     column_of(product, part, j)       those from column j of the part on
 *     add_sums(column, sums, a, t)      t with these sums; a: the row's scale, behind which are the sums of its blocks
 *     finish(column, t, scale, bias)    c, with the row's scale */
#ifndef ATTN_AMX_SUMS_H
#define ATTN_AMX_SUMS_H

#include "part.h"
#include "quantised.h"

/* Columns of a part of so many rows, which are the distance of its rows of sums. */
INLINE size_t sums_width(size_t rows) {
    return rows > TILE_ROWS ? WIDTH : MOST_PANELS * COLS;
}

INLINE void begin_part(const struct product *product, const struct part *part, const int rows, const int cols) {
    (void)product, (void)part;
    zero_all(rows, cols);
}

/* C is t until the last groups have come. Columns beyond the last one are copies of it. */
static __attribute__((noinline)) void PRODUCT_FN(fold)(const struct product *product) {
    const struct attn_gemm_args *args = product->args;
    const struct part *part = &product->memory->part;
    size_t width = sums_width(part->rows);
    bool first = part->group == 0, last = part->end == product->groups;
    for (size_t j = 0; j < part->cols; j += COLS) {
        vec_mask mask = vec_lanes(0, part->cols - j < COLS ? part->cols - j : COLS);
        struct column column = column_of(product, part, j);
        vec bias = args->start == ATTN_START_BIAS ? vec_load_mask(mask, args->factors + part->j + j) : vec_zero();
        char *c = (char *)args->c + part->i * args->c_stride + (part->j + j) * sizeof(float);
        const char *a = (const char *)args->a + part->i * args->a_stride + attn_quantised_padded(args->k);
        for (size_t i = 0; i < part->rows; i++, c += args->c_stride, a += args->a_stride) {
            float *to = (float *)(void *)c;
            vec t = first ? vec_zero() : vec_load_mask(mask, to);
            t = add_sums(&column, quad_load(product->memory->sums + i * width + j), a, t);
            vec_store_mask(mask, to, last ? finish(&column, t, vec_from_bits(quad_repeat(a)), bias) : t);
        }
    }
}

INLINE void end_part(const struct product *product, const struct part *part, const int rows, const int cols) {
    char *sums = (char *)product->memory->sums;
    PRODUCT_FN(fold)(product);
    store_all(places_of(sums, sums_width(part->rows) * sizeof(int32_t)), rows, cols);
    product->memory->part = *part;
}

INLINE void end_product(const struct product *product) {
    PRODUCT_FN(fold)(product);
}

#endif
