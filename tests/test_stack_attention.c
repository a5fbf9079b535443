/* The stack that attention, rotary tables, caches and layers take: see test_stack.c. */
#include "attention_problem.h"
#include "ops/attention.h"
#include "random_options.h"
#include "stack_maxima.h"
#include "tuning.h"
#include "typed.h"

#include <stdio.h>

/* ---- Attention ---- */

enum path {
    SMALL,
    IN_PLACE,
    IN_PLACE_SPANS,
    STREAMED,
    STREAMED_SPANS,
    PACKED,
    PACKED_KEYS,
    ALL_PACKED,
    CACHED,
    CACHED_SPANS,
    PATHS
};

static const char *const path_names[PATHS] = {
    "attention, few keys",
    "attention, in place",
    "attention, in place, spans merged",
    "attention, streamed",
    "attention, streamed, spans merged",
    "attention, a head packed",
    "attention, a head's keys packed",
    "attention, all heads packed",
    "attention, cache",
    "attention, cache, spans merged",
};

static bool path_seen[PATHS];

static enum path path_of(const struct attn_plan *plan) {
    bool spans = plan->spans > 1;
    switch (plan->path) {
    case ATTN_PATH_SMALL:
        return SMALL;
    case ATTN_PATH_CACHED:
        return spans ? CACHED_SPANS : CACHED;
    case ATTN_PATH_IN_PLACE:
        return spans ? IN_PLACE_SPANS : IN_PLACE;
    case ATTN_PATH_STREAMED:
        return spans ? STREAMED_SPANS : STREAMED;
    case ATTN_PATH_PACK_ALL:
        return ALL_PACKED;
    default:
        return plan->values_in_place ? PACKED_KEYS : PACKED;
    }
}

/* The path that the library takes. */
static enum path attention_path(const attn_attention_args *args) {
    struct attn_problem p = {.table = test_table(),
                             .batch = args->batch,
                             .heads = args->heads,
                             .kv_heads = args->kv_heads ? args->kv_heads : args->heads,
                             .q_len = args->q_len,
                             .kv_len = args->cache ? attn_cache_length(args->cache, ATTN_ALL_SEQUENCES) : args->kv_len,
                             .head_size = args->head_size,
                             .value_size = args->value_size ? args->value_size : args->head_size,
                             .v = args->v,
                             .cache = args->cache,
                             .options = &args->options,
                             .parallel = args->parallel};
    p.group = p.heads / p.kv_heads;
    p.longest = (struct attn_longest){p.q_len, p.kv_len};
    assert_true(attn_plan_make(&p));
    enum path path = path_of(&p.plan);
    path_seen[path] = true;
    return path;
}

struct attention_problem {
    attn_attention_args args;
    struct room workspace;
};

static void attention_workspace(void *problem) {
    struct attention_problem *p = problem;
    note(attn_attention_workspace(&p->args, &p->workspace.bytes, NULL));
}

static void attention(void *problem) {
    struct attention_problem *p = problem;
    note(attn_attention(&p->args, p->workspace.data, p->workspace.bytes, NULL));
}

static void measure_attention(const attn_attention_args *args) {
    struct attention_problem p = {.args = *args};
    measure("attention_workspace", attention_workspace, &p);
    room_take(&p.workspace);
    measure(path_names[attention_path(args)], attention, &p);
    guarded_free(p.workspace.data);
}

/* In the calling thread and in tasks, with the output alone and with all of them. */
static void measure_attentions(const attn_attention_args *args) {
    for (int i = 0; i < 4; i += test_quick() ? 3 : 1) {
        struct attention_result r = attention_result_new(args, LAYOUT_BHSD, FLUSH_END);
        attn_attention_args full = *args;
        full.o = tensor_out(&r.o);
        full.parallel = i % 2 ? &in_turn : NULL;
        if (i / 2) {
            full.options.weights.data = r.weights;
            full.options.scores.data = r.scores;
            full.options.log_sum_exp.data = r.log_sum_exp;
        }
        describe(&full);
        measure_attention(&full);
        attention_free(&r);
    }
}

