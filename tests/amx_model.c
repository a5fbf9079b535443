/* See amx_model.h. */
#include <fenv.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amx_model.h"
#include "arithmetic.h"
#include "tiles.h"

enum { TILES = 8 };

struct tile {
    size_t rows, bytes;
    unsigned char data[TILE_ROWS][TILE_BYTES];
};

static _Thread_local struct tile tiles[TILES];
static _Thread_local struct tile_config loaded;
static _Thread_local size_t configurations;

static void require(bool holds, const char *what, int t) {
    if (holds)
        return;
    fprintf(stderr, "amx_model: tile %d: %s\n", t, what);
    abort();
}

static struct tile *tile_of(int t) {
    require(t >= 0 && t < TILES, "there is none of this number", t);
    require(tiles[t].rows > 0, "it is used but not configured", t);
    require(tiles[t].bytes % sizeof(uint32_t) == 0, "its rows are no whole number of floats", t);
    return &tiles[t];
}

void amx_model_load_config(const struct tile_config *config) {
    bool zero = config->start_row == 0;
    for (size_t i = 0; i < sizeof config->reserved; i++)
        zero &= config->reserved[i] == 0;
    require(config->palette == TILE_PALETTE && zero, "the configuration is not one of palette 1", 0);
    for (int t = 0; t < 2 * TILES; t++) {
        size_t rows = config->rows[t], bytes = config->bytes[t];
        require((rows == 0) == (bytes == 0), "it has rows but no bytes, or bytes but no rows", t);
        require(rows <= TILE_ROWS && bytes <= TILE_BYTES && (t < TILES || rows == 0), "it is too large", t);
        if (t < TILES)
            tiles[t] = (struct tile){.rows = rows, .bytes = bytes};
    }
    loaded = *config;
    configurations++;
}

void amx_model_store_config(struct tile_config *config) {
    *config = loaded;
}

void amx_model_release(void) {
    memset(tiles, 0, sizeof tiles);
    memset(&loaded, 0, sizeof loaded);
}

void amx_model_zero(int t) {
    struct tile *tile = tile_of(t);
    memset(tile->data, 0, sizeof tile->data);
}

/* Rows and bytes that are not configured become 0. */
void amx_model_load(int t, const void *rows, size_t stride) {
    struct tile *tile = tile_of(t);
    memset(tile->data, 0, sizeof tile->data);
    for (size_t r = 0; r < tile->rows; r++)
        memcpy(tile->data[r], (const char *)rows + r * stride, tile->bytes);
}

void amx_model_store(int t, void *rows, size_t stride) {
    const struct tile *tile = tile_of(t);
    for (size_t r = 0; r < tile->rows; r++)
        memcpy((char *)rows + r * stride, tile->data[r], tile->bytes);
}

static float bf16_at(const unsigned char *row, size_t i) {
    uint16_t half;
    memcpy(&half, row + i * sizeof half, sizeof half);
    uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Element 2 i + half of row m of a times that of column n of b, summed over all i. */
static float chain(const struct tile *a, const struct tile *b, size_t m, size_t n, size_t half) {
    float sum = 0.0f;
    for (size_t i = 0; i < b->rows; i++)
        sum = attn_fmaf_flushed(bf16_at(a->data[m], 2 * i + half), bf16_at(b->data[i], 2 * n + half), sum);
    return sum;
}

/* One element of c, from row m of the left factor and column n of the right one. */
static uint32_t add_pairs(uint32_t c, const struct tile *left, const struct tile *right, size_t m, size_t n) {
    float acc;
    memcpy(&acc, &c, sizeof acc);
    float pairs = attn_fmaf_flushed(1.0f, chain(left, right, m, n, 0), chain(left, right, m, n, 1));
    acc = attn_fmaf_flushed(1.0f, acc, pairs);
    memcpy(&c, &acc, sizeof c);
    return c;
}

/* Sums wrap around. */
static uint32_t add_quads(uint32_t c, const struct tile *left, const struct tile *right, size_t m, size_t n) {
    for (size_t k = 0; k < left->bytes; k++)
        c += (uint32_t)((int8_t)left->data[m][k] * (int8_t)right->data[k / 4][4 * n + k % 4]);
    return c;
}

/* The instructions raise no exception, and leave MXCSR as it was. */
static void multiply_add(int c, int a, int b,
                         uint32_t (*add)(uint32_t c, const struct tile *, const struct tile *, size_t m, size_t n)) {
    struct tile *to = tile_of(c);
    const struct tile *left = tile_of(a), *right = tile_of(b);
    require(c != a && c != b && a != b, "two of the three are one tile", c);
    require(to->rows == left->rows, "its rows are not those of the left factor", c);
    require(to->bytes == right->bytes, "its columns are not those of the right factor", c);
    require(left->bytes == right->rows * sizeof(uint32_t), "its columns are not the rows of the right factor", a);
    fenv_t environment;
    feholdexcept(&environment);
    for (size_t m = 0; m < to->rows; m++)
        for (size_t n = 0; n < to->bytes / sizeof(uint32_t); n++) {
            uint32_t acc;
            memcpy(&acc, to->data[m] + n * sizeof acc, sizeof acc);
            acc = add(acc, left, right, m, n);
            memcpy(to->data[m] + n * sizeof acc, &acc, sizeof acc);
        }
    fesetenv(&environment);
}

void amx_model_multiply_add_pairs(int c, int a, int b) {
    multiply_add(c, a, b, add_pairs);
}

void amx_model_multiply_add_quads(int c, int a, int b) {
    multiply_add(c, a, b, add_quads);
}

size_t amx_model_configurations(void) {
    return configurations;
}

int amx_model_is_clean(void) {
    for (int t = 0; t < TILES; t++)
        if (tiles[t].rows > 0)
            return 0;
    return 1;
}
