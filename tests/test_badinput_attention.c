/* Bad input at attention, of tensors and by a layer, at merging and at rotary tables: the status, the name of the
 * argument that is wrong, and not a byte written. */
#include "faults.h"

#include <math.h>

/* ---- Attention ---- */

static void put_offset(attn_options *options, int64_t offset) {
    options->causal = 1;
    options->position = ATTN_POSITION_OFFSET;
    options->position_offset = offset;
}

/* The options of attention and of the layer. */
#define BAD_OPTIONS(call, member)                                                                                      \
    do {                                                                                                               \
        BAD(call, ATTN_BAD_VALUE, "options.valid.kind", a.member.valid.kind = (attn_valid_kind)3);                     \
        BAD(call, ATTN_BAD_VALUE, "options.valid.kind", a.member.valid.kind = (attn_valid_kind)-1);                    \
        BAD(call, ATTN_BAD_VALUE, "options.valid.lens", a.member.valid.kind = ATTN_VALID_ALL);                         \
        BAD(call, ATTN_BAD_VALUE, "options.position_offset", a.member.position_offset = 1);                            \
        BAD(call, ATTN_BAD_VALUE, "options.position_offset", put_offset(&a.member, INT64_MIN);                         \
            a.member.position = ATTN_POSITION_TOP_LEFT);                                                               \
        BAD(call, ATTN_BAD_VALUE, "options.position_offset", put_offset(&a.member, -1);                                \
            a.member.position = ATTN_POSITION_VALID_END);                                                              \
        BAD(call, ATTN_BAD_VALUE, "options.position_offset", put_offset(&a.member, 1);                                 \
            a.member.position_offsets.i64 = arena.offsets);                                                            \
        BAD(call, ATTN_BAD_VALUE, "options.position_offsets", a.member.position_offsets.i64 = arena.offsets);          \
        BAD(call, ATTN_BAD_VALUE, "options.position_offsets", a.member.position_offsets.i32 = arena.pages);            \
        BAD(call, ATTN_BAD_VALUE, "options.position_offsets", put_offset(&a.member, 0);                                \
            a.member.position_offsets = (attn_ints){arena.offsets, arena.pages});                                      \
        BAD(call, ATTN_BAD_VALUE, "options.position", a.member.position = ATTN_POSITION_VALID_END;                     \
            a.member.valid.kind = ATTN_VALID_PER_ROW);                                                                 \
        BAD_INTS(call, "options.valid.lens", member.valid.lens);                                                       \
        BAD_INTS(call, "options.starts", member.starts);                                                               \
        BAD_INTS(call, "options.rotary_offsets", member.rotary_offsets);                                               \
        BAD(call, ATTN_BAD_VALUE, "options.valid.row_stride", a.member.valid.row_stride = 1);                          \
        BAD(call, ATTN_BAD_VALUE, "options.valid.row_stride", a.member.valid = (attn_valid_lens){.row_stride = 1});    \
        BAD(call, ATTN_BAD_VALUE, "options.valid.batch_stride",                                                        \
            a.member.valid = (attn_valid_lens){.batch_stride = 1});                                                    \
        BAD(call, ATTN_BAD_VALUE, "options.mask.type", a.member.mask.type = ATTN_F32);                                 \
        BAD(call, ATTN_BAD_VALUE, "options.mask.type", a.member.mask.type = (attn_type)-1);                            \
        BAD(call, ATTN_BAD_VALUE, "options.mask.type", a.member.mask.type = ATTN_BF16);                                \
        BAD(call, ATTN_BAD_VALUE, "options.bias.type", a.member.bias.type = ATTN_BOOL);                                \
        BAD(call, ATTN_BAD_VALUE, "options.bias.type", a.member.bias.type = NO_TYPE);                                  \
        GOOD(call, a.member.bias.type = ATTN_BF16);                                                                    \
        GOOD(call, a.member.bias.type = ATTN_F16; a.member.bias_factors = NULL);                                       \
        BAD(call, ATTN_BAD_VALUE, "options.mask_len", a.member.mask = (attn_tensor){0}; a.member.mask_len = 1);        \
        BAD(call, ATTN_BAD_VALUE, "options.bias_len", a.member.bias = (attn_tensor){0}; a.member.bias_len = 1);        \
        BAD(call, ATTN_BAD_VALUE, "options.bias_factors", a.member.bias = (attn_tensor){0});                           \
        BAD(call, ATTN_BAD_VALUE, "options.mask_hides", a.member.mask = (attn_tensor){0}; a.member.mask_hides = 1);    \
        BAD(call, ATTN_BAD_VALUE, "options.weights.type", a.member.weights.type = ATTN_BOOL);                          \
        BAD(call, ATTN_BAD_VALUE, "options.weights.type", a.member.weights.type = ATTN_BF16);                          \
        BAD(call, ATTN_BAD_VALUE, "options.scores.type", a.member.scores.type = ATTN_BOOL);                            \
        BAD(call, ATTN_BAD_VALUE, "options.scores.type", a.member.scores.type = ATTN_F16);                             \
        BAD(call, ATTN_BAD_VALUE, "options.log_sum_exp.type", a.member.log_sum_exp.type = ATTN_BOOL);                  \
        BAD(call, ATTN_BAD_VALUE, "options.log_sum_exp.type", a.member.log_sum_exp.type = ATTN_BF16);                  \
        BAD(call, ATTN_BAD_VALUE, "options.scores_hidden", a.member.scores_hidden = 1; a.member.scores.data = NULL);   \
        BAD(call, ATTN_BAD_VALUE, "options.scores_hidden", a.member.scores_hidden = 1;                                 \
            a.member.score_stage = ATTN_SCORE_MASKED);                                                                 \
        GOOD(call, a.member.scores_hidden = 1);                                                                        \
        GOOD(call, a.member.mask_hides = -1; a.member.mask_len = a.member.bias_len = KV_LEN);                          \
        GOOD(call, a.member.valid.batch_stride = 1);                                                                   \
        BAD(call, ATTN_BAD_VALUE, "options.rotary_offsets", a.member.rotary_offsets.i64 = arena.offsets);              \
        BAD(call, ATTN_BAD_VALUE, "options.position", a.member.position = (attn_position)4);                           \
        BAD(call, ATTN_BAD_VALUE, "options.position", a.member.position = (attn_position)-1);                          \
        BAD_SIZE(call, "options.window_left", member.window_left);                                                     \
        BAD_SIZE(call, "options.window_right", member.window_right);                                                   \
        BAD(call, ATTN_BAD_VALUE, "options.soft_cap", a.member.soft_cap = NAN);                                        \
        BAD(call, ATTN_BAD_VALUE, "options.soft_cap", a.member.soft_cap = INFINITY);                                   \
        BAD(call, ATTN_BAD_VALUE, "options.soft_cap", a.member.soft_cap = -1.0f);                                      \
        BAD(call, ATTN_BAD_VALUE, "options.empty", a.member.empty = (attn_empty_rows)2);                               \
        BAD(call, ATTN_MISMATCH, "options.rotary", a.member.rotary = arena.wide_rotary);                               \
        BAD(call, ATTN_BAD_VALUE, "options.dropout", a.member.dropout = NAN);                                          \
        BAD(call, ATTN_BAD_VALUE, "options.dropout", a.member.dropout = 1.0f);                                         \
        BAD(call, ATTN_BAD_VALUE, "options.dropout", a.member.dropout = -0.25f);                                       \
        BAD(call, ATTN_BAD_VALUE, "options.dropout", a.member.dropout = INFINITY);                                     \
        BAD(call, ATTN_BAD_VALUE, "options.score_stage", a.member.score_stage = (attn_score_stage)3);                  \
        BAD(call, ATTN_BAD_VALUE, "options.score_stage", a.member.score_stage = (attn_score_stage)-1);                 \
        GOOD(call, put_offset(&a.member, INT64_MIN));                                                                  \
        GOOD(call, a.member.causal = -1);                                                                              \
        GOOD(call, put_offset(&a.member, 0); a.member.position_offsets.i64 = arena.offsets);                           \
        GOOD(call, put_offset(&a.member, 0); a.member.position_offsets.i32 = arena.pages);                             \
        GOOD(call, a.member.position = ATTN_POSITION_VALID_END);                                                       \
        GOOD(call, put_offset(&a.member, INT64_MAX));                                                                  \
        GOOD(call, a.member.window_left = a.member.window_right = PTRDIFF_MAX);                                        \
        GOOD(call, a.member.rotary = arena.rotary);                                                                    \
        GOOD(call, a.member.rotary = arena.rotary; a.member.rotary_offsets.i64 = arena.offsets);                       \
        GOOD(call, a.member.mask.data = NULL; a.member.bias.data = NULL; a.member.bias_factors = NULL;                 \
             a.member.dropout_seed = 1);                                                                               \
        GOOD(call, a.member.score_stage = ATTN_SCORE_MASKED; a.member.scores.data = NULL);                             \
    } while (0)