/* With values in another layout. */
static void measure_kinds(struct test_random *random, const attn_attention_args *args, unsigned kinds,
                          enum layout layout) {
    enum test_values values = random_below(random, 2) ? TEST_NORMAL : TEST_WILD;
    struct problem p = masked_problem_new(random, values, args, kinds);
    struct tensor v = tensor_copy(&p.v, layout, FLUSH_END);
    p.args.v = tensor_in(&v);
    p.args.options.dropout = args->options.dropout;
    measure_attentions(&p.args);
    tensor_free(&v);
    problem_free(&p);
}

/* One shape with no options, with rotary embedding alone, and with some of all. Values lie dense, as some ISAs read
 * them in place, then not. */
static void measure_shape(struct test_random *random, size_t heads, size_t kv_heads, size_t q_len, size_t kv_len,
                          size_t head_size) {
    attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = heads, .kv_heads = kv_heads};
    args.q_len = q_len;
    args.kv_len = kv_len;
    args.head_size = head_size;
    args.value_size = random_below(random, 2) ? 0 : random_between(random, 1, head_size);
    measure_kinds(random, &args, 0, LAYOUT_BHSD);
    measure_kinds(random, &args, KIND(ROTARY), LAYOUT_GAPS);
    for (size_t i = sweep(2, 1); i > 0; i--) {
        args.options.empty = (attn_empty_rows)random_below(random, 2);
        args.options.dropout = random_below(random, 4) ? 0 : 0.25f;
        measure_kinds(random, &args, random_kinds(random, ~KIND(GROUPS)), LAYOUT_GAPS);
    }
}

static size_t random_size(struct test_random *random) {
    static const size_t sizes[] = {3, 16, 20, 33, 64, 127, 128};
    return sizes[random_below(random, sizeof sizes / sizeof *sizes)];
}

static void attention_of_tensors(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t rows = 1; rows <= 40; rows += sweep(1, 12))
        measure_shape(&random, 2, 1, rows, random_between(&random, 1, 40), random_size(&random));
    for (size_t rows = 1; rows <= 130; rows += sweep(8, 60))
        measure_shape(&random, 2, 2, rows, random_between(&random, 200, sweep(500, 300)), random_size(&random));
    measure_shape(&random, 2, 1, 20, ATTN_SMALL_KEYS, ATTN_SMALL_SIZE);
    measure_shape(&random, 1, 1, 1, 2 * ATTN_SPAN + 5, 40);
    measure_shape(&random, 1, 1, 4, ATTN_SPAN + 300, 49);
    /* Values are read in place where their size is a multiple of 16, as every other one is here. */
    bool in_place = attn_tuning_for(test_isa())->in_place_value_size > 0;
    for (int i = 0; i < 20 && (i == 0 || (in_place && !path_seen[PACKED_KEYS])); i++)
        measure_shape(&random, 1, 1, 240, 240, 64);
    for (enum path path = SMALL; path < CACHED; path++)
        if (!path_seen[path] && (path != PACKED_KEYS || in_place))
            test_fail("no problem of the path \"%s\"", path_names[path]);
}

/* ---- Rotary tables ---- */

struct rotary_problem {
    attn_rotary_config config;
    struct room memory;
    attn_rotary *rotary;
};

static void rotary_size(void *problem) {
    struct rotary_problem *p = problem;
    note(attn_rotary_size(&p->config, &p->memory.bytes, NULL));
}

static void rotary_create(void *problem) {
    struct rotary_problem *p = problem;
    note(attn_rotary_create(&p->config, p->memory.data, p->memory.bytes, &p->rotary, NULL));
}

/* For positions below `positions`; the caller frees its memory. */
static struct rotary_problem measure_rotary(size_t positions, size_t dims, attn_rotary_pairs pairs,
                                            const double *frequencies) {
    struct rotary_problem p = {.config = {.positions = positions, .dims = dims, .pairs = pairs}};
    p.config.frequencies = frequencies;
    measure("rotary_size", rotary_size, &p);
    room_take(&p.memory);
    measure("rotary_create", rotary_create, &p);
    return p;
}

static void rotary(void **state) {
    (void)state;
    static const double frequencies[40] = {1, 0.5, 0.25, 1e-3, 1e6, 0, -1, 1e-300};
    for (size_t dims = 2; dims <= 80; dims += 6)
        for (int i = 0; i < 4; i++) {
            test_case("dims=%zu", dims);
            attn_rotary_pairs pairs = i % 2 ? ATTN_ROTARY_INTERLEAVED : ATTN_ROTARY_HALVES;
            struct rotary_problem p = measure_rotary(17, dims, pairs, i / 2 ? frequencies : NULL);
            guarded_free(p.memory.data);
        }
}

