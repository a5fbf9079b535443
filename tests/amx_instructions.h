/* The tile instructions that tests/amx_model.h is a model of, for a test that compares the two. Their file alone is
 * compiled with amx's flags; the products are those of tile 0 by 1 and 2, and one of tile 1 by itself, which a processor
 * refuses. */
#ifndef ATTN_TESTS_AMX_INSTRUCTIONS_H
#define ATTN_TESTS_AMX_INSTRUCTIONS_H

#include <stddef.h>

struct tile_config;

void amx_load_config(const struct tile_config *config);
void amx_store_config(struct tile_config *config);
void amx_release(void);
/* Tiles 0 .. 2. */
void amx_zero(int t);
void amx_load(int t, const void *rows, size_t stride);
void amx_store(int t, void *rows, size_t stride);
void amx_multiply_add_pairs(void);
void amx_multiply_add_quads(void);
void amx_multiply_into_a_factor(void);

#endif
