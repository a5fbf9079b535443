/* The loops over parts of C, and over k.
 *
 * A class says before it includes this:
 *
 *     struct memory                          what it needs beside the tiles, on its own stack
 *     take_columns(product, part)            part->b and part->next
 *     begin_part(product, part, rows, cols)  what the tiles of C start from; rows, cols: tiles
 *     add_groups(product, part, rows, cols)
 *     end_part(product, part, rows, cols)    what becomes of them
 *     end_product(product)                   what is left when all parts have ended */
#ifndef ATTN_AMX_PRODUCT_H
#define ATTN_AMX_PRODUCT_H

#include "part.h"

/* Rows that pass over two panels of B together. */
enum { ROW_BLOCK = 128 };

/* Of columns that are taken before the next rows: they lie in L2, of 2 MiB, when the last rows read them again. */
enum { BLOCK_BYTES = 512 * 1024 };

/* Whole parts, one at least, of columns with so many groups; all columns where no rows read them again. */
INLINE size_t columns_at_once(const struct attn_gemm_args *args, size_t groups) {
    size_t parts = BLOCK_BYTES / (groups * GROUP_BYTES * (WIDTH / COLS) + 1);
    return args->m <= ROWS ? args->n : (parts > 0 ? parts : 1) * WIDTH;
}

typedef void part_function(const struct product *product, const struct part *part);

/* Tiles of rows, and of columns. */
#define SHAPE(rows, cols)                                                                                              \
    static void PRODUCT_FN(rows##_##cols)(const struct product *product, const struct part *part) {                    \
        begin_part(product, part, rows, cols);                                                                         \
        add_groups(product, part, rows, cols);                                                                         \
        end_part(product, part, rows, cols);                                                                           \
    }
SHAPE(1, 1)
SHAPE(1, 2)
SHAPE(1, 4)
SHAPE(2, 1)
SHAPE(2, 2)
static part_function *const shapes[2][MOST_PANELS] = {{PRODUCT_FN(1_1), PRODUCT_FN(1_2), NULL, PRODUCT_FN(1_4)},
                                                      {PRODUCT_FN(2_1), PRODUCT_FN(2_2)}};

/* All of a block's parts. */
static void PRODUCT_FN(block)(struct product *product, const struct part *block) {
    struct part part = *block;
    for (size_t cols_left = block->cols; cols_left > 0; part.j += part.cols, cols_left -= part.cols) {
        bool flat = block->rows <= TILE_ROWS && cols_left > (MOST_PANELS - 1) * COLS;
        part.cols = attn_min(cols_left, flat ? MOST_PANELS * COLS : WIDTH);
        take_columns(product, &part);
        part.i = block->i;
        for (size_t rows_left = block->rows; rows_left > 0; part.i += part.rows, rows_left -= part.rows) {
            part.rows = attn_min(rows_left, ROWS);
            PRODUCT_FN(configure)(product, part.rows);
            shapes[part.rows > TILE_ROWS][(part.cols - 1) / COLS](product, &part);
        }
    }
}

/* All groups of a block. */
static void PRODUCT_FN(blocks)(struct product *product, struct part block) {
    if (block.rows == 0)
        return;
    do {
        block.end = attn_min(block.group + product->at_once, product->groups);
        PRODUCT_FN(block)(product, &block);
        block.group = block.end;
    } while (block.group < product->groups);
}

/* Tiles stay configured, for the next product: see end_task. The rows that fill no part come after all others of their
 * columns, so that tiles are configured for them once, not once for each part. */
static void PRODUCT_FN(multiply)(struct product *product) {
    size_t m = product->args->m, n = product->args->n, rows, cols;
    tile_store_config(&product->config);
    for (size_t i = 0; i < m; i += rows) {
        rows = attn_min(m - i, ROW_BLOCK);
        for (size_t j = 0; j < n; j += cols) {
            size_t last = rows % ROWS;
            cols = attn_min(n - j, product->columns);
            PRODUCT_FN(blocks)(product, (struct part){.i = i, .j = j, .rows = rows - last, .cols = cols});
            PRODUCT_FN(blocks)(product, (struct part){.i = i + rows - last, .j = j, .rows = last, .cols = cols});
        }
    }
    end_product(product);
}

static void PRODUCT_FN(end_task)(void) {
    tile_release();
}

#endif