/* ---- Caches ---- */

enum cache_kind { PLAIN, RING, PAGES, NARROW_PAGES, FORK, CACHE_KINDS };

static const char *const cache_kind_names[CACHE_KINDS] = {"a cache", "a ring", "pages", "narrow pages", "a fork"};

enum { BATCH = 2, KV_HEADS = 2, APPENDED = 129, CAPACITY = 640 };

struct cache_problem {
    attn_cache_config config;
    attn_cache_fork_config fork_config;
    struct room memory;
    attn_cache *cache;
    attn_cache_append_args append;
    size_t len;
};

static void cache_size(void *problem) {
    struct cache_problem *p = problem;
    note(attn_cache_size(&p->config, &p->memory.bytes, NULL));
}

static void cache_create_(void *problem) {
    struct cache_problem *p = problem;
    note(attn_cache_create(&p->config, p->memory.data, p->memory.bytes, &p->cache, NULL));
}

static void cache_fork_size(void *problem) {
    struct cache_problem *p = problem;
    note(attn_cache_fork_size(&p->fork_config, &p->memory.bytes, NULL));
}

static void cache_fork(void *problem) {
    struct cache_problem *p = problem;
    note(attn_cache_fork(&p->fork_config, p->memory.data, p->memory.bytes, &p->cache, NULL));
}

/* Page i is the next one of sequence i % batch. */
static void cache_set_pages(void *problem) {
    struct cache_problem *p = problem;
    for (size_t i = 0; i < p->config.pages; i++)
        note(attn_cache_set_pages(p->cache, i % p->config.batch, i / p->config.batch, 1, &(int32_t){(int32_t)i}, NULL));
}

static void cache_append_(void *problem) {
    struct cache_problem *p = problem;
    note(attn_cache_append(p->cache, &p->append, NULL));
}

static void cache_truncate(void *problem) {
    struct cache_problem *p = problem;
    note(attn_cache_truncate(p->cache, ATTN_ALL_SEQUENCES, p->len, NULL));
}

static void cache_adopt(void *problem) {
    struct cache_problem *p = problem;
    note(attn_cache_adopt(p->cache, 0, p->len, NULL));
}

static struct cache_problem measure_cache(const attn_cache_config *config) {
    struct cache_problem p = {.config = *config};
    measure("cache_size", cache_size, &p);
    room_take(&p.memory);
    measure("cache_create", cache_create_, &p);
    if (config->pages)
        measure("cache_set_pages", cache_set_pages, &p);
    return p;
}

static struct cache_problem measure_fork(const struct cache_problem *parent) {
    size_t len = attn_cache_length(parent->cache, ATTN_ALL_SEQUENCES);
    struct cache_problem p = {.config = parent->config};
    p.fork_config = (attn_cache_fork_config){.parent = parent->cache, .batch = BATCH, .len = len - 3};
    p.fork_config.capacity = CAPACITY;
    measure("cache_fork_size", cache_fork_size, &p);
    room_take(&p.memory);
    measure("cache_fork", cache_fork, &p);
    return p;
}

/* There is room for the same rows four times: two measurements call twice each. */
static void measure_append(struct test_random *random, struct cache_problem *p, const attn_rotary *rotary, size_t len) {
    const attn_cache_config *c = &p->config;
    struct tensor k = tensor_random(random, TEST_NORMAL, LAYOUT_BSHD, c->batch, c->kv_heads, len, c->head_size, 0);
    struct tensor v = tensor_random(random, TEST_WILD, LAYOUT_BSHD, c->batch, c->kv_heads, len, c->value_size, 0);
    p->append = (attn_cache_append_args){.len = len, .k = tensor_in(&k), .v = tensor_in(&v), .rotary = rotary};
    measure_cut(rotary ? "cache_append, rotary" : "cache_append", cache_append_, p, &p->append.parallel);
    tensor_free(&k);
    tensor_free(&v);
}

/* Rows at the first positions, which the table has. */
static void put_positions_in_table(attn_options *options) {
    options->position = ATTN_POSITION_TOP_LEFT;
    options->position_offset = 0;
    options->position_offsets = (attn_ints){NULL, NULL};
}

