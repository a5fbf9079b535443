/* The attention of a serving engine: grouped queries with rotary embedding over a paged cache, requests of different
 * lengths in one call. At the end each request's outputs must have the bits that it has alone, without a cache.
 *
 * How to run some of the cache's sequences: those that sit out (free, or waiting for a page) have 0 rows in `cu`, of
 * the append and of the call, and cost nothing. */
#include "support.h"
#include <string.h>

enum { HEADS = 6, KV_HEADS = 2, SIZE = 16, O_ROW = HEADS * SIZE, QKV_ROW = (HEADS + 2 * KV_HEADS) * SIZE };
enum { SLOTS = 3, PAGE = 16, PAGES = 8, MOST = 96, CHUNK = 20, ROWS = SLOTS * CHUNK, REQUESTS = 4 };

/* A prompt is taken CHUNK tokens a step, further tokens one by one. */
static struct request {
    size_t prompt, length, done; /* tokens */
    float o[MOST * O_ROW], *qkv; /* a row for each token: outputs; the model's q, k and v, here only numbers */
} requests[REQUESTS] = {{37, .length = 60}, {5, .length = 12}, {64, .length = 70}, {33, .length = 50}};

static struct request *slots[SLOTS]; /* whose each sequence of the cache is */
static int32_t free_pages[PAGES] = {7, 0, 5, 2, 1, 3, 6, 4}, tables[SLOTS][MOST / PAGE];
static size_t free_count = PAGES, held[SLOTS]; /* held: pages of each sequence */
static attn_cache *cache;
static attn_rotary *rotary;
static attn_error error;

static void create(void *memories[2]) {
    const attn_rotary_config angles = {.positions = MOST, .dims = SIZE};
    attn_cache_config keys = {.batch = SLOTS, .kv_heads = KV_HEADS, .head_size = SIZE, .capacity = MOST};
    keys.kind = ATTN_CACHE_PAGED, keys.page_size = PAGE, keys.pages = PAGES;
    size_t bytes = 0;
    check(attn_rotary_size(&angles, &bytes, &error), &error);
    check(attn_rotary_create(&angles, memories[0] = allocate(bytes), bytes, &rotary, &error), &error);
    check(attn_cache_size(&keys, &bytes, &error), &error);
    check(attn_cache_create(&keys, memories[1] = allocate(bytes), bytes, &cache, &error), &error);
}

/* Rows of a slot in this step; none where the pages that are left do not reach. */
static size_t schedule(size_t slot) {
    const struct request *r = slots[slot];
    size_t rows = r->done >= r->prompt ? 1 : r->prompt - r->done < CHUNK ? r->prompt - r->done : CHUNK;
    const size_t need = (r->done + rows + PAGE - 1) / PAGE, more = need - held[slot];
    if (more > free_count)
        return 0;
    free_count -= more;
    memcpy(&tables[slot][held[slot]], &free_pages[free_count], more * sizeof *free_pages);
    check(attn_cache_set_pages(cache, slot, held[slot], more, &tables[slot][held[slot]], &error), &error);
    held[slot] = need;
    return rows;
}

static attn_tensor part(const float *qkv, size_t first_head) {
    return (attn_tensor){qkv + first_head * SIZE, .head_stride = SIZE, .row_stride = QKV_ROW};
}

static void attend(attn_attention_args args, const float *qkv, float *o) {
    args.heads = HEADS, args.kv_heads = KV_HEADS, args.head_size = SIZE;
    args.q = part(qkv, 0);
    args.o = (attn_tensor_out){o, .head_stride = SIZE, .row_stride = O_ROW};
    args.options.causal = 1, args.options.rotary = rotary;
    attention(&args);
}

/* Appends keys and values of all rows, which the queries of the same step already see, and computes these. */
static void step(void) {
    static float qkv[ROWS * QKV_ROW], o[ROWS * O_ROW];
    int32_t cu[SLOTS + 1] = {0};
    for (size_t s = 0; s < SLOTS; s++) {
        const size_t rows = slots[s] ? schedule(s) : 0;
        cu[s + 1] = cu[s] + (int32_t)rows;
        if (rows > 0)
            memcpy(&qkv[cu[s] * QKV_ROW], slots[s]->qkv + slots[s]->done * QKV_ROW, rows * QKV_ROW * sizeof *qkv);
    }
    const attn_cu_lens packed = {{.i32 = cu}, ROWS};
    attn_cache_append_args keys = {.len = CHUNK, .cu = packed, .rotary = rotary};
    keys.k = part(qkv, HEADS), keys.v = part(qkv, HEADS + KV_HEADS);
    check(attn_cache_append(cache, &keys, &error), &error);
    attend((attn_attention_args){.batch = SLOTS, .q_len = CHUNK, .q_cu = packed, .cache = cache}, qkv, o);
    for (size_t s = 0; s < SLOTS; s++) {
        const size_t rows = (size_t)(cu[s + 1] - cu[s]);
        if (rows == 0)
            continue;
        memcpy(slots[s]->o + slots[s]->done * O_ROW, &o[cu[s] * O_ROW], rows * O_ROW * sizeof *o);
        slots[s]->done += rows;
        if (slots[s]->done < slots[s]->length)
            continue;
        check(attn_cache_truncate(cache, s, 0, &error), &error); /* done: its pages are for others */
        memcpy(&free_pages[free_count], tables[s], held[s] * sizeof *free_pages);
        free_count += held[s], held[s] = 0, slots[s] = NULL;
    }
}

static size_t same_alone(const struct request *r) {
    static float o[MOST * O_ROW];
    attn_attention_args args = {.batch = 1, .q_len = r->length, .kv_len = r->length};
    args.k = part(r->qkv, HEADS), args.v = part(r->qkv, HEADS + KV_HEADS);
    attend(args, r->qkv, o);
    return memcmp(o, r->o, r->length * O_ROW * sizeof *o) == 0;
}

int main(void) {
    void *memories[2];
    float *qkv = numbers(1, REQUESTS * MOST * QKV_ROW);
    size_t steps = 0, admitted = 0, same = 0;
    create(memories);
    for (size_t i = 0; i < REQUESTS; i++)
        requests[i].qkv = qkv + i * MOST * QKV_ROW;
    for (; steps == 0 || slots[0] || slots[1] || slots[2]; steps++) {
        for (size_t s = 0; s < SLOTS; s++)
            if (!slots[s] && admitted < REQUESTS)
                slots[s] = &requests[admitted++];
        step();
    }
    for (size_t i = 0; i < REQUESTS; i++)
        same += same_alone(&requests[i]);
    printf("%d requests in %zu steps: %zu have the bits that they have alone\n", REQUESTS, steps, same);
    free(qkv);
    free(memories[0]);
    free(memories[1]);
    return same != REQUESTS;
}
