/* Grouped-query decoding with a cache that grows: each token appends a key and a value and attends to all of them. At
 * 1024, 2048, 4096, ... keys prints how many tokens a second that makes and how fast keys and values were read for
 * them, with one thread and, where pthreadpool was found, with several, whose output must have the same bits.
 *
 *     decode [--heads 32] [--kv-heads 8] [--head-size 128] [--keys 32768] [--threads 0]
 *
 * 0 threads are as many as there are processors. */
#define _POSIX_C_SOURCE 200809L

#include <attn/attn.h>
#ifdef HAVE_PTHREADPOOL
#include <attn/pthreadpool.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TOKENS = 16, CHUNK = 256, FIRST_MARK = 1024 };

struct decoder {
    size_t heads, kv_heads, head_size, keys, threads;
    attn_cache *cache;
    void *cache_memory, *workspace;
    size_t workspace_bytes;
    float *q, *o;  /* [TOKENS][heads][head_size] */
    float *k, *v;  /* [kv_heads][CHUNK][head_size] */
    uint32_t seed; /* of random numbers in place of a model's */
};

static attn_error error;

static void check(attn_status status) {
    if (status == ATTN_OK)
        return;
    char text[128];
    attn_error_text(&error, text, sizeof text);
    fprintf(stderr, "decode: %s\n", text);
    exit(EXIT_FAILURE);
}

static void *allocate(size_t bytes) {
    void *memory = aligned_alloc(ATTN_ALIGNMENT, (bytes / ATTN_ALIGNMENT + 1) * ATTN_ALIGNMENT);
    if (!memory) {
        fprintf(stderr, "decode: no memory for %zu bytes\n", bytes);
        exit(EXIT_FAILURE);
    }
    return memory;
}

static void fill(struct decoder *d, float *x, size_t count) {
    for (size_t i = 0; i < count; i++) {
        d->seed = d->seed * 1664525u + 1013904223u;
        x[i] = (float)(d->seed >> 8) / (float)(1 << 23) - 1.0f;
    }
}

/* ---- Decoding ---- */

/* Rows first .. first + len - 1 of k and v become the next keys. */
static void append(struct decoder *d, size_t first, size_t len) {
    attn_cache_append_args args = {.len = len};
    args.k = (attn_tensor){d->k + first * d->head_size, ATTN_F32, 0, CHUNK * d->head_size, d->head_size, 1};
    args.v = (attn_tensor){d->v + first * d->head_size, ATTN_F32, 0, CHUNK * d->head_size, d->head_size, 1};
    check(attn_cache_append(d->cache, &args, &error));
}

