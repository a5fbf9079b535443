/* Everything that attention can do, through the layer: its bits are those of the parts put together by hand,
 * projections with attn_gemm, attention with attn_attention, keys and values from tensors or from any kind of cache.
 * Weights, rows, projected keys and values, and caches have types at random. */
#include "random_options.h"
#include "typed.h"

enum { MOST_SEQUENCES = 3, MOST_ROWS = 24, PAGE = 16 };

static size_t sweep(size_t full, size_t quick) {
    return test_quick() ? quick : full;
}

/* Where keys and values come from. */
enum source { TENSORS, PACKED, PLAIN_CACHE, RING_CACHE, PAGED_CACHE, FORKED_CACHE, SOURCES };

static const char *const source_names[] = {"tensors", "packed tensors", "a cache", "a ring", "pages", "a fork"};

/* ---- By hand ---- */

/* y = x W + b for each row of x, [batch, 1, len, in], in floats. */
static struct tensor project(const attn_linear *linear, size_t out, const struct tensor *x) {
    attn_gemm_config config = {.isa = test_isa(), .k = x->size, .n = out, .w = *linear};
    struct tensor y = tensor_new(LAYOUT_BHSD, x->batch, 1, x->len, out, FLUSH_END);
    attn_gemm *gemm = NULL;
    size_t bytes = 0;
    assert_ok(attn_gemm_size(&config, &bytes, NULL));
    void *memory = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_gemm_create(&config, memory, bytes, &gemm, NULL));
    attn_gemm_run_args args = {.m = x->len};
    assert_ok(attn_gemm_workspace(gemm, &args, &args.workspace_bytes, NULL));
    args.workspace = args.workspace_bytes ? poisoned_alloc(args.workspace_bytes, FLUSH_END) : NULL;
    for (size_t b = 0; b < x->batch; b++) {
        args.x = (attn_tensor){.data = tensor_row(x, b, 0, 0), .row_stride = x->row_stride};
        args.y = (attn_tensor_out){.data = tensor_row(&y, b, 0, 0), .row_stride = y.row_stride};
        assert_ok(attn_gemm_run(gemm, &args, NULL));
    }
    guarded_free(args.workspace);
    guarded_free(memory);
    return y;
}

/* The heads in rows of [batch, 1, len, heads * head_size]. */
static attn_tensor split(const struct tensor *rows, size_t head_size) {
    return (attn_tensor){rows->data, ATTN_F32, rows->batch_stride, head_size, rows->row_stride, 1};
}

/* ---- Problems ---- */

struct problem {
    struct layer_weights weights;
    attn_layer *layer;
    struct layer_sizes sizes;
    enum source source;
    attn_layer_args args;
    struct tensor q, k, v; /* the same numbers as floats */
    attn_type y_type, cache_type;
    struct drawn_options drawn;
    int64_t q_cu[MOST_SEQUENCES + 1], kv_cu[MOST_SEQUENCES + 1], offsets[MOST_SEQUENCES];
    void *memory[16];
    size_t memories;
    attn_cache *cache, *by_hand; /* filled by the layer, and by attn_cache_append */
};

static attn_layer_config random_config(struct test_random *random, size_t index) {
    static const size_t head_sizes[] = {2, 3, 8, 15, 16, 17, 20, 32};
    attn_layer_config config = {.isa = test_isa()};
    size_t kv_heads = random_between(random, 1, 3);
    config.heads = kv_heads * random_between(random, 1, 3);
    config.kv_heads = config.heads == kv_heads && random_below(random, 2) ? 0 : kv_heads;
    random_layer_sizes(random, &config, head_sizes[index % (sizeof head_sizes / sizeof *head_sizes)]);
    config.query_width = random_between(random, 1, 40);
    config.key_width = random_between(random, 1, 40);
    config.value_width = random_between(random, 1, 40);
    config.scale = random_below(random, 4) ? 0 : random_uniform(random, -1.0f, 1.0f);
    config.kv_type = random_stored_type(random);
    return config;
}

