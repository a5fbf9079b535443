/* What follows from sizes: what a workspace serves, what bounds of packed sequences cost, and masks without keys. */
#include "random_options.h"

static size_t sweep(size_t full, size_t quick) {
    return test_quick() ? quick : full;
}

/* A pool of this thread alone. */
static void run_here(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count) {
    (void)context;
    for (size_t i = 0; i < count; i++)
        task(arg, i);
}

/* ---- Sizes ---- */

/* What may be lowered; the totals are 0 where sequences are not packed. */
struct sizes {
    size_t batch, q_len, kv_len, q_total, kv_total;
};

/* From 1 to `most`, small numbers as often as large ones. */
static size_t log_uniform(struct test_random *random, size_t most) {
    size_t bits = 0;
    while (most >> bits > 1)
        bits++;
    size_t n = random_between(random, 1, (size_t)2 << random_below(random, bits + 1));
    return n < most ? n : most;
}

static size_t lowered(struct test_random *random, size_t n) {
    switch (random_below(random, 6)) {
    case 0:
        return 0;
    case 1:
        return n < 40 ? n : random_below(random, 40);
    case 2:
    case 3:
        return random_below(random, n + 1);
    default:
        return n;
    }
}

static struct sizes lower(struct test_random *random, const struct sizes *s) {
    return (struct sizes){lowered(random, s->batch), lowered(random, s->q_len), lowered(random, s->kv_len),
                          lowered(random, s->q_total), lowered(random, s->kv_total)};
}

static void say(const char *what, const struct sizes *s, const struct sizes *low, size_t threads, size_t bytes,
                const attn_options *options) {
    test_case(
        "%s: batch=%zu q_len=%zu kv_len=%zu totals=%zu,%zu threads=%zu: %zu bytes; batch=%zu q_len=%zu kv_len=%zu "
        "totals=%zu,%zu %s",
        what, s->batch, s->q_len, s->kv_len, s->q_total, s->kv_total, threads, bytes, low->batch, low->q_len,
        low->kv_len, low->q_total, low->kv_total, options_text(options));
}

/* ---- Workspaces, by their sizes alone ---- */

/* Pointers that a query does not follow. */
static const int64_t some_lens[1];
static const float some_floats[1];
static float some_outputs[1];
static const uint8_t some_bytes[1];

static attn_options any_options(struct test_random *random, const attn_rotary *rotary) {
    attn_options o = {0};
    if (random_below(random, 2)) /* none: the small path */
        return o;
    o.starts.i64 = random_below(random, 4) ? NULL : some_lens;
    set_order(&o, (enum order)random_below(random, 4));
    o.window_left = random_below(random, 4) ? 0 : 30;
    if (random_below(random, 4) == 0) {
        o.mask = (attn_tensor){some_bytes, ATTN_BOOL, 0, 0, 0, 1 + random_below(random, 2)};
        o.mask_hides = random_below(random, 2) == 0;
    }
    if (random_below(random, 4) == 0)
        o.bias = (attn_tensor){some_floats, ATTN_F32, 0, 0, 0, 1 + random_below(random, 2)};
    o.alibi = random_below(random, 4) ? NULL : some_floats;
    o.sinks = random_below(random, 4) ? NULL : some_floats;
    o.soft_cap = random_below(random, 4) ? 0 : 3;
    o.empty = random_below(random, 4) ? ATTN_EMPTY_ZERO : ATTN_EMPTY_MEAN;
    o.rotary = random_below(random, 3) ? NULL : rotary;
    o.dropout = random_below(random, 4) ? 0 : 0.5f;
    o.weights.data = random_below(random, 4) ? NULL : some_outputs;
    o.scores.data = random_below(random, 4) ? NULL : some_outputs;
    o.log_sum_exp.data = random_below(random, 4) ? NULL : some_outputs;
    return o;
}

static attn_cu_lens cu_of(size_t total, int packed) {
    return (attn_cu_lens){.cu.i64 = packed ? some_lens : NULL, .total = packed ? total : 0};
}

/* Bytes for the sizes, or SIZE_MAX where they do not fit. */
static size_t attention_bytes(attn_attention_args args, const struct sizes *s, unsigned packed) {
    size_t bytes = SIZE_MAX;
    args.batch = s->batch;
    args.q_len = s->q_len;
    args.kv_len = s->kv_len;
    args.q_cu = cu_of(s->q_total, packed & 1);
    args.kv_cu = cu_of(s->kv_total, packed & 2);
    attn_status status = attn_attention_workspace(&args, &bytes, NULL);
    if (status != ATTN_OK)
        assert_status(ATTN_OVERFLOW, status);
    return bytes;
}

