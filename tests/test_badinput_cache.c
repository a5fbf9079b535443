/* Bad input at the functions of caches, of the layer's too: the status, the name of the argument that is wrong, and not
 * a byte written. */
#include "faults.h"

#include <float.h>
#include <math.h>

/* A cache of another ISA, whose panels another kernel reads. */
static void test_other_isa(void **state) {
    (void)state;
    if (!attn_isa_supported(ATTN_ISA_AVX2))
        skip();
    alignas(ATTN_ALIGNMENT) static unsigned char memory[BYTES], layer_memory[BYTES];
    attn_cache *cache, *layer_cache;
    attn_cache_config config = cache_config(), of_layer;
    config.isa = ATTN_ISA_AVX2;
    assert_ok(attn_cache_create(&config, memory, BYTES, &cache, NULL));
    assert_ok(attn_layer_cache_config(arena.layer, BATCH, CAPACITY, &of_layer, NULL));
    of_layer.isa = ATTN_ISA_AVX2;
    assert_ok(attn_cache_create(&of_layer, layer_memory, BYTES, &layer_cache, NULL));
    BAD(attention_workspace, ATTN_MISMATCH, "isa", a.attention.cache = cache; a.attention.kv_len = 0);
    BAD(attention, ATTN_MISMATCH, "isa", a.attention.cache = cache; a.attention.kv_len = 0);
    BAD(layer_workspace, ATTN_MISMATCH, "cache", a.forward.cache = layer_cache; a.forward.kv_len = 0);
    BAD(layer_forward, ATTN_MISMATCH, "cache", a.forward.cache = layer_cache; a.forward.kv_len = 0);
    BAD(layer_append_workspace, ATTN_MISMATCH, "cache", a.append.cache = layer_cache);
    BAD(layer_append, ATTN_MISMATCH, "cache", a.append.cache = layer_cache);
}

/* A cache of another arithmetic. Attention that leaves its own at 0 takes the cache's. */
static void test_other_arithmetic(void **state) {
    (void)state;
    alignas(ATTN_ALIGNMENT) static unsigned char memory[BYTES], layer_memory[BYTES];
    attn_cache *cache, *layer_cache;
    attn_cache_config config = cache_config(), of_layer;
    assert_ok(attn_cache_create(&config, memory, BYTES, &cache, NULL));
    assert_ok(attn_layer_cache_config(arena.layer, BATCH, CAPACITY, &of_layer, NULL));
    assert_int_equal(ATTN_ARITHMETIC_FASTEST, of_layer.arithmetic);
    of_layer.arithmetic = ATTN_ARITHMETIC_PORTABLE;
    assert_ok(attn_cache_create(&of_layer, layer_memory, BYTES, &layer_cache, NULL));
    BAD(attention_workspace, ATTN_MISMATCH, "arithmetic", a.attention.cache = cache; a.attention.kv_len = 0;
        a.attention.arithmetic = ATTN_ARITHMETIC_PORTABLE);
    BAD(layer_workspace, ATTN_MISMATCH, "cache", a.forward.cache = layer_cache; a.forward.kv_len = 0);
    BAD(layer_append_workspace, ATTN_MISMATCH, "cache", a.append.cache = layer_cache);
    config.arithmetic = ATTN_ARITHMETIC_PORTABLE;
    assert_ok(attn_cache_create(&config, memory, BYTES, &cache, NULL));
    GOOD(attention_workspace, a.attention.cache = cache; a.attention.kv_len = 0);
    GOOD(attention_workspace, a.attention.cache = cache; a.attention.kv_len = 0;
         a.attention.arithmetic = ATTN_ARITHMETIC_PORTABLE);
}

/* ---- Creation ---- */

static void put_pages(attn_cache_config *config, size_t page_size, size_t pages) {
    config->kind = ATTN_CACHE_PAGED;
    config->page_size = config->capacity = page_size;
    config->pages = pages;
}

static void put_scales(attn_cache_config *config, attn_type type, const float *k_scales, const float *v_scales) {
    config->type = type;
    config->k_scales = k_scales;
    config->v_scales = v_scales;
}

static const float good_scales[KV_HEADS] = {0.5f, 3.0f};

