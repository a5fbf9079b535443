/* A hash of the result bits of each of some hundred calls: shapes for every path through the library, with each option.
 * The list is the same on every platform, byte order and ISA, and tests/hashes.txt holds it: where a line differs, bits
 * have changed.
 *
 *   hashes [--isa NAME] [--check FILE]
 *
 * Prints the list, or compares it with the file and prints the first difference. Exits with 77 for an ISA that cannot
 * run here. Inputs come from integers by exact operations alone. Stands by itself, without cmocka and without the
 * library's insides, so that it runs wherever a C compiler is. */
#include "hashes.h"

/* ---- Attention over tensors ---- */

/* Sizes after the path that plain attention takes there: few and small by one kernel, up to 16 and up to 32 keys; in
 * place by the product, a block and more; keys and values packed by each task, and by all before the first tile; spans
 * of 4096 keys, each an item. */
static const struct shape {
    const char *name;
    size_t batch, heads, kv_heads, q_len, kv_len, head_size, value_size;
    bool packed;   /* sequences of different lengths, one after the other */
    bool is_large; /* the first few options only */
    const attn_parallel *parallel;
} shapes[] = {
    {"few-keys", 2, 4, 2, 5, 13, 20, 20, false, false, NULL},
    {"small", 2, 2, 2, 20, 31, 33, 17, false, false, NULL},
    {"one-row", 3, 4, 1, 1, 290, 64, 64, false, false, NULL},
    {"in-place", 1, 4, 2, 3, 600, 16, 24, false, false, NULL},
    {"packed-per-task", 1, 2, 2, 70, 280, 20, 36, false, false, NULL},
    {"packed-by-all", 1, 4, 2, 60, 300, 24, 20, false, true, &three_tasks},
    {"spans", 1, 2, 1, 8, 4200, 12, 12, false, true, &three_tasks},
    {"wide-heads", 1, 1, 1, 19, 50, 150, 130, false, false, NULL},
    {"sequences", 4, 2, 1, 21, 40, 17, 9, true, false, NULL},
};

/* [batch, rows, heads, size], or the same without padding. */
static attn_tensor input(const struct shape *s, size_t heads, size_t rows, size_t size, attn_cu_lens *cu, size_t *n) {
    if (s->packed)
        cu->cu.i64 = starts_of(s->batch, rows, &cu->total);
    *n = (s->packed ? cu->total : s->batch * rows) * heads * size;
    return (attn_tensor){numbers(*n), ATTN_F32, rows * heads * size, size, heads * size, 1};
}

static void attention_case(const struct shape *s, const struct option *option) {
    case_begin("attention/%s/%s", s->name, option->name);
    attn_attention_args a = {.isa = now.isa, .batch = s->batch, .heads = s->heads, .kv_heads = s->kv_heads};
    a.arithmetic = ATTN_ARITHMETIC_PORTABLE;
    a.q_len = s->q_len;
    a.kv_len = s->kv_len;
    a.head_size = s->head_size;
    a.value_size = s->value_size;
    struct problem p = {s->batch, s->heads, s->q_len, s->kv_len, s->head_size, s->packed, {0}, {0}, 0, &a.options};
    a.q = input(s, s->heads, s->q_len, s->head_size, &a.q_cu, &p.length[0]);
    a.k = input(s, s->kv_heads, s->kv_len, s->head_size, &a.kv_cu, &p.length[1]);
    attn_cu_lens keys = a.kv_cu;
    p.length[2] = (s->packed ? keys.total : s->batch * s->kv_len) * s->kv_heads * s->value_size;
    a.v = (attn_tensor){numbers(p.length[2]),        ATTN_F32, s->kv_len * s->kv_heads * s->value_size, s->value_size,
                        s->kv_heads * s->value_size, 1};
    size_t row = s->heads * s->value_size, rows = s->packed ? a.q_cu.total : s->batch * s->q_len;
    a.o =
        (attn_tensor_out){typed_outputs(now.types->o, rows * row), now.types->o, s->q_len * row, s->value_size, row, 1};
    p.data[0] = a.q.data;
    p.data[1] = a.k.data;
    p.data[2] = a.v.data;
    a.parallel = s->parallel;
    option->choose(&p);
    a.scale = p.scale;
    give_type(&a.q, now.types->q, p.length[0]);
    give_type(&a.k, now.types->kv, p.length[1]);
    give_type(&a.v, now.types->kv, p.length[2]);
    run_attention(&a);
    hash_elements(now.types->o, a.o.data, rows * row);
    hash_outputs(&p);
    case_end();
}

/* ---- Attention over caches ---- */

enum { CACHE_BATCH = 2, CACHE_KV_HEADS = 2, CACHE_SIZE = 20, CACHE_VALUE_SIZE = 12, PAGE = 32 };

enum kind { PLAIN, RING, PAGES, FORK, KINDS };

static const char *const kind_names[KINDS] = {"plain", "ring", "pages", "fork"};

struct appending {
    attn_cache *cache;
    const attn_rotary *rotary;
};