static size_t layer_bytes(const attn_layer *layer, attn_layer_args args, const struct sizes *s, unsigned packed) {
    size_t bytes = SIZE_MAX;
    args.batch = s->batch;
    args.q_len = s->q_len;
    args.kv_len = s->kv_len;
    args.q_cu = cu_of(s->q_total, packed & 1);
    args.kv_cu = cu_of(s->kv_total, packed & 2);
    attn_status status = attn_layer_workspace(layer, &args, &bytes, NULL);
    if (status != ATTN_OK)
        assert_status(ATTN_OVERFLOW, status);
    return bytes;
}

static struct sizes large_sizes(struct test_random *random) {
    size_t most = random_below(random, 8) ? 20000 : PTRDIFF_MAX / 2;
    struct sizes s = {log_uniform(random, 100), log_uniform(random, most), log_uniform(random, most), 0, 0};
    s.q_total = log_uniform(random, 2 * s.q_len);
    s.kv_total = log_uniform(random, 2 * s.kv_len);
    return s;
}

static void attention_needs_no_more_for_less(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    attn_parallel pool = {.run = run_here};
    void *memory;
    attn_rotary *rotary = draw_rotary(&random, 10, 8, &memory);
    for (size_t i = 0; i < sweep(50000, 5000); i++) {
        struct sizes s = large_sizes(&random);
        size_t group = random_between(&random, 1, 4), kv_heads = log_uniform(&random, 16);
        unsigned packed = random_below(&random, 2) ? (unsigned)random_below(&random, 4) : 0;
        attn_attention_args args = {.isa = test_isa(), .heads = group * kv_heads, .kv_heads = kv_heads};
        args.head_size = 7 + log_uniform(&random, 200); /* no smaller than what the rotary table rotates */
        args.value_size = random_below(&random, 2) ? 0 : log_uniform(&random, 200);
        args.v.row_stride = args.value_size ? args.value_size : args.head_size;
        pool.threads = random_between(&random, 1, 9);
        args.options = any_options(&random, rotary);
        args.parallel = &pool;
        size_t bytes = attention_bytes(args, &s, packed);
        for (size_t j = 0; j < 4; j++) {
            struct sizes low = lower(&random, &s);
            say("attention", &s, &low, pool.threads, bytes, &args.options);
            assert_in_range(attention_bytes(args, &low, packed), 0, bytes);
        }
    }
    guarded_free(memory);
}

static struct layer_weights draw_layer(struct test_random *random) {
    size_t kv_heads = random_between(random, 1, 3), heads = kv_heads * random_between(random, 1, 3);
    attn_layer_config config = {.isa = test_isa(), .heads = heads, .kv_heads = kv_heads};
    random_layer_sizes(random, &config, random_between(random, 2, 20));
    config.query_width =
        random_below(random, 2) ? config.heads * layer_sizes_of(&config).head_size : random_between(random, 1, 40);
    config.key_width = random_below(random, 2) ? config.query_width : random_between(random, 1, 40);
    config.value_width = random_below(random, 2) ? config.key_width : random_between(random, 1, 40);
    return layer_weights_new(random, &config, (unsigned)random_below(random, 16));
}

static void layer_needs_no_more_for_less(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    attn_parallel pool = {.run = run_here};
    void *memory, *rotary_memory;
    attn_rotary *rotary = draw_rotary(&random, 10, 2, &rotary_memory);
    for (size_t i = 0; i < sweep(1000, 50); i++) {
        struct layer_weights w = draw_layer(&random);
        attn_layer *layer = layer_create(&w.config, &memory, FLUSH_END);
        for (size_t j = 0; j < 50; j++) {
            struct sizes s = large_sizes(&random);
            unsigned packed = random_below(&random, 2) ? (unsigned)random_below(&random, 4) : 0;
            pool.threads = random_between(&random, 1, 9);
            attn_layer_args args = {.options = any_options(&random, rotary), .parallel = &pool};
            size_t bytes = layer_bytes(layer, args, &s, packed);
            for (size_t k = 0; k < 4; k++) {
                struct sizes low = lower(&random, &s);
                say("layer", &s, &low, pool.threads, bytes, &args.options);
                assert_in_range(layer_bytes(layer, args, &low, packed), 0, bytes);
            }
        }
        layer_weights_free(&w);
        guarded_free(memory);
    }
    guarded_free(rotary_memory);
}

/* ---- Workspaces that are used ---- */

enum { MOST_BATCH = 3 };

