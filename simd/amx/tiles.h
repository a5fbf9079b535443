/* The tile instructions that the kernels use, and no others: tests put a model of them in their place. Tiles are
 * numbers that the compiler sees. */
#ifndef ATTN_AMX_TILES_H
#define ATTN_AMX_TILES_H

#include <stdint.h>

/* Rows of a tile, and bytes of a row. */
enum { TILE_ROWS = 16, TILE_BYTES = 64 };

/* What LDTILECFG reads. A tile that is not used has neither rows nor bytes. */
struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16]; /* of a row */
    uint8_t rows[16];
};
_Static_assert(sizeof(struct tile_config) == 64, "as the instruction has it");

enum { TILE_PALETTE = 1 };

#ifdef ATTN_TILES_MODEL
#include "amx_model.h"
#else
#include <immintrin.h>

/* The compilers' tile instructions do not say which memory they read and write: what is written before must be there.
 * gcc's two for the configuration take it for 8 bytes. */
#define TILE_MEMORY()             __asm__ volatile("" : : : "memory")

#define tile_load_config(config)  __asm__ volatile("ldtilecfg %0" : : "m"(*(config)))
/* What is loaded: all zeros after a release. */
#define tile_store_config(config) __asm__ volatile("sttilecfg %0" : "=m"(*(config)))
#define tile_release()            _tile_release()
#define tile_zero(t)              _tile_zero(t)
/* Rows `stride` bytes apart. */
#define tile_load(t, rows, stride)                                                                                     \
    do {                                                                                                               \
        TILE_MEMORY();                                                                                                 \
        _tile_loadd(t, rows, stride);                                                                                  \
    } while (0)
#define tile_store(t, rows, stride)                                                                                    \
    do {                                                                                                               \
        _tile_stored(t, rows, stride);                                                                                 \
        TILE_MEMORY();                                                                                                 \
    } while (0)
/* c += a b, pairs of BF16: as class BF16_TILE adds ATTN_TILE_K rows. */
#define tile_multiply_add_pairs(c, a, b) _tile_dpbf16ps(c, a, b)
/* The same of fours of signed bytes: exact integers. */
#define tile_multiply_add_quads(c, a, b) _tile_dpbssd(c, a, b)
#endif

#endif