static void cache_type_configs(function *call) {
    BAD(call, ATTN_BAD_VALUE, "type", a.cache_config_value.type = ATTN_BOOL);
    BAD(call, ATTN_BAD_VALUE, "type", a.cache_config_value.type = ATTN_INT4);
    BAD(call, ATTN_BAD_VALUE, "type", a.cache_config_value.type = NO_TYPE);
    BAD(call, ATTN_BAD_VALUE, "type", a.cache_config_value.type = (attn_type)-1);
    for (int type = ATTN_F32; type <= ATTN_F8_E5M2; type++) {
        if (type == ATTN_BOOL || type == ATTN_INT4)
            continue;
        GOOD(call, a.cache_config_value.type = (attn_type)type);
        if (type == ATTN_F8_E4M3 || type == ATTN_F8_E5M2) {
            GOOD(call, put_scales(&a.cache_config_value, (attn_type)type, good_scales, NULL));
            GOOD(call, put_scales(&a.cache_config_value, (attn_type)type, NULL, good_scales));
            continue;
        }
        BAD(call, ATTN_BAD_VALUE, "k_scales", put_scales(&a.cache_config_value, (attn_type)type, good_scales, NULL));
        BAD(call, ATTN_BAD_VALUE, "v_scales", put_scales(&a.cache_config_value, (attn_type)type, NULL, good_scales));
    }
}

static void cache_configs(function *call) {
    BAD(call, ATTN_NULL_POINTER, "config", a.cache_config = NULL);
    BAD_ISA(call, cache_config_value.isa);
    ZERO_OR_BAD_SIZE(call, "batch", cache_config_value.batch);
    ZERO_OR_BAD_SIZE(call, "kv_heads", cache_config_value.kv_heads);
    ZERO_OR_BAD_SIZE(call, "head_size", cache_config_value.head_size);
    BAD_SIZE(call, "value_size", cache_config_value.value_size);
    ZERO_OR_BAD_SIZE(call, "capacity", cache_config_value.capacity);
    BAD(call, ATTN_OVERFLOW, any_name, a.cache_config_value.batch = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.cache_config_value.kv_heads = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.cache_config_value.head_size = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.cache_config_value.value_size = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.cache_config_value.capacity = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.cache_config_value.batch = a.cache_config_value.capacity = POWER(32));
    BAD(call, ATTN_BAD_SIZE, "page_size", put_pages(&a.cache_config_value, 8, 1));
    BAD(call, ATTN_BAD_SIZE, "page_size", put_pages(&a.cache_config_value, 40, 1));
    BAD(call, ATTN_BAD_SIZE, "page_size", put_pages(&a.cache_config_value, SIZE_MAX - 15, 1);
        a.cache_config_value.capacity = 16);
    BAD(call, ATTN_BAD_SIZE, "pages", put_pages(&a.cache_config_value, PAGE, 0));
    BAD(call, ATTN_BAD_SIZE, "pages", put_pages(&a.cache_config_value, PAGE, (size_t)INT32_MAX + 1));
    BAD(call, ATTN_BAD_SIZE, "pages", put_pages(&a.cache_config_value, PAGE, SIZE_MAX));
    BAD(call, ATTN_BAD_VALUE, "pages", a.cache_config_value.pages = PAGES);
    BAD(call, ATTN_BAD_SIZE, "capacity", put_pages(&a.cache_config_value, PAGE, PAGES);
        a.cache_config_value.capacity = PAGE + 1);
    BAD(call, ATTN_BAD_SIZE, "page_size", put_pages(&a.cache_config_value, PAGE, 1);
        a.cache_config_value.page_size = 0);
    BAD(call, ATTN_BAD_VALUE, "page_size", put_pages(&a.cache_config_value, PAGE, PAGES);
        a.cache_config_value.kind = ATTN_CACHE_RING);
    BAD(call, ATTN_BAD_VALUE, "page_size", a.cache_config_value.page_size = PAGE);
    BAD(call, ATTN_BAD_VALUE, "kind", a.cache_config_value.kind = (attn_cache_kind)3);
    BAD(call, ATTN_BAD_VALUE, "kind", a.cache_config_value.kind = (attn_cache_kind)-1);
    cache_type_configs(call);
    BAD_ARITHMETIC(call, cache_config_value.arithmetic);
    BAD(call, ATTN_OVERFLOW, any_name, put_pages(&a.cache_config_value, POWER(40), INT32_MAX));
    BAD(call, ATTN_OVERFLOW, any_name, put_pages(&a.cache_config_value, PAGE, INT32_MAX);
        a.cache_config_value.head_size = POWER(30));
    GOOD(call, a.cache_config_value.value_size = 0);
    GOOD(call, a.cache_config_value.kind = ATTN_CACHE_RING);
    GOOD(call, put_pages(&a.cache_config_value, PAGE, 1));
}

static void test_creation(void **state) {
    (void)state;
    cache_configs(cache_size);
    cache_configs(cache_create_);
    BAD(cache_size, ATTN_NULL_POINTER, "bytes", a.bytes_out = NULL);
    BAD(cache_create_, ATTN_NULL_POINTER, "cache", a.new_cache = NULL);
    BAD_MEMORY(cache_create_, cache_size, "memory", memory);
}

