/* Groups some of whose rows the product does not have: the last one, where it ends within, and the first one, where it
 * begins within. They go through memory of a tile's size with zeros for what is not there.
 *
 * A class says before it includes this:
 *
 *     ELEMENT                      bytes of an element
 *     unit_mask(row, there)        the bits of rows that are there, of the unit that begins with that row of a group */
#ifndef ATTN_AMX_REMAINDER_H
#define ATTN_AMX_REMAINDER_H

#include "part.h"

enum { GROUP_K = TILE_BYTES / ELEMENT, UNIT = sizeof(uint32_t) / ELEMENT };

/* Memory for such a group: one or two tiles of A, behind them those of B. */
struct spare {
    _Alignas(TILE_BYTES) char tiles[1 + MOST_PANELS][TILE_ROWS][TILE_BYTES];
};

INLINE char *spare_b(struct spare *spare, const struct part *part) {
    return spare->tiles[part->rows > TILE_ROWS ? 2 : 1][0];
}

/* Of a group the rows that the product has: all, or lo .. hi - 1. */
INLINE struct rows_there rows_there(const struct product *product, size_t group) {
    size_t end = product->before + product->args->k - group * GROUP_K;
    return (struct rows_there){group == 0 ? product->before : 0, end < GROUP_K ? end : GROUP_K};
}

INLINE bool is_whole(const struct product *product, size_t group) {
    struct rows_there there = rows_there(product, group);
    return there.hi - there.lo == GROUP_K;
}

static void PRODUCT_FN(copy_a)(struct spare *spare, const struct product *product, const struct part *part,
                               size_t group, struct rows_there there) {
    const struct attn_gemm_args *args = product->args;
    size_t first = group * GROUP_K + there.lo - product->before;
    const char *a = (const char *)args->a + part->i * args->a_stride + first * ELEMENT;
    char *to = spare->tiles[0][0];
    memset(to, 0, part->rows * TILE_BYTES);
    for (size_t i = 0; i < part->rows; i++, a += args->a_stride, to += TILE_BYTES)
        memcpy(to + there.lo * ELEMENT, a, (there.hi - there.lo) * ELEMENT);
}

static void PRODUCT_FN(copy_b)(char *to, const char *b, struct rows_there there) {
    memset(to, 0, GROUP_BYTES);
    for (size_t row = there.lo / UNIT * UNIT; row < there.hi; row += UNIT) {
        __m512i mask = _mm512_set1_epi32((int)unit_mask(row, there));
        __m512i units = _mm512_loadu_si512(b + row / UNIT * TILE_BYTES);
        _mm512_storeu_si512(to + row / UNIT * TILE_BYTES, _mm512_and_si512(units, mask));
    }
}

static __attribute__((noinline)) void PRODUCT_FN(fill)(struct spare *spare, const struct product *product,
                                                       const struct part *part, size_t group) {
    struct rows_there there = rows_there(product, group);
    const char *b = part->b + (group - part->group) * GROUP_BYTES;
    PRODUCT_FN(copy_a)(spare, product, part, group, there);
    for (size_t j = 0; j * COLS < part->cols; j++)
        PRODUCT_FN(copy_b)(spare_b(spare, part) + j * GROUP_BYTES, b + j * part->next, there);
}

INLINE void add_partial(const struct product *product, const struct part *part, size_t group, struct spare *spare,
                        const int rows, const int cols) {
    PRODUCT_FN(fill)(spare, product, part, group);
    add_group(spare->tiles[0][0], TILE_BYTES, spare_b(spare, part), GROUP_BYTES, rows, cols);
}

/* All groups of a part. */
INLINE void add_all_groups(const struct product *product, const struct part *part, struct spare *spare, const int rows,
                           const int cols) {
    size_t group = part->group, whole_end = part->end;
    if (group < part->end && !is_whole(product, group))
        add_partial(product, part, group++, spare, rows, cols);
    if (group < part->end && !is_whole(product, part->end - 1))
        whole_end--;
    const char *a = (const char *)product->args->a + part->i * product->args->a_stride;
    add_whole_groups(product, part, a + (group * GROUP_K - product->before) * ELEMENT, group, whole_end, rows, cols);
    if (whole_end < part->end)
        add_partial(product, part, whole_end, spare, rows, cols);
}

#endif
