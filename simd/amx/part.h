/* A part of C. It is two tiles of rows by two of columns at most: each tile of A and B that is loaded is used twice. Of
 * up to 16 rows it is one tile by four: a product of tiles begins every 16 cycles and takes 52, so that two tiles of C
 * would wait for themselves. Tiles are configured for the rows that there are, and for whole panels of columns:
 * LDTILECFG takes as long as 13 products of tiles. What tiles hold beyond the last column does not get into C.
 *
 * Panels of B have as many columns as a tile. TILE_ROWS units of 32 bits of each column, a group of rows of B, are a
 * tile: 1 KiB in one piece.
 *
 * A class says before it includes this:
 *
 *     PRODUCT_FN(name)          names of its functions
 *     MULTIPLY_ADD(c, a, b)     the tile instruction for its elements */
#ifndef ATTN_AMX_PART_H
#define ATTN_AMX_PART_H

#include <stdbool.h>
#include <string.h>

#include "checked.h"
#include "kernels.h"
#include "tiles.h"
#include "vec.h"

#include "body/objects.h"

/* The numbers of the tiles. */
#define C_TOP_LEFT     0
#define C_TOP_RIGHT    1
#define C_BOTTOM_LEFT  2
#define C_BOTTOM_RIGHT 3
#define A_TOP          4
#define A_BOTTOM       5
#define B_LEFT         6
#define B_RIGHT        7
/* Of one tile of rows. */
#define C_THIRD  2
#define C_FOURTH 3
#define B_THIRD  5

enum {
    COLS = TILE_ROWS,
    ROWS = 2 * TILE_ROWS,
    WIDTH = 2 * COLS,
    MOST_PANELS = 4,
    GROUP_BYTES = TILE_ROWS * TILE_BYTES
};

_Static_assert((int)COLS == (int)VEC_LANES, "a row of a tile of C is a register");

/* What a class needs beside the tiles. */
struct memory;

struct product {
    const struct attn_gemm_args *args;
    const char *b;          /* the group that its first row is one of */
    size_t before;          /* rows of that group that come before it */
    size_t depth;           /* bytes of a row of A that a group takes */
    size_t groups, at_once; /* groups of k, and how many of them are taken before the next columns */
    size_t columns;         /* which are taken before the next groups */
    struct memory *memory;
    struct tile_config config; /* what is loaded */
    size_t configured;         /* the rows that it was made for, 0 where this product has not made it */
};

/* At most ROWS x WIDTH, or TILE_ROWS x 2 WIDTH, and the groups of k that it takes now: group .. end - 1. */
struct part {
    size_t i, j, rows, cols, group, end;
    const char *b; /* the first of them */
    size_t next;   /* bytes from panel to panel */
};

/* Rows lo .. hi - 1 of a group. */
struct rows_there {
    size_t lo, hi;
};

/* ---- Configuration ---- */

INLINE void configure_tile(struct tile_config *config, int tile, size_t rows, size_t bytes) {
    config->rows[tile] = (uint8_t)rows;
    config->bytes[tile] = (uint16_t)(rows > 0 ? bytes : 0);
}

INLINE struct tile_config config_of(size_t rows, size_t depth) {
    size_t top = attn_min(rows, TILE_ROWS), bottom = rows - top;
    struct tile_config config = {.palette = TILE_PALETTE};
    configure_tile(&config, C_TOP_LEFT, top, TILE_BYTES);
    configure_tile(&config, C_TOP_RIGHT, top, TILE_BYTES);
    configure_tile(&config, C_BOTTOM_LEFT, bottom, TILE_BYTES);
    configure_tile(&config, C_BOTTOM_RIGHT, bottom, TILE_BYTES);
    configure_tile(&config, A_TOP, top, depth);
    configure_tile(&config, A_BOTTOM, bottom, depth);
    configure_tile(&config, B_LEFT, depth / sizeof(float), TILE_BYTES);
    configure_tile(&config, B_RIGHT, depth / sizeof(float), TILE_BYTES);
    if (bottom > 0)
        return config;
    configure_tile(&config, C_THIRD, top, TILE_BYTES);
    configure_tile(&config, C_FOURTH, top, TILE_BYTES);
    configure_tile(&config, B_THIRD, depth / sizeof(float), TILE_BYTES);
    return config;
}

/* Loads nothing where an earlier product of the task has left what this one needs. */
static void PRODUCT_FN(configure)(struct product *product, size_t rows) {
    if (product->configured == rows)
        return;
    struct tile_config config = config_of(rows, product->depth);
    product->configured = rows;
    if (memcmp(&config, &product->config, sizeof config) == 0)
        return;
    tile_load_config(&config);
    product->config = config;
}