/* Sizes that take little time, now and then enough work for several tasks or several spans. */
static struct sizes used_sizes(struct test_random *random, size_t index) {
    struct sizes s = {random_between(random, 1, MOST_BATCH), random_between(random, 1, 20),
                      random_between(random, 1, 50), 0, 0};
    if (index % 4 == 1) {
        s.q_len = random_between(random, 20, 100);
        s.kv_len = random_between(random, 50, 300);
    }
    if (index % 16 == 3) {
        s.batch = 1;
        s.q_len = random_between(random, 1, 5);
        s.kv_len = random_between(random, 4000, 9000);
    }
    s.q_total = s.batch * s.q_len;
    s.kv_total = s.batch * s.kv_len;
    return s;
}

/* Sequences of at most `len` rows each, `total` rows together. */
static attn_cu_lens draw_cu(struct test_random *random, int packed, size_t batch, size_t len, size_t total,
                            int64_t cu[MOST_BATCH + 1]) {
    cu[0] = 0;
    for (size_t b = 0; b < batch; b++) {
        size_t left = total - (size_t)cu[b], most = len < left ? len : left;
        cu[b + 1] = cu[b] + (int64_t)(random_below(random, 3) ? most : random_below(random, most + 1));
    }
    return (attn_cu_lens){.cu.i64 = packed ? cu : NULL, .total = packed ? total : 0};
}

/* A table with the positions of every query and key of such a problem, whatever the options. */
static attn_rotary *draw_used_rotary(struct test_random *random, const struct sizes *s, size_t head_size,
                                     int64_t offsets[MOST_BATCH], void **memory) {
    for (size_t b = 0; b < MOST_BATCH; b++)
        offsets[b] = (int64_t)(s->q_len + s->kv_len);
    *memory = NULL;
    return random_below(random, 3) ? NULL : draw_rotary(random, 4 * (s->q_len + s->kv_len), head_size, memory);
}

/* Options with all that they point to, also outputs. */
struct used_options {
    struct drawn_options drawn;
    attn_parallel pool;
    void *rotary_memory;
    int64_t offsets[MOST_BATCH];
    float *weights, *scores, *log_sum_exp;
    int plain;
};

static attn_options use_options(struct test_random *random, struct used_options *used, const struct sizes *s,
                                size_t heads, size_t head_size) {
    size_t rows = s->batch * heads * s->q_len;
    *used = (struct used_options){.pool = {.run = run_here, .threads = random_between(random, 1, 4)}};
    used->drawn = draw_options(random, s->batch, heads, s->q_len, s->kv_len);
    attn_options o = used->drawn.options;
    if (random_below(random, 3) == 0)
        o = (attn_options){.causal = o.causal,
                           .position = o.position == ATTN_POSITION_VALID_END ? ATTN_POSITION_TOP_LEFT : o.position,
                           .position_offset = o.position_offset,
                           .position_offsets = o.position_offsets};
    o.rotary = draw_used_rotary(random, s, head_size, used->offsets, &used->rotary_memory);
    o.rotary_offsets.i64 = o.rotary ? used->offsets : NULL;
    if (random_below(random, 4) == 0)
        o.weights.data = used->weights = guarded_floats(rows * s->kv_len, FLUSH_END);
    if (random_below(random, 4) == 0)
        o.scores.data = used->scores = guarded_floats(rows * s->kv_len, FLUSH_END);
    if (random_below(random, 4) == 0)
        o.log_sum_exp.data = used->log_sum_exp = guarded_floats(rows, FLUSH_END);
    return o;
}

static void used_options_free(struct used_options *used) {
    drawn_options_free(&used->drawn);
    guarded_free(used->rotary_memory);
    guarded_free(used->weights);
    guarded_free(used->scores);
    guarded_free(used->log_sum_exp);
}

/* [batch, heads, len, size], or what packed sequences have in place of it: as many floats. */
static attn_tensor tensor_of(const struct tensor *t, int packed) {
    return packed ? (attn_tensor){t->data, ATTN_F32, 0, t->size, t->heads * t->size, 1} : tensor_in(t);
}