/* Each weight now and then of BF16. */
static void draw_weight_types(struct test_random *random, struct problem *p) {
    for (size_t which = 0; which < LAYER_WEIGHTS; which++) {
        attn_linear *linear = layer_linear(&p->weights.config, which);
        size_t in, out;
        layer_weight_sizes(&p->weights.config, which, &in, &out);
        if (random_below(random, 2))
            continue;
        struct tensor w = {.data = p->weights.weight[which], .batch = 1, .heads = 1, .len = in, .size = out};
        w.row_stride = out;
        tensor_round(&w, ATTN_BF16);
        linear->weight = typed_input(&w, ATTN_BF16, FLUSH_END, &p->memory[p->memories++]).data;
        linear->type = ATTN_BF16;
    }
}

/* [batch, len, size] in a type at random, to which the floats are rounded. */
static attn_tensor draw_type(struct test_random *random, struct problem *p, const struct tensor *rows) {
    attn_type type = random_type(random);
    tensor_round(rows, type);
    attn_tensor in = typed_input(rows, type, FLUSH_END, &p->memory[p->memories++]);
    in.head_stride = 0;
    return in;
}

static attn_tensor typed_from(attn_tensor rows, size_t begin) {
    size_t element = rows.type == ATTN_F32 ? sizeof(float) : sizeof(uint16_t);
    rows.data = (const char *)rows.data + begin * rows.row_stride * element;
    return rows;
}

/* Lengths up to `most` and their sums, with rows before the first sequence and after the last. */
static attn_cu_lens random_cu(struct test_random *random, size_t batch, size_t most, int64_t *cu) {
    cu[0] = (int64_t)random_below(random, 3);
    for (size_t b = 0; b < batch; b++)
        cu[b + 1] = cu[b] + (int64_t)random_below(random, most + 1);
    return (attn_cu_lens){.cu.i64 = cu, .total = (size_t)cu[batch] + random_below(random, 3)};
}

static struct tensor random_rows(struct test_random *random, size_t batch, size_t len, size_t width) {
    enum layout layout = random_below(random, 2) ? LAYOUT_BHSD : LAYOUT_GAPS;
    return tensor_random(random, TEST_NORMAL, layout, batch, 1, len, width, FLUSH_END);
}

static void draw_lengths(struct test_random *random, struct problem *p) {
    attn_layer_args *args = &p->args;
    args->batch = random_between(random, 1, MOST_SEQUENCES);
    args->q_len = random_between(random, 1, MOST_ROWS);
    args->kv_len = random_below(random, 6) ? random_between(random, 1, 60) : random_between(random, 250, 300);
    if (random_below(random, 2))
        args->q_cu = random_cu(random, args->batch, args->q_len, p->q_cu);
    if (p->source == PACKED)
        args->kv_cu = random_cu(random, args->batch, args->kv_len, p->kv_cu);
}

static void draw_rows(struct test_random *random, struct problem *p) {
    const attn_layer_config *config = &p->weights.config;
    attn_layer_args *args = &p->args;
    size_t q_batch = args->q_cu.cu.i64 ? 1 : args->batch, kv_batch = args->kv_cu.cu.i64 ? 1 : args->batch;
    size_t q_rows = args->q_cu.cu.i64 ? args->q_cu.total : args->q_len;
    size_t kv_rows = args->kv_cu.cu.i64 ? args->kv_cu.total : args->kv_len;
    p->q = random_rows(random, q_batch, q_rows, config->query_width);
    p->k = random_rows(random, kv_batch, kv_rows, config->key_width);
    p->v = random_rows(random, kv_batch, kv_rows, config->value_width);
    args->q = draw_type(random, p, &p->q);
    args->k = draw_type(random, p, &p->k);
    args->v = draw_type(random, p, &p->v);
    p->y_type = random_type(random);
    p->cache_type = random_below(random, 3) ? config->kv_type : random_cache_type(random);
}