/* Of F8: each is read when the cache is created. */
static void test_scales(void **state) {
    (void)state;
    static const float bad[] = {0.0f, -0.0f, -1.0f, NAN, INFINITY, -INFINITY, -FLT_MIN};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (size_t head = 0; head < KV_HEADS; head++) {
            float scales[KV_HEADS];
            memcpy(scales, good_scales, sizeof scales);
            scales[head] = bad[i];
            BAD(cache_create_, ATTN_BAD_VALUE, "k_scales",
                put_scales(&a.cache_config_value, ATTN_F8_E4M3, scales, good_scales));
            BAD(cache_create_, ATTN_BAD_VALUE, "v_scales",
                put_scales(&a.cache_config_value, ATTN_F8_E5M2, NULL, scales));
        }
    static const float extreme[KV_HEADS] = {FLT_TRUE_MIN, FLT_MAX};
    GOOD(cache_create_, put_scales(&a.cache_config_value, ATTN_F8_E4M3, extreme, extreme));
}

static void fork_configs(function *call) {
    BAD(call, ATTN_NULL_POINTER, "config", a.fork_config = NULL);
    BAD(call, ATTN_NULL_POINTER, "parent", a.fork.parent = NULL);
    BAD(call, ATTN_MISMATCH, "parent", a.fork.parent = arena.ring);
    BAD(call, ATTN_MISMATCH, "parent", a.fork.parent = arena.paged);
    ZERO_OR_BAD_SIZE(call, "batch", fork.batch);
    BAD(call, ATTN_BAD_SIZE, "batch", a.fork.batch = BATCH + 1; a.fork.sources = NULL);
    BAD(call, ATTN_BAD_SIZE, "sources", arena.sources[BATCH - 1] = BATCH);
    BAD(call, ATTN_BAD_SIZE, "sources", arena.sources[BATCH - 1] = ATTN_ALL_SEQUENCES);
    arena.sources[BATCH - 1] = 0;
    BAD_SIZE(call, "len", fork.len);
    BAD(call, ATTN_BAD_SIZE, "len", a.fork.len = KV_LEN + 1);
    ZERO_OR_BAD_SIZE(call, "capacity", fork.capacity);
    BAD(call, ATTN_BAD_SIZE, "capacity", a.fork.capacity = KV_LEN - 1);
    BAD(call, ATTN_OVERFLOW, any_name, a.fork.capacity = PTRDIFF_MAX);
    GOOD(call, a.fork.sources = NULL);
    GOOD(call, a.fork.batch = 1; a.fork.sources = NULL);
    GOOD(call, a.fork.capacity = KV_LEN);
    GOOD(call, a.fork.len = 0);
}

/* Each source must hold the keys that are shared, whatever the longest sequence has. */
static void shorter_sources(function *call) {
    BAD(call, ATTN_BAD_SIZE, "len", (void)a);
    BAD(call, ATTN_BAD_SIZE, "len", a.fork.sources = NULL);
    GOOD(call, a.fork.batch = 1; a.fork.sources = NULL);
    GOOD(call, a.fork.len = KV_LEN - 1);
}

static void test_fork(void **state) {
    (void)state;
    fork_configs(fork_size);
    fork_configs(fork_create);
    BAD(fork_size, ATTN_NULL_POINTER, "bytes", a.bytes_out = NULL);
    BAD(fork_create, ATTN_NULL_POINTER, "cache", a.new_cache = NULL);
    BAD_MEMORY(fork_create, fork_size, "memory", memory);
    assert_ok(attn_cache_truncate(arena.cache, BATCH - 1, KV_LEN - 1, NULL));
    shorter_sources(fork_size);
    shorter_sources(fork_create);
}

/* ---- Appending ---- */

