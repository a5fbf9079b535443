#include "faults.h"

#include "cpu.h"

/* ---- The processor ---- */

attn_isa unsupported_isa(void) {
    int isa = ATTN_ISA_COUNT - 1;
    while (isa > ATTN_ISA_SCALAR && !attn_isa_built((attn_isa)isa))
        isa--;
    return isa > ATTN_ISA_SCALAR ? (attn_isa)isa : ATTN_ISA_BEST;
}

attn_isa missing_isa(void) {
    int isa = ATTN_ISA_SCALAR;
    while (isa < ATTN_ISA_COUNT && attn_isa_built((attn_isa)isa))
        isa++;
    return (attn_isa)isa;
}

/* The linker takes these instead of the library's own. */
void attn_cpu_read(struct attn_cpu_registers *registers) {
    *registers = (struct attn_cpu_registers){0};
}

bool attn_cpu_supports(const struct attn_cpu_registers *registers, attn_isa isa) {
    (void)registers;
    return isa == ATTN_ISA_SCALAR; /* which runs on any machine, so that calls with ATTN_ISA_BEST compute too */
}

bool attn_cpu_is_slow_at_pairs(const struct attn_cpu_registers *registers) {
    (void)registers;
    return false;
}

/* ---- Valid arguments ---- */

struct arena arena, before;

static void must_not_run(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count) {
    (void)context;
    (void)task;
    (void)arg;
    test_fail("%zu tasks were run", count);
}

static attn_linear linear(size_t out, int with_bias) {
    return (attn_linear){.weight = arena.w, .in_stride = out, .out_stride = 1, .bias = with_bias ? arena.w : NULL};
}

static attn_layer_config layer_config(void) {
    attn_layer_config config = {.isa = ATTN_ISA_SCALAR, .hidden = HIDDEN, .heads = HEADS, .kv_heads = KV_HEADS};
    config.query_width = QUERY_WIDTH;
    config.key_width = KEY_WIDTH;
    config.value_width = VALUE_WIDTH;
    config.w_q = linear(HIDDEN, 1);
    config.w_k = linear(KV_HIDDEN, 0);
    config.w_v = linear(KV_HIDDEN, 1);
    config.w_o = linear(HIDDEN, 0);
    return config;
}

static attn_rotary_config rotary_config(size_t dims) {
    return (attn_rotary_config){.positions = POSITIONS, .dims = dims};
}

attn_cache_config cache_config(void) {
    attn_cache_config config = {.isa = ATTN_ISA_SCALAR, .batch = BATCH, .kv_heads = KV_HEADS, .head_size = HEAD_SIZE};
    config.value_size = VALUE_SIZE;
    config.capacity = CAPACITY;
    return config;
}

attn_cu_lens packed(int64_t first, int64_t second, int64_t third, size_t total) {
    arena.cu[0] = first;
    arena.cu[1] = second;
    arena.cu[2] = third;
    return (attn_cu_lens){.cu.i64 = arena.cu, .total = total};
}

const int64_t *two_lens(int64_t first, int64_t second) {
    arena.lens[0] = first;
    arena.lens[1] = second;
    return arena.lens;
}

static attn_softmax_args softmax_args(void) {
    attn_softmax_args args = {.isa = ATTN_ISA_SCALAR, .batch = BATCH, .rows = ROWS, .cols = COLS};
    args.x.data = arena.q;
    args.y.data = arena.o;
    args.x.batch_stride = args.y.batch_stride = ROWS * COLS;
    args.x.row_stride = args.y.row_stride = COLS;
    args.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = arena.lens};
    return args;
}

static attn_transpose_args transpose_args(void) {
    attn_transpose_args args = {.isa = ATTN_ISA_SCALAR, .batch = BATCH, .len = Q_LEN, .heads = HEADS};
    args.head_size = HEAD_SIZE;
    args.x.data = arena.q;
    args.y.data = arena.o;
    return args;
}

static attn_tensor keys(void) {
    return (attn_tensor){arena.k, ATTN_F32, KV_HEADS * KV_LEN * HEAD_SIZE, KV_LEN * HEAD_SIZE, HEAD_SIZE, 1};
}