/* A cache of BF16 is given floats, one of floats F16. */
static attn_tensor cache_rows(size_t rows, size_t size) {
    attn_tensor x = {numbers(rows * CACHE_KV_HEADS * size),
                     ATTN_F32,
                     rows / CACHE_BATCH * CACHE_KV_HEADS * size,
                     size,
                     CACHE_KV_HEADS * size,
                     1};
    if (now.types->kv == ATTN_F16)
        give_type(&x, ATTN_F16, rows * CACHE_KV_HEADS * size);
    return x;
}

static attn_type stored_type(void) {
    return now.types->kv == ATTN_BF16 ? ATTN_BF16 : ATTN_F32;
}

/* `len` keys for each sequence, or up to so many with lengths of their own. */
static void append(const struct appending *to, size_t len, bool uneven) {
    attn_cache_append_args args = {.len = len, .rotary = to->rotary};
    args.k = cache_rows(CACHE_BATCH * len, CACHE_SIZE);
    args.v = cache_rows(CACHE_BATCH * len, CACHE_VALUE_SIZE);
    if (uneven)
        args.lens.i64 = lengths(CACHE_BATCH, len);
    attn_error error = {0};
    ok(attn_cache_append(to->cache, &args, &error), &error);
}

static void append_packed(const struct appending *to, size_t len) {
    attn_cache_append_args args = {.len = len, .rotary = to->rotary};
    args.cu.cu.i64 = starts_of(CACHE_BATCH, len, &args.cu.total);
    args.k = cache_rows(args.cu.total, CACHE_SIZE);
    args.v = cache_rows(args.cu.total, CACHE_VALUE_SIZE);
    attn_error error = {0};
    ok(attn_cache_append(to->cache, &args, &error), &error);
}

/* Pages from the last to the first, taken by the sequences in turn. */
static void set_pages(attn_cache *cache, size_t count) {
    for (size_t b = 0; b < CACHE_BATCH; b++)
        for (size_t i = 0; i < count; i++) {
            int32_t page = (int32_t)(CACHE_BATCH * (count - 1 - i) + b);
            attn_error error = {0};
            ok(attn_cache_set_pages(cache, b, i, 1, &page, &error), &error);
        }
}

/* Of F8 with scales, E4M3 alone. */
static void choose_type(attn_cache_config *config) {
    static const float k_scales[CACHE_KV_HEADS] = {0.011f, 0.25f}, v_scales[CACHE_KV_HEADS] = {0.007f, 0.3f};
    if (now.cache == ATTN_F32)
        return;
    config->type = now.cache;
    config->k_scales = config->type == ATTN_F8_E4M3 ? k_scales : NULL;
    config->v_scales = config->type == ATTN_F8_E4M3 ? v_scales : NULL;
}

static attn_cache *new_cache(enum kind kind, size_t capacity) {
    attn_cache_config config = {.isa = now.isa,
                                .arithmetic = ATTN_ARITHMETIC_PORTABLE,
                                .batch = CACHE_BATCH,
                                .kv_heads = CACHE_KV_HEADS,
                                .head_size = CACHE_SIZE,
                                .value_size = CACHE_VALUE_SIZE,
                                .capacity = capacity,
                                .type = stored_type()};
    choose_type(&config);
    if (kind == RING)
        config.kind = ATTN_CACHE_RING;
    if (kind == PAGES) {
        config.kind = ATTN_CACHE_PAGED;
        config.page_size = PAGE;
        config.capacity = (capacity + PAGE - 1) / PAGE * PAGE;
        config.pages = CACHE_BATCH * config.capacity / PAGE;
    }
    attn_cache *cache = NULL;
    attn_error error = {0};
    size_t bytes = 0;
    ok(attn_cache_size(&config, &bytes, &error), &error);
    ok(attn_cache_create(&config, take(bytes), bytes, &cache, &error), &error);
    if (kind == PAGES)
        set_pages(cache, config.capacity / PAGE);
    return cache;
}

/* Continues from the first `len` keys, the sequences exchanged. */
static attn_cache *new_fork(const attn_cache *parent, size_t len, size_t capacity) {
    static const size_t sources[CACHE_BATCH] = {1, 0};
    attn_cache_fork_config config = {parent, CACHE_BATCH, sources, len, capacity};
    attn_cache *cache = NULL;
    attn_error error = {0};
    size_t bytes = 0;
    ok(attn_cache_fork_size(&config, &bytes, &error), &error);
    ok(attn_cache_fork(&config, take(bytes), bytes, &cache, &error), &error);
    return cache;
}

/* About `len` keys, in three pieces, the last few of one sequence forgotten. */
static attn_cache *fill_cache(enum kind kind, size_t len, const attn_rotary *rotary) {
    size_t first = len / 2, second = len / 3, third = len - first - second;
    struct appending to = {new_cache(kind, kind == RING ? (first + 55) / 16 * 16 : len), rotary};
    append(&to, first, false);
    if (kind == FORK)
        to.cache = new_fork(to.cache, first - 5, len);
    append(&to, second, true);
    append_packed(&to, third);
    attn_error error = {0};
    ok(attn_cache_truncate(to.cache, 0, attn_cache_length(to.cache, 0) - 2, &error), &error);
    return to.cache;
}