/* How many rows each sequence is given, and where they stand; there is room for 3 in each. */
#define BAD_APPEND_LENGTHS(call, member)                                                                               \
    do {                                                                                                               \
        BAD(call, ATTN_BAD_VALUE, "lens", a.member.lens.i64 = two_lens(0, -1));                                        \
        BAD(call, ATTN_BAD_VALUE, "lens", a.member.lens.i64 = two_lens(0, INT64_MIN));                                 \
        BAD(call, ATTN_BAD_VALUE, "lens", a.member.lens.i64 = two_lens(2, 1));                                         \
        BAD(call, ATTN_BAD_VALUE, "lens", a.member.lens.i64 = two_lens(1, INT64_MAX));                                 \
        BAD(call, ATTN_TOO_SMALL, "len", a.member.lens.i64 = two_lens(1, 4); a.member.len = 4);                        \
        BAD(call, ATTN_BAD_VALUE, "cu.cu", a.member.cu = packed(0, 1, 0, 2));                                          \
        BAD(call, ATTN_BAD_VALUE, "cu.cu", a.member.cu = packed(-1, 0, 1, 2));                                         \
        BAD(call, ATTN_BAD_VALUE, "cu.cu", a.member.cu = packed(0, 1, 2, 1));                                          \
        BAD(call, ATTN_BAD_VALUE, "cu.cu", a.member.cu = packed(0, 2, 3, 3));                                          \
        BAD(call, ATTN_BAD_VALUE, "cu.cu", a.member.cu = packed(0, INT64_MAX, INT64_MIN, 3));                          \
        BAD(call, ATTN_TOO_SMALL, "len", a.member.cu = packed(0, 0, 4, 4); a.member.len = 4);                          \
        BAD(call, ATTN_BAD_SIZE, "cu.total", a.member.cu = packed(0, 1, 2, SIZE_MAX));                                 \
        BAD(call, ATTN_MISMATCH, "lens", a.member.lens.i64 = two_lens(1, 1); a.member.cu = packed(0, 1, 2, 2));        \
        BAD_ROWS(call, "k", member.k);                                                                                 \
        BAD_ROWS(call, "v", member.v);                                                                                 \
        BAD_INTS(call, "lens", member.lens);                                                                           \
        BAD_INTS(call, "rotary_offsets", member.rotary_offsets);                                                       \
        BAD(call, ATTN_BAD_VALUE, "cu.cu", a.member.cu = packed(0, 1, 2, 2); a.member.cu.cu.i32 = arena.pages);        \
        BAD(call, ATTN_BAD_VALUE, "cu.total", a.member.cu.total = 2);                                                  \
        BAD(call, ATTN_BAD_VALUE, "rotary_offsets", a.member.rotary_offsets.i64 = arena.offsets);                      \
        BAD(call, ATTN_BAD_VALUE, "rotary_offsets", a.member.rotary_offsets.i64 = arena.offsets; a.member.len = 0);    \
        BAD(call, ATTN_MISMATCH, "rotary", a.member.rotary = arena.wide_rotary);                                       \
        BAD(call, ATTN_BAD_VALUE, "rotary", a.member.rotary = arena.rotary;                                            \
            a.member.rotary_offsets.i64 = arena.offsets; arena.offsets[BATCH - 1] = POSITIONS - KV_LEN - 1;            \
            a.member.len = 2);                                                                                         \
        BAD(call, ATTN_BAD_VALUE, "rotary", a.member.rotary = arena.rotary;                                            \
            a.member.rotary_offsets.i64 = arena.offsets; arena.offsets[BATCH - 1] = POSITIONS - KV_LEN);               \
        BAD(call, ATTN_BAD_VALUE, "rotary", a.member.rotary = arena.rotary;                                            \
            a.member.rotary_offsets.i64 = arena.offsets; arena.offsets[BATCH - 1] = -KV_LEN - 1);                      \
        BAD(call, ATTN_BAD_VALUE, "rotary", a.member.rotary = arena.rotary;                                            \
            a.member.rotary_offsets.i64 = arena.offsets; arena.offsets[BATCH - 1] = INT64_MAX);                        \
        BAD(call, ATTN_BAD_VALUE, "rotary", a.member.rotary = arena.rotary;                                            \
            a.member.rotary_offsets.i64 = arena.offsets; arena.offsets[BATCH - 1] = INT64_MIN);                        \
        GOOD(call, a.member.rotary = arena.rotary; a.member.rotary_offsets.i64 = arena.offsets; a.member.len = 0;      \
             arena.offsets[BATCH - 1] = INT64_MIN);                                                                    \
        arena.offsets[BATCH - 1] = 0;                                                                                  \
        GOOD(call, a.member.len = 0; a.member.rotary = arena.rotary; a.member.k.data = a.member.v.data = NULL);        \
        GOOD(call, a.member.lens.i64 = two_lens(0, 0); a.member.len = 9);                                              \
        GOOD(call, a.member.cu = packed(2, 2, 2, 2); a.member.len = 9);                                                \
    } while (0)