static void measure_cached(struct test_random *random, const struct cache_problem *p, const attn_rotary *rotary,
                           size_t q_len) {
    const attn_cache_config *c = &p->config;
    size_t kv_len = attn_cache_length(p->cache, ATTN_ALL_SEQUENCES), heads = 3 * c->kv_heads;
    struct tensor q = tensor_random(random, TEST_NORMAL, LAYOUT_BSHD, c->batch, heads, q_len, c->head_size, FLUSH_END);
    struct drawn_options drawn = draw_options(random, c->batch, heads, q_len, kv_len);
    attn_attention_args args = {.batch = c->batch, .heads = heads, .kv_heads = c->kv_heads, .q_len = q_len};
    args.head_size = c->head_size;
    args.value_size = c->value_size;
    args.q = tensor_in(&q);
    args.cache = p->cache;
    if (random_below(random, 2) && c->kind != ATTN_CACHE_RING)
        args.options = drawn.options;
    if (rotary)
        put_positions_in_table(&args.options);
    args.options.rotary = rotary;
    measure_attentions(&args);
    drawn_options_free(&drawn);
    tensor_free(&q);
}

static attn_cache_config cache_config(struct test_random *random, enum cache_kind kind, attn_type type) {
    attn_cache_config config = {.isa = test_isa(), .batch = BATCH, .kv_heads = KV_HEADS, .capacity = CAPACITY};
    config.type = type;
    config.head_size = random_size(random);
    config.value_size = random_size(random);
    bool paged = kind == PAGES || kind == NARROW_PAGES;
    config.kind = kind == RING ? ATTN_CACHE_RING : paged ? ATTN_CACHE_PAGED : ATTN_CACHE_PLAIN;
    if (kind == RING)
        config.capacity = 2 * APPENDED - 20;
    config.page_size = kind == PAGES ? 64 : kind == NARROW_PAGES ? 16 : 0;
    config.pages = config.page_size ? BATCH * CAPACITY / config.page_size : 0;
    return config;
}

/* Filled, attended to by 1 row and by more; cut. */
static void measure_cache_kind(struct test_random *random, enum cache_kind kind, attn_type type, size_t q_len) {
    attn_cache_config config = cache_config(random, kind, type);
    test_case("%s of type %d, head_size=%zu value_size=%zu", cache_kind_names[kind], (int)type, config.head_size,
              config.value_size);
    struct rotary_problem table = measure_rotary(2 * CAPACITY, config.head_size / 2 * 2, ATTN_ROTARY_HALVES, NULL);
    const attn_rotary *rotary = random_below(random, 2) ? table.rotary : NULL;
    struct cache_problem parent = {0}, p = measure_cache(&config);
    if (kind == FORK) {
        parent = p;
        measure_append(random, &parent, rotary, 20);
        p = measure_fork(&parent);
    }
    measure_append(random, &p, rotary, APPENDED);
    measure_cached(random, &p, rotary, 1);
    measure_cached(random, &p, rotary, q_len);
    p.len = attn_cache_length(p.cache, 0) - 10;
    if (config.pages)
        measure("cache_adopt", cache_adopt, &p);
    if (config.kind != ATTN_CACHE_RING)
        measure("cache_truncate", cache_truncate, &p);
    guarded_free(p.memory.data);
    guarded_free(parent.memory.data);
    guarded_free(table.memory.data);
}

static void measure_long_cache(struct test_random *random) {
    attn_cache_config config = {.isa = test_isa(), .batch = 1, .kv_heads = 1, .head_size = 33, .value_size = 31};
    config.capacity = ATTN_SPAN + 304;
    struct cache_problem p = measure_cache(&config);
    measure_append(random, &p, NULL, ATTN_SPAN / 4 + 76);
    measure_cached(random, &p, NULL, 1);
    guarded_free(p.memory.data);
}

static void caches(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(3 * CACHE_KINDS, CACHE_KINDS); i++)
        measure_cache_kind(&random, (enum cache_kind)(i % CACHE_KINDS), ATTN_F32, random_between(&random, 2, 40));
    for (size_t i = 1; i < sweep(3, 1) * CACHE_TYPES; i++)
        measure_cache_kind(&random, (enum cache_kind)random_below(&random, CACHE_KINDS), cache_types[i % CACHE_TYPES],
                           random_between(&random, 2, 40));
    measure_long_cache(&random);
    for (enum path path = CACHED; path < PATHS; path++)
        if (!path_seen[path] && (path != PACKED_KEYS || attn_tuning_for(test_isa())->in_place_value_size > 0))
            test_fail("no problem of the path \"%s\"", path_names[path]);
}

