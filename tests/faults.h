/* One fault at a time: valid arguments for every function of the library, a spoiled copy of them, and the check that
 * the function refuses it with the right status and name and writes nothing.
 *
 * faults.c simulates the processor: whatever the test runs on, it lacks the best ISA that is built, and no other. Calls
 * that compute use scalar. */
#ifndef ATTN_TESTS_FAULTS_H
#define ATTN_TESTS_FAULTS_H

#include "support.h"

#include <stdalign.h>
#include <string.h>

/* The best ISA that is built, which the processor is said to lack; ATTN_ISA_BEST where only scalar is built. */
attn_isa unsupported_isa(void);
/* An ISA that is not built: on every architecture there is one. */
attn_isa missing_isa(void);

#define NO_ISA        ((attn_isa)ATTN_ISA_COUNT)
#define NO_TYPE       ((attn_type)(ATTN_F8_E5M2 + 1))
#define ABOVE_PTRDIFF ((size_t)PTRDIFF_MAX + 1)
#define POWER(n)      ((size_t)1 << ((n) * sizeof(size_t) / 8)) /* 2^n, or as large for a size_t of 32 bits */

/* ---- Valid arguments ---- */

enum {
    GEMM_M = 4,
    GEMM_K = 5,
    GEMM_N = 7,
    BATCH = 2,
    HEADS = 4,
    KV_HEADS = 2,
    Q_LEN = 3,
    KV_LEN = 5,
    CAPACITY = 8,
    PAGE = 16,
    PAGES = 3,
    PARTS = 2,
    POSITIONS = 12,
    RING_LEN = 4 * KV_LEN,
    RING_HOLDS = CAPACITY,
    HEAD_SIZE = 4,
    VALUE_SIZE = 6,
    QUERY_WIDTH = 5,
    KEY_WIDTH = 6,
    VALUE_WIDTH = 7,
    HIDDEN = HEADS * HEAD_SIZE,
    KV_HIDDEN = KV_HEADS * HEAD_SIZE,
    ROWS = 3,
    COLS = 5,
    FLOATS = 1024,
    BYTES = 1 << 17
};

/* Everything that a call could write to. */
struct arena {
    alignas(ATTN_ALIGNMENT) unsigned char memory[BYTES];
    alignas(ATTN_ALIGNMENT) unsigned char workspace[BYTES];
    alignas(ATTN_ALIGNMENT) unsigned char gemm_memory[BYTES], bf16_gemm_memory[BYTES];
    alignas(ATTN_ALIGNMENT) unsigned char layer_memory[BYTES];
    alignas(ATTN_ALIGNMENT) unsigned char cache_memory[BYTES];
    alignas(ATTN_ALIGNMENT) unsigned char layer_cache_memory[BYTES];
    alignas(ATTN_ALIGNMENT) unsigned char ring_memory[BYTES];
    alignas(ATTN_ALIGNMENT) unsigned char paged_memory[BYTES];
    alignas(ATTN_ALIGNMENT) unsigned char rotary_memory[BYTES], wide_rotary_memory[BYTES];
    float q[FLOATS], k[FLOATS], v[FLOATS], o[FLOATS], w[FLOATS];
    float weights[FLOATS], scores[FLOATS], log_sum_exp[FLOATS];
    float bias[FLOATS], alibi[HEADS], sinks[HEADS], factors[HEADS];
    uint8_t mask[FLOATS];
    double frequencies[HEAD_SIZE / 2];
    int64_t lens[BATCH * Q_LEN], starts[BATCH], offsets[BATCH], cu[BATCH + 1];
    int32_t pages[PAGES];
    size_t sources[BATCH];
    attn_tensor parts[PARTS];
    attn_tensor part_log_sum_exp[PARTS];
    attn_gemm *gemm, *new_gemm;
    attn_gemm *bf16_gemm;
    attn_layer *layer, *new_layer;
    attn_cache *cache, *layer_cache, *ring; /* hold KV_LEN keys, the ring RING_LEN */
    attn_cache *paged;                      /* empty; of each sequence the first page is set */
    attn_cache *new_cache;
    attn_rotary *rotary, *wide_rotary, *new_rotary; /* of HEAD_SIZE and of more dims */
    attn_cache_config new_config;
    size_t bytes;
    attn_isa isa;
};

/* What the calls are given, and a copy of it from before the call. */
extern struct arena arena, before;