/* An optional output on top of whatever else the call reads or writes, `o_floats` of main output among it. */
#define BAD_OPTION_OUTPUT(call, name, options, output, o_floats)                                                       \
    do {                                                                                                               \
        BAD(call, ATTN_OVERLAP, name, a.options.output.data = arena.o + (o_floats)-1);                                 \
        BAD(call, ATTN_OVERLAP, name, a.options.output.data = arena.q);                                                \
        BAD(call, ATTN_OVERLAP, name, a.options.output.data = arena.k);                                                \
        BAD(call, ATTN_OVERLAP, name, a.options.output.data = arena.v);                                                \
        BAD(call, ATTN_OVERLAP, name, a.options.output.data = arena.bias);                                             \
        BAD(call, ATTN_OVERLAP, name, a.options.mask.data = a.options.output.data);                                    \
    } while (0)

enum { WEIGHTS = BATCH * HEADS * Q_LEN * KV_LEN };

/* What options point to, given how many floats the main output has. */
#define BAD_OPTION_DATA(call, member, o_floats)                                                                        \
    do {                                                                                                               \
        BAD(call, ATTN_NULL_POINTER, "options.valid.lens", a.member.valid.lens.i64 = NULL);                            \
        BAD(call, ATTN_BAD_SIZE, "options.mask_len", a.member.mask_len = KV_LEN + 1);                                  \
        BAD(call, ATTN_BAD_SIZE, "options.bias_len", a.member.bias_len = SIZE_MAX);                                    \
        BAD(call, ATTN_BAD_STRIDE, "options.mask", a.member.mask = (attn_tensor){arena.mask, ATTN_BOOL, 0, 0, 0, 0});  \
        BAD(call, ATTN_BAD_STRIDE, "options.bias", a.member.bias = (attn_tensor){.data = arena.bias});                 \
        BAD(call, ATTN_OVERFLOW, "options.mask", a.member.mask.col_stride = SIZE_MAX);                                 \
        BAD(call, ATTN_OVERFLOW, "options.bias", a.member.bias.col_stride = PTRDIFF_MAX / 4);                          \
        BAD(call, ATTN_BAD_STRIDE, "options.weights", a.member.weights.col_stride = 1);                                \
        BAD(call, ATTN_BAD_STRIDE, "options.scores", a.member.scores.row_stride = KV_LEN);                             \
        BAD(call, ATTN_BAD_STRIDE, "options.scores",                                                                   \
            a.member.scores = (attn_tensor_out){arena.scores, ATTN_F32, 300, 60, 10, 3});                              \
        BAD(call, ATTN_BAD_STRIDE, "options.log_sum_exp", a.member.log_sum_exp.row_stride = 1);                        \
        BAD(call, ATTN_OVERFLOW, "options.scores",                                                                     \
            a.member.scores = (attn_tensor_out){arena.scores, ATTN_F32, SIZE_MAX / 2, 60, 10, 1});                     \
        BAD(call, ATTN_OVERFLOW, "options.weights", a.member.weights.col_stride = SIZE_MAX);                           \
        BAD(call, ATTN_OVERFLOW, "options.mask", a.member.mask.batch_stride = SIZE_MAX);                               \
        BAD(call, ATTN_OVERFLOW, "options.mask", a.member.mask.head_stride = SIZE_MAX / 2);                            \
        BAD(call, ATTN_OVERFLOW, "options.mask", a.member.mask.row_stride = PTRDIFF_MAX);                              \
        BAD(call, ATTN_OVERFLOW, "options.bias", a.member.bias.batch_stride = SIZE_MAX);                               \
        BAD(call, ATTN_OVERFLOW, "options.bias", a.member.bias.head_stride = SIZE_MAX / 8);                            \
        BAD(call, ATTN_OVERFLOW, "options.bias", a.member.bias.row_stride = PTRDIFF_MAX / 4);                          \
        BAD(call, ATTN_BAD_VALUE, "options.alibi", arena.alibi[HEADS - 1] = NAN);                                      \
        arena.alibi[HEADS - 1] = 0;                                                                                    \
        BAD(call, ATTN_BAD_VALUE, "options.alibi", arena.alibi[0] = -INFINITY);                                        \
        arena.alibi[0] = 0;                                                                                            \
        BAD(call, ATTN_BAD_VALUE, "options.bias_factors", arena.factors[HEADS - 1] = NAN);                             \
        arena.factors[HEADS - 1] = 0;                                                                                  \
        BAD(call, ATTN_BAD_VALUE, "options.bias_factors", arena.factors[0] = INFINITY);                                \
        arena.factors[0] = 0;                                                                                          \
        BAD(call, ATTN_OVERFLOW, "options.bias", a.member.bias.type = ATTN_F16;                                        \
            a.member.bias.col_stride = PTRDIFF_MAX / 2);                                                               \
        BAD(call, ATTN_OVERLAP, "options.scores", a.member.bias.type = ATTN_BF16;                                      \
            a.member.bias.data = (const char *)arena.scores + (WEIGHTS - 1) * sizeof(float) + 2);                      \
        BAD_OPTION_OUTPUT(call, "options.weights", member, weights, o_floats);                                         \
        BAD_OPTION_OUTPUT(call, "options.scores", member, scores, o_floats);                                           \
        BAD_OPTION_OUTPUT(call, "options.log_sum_exp", member, log_sum_exp, o_floats);                                 \
        BAD(call, ATTN_OVERLAP, "options.scores", a.member.scores.data = arena.weights);                               \
        BAD(call, ATTN_OVERLAP, "options.scores", a.member.scores.data = arena.weights + WEIGHTS - 1);                 \
        BAD(call, ATTN_OVERLAP, "options.log_sum_exp", a.member.log_sum_exp.data = arena.weights);                     \
        BAD(call, ATTN_OVERLAP, "options.log_sum_exp", a.member.log_sum_exp.data = arena.weights + WEIGHTS - 1);       \
        BAD(call, ATTN_OVERLAP, "options.log_sum_exp", a.member.log_sum_exp.data = arena.scores + WEIGHTS - 1);        \
        BAD(call, ATTN_BAD_VALUE, "options.rotary", a.member.rotary = arena.rotary;                                    \
            a.member.rotary_offsets.i64 = arena.offsets; arena.offsets[BATCH - 1] = POSITIONS - KV_LEN + 1);           \
        BAD(call, ATTN_BAD_VALUE, "options.rotary", a.member.rotary = arena.rotary;                                    \
            a.member.rotary_offsets.i64 = arena.offsets; arena.offsets[BATCH - 1] = -(KV_LEN - Q_LEN) - 1);            \
        BAD(call, ATTN_BAD_VALUE, "options.rotary", a.member.rotary = arena.rotary;                                    \
            a.member.rotary_offsets.i64 = arena.offsets; arena.offsets[BATCH - 1] = INT64_MAX);                        \
        BAD(call, ATTN_BAD_VALUE, "options.rotary", a.member.rotary = arena.rotary;                                    \
            a.member.rotary_offsets.i64 = arena.offsets; arena.offsets[BATCH - 1] = INT64_MIN);                        \
        arena.offsets[BATCH - 1] = 0;                                                                                  \
        BAD(call, ATTN_BAD_VALUE, "options.rotary", a.member.rotary = arena.rotary;                                    \
            put_offset(&a.member, POSITIONS - Q_LEN + 1));                                                             \
        BAD(call, ATTN_BAD_VALUE, "options.rotary", a.member.rotary = arena.rotary; a.member.alibi = NULL;             \
            put_offset(&a.member, INT64_MAX));                                                                         \
        GOOD(call, a.member.rotary = arena.rotary; put_offset(&a.member, POSITIONS - Q_LEN));                          \
        GOOD(call, put_offset(&a.member, INT32_MIN / 4));                                                              \
        GOOD(call, a.member.weights.data = NULL; a.member.scores.data = NULL; a.member.log_sum_exp.data = NULL);       \
        GOOD(call, a.member.valid = (attn_valid_lens){0});                                                             \
        GOOD(call, a.member.mask.batch_stride = a.member.mask.head_stride = a.member.mask.row_stride = 0);             \
        GOOD(call, a.member.bias.batch_stride = a.member.bias.head_stride = a.member.bias.row_stride = 0);             \
    } while (0)

