/* One request through a layer of grouped-query attention, in four ways: alone in one piece, in a batch with
 * others, in chunks over a cache, and token by token; each on every instruction set of this machine, with 1, 2 and 3
 * threads. Prints a hash of the outputs' bits for each. All must be equal, and equal to the hash given.
 *
 *     invariance [--isa NAME] [HASH] */
#include "support.h"
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

/* The request: NEW tokens after others. LENGTH takes its keys beyond a span of 4096, which threads share out. */
enum { WIDTH = 64, HEADS = 4, KV_HEADS = 2, KV_WIDTH = 32, LENGTH = 4200, NEW = 24, BATCH = 3 };
enum { MOST_THREADS = 3, WAYS = 4, OUTPUTS = NEW * WIDTH };

static const char *const ways[WAYS] = {"alone, in one piece", "in a batch of 3", "in chunks of 7", "token by token"};
static float *weights, *tokens; /* [BATCH][LENGTH][WIDTH]; the request is the second of the batch */
static attn_error error;

struct work {
    void (*task)(void *arg, size_t index);
    void *arg;
    size_t index;
};

static void *start(void *work) {
    ((struct work *)work)->task(((struct work *)work)->arg, ((struct work *)work)->index);
    return NULL;
}

/* A thread for each task: the shortest attn_parallel that there is, not the fastest. */
static void run_threads(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count) {
    (void)context;
    pthread_t threads[MOST_THREADS];
    struct work work[MOST_THREADS];
    for (size_t i = 0; i < count; i++) {
        work[i] = (struct work){task, arg, i};
        if (pthread_create(&threads[i], NULL, start, &work[i]) != 0)
            exit(EXIT_FAILURE);
    }
    for (size_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static attn_layer *make_layer(attn_isa isa, void **memory) {
    attn_layer_config config = {isa, .query_width = WIDTH, .key_width = WIDTH, .value_width = WIDTH, .hidden = WIDTH};
    config.heads = HEADS, config.kv_heads = KV_HEADS,
    config.scale = 0.02f; /* else one key of these numbers has all weight */
    config.w_q = attn_linear_dense(weights, ATTN_F32, WIDTH, NULL);
    config.w_k = attn_linear_dense(weights + WIDTH * WIDTH, ATTN_F32, KV_WIDTH, NULL);
    config.w_v = attn_linear_dense(weights + WIDTH * (WIDTH + KV_WIDTH), ATTN_F32, KV_WIDTH, NULL);
    config.w_o = attn_linear_dense(weights + WIDTH * (WIDTH + 2 * KV_WIDTH), ATTN_F32, WIDTH, NULL);
    attn_layer *layer = NULL;
    size_t bytes = 0;
    check(attn_layer_size(&config, &bytes, &error), &error);
    check(attn_layer_create(&config, *memory = allocate(bytes), bytes, &layer, &error), &error);
    return layer;
}

/* Without a cache. The others of the batch have fewer tokens; what lies behind them in their buffers is not read. */
static void whole(const attn_layer *layer, size_t batch, const attn_parallel *parallel, float *y) {
    static const int32_t lengths[BATCH] = {700, LENGTH, 300};
    const float *first = batch == 1 ? tokens + LENGTH * WIDTH : tokens;
    float *all = allocate(batch * OUTPUTS * sizeof *all);
    attn_layer_args args = {.batch = batch, .q_len = NEW, .kv_len = LENGTH, .parallel = parallel};
    args.k = args.v = (attn_tensor){first, .batch_stride = LENGTH * WIDTH, .row_stride = WIDTH};
    args.q = (attn_tensor){first + (LENGTH - NEW) * WIDTH, .batch_stride = LENGTH * WIDTH, .row_stride = WIDTH};
    args.y = (attn_tensor_out){all, .batch_stride = OUTPUTS, .row_stride = WIDTH};
    args.options.causal = 1, args.options.position = ATTN_POSITION_VALID_END;
    if (batch > 1)
        args.options.valid = (attn_valid_lens){ATTN_VALID_PER_SEQUENCE, .lens.i32 = lengths};
    forward(layer, &args);
    memcpy(y, batch == 1 ? all : all + OUTPUTS, OUTPUTS * sizeof *y);
    free(all);
}

/* Over a cache: each time `len` tokens become keys, then their rows are computed. */
static void grow(const attn_layer *layer, attn_cache *cache, size_t first, size_t len, const attn_parallel *parallel) {
    attn_layer_append_args args = {.len = len, .cache = cache, .parallel = parallel};
    args.k = args.v = (attn_tensor){tokens + (LENGTH + first) * WIDTH, .row_stride = WIDTH};
    append(layer, &args);
}

static void cached(const attn_layer *layer, size_t chunk, const attn_parallel *parallel, float *y) {
    attn_cache_config config;
    attn_cache *cache = NULL;
    size_t bytes = 0;
    check(attn_layer_cache_config(layer, 1, LENGTH, &config, &error), &error);
    check(attn_cache_size(&config, &bytes, &error), &error);
    void *memory = allocate(bytes);
    check(attn_cache_create(&config, memory, bytes, &cache, &error), &error);
    grow(layer, cache, 0, LENGTH - NEW, parallel);
    for (size_t i = 0; i < NEW; i += chunk) {
        const size_t len = NEW - i < chunk ? NEW - i : chunk;
        grow(layer, cache, LENGTH - NEW + i, len, parallel);
        attn_layer_args args = {.batch = 1, .q_len = len, .cache = cache, .parallel = parallel, .options.causal = 1};
        args.q = (attn_tensor){tokens + (2 * LENGTH - NEW + i) * WIDTH, .row_stride = WIDTH};
        args.y = (attn_tensor_out){y + i * WIDTH, .row_stride = WIDTH};
        forward(layer, &args);
    }
    free(memory);
}

/* FNV-1a of the numbers' bits, in the same byte order everywhere. */
static uint64_t hash_of(const float *y) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < OUTPUTS; i++) {
        uint32_t bits;
        memcpy(&bits, &y[i], sizeof bits);
        for (unsigned shift = 0; shift < 32; shift += 8)
            hash = (hash ^ (bits >> shift & 0xff)) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static uint64_t compute(const attn_layer *layer, size_t way, size_t threads) {
    static float y[OUTPUTS];
    const attn_parallel parallel = {.run = run_threads, .threads = threads};
    if (way < 2)
        whole(layer, way == 0 ? 1 : BATCH, &parallel, y);
    else
        cached(layer, way == 2 ? 7 : 1, &parallel, y);
    return hash_of(y);
}

/* Prints a line for each way. Counts results, and those with other bits than the first of all, or than those given. */
static void compare(attn_isa isa, uint64_t *expected, size_t *count, size_t *others) {
    void *memory = NULL;
    attn_layer *layer = make_layer(isa, &memory);
    for (size_t way = 0; way < WAYS; way++) {
        printf("%-12s %-20s", attn_isa_name(isa), ways[way]);
        for (size_t threads = 1; threads <= MOST_THREADS; threads++) {
            const uint64_t hash = compute(layer, way, threads);
            *expected = *expected ? *expected : hash;
            *others += hash != *expected;
            ++*count;
            printf("  %016" PRIx64, hash);
            fflush(stdout);
        }
        printf("\n");
    }
    free(memory);
}

int main(int argc, char **argv) {
    attn_isa only = ATTN_ISA_BEST;
    size_t count = 0, others = 0;
    if (argc > 2 && strcmp(argv[1], "--isa") == 0) {
        if (attn_isa_from_name(argv[2], &only) != ATTN_OK || (only && !attn_isa_supported(only)))
            return 77; /* this machine lacks it */
        argc -= 2, argv += 2;
    }
    uint64_t expected = argc > 1 ? strtoull(argv[1], NULL, 16) : 0;
    weights = numbers(1, 2 * WIDTH * (WIDTH + KV_WIDTH));
    tokens = numbers(2, BATCH * LENGTH * WIDTH);
    printf("%-12s %-20s  %-16s  %-16s  %-16s\n", "", "", "1 thread", "2 threads", "3 threads");
    for (attn_isa isa = ATTN_ISA_SCALAR; isa < ATTN_ISA_COUNT; isa++)
        if (attn_isa_supported(isa) && (!only || isa == only))
            compare(isa, &expected, &count, &others);
    if (others == 0)
        printf("%zu results, one hash\n", count);
    else
        printf("%zu of %zu results have other bits than %016" PRIx64 "\n", others, count, expected);
    free(weights);
    free(tokens);
    return others > 0;
}