/* The arguments of every function. What a function takes by address it takes by the pointers, which may be NULL. */
struct arguments {
    const attn_gemm_config *gemm_config;
    const attn_gemm_run_args *gemm_run_args;
    const attn_layer_config *layer_config;
    const attn_cache_config *cache_config;
    const attn_softmax_args *softmax_args;
    const attn_transpose_args *transpose_args;
    const attn_attention_args *attention_args;
    const attn_layer_args *layer_args;
    const attn_cache_append_args *keys_args;
    const attn_cache_fork_config *fork_config;
    const attn_rotary_config *rotary_config;
    const attn_merge_args *merge_args;
    const attn_layer_append_args *append_args;
    const attn_gemm *gemm;
    const attn_layer *layer;
    attn_cache *cache;
    size_t *bytes_out;
    void *memory, *workspace;
    size_t bytes;
    attn_gemm **new_gemm;
    attn_layer **new_layer;
    attn_cache **new_cache;
    attn_rotary **new_rotary;
    attn_cache_config *new_config;
    size_t merged_batch_stride, merged_row_stride; /* of the merged side of both transposes */
    size_t sequence, len, first, count;
    const int32_t *pages;

    attn_gemm_config gemm_config_value;
    attn_gemm_run_args gemm_args;
    attn_layer_config layer_config_value;
    attn_cache_config cache_config_value;
    attn_softmax_args softmax;
    attn_transpose_args transpose;
    attn_attention_args attention;
    attn_layer_args forward;
    attn_cache_append_args keys;
    attn_cache_fork_config fork;
    attn_rotary_config rotary_config_value;
    attn_merge_args merge;
    attn_layer_append_args append;
    attn_parallel parallel_value;
};

/* Every call of these succeeds. */
void base(struct arguments *a);

/* Lengths for the BATCH sequences, stored in the arena: cumulative ones of a tensor of `total` rows, or one by one. */
attn_cu_lens packed(int64_t first, int64_t second, int64_t third, size_t total);
const int64_t *two_lens(int64_t first, int64_t second);

/* The config of arena.cache. */
attn_cache_config cache_config(void);

/* A cmocka setup: fills the arena, with the objects created anew. */
int set_up(void **state);

/* ---- The functions ----
 *
 * Each calls the attn_ function of its name; the underscores tell two of them from those of problem.h. */

typedef attn_status function(struct arguments *a, attn_error *error);

function gemm_size, gemm_create, gemm_workspace, gemm_run, masked_softmax, transpose_qkv, transpose_output,
    attention_workspace, attention, merge, rotary_size, rotary_create, cache_size, cache_create_, cache_append,
    cache_truncate, cache_set_pages, cache_adopt, fork_size, fork_create, layer_size, layer_create_, layer_workspace,
    layer_forward, layer_cache_config, layer_append_workspace, layer_append;

/* ---- The check ---- */

extern unsigned provoked; /* a bit per status */

/* Accepts any name: where a product of sizes overflows, no one size is wrong. */
extern const char *const any_name;

/* `call` fails with `expected` and names the field `name`, with and without a pointer to put the name in, and leaves
 * the arena as it was. */
void check_bad(function *call, struct arguments *a, attn_status expected, const char *name);

