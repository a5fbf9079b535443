/* What ATTN_VERBOSE makes the library say: the lines of created objects and of calls, but for the microseconds. */
#define _GNU_SOURCE 1 /* fileno, setenv */
#include "verbose.h"

#include "api/check.h"
#include "problem.h"

#include <stdio.h>
#ifdef _WIN32
#include <io.h>
#define dup    _dup
#define dup2   _dup2
#define close  _close
#define fileno _fileno
#else
#include <unistd.h>
#endif

/* ---- What is said ---- */

static void set_verbose(const char *value) {
#ifdef _WIN32
    assert_int_equal(0, _putenv_s("ATTN_VERBOSE", value ? value : ""));
#else
    assert_int_equal(0, value ? setenv("ATTN_VERBOSE", value, 1) : unsetenv("ATTN_VERBOSE"));
#endif
    atomic_store(&attn_verbosity, 0); /* as in a new process */
}

/* "; 12.34 us" at the end of a line becomes "; T". */
static void hide_times(char *text) {
    char *to = text;
    for (char *from = text; *from;) {
        char *end = from;
        if (strncmp(from, "; ", 2) == 0 && strtod(from + 2, &end) >= 0 && end > from + 2 &&
            strncmp(end, " us\n", 4) == 0) {
            memcpy(to, "; T", 3);
            to += 3;
            from = end + 3;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
}

/* What `act`, which returns `expected`, makes the library print to stderr; until the next call. */
static const char *said_with(attn_status expected, attn_status (*act)(void)) {
    static char text[4096];
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stderr);
    int saved = dup(fileno(stderr));
    assert_true(saved >= 0 && dup2(fileno(file), fileno(stderr)) >= 0);
    attn_status status = act();
    fflush(stderr);
    assert_true(dup2(saved, fileno(stderr)) >= 0);
    close(saved);
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    assert_status(expected, status);
    hide_times(text);
    return text;
}

#define said(act)                  said_with(ATTN_OK, act)
#define assert_said(expected, act) assert_string_equal(expected, said(act))

/* ---- Objects ---- */

enum {
    BATCH = 2,
    HEADS = 4,
    KV_HEADS = 2,
    LEN = 3,
    KEYS = 5,
    SIZE = 4,
    HIDDEN = HEADS * SIZE,
    CAPACITY = 8,
    BYTES = 1 << 18
};

static float x[BATCH * KEYS * HIDDEN], y[BATCH * KEYS * HIDDEN], dense[BATCH * HEADS * LEN * CAPACITY];
static const int64_t lens[] = {1, 2, 3, 4, 5, 6}, offsets[] = {0, 0};
static _Alignas(ATTN_ALIGNMENT) unsigned char gemm_memory[BYTES], layer_memory[BYTES], cache_memory[BYTES],
    fork_memory[BYTES], rotary_memory[BYTES], workspace[BYTES];
static attn_gemm *gemm;
static attn_layer *layer;
static attn_cache *cache, *child;
static attn_rotary *rotary;

static attn_status create_objects(void) {
    const attn_linear w = {x, .in_stride = LEN, .out_stride = 1};
    attn_gemm_config gemm_config = {.isa = ATTN_ISA_SCALAR, .k = HIDDEN, .n = LEN, .w = w};
    attn_layer_config layer_config = {.isa = ATTN_ISA_SCALAR, .hidden = HIDDEN, .heads = HEADS, .kv_heads = KV_HEADS};
    attn_rotary_config rotary_config = {.positions = 30, .dims = SIZE};
    attn_cache_config cache_config;
    layer_config.query_width = layer_config.key_width = layer_config.value_width = 2;
    layer_config.w_q = layer_config.w_k = layer_config.w_v = (attn_linear){x, .in_stride = HIDDEN, .out_stride = 1};
    layer_config.w_o = (attn_linear){x, .in_stride = 1, .out_stride = 1};
    RETURN_IF_ERROR(attn_gemm_create(&gemm_config, gemm_memory, BYTES, &gemm, NULL));
    RETURN_IF_ERROR(attn_layer_create(&layer_config, layer_memory, BYTES, &layer, NULL));
    RETURN_IF_ERROR(attn_layer_cache_config(layer, BATCH, CAPACITY, &cache_config, NULL));
    RETURN_IF_ERROR(attn_cache_create(&cache_config, cache_memory, BYTES, &cache, NULL));
    RETURN_IF_ERROR(attn_rotary_create(&rotary_config, rotary_memory, BYTES, &rotary, NULL));
    attn_cache_fork_config fork_config = {.parent = cache, .batch = 1, .len = 0, .capacity = CAPACITY};
    return attn_cache_fork(&fork_config, fork_memory, BYTES, &child, NULL);
}

static const char objects[] = "attn: gemm 16 x 3, scalar_1x1\n"
                              "attn: layer hidden 16, 4 heads, scalar_1x1\n"
                              "attn: cache 2 x 2 heads x 8 keys of F32, scalar_1x1\n"
                              "attn: rotary 30 positions, 4 dims\n"
                              "attn: fork 1 x 8 keys, 0 of them shared\n";

static int set_up(void **state) {
    (void)state;
    for (size_t i = 0; i < BATCH * KEYS * HIDDEN; i++)
        x[i] = (float)(i % 7) / 8;
    set_verbose(NULL);
    assert_ok(create_objects());
    set_verbose("2");
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    set_verbose(NULL);
    return 0;
}

/* ---- Levels ---- */

static attn_status run_gemm(void) {
    return gemm_rows(gemm, 2, x, HIDDEN, y, LEN, NULL, NULL);
}

static const char gemm_line[] = "attn: gemm_run scalar_1x1 m 2 k 16 n 3; T\n";

static void test_levels(void **state) {
    (void)state;
    static const char *const quiet[] = {NULL, "", "0", "yes", "12", "-1"};
    for (size_t i = 0; i < sizeof quiet / sizeof *quiet; i++) {
        test_case("ATTN_VERBOSE=%s", quiet[i] ? quiet[i] : "(unset)");
        set_verbose(quiet[i]);
        assert_said("", create_objects);
        assert_said("", run_gemm);
    }
    set_verbose("1");
    assert_said(objects, create_objects);
    assert_said("", run_gemm);
    set_verbose("2");
    assert_said(objects, create_objects);
    assert_said(gemm_line, run_gemm);
}

/* The variable is read by the first function that has something to say. */
static void test_read_once(void **state) {
    (void)state;
    set_verbose(NULL);
    assert_said("", run_gemm);
    assert_int_equal(1, atomic_load(&attn_verbosity));
    set_verbose("2");
    assert_said(gemm_line, run_gemm);
    unsigned level = atomic_load(&attn_verbosity);
    set_verbose(NULL);
    atomic_store(&attn_verbosity, level);
    assert_said(gemm_line, run_gemm);
}

static void test_long_lines(void **state) {
    (void)state;
    struct attn_line line;
    attn_line_begin(&line, "long");
    for (size_t i = 0; i < 100; i++)
        attn_line_add(&line, "%s", "0123456789");
    assert_int_equal(sizeof line.text - 1, strlen(line.text));
    assert_int_equal(sizeof line.text - 1, line.used);
    assert_memory_equal("0123456789012", line.text, 13);
}

/* ---- Calls ---- */

static attn_attention_args attention_args(void) {
    attn_attention_args args = {.isa = ATTN_ISA_SCALAR, .batch = BATCH, .heads = HEADS, .kv_heads = KV_HEADS};
    args.q_len = LEN;
    args.kv_len = KEYS;
    args.head_size = SIZE;
    args.q = (attn_tensor){x, ATTN_F32, LEN * HIDDEN, SIZE, HIDDEN, 1};
    args.k = args.v = (attn_tensor){x, ATTN_F32, KEYS * HIDDEN, SIZE, HIDDEN, 1};
    args.o = (attn_tensor_out){y, ATTN_F32, LEN * HIDDEN, SIZE, HIDDEN, 1};
    return args;
}

static attn_attention_args attention;
static attn_layer_args forward;

static attn_status run_attention(void) {
    return attn_attention(&attention, workspace, BYTES, NULL);
}

static attn_status run_forward(void) {
    return attn_layer_forward(layer, &forward, workspace, BYTES, NULL);
}

#define ATTENTION "attn: attention scalar batch 2 heads 4 kv_heads 2 q_len 3 kv_len 5 head_size 4 value_size 4"
/* How it is computed: 5 keys by the kernel for few, or 6 query rows over each kv head's. */
#define SMALL  "; path small tasks 1"
#define CACHED "; path cached tile_rows 32 spans 1 tasks 1"
#define PACKED "; path pack_head tile_rows 32 spans 1 tasks 1"

static void test_attention(void **state) {
    (void)state;
    const attn_parallel parallel = {.threads = 1};
    attention = attention_args();
    attention.parallel = &parallel;
    assert_said(ATTENTION SMALL "; T\n", run_attention);
    attention.value_size = 3;
    attention.kv_heads = 0;
    attention.scale = 0.5f;
    attention.k.head_stride = attention.v.head_stride = 0;
    assert_said(
        "attn: attention scalar batch 2 heads 4 kv_heads 4 q_len 3 kv_len 5 head_size 4 value_size 3 scale 0.5" SMALL
        "; T\n",
        run_attention);
    attention.isa = ATTN_ISA_BEST;
    assert_non_null(strstr(said(run_attention), attn_isa_name(attn_isa_chosen())));
}

static void run_in_order(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count) {
    (void)context;
    for (size_t i = 0; i < count; i++)
        task(arg, i);
}

static void test_options(void **state) {
    (void)state;
    const attn_parallel parallel = {.run = run_in_order, .threads = 3};
    const uint8_t mask[KEYS] = {1, 1, 1, 1, 1};
    attention = attention_args();
    attn_options *options = &attention.options;
    options->valid = (attn_valid_lens){.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = lens};
    options->starts.i64 = offsets;
    options->causal = 1;
    options->position = ATTN_POSITION_OFFSET;
    options->position_offset = -1;
    options->window_left = 7;
    options->mask = (attn_tensor){mask, ATTN_BOOL, 0, 0, 0, 1};
    options->empty = ATTN_EMPTY_MEAN;
    assert_said(ATTENTION " valid per_sequence starts causal position offset -1 window_left 7 mask empty mean" PACKED
                          "; T\n",
                run_attention);
    *options = (attn_options){.window_right = 9,
                              .bias = {x, ATTN_F32, 0, 0, 0, 1},
                              .bias_factors = x,
                              .alibi = x,
                              .rotary = rotary,
                              .dropout = 0.25f};
    options->valid = (attn_valid_lens){.kind = ATTN_VALID_PER_ROW, .lens.i64 = lens};
    options->causal = 1;
    options->position = ATTN_POSITION_TOP_LEFT;
    assert_said(
        ATTENTION
        " valid per_row causal position top_left window_right 9 bias bias_factors alibi rotary dropout 0.25" PACKED
        "; T\n",
        run_attention);
    *options = (attn_options){.soft_cap = 2, .sinks = x, .rotary = rotary, .rotary_offsets.i64 = offsets};
    options->causal = 1;
    options->position = ATTN_POSITION_TOP_LEFT;
    attention.parallel = &parallel;
    assert_said(ATTENTION " causal position top_left soft_cap 2 sinks rotary rotary_offsets threads 3" PACKED "; T\n",
                run_attention);
    attention.parallel = NULL;
    static const char *const stages[] = {"raw", "capped", "masked"};
    static float weights[BATCH * HEADS * LEN * KEYS], lse[BATCH * HEADS * LEN];
    for (size_t stage = 0; stage < 3; stage++) {
        char expected[256];
        *options = (attn_options){.scores.data = dense};
        (stage ? &options->weights : &options->log_sum_exp)->data = stage ? weights : lse;
        options->causal = 1;
        options->score_stage = (attn_score_stage)stage;
        snprintf(expected, sizeof expected, ATTENTION " causal%s scores %s%s" PACKED "; T\n", stage ? " weights" : "",
                 stages[stage], stage ? "" : " log_sum_exp");
        assert_said(expected, run_attention);
    }
}

static attn_cache_append_args keys;
static attn_layer_append_args rows;

static attn_status append_keys(void) {
    return attn_cache_append(cache, &keys, NULL);
}

static attn_status append_rows(void) {
    return attn_layer_append(layer, &rows, workspace, BYTES, NULL);
}

static void test_caches(void **state) {
    (void)state;
    const attn_parallel parallel = {.run = run_in_order, .threads = 3};
    attention = attention_args();
    attention.cache = cache;
    attention.kv_len = 0;
    attention.k = attention.v = (attn_tensor){0};
    assert_said("attn: attention scalar batch 2 heads 4 kv_heads 2 q_len 3 kv_len 0 head_size 4 value_size 4 from a "
                "cache of F32; "
                "path cached tile_rows 32 spans 1 tasks 1; kv_len is 0: nothing to attend to; T\n",
                run_attention);
    keys = (attn_cache_append_args){.len = 3, .lens.i64 = lens};
    keys.k = keys.v = (attn_tensor){x, ATTN_F32, KEYS * HIDDEN, SIZE, HIDDEN, 1};
    assert_said("attn: cache_append batch 2 len 3 lens, now 2 keys of 8; T\n", append_keys);
    keys.lens.i64 = NULL;
    keys.rotary = rotary;
    keys.rotary_offsets.i64 = offsets;
    keys.parallel = &parallel;
    assert_said("attn: cache_append batch 2 len 3 rotary rotary_offsets threads 3, now 5 keys of 8; T\n", append_keys);
    keys.len = 0;
    keys.parallel = NULL;
    assert_said(
        "attn: cache_append batch 2 len 0 rotary rotary_offsets, now 5 keys of 8; len is 0: nothing to append; T\n",
        append_keys);
    assert_said(ATTENTION " from a cache of F32" CACHED "; T\n", run_attention);
    attention.v = (attn_tensor){x, ATTN_F32, 1, 1, 1, 1};
    assert_said(ATTENTION " from a cache of F32" CACHED "; k and v are not looked at beside a cache; T\n",
                run_attention);
    static const int64_t cu[] = {0, 1, 1};
    rows = (attn_layer_append_args){.len = 1, .cu = {.cu.i64 = cu, .total = 1}, .cache = cache};
    rows.k = rows.v = (attn_tensor){x, ATTN_F32, 2, 0, 2, 1};
    assert_said("attn: layer_append scalar hidden 16 heads 4 kv_heads 2 batch 2 len 1 packed, now 5 keys of 8; T\n",
                append_rows);
}

/* What kind of cache it is. */
static attn_cache_config new_config;

static attn_status create_cache(void) {
    return attn_cache_create(&new_config, fork_memory, BYTES, &child, NULL);
}

static void test_kinds_of_caches(void **state) {
    (void)state;
    attention = attention_args();
    attention.batch = 1;
    attention.kv_len = 0;
    attention.k = attention.v = (attn_tensor){0};
    attention.cache = child;
    assert_non_null(strstr(said(run_attention), " from a fork of F32; "));
    new_config = (attn_cache_config){.isa = ATTN_ISA_SCALAR, .batch = 1, .kv_heads = KV_HEADS, .head_size = SIZE};
    new_config.capacity = 16;
    new_config.kind = ATTN_CACHE_RING;
    said(create_cache);
    attention.cache = child;
    assert_non_null(strstr(said(run_attention), " from a ring of F32; "));
    new_config.kind = ATTN_CACHE_PAGED;
    new_config.page_size = 16;
    new_config.pages = 1;
    said(create_cache);
    attention.cache = child;
    assert_non_null(strstr(said(run_attention), " from a paged cache of F32; "));
}

/* Which type of elements it has. */
static void test_types_of_caches(void **state) {
    (void)state;
    static const struct {
        attn_type type;
        const char *name;
    } types[] = {{ATTN_F32, "F32"},   {ATTN_BF16, "BF16"},       {ATTN_F16, "F16"},
                 {ATTN_INT8, "INT8"}, {ATTN_F8_E4M3, "F8_E4M3"}, {ATTN_F8_E5M2, "F8_E5M2"}};
    new_config = (attn_cache_config){.isa = ATTN_ISA_SCALAR, .batch = 1, .kv_heads = KV_HEADS, .head_size = SIZE};
    new_config.capacity = 16;
    attention = attention_args();
    attention.batch = 1;
    attention.kv_len = 0;
    attention.k = attention.v = (attn_tensor){0};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char created[64], read[64];
        snprintf(created, sizeof created, "attn: cache 1 x 2 heads x 16 keys of %s, ", types[i].name);
        snprintf(read, sizeof read, " from a cache of %s; ", types[i].name);
        new_config.type = types[i].type;
        assert_non_null(strstr(said(create_cache), created));
        attention.cache = child;
        assert_non_null(strstr(said(run_attention), read));
    }
}