static attn_tensor values(void) {
    return (attn_tensor){arena.v, ATTN_F32, KV_HEADS * KV_LEN * VALUE_SIZE, KV_LEN * VALUE_SIZE, VALUE_SIZE, 1};
}

static attn_options options(void) {
    attn_options options = {.valid = {.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = arena.lens},
                            .starts.i64 = arena.starts};
    options.mask = (attn_tensor){arena.mask, ATTN_BOOL, HEADS * Q_LEN * KV_LEN, Q_LEN * KV_LEN, KV_LEN, 1};
    options.soft_cap = 10;
    options.alibi = arena.alibi;
    options.bias = (attn_tensor){arena.bias, ATTN_F32, HEADS * Q_LEN * KV_LEN, Q_LEN * KV_LEN, KV_LEN, 1};
    options.bias_factors = arena.factors;
    options.sinks = arena.sinks;
    options.weights.data = arena.weights;
    options.scores.data = arena.scores;
    options.log_sum_exp.data = arena.log_sum_exp;
    return options;
}

static attn_attention_args attention_args(void) {
    attn_attention_args args = {.isa = ATTN_ISA_SCALAR, .batch = BATCH, .heads = HEADS, .kv_heads = KV_HEADS};
    args.q_len = Q_LEN;
    args.kv_len = KV_LEN;
    args.head_size = HEAD_SIZE;
    args.value_size = VALUE_SIZE;
    args.q = (attn_tensor){arena.q, ATTN_F32, HEADS * Q_LEN * HEAD_SIZE, Q_LEN * HEAD_SIZE, HEAD_SIZE, 1};
    args.k = keys();
    args.v = values();
    args.o = (attn_tensor_out){arena.o, ATTN_F32, HEADS * Q_LEN * VALUE_SIZE, Q_LEN * VALUE_SIZE, VALUE_SIZE, 1};
    args.options = options();
    return args;
}

static attn_layer_args layer_args(void) {
    attn_layer_args args = {.batch = BATCH, .q_len = Q_LEN, .kv_len = KV_LEN, .options = options()};
    args.q = (attn_tensor){arena.q, ATTN_F32, Q_LEN * QUERY_WIDTH, 0, QUERY_WIDTH, 1};
    args.k = (attn_tensor){arena.k, ATTN_F32, KV_LEN * KEY_WIDTH, 0, KEY_WIDTH, 1};
    args.v = (attn_tensor){arena.v, ATTN_F32, KV_LEN * VALUE_WIDTH, 0, VALUE_WIDTH, 1};
    args.y = (attn_tensor_out){arena.o, ATTN_F32, Q_LEN * HIDDEN, 0, HIDDEN, 1};
    return args;
}

static attn_merge_args merge_args(void) {
    attn_merge_args args = {.isa = ATTN_ISA_SCALAR, .parts = PARTS, .batch = BATCH, .heads = HEADS, .q_len = Q_LEN};
    args.value_size = VALUE_SIZE;
    args.o = arena.parts;
    args.log_sum_exp = arena.part_log_sum_exp;
    args.merged = (attn_tensor_out){arena.o, ATTN_F32, HEADS * Q_LEN * VALUE_SIZE, Q_LEN * VALUE_SIZE, VALUE_SIZE, 1};
    args.merged_log_sum_exp.data = arena.log_sum_exp;
    return args;
}