static void attention_runs_in_what_serves_more(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(700, 100); i++) {
        struct sizes s = used_sizes(&random, i);
        struct used_options used;
        int packed = random_below(&random, 3) ? 0 : (int)random_between(&random, 1, 3);
        size_t kv_heads = random_between(&random, 1, 2), heads = kv_heads * random_between(&random, 1, 3);
        attn_attention_args args = {.isa = test_isa(), .heads = heads, .kv_heads = kv_heads};
        int64_t q_cu[MOST_BATCH + 1], kv_cu[MOST_BATCH + 1];
        args.head_size = random_between(&random, 1, 40);
        args.value_size = random_below(&random, 2) ? args.head_size : random_between(&random, 1, 40);
        args.options = use_options(&random, &used, &s, heads, args.head_size);
        args.parallel = &used.pool;
        struct tensor q =
            tensor_random(&random, TEST_NORMAL, LAYOUT_BSHD, s.batch, heads, s.q_len, args.head_size, FLUSH_END);
        struct tensor k =
            tensor_random(&random, TEST_NORMAL, LAYOUT_BSHD, s.batch, kv_heads, s.kv_len, args.head_size, FLUSH_END);
        struct tensor v =
            tensor_random(&random, TEST_NORMAL, LAYOUT_BSHD, s.batch, kv_heads, s.kv_len, args.value_size, FLUSH_END);
        struct tensor o = tensor_new(LAYOUT_BSHD, s.batch, heads, s.q_len, args.value_size, FLUSH_END);
        attn_tensor out = tensor_of(&o, packed & 1);
        args.q = tensor_of(&q, packed & 1);
        args.k = tensor_of(&k, packed & 2);
        args.v = tensor_of(&v, packed & 2);
        args.o = (attn_tensor_out){o.data, ATTN_F32, out.batch_stride, out.head_stride, out.row_stride, 1};
        size_t bytes = attention_bytes(args, &s, (unsigned)packed);
        void *workspace = guarded_alloc(bytes, ATTN_ALIGNMENT, FLUSH_END);
        for (size_t j = 0; j < 4; j++) {
            struct sizes low = j ? lower(&random, &s) : s;
            attn_error error = {.field = "none"};
            args.batch = low.batch;
            args.q_len = low.q_len;
            args.kv_len = low.kv_len;
            args.q_cu = draw_cu(&random, packed & 1, low.batch, low.q_len, low.q_total, q_cu);
            args.kv_cu = draw_cu(&random, packed & 2, low.batch, low.kv_len, low.kv_total, kv_cu);
            say("attention", &s, &low, used.pool.threads, bytes, &args.options);
            assert_ok(attn_attention(&args, workspace, bytes, &error));
            assert_string_equal("none", error.field);
        }
        guarded_free(workspace);
        tensor_free(&q);
        tensor_free(&k);
        tensor_free(&v);
        tensor_free(&o);
        used_options_free(&used);
    }
}

/* A cache of up to `capacity` keys, half of which sequences have when it is empty: a fork, or the cache itself. */
struct holder {
    attn_cache *cache;
    void *memory, *fork_memory;
};

static struct holder holder_new(struct test_random *random, const attn_cache_config *config) {
    struct holder h = {0};
    attn_cache_fork_config fork = {.batch = config->batch, .capacity = config->capacity};
    size_t bytes = 0;
    fork.parent = h.cache = cache_create(config, &h.memory, FLUSH_END);
    if (random_below(random, 2))
        return h;
    assert_ok(attn_cache_fork_size(&fork, &bytes, NULL));
    h.fork_memory = guarded_alloc(bytes, ATTN_ALIGNMENT, FLUSH_END);
    assert_ok(attn_cache_fork(&fork, h.fork_memory, bytes, &h.cache, NULL));
    return h;
}

static void holder_free(struct holder *h) {
    guarded_free(h->fork_memory);
    guarded_free(h->memory);
}