/* In the place of the layer. */
static attn_status create_layer_of_other_sizes(void) {
    attn_layer_config config = {.isa = ATTN_ISA_SCALAR, .heads = HEADS, .kv_heads = KV_HEADS, .head_size = SIZE};
    config.query_width = config.key_width = config.value_width = 2;
    config.value_size = 3;
    config.out_size = 5;
    config.w_q = config.w_k = config.w_v = config.w_o = (attn_linear){x, .in_stride = 1, .out_stride = 1};
    return attn_layer_create(&config, layer_memory, BYTES, &layer, NULL);
}

static void test_layer_of_other_sizes(void **state) {
    (void)state;
    assert_said("attn: layer hidden 16, 4 heads, scalar_1x1\n", create_layer_of_other_sizes);
    forward = (attn_layer_args){.batch = BATCH, .q_len = LEN, .kv_len = KEYS, .y.data = y};
    forward.y.batch_stride = LEN * HIDDEN;
    forward.y.row_stride = HIDDEN;
    forward.q = (attn_tensor){x, ATTN_F32, LEN * 2, 0, 2, 1};
    forward.k = forward.v = (attn_tensor){x, ATTN_F32, KEYS * 2, 0, 2, 1};
    assert_said(
        "attn: layer_forward scalar hidden 16 heads 4 kv_heads 2 value_size 3 out_size 5 batch 2 q_len 3 kv_len 5" SMALL
        "; T\n",
        run_forward);
}