static void cache_case(enum kind kind, size_t len, const struct option *option, const attn_parallel *parallel) {
    case_begin("cache/%s/%zu-keys/%s%s", kind_names[kind], len, option->name, parallel ? "/three-tasks" : "");
    enum { HEADS = 2 * CACHE_KV_HEADS, ROWS = 3 };
    attn_attention_args a = {.isa = now.isa, .batch = CACHE_BATCH, .heads = HEADS, .kv_heads = CACHE_KV_HEADS};
    a.q_len = ROWS;
    a.head_size = CACHE_SIZE;
    a.value_size = CACHE_VALUE_SIZE;
    struct problem p = {CACHE_BATCH, HEADS, ROWS, len, CACHE_SIZE, false, {0}, {0}, 0, &a.options};
    bool rotated = option->choose == rotary || option->choose == everything;
    const attn_rotary *table = rotated ? new_rotary(len + 9, CACHE_SIZE, ATTN_ROTARY_HALVES, 0) : NULL;
    a.cache = fill_cache(kind, len, table);
    p.kv_len = attn_cache_length(a.cache, ATTN_ALL_SEQUENCES);
    a.parallel = parallel;
    option->choose(&p);
    if (rotated)
        a.options.rotary = table;
    a.scale = p.scale;
    a.q = (attn_tensor){numbers(CACHE_BATCH * HEADS * ROWS * CACHE_SIZE),
                        ATTN_F32,
                        HEADS * ROWS * CACHE_SIZE,
                        ROWS * CACHE_SIZE,
                        CACHE_SIZE,
                        1};
    give_type(&a.q, now.types->q, (size_t)CACHE_BATCH * HEADS * ROWS * CACHE_SIZE);
    size_t n = (size_t)CACHE_BATCH * HEADS * ROWS * CACHE_VALUE_SIZE;
    a.o = (attn_tensor_out){typed_outputs(now.types->o, n), now.types->o,     n / CACHE_BATCH,
                            ROWS * CACHE_VALUE_SIZE,        CACHE_VALUE_SIZE, 1};
    run_attention(&a);
    hash_elements(now.types->o, a.o.data, n);
    hash_outputs(&p);
    case_end();
}

static void cache_cases(void) {
    const struct option *causally = &all_options[1];
    for (int kind = PLAIN; kind < KINDS; kind++) {
        for (size_t i = 0; i < FEW_OPTIONS; i++)
            cache_case((enum kind)kind, 100, &all_options[i], NULL);
        cache_case((enum kind)kind, 700, causally, NULL);
        cache_case((enum kind)kind, 4500, causally, &three_tasks);
    }
}

/* ---- Weights ---- */

static void *random_bytes(size_t n) {
    uint8_t *bytes = take(n);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)below(256);
    return bytes;
}