static void test_append(void **state) {
    (void)state;
    BAD(cache_append, ATTN_NULL_POINTER, "cache", a.cache = NULL);
    BAD(cache_append, ATTN_NULL_POINTER, "args", a.keys_args = NULL);
    BAD(cache_append, ATTN_NULL_POINTER, "k.data", a.keys.k.data = NULL);
    BAD(cache_append, ATTN_NULL_POINTER, "v.data", a.keys.v.data = NULL);
    BAD_SIZE(cache_append, "len", keys.len);
    BAD(cache_append, ATTN_TOO_SMALL, "len", a.keys.len = CAPACITY - KV_LEN + 1);
    BAD(cache_append, ATTN_TOO_SMALL, "len", a.keys.len = PTRDIFF_MAX);
    BAD(cache_append, ATTN_BAD_STRIDE, "k", a.keys.k = (attn_tensor){arena.k, ATTN_F32, 0, 0, 0, 1});
    BAD(cache_append, ATTN_BAD_STRIDE, "k", a.keys.k = (attn_tensor){arena.k, ATTN_F32, 1, 0, 0, 1};
        a.keys.cu = packed(0, 1, 2, 2));
    BAD(cache_append, ATTN_OVERFLOW, "k", a.keys.k.batch_stride = SIZE_MAX);
    BAD(cache_append, ATTN_OVERFLOW, "v", a.keys.v.head_stride = SIZE_MAX / 2);
    BAD(cache_append, ATTN_NULL_POINTER, "parallel.run", a.parallel_value.run = NULL;
        a.keys.parallel = &a.parallel_value);
    BAD_APPEND_LENGTHS(cache_append, keys);
    GOOD(cache_append, a.keys.len = 0; a.keys.k = a.keys.v = (attn_tensor){0});
    GOOD(cache_append, a.keys.cu = packed(1, 2, 2, 4); a.keys.k.batch_stride = SIZE_MAX);
    assert_int_equal(KV_LEN + 1, attn_cache_length(arena.cache, 0));
    assert_int_equal(KV_LEN, attn_cache_length(arena.cache, 1));
    BAD(cache_append, ATTN_TOO_SMALL, "len", a.keys.len = CAPACITY - KV_LEN);
    GOOD(cache_append, a.keys.len = CAPACITY - KV_LEN - 1);
    BAD(cache_append, ATTN_TOO_SMALL, "len", a.keys.len = 1);
    GOOD(cache_append, a.keys.lens.i64 = two_lens(0, 1);
         a.keys.rotary = arena.rotary; /* at the table's last position */
         a.keys.rotary_offsets.i64 = arena.offsets; arena.offsets[BATCH - 1] = POSITIONS - CAPACITY);
}

/* A ring takes as many keys at once as it holds. */
static void test_append_to_ring(void **state) {
    (void)state;
    BAD(cache_append, ATTN_TOO_SMALL, "len", a.cache = arena.ring; a.keys.len = RING_HOLDS + 1);
    BAD(cache_append, ATTN_TOO_SMALL, "len", a.cache = arena.ring; a.keys.len = PTRDIFF_MAX);
    BAD(cache_append, ATTN_TOO_SMALL, "len", a.cache = arena.ring; a.keys.len = RING_HOLDS + 1;
        a.keys.lens.i64 = two_lens(0, RING_HOLDS + 1));
    GOOD(cache_append, a.cache = arena.ring; a.keys.len = RING_HOLDS + 1; a.keys.lens.i64 = two_lens(0, RING_HOLDS));
    GOOD(cache_append, a.cache = arena.ring; a.keys.len = RING_HOLDS);
}

static void ask_ring(attn_attention_args *args, enum order order, size_t window) {
    args->cache = arena.ring;
    args->kv_len = 0;
    args->options = (attn_options){.window_left = window};
    set_order(&args->options, order);
}