/* What an empty cache says is enough for any of its lengths, and for fewer query rows. */
static void attention_over_a_cache_runs_in_what_serves_more(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(250, 50); i++) {
        struct sizes s = used_sizes(&random, i);
        struct used_options used;
        int packed = random_below(&random, 2) != 0;
        size_t kv_heads = random_between(&random, 1, 2), heads = kv_heads * random_between(&random, 1, 3);
        attn_cache_config config = {.isa = test_isa(), .batch = s.batch, .kv_heads = kv_heads, .capacity = s.kv_len};
        attn_attention_args args = {.isa = test_isa(), .batch = s.batch, .heads = heads, .kv_heads = kv_heads};
        int64_t q_cu[MOST_BATCH + 1], lens[MOST_BATCH];
        config.head_size = args.head_size = random_between(&random, 1, 40);
        config.value_size = args.value_size = random_between(&random, 1, 40);
        struct holder holder = holder_new(&random, &config);
        args.cache = holder.cache;
        args.options = use_options(&random, &used, &s, heads, args.head_size);
        args.parallel = &used.pool;
        struct tensor q =
            tensor_random(&random, TEST_NORMAL, LAYOUT_BSHD, s.batch, heads, s.q_len, args.head_size, FLUSH_END);
        struct tensor k =
            tensor_random(&random, TEST_NORMAL, LAYOUT_BSHD, s.batch, kv_heads, s.kv_len, args.head_size, FLUSH_END);
        struct tensor v =
            tensor_random(&random, TEST_NORMAL, LAYOUT_BSHD, s.batch, kv_heads, s.kv_len, args.value_size, FLUSH_END);
        struct tensor o = tensor_new(LAYOUT_BSHD, s.batch, heads, s.q_len, args.value_size, FLUSH_END);
        attn_tensor out = tensor_of(&o, packed);
        args.q = tensor_of(&q, packed);
        args.o = (attn_tensor_out){o.data, ATTN_F32, out.batch_stride, out.head_stride, out.row_stride, 1};
        args.q_len = s.q_len;
        args.q_cu = cu_of(s.q_total, packed);
        size_t bytes = 0;
        assert_ok(attn_attention_workspace(&args, &bytes, NULL));
        void *workspace = guarded_alloc(bytes, ATTN_ALIGNMENT, FLUSH_END);
        for (size_t j = 0; j < 4; j++) {
            struct sizes low = j ? lower(&random, &s) : s;
            attn_cache_append_args append = {.len = s.kv_len, .lens.i64 = lens, .k = tensor_in(&k), .v = tensor_in(&v)};
            attn_error error = {.field = "none"};
            for (size_t b = 0; b < s.batch; b++)
                lens[b] = (int64_t)(b ? random_below(&random, low.kv_len + 1) : low.kv_len);
            assert_ok(attn_cache_truncate(holder.cache, ATTN_ALL_SEQUENCES, 0, NULL));
            assert_ok(attn_cache_append(holder.cache, &append, NULL));
            low.batch = s.batch;
            args.q_len = low.q_len;
            args.q_cu = draw_cu(&random, packed, low.batch, low.q_len, low.q_total, q_cu);
            say("attention over a cache", &s, &low, used.pool.threads, bytes, &args.options);
            assert_ok(attn_attention(&args, workspace, bytes, &error));
            assert_string_equal("none", error.field);
        }
        guarded_free(workspace);
        tensor_free(&q);
        tensor_free(&k);
        tensor_free(&v);
        tensor_free(&o);
        used_options_free(&used);
        holder_free(&holder);
    }
}

/* [batch, len, size], or what packed sequences have in place of it. */
static attn_tensor rows_of(const struct tensor *t, int packed) {
    return (attn_tensor){t->data, ATTN_F32, packed ? 0 : t->batch_stride, 0, t->row_stride, 1};
}

static struct tensor random_rows(struct test_random *random, size_t batch, size_t len, size_t size) {
    return tensor_random(random, TEST_NORMAL, LAYOUT_BHSD, batch, 1, len, size, FLUSH_END);
}

static void layer_runs_in_what_serves_more(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(500, 70); i++) {
        struct sizes s = used_sizes(&random, i % 16 == 3 && i % 64 != 3 ? 0 : i);
        struct layer_weights w = draw_layer(&random);
        struct used_options used;
        void *memory;
        int packed = random_below(&random, 3) ? 0 : (int)random_between(&random, 1, 3);
        attn_layer *layer = layer_create(&w.config, &memory, FLUSH_END);
        attn_layer_args args = {0};
        int64_t q_cu[MOST_BATCH + 1], kv_cu[MOST_BATCH + 1];
        args.options = use_options(&random, &used, &s, w.config.heads, layer_sizes_of(&w.config).head_size);
        args.parallel = &used.pool;
        struct tensor q = random_rows(&random, s.batch, s.q_len, w.config.query_width);
        struct tensor k = random_rows(&random, s.batch, s.kv_len, w.config.key_width);
        struct tensor v = random_rows(&random, s.batch, s.kv_len, w.config.value_width);
        struct tensor y = tensor_new(LAYOUT_BHSD, s.batch, 1, s.q_len, layer_sizes_of(&w.config).out_size, FLUSH_END);
        args.q = rows_of(&q, packed & 1);
        args.k = rows_of(&k, packed & 2);
        args.v = rows_of(&v, packed & 2);
        args.y = (attn_tensor_out){y.data, ATTN_F32, packed & 1 ? 0 : y.batch_stride, 0, y.row_stride, 1};
        size_t bytes = layer_bytes(layer, args, &s, (unsigned)packed);
        void *workspace = guarded_alloc(bytes, ATTN_ALIGNMENT, FLUSH_END);
        for (size_t j = 0; j < 4; j++) {
            struct sizes low = j ? lower(&random, &s) : s;
            attn_error error = {.field = "none"};
            args.batch = low.batch;
            args.q_len = low.q_len;
            args.kv_len = low.kv_len;
            args.q_cu = draw_cu(&random, packed & 1, low.batch, low.q_len, low.q_total, q_cu);
            args.kv_cu = draw_cu(&random, packed & 2, low.batch, low.kv_len, low.kv_total, kv_cu);
            say("layer", &s, &low, used.pool.threads, bytes, &args.options);
            assert_ok(attn_layer_forward(layer, &args, workspace, bytes, &error));
            assert_string_equal("none", error.field);
        }
        guarded_free(workspace);
        tensor_free(&q);
        tensor_free(&k);
        tensor_free(&v);
        tensor_free(&y);
        used_options_free(&used);
        layer_weights_free(&w);
        guarded_free(memory);
    }
}