/* Of ordinary size and either sign. */
static void *halves(size_t n) {
    uint16_t *x = take(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (uint16_t)(below(2) * 0x8000 + 0x2000 + below(0x1800));
    return x;
}

static void quantise(attn_linear *w, size_t in, size_t out) {
    const struct quantised *kind = now.types->weights;
    bool int4 = kind->type == ATTN_INT4;
    size_t pieces = kind->block ? in / kind->block : 1;
    w->type = kind->type;
    if (kind->type == ATTN_F16) {
        w->weight = cut(ATTN_F16, numbers(in * out), in * out);
        return;
    }
    w->dequantised = kind->dequantised;
    w->weight = random_bytes(int4 ? in * out / 2 : in * out);
    w->scale_type = kind->scale_type;
    w->scales = kind->scale_type == ATTN_F16 ? halves(out * pieces) : (void *)numbers(out * pieces);
    w->block = kind->block;
    w->zero_points = kind->has_zero_points ? random_bytes(out * (int4 ? (pieces + 1) / 2 : pieces)) : NULL;
}

static attn_linear linear(size_t in, size_t out, bool is_transposed, bool has_bias) {
    attn_linear w = {.in_stride = is_transposed ? 1 : out, .out_stride = is_transposed ? in : 1};
    if (now.types->weights) {
        quantise(&w, in, out);
    } else {
        w.type = stored_type();
        w.weight = cut(w.type, numbers(in * out), in * out);
    }
    if (has_bias)
        w.bias = numbers(out);
    return w;
}

/* ---- The layer ---- */

static const struct layer_shape {
    const char *name;
    size_t query_width, key_width, value_width, hidden, heads, kv_heads, batch, q_len, kv_len;
    bool has_bias, is_transposed, packed;
    const attn_parallel *parallel;
} layer_shapes[] = {
    {"d2l", 20, 24, 18, 40, 5, 5, 2, 4, 6, false, true, false, NULL},
    {"bias", 32, 32, 32, 32, 2, 2, 2, 40, 40, true, true, false, NULL},
    {"shared-kv-heads", 48, 40, 36, 96, 6, 2, 1, 70, 90, true, false, false, NULL},
    {"sequences", 30, 28, 26, 36, 3, 1, 3, 17, 19, false, false, true, NULL},
    {"three-tasks", 64, 64, 64, 64, 4, 4, 2, 50, 130, true, true, false, &three_tasks},
};

static attn_linear layer_linear(size_t in, size_t out, const struct layer_shape *s) {
    return linear(in, out, s->is_transposed, s->has_bias);
}

static attn_layer *new_layer(const struct layer_shape *s) {
    attn_layer_config config = {.isa = now.isa, .hidden = s->hidden, .heads = s->heads, .kv_heads = s->kv_heads};
    config.arithmetic = ATTN_ARITHMETIC_PORTABLE;
    config.query_width = s->query_width;
    config.key_width = s->key_width;
    config.value_width = s->value_width;
    config.scale = 0x1p-4f;
    config.kv_type = stored_type();
    size_t kv_hidden = s->hidden / s->heads * s->kv_heads;
    config.w_q = layer_linear(s->query_width, s->hidden, s);
    config.w_k = layer_linear(s->key_width, kv_hidden, s);
    config.w_v = layer_linear(s->value_width, kv_hidden, s);
    config.w_o = layer_linear(s->hidden, s->hidden, s);
    attn_layer *layer = NULL;
    attn_error error = {0};
    size_t bytes = 0;
    ok(attn_layer_size(&config, &bytes, &error), &error);
    ok(attn_layer_create(&config, take(bytes), bytes, &layer, &error), &error);
    return layer;
}

static attn_tensor rows_in(const struct layer_shape *s, size_t len, size_t size, const attn_cu_lens *cu) {
    size_t n = (cu->cu.i64 ? cu->total : s->batch * len) * size;
    attn_tensor x = {numbers(n), ATTN_F32, len * size, 0, size, 1};
    give_type(&x, now.types->q, n);
    return x;
}

static attn_layer_args layer_args(const struct layer_shape *s) {
    attn_layer_args a = {.batch = s->batch, .q_len = s->q_len, .kv_len = s->kv_len};
    if (s->packed) {
        a.q_cu.cu.i64 = starts_of(s->batch, s->q_len, &a.q_cu.total);
        a.kv_cu.cu.i64 = starts_of(s->batch, s->kv_len, &a.kv_cu.total);
    }
    a.q = rows_in(s, s->q_len, s->query_width, &a.q_cu);
    a.k = rows_in(s, s->kv_len, s->key_width, &a.kv_cu);
    a.v = rows_in(s, s->kv_len, s->value_width, &a.kv_cu);
    a.y = (attn_tensor_out){typed_outputs(now.types->o, s->batch * s->q_len * s->hidden),
                            now.types->o,
                            s->q_len * s->hidden,
                            0,
                            s->hidden,
                            1};
    a.parallel = s->parallel;
    return a;
}

static void forward(const attn_layer *layer, const attn_layer_args *args, size_t hidden) {
    attn_error error = {0};
    size_t bytes = 0;
    ok(attn_layer_workspace(layer, args, &bytes, &error), &error);
    ok(attn_layer_forward(layer, args, take(bytes), bytes, &error), &error);
    hash_elements(now.types->o, args->y.data, args->batch * args->q_len * hidden);
}

static void layer_case(const struct layer_shape *s, const struct option *option) {
    case_begin("layer/%s/%s", s->name, option->name);
    attn_layer *layer = new_layer(s);
    attn_layer_args a = layer_args(s);
    struct problem p = {s->batch,  s->heads, s->q_len, s->kv_len, s->hidden / s->heads,
                        s->packed, {0},      {0},      0,         &a.options};
    option->choose(&p);
    forward(layer, &a, s->hidden);
    hash_outputs(&p);
    case_end();
}

/* All keys but the last are projected first, the last are appended one at a time: a step of decoding for each. */
static void layer_cache_case(const struct layer_shape *s, enum kind kind) {
    case_begin("layer/%s/cache/%s", s->name, kind_names[kind]);
    attn_layer *layer = new_layer(s);
    attn_layer_args a = layer_args(s);
    attn_cache_config config;
    attn_layer_append_args append_args = {.k = a.k, .v = a.v, .parallel = s->parallel};
    attn_error error = {0};
    size_t bytes = 0, done = 0;
    ok(attn_layer_cache_config(layer, s->batch, s->kv_len, &config, &error), &error);
    choose_type(&config);
    config.kind = kind == RING ? ATTN_CACHE_RING : ATTN_CACHE_PLAIN;
    ok(attn_cache_size(&config, &bytes, &error), &error);
    ok(attn_cache_create(&config, take(bytes), bytes, &append_args.cache, &error), &error);
    a.cache = append_args.cache;
    a.options.causal = 1;
    a.q_len = 1;
    for (size_t step = 0; step < 4; step++) {
        append_args.len = step == 0 ? s->kv_len - 3 : 1;
        size_t element = now.types->q == ATTN_F32 ? sizeof(float) : sizeof(uint16_t);
        append_args.k.data = (const char *)a.k.data + done * s->key_width * element;
        append_args.v.data = (const char *)a.v.data + done * s->value_width * element;
        done += append_args.len;
        ok(attn_layer_append_workspace(layer, &append_args, &bytes, &error), &error);
        ok(attn_layer_append(layer, &append_args, take(bytes), bytes, &error), &error);
        a.kv_len = done;
        forward(layer, &a, s->hidden);
    }
    case_end();
}

static void layer_cases(void) {
    static const struct option some[] = {
        {"plain", plain},     {"valid-per-sequence", valid_per_sequence},
        {"causal", causal},   {"rotary", rotary},
        {"dropout", dropout}, {"everything", everything},
    };
    for (size_t i = 0; i < COUNT(layer_shapes); i++) {
        for (size_t j = 0; j < COUNT(some); j++)
            layer_case(&layer_shapes[i], &some[j]);
        if (layer_shapes[i].packed)
            continue;
        layer_cache_case(&layer_shapes[i], PLAIN);
        layer_cache_case(&layer_shapes[i], RING);
    }
}

/* ---- Merging parts ---- */

static void merge_case(size_t parts, size_t heads, size_t q_len, size_t size, const attn_parallel *parallel) {
    case_begin("merge/%zu-parts/%zux%zux%zu", parts, heads, q_len, size);
    attn_tensor o[8];
    attn_tensor log_sum_exp_of[8];
    size_t rows = 2 * heads * q_len;
    for (size_t i = 0; i < parts; i++) {
        float *lse = numbers(rows);
        lse[below(rows)] = float_of(0xff800000);
        log_sum_exp_of[i] = (attn_tensor){.data = lse};
        o[i] = (attn_tensor){numbers(rows * size), ATTN_F32, heads * q_len * size, q_len * size, size, 1};
        give_type(&o[i], now.types->q, rows * size);
    }
    attn_merge_args args = {.isa = now.isa, .parts = parts, .batch = 2, .heads = heads, .q_len = q_len};
    args.value_size = size;
    args.o = o;
    args.log_sum_exp = log_sum_exp_of;
    args.merged_log_sum_exp.data = outputs(rows);
    args.parallel = parallel;
    attn_type type = now.types->o;
    args.merged =
        (attn_tensor_out){typed_outputs(type, rows * size), type, heads * q_len * size, q_len * size, size, 1};
    attn_error error = {0};
    ok(attn_merge(&args, &error), &error);
    hash_elements(type, args.merged.data, rows * size);
    hash_floats(args.merged_log_sum_exp.data, rows);
    case_end();
}

/* ---- Kernels ---- */

/* Rows of x `gap` floats further apart than they are long. */
static void gemm_case(size_t m, size_t n, size_t k, size_t gap, bool is_transposed, const attn_parallel *parallel) {
    case_begin("gemm/%zux%zux%zu/%s%s", m, n, k, is_transposed ? "out-in" : "in-out", gap ? "/gap" : "");
    attn_gemm_config config = {.isa = now.isa, .k = k, .n = n, .arithmetic = ATTN_ARITHMETIC_PORTABLE};
    config.w = linear(k, n, is_transposed, is_transposed);
    attn_gemm *gemm = NULL;
    attn_error error = {0};
    size_t bytes = 0;
    ok(attn_gemm_size(&config, &bytes, &error), &error);
    ok(attn_gemm_create(&config, take(bytes), bytes, &gemm, &error), &error);
    attn_gemm_run_args args = {.m = m, .parallel = parallel};
    args.y = (attn_tensor_out){.data = typed_outputs(now.types->o, m * n), .type = now.types->o, .row_stride = n};
    args.x = (attn_tensor){.data = numbers(m * (k + gap)), .row_stride = k + gap};
    give_type(&args.x, now.types->q, m * (k + gap));
    ok(attn_gemm_workspace(gemm, &args, &args.workspace_bytes, &error), &error);
    args.workspace = args.workspace_bytes ? take(args.workspace_bytes) : NULL;
    ok(attn_gemm_run(gemm, &args, &error), &error);
    hash_elements(now.types->o, args.y.data, m * n);
    case_end();
}

static void gemm_cases(void) {
    static const size_t sizes[][3] = {{1, 1, 1},   {1, 100, 40}, {2, 33, 65},   {6, 16, 24},
                                      {9, 70, 31}, {30, 48, 64}, {100, 40, 33}, {64, 97, 96}};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        gemm_case(sizes[i][0], sizes[i][1], sizes[i][2], 0, false, NULL);
        gemm_case(sizes[i][0], sizes[i][1], sizes[i][2], 3, true, NULL);
    }
    gemm_case(120, 80, 60, 1024 - 60, true, &three_tasks); /* rows a multiple of 4 KiB apart */
}