static attn_attention_args attention_args(const struct decoder *d, size_t token, const attn_parallel *parallel) {
    size_t row = d->heads * d->head_size;
    attn_attention_args args = {.batch = 1, .heads = d->heads, .kv_heads = d->kv_heads, .q_len = 1};
    args.head_size = d->head_size;
    args.cache = d->cache;
    args.q = (attn_tensor){d->q + token * row, ATTN_F32, 0, d->head_size, 0, 1};
    args.o = (attn_tensor_out){d->o + token * row, ATTN_F32, 0, d->head_size, 0, 1};
    args.parallel = parallel;
    return args;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Decodes TOKENS tokens and prints how fast; the cache has grown by as many keys afterwards. */
static void decode(struct decoder *d, const attn_parallel *parallel) {
    double bytes = 0, begin = now();
    for (size_t token = 0; token < TOKENS; token++) {
        append(d, token, 1);
        attn_attention_args args = attention_args(d, token, parallel);
        check(attn_attention(&args, d->workspace, d->workspace_bytes, &error));
        bytes += (double)(attn_cache_length(d->cache, 0) * d->kv_heads * d->head_size * 2 * sizeof(float));
    }
    double seconds = now() - begin;
    printf("  %12.1f %8.2f", TOKENS / seconds, bytes / seconds / 1e9);
}

/* New keys up to `length`, and rows for the tokens after them. */
static void grow(struct decoder *d, size_t length) {
    size_t floats = d->kv_heads * CHUNK * d->head_size;
    for (size_t held; (held = attn_cache_length(d->cache, 0)) < length;) {
        fill(d, d->k, floats);
        fill(d, d->v, floats);
        append(d, 0, length - held < CHUNK ? length - held : CHUNK);
    }
    fill(d, d->k, floats);
    fill(d, d->v, floats);
    fill(d, d->q, TOKENS * d->heads * d->head_size);
}

/* The tokens up to `length` keys, once with one thread and again with `parallel`. False where the bits differ. */
static int decode_at(struct decoder *d, size_t length, const attn_parallel *parallel) {
    size_t bytes = TOKENS * d->heads * d->head_size * sizeof(float);
    int same = 1;
    grow(d, length - TOKENS);
    printf("%7zu", length);
    decode(d, NULL);
    if (parallel) {
        float *alone = memcpy(allocate(bytes), d->o, bytes);
        check(attn_cache_truncate(d->cache, 0, length - TOKENS, &error));
        decode(d, parallel);
        same = memcmp(alone, d->o, bytes) == 0;
        free(alone);
    }
    printf("\n");
    fflush(stdout);
    return same;
}

/* ---- The program ---- */

static int read_options(struct decoder *d, int argc, char **argv) {
    const char *const names[] = {"--heads", "--kv-heads", "--head-size", "--keys", "--threads"};
    size_t *const values[] = {&d->heads, &d->kv_heads, &d->head_size, &d->keys, &d->threads};
    for (int i = 1; i < argc; i += 2) {
        size_t option = 0;
        char *end = NULL;
        while (option < sizeof names / sizeof *names && strcmp(argv[i], names[option]) != 0)
            option++;
        if (option == sizeof names / sizeof *names || i + 1 == argc)
            return 0;
        *values[option] = strtoul(argv[i + 1], &end, 10);
        if (end == argv[i + 1] || *end)
            return 0;
    }
    return d->heads > 0 && d->kv_heads > 0 && d->head_size > 0 && d->keys >= TOKENS;
}

static void set_up(struct decoder *d, const attn_parallel *parallel) {
    attn_cache_config config = {.batch = 1, .kv_heads = d->kv_heads, .head_size = d->head_size, .capacity = d->keys};
    size_t bytes = 0;
    check(attn_cache_size(&config, &bytes, &error));
    d->cache_memory = allocate(bytes);
    check(attn_cache_create(&config, d->cache_memory, bytes, &d->cache, &error));
    d->q = allocate(TOKENS * d->heads * d->head_size * sizeof(float));
    d->o = allocate(TOKENS * d->heads * d->head_size * sizeof(float));
    d->k = allocate(d->kv_heads * CHUNK * d->head_size * sizeof(float));
    d->v = allocate(d->kv_heads * CHUNK * d->head_size * sizeof(float));
    for (int i = 0; i < 2; i++) { /* with one thread and with all of them */
        attn_attention_args args = attention_args(d, 0, i ? parallel : NULL);
        check(attn_attention_workspace(&args, &bytes, &error));
        d->workspace_bytes = bytes > d->workspace_bytes ? bytes : d->workspace_bytes;
    }
    d->workspace = allocate(d->workspace_bytes);
}

static void tear_down(struct decoder *d) {
    free(d->cache_memory);
    free(d->workspace);
    free(d->q);
    free(d->o);
    free(d->k);
    free(d->v);
}

static int run(struct decoder *d, const attn_parallel *parallel) {
    int same = 1;
    set_up(d, parallel);
    printf("%zu heads over %zu kv heads of %zu, f32, %s; %d tokens at each length\n", d->heads, d->kv_heads,
           d->head_size, attn_isa_name(attn_isa_chosen()), TOKENS);
    printf("%7s  %12s %8s", "", "1 thread", "");
    if (parallel)
        printf("  %4zu threads", parallel->threads);
    printf("\n%7s", "keys");
    for (int i = 0; i < (parallel ? 2 : 1); i++)
        printf("  %12s %8s", "tokens/s", "GB/s");
    printf("\n");
    for (size_t length = d->keys < FIRST_MARK ? d->keys : FIRST_MARK; length <= d->keys && same;) {
        same = decode_at(d, length, parallel);
        length = length < d->keys && 2 * length > d->keys ? d->keys : 2 * length;
    }
    if (!same)
        fprintf(stderr, "decode: the threads computed other bits\n");
    tear_down(d);
    return same ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv) {
    struct decoder d = {.heads = 32, .kv_heads = 8, .head_size = 128, .keys = 32768, .seed = 1};
    if (!read_options(&d, argc, argv)) {
        fprintf(stderr, "usage: %s [--heads N] [--kv-heads N] [--head-size N] [--keys N, at least %d] [--threads N]\n",
                argv[0], TOKENS);
        return EXIT_FAILURE;
    }
#ifdef HAVE_PTHREADPOOL
    pthreadpool_t pool = pthreadpool_create(d.threads);
    attn_parallel parallel = attn_parallel_pthreadpool(pool);
    int result = run(&d, parallel.threads > 1 ? &parallel : NULL);
    pthreadpool_destroy(pool);
    return result;
#else
    return run(&d, NULL);
#endif
}