static void draw_all_options(struct test_random *random, struct problem *p) {
    const attn_layer_args *args = &p->args;
    p->drawn = draw_options(random, args->batch, p->weights.config.heads, args->q_len, args->kv_len);
    p->args.options = p->drawn.options;
    if (p->source == RING_CACHE)
        p->args.options.empty = ATTN_EMPTY_ZERO; /* the mean of values that are gone cannot be had */
    p->args.options.dropout = random_below(random, 4) ? 0 : 0.25f;
    p->args.options.dropout_seed = random_bits(random);
    /* Keys are rotated before they are rounded. By hand no tensors of BF16 hold such keys, but a cache does, where
     * all sequences have the same number of keys. */
    if (random_below(random, 2) == 0 || (p->source == PACKED && p->weights.config.kv_type == ATTN_BF16))
        return;
    p->args.options.rotary =
        draw_rotary(random, args->kv_len + 4 * MOST_ROWS, p->sizes.head_size, &p->memory[p->memories++]);
    for (size_t b = 0; b < args->batch; b++)
        p->offsets[b] = (int64_t)random_between(random, MOST_ROWS, 2 * MOST_ROWS);
    p->args.options.rotary_offsets.i64 = p->args.options.rotary ? p->offsets : NULL;
}

static void describe(const struct problem *p) {
    const attn_layer_config *config = &p->weights.config;
    test_case("from %s: types of q %d k %d v %d y %d, weights %d %d %d %d, keys and values %d, cache %d, batch=%zu "
              "q_len=%zu%s kv_len=%zu heads=%zu,%zu sizes=%zu,%zu,%zu %s",
              source_names[p->source], (int)p->args.q.type, (int)p->args.k.type, (int)p->args.v.type, (int)p->y_type,
              (int)config->w_q.type, (int)config->w_k.type, (int)config->w_v.type, (int)config->w_o.type,
              (int)config->kv_type, (int)p->cache_type, p->args.batch, p->args.q_len,
              p->args.q_cu.cu.i64 ? " (packed)" : "", p->args.kv_len, config->heads, p->sizes.kv_heads,
              p->sizes.head_size, p->sizes.value_size, p->sizes.out_size, options_text(&p->args.options));
}

/* Not by value: the arguments point into it. */
static void problem_new(struct test_random *random, size_t index, enum source source, struct problem *p) {
    attn_layer_config config = random_config(random, index);
    *p = (struct problem){.weights = layer_weights_new(random, &config, (unsigned)index % 16), .source = source};
    p->sizes = layer_sizes_of(&config);
    draw_weight_types(random, p);
    p->layer = layer_create(&p->weights.config, &p->memory[p->memories++], FLUSH_END);
    draw_lengths(random, p);
    draw_rows(random, p);
    draw_all_options(random, p);
    describe(p);
}

static void problem_free(struct problem *p) {
    layer_weights_free(&p->weights);
    drawn_options_free(&p->drawn);
    tensor_free(&p->q);
    tensor_free(&p->k);
    tensor_free(&p->v);
    while (p->memories > 0)
        guarded_free(p->memory[--p->memories]);
}

/* ---- Caches ---- */

static attn_cache *new_cache(struct problem *p, size_t capacity) {
    attn_cache_config config;
    assert_ok(attn_layer_cache_config(p->layer, p->args.batch, capacity, &config, NULL));
    assert_int_equal(p->weights.config.kv_type, config.type);
    config.type = p->cache_type;
    config.kind = p->source == RING_CACHE ? ATTN_CACHE_RING : ATTN_CACHE_PLAIN;
    if (p->source == PAGED_CACHE) {
        config.kind = ATTN_CACHE_PAGED;
        config.page_size = PAGE;
        config.capacity = (capacity + PAGE - 1) / PAGE * PAGE;
        config.pages = p->args.batch * config.capacity / PAGE;
    }
    attn_cache *cache = cache_create(&config, &p->memory[p->memories++], FLUSH_END);
    for (size_t i = 0; i < config.pages; i++) { /* the last page first, sequences in turn */
        int32_t page = (int32_t)(config.pages - 1 - i);
        assert_ok(attn_cache_set_pages(cache, i % config.batch, i / config.batch, 1, &page, NULL));
    }
    return cache;
}