static void test_layer(void **state) {
    (void)state;
    static const int64_t cu[] = {0, 1, 3};
    forward = (attn_layer_args){.batch = BATCH, .q_len = LEN, .kv_len = KEYS, .y.data = y};
    forward.y.batch_stride = LEN * HIDDEN;
    forward.y.row_stride = HIDDEN;
    forward.q = (attn_tensor){x, ATTN_F32, LEN * 2, 0, 2, 1};
    forward.k = forward.v = (attn_tensor){x, ATTN_F32, KEYS * 2, 0, 2, 1};
    forward.options.causal = 1;
    forward.options.position = ATTN_POSITION_TOP_LEFT;
    assert_said("attn: layer_forward scalar hidden 16 heads 4 kv_heads 2 batch 2 q_len 3 kv_len 5 causal position "
                "top_left" SMALL "; T\n",
                run_forward);
    forward.q_cu = forward.kv_cu = (attn_cu_lens){.cu.i64 = cu, .total = 3};
    assert_said(
        "attn: layer_forward scalar hidden 16 heads 4 kv_heads 2 batch 2 q_len 3 kv_len 5 packed q packed kv causal "
        "position top_left" SMALL "; T\n",
        run_forward);
    forward.kv_cu = (attn_cu_lens){.cu.i64 = NULL, .total = 0};
    forward.cache = cache;
    forward.kv_len = 0;
    assert_said(
        "attn: layer_forward scalar hidden 16 heads 4 kv_heads 2 batch 2 q_len 3 kv_len 0 packed q from a cache of F32 "
        "causal position top_left" CACHED
        "; kv_len is 0: nothing to attend to; k and v are not looked at beside a cache; T\n",
        run_forward);
}

