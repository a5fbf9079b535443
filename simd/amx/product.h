/* The loops over parts of C, and over k.
 *
 * A class says before it includes this:
 *
 *     struct memory                          what it needs beside the tiles, on its own stack
 *     take_columns(product, part)            part->b, part->next and part->width
 *     begin_part(product, part, tall, wide)  what the tiles of C start from
 *     add_groups(product, part, tall, wide)
 *     end_part(product, part, tall, wide)    what becomes of them */
#ifndef ATTN_AMX_PRODUCT_H
#define ATTN_AMX_PRODUCT_H

#include "part.h"

/* Rows that pass over two panels of B together. */
enum { ROW_BLOCK = 128 };

typedef void part_function(const struct product *product, const struct part *part);

/* Tiles of rows, and of columns. */
#define SHAPE(rows, cols)                                                                                              \
    static void PRODUCT_FN(rows##_##cols)(const struct product *product, const struct part *part) {                    \
        begin_part(product, part, rows == 2, cols == 2);                                                               \
        add_groups(product, part, rows == 2, cols == 2);                                                               \
        end_part(product, part, rows == 2, cols == 2);                                                                 \
    }
SHAPE(1, 1)
SHAPE(1, 2)
SHAPE(2, 1)
SHAPE(2, 2)
static part_function *const shapes[2][2] = {{PRODUCT_FN(1_1), PRODUCT_FN(1_2)}, {PRODUCT_FN(2_1), PRODUCT_FN(2_2)}};

INLINE size_t less_of(size_t a, size_t b) {
    return a < b ? a : b;
}

/* All of a block's parts. */
static void PRODUCT_FN(block)(struct product *product, const struct part *block) {
    struct part part = *block;
    for (size_t cols_left = block->cols; cols_left > 0; part.j += part.cols, cols_left -= part.cols) {
        part.cols = less_of(cols_left, WIDTH);
        take_columns(product, &part);
        part.i = block->i;
        for (size_t rows_left = block->rows; rows_left > 0; part.i += part.rows, rows_left -= part.rows) {
            part.rows = less_of(rows_left, ROWS);
            PRODUCT_FN(configure)(product, part.rows, part.width);
            shapes[part.rows > TILE_ROWS][part.cols > COLS](product, &part);
        }
    }
}

/* Tiles stay configured, for the next product: see end_task. */
static void PRODUCT_FN(multiply)(struct product *product) {
    struct part block;
    size_t m = product->args->m, n = product->args->n;
    tile_store_config(&product->config);
    for (block.i = 0; block.i < m; block.i += block.rows) {
        block.rows = less_of(m - block.i, ROW_BLOCK);
        for (block.j = 0; block.j < n; block.j += block.cols) {
            block.cols = less_of(n - block.j, product->columns);
            block.group = 0;
            do {
                block.end = less_of(block.group + product->at_once, product->groups);
                PRODUCT_FN(block)(product, &block);
                block.group = block.end;
            } while (block.group < product->groups);
        }
    }
}

static void PRODUCT_FN(end_task)(void) {
    tile_release();
}

#endif