/* Cumulative lengths of `member`, sequences of at most `most` rows. */
#define BAD_CU(call, name, member, most)                                                                               \
    do {                                                                                                               \
        BAD(call, ATTN_BAD_VALUE, name, a.member = packed(0, 2, 1, 4));                                                \
        BAD(call, ATTN_BAD_VALUE, name, a.member = packed(-1, 1, 2, 4));                                               \
        BAD(call, ATTN_BAD_VALUE, name, a.member = packed(0, 1, 3, 2));                                                \
        BAD(call, ATTN_BAD_VALUE, name, a.member = packed(0, 0, (most) + 1, 99));                                      \
        BAD(call, ATTN_BAD_VALUE, name, a.member = packed(INT64_MIN, 0, 1, 4));                                        \
        BAD(call, ATTN_BAD_VALUE, name, a.member = packed(0, 1, INT64_MAX, 4));                                        \
        BAD(call, ATTN_BAD_VALUE, name, a.member = packed(INT64_MAX, INT64_MIN, 1, 4));                                \
        GOOD(call, a.member = packed(0, 0, (most), (most)));                                                           \
        GOOD(call, a.member = packed(1, 2, 2, 3));                                                                     \
    } while (0)

static void attention_sizes(function *call) {
    BAD(call, ATTN_NULL_POINTER, "args", a.attention_args = NULL);
    BAD(call, ATTN_NULL_POINTER, "parallel.run", a.parallel_value.run = NULL; a.attention.parallel = &a.parallel_value);
    BAD_ISA(call, attention.isa);
    BAD_SIZE(call, "batch", attention.batch);
    BAD_SIZE(call, "heads", attention.heads);
    BAD_SIZE(call, "kv_heads", attention.kv_heads);
    BAD_SIZE(call, "q_len", attention.q_len);
    BAD_SIZE(call, "kv_len", attention.kv_len);
    ZERO_OR_BAD_SIZE(call, "head_size", attention.head_size);
    BAD_SIZE(call, "value_size", attention.value_size);
    BAD(call, ATTN_BAD_SIZE, "kv_heads", a.attention.kv_heads = 3);
    BAD(call, ATTN_BAD_SIZE, "kv_heads", a.attention.kv_heads = HEADS + 1);
    BAD(call, ATTN_BAD_VALUE, "scale", a.attention.scale = NAN);
    BAD(call, ATTN_BAD_VALUE, "scale", a.attention.scale = INFINITY);
    BAD(call, ATTN_BAD_VALUE, "scale", a.attention.scale = -INFINITY);
    BAD(call, ATTN_BAD_VALUE, "scale", a.attention.scale = -0.0f);
    GOOD(call, a.attention.scale = -0x1p-149f);
    BAD_OPTIONS(call, attention.options);
    BAD(call, ATTN_OVERFLOW, any_name, a.attention.batch = a.attention.heads = a.attention.kv_heads = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.attention.kv_len = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.attention.head_size = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.attention.value_size = PTRDIFF_MAX);
    BAD(call, ATTN_BAD_SIZE, "q_cu.total", a.attention.q_cu = packed(0, 1, 2, SIZE_MAX));
    BAD(call, ATTN_BAD_SIZE, "q_cu.total", a.attention.q_cu = packed(0, 1, 2, ABOVE_PTRDIFF));
    BAD(call, ATTN_BAD_SIZE, "kv_cu.total", a.attention.kv_cu = packed(0, 1, 2, SIZE_MAX));
    BAD(call, ATTN_BAD_SIZE, "kv_cu.total", a.attention.kv_cu = packed(0, 1, 2, ABOVE_PTRDIFF));
    BAD(call, ATTN_BAD_VALUE, "q_cu.total", a.attention.q_cu.total = 1);
    BAD(call, ATTN_BAD_VALUE, "kv_cu.total", a.attention.kv_cu.total = SIZE_MAX);
    BAD(call, ATTN_MISMATCH, "kv_cu.cu", a.attention.cache = arena.cache; a.attention.kv_cu = packed(0, 1, 2, KV_LEN));
    BAD(call, ATTN_MISMATCH, "cache", a.attention.cache = arena.cache; a.attention.kv_heads = 4);
    BAD(call, ATTN_MISMATCH, "cache", a.attention.cache = arena.cache; a.attention.batch = BATCH + 1);
    BAD(call, ATTN_MISMATCH, "cache", a.attention.cache = arena.cache; a.attention.head_size = HEAD_SIZE + 1);
    BAD(call, ATTN_MISMATCH, "cache", a.attention.cache = arena.cache; a.attention.value_size = 0);
    BAD(call, ATTN_MISMATCH, "kv_len", a.attention.cache = arena.cache; a.attention.kv_len = KV_LEN + 1);
    BAD(call, ATTN_MISMATCH, "kv_len", a.attention.cache = arena.cache; a.attention.kv_len = CAPACITY);
    BAD_ARITHMETIC(call, attention.arithmetic);
    BAD(call, ATTN_BAD_VALUE, "q.type", a.attention.q.type = ATTN_BOOL; a.attention.batch = 0);
    BAD(call, ATTN_BAD_VALUE, "o.type", a.attention.o.type = NO_TYPE; a.attention.q_len = 0);
    BAD(call, ATTN_BAD_VALUE, "k.type", a.attention.k.type = a.attention.v.type = ATTN_BOOL);
    /* Keys and values have one type, which decides the class. */
    BAD(call, ATTN_BAD_VALUE, "v.type", a.attention.k.type = ATTN_BF16);
    BAD(call, ATTN_BAD_VALUE, "v.type", a.attention.k.type = ATTN_F16);
    BAD(call, ATTN_BAD_VALUE, "v.type", a.attention.v.type = ATTN_BF16);
    BAD(call, ATTN_BAD_VALUE, "v.type", a.attention.k.type = ATTN_BF16; a.attention.v.type = ATTN_F16);
    BAD(call, ATTN_BAD_VALUE, "v.type", a.attention.v.type = ATTN_F16; a.attention.kv_len = 0);
    GOOD(call, a.attention.q.type = a.attention.o.type = ATTN_F16);
    GOOD(call, a.attention.k.type = a.attention.v.type = ATTN_F16);
    GOOD(call, a.attention.k.type = a.attention.v.type = ATTN_BF16);
    /* Beside a cache they are not looked at. */
    GOOD(call, a.attention.cache = arena.cache; a.attention.k.type = ATTN_BOOL; a.attention.v.type = ATTN_BF16);
    GOOD(call, a.attention.cache = arena.cache; a.attention.kv_len = 0);
    GOOD(call, a.attention.cache = arena.cache; a.attention.isa = ATTN_ISA_BEST);
    GOOD(call, a.attention.kv_len = 0; a.attention.k = a.attention.v = (attn_tensor){0});
    GOOD(call, a.attention.batch = 0; a.attention.q.data = NULL; a.attention.o.data = NULL);
}

