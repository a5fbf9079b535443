/* A model of the tile instructions of simd/amx/tiles.h, in C and with their exact bits: kernels are compiled against
 * it where the processor has no tiles. What a processor would trap at, and what kernels must not do, ends the
 * process with a sentence. */
#ifndef ATTN_TESTS_AMX_MODEL_H
#define ATTN_TESTS_AMX_MODEL_H

#include <stddef.h>

struct tile_config;

#define tile_load_config(config)         amx_model_load_config(config)
#define tile_store_config(config)        amx_model_store_config(config)
#define tile_release()                   amx_model_release()
#define tile_zero(t)                     amx_model_zero(t)
#define tile_load(t, rows, stride)       amx_model_load(t, rows, stride)
#define tile_store(t, rows, stride)      amx_model_store(t, rows, stride)
#define tile_multiply_add_pairs(c, a, b) amx_model_multiply_add_pairs(c, a, b)
#define tile_multiply_add_quads(c, a, b) amx_model_multiply_add_quads(c, a, b)

void amx_model_load_config(const struct tile_config *config);
void amx_model_store_config(struct tile_config *config);
void amx_model_release(void);
void amx_model_zero(int t);
void amx_model_load(int t, const void *rows, size_t stride);
void amx_model_store(int t, void *rows, size_t stride);
void amx_model_multiply_add_pairs(int c, int a, int b);
void amx_model_multiply_add_quads(int c, int a, int b);

/* How often this thread has configured its tiles, and whether they are now as before the first time. */
size_t amx_model_configurations(void);
int amx_model_is_clean(void);

#endif