static attn_cache *new_fork(struct problem *p, const attn_cache *parent, size_t len, size_t capacity) {
    attn_cache_fork_config config = {.parent = parent, .batch = p->args.batch, .len = len, .capacity = capacity};
    attn_cache *cache = NULL;
    size_t bytes = 0;
    assert_ok(attn_cache_fork_size(&config, &bytes, NULL));
    void *memory = p->memory[p->memories++] = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_cache_fork(&config, memory, bytes, &cache, NULL));
    return cache;
}

/* Rows [begin, begin + lens[b]) of each sequence: through the layer into one cache, by hand into the other. */
static void append_both(struct problem *p, size_t begin, size_t len, const int64_t *lens) {
    size_t key_width = p->sizes.kv_heads * p->sizes.head_size, value_width = p->sizes.kv_heads * p->sizes.value_size,
           bytes = 0;
    attn_layer_append_args args = {.len = len, .lens.i64 = lens, .cache = p->cache, .rotary = p->args.options.rotary};
    attn_cache_append_args by_hand = {.len = len, .lens.i64 = lens, .rotary = args.rotary};
    attn_error error = {.field = "none"};
    args.rotary_offsets = by_hand.rotary_offsets = p->args.options.rotary_offsets;
    args.k = typed_from(p->args.k, begin);
    args.v = typed_from(p->args.v, begin);
    assert_ok(attn_layer_append_workspace(p->layer, &args, &bytes, &error));
    void *workspace = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_layer_append(p->layer, &args, workspace, bytes, &error));
    assert_string_equal("none", error.field);
    guarded_free(workspace);

    struct tensor k = project(&p->weights.config.w_k, key_width, &p->k);
    struct tensor v = project(&p->weights.config.w_v, value_width, &p->v);
    by_hand.k = split(&k, p->sizes.head_size);
    by_hand.v = split(&v, p->sizes.value_size);
    by_hand.k.data = (const float *)by_hand.k.data + begin * k.row_stride;
    by_hand.v.data = (const float *)by_hand.v.data + begin * v.row_stride;
    assert_ok(attn_cache_append(p->by_hand, &by_hand, NULL));
    tensor_free(&k);
    tensor_free(&v);
}

/* Two pieces, the second one of a length of its own for each sequence. A ring holds no more than half of the keys, a
 * fork shares the first piece. */
static void fill_caches(struct test_random *random, struct problem *p) {
    size_t total = p->args.kv_len, first = total / 2, capacity = p->source == RING_CACHE ? total - first : total;
    int64_t lens[MOST_SEQUENCES];
    for (size_t b = 0; b < p->args.batch; b++)
        lens[b] = (int64_t)random_between(random, b ? 0 : total - first, total - first);
    p->cache = new_cache(p, capacity);
    p->by_hand = new_cache(p, capacity);
    append_both(p, 0, first, NULL);
    if (p->source == FORKED_CACHE) {
        p->cache = new_fork(p, p->cache, first, total);
        p->by_hand = new_fork(p, p->by_hand, first, total);
    }
    append_both(p, first, total - first, lens);
    assert_int_equal(total, attn_cache_length(p->cache, 0));
}

/* ---- Comparing ---- */

struct outputs {
    attn_status status;
    struct tensor y;
    float *weights, *scores, *log_sum_exp;
};

static struct outputs outputs_new(const struct problem *p) {
    size_t rows = p->args.batch * p->weights.config.heads * p->args.q_len;
    return (struct outputs){.weights = guarded_floats(rows * p->args.kv_len, FLUSH_END),
                            .scores = guarded_floats(rows * p->args.kv_len, FLUSH_END),
                            .log_sum_exp = guarded_floats(rows, FLUSH_END)};
}

static attn_options ask_for_all(const attn_options *options, const struct outputs *r) {
    attn_options o = *options;
    o.weights.data = r->weights;
    o.scores.data = r->scores;
    o.log_sum_exp.data = r->log_sum_exp;
    return o;
}

static void outputs_free(struct outputs *r) {
    tensor_free(&r->y);
    guarded_free(r->weights);
    guarded_free(r->scores);
    guarded_free(r->log_sum_exp);
}