/* Keys 12 .. 19 are left; row i stands at 17 + i. */
static void test_attention_over_ring(void **state) {
    (void)state;
    enum { LOST = RING_LEN - RING_HOLDS, FIRST = RING_LEN - Q_LEN, WHOLE = FIRST + 1 - LOST };
    BAD(attention, ATTN_TOO_SMALL, "cache", ask_ring(&a.attention, ORDER_BOTTOM_RIGHT, WHOLE + 1));
    BAD(attention, ATTN_TOO_SMALL, "cache", ask_ring(&a.attention, ORDER_NONE, PTRDIFF_MAX));
    BAD(attention, ATTN_TOO_SMALL, "cache", ask_ring(&a.attention, ORDER_BOTTOM_RIGHT, RING_HOLDS + 1);
        a.attention.q_len = 1);
    BAD(attention, ATTN_TOO_SMALL, "cache", ask_ring(&a.attention, ORDER_BOTTOM_RIGHT, WHOLE + 1);
        a.attention.q_cu = packed(0, 0, Q_LEN, Q_LEN));
    BAD(attention, ATTN_TOO_SMALL, "cache", ask_ring(&a.attention, ORDER_BOTTOM_RIGHT, 0);
        a.attention.q_len = RING_HOLDS + 1; a.attention.o.head_stride = 0x1000;
        a.attention.o.batch_stride = HEADS * 0x1000);
    BAD(attention, ATTN_TOO_SMALL, "cache", ask_ring(&a.attention, ORDER_TOP_LEFT, 0));
    BAD(attention, ATTN_TOO_SMALL, "cache", ask_ring(&a.attention, ORDER_NONE, 0);
        a.attention.options.valid =
            (attn_valid_lens){.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = two_lens(RING_LEN, LOST)});
    GOOD(attention, ask_ring(&a.attention, ORDER_BOTTOM_RIGHT, WHOLE));
    GOOD(attention, ask_ring(&a.attention, ORDER_BOTTOM_RIGHT, RING_HOLDS); a.attention.q_len = 1);
    GOOD(attention, ask_ring(&a.attention, ORDER_BOTTOM_RIGHT, WHOLE + 1);
         a.attention.q_cu = packed(0, 0, Q_LEN - 1, Q_LEN));
    GOOD(attention, ask_ring(&a.attention, ORDER_BOTTOM_RIGHT, 0); a.attention.q_len = 1);
    GOOD(attention, ask_ring(&a.attention, ORDER_NONE, 0));
    GOOD(attention, ask_ring(&a.attention, ORDER_NONE, 0);
         a.attention.options.valid =
             (attn_valid_lens){.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = two_lens(LOST + 1, 0)});
    GOOD(attention, ask_ring(&a.attention, ORDER_BOTTOM_RIGHT, WHOLE + 1);
         a.attention.options.starts.i64 = arena.starts; arena.starts[0] = arena.starts[1] = LOST);
    GOOD(attention, ask_ring(&a.attention, ORDER_NONE, PTRDIFF_MAX); a.attention.cache = arena.cache);
}

/* One table entry too few for what is appended. */
static void test_append_to_pages(void **state) {
    (void)state;
    GOOD(cache_append, a.cache = arena.paged);
    GOOD(cache_append, a.cache = arena.paged; a.keys.len = PAGE - 1; a.keys.k.row_stride = a.keys.v.row_stride = 0);
    BAD(cache_append, ATTN_BAD_VALUE, "pages", a.cache = arena.paged);
    GOOD(cache_set_pages, a.cache = arena.paged; a.sequence = 0; a.first = 1; a.pages += 2);
    BAD(cache_append, ATTN_BAD_VALUE, "pages", a.cache = arena.paged);
    GOOD(cache_append, a.cache = arena.paged; a.keys.lens.i64 = two_lens(1, 0));
    BAD(cache_append, ATTN_BAD_VALUE, "pages", a.cache = arena.paged; a.keys.lens.i64 = two_lens(PAGE, 0);
        a.keys.len = PAGE; a.keys.k.row_stride = a.keys.v.row_stride = 0);
    BAD(cache_append, ATTN_TOO_SMALL, "len", a.cache = arena.paged; a.keys.len = PAGES * PAGE;
        a.keys.k.row_stride = a.keys.v.row_stride = 0);
}

static void layer_appends(function *call) {
    BAD(call, ATTN_NULL_POINTER, "layer", a.layer = NULL);
    BAD(call, ATTN_NULL_POINTER, "args", a.append_args = NULL);
    BAD(call, ATTN_NULL_POINTER, "cache", a.append.cache = NULL);
    BAD_SIZE(call, "len", append.len);
    BAD(call, ATTN_OVERFLOW, "len", a.append.len = PTRDIFF_MAX);
    BAD(call, ATTN_BAD_SIZE, "cu.total", a.append.cu = packed(0, 1, 2, SIZE_MAX));
    BAD(call, ATTN_BAD_VALUE, "cu.total", a.append.cu.total = 2);
    BAD(call, ATTN_BAD_VALUE, "rotary_offsets", a.append.rotary_offsets.i64 = arena.offsets);
    BAD(call, ATTN_MISMATCH, "rotary", a.append.rotary = arena.wide_rotary);
    BAD(call, ATTN_MISMATCH, "cache", a.append.cache = arena.cache);
    BAD(call, ATTN_NULL_POINTER, "parallel.run", a.parallel_value.run = NULL; a.append.parallel = &a.parallel_value);
}