static void one_sequence(attn_attention_args *args) {
    args->batch = args->heads = args->kv_heads = 1;
}

static void test_attention(void **state) {
    (void)state;
    size_t o_floats = BATCH * HEADS * Q_LEN * VALUE_SIZE;
    attention_sizes(attention_workspace);
    attention_sizes(attention);
    BAD(attention_workspace, ATTN_NULL_POINTER, "bytes", a.bytes_out = NULL);
    BAD(attention, ATTN_NULL_POINTER, "q.data", a.attention.q.data = NULL);
    BAD(attention, ATTN_NULL_POINTER, "k.data", a.attention.k.data = NULL);
    BAD(attention, ATTN_NULL_POINTER, "v.data", a.attention.v.data = NULL);
    BAD(attention, ATTN_NULL_POINTER, "o.data", a.attention.o.data = NULL);
    BAD(attention, ATTN_BAD_STRIDE, "o", a.attention.o.row_stride = VALUE_SIZE - 1);
    BAD(attention, ATTN_BAD_STRIDE, "o", a.attention.o.row_stride = 0);
    BAD(attention, ATTN_BAD_STRIDE, "o", a.attention.o.head_stride = 0);
    BAD(attention, ATTN_BAD_STRIDE, "o", a.attention.o.head_stride = Q_LEN * VALUE_SIZE - 1);
    BAD(attention, ATTN_BAD_STRIDE, "o", a.attention.o.batch_stride = 0);
    BAD(attention, ATTN_BAD_STRIDE, "o", a.attention.o.batch_stride = HEADS * Q_LEN * VALUE_SIZE - 1);
    BAD(attention, ATTN_OVERFLOW, "q", a.attention.q.row_stride = SIZE_MAX);
    BAD(attention, ATTN_OVERFLOW, "q", a.attention.q.head_stride = SIZE_MAX / 3);
    BAD(attention, ATTN_OVERFLOW, "k", a.attention.k.head_stride = SIZE_MAX / 4);
    BAD(attention, ATTN_OVERFLOW, "v", a.attention.v.batch_stride = SIZE_MAX / 2);
    BAD(attention, ATTN_OVERFLOW, "o", a.attention.o.batch_stride = SIZE_MAX);
    BAD(attention, ATTN_OVERLAP, "o", a.attention.o.data = arena.q);
    BAD(attention, ATTN_OVERLAP, "o", a.attention.o.data = arena.k + 1);
    BAD(attention, ATTN_OVERLAP, "o", a.attention.o.data = arena.v + BATCH * KV_HEADS * KV_LEN * VALUE_SIZE - 1);
    BAD(attention, ATTN_OVERLAP, "o", a.attention.o.data = arena.bias);
    BAD(attention, ATTN_OVERLAP, "o", a.attention.options.mask.data = (const uint8_t *)(arena.o + 1));
    BAD_CU(attention, "q_cu.cu", attention.q_cu, Q_LEN);
    BAD_CU(attention, "kv_cu.cu", attention.kv_cu, KV_LEN);
    GOOD(attention, a.attention.q_cu = packed(0, 1, 2, 2); a.attention.q.batch_stride = SIZE_MAX;
         a.attention.o.batch_stride = 0);
    GOOD(attention, a.attention.kv_cu = packed(0, 1, 2, 2);
         a.attention.k.batch_stride = a.attention.v.batch_stride = SIZE_MAX);
    /* Elements of 2 bytes end earlier. */
    BAD(attention, ATTN_OVERLAP, "o", a.attention.o.type = ATTN_F16;
        a.attention.o.data = (char *)arena.q - (o_floats * sizeof(uint16_t) - 2));
    BAD(attention, ATTN_OVERLAP, "o", a.attention.q.type = ATTN_BF16; a.attention.o.data = (char *)arena.q + 64);
    GOOD(attention, a.attention.q.type = ATTN_BF16;
         a.attention.o.data = (char *)arena.q + BATCH * HEADS * Q_LEN * HEAD_SIZE * sizeof(uint16_t));
    BAD_OPTION_DATA(attention, attention.options, o_floats);
    BAD_MEMORY(attention, attention_workspace, "workspace", workspace);
    BAD(attention, ATTN_BAD_STRIDE, "q", a.attention.q = (attn_tensor){arena.q, ATTN_F32, 0, 0, 0, 1});
    BAD(attention, ATTN_BAD_STRIDE, "q", a.attention.q = (attn_tensor){arena.q, ATTN_F32, 0, 0, 0, 1};
        a.attention.q_len = 1);
    BAD(attention, ATTN_BAD_STRIDE, "q", a.attention.q = (attn_tensor){arena.q, ATTN_F32, 1, 0, 0, 1};
        a.attention.q_cu = packed(0, 1, 2, 2));
    BAD_ROWS(attention, "q", attention.q);
    BAD_ROWS(attention, "k", attention.k);
    BAD_ROWS(attention, "v", attention.v);
    BAD_ROWS(attention, "o", attention.o);
    BAD(attention, ATTN_BAD_VALUE, "q_cu.cu", a.attention.q_cu = packed(0, 1, 2, 3);
        a.attention.q_cu.cu.i32 = arena.pages);
    BAD(attention, ATTN_BAD_VALUE, "kv_cu.cu", a.attention.kv_cu = packed(0, 1, 2, 3);
        a.attention.kv_cu.cu.i32 = arena.pages);
    BAD(attention, ATTN_BAD_STRIDE, "k", a.attention.k = (attn_tensor){arena.k, ATTN_F32, 0, 0, 0, 1});
    BAD(attention, ATTN_BAD_STRIDE, "k", a.attention.k = (attn_tensor){arena.k, ATTN_F32, 0, 0, 0, 1};
        one_sequence(&a.attention));
    BAD(attention, ATTN_BAD_STRIDE, "k", a.attention.k = (attn_tensor){arena.k, ATTN_F32, 0, 0, 0, 1};
        a.attention.kv_cu = packed(0, 1, 1, 1));
    GOOD(attention, a.attention.q.batch_stride = a.attention.k.head_stride = a.attention.v.row_stride = 0);
    GOOD(attention, a.attention.q = (attn_tensor){arena.q, ATTN_F32, 0, 0, HEAD_SIZE, 1});
    GOOD(attention, a.attention.k = (attn_tensor){arena.k, ATTN_F32, 0, HEAD_SIZE, 0, 1});
    GOOD(attention, a.attention.k = (attn_tensor){arena.k, ATTN_F32, 1, 0, 0, 1});
    GOOD(attention, a.attention.v = (attn_tensor){arena.v, ATTN_F32, 0, 0, 0, 1});
    GOOD(attention, a.attention.k = (attn_tensor){arena.k, ATTN_F32, 0, 0, 0, 1}; one_sequence(&a.attention);
         a.attention.kv_len = 1);
    GOOD(attention, a.attention.k = (attn_tensor){arena.k, ATTN_F32, 0, 0, 0, 1}; a.attention.kv_len = 0);
    GOOD(attention, a.attention.q = a.attention.k = (attn_tensor){arena.q, ATTN_F32, 0, 0, 0, 1};
         one_sequence(&a.attention); a.attention.q_len = a.attention.kv_len = 1);
}