void base(struct arguments *a) {
    *a = (struct arguments){
        .bytes_out = &arena.bytes, .memory = arena.memory, .workspace = arena.workspace, .bytes = BYTES};
    a->gemm_config_value = (attn_gemm_config){.isa = ATTN_ISA_SCALAR, .k = GEMM_K, .n = GEMM_N, .w = linear(GEMM_N, 1)};
    a->gemm_args = (attn_gemm_run_args){.m = GEMM_M};
    a->gemm_args.x = (attn_tensor){.data = arena.q, .row_stride = GEMM_K};
    a->gemm_args.y = (attn_tensor_out){.data = arena.o, .row_stride = GEMM_N};
    a->layer_config_value = layer_config();
    a->cache_config_value = cache_config();
    a->softmax = softmax_args();
    a->transpose = transpose_args();
    a->attention = attention_args();
    a->forward = layer_args();
    a->merge = merge_args();
    a->rotary_config_value = rotary_config(HEAD_SIZE);
    a->fork = (attn_cache_fork_config){arena.cache, BATCH, arena.sources, KV_LEN, CAPACITY};
    a->keys = (attn_cache_append_args){.len = 1, .k = keys(), .v = values()};
    a->parallel_value = (attn_parallel){must_not_run, NULL, 2};
    a->append = (attn_layer_append_args){.len = 1, .k = a->forward.k, .v = a->forward.v, .cache = arena.layer_cache};
    a->gemm_config = &a->gemm_config_value;
    a->gemm_run_args = &a->gemm_args;
    a->layer_config = &a->layer_config_value;
    a->cache_config = &a->cache_config_value;
    a->softmax_args = &a->softmax;
    a->transpose_args = &a->transpose;
    a->attention_args = &a->attention;
    a->layer_args = &a->forward;
    a->keys_args = &a->keys;
    a->fork_config = &a->fork;
    a->rotary_config = &a->rotary_config_value;
    a->merge_args = &a->merge;
    a->append_args = &a->append;
    a->gemm = arena.gemm;
    a->layer = arena.layer;
    a->cache = arena.cache;
    a->new_gemm = &arena.new_gemm;
    a->new_layer = &arena.new_layer;
    a->new_cache = &arena.new_cache;
    a->new_rotary = &arena.new_rotary;
    a->new_config = &arena.new_config;
    a->merged_batch_stride = Q_LEN * HIDDEN;
    a->merged_row_stride = HIDDEN;
    a->sequence = ATTN_ALL_SEQUENCES;
    a->len = 1;
    a->count = 1;
    a->pages = arena.pages;
}

/* ---- The functions ---- */

attn_status gemm_size(struct arguments *a, attn_error *error) {
    return attn_gemm_size(a->gemm_config, a->bytes_out, error);
}

attn_status gemm_create(struct arguments *a, attn_error *error) {
    return attn_gemm_create(a->gemm_config, a->memory, a->bytes, a->new_gemm, error);
}

attn_status gemm_workspace(struct arguments *a, attn_error *error) {
    return attn_gemm_workspace(a->gemm, a->gemm_run_args, a->bytes_out, error);
}

attn_status gemm_run(struct arguments *a, attn_error *error) {
    return attn_gemm_run(a->gemm, a->gemm_run_args, error);
}

attn_status masked_softmax(struct arguments *a, attn_error *error) {
    return attn_masked_softmax(a->softmax_args, error);
}

attn_status transpose_qkv(struct arguments *a, attn_error *error) {
    a->transpose.x.batch_stride = a->merged_batch_stride;
    a->transpose.x.row_stride = a->merged_row_stride;
    return attn_transpose_qkv(a->transpose_args, error);
}

attn_status transpose_output(struct arguments *a, attn_error *error) {
    a->transpose.y.batch_stride = a->merged_batch_stride;
    a->transpose.y.row_stride = a->merged_row_stride;
    return attn_transpose_output(a->transpose_args, error);
}

attn_status attention_workspace(struct arguments *a, attn_error *error) {
    return attn_attention_workspace(a->attention_args, a->bytes_out, error);
}

attn_status attention(struct arguments *a, attn_error *error) {
    return attn_attention(a->attention_args, a->workspace, a->bytes, error);
}

attn_status merge(struct arguments *a, attn_error *error) {
    return attn_merge(a->merge_args, error);
}

attn_status rotary_size(struct arguments *a, attn_error *error) {
    return attn_rotary_size(a->rotary_config, a->bytes_out, error);
}

attn_status rotary_create(struct arguments *a, attn_error *error) {
    return attn_rotary_create(a->rotary_config, a->memory, a->bytes, a->new_rotary, error);
}

attn_status cache_size(struct arguments *a, attn_error *error) {
    return attn_cache_size(a->cache_config, a->bytes_out, error);
}

attn_status cache_create_(struct arguments *a, attn_error *error) {
    return attn_cache_create(a->cache_config, a->memory, a->bytes, a->new_cache, error);
}

