/* A step of decoding in BF16: weights, keys and values take half the memory, and the time that memory takes. Prints
 * the bytes of layer and cache, the largest difference from F32 over the largest output, and whether every
 * instruction set of this machine gives the same bits, as ATTN_ARITHMETIC_PORTABLE promises. */
#include "support.h"
#include <math.h>
#include <string.h>

enum { WIDTH = 256, HEADS = 4, KEYS = 300, WEIGHTS = WIDTH * WIDTH };

static attn_error error;

/* The upper half of a float, rounded to nearest even. These numbers are neither NaN nor so large that they round to
 * infinity. */
static uint16_t *rounded(const float *x, size_t count) {
    uint16_t *y = allocate(count * sizeof *y);
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        y[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
    return y;
}

/* The same model in one type or the other. */
struct model {
    attn_type type;
    void *layer_memory, *cache_memory;
    size_t layer_bytes, cache_bytes;
    attn_layer *layer;
    attn_cache *cache;
};

static struct model create(attn_isa isa, attn_type type, const void *weights) {
    struct model m = {.type = type};
    const size_t bytes = (size_t)WEIGHTS * (type == ATTN_BF16 ? sizeof(uint16_t) : sizeof(float));
    attn_layer_config config = {.isa = isa, .hidden = WIDTH, .heads = HEADS, .kv_type = type};
    config.query_width = config.key_width = config.value_width = WIDTH;
    config.scale = 0.01f; /* else one key of these numbers has all weight */
    config.arithmetic = ATTN_ARITHMETIC_PORTABLE;
    attn_linear *const linears[] = {&config.w_q, &config.w_k, &config.w_v, &config.w_o};
    for (size_t i = 0; i < 4; i++)
        *linears[i] = attn_linear_dense((const char *)weights + i * bytes, type, WIDTH, NULL);
    check(attn_layer_size(&config, &m.layer_bytes, &error), &error);
    check(attn_layer_create(&config, m.layer_memory = allocate(m.layer_bytes), m.layer_bytes, &m.layer, &error),
          &error);
    attn_cache_config cache; /* has the type and the arithmetic of the layer */
    check(attn_layer_cache_config(m.layer, 1, KEYS, &cache, &error), &error);
    check(attn_cache_size(&cache, &m.cache_bytes, &error), &error);
    check(attn_cache_create(&cache, m.cache_memory = allocate(m.cache_bytes), m.cache_bytes, &m.cache, &error), &error);
    return m;
}

/* Rows of the model's type: all but the last are appended, the last is the step. y: floats. */
static void step(const struct model *m, const void *rows, float *y) {
    attn_layer_append_args prompt = {.len = KEYS, .cache = m->cache};
    prompt.k = prompt.v = attn_rows_dense(rows, m->type, KEYS, WIDTH);
    append(m->layer, &prompt);
    const size_t element = m->type == ATTN_BF16 ? sizeof(uint16_t) : sizeof(float);
    attn_layer_args args = {.batch = 1, .q_len = 1, .cache = m->cache};
    args.q = attn_rows_dense((const char *)rows + (KEYS - 1) * WIDTH * element, m->type, 1, WIDTH);
    args.y = attn_rows_out_dense(y, ATTN_F32, 1, WIDTH);
    forward(m->layer, &args);
}

static void destroy(struct model *m) {
    free(m->cache_memory);
    free(m->layer_memory);
}

int main(void) {
    float *weights = numbers(1, 4 * WEIGHTS), *rows = numbers(2, KEYS * WIDTH), exact[WIDTH], y[WIDTH], first[WIDTH];
    uint16_t *weights16 = rounded(weights, 4 * WEIGHTS), *rows16 = rounded(rows, KEYS * WIDTH);
    struct model f32 = create(ATTN_ISA_BEST, ATTN_F32, weights);
    step(&f32, rows, exact);
    int same = 1, isas = 0;
    size_t layer_bytes = 0, cache_bytes = 0;
    for (int isa = ATTN_ISA_SCALAR; isa < ATTN_ISA_COUNT; isa++) {
        if (!attn_isa_supported((attn_isa)isa))
            continue;
        struct model bf16 = create((attn_isa)isa, ATTN_BF16, weights16);
        step(&bf16, rows16, isas == 0 ? first : y);
        same &= isas++ == 0 || memcmp(first, y, sizeof y) == 0;
        layer_bytes = bf16.layer_bytes, cache_bytes = bf16.cache_bytes;
        destroy(&bf16);
    }
    float difference = 0, largest = 0;
    for (size_t j = 0; j < WIDTH; j++) {
        difference = fmaxf(difference, fabsf(first[j] - exact[j]));
        largest = fmaxf(largest, fabsf(exact[j]));
    }
    printf("layer %zu KiB in F32, %zu in BF16; cache %zu KiB and %zu\n", f32.layer_bytes / 1024, layer_bytes / 1024,
           f32.cache_bytes / 1024, cache_bytes / 1024);
    printf("largest difference %.4f of the largest output; %d instruction sets: %s\n", (double)(difference / largest),
           isas, same ? "the same bits" : "OTHER BITS");
    destroy(&f32);
    free(rows16);
    free(weights16);
    free(rows);
    free(weights);
    return !same || !(difference < 0.02f * largest);
}
