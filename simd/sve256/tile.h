/* GEMM for SVE with registers of 256 bits: NEON's tiles, by lanes of each quad, which A is repeated in. Tile 6 x 16
 * is 12 accumulators, six registers of A, each four steps of k, and one of B; few rows take four panels. Sizes are
 * NEON's; nobody has measured others. */
#ifndef ATTN_SVE256_TILE_H
#define ATTN_SVE256_TILE_H

#include "vec.h"

#define GEMM_NAME "sve256_6x16"

enum { ROWS = 6, COLS = 16, WIDEST = 8 };

/* B's panel block of 256 x 16 floats is 16 KiB: it stays in the smallest L1 while the rows pass; rows x 256 floats
 * of A stay in L2. Blocks are whole steps of four. */
enum { K_BLOCK = 256, K_STEP = 4, ROW_BLOCK = 240 };

/* PREFETCH: the distance in rows or columns of B in place, which the processor's own prefetcher does not follow
 * where they lie far apart. TURN: rows of B in place that one tile takes before the tile beside it takes the same
 * rows, while L1 holds them. Packing prefetches nothing. */
enum { PREFETCH = 16, TURN = 16, PACK_PREFETCH = 0 };

/* Elements of columns in place that are transposed at a time. */
enum { DEPTH = 4 };

/* Registers are full in place; no stride of A asks for lower tiles. */
enum { TAILS_IN_PLACE = 0, ALIASED_ROWS = ROWS };

#define TWINS_IN_PLACE
/* Which blocks of INT4 one row takes from two panels at once, see gemm_stored.c. */
#define INT4_WIDE INT4_NONE

#include "body/gemm_lanes.h"

/* Rows, the widest tile, registers of columns in place: twelve chains or more, but eight of one row. */
#define EACH_ROW_COUNT(X)         X(1, 8, 2) X(2, 8, 2) X(3, 8, 2) X(4, 4, 2) X(5, 4, 2) X(6, 4, 2)
#define COLUMNS_TILE(rows, width) ISA_FN(tile_columns_##rows##_##width##_4)

#define NOTHING_AHEAD
#include "body/gemm_plain.h"

#endif