/* ---- Layer ---- */

struct layer_problem {
    attn_layer_config config;
    struct room memory, workspace;
    attn_layer *layer;
    attn_layer_args args;
    attn_cache_config cache_config;
    size_t batch, capacity;
    attn_layer_append_args append;
    struct blob blob;
};

static void layer_size(void *problem) {
    struct layer_problem *p = problem;
    note(attn_layer_size(&p->config, &p->memory.bytes, NULL));
}

static void layer_create_(void *problem) {
    struct layer_problem *p = problem;
    note(attn_layer_create(&p->config, p->memory.data, p->memory.bytes, &p->layer, NULL));
}

static void layer_export_size(void *problem) {
    struct layer_problem *p = problem;
    note(attn_layer_export_size(p->layer, ATTN_ISA_SCALAR, &p->blob.exported.bytes, NULL));
}

static void layer_export(void *problem) {
    struct layer_problem *p = problem;
    note(attn_layer_export(p->layer, ATTN_ISA_SCALAR, p->blob.exported.data, p->blob.exported.bytes, NULL));
}

static void layer_import_size(void *problem) {
    struct layer_problem *p = problem;
    note(attn_layer_import_size(&p->blob.config, &p->blob.memory.bytes, NULL));
}

static void layer_import(void *problem) {
    struct layer_problem *p = problem;
    note(attn_layer_import(&p->blob.config, p->blob.memory.data, p->blob.memory.bytes, &p->layer, NULL));
}

/* The layer is the imported one from then on. */
static void measure_layer_blob(struct layer_problem *p) {
    measure("layer_export_size", layer_export_size, p);
    room_take(&p->blob.exported);
    measure("layer_export", layer_export, p);
    blob_is_exported(&p->blob);
    measure("layer_import_size", layer_import_size, p);
    room_take(&p->blob.memory);
    measure("layer_import", layer_import, p);
}

static void layer_workspace(void *problem) {
    struct layer_problem *p = problem;
    note(attn_layer_workspace(p->layer, &p->args, &p->workspace.bytes, NULL));
}

static void layer_forward(void *problem) {
    struct layer_problem *p = problem;
    note(attn_layer_forward(p->layer, &p->args, p->workspace.data, p->workspace.bytes, NULL));
}

static void layer_cache_config(void *problem) {
    struct layer_problem *p = problem;
    note(attn_layer_cache_config(p->layer, BATCH, p->capacity, &p->cache_config, NULL));
}

static void layer_append_workspace(void *problem) {
    struct layer_problem *p = problem;
    note(attn_layer_append_workspace(p->layer, &p->append, &p->workspace.bytes, NULL));
}

static void layer_append(void *problem) {
    struct layer_problem *p = problem;
    note(attn_layer_append(p->layer, &p->append, p->workspace.data, p->workspace.bytes, NULL));
}

static void layer_kernels(void *problem) {
    struct layer_problem *p = problem;
    char text[200];
    note(attn_layer_kernels(p->layer, text, sizeof text) ? ATTN_OK : ATTN_BAD_VALUE);
}

static void measure_forward(const char *operation, struct layer_problem *p) {
    measure("layer_workspace", layer_workspace, p);
    room_take(&p->workspace);
    measure(operation, layer_forward, p);
    guarded_free(p->workspace.data);
}

static void measure_layer_append(struct layer_problem *p, attn_cache *cache) {
    p->append = (attn_layer_append_args){.len = p->args.kv_len, .k = p->args.k, .v = p->args.v, .cache = cache};
    p->append.rotary = p->args.options.rotary;
    p->append.parallel = p->args.parallel;
    measure("layer_append_workspace", layer_append_workspace, p);
    room_take(&p->workspace);
    measure("layer_append", layer_append, p);
    guarded_free(p->workspace.data);
}

