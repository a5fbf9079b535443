/* See amx_instructions.h. */
#include "amx_instructions.h"

#undef ATTN_TILES_MODEL
#include "tiles.h"

void amx_load_config(const struct tile_config *config) {
    tile_load_config(config);
}

void amx_store_config(struct tile_config *config) {
    tile_store_config(config);
}

void amx_release(void) {
    tile_release();
}

/* The number of a tile is part of an instruction. */
void amx_zero(int t) {
    if (t == 0)
        tile_zero(0);
    else if (t == 1)
        tile_zero(1);
    else
        tile_zero(2);
}

void amx_load(int t, const void *rows, size_t stride) {
    if (t == 0)
        tile_load(0, rows, stride);
    else if (t == 1)
        tile_load(1, rows, stride);
    else
        tile_load(2, rows, stride);
}

void amx_store(int t, void *rows, size_t stride) {
    if (t == 0)
        tile_store(0, rows, stride);
    else if (t == 1)
        tile_store(1, rows, stride);
    else
        tile_store(2, rows, stride);
}

void amx_multiply_add_pairs(void) {
    tile_multiply_add_pairs(0, 1, 2);
}

void amx_multiply_add_quads(void) {
    tile_multiply_add_quads(0, 1, 2);
}

/* tdpbf16ps tmm1, tmm1, tmm2: assemblers refuse it too. */
void amx_multiply_into_a_factor(void) {
    __asm__ volatile(".byte 0xc4, 0xe2, 0x6a, 0x5c, 0xc9");
}
