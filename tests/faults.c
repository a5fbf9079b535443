#include "faults.h"

#include "cpu.h"

/* ---- The processor ---- */

/* The linker takes these in place of the library's own. */
void attn_cpu_read(struct attn_cpu_registers *registers) {
    *registers = (struct attn_cpu_registers){0};
}

bool attn_cpu_supports(const struct attn_cpu_registers *registers, attn_isa isa) {
    (void)registers;
    return isa == ATTN_ISA_SCALAR || isa == ATTN_ISA_AVX2;
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
    return (attn_linear){arena.w, out, 1, with_bias ? arena.w : NULL};
}

static attn_layer_config layer_config(void) {
    attn_layer_config config = {.isa = ATTN_ISA_SCALAR, .hidden = HIDDEN, .heads = HEADS, .kv_heads = KV_HEADS};
    config.query_size = QUERY_WIDTH;
    config.key_size = KEY_WIDTH;
    config.value_size = VALUE_WIDTH;
    config.w_q = linear(HIDDEN, 1);
    config.w_k = linear(KV_HIDDEN, 0);
    config.w_v = linear(KV_HIDDEN, 1);
    config.w_o = linear(HIDDEN, 0);
    return config;
}

attn_cache_config cache_config(void) {
    attn_cache_config config = {.isa = ATTN_ISA_SCALAR, .batch = BATCH, .kv_heads = KV_HEADS, .head_size = HEAD_SIZE};
    config.value_size = VALUE_SIZE;
    config.capacity = CAPACITY;
    return config;
}

static attn_softmax_args softmax_args(void) {
    attn_softmax_args args = {
        .isa = ATTN_ISA_SCALAR, .batch = BATCH, .rows = ROWS, .cols = COLS, .x = arena.q, .y = arena.o};
    args.x_batch_stride = args.y_batch_stride = ROWS * COLS;
    args.x_row_stride = args.y_row_stride = COLS;
    args.valid = (attn_valid_lens){ATTN_VALID_PER_SEQUENCE, arena.lens};
    return args;
}

static attn_transpose_args transpose_args(void) {
    attn_transpose_args args = {.isa = ATTN_ISA_SCALAR, .batch = BATCH, .len = Q_LEN, .heads = HEADS, .x = arena.q};
    args.head_size = HEAD_SIZE;
    args.y = arena.o;
    args.merged_row_stride = HIDDEN;
    args.merged_batch_stride = Q_LEN * HIDDEN;
    return args;
}

static attn_tensor keys(void) {
    return (attn_tensor){arena.k, KV_HEADS * KV_LEN * HEAD_SIZE, KV_LEN * HEAD_SIZE, HEAD_SIZE};
}

static attn_tensor values(void) {
    return (attn_tensor){arena.v, KV_HEADS * KV_LEN * VALUE_SIZE, KV_LEN * VALUE_SIZE, VALUE_SIZE};
}

static attn_options options(void) {
    return (attn_options){
        .valid = {ATTN_VALID_PER_SEQUENCE, arena.lens}, .weights = arena.weights, .log_sum_exp = arena.log_sum_exp};
}

static attn_attention_args attention_args(void) {
    attn_attention_args args = {.isa = ATTN_ISA_SCALAR, .batch = BATCH, .heads = HEADS, .kv_heads = KV_HEADS};
    args.q_len = Q_LEN;
    args.kv_len = KV_LEN;
    args.head_size = HEAD_SIZE;
    args.value_size = VALUE_SIZE;
    args.q = (attn_tensor){arena.q, HEADS * Q_LEN * HEAD_SIZE, Q_LEN * HEAD_SIZE, HEAD_SIZE};
    args.k = keys();
    args.v = values();
    args.o = (attn_tensor_out){arena.o, HEADS * Q_LEN * VALUE_SIZE, Q_LEN * VALUE_SIZE, VALUE_SIZE};
    args.options = options();
    return args;
}

static attn_layer_args layer_args(void) {
    attn_layer_args args = {.batch = BATCH, .q_len = Q_LEN, .kv_len = KV_LEN, .options = options()};
    args.q = (attn_rows){arena.q, Q_LEN * QUERY_WIDTH, QUERY_WIDTH};
    args.k = (attn_rows){arena.k, KV_LEN * KEY_WIDTH, KEY_WIDTH};
    args.v = (attn_rows){arena.v, KV_LEN * VALUE_WIDTH, VALUE_WIDTH};
    args.y = (attn_rows_out){arena.o, Q_LEN * HIDDEN, HIDDEN};
    return args;
}

void base(struct arguments *a) {
    *a = (struct arguments){
        .bytes_out = &arena.bytes, .memory = arena.memory, .workspace = arena.workspace, .bytes = BYTES};
    a->gemm_config_value = (attn_gemm_config){ATTN_ISA_SCALAR, GEMM_K, GEMM_N, linear(GEMM_N, 1)};
    a->layer_config_value = layer_config();
    a->cache_config_value = cache_config();
    a->softmax = softmax_args();
    a->transpose = transpose_args();
    a->attention = attention_args();
    a->forward = layer_args();
    a->keys = (attn_cache_append_args){.len = 1, .k = keys(), .v = values()};
    a->parallel_value = (attn_parallel){must_not_run, NULL, 2};
    a->append = (attn_layer_append_args){.len = 1, .k = a->forward.k, .v = a->forward.v, .cache = arena.layer_cache};
    a->gemm_config = &a->gemm_config_value;
    a->layer_config = &a->layer_config_value;
    a->cache_config = &a->cache_config_value;
    a->softmax_args = &a->softmax;
    a->transpose_args = &a->transpose;
    a->attention_args = &a->attention;
    a->layer_args = &a->forward;
    a->keys_args = &a->keys;
    a->append_args = &a->append;
    a->gemm = arena.gemm;
    a->layer = arena.layer;
    a->cache = arena.cache;
    a->new_gemm = &arena.new_gemm;
    a->new_layer = &arena.new_layer;
    a->new_cache = &arena.new_cache;
    a->new_config = &arena.new_config;
    a->m = GEMM_M;
    a->x = arena.q;
    a->x_stride = GEMM_K;
    a->y = arena.o;
    a->y_stride = GEMM_N;
    a->sequence = ATTN_ALL_SEQUENCES;
    a->len = 1;
}

