/* Cross-attention of a decoder: the encoder's output is projected once, by an append to a cache, and every step then
 * computes its query row over that. Two sources of different length share the batch. Prints the microseconds of a step
 * with and without the cache; both must give the same bits. */
#define _POSIX_C_SOURCE 200809L

#include "support.h"
#include <string.h>
#include <time.h>

enum { WIDTH = 128, HEADS = 4, BATCH = 2, SOURCE = 150, STEPS = 8, OUTPUTS = STEPS * BATCH * WIDTH };

static const int64_t lengths[BATCH] = {150, 77};
static attn_error error;
static attn_layer *layer;
static attn_cache *cache;
static void *layer_memory, *cache_memory;

static void create_layer(void) {
    float *w = numbers(1, 4 * WIDTH * WIDTH);
    attn_layer_config config = {.query_width = WIDTH, .key_width = WIDTH, .value_width = WIDTH, .hidden = WIDTH};
    config.heads = HEADS, config.scale = 0.005f; /* else one key of these numbers has all weight */
    config.w_q = attn_linear_dense(w, ATTN_F32, WIDTH, NULL);
    config.w_k = attn_linear_dense(w + WIDTH * WIDTH, ATTN_F32, WIDTH, NULL);
    config.w_v = attn_linear_dense(w + 2 * WIDTH * WIDTH, ATTN_F32, WIDTH, NULL);
    config.w_o = attn_linear_dense(w + 3 * WIDTH * WIDTH, ATTN_F32, WIDTH, NULL);
    size_t bytes = 0;
    check(attn_layer_size(&config, &bytes, &error), &error);
    check(attn_layer_create(&config, layer_memory = allocate(bytes), bytes, &layer, &error), &error);
    free(w);
}

static attn_tensor rows_of(const float *x, size_t len) {
    return (attn_tensor){x, .batch_stride = len * WIDTH, .row_stride = WIDTH};
}

/* Once for a source: its rows become projected keys and values. */
static void keep(const float *source) {
    attn_cache_config config;
    size_t bytes = 0;
    check(attn_layer_cache_config(layer, BATCH, SOURCE, &config, &error), &error);
    check(attn_cache_size(&config, &bytes, &error), &error);
    check(attn_cache_create(&config, cache_memory = allocate(bytes), bytes, &cache, &error), &error);
    attn_layer_append_args args = {.len = SOURCE, .lens.i64 = lengths, .cache = cache};
    args.k = args.v = rows_of(source, SOURCE);
    append(layer, &args);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A row for each sequence and step, over the cache where `source` is NULL. Returns the seconds of a step. */
static double decode(const float *source, const float *queries, float *y) {
    attn_layer_args args = {.batch = BATCH, .q_len = 1, .kv_len = SOURCE};
    if (source) {
        args.k = args.v = rows_of(source, SOURCE);
        args.options.valid = (attn_valid_lens){ATTN_VALID_PER_SEQUENCE, .lens.i64 = lengths};
    } else {
        args.cache = cache; /* which knows the lengths */
    }
    size_t bytes = 0;
    check(attn_layer_workspace(layer, &args, &bytes, &error), &error);
    void *workspace = allocate(bytes);
    const double begin = now();
    for (size_t step = 0; step < STEPS; step++) {
        args.q = rows_of(queries + step * BATCH * WIDTH, 1);
        args.y = (attn_tensor_out){y + step * BATCH * WIDTH, .batch_stride = WIDTH, .row_stride = WIDTH};
        check(attn_layer_forward(layer, &args, workspace, bytes, &error), &error);
    }
    const double seconds = (now() - begin) / STEPS;
    free(workspace);
    return seconds;
}

int main(void) {
    static float with[OUTPUTS], without[OUTPUTS];
    float *source = numbers(2, BATCH * SOURCE * WIDTH), *queries = numbers(3, OUTPUTS);
    create_layer();
    const double each = decode(source, queries, without);
    keep(source);
    const double once = decode(NULL, queries, with);
    const int same = memcmp(with, without, sizeof with) == 0;
    printf(
        "a step over %d tokens: %.1f us where they are projected in each, %.1f us where they were projected once; %s\n",
        SOURCE, 1e6 * each, 1e6 * once, same ? "the same bits" : "OTHER BITS");
    free(cache_memory);
    free(layer_memory);
    free(queries);
    free(source);
    return !same;
}