static void softmax_case(size_t cols, attn_valid_kind kind, attn_empty_rows empty, bool in_place) {
    static const char *const kinds[] = {"all", "per-sequence", "per-row"};
    case_begin("softmax/%zu/%s%s%s", cols, kinds[kind], empty == ATTN_EMPTY_MEAN ? "/mean" : "",
               in_place ? "/in-place" : "");
    enum { BATCH = 2, ROWS = 5 };
    const size_t n = BATCH * ROWS * cols;
    attn_softmax_args args = {.isa = now.isa, .batch = BATCH, .rows = ROWS, .cols = cols, .empty = empty};
    args.x = (attn_tensor){numbers(n), ATTN_F32, ROWS * cols, 0, cols, 1};
    give_type(&args.x, now.types->q, n);
    void *y = in_place ? (void *)(uintptr_t)args.x.data : typed_outputs(now.types->o, n);
    args.y = (attn_tensor_out){y, now.types->o, ROWS * cols, 0, cols, 1};
    args.valid.kind = kind;
    if (kind != ATTN_VALID_ALL)
        args.valid.lens.i64 = lengths((size_t)BATCH * ROWS, cols);
    attn_error error = {0};
    ok(attn_masked_softmax(&args, &error), &error);
    hash_elements(now.types->o, y, n);
    case_end();
}