static void test_layer_append(void **state) {
    (void)state;
    layer_appends(layer_append_workspace);
    layer_appends(layer_append);
    BAD(layer_append_workspace, ATTN_NULL_POINTER, "bytes", a.bytes_out = NULL);
    BAD(layer_append, ATTN_TOO_SMALL, "len", a.append.len = CAPACITY - KV_LEN + 1);
    BAD(layer_append, ATTN_NULL_POINTER, "k.data", a.append.k.data = NULL);
    BAD(layer_append, ATTN_NULL_POINTER, "v.data", a.append.v.data = NULL);
    BAD(layer_append, ATTN_BAD_STRIDE, "k.row_stride", a.append.len = 2; a.append.k.row_stride = KEY_WIDTH - 1);
    BAD(layer_append, ATTN_BAD_STRIDE, "v.row_stride", a.append.len = 2; a.append.v.row_stride = VALUE_WIDTH - 1);
    BAD(layer_append, ATTN_BAD_STRIDE, "k.batch_stride", a.append.k = (attn_tensor){arena.k, ATTN_F32, 0, 0, 0, 1});
    BAD(layer_append, ATTN_BAD_STRIDE, "v.batch_stride", a.append.v = (attn_tensor){arena.v, ATTN_F32, 0, 0, 0, 1});
    BAD(layer_append, ATTN_OVERFLOW, any_name, a.append.k.batch_stride = SIZE_MAX);
    BAD(layer_append, ATTN_OVERFLOW, any_name, a.append.v.batch_stride = SIZE_MAX / 2);
    BAD_APPEND_LENGTHS(layer_append, append);
    GOOD(layer_append, a.append.len = 0; a.append.k.data = a.append.v.data = NULL);
    BAD_MEMORY(layer_append, layer_append_workspace, "workspace", workspace);
    GOOD(layer_append, a.append.len = CAPACITY - KV_LEN - 1);
    BAD(layer_append, ATTN_TOO_SMALL, "len", (void)a);
}

/* ---- Lengths and pages ---- */

static void test_truncate(void **state) {
    (void)state;
    BAD(cache_truncate, ATTN_NULL_POINTER, "cache", a.cache = NULL);
    BAD(cache_truncate, ATTN_BAD_SIZE, "sequence", a.sequence = BATCH);
    BAD(cache_truncate, ATTN_BAD_SIZE, "sequence", a.sequence = PTRDIFF_MAX);
    BAD(cache_truncate, ATTN_BAD_SIZE, "len", a.len = KV_LEN + 1);
    BAD(cache_truncate, ATTN_BAD_SIZE, "len", a.len = SIZE_MAX);
    GOOD(cache_truncate, a.sequence = 0; a.len = 2);
    BAD(cache_truncate, ATTN_BAD_SIZE, "len", a.sequence = 0; a.len = 3);
    GOOD(cache_truncate, a.len = 3);
    assert_int_equal(2, attn_cache_length(arena.cache, 0));
    assert_int_equal(3, attn_cache_length(arena.cache, 1));
    GOOD(cache_truncate, a.len = 0);
    assert_int_equal(0, attn_cache_length(arena.cache, ATTN_ALL_SEQUENCES));
    BAD(cache_truncate, ATTN_BAD_SIZE, "len", a.len = 1);
    BAD(cache_truncate, ATTN_BAD_SIZE, "len", a.cache = arena.ring; a.len = RING_LEN + 1);
    BAD(cache_truncate, ATTN_BAD_SIZE, "len", a.cache = arena.ring; a.len = RING_LEN - RING_HOLDS - 1);
    BAD(cache_truncate, ATTN_BAD_SIZE, "len", a.cache = arena.ring; a.len = 0);
    GOOD(cache_truncate, a.cache = arena.ring; a.len = RING_LEN - 1);
}

static void test_lengths(void **state) {
    (void)state;
    assert_int_equal(0, attn_cache_length(NULL, 0));
    assert_int_equal(0, attn_cache_length(arena.cache, BATCH));
    assert_int_equal(0, attn_cache_length(arena.cache, PTRDIFF_MAX));
    assert_int_equal(KV_LEN, attn_cache_length(arena.cache, BATCH - 1));
    assert_int_equal(RING_LEN, attn_cache_length(arena.ring, ATTN_ALL_SEQUENCES));
}

#define BAD_PAGED_SEQUENCE(call)                                                                                       \
    do {                                                                                                               \
        BAD(call, ATTN_NULL_POINTER, "cache", a.cache = NULL);                                                         \
        BAD(call, ATTN_BAD_SIZE, "cache", a.sequence = 0);                                                             \
        BAD(call, ATTN_BAD_SIZE, "cache", a.sequence = 0; a.cache = arena.ring);                                       \
        BAD(call, ATTN_BAD_SIZE, "sequence", a.cache = arena.paged; a.sequence = BATCH);                               \
        BAD(call, ATTN_BAD_SIZE, "sequence", a.cache = arena.paged; a.sequence = ATTN_ALL_SEQUENCES);                  \
    } while (0)

