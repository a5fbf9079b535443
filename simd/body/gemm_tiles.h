/* What products of pairs and of quads share: the sizes of tiles, and in gemm_loops.h the loops over them.
 *
 * A class says before it includes this:
 *
 *     TILES_FN(name)           names of its functions
 *     MOST_ROWS                rows of the largest tile
 *     EACH_TILE(X)             X(rows, registers) for each number of rows up to MOST_ROWS
 *     tile_element             the type of A's elements */
#ifndef ATTN_BODY_GEMM_TILES_H
#define ATTN_BODY_GEMM_TILES_H

#include <stdbool.h>
#include <string.h>

#include "kernels.h"
#include "vec.h"

#include "body/objects.h"

/* FEW_ROWS wait for B, and for their own chains: several panels at a time. */
enum { VECS = COLS / VEC_LANES, WIDEST = 8, POINTERS = (MOST_ROWS + 3) / 4, FEW_ROWS = 2 };

/* Registers of the largest tile. */
enum { TALLEST = MOST_ROWS * VECS, MOST_VECS = TALLEST > WIDEST ? TALLEST : WIDEST };

/* Rows that pass over a panel of B. */
enum { ROW_BLOCK = 128 };

/* A pointer for every four rows: what x86's addressing modes reach with the stride and its multiples. */
INLINE void point_to_rows(const tile_element **p, const tile_element *a, size_t a_stride, const int rows) {
    UNROLL for (int q = 0; q < POINTERS; q++) {
        p[q] = a + (size_t)(q * 4 < rows ? q * 4 : 0) * a_stride;
        __asm__("" : "+r"(p[q])); /* or the compiler derives each from the first again, through the stack */
    }
}

/* The part of `total` that each pass takes: nearly equal ones of at most `most`. */
INLINE size_t share(size_t total, size_t most) {
    size_t parts = (total + most - 1) / most;
    return parts ? (total + parts - 1) / parts : 1;
}

#endif