/* ---- Merging parts ---- */

static void test_merge(void **state) {
    (void)state;
    size_t o_floats = BATCH * HEADS * Q_LEN * VALUE_SIZE, rows = BATCH * HEADS * Q_LEN;
    BAD(merge, ATTN_NULL_POINTER, "args", a.merge_args = NULL);
    BAD_ISA(merge, merge.isa);
    ZERO_OR_BAD_SIZE(merge, "parts", merge.parts);
    BAD_SIZE(merge, "batch", merge.batch);
    BAD_SIZE(merge, "heads", merge.heads);
    BAD_SIZE(merge, "q_len", merge.q_len);
    BAD_SIZE(merge, "value_size", merge.value_size);
    BAD(merge, ATTN_NULL_POINTER, "o", a.merge.o = NULL);
    BAD(merge, ATTN_NULL_POINTER, "o.data", arena.parts[PARTS - 1].data = NULL);
    arena.parts[PARTS - 1].data = arena.k;
    BAD(merge, ATTN_NULL_POINTER, "log_sum_exp", a.merge.log_sum_exp = NULL);
    BAD(merge, ATTN_NULL_POINTER, "log_sum_exp.data", arena.part_log_sum_exp[PARTS - 1].data = NULL);
    arena.part_log_sum_exp[PARTS - 1].data = arena.q;
    BAD(merge, ATTN_NULL_POINTER, "merged.data", a.merge.merged.data = NULL);
    BAD(merge, ATTN_BAD_STRIDE, "merged", a.merge.merged.row_stride = VALUE_SIZE - 1);
    BAD(merge, ATTN_BAD_STRIDE, "merged", a.merge.merged.head_stride = 0);
    BAD(merge, ATTN_BAD_STRIDE, "merged", a.merge.merged.batch_stride = HEADS * Q_LEN * VALUE_SIZE - 1);
    BAD(merge, ATTN_OVERFLOW, "o", arena.parts[0].head_stride = SIZE_MAX / 3);
    arena.parts[0].head_stride = Q_LEN * VALUE_SIZE;
    BAD(merge, ATTN_OVERFLOW, "merged", a.merge.merged.batch_stride = SIZE_MAX);
    BAD(merge, ATTN_OVERFLOW, any_name, a.merge.batch = PTRDIFF_MAX);
    BAD(merge, ATTN_OVERFLOW, any_name, a.merge.q_len = PTRDIFF_MAX);
    BAD(merge, ATTN_OVERFLOW, any_name, a.merge.value_size = PTRDIFF_MAX);
    BAD(merge, ATTN_OVERLAP, "merged", a.merge.merged.data = arena.v);
    BAD(merge, ATTN_OVERLAP, "merged", a.merge.merged.data = arena.k + o_floats - 1);
    BAD(merge, ATTN_OVERLAP, "merged", a.merge.merged.data = arena.q);
    BAD(merge, ATTN_OVERLAP, "merged_log_sum_exp", a.merge.merged_log_sum_exp.data = arena.o + o_floats - 1);
    BAD(merge, ATTN_OVERLAP, "merged_log_sum_exp", a.merge.merged_log_sum_exp.data = arena.k);
    BAD(merge, ATTN_OVERLAP, "merged_log_sum_exp", a.merge.merged_log_sum_exp.data = arena.q + rows - 1);
    BAD(merge, ATTN_NULL_POINTER, "parallel.run", a.parallel_value.run = NULL; a.merge.parallel = &a.parallel_value);
    BAD_ROWS(merge, "merged", merge.merged);
    BAD(merge, ATTN_BAD_VALUE, "merged_log_sum_exp.type", a.merge.merged_log_sum_exp.type = ATTN_BOOL);
    BAD(merge, ATTN_BAD_STRIDE, "merged_log_sum_exp", a.merge.merged_log_sum_exp.row_stride = 1);
    BAD(merge, ATTN_BAD_STRIDE, "merged_log_sum_exp", a.merge.merged_log_sum_exp.col_stride = 1);
    BAD(merge, ATTN_BAD_VALUE, "o.type", arena.parts[0].type = ATTN_BOOL);
    GOOD(merge, arena.parts[0].type = ATTN_F16);
    arena.parts[0].type = ATTN_F32;
    GOOD(merge, a.merge.merged.type = ATTN_BF16);
    BAD(merge, ATTN_BAD_STRIDE, "o.col_stride", arena.parts[0].col_stride = 2);
    arena.parts[0].col_stride = 1;
    BAD(merge, ATTN_BAD_VALUE, "log_sum_exp.type", arena.part_log_sum_exp[1].type = ATTN_BOOL);
    arena.part_log_sum_exp[1].type = ATTN_F32;
    BAD(merge, ATTN_BAD_STRIDE, "log_sum_exp", arena.part_log_sum_exp[1].col_stride = 1);
    arena.part_log_sum_exp[1].col_stride = 0;
    GOOD(merge, a.merge.merged_log_sum_exp.data = NULL);
    GOOD(merge, a.merge.parts = 1);
    GOOD(merge, a.merge.batch = 0; a.merge.merged.data = NULL);
    GOOD(merge, a.merge.q_len = 0; a.merge.merged.data = NULL);
}