attn_status cache_append(struct arguments *a, attn_error *error) {
    return attn_cache_append(a->cache, a->keys_args, error);
}

attn_status cache_truncate(struct arguments *a, attn_error *error) {
    return attn_cache_truncate(a->cache, a->sequence, a->len, error);
}

attn_status cache_set_pages(struct arguments *a, attn_error *error) {
    return attn_cache_set_pages(a->cache, a->sequence, a->first, a->count, a->pages, error);
}

attn_status cache_adopt(struct arguments *a, attn_error *error) {
    return attn_cache_adopt(a->cache, a->sequence, a->len, error);
}

attn_status fork_size(struct arguments *a, attn_error *error) {
    return attn_cache_fork_size(a->fork_config, a->bytes_out, error);
}

attn_status fork_create(struct arguments *a, attn_error *error) {
    return attn_cache_fork(a->fork_config, a->memory, a->bytes, a->new_cache, error);
}

attn_status layer_size(struct arguments *a, attn_error *error) {
    return attn_layer_size(a->layer_config, a->bytes_out, error);
}

attn_status layer_create_(struct arguments *a, attn_error *error) {
    return attn_layer_create(a->layer_config, a->memory, a->bytes, a->new_layer, error);
}

attn_status layer_workspace(struct arguments *a, attn_error *error) {
    return attn_layer_workspace(a->layer, a->layer_args, a->bytes_out, error);
}

attn_status layer_forward(struct arguments *a, attn_error *error) {
    return attn_layer_forward(a->layer, a->layer_args, a->workspace, a->bytes, error);
}

attn_status layer_cache_config(struct arguments *a, attn_error *error) {
    return attn_layer_cache_config(a->layer, BATCH, CAPACITY, a->new_config, error);
}

attn_status layer_append_workspace(struct arguments *a, attn_error *error) {
    return attn_layer_append_workspace(a->layer, a->append_args, a->bytes_out, error);
}

attn_status layer_append(struct arguments *a, attn_error *error) {
    return attn_layer_append(a->layer, a->append_args, a->workspace, a->bytes, error);
}

/* ---- The check ---- */

unsigned provoked;

const char *const any_name = "any name";

/* The sentence begins with the field's name, and a short buffer gets the beginning of it. */
static void check_text(const attn_error *error) {
    char text[256], cut[256];
    size_t length = attn_error_text(error, text, sizeof text), size = length / 2;
    if (length != strlen(text) || strncmp(text, error->field, strlen(error->field)) != 0)
        test_fail("the text of %zu characters is \"%s\"", length, text);
    memset(cut, 'x', sizeof cut);
    assert_int_equal(length, attn_error_text(error, cut, size + 1));
    assert_memory_equal(text, cut, size);
    assert_int_equal(0, cut[size]);
    assert_int_equal('x', cut[size + 1]);
    assert_int_equal(length, attn_error_text(error, NULL, 0));
}

/* Of a wrong type: the text says which types the field takes, and the given one is none of them. A type that nothing
 * would use is wrong whatever it is. */
static void check_type(const attn_error *error) {
    const char *dot = strrchr(error->field, '.'), *name = dot ? dot + 1 : error->field;
    if (error->status != ATTN_BAD_VALUE || (strcmp(name, "type") != 0 && strcmp(name, "kv_type") != 0))
        return;
    if (error->needed == 0 || (error->given < 32 && error->needed >> error->given & 1))
        test_fail("%s takes the types %#zx, given %zu", error->field, error->needed, error->given);
}

void check_bad(function *call, struct arguments *a, attn_status expected, const char *name) {
    attn_error error = {.field = "untouched"};
    memcpy(&before, &arena, sizeof arena);
    attn_status status = call(a, &error);
    assert_status(expected, status);
    assert_status(expected, call(a, NULL));
    if (name == any_name ? strcmp(error.field, "untouched") == 0 : strcmp(error.field, name) != 0)
        test_fail("the field is called \"%s\", not \"%s\"", error.field, name);
    if (memcmp(&before, &arena, sizeof arena) != 0)
        test_fail("something was written");
    assert_status(status, error.status);
    check_text(&error);
    check_type(&error);
    provoked |= 1u << status;
}