/* ---- Tiles of C ---- */

/* rows, cols: tiles, here and below. */
INLINE void zero_all(const int rows, const int cols) {
    tile_zero(C_TOP_LEFT);
    if (cols > 1)
        tile_zero(C_TOP_RIGHT);
    if (rows > 1)
        tile_zero(C_BOTTOM_LEFT);
    if (rows > 1 && cols > 1)
        tile_zero(C_BOTTOM_RIGHT);
    if (cols > 2) {
        tile_zero(C_THIRD);
        tile_zero(C_FOURTH);
    }
}

/* Where each column of tiles of C is: rows `stride` bytes apart, 0 where all are one. */
struct places {
    char *at[MOST_PANELS];
    size_t stride[MOST_PANELS];
};

INLINE struct places places_of(char *at, size_t stride) {
    struct places places;
    UNROLL for (size_t j = 0; j < MOST_PANELS; j++) {
        places.at[j] = at + j * TILE_BYTES;
        places.stride[j] = stride;
    }
    return places;
}

#define EACH_TILE(load_or_store, places, rows, cols)                                                                   \
    do {                                                                                                               \
        char *const *at = (places).at;                                                                                 \
        const size_t *stride = (places).stride;                                                                        \
        load_or_store(C_TOP_LEFT, at[0], stride[0]);                                                                   \
        if ((cols) > 1)                                                                                                \
            load_or_store(C_TOP_RIGHT, at[1], stride[1]);                                                              \
        if ((rows) > 1)                                                                                                \
            load_or_store(C_BOTTOM_LEFT, at[0] + TILE_ROWS * stride[0], stride[0]);                                    \
        if ((rows) > 1 && (cols) > 1)                                                                                  \
            load_or_store(C_BOTTOM_RIGHT, at[1] + TILE_ROWS * stride[1], stride[1]);                                   \
        if ((cols) > 2) {                                                                                              \
            load_or_store(C_THIRD, at[2], stride[2]);                                                                  \
            load_or_store(C_FOURTH, at[3], stride[3]);                                                                 \
        }                                                                                                              \
    } while (0)

INLINE void load_all(struct places places, const int rows, const int cols) {
    EACH_TILE(tile_load, places, rows, cols);
}

INLINE void store_all(struct places places, const int rows, const int cols) {
    EACH_TILE(tile_store, places, rows, cols);
}

/* ---- A group ---- */

/* `next`: bytes from panel to panel. */
INLINE void add_group(const char *a, size_t a_stride, const char *b, size_t next, const int rows, const int cols) {
    tile_load(B_LEFT, b, TILE_BYTES);
    tile_load(A_TOP, a, a_stride);
    MULTIPLY_ADD(C_TOP_LEFT, A_TOP, B_LEFT);
    if (cols > 1) {
        tile_load(B_RIGHT, b + next, TILE_BYTES);
        MULTIPLY_ADD(C_TOP_RIGHT, A_TOP, B_RIGHT);
    }
    if (rows > 1) {
        tile_load(A_BOTTOM, a + TILE_ROWS * a_stride, a_stride);
        MULTIPLY_ADD(C_BOTTOM_LEFT, A_BOTTOM, B_LEFT);
    }
    if (rows > 1 && cols > 1)
        MULTIPLY_ADD(C_BOTTOM_RIGHT, A_BOTTOM, B_RIGHT);
    if (cols > 2) {
        tile_load(B_THIRD, b + 2 * next, TILE_BYTES);
        MULTIPLY_ADD(C_THIRD, A_TOP, B_THIRD);
        tile_load(B_LEFT, b + 3 * next, TILE_BYTES);
        MULTIPLY_ADD(C_FOURTH, A_TOP, B_LEFT);
    }
}

/* Groups group .. end - 1, of which nothing is missing; a: where the first of them is. */
INLINE void add_whole_groups(const struct product *product, const struct part *part, const char *a, size_t group,
                             size_t end, const int rows, const int cols) {
    const char *b = part->b + (group - part->group) * GROUP_BYTES;
    size_t a_stride = product->args->a_stride, next = part->next, depth = product->depth;
    for (; group < end; group++) {
        add_group(a, a_stride, b, next, rows, cols);
        a += depth;
        b += GROUP_BYTES;
    }
}

/* Columns as they are packed. */
INLINE void take_packed_columns(const struct product *product, struct part *part) {
    part->b = product->b + part->j / COLS * product->args->b.stride + part->group * GROUP_BYTES;
    part->next = product->args->b.stride;
}

#endif