/* ---- Rotary tables ---- */

static void rotary_configs(function *call) {
    BAD(call, ATTN_NULL_POINTER, "config", a.rotary_config = NULL);
    ZERO_OR_BAD_SIZE(call, "positions", rotary_config_value.positions);
    ZERO_OR_BAD_SIZE(call, "dims", rotary_config_value.dims);
    BAD(call, ATTN_BAD_SIZE, "dims", a.rotary_config_value.dims = 1);
    BAD(call, ATTN_BAD_SIZE, "dims", a.rotary_config_value.dims = 7);
    BAD(call, ATTN_BAD_VALUE, "pairs", a.rotary_config_value.pairs = (attn_rotary_pairs)2);
    BAD(call, ATTN_BAD_VALUE, "pairs", a.rotary_config_value.pairs = (attn_rotary_pairs)-1);
    BAD(call, ATTN_BAD_VALUE, "base", a.rotary_config_value.base = (double)NAN);
    BAD(call, ATTN_BAD_VALUE, "base", a.rotary_config_value.base = (double)INFINITY);
    BAD(call, ATTN_BAD_VALUE, "base", a.rotary_config_value.base = -10000);
    BAD(call, ATTN_BAD_VALUE, "base", a.rotary_config_value.base = -0.0);
    BAD(call, ATTN_BAD_VALUE, "base", a.rotary_config_value.base = 10000;
        a.rotary_config_value.frequencies = arena.frequencies);
    BAD(call, ATTN_OVERFLOW, any_name, a.rotary_config_value.positions = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.rotary_config_value.dims = PTRDIFF_MAX - 1);
    BAD(call, ATTN_OVERFLOW, any_name, a.rotary_config_value.positions = a.rotary_config_value.dims = POWER(32));
}

static void test_rotary(void **state) {
    (void)state;
    rotary_configs(rotary_size);
    rotary_configs(rotary_create);
    BAD(rotary_size, ATTN_NULL_POINTER, "bytes", a.bytes_out = NULL);
    BAD(rotary_create, ATTN_NULL_POINTER, "rotary", a.new_rotary = NULL);
    BAD(rotary_create, ATTN_BAD_VALUE, "frequencies", a.rotary_config_value.frequencies = arena.frequencies;
        arena.frequencies[HEAD_SIZE / 2 - 1] = (double)NAN);
    BAD(rotary_create, ATTN_BAD_VALUE, "frequencies", a.rotary_config_value.frequencies = arena.frequencies;
        arena.frequencies[HEAD_SIZE / 2 - 1] = (double)-INFINITY);
    arena.frequencies[HEAD_SIZE / 2 - 1] = -3;
    GOOD(rotary_create, a.rotary_config_value.frequencies = arena.frequencies);
    BAD_MEMORY(rotary_create, rotary_size, "memory", memory);
}

/* ---- Layer ---- */