/* Appending, and a forward over what there is then: each in the workspace that its largest call was to have. */
static void layer_over_a_cache_runs_in_what_serves_more(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(250, 40); i++) {
        struct sizes s = used_sizes(&random, i % 4);
        struct layer_weights w = draw_layer(&random);
        struct used_options used;
        void *memory;
        int packed = random_below(&random, 2) ? 0 : (int)random_between(&random, 1, 3);
        attn_layer *layer = layer_create(&w.config, &memory, FLUSH_END);
        attn_cache_config config = {0};
        int64_t q_cu[MOST_BATCH + 1], kv_cu[MOST_BATCH + 1];
        assert_ok(attn_layer_cache_config(layer, s.batch, s.kv_len, &config, NULL));
        struct holder holder = holder_new(&random, &config);
        struct tensor q = random_rows(&random, s.batch, s.q_len, w.config.query_width);
        struct tensor k = random_rows(&random, s.batch, s.kv_len, w.config.key_width);
        struct tensor v = random_rows(&random, s.batch, s.kv_len, w.config.value_width);
        struct tensor y = tensor_new(LAYOUT_BHSD, s.batch, 1, s.q_len, layer_sizes_of(&w.config).out_size, FLUSH_END);
        attn_layer_args args = {.batch = s.batch, .q_len = s.q_len, .cache = holder.cache};
        attn_layer_append_args append = {.len = s.kv_len, .cache = holder.cache};
        args.options = use_options(&random, &used, &s, w.config.heads, layer_sizes_of(&w.config).head_size);
        args.parallel = &used.pool;
        append.parallel = args.parallel;
        args.q = rows_of(&q, packed & 1);
        args.y = (attn_tensor_out){y.data, ATTN_F32, packed & 1 ? 0 : y.batch_stride, 0, y.row_stride, 1};
        append.k = rows_of(&k, packed & 2);
        append.v = rows_of(&v, packed & 2);
        args.q_cu = cu_of(s.q_total, packed & 1);
        append.cu = cu_of(s.kv_total, packed & 2);
        size_t bytes = 0, append_bytes = 0;
        assert_ok(attn_layer_workspace(layer, &args, &bytes, NULL));
        assert_ok(attn_layer_append_workspace(layer, &append, &append_bytes, NULL));
        void *workspace = guarded_alloc(bytes, ATTN_ALIGNMENT, FLUSH_END);
        void *append_workspace = guarded_alloc(append_bytes, ATTN_ALIGNMENT, FLUSH_END);
        for (size_t j = 0; j < 4; j++) {
            struct sizes low = j ? lower(&random, &s) : s;
            attn_error error = {.field = "none"};
            low.batch = s.batch;
            args.q_len = low.q_len;
            append.len = low.kv_len;
            args.q_cu = draw_cu(&random, packed & 1, low.batch, low.q_len, low.q_total, q_cu);
            append.cu = draw_cu(&random, packed & 2, low.batch, low.kv_len, low.kv_total, kv_cu);
            say("layer over a cache", &s, &low, used.pool.threads, bytes, &args.options);
            assert_ok(attn_cache_truncate(holder.cache, ATTN_ALL_SEQUENCES, 0, NULL));
            assert_ok(attn_layer_append(layer, &append, append_workspace, append_bytes, &error));
            assert_ok(attn_layer_forward(layer, &args, workspace, bytes, &error));
            assert_string_equal("none", error.field);
        }
        guarded_free(workspace);
        guarded_free(append_workspace);
        tensor_free(&q);
        tensor_free(&k);
        tensor_free(&v);
        tensor_free(&y);
        used_options_free(&used);
        holder_free(&holder);
        layer_weights_free(&w);
        guarded_free(memory);
    }
}