static attn_softmax_args softmax;
static attn_transpose_args transpose;
static attn_merge_args merge;

static attn_status run_softmax(void) {
    return attn_masked_softmax(&softmax, NULL);
}

static attn_status run_transpose_qkv(void) {
    return attn_transpose_qkv(&transpose, NULL);
}

static attn_status run_transpose_output(void) {
    return attn_transpose_output(&transpose, NULL);
}

static attn_status run_merge(void) {
    return attn_merge(&merge, NULL);
}

static void test_kernels(void **state) {
    (void)state;
    const attn_tensor part = {x, ATTN_F32, HEADS * LEN * SIZE, LEN * SIZE, SIZE, 1};
    const attn_tensor lse = {.data = x};
    softmax = (attn_softmax_args){.isa = ATTN_ISA_SCALAR, .batch = 2, .rows = 3, .cols = 4, .x.data = x, .y.data = y};
    softmax.x.batch_stride = softmax.y.batch_stride = 12;
    softmax.x.row_stride = softmax.y.row_stride = 4;
    softmax.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = lens};
    softmax.empty = ATTN_EMPTY_MEAN;
    assert_said("attn: masked_softmax scalar batch 2 rows 3 cols 4 valid per_sequence empty mean; T\n", run_softmax);
    transpose =
        (attn_transpose_args){.isa = ATTN_ISA_SCALAR, .batch = 1, .len = 2, .heads = 3, .head_size = 4, .y.data = y};
    transpose.x = (attn_tensor){x, ATTN_F32, 24, 0, 12, 1};
    assert_said("attn: transpose_qkv scalar batch 1 len 2 heads 3 head_size 4; T\n", run_transpose_qkv);
    transpose.x = (attn_tensor){.data = x};
    transpose.y = (attn_tensor_out){y, ATTN_F32, 24, 0, 12, 1};
    assert_said("attn: transpose_output scalar batch 1 len 2 heads 3 head_size 4; T\n", run_transpose_output);
    merge =
        (attn_merge_args){.isa = ATTN_ISA_SCALAR, .parts = 1, .batch = BATCH, .heads = HEADS, .q_len = LEN, .o = &part};
    merge.value_size = SIZE;
    merge.log_sum_exp = &lse;
    merge.merged = (attn_tensor_out){y, ATTN_F32, HEADS * LEN * SIZE, LEN * SIZE, SIZE, 1};
    merge.merged_log_sum_exp.data = dense;
    assert_said("attn: merge scalar parts 1 batch 2 heads 4 q_len 3 value_size 4 log_sum_exp; T\n", run_merge);
}