static void fill_arrays(void) {
    memset(&arena, 0x5a, sizeof arena);
    for (size_t i = 0; i < FLOATS; i++) {
        arena.q[i] = arena.k[i] = arena.v[i] = arena.w[i] = arena.bias[i] = (float)(i % 17) / 16;
        arena.mask[i] = i % 3 != 0;
    }
    for (size_t i = 0; i < BATCH * Q_LEN; i++)
        arena.lens[i] = KV_LEN;
    for (size_t h = 0; h < HEADS; h++)
        arena.alibi[h] = arena.sinks[h] = arena.factors[h] = (float)h / 4;
    for (size_t i = 0; i < HEAD_SIZE / 2; i++)
        arena.frequencies[i] = 1;
    for (size_t b = 0; b < BATCH; b++) {
        arena.starts[b] = arena.offsets[b] = 0;
        arena.sources[b] = BATCH - 1 - b;
    }
    for (size_t b = 0; b <= BATCH; b++)
        arena.cu[b] = (int64_t)b;
    for (int32_t i = 0; i < PAGES; i++)
        arena.pages[i] = i;
    for (size_t p = 0; p < PARTS; p++) {
        arena.parts[p] = (attn_tensor){p ? arena.k : arena.v, ATTN_F32,   HEADS * Q_LEN * VALUE_SIZE,
                                       Q_LEN * VALUE_SIZE,    VALUE_SIZE, 1};
        arena.part_log_sum_exp[p] = (attn_tensor){.data = arena.q + p * BATCH * HEADS * Q_LEN};
    }
}

static void create_caches(void) {
    attn_cache_config config = cache_config(), of_layer;
    attn_cache_append_args append = {.len = KV_LEN, .k = keys(), .v = values()};
    assert_ok(attn_cache_create(&config, arena.cache_memory, BYTES, &arena.cache, NULL));
    assert_ok(attn_cache_append(arena.cache, &append, NULL));
    assert_ok(attn_layer_cache_config(arena.layer, BATCH, CAPACITY, &of_layer, NULL));
    assert_ok(attn_cache_create(&of_layer, arena.layer_cache_memory, BYTES, &arena.layer_cache, NULL));
    config.kind = ATTN_CACHE_RING;
    assert_ok(attn_cache_create(&config, arena.ring_memory, BYTES, &arena.ring, NULL));
    for (size_t i = 0; i < RING_LEN / KV_LEN; i++)
        assert_ok(attn_cache_append(arena.ring, &append, NULL));
    config.kind = ATTN_CACHE_PAGED;
    config.page_size = PAGE;
    config.pages = PAGES;
    config.capacity = PAGES * PAGE;
    assert_ok(attn_cache_create(&config, arena.paged_memory, BYTES, &arena.paged, NULL));
    for (size_t b = 0; b < BATCH; b++)
        assert_ok(attn_cache_set_pages(arena.paged, b, 0, 1, arena.pages + b, NULL));
}

int set_up(void **state) {
    (void)state;
    struct arguments a;
    attn_layer_config config = layer_config();
    attn_gemm_config gemm = {.isa = ATTN_ISA_SCALAR, .k = GEMM_K, .n = GEMM_N, .w = linear(GEMM_N, 1)};
    attn_rotary_config rotary = rotary_config(HEAD_SIZE), wide = rotary_config(HEAD_SIZE + 2);
    fill_arrays();
    assert_ok(attn_gemm_create(&gemm, arena.gemm_memory, BYTES, &arena.gemm, NULL));
    gemm.w.type = ATTN_BF16;
    assert_ok(attn_gemm_create(&gemm, arena.bf16_gemm_memory, BYTES, &arena.bf16_gemm, NULL));
    assert_ok(attn_layer_create(&config, arena.layer_memory, BYTES, &arena.layer, NULL));
    assert_ok(attn_rotary_create(&rotary, arena.rotary_memory, BYTES, &arena.rotary, NULL));
    assert_ok(attn_rotary_create(&wide, arena.wide_rotary_memory, BYTES, &arena.wide_rotary, NULL));
    create_caches();
    base(&a);
    a.append.len = KV_LEN;
    assert_ok(layer_append(&a, NULL));
    return 0;
}