static void no_key_needs_no_workspace(void **state) {
    (void)state;
    struct tensor q = tensor_new(LAYOUT_BHSD, 1, 1, 4, 8, FLUSH_END),
                  o = tensor_new(LAYOUT_BHSD, 1, 1, 4, 8, FLUSH_END);
    attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 1, .q_len = 4, .head_size = 8};
    float zeros[8] = {0};
    size_t bytes = 77;
    args.q = tensor_in(&q);
    args.o = tensor_out(&o);
    assert_ok(attn_attention_workspace(&args, &bytes, NULL));
    assert_int_equal(0, bytes);
    assert_ok(attn_attention(&args, NULL, 0, NULL));
    for (size_t i = 0; i < 4; i++)
        assert_same_bits(zeros, tensor_row(&o, 0, 0, i), 8);
    tensor_free(&q);
    tensor_free(&o);
}

/* ---- Bounds of packed sequences ---- */

#define LOOSE ((SIZE_MAX >> (sizeof(size_t) > 4 ? 24 : 12)) + 1)

/* The bounds of lengths are 2^40 (2^20 where sizes have 32 bits), the sequences have 4 and 0 rows: a loop up to the
 * bounds would not end, or leave the memory. Tensors may be said to hold as many rows as the bounds say: each query
 * and each key is the same row, and the output lies behind them. */
static void run_loosely(struct test_random *random, size_t threads, int loose_totals, size_t kv_len, int plain) {
    enum { ROWS = 4, HEADS = 6, SIZE = 40, WIDTH = HEADS * SIZE };
    static const int64_t q_cu[] = {0, ROWS, ROWS};
    const int64_t kv_cu[] = {0, (int64_t)kv_len, (int64_t)kv_len};
    attn_parallel pool = {.run = run_here, .threads = threads};
    size_t inputs = 2 * WIDTH, tight = 0, bytes = 0;
    attn_error error = {.field = "none"};
    float *all = guarded_floats(inputs + ROWS * WIDTH, FLUSH_END), *o = all + inputs, expected[ROWS * WIDTH];
    random_fill(random, TEST_NORMAL, all, inputs);
    attn_attention_args args = {.isa = test_isa(), .batch = 2, .heads = HEADS, .head_size = SIZE};
    args.options = (attn_options){.soft_cap = plain ? 0 : 3};
    args.parallel = &pool;
    args.q_len = ROWS;
    args.kv_len = kv_len;
    args.q_cu = (attn_cu_lens){.cu.i64 = q_cu, .total = ROWS};
    args.kv_cu = (attn_cu_lens){.cu.i64 = kv_cu, .total = kv_len};
    args.q = (attn_tensor){all, ATTN_F32, 0, SIZE, 0, 1};
    args.k = args.v = (attn_tensor){all + WIDTH, ATTN_F32, 0, SIZE, 0, 1};
    args.o = (attn_tensor_out){o, ATTN_F32, 0, SIZE, WIDTH, 1};
    assert_ok(attn_attention_workspace(&args, &tight, &error));
    void *workspace = guarded_alloc(tight, ATTN_ALIGNMENT, FLUSH_END);
    assert_ok(attn_attention(&args, workspace, tight, &error));
    memcpy(expected, o, sizeof expected);
    args.q_len = args.kv_len = LOOSE;
    assert_ok(attn_attention_workspace(&args, &bytes, &error));
    assert_int_equal(tight, bytes); /* no sequence has more rows than there are */
    if (loose_totals)
        args.q_cu.total = args.kv_cu.total = LOOSE;
    assert_ok(attn_attention(&args, workspace, tight, &error));
    assert_same_bits(expected, o, ROWS * WIDTH);
    guarded_free(workspace);
    guarded_free(all);
}