static struct outputs run_layer(const struct problem *p) {
    struct outputs r = outputs_new(p);
    attn_layer_args args = p->args;
    attn_error error = {.field = "none"};
    size_t bytes = 0;
    r.y = tensor_new(LAYOUT_GAPS, p->q.batch, 1, p->q.len, p->sizes.out_size, FLUSH_END);
    void *memory;
    args.y = typed_output(&r.y, p->y_type, FLUSH_END, &memory);
    args.y.head_stride = 0;
    args.cache = p->cache;
    args.options = ask_for_all(&p->args.options, &r);
    assert_ok(attn_layer_workspace(p->layer, &args, &bytes, &error));
    void *workspace = poisoned_alloc(bytes, FLUSH_END);
    r.status = attn_layer_forward(p->layer, &args, workspace, bytes, &error);
    assert_string_equal(r.status == ATTN_OK ? "none" : "cache", error.field);
    guarded_free(workspace);
    typed_read(&r.y, p->y_type, memory);
    return r;
}

/* All keys and values in a cache of BF16, rotated before they are rounded. Free *memory. */
static attn_cache *cache_of_rotated(const struct problem *p, attn_tensor k, attn_tensor v, void **memory) {
    attn_cache_config config;
    assert_ok(attn_layer_cache_config(p->layer, p->args.batch, p->args.kv_len, &config, NULL));
    attn_cache *cache = cache_create(&config, memory, FLUSH_END);
    attn_cache_append_args args = {.len = p->args.kv_len, .k = k, .v = v, .rotary = p->args.options.rotary};
    args.rotary_offsets = p->args.options.rotary_offsets;
    assert_ok(attn_cache_append(cache, &args, NULL));
    return cache;
}

static struct outputs run_by_hand(const struct problem *p) {
    const attn_layer_config *config = &p->weights.config;
    size_t key_width = p->sizes.kv_heads * p->sizes.head_size, value_width = p->sizes.kv_heads * p->sizes.value_size,
           bytes = 0;
    struct tensor q = project(&config->w_q, config->heads * p->sizes.head_size, &p->q),
                  k = project(&config->w_k, key_width, &p->k), v = project(&config->w_v, value_width, &p->v);
    struct tensor o = tensor_new(LAYOUT_BHSD, p->q.batch, 1, p->q.len, config->heads * p->sizes.value_size, FLUSH_END);
    struct outputs r = outputs_new(p);
    attn_attention_args args = {.isa = test_isa(), .batch = p->args.batch, .heads = config->heads};
    args.kv_heads = p->sizes.kv_heads;
    args.q_len = p->args.q_len;
    args.kv_len = p->args.kv_len;
    args.q_cu = p->args.q_cu;
    args.kv_cu = p->args.kv_cu;
    args.head_size = p->sizes.head_size;
    args.value_size = p->sizes.value_size;
    args.scale = config->scale;
    args.q = split(&q, p->sizes.head_size);
    args.k = split(&k, p->sizes.head_size);
    args.v = split(&v, p->sizes.value_size);
    args.cache = p->by_hand;
    void *memory[2] = {NULL, NULL};
    if (!p->by_hand && config->kv_type == ATTN_BF16 && p->args.options.rotary) {
        args.cache = cache_of_rotated(p, args.k, args.v, &memory[0]);
    } else if (!p->by_hand && config->kv_type == ATTN_BF16) {
        tensor_round(&k, ATTN_BF16);
        tensor_round(&v, ATTN_BF16);
        args.k.data = typed_input(&k, ATTN_BF16, FLUSH_END, &memory[0]).data;
        args.v.data = typed_input(&v, ATTN_BF16, FLUSH_END, &memory[1]).data;
        args.k.type = args.v.type = ATTN_BF16;
    }
    args.o = (attn_tensor_out){o.data, ATTN_F32, o.batch_stride, p->sizes.value_size, o.row_stride, 1};
    args.options = ask_for_all(&p->args.options, &r);
    assert_ok(attn_attention_workspace(&args, &bytes, NULL));
    void *workspace = poisoned_alloc(bytes, FLUSH_END);
    r.status = attn_attention(&args, workspace, bytes, NULL);
    guarded_free(workspace);
    r.y = project(&config->w_o, p->sizes.out_size, &o);
    tensor_round(&r.y, p->y_type);
    guarded_free(memory[0]);
    guarded_free(memory[1]);
    tensor_free(&q);
    tensor_free(&k);
    tensor_free(&v);
    tensor_free(&o);
    return r;
}