/* ---- Sizes that may have been forgotten ---- */

static attn_status run_gemm_of_nothing(void) {
    return gemm_rows(gemm, 0, NULL, 0, NULL, 0, NULL, NULL);
}

static void test_zeros(void **state) {
    (void)state;
    attention = (attn_attention_args){.isa = ATTN_ISA_SCALAR, .head_size = SIZE};
    assert_said("attn: attention scalar batch 0 heads 0 kv_heads 0 q_len 0 kv_len 0 head_size 4 value_size 4; "
                "batch is 0: nothing is written; heads is 0: nothing is written; q_len is 0: nothing is written; "
                "kv_len is 0: nothing to attend to; T\n",
                run_attention);
    attention = attention_args();
    attention.kv_len = 0;
    assert_said("attn: attention scalar batch 2 heads 4 kv_heads 2 q_len 3 kv_len 0 head_size 4 value_size 4" SMALL "; "
                "kv_len is 0: nothing to attend to; T\n",
                run_attention);
    forward = (attn_layer_args){0};
    assert_said(
        "attn: layer_forward scalar hidden 16 heads 4 kv_heads 2 batch 0 q_len 0 kv_len 0; "
        "batch is 0: nothing is written; q_len is 0: nothing is written; kv_len is 0: nothing to attend to; T\n",
        run_forward);
    assert_said("attn: gemm_run scalar_1x1 m 0 k 16 n 3; m is 0: nothing is written; T\n", run_gemm_of_nothing);
    softmax = (attn_softmax_args){.isa = ATTN_ISA_SCALAR, .rows = 1};
    assert_said("attn: masked_softmax scalar batch 0 rows 1 cols 0; batch is 0: nothing is written; "
                "cols is 0: nothing is written; T\n",
                run_softmax);
    transpose = (attn_transpose_args){.isa = ATTN_ISA_SCALAR, .batch = 1, .head_size = 1};
    assert_said("attn: transpose_qkv scalar batch 1 len 0 heads 0 head_size 1; len is 0: nothing is written; "
                "heads is 0: nothing is written; T\n",
                run_transpose_qkv);
    merge = (attn_merge_args){.isa = ATTN_ISA_SCALAR, .parts = 1, .value_size = 1};
    assert_said("attn: merge scalar parts 1 batch 0 heads 0 q_len 0 value_size 1; batch is 0: nothing is written; "
                "heads is 0: nothing is written; q_len is 0: nothing is written; T\n",
                run_merge);
}