/* The same through a layer, which projects as many rows as there are. */
static void run_layer_loosely(struct test_random *random, size_t threads) {
    enum { ROWS = 4, SIZE = 8 };
    static const int64_t cu[] = {0, ROWS, ROWS};
    attn_parallel pool = {.run = run_here, .threads = threads};
    attn_layer_config config = {.isa = test_isa(), .heads = 2, .hidden = SIZE};
    config.query_width = config.key_width = config.value_width = SIZE;
    struct layer_weights w = layer_weights_new(random, &config, 0);
    void *memory;
    attn_layer *layer = layer_create(&w.config, &memory, FLUSH_END);
    struct tensor x = random_rows(random, 1, ROWS, SIZE), y = tensor_new(LAYOUT_BHSD, 1, 1, ROWS, SIZE, FLUSH_END);
    attn_layer_args args = {.batch = 2, .options.soft_cap = 3, .parallel = &pool};
    size_t tight = 0, bytes = 0;
    args.q_len = args.kv_len = ROWS;
    args.q_cu = args.kv_cu = (attn_cu_lens){.cu.i64 = cu, .total = ROWS};
    args.q = args.k = args.v = rows_of(&x, 1);
    args.y = tensor_rows_out(&y);
    assert_ok(attn_layer_workspace(layer, &args, &tight, NULL));
    args.q_len = args.kv_len = LOOSE;
    assert_ok(attn_layer_workspace(layer, &args, &bytes, NULL));
    assert_int_equal(tight, bytes);
    void *workspace = guarded_alloc(bytes, ATTN_ALIGNMENT, FLUSH_END);
    assert_ok(attn_layer_forward(layer, &args, workspace, bytes, NULL));
    guarded_free(workspace);
    tensor_free(&x);
    tensor_free(&y);
    guarded_free(memory);
    layer_weights_free(&w);
}

static void loose_bounds_cost_nothing(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const size_t kv_lens[] = {4, 20, 700, 9000};
    for (size_t threads = 1; threads <= 3; threads++)
        for (size_t i = 0; i < sizeof kv_lens / sizeof *kv_lens; i++)
            for (int plain = 0; plain < 2; plain++) {
                test_case("threads=%zu kv_len=%zu plain=%d", threads, kv_lens[i], plain);
                run_loosely(&random, threads, 0, kv_lens[i], plain);
                run_loosely(&random, threads, 1, kv_lens[i], plain);
            }
    for (size_t threads = 1; threads <= 3; threads++) {
        test_case("layer, threads=%zu", threads);
        run_layer_loosely(&random, threads);
    }
}

/* ---- No keys ---- */

/* The strides of masks without columns lead to no byte that is read, but they are multiplied: they are refused like
 * the strides of other masks. */
static void masks_without_keys_are_checked(void **state) {
    (void)state;
    static const uint8_t byte;
    static const float number;
    struct tensor q = tensor_new(LAYOUT_BHSD, 2, 1, 1, 4, FLUSH_END),
                  o = tensor_new(LAYOUT_BHSD, 2, 1, 1, 4, FLUSH_END);
    attn_attention_args args = {.isa = test_isa(), .batch = 2, .heads = 1, .q_len = 1, .head_size = 4};
    attn_error error = {.field = "none"};
    args.q = tensor_in(&q);
    args.o = tensor_out(&o);
    args.options.mask = (attn_tensor){&byte, ATTN_BOOL, SIZE_MAX, 0, 0, 1};
    size_t bytes = 0;
    assert_ok(attn_attention_workspace(&args, &bytes, NULL));
    void *workspace = guarded_alloc(bytes, ATTN_ALIGNMENT, FLUSH_END);
    assert_status(ATTN_OVERFLOW, attn_attention(&args, workspace, bytes, &error));
    assert_string_equal("options.mask", error.field);
    args.options.mask = (attn_tensor){0};
    args.options.bias = (attn_tensor){&number, ATTN_F32, SIZE_MAX / 2, 0, 0, 1};
    assert_status(ATTN_OVERFLOW, attn_attention(&args, workspace, bytes, &error));
    assert_string_equal("options.bias", error.field);
    assert_true(is_untouched(o.data));
    /* Nothing of them is read, so that they may be where the output is. */
    args.options.bias = (attn_tensor){o.data, ATTN_F32, 1, 1, 1, 1};
    args.options.mask = (attn_tensor){(const uint8_t *)o.data, ATTN_BOOL, 1, 1, 1, 1};
    assert_ok(attn_attention(&args, workspace, bytes, &error));
    guarded_free(workspace);
    tensor_free(&q);
    tensor_free(&o);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_needs_no_more_for_less),
        cmocka_unit_test(layer_needs_no_more_for_less),
        cmocka_unit_test(attention_runs_in_what_serves_more),
        cmocka_unit_test(attention_over_a_cache_runs_in_what_serves_more),
        cmocka_unit_test(layer_runs_in_what_serves_more),
        cmocka_unit_test(layer_over_a_cache_runs_in_what_serves_more),
        cmocka_unit_test(no_key_needs_no_workspace),
        cmocka_unit_test(loose_bounds_cost_nothing),
        cmocka_unit_test(masks_without_keys_are_checked),
    };
    return test_run(tests);
}