#define BAD_PAGES(expected, name, spoil)                                                                               \
    BAD(cache_set_pages, expected, name, a.cache = arena.paged; a.sequence = 0; spoil)
#define GOOD_PAGES(spoil) GOOD(cache_set_pages, a.cache = arena.paged; a.sequence = 0; spoil)

static void test_set_pages(void **state) {
    (void)state;
    BAD_PAGED_SEQUENCE(cache_set_pages);
    BAD_PAGES(ATTN_BAD_SIZE, "first", a.first = PAGES + 1);
    BAD_PAGES(ATTN_BAD_SIZE, "first", a.first = SIZE_MAX);
    BAD_PAGES(ATTN_BAD_SIZE, "count", a.count = PAGES + 1);
    BAD_PAGES(ATTN_BAD_SIZE, "count", a.first = 1; a.count = PAGES);
    BAD_PAGES(ATTN_BAD_SIZE, "count", a.first = 1; a.count = SIZE_MAX);
    BAD_PAGES(ATTN_BAD_SIZE, "count", a.first = PAGES);
    BAD_PAGES(ATTN_NULL_POINTER, "pages", a.pages = NULL);
    BAD_PAGES(ATTN_BAD_VALUE, "pages", a.count = PAGES; arena.pages[PAGES - 1] = PAGES);
    BAD_PAGES(ATTN_BAD_VALUE, "pages", a.count = PAGES; arena.pages[PAGES - 1] = -1);
    BAD_PAGES(ATTN_BAD_VALUE, "pages", a.count = PAGES; arena.pages[PAGES - 1] = INT32_MIN);
    BAD_PAGES(ATTN_BAD_VALUE, "pages", a.count = PAGES; arena.pages[PAGES - 1] = INT32_MAX);
    arena.pages[PAGES - 1] = PAGES - 1;
    GOOD_PAGES(a.count = PAGES);
    GOOD_PAGES(a.first = PAGES - 1);
    GOOD_PAGES(a.count = 0; a.pages = NULL);
    GOOD_PAGES(a.first = PAGES; a.count = 0);
}

static void test_adopt(void **state) {
    (void)state;
    BAD_PAGED_SEQUENCE(cache_adopt);
    BAD(cache_adopt, ATTN_BAD_SIZE, "len", a.cache = arena.paged; a.sequence = 0; a.len = PAGES * PAGE + 1);
    BAD(cache_adopt, ATTN_BAD_SIZE, "len", a.cache = arena.paged; a.sequence = 0; a.len = SIZE_MAX);
    BAD(cache_adopt, ATTN_BAD_VALUE, "pages", a.cache = arena.paged; a.sequence = 0; a.len = PAGE + 1);
    GOOD(cache_adopt, a.cache = arena.paged; a.sequence = 0; a.len = PAGE);
    GOOD(cache_adopt, a.cache = arena.paged; a.sequence = 1; a.len = PAGE - 3);
    assert_int_equal(PAGE, attn_cache_length(arena.paged, 0));
    assert_int_equal(PAGE - 3, attn_cache_length(arena.paged, 1));
    GOOD(cache_adopt, a.cache = arena.paged; a.sequence = 0; a.len = 0);
    assert_int_equal(0, attn_cache_length(arena.paged, 0));
    GOOD(cache_set_pages, a.cache = arena.paged; a.sequence = 0; a.first = 0; a.count = PAGES);
    GOOD(cache_adopt, a.cache = arena.paged; a.sequence = 0; a.len = PAGES * PAGE);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_other_isa, set_up),
        cmocka_unit_test_setup(test_other_arithmetic, set_up),
        cmocka_unit_test_setup(test_creation, set_up),
        cmocka_unit_test_setup(test_scales, set_up),
        cmocka_unit_test_setup(test_fork, set_up),
        cmocka_unit_test_setup(test_append, set_up),
        cmocka_unit_test_setup(test_append_to_ring, set_up),
        cmocka_unit_test_setup(test_attention_over_ring, set_up),
        cmocka_unit_test_setup(test_append_to_pages, set_up),
        cmocka_unit_test_setup(test_layer_append, set_up),
        cmocka_unit_test_setup(test_truncate, set_up),
        cmocka_unit_test_setup(test_lengths, set_up),
        cmocka_unit_test_setup(test_set_pages, set_up),
        cmocka_unit_test_setup(test_adopt, set_up),
    };
    return test_run(tests);
}