static void softmax_cases(void) {
    static const size_t cols[] = {1, 7, 16, 33, 100, 300, 1000};
    for (size_t i = 0; i < COUNT(cols); i++) {
        softmax_case(cols[i], ATTN_VALID_ALL, ATTN_EMPTY_ZERO, i % 2 == 0);
        softmax_case(cols[i], ATTN_VALID_PER_SEQUENCE, ATTN_EMPTY_ZERO, i % 2 == 1);
        softmax_case(cols[i], ATTN_VALID_PER_ROW, ATTN_EMPTY_MEAN, false);
    }
}

static void transpose_case(size_t len, size_t heads, size_t head_size, size_t gap) {
    case_begin("transpose/%zux%zux%zu%s", len, heads, head_size, gap ? "/gap" : "");
    enum { BATCH = 2 };
    size_t row = heads * head_size + gap, n = BATCH * len * heads * head_size;
    attn_type from = now.types->q, to = now.types->o;
    void *split = typed_outputs(to, n), *merged = typed_outputs(from, BATCH * len * row);
    attn_transpose_args args = {.isa = now.isa, .batch = BATCH, .len = len, .heads = heads, .head_size = head_size};
    args.x = (attn_tensor){numbers(BATCH * len * row), ATTN_F32, len * row, 0, row, 1};
    give_type(&args.x, from, BATCH * len * row);
    args.y = (attn_tensor_out){.data = split, .type = to};
    attn_error error = {0};
    ok(attn_transpose_qkv(&args, &error), &error);
    args.x = (attn_tensor){.data = split, .type = to};
    args.y = (attn_tensor_out){merged, from, len * row, 0, row, 1};
    ok(attn_transpose_output(&args, &error), &error);
    hash_elements(to, split, n);
    hash_elements(from, merged, BATCH * len * row);
    case_end();
}

/* ---- Types ---- */

/* Of each shape the first options, those of everything with one shape; caches of each kind; layers; products. */
static void bf16_cases(void) {
    static const struct types bf16 = {"bf16/", ATTN_BF16, ATTN_BF16, ATTN_BF16, NULL};
    now.types = &bf16;
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (size_t j = 0; j < FEW_OPTIONS; j++)
            attention_case(&shapes[i], &all_options[j]);
    for (size_t j = FEW_OPTIONS; j < option_count; j++)
        attention_case(&shapes[4], &all_options[j]);
    cache_cases();
    layer_cases();
    gemm_cases();
}

static void typed_cases(void) {
    static const struct types some[] = {{"f16/", ATTN_F16, ATTN_F16, ATTN_F16, NULL},
                                        {"f32-bf16-f32/", ATTN_F32, ATTN_BF16, ATTN_F32, NULL},
                                        {"f16-bf16-f16/", ATTN_F16, ATTN_BF16, ATTN_F16, NULL},
                                        {"bf16-f32-f16/", ATTN_BF16, ATTN_F32, ATTN_F16, NULL}};
    bf16_cases();
    for (size_t i = 0; i < COUNT(some); i++) {
        now.types = &some[i];
        for (size_t j = 0; j < FEW_OPTIONS; j++) {
            attention_case(&shapes[0], &all_options[j]);
            attention_case(&shapes[4], &all_options[j]);
            cache_case(PLAIN, 100, &all_options[j], NULL);
        }
        layer_case(&layer_shapes[1], &all_options[0]);
        layer_case(&layer_shapes[3], &all_options[6]);
        gemm_case(30, 48, 64, 0, false, NULL);
        gemm_case(1, 33, 65, 3, true, NULL);
    }
    now.types = &all_f32;
}