/* ---- The functions ---- */

attn_status gemm_size(struct arguments *a, const char **field) {
    return attn_gemm_size(a->gemm_config, a->bytes_out, field);
}

attn_status gemm_create(struct arguments *a, const char **field) {
    return attn_gemm_create(a->gemm_config, a->memory, a->bytes, a->new_gemm, field);
}

attn_status gemm_run(struct arguments *a, const char **field) {
    return attn_gemm_run(a->gemm, a->m, a->x, a->x_stride, a->y, a->y_stride, a->parallel, field);
}

attn_status masked_softmax(struct arguments *a, const char **field) {
    return attn_masked_softmax(a->softmax_args, field);
}

attn_status transpose_qkv(struct arguments *a, const char **field) {
    return attn_transpose_qkv(a->transpose_args, field);
}

attn_status transpose_output(struct arguments *a, const char **field) {
    return attn_transpose_output(a->transpose_args, field);
}

attn_status attention_workspace(struct arguments *a, const char **field) {
    return attn_attention_workspace(a->attention_args, a->bytes_out, field);
}

attn_status attention(struct arguments *a, const char **field) {
    return attn_attention(a->attention_args, a->workspace, a->bytes, field);
}

attn_status cache_size(struct arguments *a, const char **field) {
    return attn_cache_size(a->cache_config, a->bytes_out, field);
}

attn_status cache_create_(struct arguments *a, const char **field) {
    return attn_cache_create(a->cache_config, a->memory, a->bytes, a->new_cache, field);
}

attn_status cache_append(struct arguments *a, const char **field) {
    return attn_cache_append(a->cache, a->keys_args, field);
}

attn_status cache_truncate(struct arguments *a, const char **field) {
    return attn_cache_truncate(a->cache, a->sequence, a->len, field);
}

attn_status layer_size(struct arguments *a, const char **field) {
    return attn_layer_size(a->layer_config, a->bytes_out, field);
}

attn_status layer_create_(struct arguments *a, const char **field) {
    return attn_layer_create(a->layer_config, a->memory, a->bytes, a->new_layer, field);
}

attn_status layer_workspace(struct arguments *a, const char **field) {
    return attn_layer_workspace(a->layer, a->layer_args, a->bytes_out, field);
}

attn_status layer_forward(struct arguments *a, const char **field) {
    return attn_layer_forward(a->layer, a->layer_args, a->workspace, a->bytes, field);
}

attn_status layer_cache_config(struct arguments *a, const char **field) {
    return attn_layer_cache_config(a->layer, BATCH, CAPACITY, a->new_config, field);
}

attn_status layer_append_workspace(struct arguments *a, const char **field) {
    return attn_layer_append_workspace(a->layer, a->append_args, a->bytes_out, field);
}

attn_status layer_append(struct arguments *a, const char **field) {
    return attn_layer_append(a->layer, a->append_args, a->workspace, a->bytes, field);
}

/* ---- The check ---- */

unsigned provoked;

const char *const any_name = "any name";

void check_bad(function *call, struct arguments *a, attn_status expected, const char *name) {
    const char *field = "untouched";
    memcpy(&before, &arena, sizeof arena);
    attn_status status = call(a, &field);
    assert_status(expected, status);
    assert_status(expected, call(a, NULL));
    if (name == any_name ? strcmp(field, "untouched") == 0 : strcmp(field, name) != 0)
        test_fail("the field is called \"%s\", not \"%s\"", field, name);
    if (memcmp(&before, &arena, sizeof arena) != 0)
        test_fail("something was written");
    provoked |= 1u << status;
}

int set_up(void **state) {
    (void)state;
    struct arguments a;
    memset(&arena, 0x5a, sizeof arena);
    for (size_t i = 0; i < FLOATS; i++)
        arena.q[i] = arena.k[i] = arena.v[i] = arena.w[i] = (float)(i % 17) / 16;
    for (size_t i = 0; i < BATCH * Q_LEN; i++)
        arena.lens[i] = KV_LEN;
    attn_layer_config config = layer_config();
    attn_cache_config heads = cache_config(), of_layer;
    attn_gemm_config gemm = {ATTN_ISA_SCALAR, GEMM_K, GEMM_N, linear(GEMM_N, 1)};
    attn_cache_append_args append = {.len = KV_LEN, .k = keys(), .v = values()};
    assert_ok(attn_gemm_create(&gemm, arena.gemm_memory, BYTES, &arena.gemm, NULL));
    assert_ok(attn_layer_create(&config, arena.layer_memory, BYTES, &arena.layer, NULL));
    assert_ok(attn_cache_create(&heads, arena.cache_memory, BYTES, &arena.cache, NULL));
    assert_ok(attn_cache_append(arena.cache, &append, NULL));
    assert_ok(attn_layer_cache_config(arena.layer, BATCH, CAPACITY, &of_layer, NULL));
    assert_ok(attn_cache_create(&of_layer, arena.layer_cache_memory, BYTES, &arena.layer_cache, NULL));
    base(&a);
    a.append.len = KV_LEN;
    assert_ok(layer_append(&a, NULL));
    return 0;
}