/* From tensors, then from a cache with the same rows. */
static void measure_forwards(const struct layer_problem *problem, const attn_parallel *parallel) {
    struct layer_problem p = *problem;
    p.args.parallel = parallel;
    measure_forward("layer_forward", &p);
    measure("layer_cache_config", layer_cache_config, &p);
    struct cache_problem cache = measure_cache(&p.cache_config);
    measure_layer_append(&p, cache.cache);
    p.args.cache = cache.cache;
    p.args.kv_len = 0;
    measure_forward("layer_forward, cache", &p);
    guarded_free(cache.memory.data);
}

/* The layer of p->config, for rows of `width` that lie one after the other or so far apart that a copy of them is
 * quicker. */
static void measure_layer(struct test_random *random, struct layer_problem *p, size_t width) {
    attn_layer_args *args = &p->args;
    size_t between = random_below(random, 2) ? 1 : 4096 / sizeof(float) / width;
    struct tensor q = tensor_random(random, TEST_NORMAL, LAYOUT_BSHD, BATCH, between, args->q_len, width, FLUSH_END);
    struct tensor k = tensor_random(random, TEST_NORMAL, LAYOUT_BSHD, BATCH, between, args->kv_len, width, FLUSH_END);
    struct tensor y = tensor_new(LAYOUT_BHSD, BATCH, 1, args->q_len, p->config.hidden, FLUSH_END);
    args->batch = BATCH;
    args->q = tensor_rows(&q);
    args->k = args->v = tensor_rows(&k);
    args->y = tensor_rows_out(&y);
    measure("layer_size", layer_size, p);
    room_take(&p->memory);
    measure("layer_create", layer_create_, p);
    measure_layer_blob(p);
    measure("layer_kernels", layer_kernels, p);
    measure_forwards(p, NULL);
    measure_forwards(p, &in_turn);
    blob_free(&p->blob);
    guarded_free(p->memory.data);
    tensor_free(&q);
    tensor_free(&k);
    tensor_free(&y);
}

struct layer_shape {
    size_t hidden, heads, kv_heads, width, q_len, kv_len;
};

static void measure_layer_shape(struct test_random *random, const struct layer_shape *s, bool plain) {
    struct layer_problem p = {.config = {.isa = test_isa(), .hidden = s->hidden, .heads = s->heads}};
    p.config.kv_heads = s->kv_heads;
    p.config.query_width = p.config.key_width = p.config.value_width = s->width;
    struct layer_weights weights = layer_weights_new(random, &p.config, (unsigned)random_below(random, 16));
    struct drawn_options drawn = draw_options(random, BATCH, s->heads, s->q_len, 2 * s->kv_len);
    void *table = NULL;
    p.config = weights.config;
    p.capacity = 2 * s->kv_len; /* a measurement appends twice */
    p.args.q_len = s->q_len;
    p.args.kv_len = s->kv_len;
    if (!plain) {
        p.args.options = drawn.options;
        p.args.options.rotary = draw_rotary(random, 3 * s->kv_len + s->q_len, s->hidden / s->heads, &table);
        put_positions_in_table(&p.args.options);
    }
    test_case("hidden=%zu heads=%zu,%zu width=%zu q_len=%zu kv_len=%zu %s", s->hidden, s->heads, s->kv_heads, s->width,
              s->q_len, s->kv_len, options_text(&p.args.options));
    measure_layer(random, &p, s->width);
    guarded_free(table);
    drawn_options_free(&drawn);
    layer_weights_free(&weights);
}

static void layer(void **state) {
    (void)state;
    static const struct layer_shape shapes[] = {
        {100, 5, 5, 100, 10, 6},  {128, 1, 1, 64, 20, 32}, {96, 6, 2, 64, 40, 60},   {198, 3, 3, 64, 12, 300},
        {128, 2, 1, 64, 64, 300}, {66, 3, 3, 33, 1, 100},  {256, 2, 2, 512, 17, 20},
    };
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(4, 1); i++)
        for (size_t j = 0; j < sizeof shapes / sizeof *shapes; j++)
            measure_layer_shape(&random, &shapes[j], (i + j) % 2 == 0);
}

int main(int argc, char **argv) {
    static const char *const options[] = {"skip", NULL};
    test_init(argc, argv, options);
    if (reason_to_skip()) {
        printf("SKIP %s: %s\n", test_group(), reason_to_skip());
        return TEST_EXIT_SKIP;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rotary), cmocka_unit_test(attention_of_tensors), cmocka_unit_test(caches),
        cmocka_unit_test(layer),  cmocka_unit_test(print_maxima),
    };
    return test_run(tests);
}