/* Softmax, transposes and merging, of 16-bit elements. */
static void typed_row_cases(void) {
    static const struct types some[] = {{"bf16/", ATTN_BF16, ATTN_BF16, ATTN_BF16, NULL},
                                        {"f16/", ATTN_F16, ATTN_F16, ATTN_F16, NULL},
                                        {"f32-f32-bf16/", ATTN_F32, ATTN_F32, ATTN_BF16, NULL},
                                        {"f16-f32-f32/", ATTN_F16, ATTN_F32, ATTN_F32, NULL},
                                        {"bf16-f32-f16/", ATTN_BF16, ATTN_F32, ATTN_F16, NULL}};
    for (size_t i = 0; i < COUNT(some); i++) {
        now.types = &some[i];
        softmax_case(33, ATTN_VALID_PER_ROW, ATTN_EMPTY_MEAN, false);
        softmax_case(300, ATTN_VALID_PER_SEQUENCE, ATTN_EMPTY_ZERO, i < 2);
        softmax_case(5000, ATTN_VALID_ALL, ATTN_EMPTY_ZERO, false);
        transpose_case(6, 5, 20, 0);
        transpose_case(17, 3, 33, 5);
        merge_case(3, 2, 7, 20, NULL);
        merge_case(4, 1, 2, 1300, &three_tasks);
    }
    now.types = &all_f32;
}

static void bias_cases(void) {
    static const struct option some[] = {
        {"bias-factors", bias_factors}, {"bias-bf16", bias_bf16}, {"bias-f16-columns", bias_f16_columns}};
    static const struct types bf16 = {"bf16/", ATTN_BF16, ATTN_BF16, ATTN_BF16, NULL};
    const struct types *const both[] = {&all_f32, &bf16};
    for (size_t i = 0; i < COUNT(both); i++) {
        now.types = both[i];
        for (size_t j = 0; j < COUNT(some); j++) {
            for (size_t shape = 0; shape < 5; shape++)
                attention_case(&shapes[shape], &some[j]);
            cache_case(PLAIN, 700, &some[j], NULL);
            layer_case(&layer_shapes[1], &some[j]);
        }
    }
    now.types = &all_f32;
}

/* Products and layers with weights of INT8: any sizes, and more rows of weights than are added up as one integer. */
static void int8_cases(void) {
    static const struct quantised int8 = {.type = ATTN_INT8};
    static const struct types f32_int8 = {"f32-int8/", ATTN_F32, ATTN_F32, ATTN_F32, &int8},
                              bf16_int8 = {"bf16-int8/", ATTN_BF16, ATTN_BF16, ATTN_F16, &int8};
    now.types = &f32_int8;
    layer_cases();
    gemm_cases();
    gemm_case(2, 3, 65700, 0, false, NULL);
    now.types = &bf16_int8;
    layer_case(&layer_shapes[1], &all_options[0]);
    gemm_case(30, 48, 64, 0, false, NULL);
}

/* Of F16. */
static void f16_cases(void) {
    static const struct quantised f16 = {.type = ATTN_F16};
    static const struct types f32_f16 = {"f32-f16/", ATTN_F32, ATTN_F32, ATTN_F32, &f16},
                              f16_f16 = {"f16-f16/", ATTN_F16, ATTN_F16, ATTN_F16, &f16};
    now.types = &f32_f16;
    gemm_cases();
    layer_case(&layer_shapes[1], &all_options[0]);
    layer_case(&layer_shapes[2], &all_options[0]);
    layer_cache_case(&layer_shapes[2], PLAIN);
    now.types = &f16_f16;
    layer_case(&layer_shapes[1], &all_options[0]);
    gemm_case(30, 48, 64, 0, false, NULL);
}

/* Of INT4, and of INT8 with blocks: sizes that every block divides. */
static void block_cases(const struct types *types) {
    static const size_t sizes[][3] = {{1, 100, 256}, {2, 33, 128}, {9, 70, 384}, {30, 48, 128}, {100, 40, 256}};
    const char *name = types->weights->type == ATTN_INT4 ? "int4" : "blocks";
    const struct layer_shape shape = {name, 128, 256, 128, 128, 4, 2, 2, 7, 9, true, true, false, NULL};
    now.types = types;
    for (size_t i = 0; i < COUNT(sizes); i++)
        gemm_case(sizes[i][0], sizes[i][1], sizes[i][2], i % 2 * 3, true, i == 4 ? &three_tasks : NULL);
    layer_case(&shape, &all_options[0]);
    layer_cache_case(&shape, PLAIN);
}

static void quantised_cases(void) {
    static const struct quantised kinds[] = {
        {ATTN_INT4, 32, ATTN_F32, false, false}, {ATTN_INT4, 32, ATTN_F16, true, false},
        {ATTN_INT4, 64, ATTN_F16, false, false}, {ATTN_INT4, 128, ATTN_F32, true, false},
        {ATTN_INT4, 32, ATTN_F16, true, true},   {ATTN_INT4, 64, ATTN_F32, false, true},
        {ATTN_INT4, 128, ATTN_F16, true, true}};
    const struct types types[] = {{"f32-int4/32/", ATTN_F32, ATTN_F32, ATTN_F32, &kinds[0]},
                                  {"f32-int4/32-f16-zero/", ATTN_F32, ATTN_F32, ATTN_F32, &kinds[1]},
                                  {"bf16-int4/64-f16/", ATTN_BF16, ATTN_BF16, ATTN_BF16, &kinds[2]},
                                  {"f16-int4/128-zero/", ATTN_F16, ATTN_F32, ATTN_F32, &kinds[3]},
                                  {"f32-int4/32-f16-zero-dequantised/", ATTN_F32, ATTN_F32, ATTN_F32, &kinds[4]},
                                  {"bf16-int4/64-dequantised/", ATTN_BF16, ATTN_BF16, ATTN_BF16, &kinds[5]},
                                  {"f16-int4/128-f16-zero-dequantised/", ATTN_F16, ATTN_F32, ATTN_F32, &kinds[6]}};
    int8_cases();
    for (size_t i = 0; i < COUNT(types); i++)
        block_cases(&types[i]);
    f16_cases();
    now.types = &all_f32;
}