static void layer_configs(function *call) {
    BAD(call, ATTN_NULL_POINTER, "config", a.layer_config = NULL);
    BAD_ISA(call, layer_config_value.isa);
    ZERO_OR_BAD_SIZE(call, "query_width", layer_config_value.query_width);
    ZERO_OR_BAD_SIZE(call, "key_width", layer_config_value.key_width);
    ZERO_OR_BAD_SIZE(call, "value_width", layer_config_value.value_width);
    ZERO_OR_BAD_SIZE(call, "hidden", layer_config_value.hidden);
    ZERO_OR_BAD_SIZE(call, "heads", layer_config_value.heads);
    BAD_SIZE(call, "kv_heads", layer_config_value.kv_heads);
    BAD_SIZE(call, "head_size", layer_config_value.head_size);
    BAD_SIZE(call, "value_size", layer_config_value.value_size);
    BAD_SIZE(call, "out_size", layer_config_value.out_size);
    BAD(call, ATTN_BAD_SIZE, "heads", a.layer_config_value.heads = 3);
    BAD(call, ATTN_BAD_SIZE, "heads", a.layer_config_value.heads = 2 * HIDDEN);
    BAD(call, ATTN_BAD_SIZE, "hidden", a.layer_config_value.head_size = HEAD_SIZE + 1);
    BAD(call, ATTN_BAD_SIZE, "hidden", a.layer_config_value.head_size = HEAD_SIZE; a.layer_config_value.hidden--);
    BAD(call, ATTN_BAD_SIZE, "kv_heads", a.layer_config_value.kv_heads = 3);
    BAD(call, ATTN_BAD_SIZE, "kv_heads", a.layer_config_value.kv_heads = 2 * HEADS);
    BAD(call, ATTN_BAD_VALUE, "scale", a.layer_config_value.scale = NAN);
    BAD(call, ATTN_BAD_VALUE, "scale", a.layer_config_value.scale = INFINITY);
    BAD(call, ATTN_BAD_VALUE, "scale", a.layer_config_value.scale = -INFINITY);
    BAD(call, ATTN_BAD_VALUE, "scale", a.layer_config_value.scale = -0.0f);
    BAD(call, ATTN_OVERFLOW, any_name, a.layer_config_value.query_width = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.layer_config_value.key_width = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.layer_config_value.value_width = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.layer_config_value.hidden = POWER(60));
    BAD(call, ATTN_OVERFLOW, any_name, a.layer_config_value.hidden = POWER(31));
    BAD(call, ATTN_OVERFLOW, any_name, a.layer_config_value.head_size = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.layer_config_value.value_size = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.layer_config_value.value_size = PTRDIFF_MAX / HEADS);
    BAD(call, ATTN_OVERFLOW, any_name, a.layer_config_value.out_size = PTRDIFF_MAX);
    BAD_STORED_TYPE(call, "kv_type", layer_config_value.kv_type);
    BAD_ARITHMETIC(call, layer_config_value.arithmetic);
    BAD_FLOAT_WEIGHT(call, "w_q", layer_config_value.w_q);
    BAD_FLOAT_WEIGHT(call, "w_k", layer_config_value.w_k);
    BAD_FLOAT_WEIGHT(call, "w_v", layer_config_value.w_v);
    BAD_FLOAT_WEIGHT(call, "w_o", layer_config_value.w_o);
    GOOD(call, a.layer_config_value.head_size = HEAD_SIZE);
    GOOD(call, a.layer_config_value.head_size = HEAD_SIZE; a.layer_config_value.hidden = 0);
    GOOD(call, a.layer_config_value.value_size = HEAD_SIZE; a.layer_config_value.out_size = HIDDEN);
}

#define BAD_LINEAR(name, member)                                                                                       \
    do {                                                                                                               \
        BAD(layer_create_, ATTN_NULL_POINTER, name ".weight", a.layer_config_value.member.weight = NULL);              \
        BAD(layer_create_, ATTN_BAD_STRIDE, name ".in_stride", a.layer_config_value.member.in_stride = 0);             \
        BAD(layer_create_, ATTN_BAD_STRIDE, name ".out_stride", a.layer_config_value.member.out_stride = 0);           \
        BAD(layer_create_, ATTN_OVERFLOW, any_name, a.layer_config_value.member.in_stride = SIZE_MAX / 2);             \
    } while (0)

static void test_layer_creation(void **state) {
    (void)state;
    layer_configs(layer_size);
    layer_configs(layer_create_);
    BAD(layer_size, ATTN_NULL_POINTER, "bytes", a.bytes_out = NULL);
    BAD(layer_create_, ATTN_NULL_POINTER, "layer", a.new_layer = NULL);
    BAD_LINEAR("w_q", w_q);
    BAD_LINEAR("w_k", w_k);
    BAD_LINEAR("w_v", w_v);
    BAD_LINEAR("w_o", w_o);
    BAD_MEMORY(layer_create_, layer_size, "memory", memory);
    GOOD(layer_create_, a.layer_config_value.kv_heads = 0);

    BAD(layer_cache_config, ATTN_NULL_POINTER, "layer", a.layer = NULL);
    BAD(layer_cache_config, ATTN_NULL_POINTER, "config", a.new_config = NULL);
    GOOD(layer_cache_config, (void)a);
    assert_int_equal(0, attn_layer_kernels(NULL, NULL, 0));
}

static void layer_sizes(function *call) {
    BAD(call, ATTN_NULL_POINTER, "layer", a.layer = NULL);
    BAD(call, ATTN_NULL_POINTER, "args", a.layer_args = NULL);
    BAD(call, ATTN_NULL_POINTER, "parallel.run", a.parallel_value.run = NULL; a.forward.parallel = &a.parallel_value);
    BAD_SIZE(call, "batch", forward.batch);
    BAD_SIZE(call, "q_len", forward.q_len);
    BAD_SIZE(call, "kv_len", forward.kv_len);
    BAD_OPTIONS(call, forward.options);
    BAD(call, ATTN_OVERFLOW, any_name, a.forward.batch = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.forward.q_len = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.forward.kv_len = PTRDIFF_MAX);
    BAD(call, ATTN_OVERFLOW, any_name, a.forward.batch = a.forward.q_len = POWER(32));
    BAD(call, ATTN_BAD_SIZE, "q_cu.total", a.forward.q_cu = packed(0, 1, 2, SIZE_MAX));
    BAD(call, ATTN_BAD_SIZE, "q_cu.total", a.forward.q_cu = packed(0, 1, 2, ABOVE_PTRDIFF));
    BAD(call, ATTN_BAD_SIZE, "kv_cu.total", a.forward.kv_cu = packed(0, 1, 2, SIZE_MAX));
    BAD(call, ATTN_BAD_SIZE, "kv_cu.total", a.forward.kv_cu = packed(0, 1, 2, ABOVE_PTRDIFF));
    BAD(call, ATTN_BAD_VALUE, "q_cu.total", a.forward.q_cu.total = 1);
    BAD(call, ATTN_BAD_VALUE, "kv_cu.total", a.forward.kv_cu.total = KV_LEN);
    BAD(call, ATTN_MISMATCH, "kv_cu.cu", a.forward.cache = arena.layer_cache;
        a.forward.kv_cu = packed(0, 1, 2, KV_LEN));
    BAD(call, ATTN_MISMATCH, "cache", a.forward.cache = arena.cache; a.forward.kv_len = 0);
    BAD(call, ATTN_MISMATCH, "batch", a.forward.cache = arena.layer_cache; a.forward.batch = 1);
    BAD(call, ATTN_MISMATCH, "kv_len", a.forward.cache = arena.layer_cache; a.forward.kv_len = KV_LEN - 1);
    BAD(call, ATTN_BAD_VALUE, "q.type", a.forward.q.type = ATTN_BOOL; a.forward.batch = 0);
    BAD(call, ATTN_BAD_VALUE, "k.type", a.forward.k.type = NO_TYPE; a.forward.kv_len = 0);
    BAD(call, ATTN_BAD_VALUE, "v.type", a.forward.v.type = ATTN_BOOL; a.forward.kv_len = 0);
    BAD(call, ATTN_BAD_VALUE, "y.type", a.forward.y.type = ATTN_BOOL; a.forward.q_len = 0);
    /* Rows may each have a type of their own. */
    GOOD(call, a.forward.q.type = ATTN_BF16; a.forward.k.type = ATTN_F16; a.forward.y.type = ATTN_BF16);
    GOOD(call, a.forward.cache = arena.layer_cache; a.forward.k.type = a.forward.v.type = ATTN_BOOL);
    GOOD(call, a.forward.cache = arena.layer_cache; a.forward.kv_len = 0; a.forward.k = a.forward.v = (attn_tensor){0});
    GOOD(call, a.forward.kv_len = 0; a.forward.k = a.forward.v = (attn_tensor){0});
    GOOD(call, a.forward.batch = 0; a.forward.q.data = NULL; a.forward.y.data = NULL);
}