/* What the last argument, statements, does to valid arguments `a` makes the function fail so. */
#define BAD(call, expected, name, ...)                                                                                 \
    do {                                                                                                               \
        struct arguments a;                                                                                            \
        base(&a);                                                                                                      \
        __VA_ARGS__;                                                                                                   \
        test_case("%s: %s", #call, #__VA_ARGS__);                                                                      \
        check_bad(call, &a, expected, name);                                                                           \
    } while (0)

/* What the last argument, statements, makes of valid arguments `a` is valid too. */
#define GOOD(call, ...)                                                                                                \
    do {                                                                                                               \
        struct arguments a;                                                                                            \
        attn_error error = {.field = "untouched"};                                                                     \
        base(&a);                                                                                                      \
        __VA_ARGS__;                                                                                                   \
        test_case("%s: %s", #call, #__VA_ARGS__);                                                                      \
        assert_ok(call(&a, &error));                                                                                   \
        assert_string_equal("untouched", error.field);                                                                 \
        provoked |= 1u << ATTN_OK;                                                                                     \
    } while (0)

#define BAD_ISA(call, member)                                                                                          \
    do {                                                                                                               \
        BAD(call, ATTN_UNKNOWN_ISA, "isa", a.member = NO_ISA);                                                         \
        BAD(call, ATTN_UNKNOWN_ISA, "isa", a.member = (attn_isa)1000000);                                              \
        BAD(call, ATTN_UNKNOWN_ISA, "isa", a.member = (attn_isa)-1);                                                   \
        BAD(call, ATTN_UNKNOWN_ISA, "isa", a.member = missing_isa());                                                  \
        if (unsupported_isa() != ATTN_ISA_BEST)                                                                        \
            BAD(call, ATTN_UNSUPPORTED_ISA, "isa", a.member = unsupported_isa());                                      \
    } while (0)

#define BAD_SIZE(call, name, member)                                                                                   \
    do {                                                                                                               \
        BAD(call, ATTN_BAD_SIZE, name, a.member = SIZE_MAX);                                                           \
        BAD(call, ATTN_BAD_SIZE, name, a.member = ABOVE_PTRDIFF);                                                      \
    } while (0)

#define ZERO_OR_BAD_SIZE(call, name, member)                                                                           \
    do {                                                                                                               \
        BAD(call, ATTN_BAD_SIZE, name, a.member = 0);                                                                  \
        BAD_SIZE(call, name, member);                                                                                  \
    } while (0)

/* A type, or a column stride, that rows of any floating-point type do not have. */
#define BAD_ROWS(call, name, tensor)                                                                                   \
    do {                                                                                                               \
        BAD(call, ATTN_BAD_VALUE, name ".type", a.tensor.type = ATTN_BOOL);                                            \
        BAD(call, ATTN_BAD_VALUE, name ".type", a.tensor.type = NO_TYPE);                                              \
        BAD(call, ATTN_BAD_VALUE, name ".type", a.tensor.type = (attn_type)-1);                                        \
        BAD(call, ATTN_BAD_STRIDE, name ".col_stride", a.tensor.col_stride = 2);                                       \
    } while (0)

/* What floats of a weight are not, and what is of INT4 alone. */
#define BAD_FLOAT_WEIGHT(call, name, linear)                                                                           \
    do {                                                                                                               \
        BAD(call, ATTN_BAD_VALUE, name ".type", a.linear.type = ATTN_F8_E4M3);                                         \
        BAD(call, ATTN_BAD_VALUE, name ".type", a.linear.type = ATTN_F8_E5M2);                                         \
        BAD(call, ATTN_BAD_VALUE, name ".type", a.linear.type = ATTN_BOOL);                                            \
        BAD(call, ATTN_BAD_VALUE, name ".type", a.linear.type = NO_TYPE);                                              \
        BAD(call, ATTN_BAD_VALUE, name ".type", a.linear.type = (attn_type)-1);                                        \
        BAD(call, ATTN_BAD_VALUE, name ".dequantised", a.linear.dequantised = 1);                                      \
        GOOD(call, a.linear.type = ATTN_BF16);                                                                         \
        GOOD(call, a.linear.type = ATTN_F16);                                                                          \
    } while (0)

/* What keys and values are not stored as. */
#define BAD_STORED_TYPE(call, name, member)                                                                            \
    do {                                                                                                               \
        BAD(call, ATTN_BAD_VALUE, name, a.member = ATTN_F16);                                                          \
        BAD(call, ATTN_BAD_VALUE, name, a.member = ATTN_BOOL);                                                         \
        BAD(call, ATTN_BAD_VALUE, name, a.member = NO_TYPE);                                                           \
        BAD(call, ATTN_BAD_VALUE, name, a.member = (attn_type)-1);                                                     \
        GOOD(call, a.member = ATTN_BF16);                                                                              \
    } while (0)

#define BAD_INTS(call, name, ints) BAD(call, ATTN_BAD_VALUE, name, a.ints.i64 = arena.lens; a.ints.i32 = arena.pages)

/* Memory `member` for which `size_call` says how much it takes. */
#define BAD_MEMORY(call, size_call, name, member)                                                                      \
    do {                                                                                                               \
        BAD(call, ATTN_NULL_POINTER, name, a.member = NULL);                                                           \
        BAD(call, ATTN_MISALIGNED, name, a.member = (char *)a.member + 4);                                             \
        BAD(call, ATTN_MISALIGNED, name, a.member = (char *)a.member + ATTN_ALIGNMENT / 2);                            \
        BAD(call, ATTN_TOO_SMALL, "bytes", a.bytes = 0);                                                               \
        BAD(call, ATTN_TOO_SMALL, "bytes", size_call(&a, NULL); a.bytes = arena.bytes - 1);                            \
        GOOD(call, size_call(&a, NULL); a.bytes = arena.bytes);                                                        \
    } while (0)

/* The order of additions. */
#define BAD_ARITHMETIC(call, member)                                                                                   \
    do {                                                                                                               \
        BAD(call, ATTN_BAD_VALUE, "arithmetic", a.member = (attn_arithmetic)2);                                        \
        BAD(call, ATTN_BAD_VALUE, "arithmetic", a.member = (attn_arithmetic)-1);                                       \
        GOOD(call, a.member = ATTN_ARITHMETIC_PORTABLE);                                                               \
    } while (0)

#endif