/* Of INT8 with blocks. */
static void int8_block_cases(void) {
    static const struct quantised kinds[] = {{ATTN_INT8, 32, ATTN_F16, false, false},
                                             {ATTN_INT8, 32, ATTN_F32, true, false},
                                             {ATTN_INT8, 64, ATTN_F16, true, false},
                                             {ATTN_INT8, 128, ATTN_F32, false, false}};
    const struct types types[] = {{"f32-int8/32-f16/", ATTN_F32, ATTN_F32, ATTN_F32, &kinds[0]},
                                  {"f32-int8/32-zero/", ATTN_F32, ATTN_F32, ATTN_F32, &kinds[1]},
                                  {"bf16-int8/64-f16-zero/", ATTN_BF16, ATTN_BF16, ATTN_BF16, &kinds[2]},
                                  {"f16-int8/128/", ATTN_F16, ATTN_F32, ATTN_F32, &kinds[3]}};
    for (size_t i = 0; i < COUNT(types); i++)
        block_cases(&types[i]);
    now.types = &all_f32;
}

/* Caches of every kind, and a layer's, in the types that no tensor, or no product with it, has. */
static void cache_type_cases(void) {
    static const struct {
        struct types types;
        attn_type cache;
    } some[] = {{{"f32-cache_f16/", ATTN_F32, ATTN_F32, ATTN_F32, NULL}, ATTN_F16},
                {{"f32-cache_int8/", ATTN_F32, ATTN_F32, ATTN_F32, NULL}, ATTN_INT8},
                {{"f32-cache_f8_e4m3/", ATTN_F32, ATTN_F32, ATTN_F32, NULL}, ATTN_F8_E4M3},
                {{"f32-cache_f8_e5m2/", ATTN_F32, ATTN_F32, ATTN_F32, NULL}, ATTN_F8_E5M2},
                {{"f16-cache_int8/", ATTN_F16, ATTN_F16, ATTN_F16, NULL}, ATTN_INT8}};
    for (size_t i = 0; i < COUNT(some); i++) {
        now.types = &some[i].types;
        now.cache = some[i].cache;
        cache_cases();
        layer_cache_case(&layer_shapes[1], PLAIN);
        layer_cache_case(&layer_shapes[1], RING);
    }
    now.types = &all_f32;
    now.cache = ATTN_F32;
}

/* ---- The list ---- */

static void all_cases(void) {
    gemm_cases();
    softmax_cases();
    transpose_case(1, 1, 1, 0);
    transpose_case(6, 5, 20, 0);
    transpose_case(17, 3, 64, 5);
    transpose_case(40, 4, 33, 1024 - 132); /* rows a multiple of 4 KiB apart */
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (size_t j = 0; j < (shapes[i].is_large ? FEW_OPTIONS : option_count); j++)
            attention_case(&shapes[i], &all_options[j]);
    cache_cases();
    layer_cases();
    merge_case(1, 1, 3, 5, NULL);
    merge_case(3, 2, 7, 20, NULL);
    merge_case(8, 3, 40, 33, &three_tasks);
    typed_cases();
    typed_row_cases();
    bias_cases();
    quantised_cases();
    cache_type_cases();
    int8_block_cases();
}

static void read_options(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2)
        if (strcmp(argv[i], "--isa") == 0 && attn_isa_from_name(argv[i + 1], &now.isa) == ATTN_OK)
            continue;
        else if (strcmp(argv[i], "--check") == 0 && (now.expected = fopen(now.path = argv[i + 1], "r")))
            continue;
        else
            stop("usage: hashes [--isa NAME] [--check FILE]");
    if (argc % 2 == 0)
        stop("usage: hashes [--isa NAME] [--check FILE]");
    if (now.isa == ATTN_ISA_BEST)
        now.isa = attn_isa_chosen();
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    now.types = &all_f32;
    if (!attn_isa_supported(now.isa)) {
        printf("SKIP: %s cannot run here\n", attn_isa_name(now.isa));
        return 77;
    }
    all_cases();
    if (now.expected) {
        compare("end of file\n");
        fclose(now.expected);
        printf("%zu hashes on %s as in %s\n", now.cases, attn_isa_name(now.isa), now.path);
    }
    return 0;
}