static void test_layer_forward(void **state) {
    (void)state;
    layer_sizes(layer_workspace);
    layer_sizes(layer_forward);
    BAD(layer_workspace, ATTN_NULL_POINTER, "bytes", a.bytes_out = NULL);
    BAD(layer_forward, ATTN_NULL_POINTER, "q.data", a.forward.q.data = NULL);
    BAD(layer_forward, ATTN_NULL_POINTER, "k.data", a.forward.k.data = NULL);
    BAD(layer_forward, ATTN_NULL_POINTER, "v.data", a.forward.v.data = NULL);
    BAD(layer_forward, ATTN_NULL_POINTER, "y.data", a.forward.y.data = NULL);
    BAD(layer_forward, ATTN_BAD_STRIDE, "q.row_stride", a.forward.q.row_stride = QUERY_WIDTH - 1);
    BAD(layer_forward, ATTN_BAD_STRIDE, "k.row_stride", a.forward.k.row_stride = KEY_WIDTH - 1);
    BAD(layer_forward, ATTN_BAD_STRIDE, "v.row_stride", a.forward.v.row_stride = 0);
    BAD(layer_forward, ATTN_BAD_STRIDE, "y.row_stride", a.forward.y.row_stride = HIDDEN - 1);
    BAD(layer_forward, ATTN_BAD_STRIDE, "y.batch_stride", a.forward.y.batch_stride = Q_LEN * HIDDEN - 1);
    BAD(layer_forward, ATTN_BAD_STRIDE, "y.batch_stride", a.forward.y.batch_stride = 0);
    BAD(layer_forward, ATTN_BAD_STRIDE, "q.batch_stride", a.forward.q = (attn_tensor){arena.q, ATTN_F32, 0, 0, 0, 1};
        a.forward.q_len = 1);
    BAD(layer_forward, ATTN_BAD_STRIDE, "k.batch_stride", a.forward.k = (attn_tensor){arena.k, ATTN_F32, 0, 0, 0, 1};
        a.forward.kv_len = 1);
    GOOD(layer_forward, a.forward.q = (attn_tensor){arena.q, ATTN_F32, 0, 0, QUERY_WIDTH, 1}; a.forward.q_len = 1);
    GOOD(layer_forward, a.forward.k = (attn_tensor){arena.k, ATTN_F32, 0, 0, 0, 1};
         a.forward.kv_cu = packed(0, 1, 1, 1));
    GOOD(layer_forward, a.forward.k = (attn_tensor){arena.k, ATTN_F32, 0, 0, 0, 1}; a.forward.kv_len = 0);
    BAD(layer_forward, ATTN_OVERFLOW, any_name, a.forward.q.batch_stride = SIZE_MAX);
    BAD(layer_forward, ATTN_OVERFLOW, any_name, a.forward.k.row_stride = SIZE_MAX / 4);
    BAD(layer_forward, ATTN_OVERFLOW, any_name, a.forward.v.batch_stride = SIZE_MAX / 4);
    BAD(layer_forward, ATTN_OVERFLOW, any_name, a.forward.y.row_stride = SIZE_MAX / 2);
    BAD(layer_forward, ATTN_OVERLAP, "y", a.forward.y.data = arena.q);
    BAD(layer_forward, ATTN_OVERLAP, "y", a.forward.y.data = arena.k + BATCH * KV_LEN * KEY_WIDTH - 1);
    BAD(layer_forward, ATTN_OVERLAP, "y", a.forward.y.data = arena.v + 1);
    BAD(layer_forward, ATTN_OVERLAP, "y", a.forward.y.data = arena.bias);
    BAD_ROWS(layer_forward, "q", forward.q);
    BAD_ROWS(layer_forward, "k", forward.k);
    BAD_ROWS(layer_forward, "v", forward.v);
    BAD_ROWS(layer_forward, "y", forward.y);
    BAD(layer_forward, ATTN_BAD_STRIDE, "q.head_stride", a.forward.q.head_stride = 1);
    BAD(layer_forward, ATTN_BAD_STRIDE, "k.head_stride", a.forward.k.head_stride = HEAD_SIZE);
    BAD(layer_forward, ATTN_BAD_STRIDE, "v.head_stride", a.forward.v.head_stride = SIZE_MAX);
    BAD(layer_forward, ATTN_BAD_STRIDE, "y.head_stride", a.forward.y.head_stride = 1);
    BAD(layer_forward, ATTN_OVERLAP, "y", a.forward.options.mask.data = (const uint8_t *)(arena.o + 1));
    BAD_CU(layer_forward, "q_cu.cu", forward.q_cu, Q_LEN);
    BAD_CU(layer_forward, "kv_cu.cu", forward.kv_cu, KV_LEN);
    GOOD(layer_forward, a.forward.q_cu = packed(0, 1, 2, 2); a.forward.q.batch_stride = SIZE_MAX;
         a.forward.y.batch_stride = 0);
    GOOD(layer_forward, a.forward.kv_cu = packed(0, 1, 2, 2);
         a.forward.k.batch_stride = a.forward.v.batch_stride = SIZE_MAX);
    BAD_OPTION_DATA(layer_forward, forward.options, BATCH * Q_LEN * HIDDEN);
    BAD_MEMORY(layer_forward, layer_workspace, "workspace", workspace);
}

/* ---- Statuses ---- */

/* The tests above have seen every status; a library of scalar only supports what it holds. */
static void test_every_status_was_provoked(void **state) {
    (void)state;
    if (unsupported_isa() == ATTN_ISA_BEST)
        provoked |= 1u << ATTN_UNSUPPORTED_ISA;
    for (int i = ATTN_OK; i <= ATTN_MISMATCH; i++)
        if (!(provoked >> i & 1))
            test_fail("no test provoked status %d (%s)", i, attn_status_string((attn_status)i));
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_attention, set_up),     cmocka_unit_test_setup(test_merge, set_up),
        cmocka_unit_test_setup(test_rotary, set_up),        cmocka_unit_test_setup(test_layer_creation, set_up),
        cmocka_unit_test_setup(test_layer_forward, set_up), cmocka_unit_test(test_every_status_was_provoked),
    };
    return test_run(tests);
}