/* A packed row that belongs to no sequence. */
static int between_sequences(const struct problem *p, size_t row) {
    const int64_t *cu = p->args.q_cu.cu.i64;
    return cu && ((int64_t)row < cu[0] || (int64_t)row >= cu[p->args.batch]);
}

static void compare_outputs(const struct problem *p, const struct outputs *expected, const struct outputs *actual) {
    size_t rows = p->args.batch * p->weights.config.heads * p->args.q_len, weights = rows * p->args.kv_len;
    for (size_t b = 0; b < p->q.batch; b++)
        for (size_t i = 0; i < p->q.len; i++) {
            const float *y = tensor_row(&actual->y, b, 0, i);
            if (!between_sequences(p, i))
                assert_same_bits(tensor_row(&expected->y, b, 0, i), y, actual->y.size);
            for (size_t c = 0; c < actual->y.size && between_sequences(p, i) && p->y_type == ATTN_F32; c++)
                assert_true(is_untouched(y + c));
        }
    assert_same_bits(expected->weights, actual->weights, weights);
    assert_same_bits(expected->scores, actual->scores, weights);
    assert_same_bits(expected->log_sum_exp, actual->log_sum_exp, rows);
}

/* A call may ask for keys that a ring has lost: both ways refuse it, and then compute over the keys that are left. */
static void compare(const struct problem *p) {
    struct outputs expected = run_by_hand(p), actual = run_layer(p);
    struct problem left = *p;
    assert_status(expected.status, actual.status);
    if (expected.status == ATTN_OK)
        compare_outputs(p, &expected, &actual);
    outputs_free(&expected);
    outputs_free(&actual);
    if (expected.status == ATTN_OK)
        return;
    assert_status(ATTN_TOO_SMALL, expected.status);
    assert_int_equal(RING_CACHE, p->source);
    assert_true(left.args.options.causal || left.args.options.valid.kind || left.args.options.window_right ||
                left.args.options.window_left);
    left.args.options = options_without_intervals(&left.args.options);
    compare(&left);
}

static void test_as_by_hand(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 10); i++)
        for (size_t source = 0; source < SOURCES; source++) {
            struct problem p;
            problem_new(&random, i, (enum source)source, &p);
            if (source >= PLAIN_CACHE)
                fill_caches(&random, &p);
            compare(&p);
            problem_free(&p);
        }
}

/* Rows for a cache that lie one sequence after the other are the rows that lie in a batch. */
static void test_packed_append(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(40, 8); i++) {
        struct problem p;
        problem_new(&random, i, PLAIN_CACHE, &p);
        attn_layer_append_args args = {.len = p.args.kv_len, .rotary = p.args.options.rotary};
        size_t bytes = 0;
        struct tensor k, v;
        args.cu = random_cu(&random, p.args.batch, p.args.kv_len, p.kv_cu);
        args.rotary_offsets = p.args.options.rotary_offsets;
        k = random_rows(&random, 1, args.cu.total, p.weights.config.key_width);
        v = random_rows(&random, 1, args.cu.total, p.weights.config.value_width);
        args.k = tensor_rows(&k);
        args.v = tensor_rows(&v);
        args.cache = p.cache = new_cache(&p, p.args.kv_len);
        p.by_hand = new_cache(&p, p.args.kv_len);
        assert_ok(attn_layer_append_workspace(p.layer, &args, &bytes, NULL));
        void *workspace = poisoned_alloc(bytes, FLUSH_END);
        assert_ok(attn_layer_append(p.layer, &args, workspace, bytes, NULL));
        guarded_free(workspace);
        struct tensor keys = project(&p.weights.config.w_k, p.sizes.kv_heads * p.sizes.head_size, &k);
        struct tensor values = project(&p.weights.config.w_v, p.sizes.kv_heads * p.sizes.value_size, &v);
        attn_cache_append_args by_hand = {.len = args.len, .cu = args.cu, .rotary = args.rotary};
        by_hand.rotary_offsets = args.rotary_offsets;
        by_hand.k = split(&keys, p.sizes.head_size);
        by_hand.v = split(&values, p.sizes.value_size);
        assert_ok(attn_cache_append(p.by_hand, &by_hand, NULL));
        p.args.kv_len = attn_cache_length(p.cache, ATTN_ALL_SEQUENCES);
        compare(&p);
        tensor_free(&keys);
        tensor_free(&values);
        tensor_free(&k);
        tensor_free(&v);
        problem_free(&p);
    }
}