/* ---- Failures ---- */

static attn_error error;

static attn_status fail_with_field(void) {
    return attn_attention(&attention, workspace, BYTES, &error);
}

static attn_status fail_without_field(void) {
    return attn_attention(NULL, NULL, 0, NULL);
}

static attn_status fail_to_append(void) {
    return attn_cache_append(NULL, NULL, &error);
}

static void test_failures(void **state) {
    (void)state;
    attention = attention_args();
    attention.scale = -0.0f;
    char expected[256];
    snprintf(expected, sizeof expected, "attn: attention failed: scale: %s\n", attn_status_string(ATTN_BAD_VALUE));
    assert_string_equal(expected, said_with(ATTN_BAD_VALUE, fail_with_field));
    assert_string_equal("scale", error.field);
    assert_string_equal("attn: attention failed: a required pointer is NULL\n",
                        said_with(ATTN_NULL_POINTER, fail_without_field));
    assert_string_equal("attn: cache_append failed: cache: a required pointer is NULL\n",
                        said_with(ATTN_NULL_POINTER, fail_to_append));
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_levels, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_read_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_long_lines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_attention, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_options, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_caches, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_kinds_of_caches, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_types_of_caches, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_layer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_layer_of_other_sizes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_kernels, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_zeros, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_failures, set_up, tear_down),
    };
    return test_run(tests);
}