/* ---- nn.MultiheadAttention ---- */

/* PyTorch keeps the three input projections in one in_proj_weight [3 * hidden, hidden] and one in_proj_bias [3 *
 * hidden]: pointers into them and strides make the layer of the weights kept apart. */
static void test_packed_in_projection(void **state) {
    (void)state;
    enum { HIDDEN = 48, LEN = 19 };
    struct test_random random = test_random(__func__);
    attn_layer_config config = {.isa = test_isa(), .query_width = HIDDEN, .key_width = HIDDEN, .value_width = HIDDEN};
    config.hidden = HIDDEN;
    config.heads = 6;
    struct layer_weights apart = layer_weights_new(&random, &config, 15);
    float *in_proj_weight = guarded_floats(3 * HIDDEN * HIDDEN, FLUSH_END),
          *in_proj_bias = guarded_floats(3 * HIDDEN, FLUSH_END);
    float *out_proj_weight = guarded_floats(HIDDEN * HIDDEN, FLUSH_END);
    for (size_t row = 0; row < 3 * HIDDEN; row++) {
        size_t which = row / HIDDEN, out = row % HIDDEN;
        in_proj_bias[row] = apart.bias[which][out];
        for (size_t in = 0; in < HIDDEN; in++)
            in_proj_weight[row * HIDDEN + in] = apart.weight[which][in * HIDDEN + out];
    }
    for (size_t i = 0; i < HIDDEN * HIDDEN; i++)
        out_proj_weight[i] = apart.weight[LAYER_O][i % HIDDEN * HIDDEN + i / HIDDEN];
    for (size_t which = 0; which < 3; which++)
        *layer_linear(&config, which) = (attn_linear){.weight = in_proj_weight + which * HIDDEN * HIDDEN,
                                                      .in_stride = 1,
                                                      .out_stride = HIDDEN,
                                                      .bias = in_proj_bias + which * HIDDEN};
    config.w_o = (attn_linear){out_proj_weight, .in_stride = 1, .out_stride = HIDDEN, .bias = apart.bias[LAYER_O]};

    void *memory, *apart_memory;
    attn_layer *layer = layer_create(&config, &memory, FLUSH_END);
    attn_layer *of_apart = layer_create(&apart.config, &apart_memory, FLUSH_END);
    struct tensor x = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 2, 1, LEN, HIDDEN, FLUSH_END);
    attn_layer_args args = {.batch = 2, .q_len = LEN, .kv_len = LEN, .q = tensor_rows(&x)};
    args.k = args.v = args.q;
    struct layer_result expected = layer_run(of_apart, &apart.config, &args, LAYOUT_BHSD, FLUSH_END);
    struct layer_result actual = layer_run(layer, &config, &args, LAYOUT_BHSD, FLUSH_END);
    assert_same_layer_result(&expected, &actual);
    layer_result_free(&expected);
    layer_result_free(&actual);
    tensor_free(&x);
    layer_weights_free(&apart);
    guarded_free(in_proj_weight);
    guarded_free(in_proj_bias);
    guarded_free(out_proj_weight);
    guarded_free(memory);
    guarded_free(apart_memory);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_by_hand),
        cmocka_unit_test(test_packed_append),
        cmocka_unit_test(test_packed_in_projection),
    };
    return test_run(tests);
}
