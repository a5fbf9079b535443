/* The same arguments given in other ways give the same bits: integers of 32 bits, strides of lengths, masks and
 * optional outputs, masks of the other polarity, masks narrower than the keys. And logits of hidden keys. */
#include "attention_problem.h"
#include "typed.h"

#include <math.h>

#include "types.h"

#define EVERY_KIND ((1u << KINDS) - 1)

/* ---- Integers ---- */

/* Memory that is freed at the end of a case. */
struct memories {
    void *memory[16];
    size_t count;
};

static void *keep(struct memories *m, void *memory) {
    assert_true(m->count < sizeof m->memory / sizeof *m->memory);
    m->memory[m->count++] = memory;
    return memory;
}

static void free_all(struct memories *m) {
    while (m->count > 0)
        guarded_free(m->memory[--m->count]);
}

/* As integers of 32 bits; larger ones mean the same as the largest here. */
static attn_ints narrowed(struct memories *m, attn_ints x, size_t count) {
    if (!x.i64)
        return x;
    int32_t *narrow = keep(m, guarded_alloc(count * sizeof *narrow, sizeof *narrow, FLUSH_END));
    for (size_t i = 0; i < count; i++)
        narrow[i] = x.i64[i] > INT32_MAX ? INT32_MAX : x.i64[i] < INT32_MIN ? INT32_MIN : (int32_t)x.i64[i];
    return (attn_ints){.i32 = narrow};
}

static attn_attention_args with_narrow_integers(struct memories *m, attn_attention_args args) {
    attn_options *o = &args.options;
    o->valid.lens = narrowed(m, o->valid.lens, lens_count(o->valid.kind, args.batch, args.q_len));
    o->starts = narrowed(m, o->starts, args.batch);
    o->rotary_offsets = narrowed(m, o->rotary_offsets, args.batch);
    args.q_cu.cu = narrowed(m, args.q_cu.cu, args.batch + 1);
    args.kv_cu.cu = narrowed(m, args.kv_cu.cu, args.batch + 1);
    return args;
}

/* Lengths with gaps, rows of one sequence side by side or sequences of one row. */
static attn_valid_lens with_strides(struct test_random *random, struct memories *m, const attn_attention_args *args) {
    attn_valid_lens valid = args->options.valid;
    size_t rows = valid.kind == ATTN_VALID_PER_ROW ? args->q_len : 1, batch = args->batch;
    if (valid.kind == ATTN_VALID_ALL)
        return valid;
    bool transposed = random_below(random, 2);
    valid.row_stride = (transposed ? batch : 1) + random_below(random, 3);
    valid.batch_stride = transposed ? 1 : rows * valid.row_stride + random_below(random, 3);
    size_t count = (batch - 1) * valid.batch_stride + (rows - 1) * valid.row_stride + 1;
    int64_t *lens = keep(m, guarded_alloc(count * sizeof *lens, sizeof *lens, FLUSH_END));
    for (size_t b = 0; b < batch; b++)
        for (size_t i = 0; i < rows; i++)
            lens[b * valid.batch_stride + i * valid.row_stride] = args->options.valid.lens.i64[b * rows + i];
    if (valid.kind == ATTN_VALID_PER_SEQUENCE)
        valid.row_stride = 0;
    valid.lens.i64 = lens;
    return valid;
}

static void check_same(const attn_attention_args *expected_args, const attn_attention_args *args) {
    struct attention_result expected = attention_run(expected_args, LAYOUT_BHSD, FLUSH_END);
    struct attention_result actual = attention_run(args, LAYOUT_BSHD, FLUSH_END);
    assert_same_result(&expected, &actual);
    attention_free(&expected);
    attention_free(&actual);
}

static void test_integers(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(300, 60); i++) {
        attn_attention_args sizes = masked_args(&random, i);
        unsigned kinds = random_kinds(&random, EVERY_KIND) & ~(KIND(VALID_ROW) | (i % 3 ? KIND(VALID_END) : 0));
        kinds |= i % 3 ? KIND(VALID_ROW) : KIND(VALID_SEQUENCE);
        kinds &= i % 3 ? ~KIND(VALID_SEQUENCE) : ~0u;
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &sizes, kinds);
        struct memories m = {0};
        describe(&p.args);
        attn_attention_args args = with_narrow_integers(&m, p.args);
        check_same(&p.args, &args);
        args = p.args;
        args.options.valid = with_strides(&random, &m, &p.args);
        check_same(&p.args, &args);
        free_all(&m);
        problem_free(&p);
    }
}

/* Cumulative lengths, of queries and of keys. */
static void test_packed_integers(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 20); i++) {
        attn_attention_args sizes = masked_args(&random, i);
        int64_t *cu = guarded_alloc(3 * sizeof *cu, sizeof *cu, FLUSH_END);
        sizes.batch = 2;
        cu[0] = 1;
        cu[1] = 1 + (int64_t)random_below(&random, sizes.q_len + 1);
        cu[2] = cu[1] + (int64_t)sizes.q_len;
        sizes.q_cu = (attn_cu_lens){.cu.i64 = cu, .total = (size_t)cu[2]};
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &sizes, random_kinds(&random, KINDS_OF_INTERVALS));
        struct memories m = {0};
        describe(&p.args);
        attn_attention_args args = with_narrow_integers(&m, p.args), o_only = p.args;
        struct tensor expected = tensor_new(LAYOUT_BHSD, 1, args.heads, args.q_cu.total,
                                            args.value_size ? args.value_size : args.head_size, FLUSH_END);
        struct tensor actual = tensor_new(LAYOUT_BHSD, 1, args.heads, args.q_cu.total, expected.size, FLUSH_END);
        o_only.o = tensor_out(&expected);
        args.o = tensor_out(&actual);
        attention_run_into(&o_only, FLUSH_END);
        attention_run_into(&args, FLUSH_END);
        assert_same_tensor(&expected, &actual);
        tensor_free(&expected);
        tensor_free(&actual);
        free_all(&m);
        problem_free(&p);
        guarded_free(cu);
    }
}

/* What is appended with narrow lengths and offsets is what is appended with wide ones. */
static void test_append_integers(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { BATCH = 3, HEADS = 2, LEN = 40, SIZE = 10 };
    static const int64_t lens[BATCH] = {7, 0, LEN}, offsets[BATCH] = {3, 1, 0}, cu[BATCH + 1] = {2, 9, 9, LEN};
    attn_cache_config config = {
        .isa = test_isa(), .batch = BATCH, .kv_heads = HEADS, .head_size = SIZE, .capacity = 2 * LEN};
    struct tensor k = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, BATCH, HEADS, LEN, SIZE, FLUSH_END);
    attn_rotary_config rotary_config = {.positions = 3 * LEN, .dims = SIZE};
    attn_rotary *rotary = NULL;
    size_t bytes;
    assert_ok(attn_rotary_size(&rotary_config, &bytes, NULL));
    void *rotary_memory = poisoned_alloc(bytes, FLUSH_END), *memory[2];
    assert_ok(attn_rotary_create(&rotary_config, rotary_memory, bytes, &rotary, NULL));
    struct memories m = {0};
    attn_cache *cache[2];
    for (int narrow = 0; narrow < 2; narrow++) {
        attn_cache_append_args by_lens = {.len = LEN, .k = tensor_in(&k), .v = tensor_in(&k), .rotary = rotary};
        attn_cache_append_args by_cu = by_lens;
        by_lens.lens.i64 = lens;
        by_lens.rotary_offsets.i64 = offsets;
        by_cu.cu = (attn_cu_lens){.cu.i64 = cu, .total = LEN};
        if (narrow) {
            by_lens.lens = narrowed(&m, by_lens.lens, BATCH);
            by_lens.rotary_offsets = narrowed(&m, by_lens.rotary_offsets, BATCH);
            by_cu.cu.cu = narrowed(&m, by_cu.cu.cu, BATCH + 1);
        }
        cache[narrow] = cache_create(&config, &memory[narrow], FLUSH_END);
        assert_ok(attn_cache_append(cache[narrow], &by_lens, NULL));
        assert_ok(attn_cache_append(cache[narrow], &by_cu, NULL));
    }
    attn_attention_args args = {.isa = test_isa(), .batch = BATCH, .heads = HEADS, .q_len = 3, .head_size = SIZE};
    args.q = tensor_in(&k);
    args.cache = cache[0];
    attn_attention_args other = args;
    other.cache = cache[1];
    check_same(&args, &other);
    free_all(&m);
    guarded_free(memory[0]);
    guarded_free(memory[1]);
    guarded_free(rotary_memory);
    tensor_free(&k);
}

/* ---- Optional outputs ---- */

/* [batch, heads, q_len, cols] in an order of dimensions at random, with gaps. */
static attn_tensor_out output_at_random(struct test_random *random, const attn_attention_args *args, size_t cols,
                                        size_t *count) {
    size_t order[4] = {0, 1, 2, 3}, dims[4] = {args->batch, args->heads, args->q_len, cols}, stride[4], covered = 1;
    for (size_t i = 3; i > 0; i--) {
        size_t j = random_below(random, i + 1), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    for (size_t i = 0; i < 4; i++) {
        size_t d = order[i];
        stride[d] = covered + (random_below(random, 2) ? random_below(random, 4) : 0);
        covered = dims[d] > 0 ? (dims[d] - 1) * stride[d] + covered : covered;
    }
    *count = args->batch && args->heads && args->q_len && cols ? covered : 0;
    float *data = guarded_floats(*count, random_flush(random));
    return (attn_tensor_out){data, ATTN_F32, stride[0], stride[1], stride[2], stride[3]};
}

/* Its elements are those of a dense array, and nothing else was written. */
static void check_output(const attn_attention_args *args, const attn_tensor_out *y, size_t count, const float *dense,
                         size_t cols) {
    unsigned char *element = calloc(count + 1, 1);
    const float *data = y->data;
    for (size_t b = 0; b < args->batch; b++)
        for (size_t h = 0; h < args->heads; h++)
            for (size_t i = 0; i < args->q_len; i++)
                for (size_t c = 0; c < cols; c++) {
                    size_t at = b * y->batch_stride + h * y->head_stride + i * y->row_stride + c * y->col_stride;
                    assert_same_bits(dense++, data + at, 1);
                    element[at] = 1;
                }
    for (size_t at = 0; at < count; at++)
        if (!element[at] && !is_untouched(data + at))
            test_fail("float %zu, between the elements of an output, was written", at);
    free(element);
    guarded_free(y->data);
}

static void test_outputs(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(200, 50); i++) {
        attn_attention_args sizes = masked_args(&random, i);
        struct problem p =
            masked_problem_new(&random, i % 8 ? TEST_NORMAL : TEST_WILD, &sizes, random_kinds(&random, EVERY_KIND));
        describe(&p.args);
        struct attention_result expected = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        struct tensor o = tensor_copy(&expected.o, LAYOUT_BHSD, FLUSH_END);
        attn_attention_args args = p.args;
        size_t weights, scores, lse;
        args.o = tensor_out(&o);
        args.options.weights = output_at_random(&random, &args, args.kv_len, &weights);
        args.options.scores = output_at_random(&random, &args, args.kv_len, &scores);
        args.options.log_sum_exp = output_at_random(&random, &args, 1, &lse);
        attention_run_into(&args, FLUSH_END);
        assert_same_tensor(&expected.o, &o);
        check_output(&args, &args.options.weights, weights, expected.weights, args.kv_len);
        check_output(&args, &args.options.scores, scores, expected.scores, args.kv_len);
        check_output(&args, &args.options.log_sum_exp, lse, expected.log_sum_exp, 1);
        tensor_free(&o);
        attention_free(&expected);
        problem_free(&p);
    }
}

/* ---- Masks ---- */

/* Elements of `element` bytes each, in other strides: with gaps, or with keys outermost. */
static attn_tensor other_strides(struct test_random *random, struct memories *m, const attn_attention_args *args,
                                 const attn_tensor *mask, size_t keys) {
    size_t element = attn_type_size(mask->type), rows = args->batch * args->heads * args->q_len;
    attn_tensor y = {.type = mask->type};
    bool transposed = random_below(random, 2);
    y.col_stride = transposed ? rows : 1 + random_below(random, 3);
    y.row_stride = transposed ? 1 : keys * y.col_stride + random_below(random, 5);
    y.head_stride = args->q_len * y.row_stride;
    y.batch_stride = args->heads * y.head_stride;
    size_t bytes = rows && keys ? ((rows - 1) * y.row_stride + (keys - 1) * y.col_stride + 1) * element : 0;
    char *to = keep(m, guarded_alloc(bytes, element, random_flush(random)));
    const char *from = mask->data;
    y.data = to;
    for (size_t row = 0; row < rows; row++) {
        size_t b = row / args->q_len / args->heads, h = row / args->q_len % args->heads, i = row % args->q_len;
        for (size_t c = 0; c < keys; c++)
            memcpy(to + (row * y.row_stride + c * y.col_stride) * element,
                   from +
                       (b * mask->batch_stride + h * mask->head_stride + i * mask->row_stride + c * mask->col_stride) *
                           element,
                   element);
    }
    return y;
}

/* A copy of a dense mask in which every byte has its other truth. */
static attn_tensor inverted(struct test_random *random, struct memories *m, const attn_attention_args *args,
                            const attn_tensor *mask) {
    attn_tensor y = *mask;
    size_t bytes = args->kv_len == 0
                       ? 0
                       : (args->batch - 1) * mask->batch_stride + (args->heads - 1) * mask->head_stride +
                             (args->q_len - 1) * mask->row_stride + (args->kv_len - 1) * mask->col_stride + 1;
    uint8_t *to = keep(m, guarded_alloc(bytes, 1, random_flush(random)));
    for (size_t i = 0; i < bytes; i++)
        to[i] = ((const uint8_t *)mask->data)[i] ? 0 : (uint8_t)random_between(random, 1, 255);
    y.data = to;
    return y;
}

static void check_forms(struct test_random *random, const struct problem *p) {
    struct memories m = {0};
    attn_attention_args args = p->args;
    attn_options *o = &args.options;
    if (o->mask.data)
        o->mask = other_strides(random, &m, &args, &p->args.options.mask, args.kv_len);
    check_same(&p->args, &args);
    if (o->bias.data)
        o->bias = other_strides(random, &m, &args, &p->args.options.bias, args.kv_len);
    check_same(&p->args, &args);
    if (o->mask.data) {
        o->mask_hides = 1;
        o->mask = inverted(random, &m, &args, &p->args.options.mask);
        check_same(&p->args, &args);
        o->mask = other_strides(random, &m, &args, &o->mask, args.kv_len);
        check_same(&p->args, &args);
    }
    free_all(&m);
}

static void test_forms_of_masks(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(200, 40); i++) {
        attn_attention_args sizes = masked_args(&random, i);
        unsigned kinds = random_kinds(&random, EVERY_KIND) | (i % 3 ? KIND(MASK) : 0) | (i % 3 < 2 ? KIND(BIAS) : 0);
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &sizes, kinds);
        describe(&p.args);
        check_forms(&random, &p);
        problem_free(&p);
    }
}

/* Hides a key in a mask of any type. */
static void hide(const attn_tensor *mask, size_t at) {
    size_t element = attn_type_size(mask->type);
    const float hidden = -INFINITY;
    char *to = (char *)(uintptr_t)mask->data + at * element;
    if (mask->type == ATTN_BOOL)
        *to = 0;
    else
        attn_table_convert(&attn_kernels_scalar)->narrow(mask->type, 1, &hidden, to);
}

/* A mask of n keys is a wide one that hides the others. */
static void check_narrow(struct test_random *random, const struct problem *p, size_t n) {
    struct memories m = {0};
    attn_attention_args wide = p->args, narrow = p->args;
    size_t rows = wide.batch * wide.heads * wide.q_len, kv_len = wide.kv_len;
    for (int bias = 0; bias < 2; bias++) {
        const attn_tensor *given = bias ? &p->args.options.bias : &p->args.options.mask;
        attn_tensor *to = bias ? &wide.options.bias : &wide.options.mask;
        if (!given->data)
            continue;
        *to = other_strides(random, &m, &wide, given, kv_len);
        for (size_t row = 0; row < rows; row++)
            for (size_t c = n; c < kv_len; c++)
                hide(to, row * to->row_stride + c * to->col_stride);
        *(bias ? &narrow.options.bias : &narrow.options.mask) = other_strides(random, &m, &wide, given, n);
        *(bias ? &narrow.options.bias_len : &narrow.options.mask_len) = n;
    }
    check_same(&wide, &narrow);
    free_all(&m);
}

static void test_narrow_masks(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(200, 40); i++) {
        attn_attention_args sizes = masked_args(&random, i);
        unsigned kinds = random_kinds(&random, EVERY_KIND) | (i % 3 ? KIND(MASK) : 0) | (i % 3 < 2 ? KIND(BIAS) : 0);
        sizes.kv_len += sizes.kv_len == 0;
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &sizes, kinds);
        size_t n = random_between(&random, 1, sizes.kv_len);
        describe(&p.args);
        check_narrow(&random, &p, n);
        problem_free(&p);
    }
}

/* One element for all keys of a row. */
static void test_masks_of_rows(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 20); i++) {
        attn_attention_args sizes = masked_args(&random, i);
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &sizes, random_kinds(&random, EVERY_KIND));
        struct memories m = {0};
        attn_attention_args one = p.args, wide = p.args;
        size_t rows = one.batch * one.heads * one.q_len, kv_len = one.kv_len;
        uint8_t *mask = keep(&m, guarded_alloc(rows, 1, FLUSH_END));
        uint8_t *wide_mask = keep(&m, guarded_alloc(rows * kv_len, 1, FLUSH_END));
        float *bias = keep(&m, guarded_floats(rows, FLUSH_END));
        float *wide_bias = keep(&m, guarded_floats(rows * kv_len, FLUSH_END));
        for (size_t row = 0; row < rows; row++) {
            mask[row] = random_below(&random, 4) != 0;
            bias[row] = random_below(&random, 5) ? random_normal(&random) : -INFINITY;
            for (size_t c = 0; c < kv_len; c++) {
                wide_mask[row * kv_len + c] = mask[row];
                wide_bias[row * kv_len + c] = bias[row];
            }
        }
        one.options.mask = (attn_tensor){mask, ATTN_BOOL, one.heads * one.q_len, one.q_len, 1, 0};
        one.options.bias = (attn_tensor){bias, ATTN_F32, one.heads * one.q_len, one.q_len, 1, 0};
        size_t head = one.q_len * kv_len;
        wide.options.mask = (attn_tensor){wide_mask, ATTN_BOOL, one.heads * head, head, kv_len, 1};
        wide.options.bias = (attn_tensor){wide_bias, ATTN_F32, one.heads * head, head, kv_len, 1};
        describe(&p.args);
        check_same(&wide, &one);
        free_all(&m);
        problem_free(&p);
    }
}

/* ---- Logits of hidden keys ---- */

/* What a call gives that sees all keys. */
static attn_attention_args without_hiding(const attn_attention_args *args) {
    attn_attention_args open = *args;
    open.options = (attn_options){.soft_cap = args->options.soft_cap, .score_stage = args->options.score_stage};
    open.options.rotary = args->options.rotary;
    open.options.rotary_offsets = args->options.rotary_offsets;
    return open;
}

/* With the logits of hidden keys the other results are the same, and logits are those of a call that hides none. */
static void check_hidden(const attn_attention_args *args) {
    attn_attention_args open = without_hiding(args), hidden = *args;
    struct attention_result all = attention_run(&open, LAYOUT_BHSD, FLUSH_END);
    struct attention_result masked = attention_run(args, LAYOUT_BHSD, FLUSH_END);
    hidden.options.scores_hidden = 1;
    struct attention_result actual = attention_run(&hidden, LAYOUT_BHSD, FLUSH_END);
    assert_same_bits(all.scores, actual.scores, all.rows * all.kv_len);
    assert_same_tensor(&masked.o, &actual.o);
    assert_same_bits(masked.weights, actual.weights, masked.rows * masked.kv_len);
    assert_same_bits(masked.log_sum_exp, actual.log_sum_exp, masked.rows);
    attention_free(&all);
    attention_free(&masked);
    attention_free(&actual);
}

static void check_hidden_by_oracle(const struct problem *p) {
    struct problem hidden = *p;
    hidden.args.options.scores_hidden = 1;
    struct attention_result actual = attention_run(&hidden.args, LAYOUT_BHSD, FLUSH_END);
    check_against_oracle(&hidden, &actual, 0);
    attention_free(&actual);
}

static void test_hidden_scores(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(200, 50); i++) {
        attn_attention_args sizes = masked_args(&random, i);
        /* An open call counts positions from the last key, and rotary embedding depends on them. */
        bool is_open = i % 4 != 0;
        unsigned kinds = random_kinds(&random, is_open ? EVERY_KIND & ~KINDS_OF_RULES : EVERY_KIND);
        sizes.options.score_stage = i % 2 ? ATTN_SCORE_CAPPED : ATTN_SCORE_RAW;
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &sizes, kinds);
        describe(&p.args);
        if (is_open)
            check_hidden(&p.args);
        check_hidden_by_oracle(&p);
        problem_free(&p);
    }
}

static void run_backwards(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count) {
    (void)context;
    while (count-- > 0)
        task(arg, count);
}

/* Spans that several tasks share out, keys packed for all tasks, and caches; `type` NULL: no cache. */
static void check_hidden_of_large(struct test_random *random, size_t heads, size_t q_len, size_t kv_len,
                                  const attn_type *type) {
    const attn_parallel parallel = {.run = run_backwards, .threads = 3};
    enum { SIZE = 48 };
    struct tensor q = tensor_random(random, TEST_NORMAL, LAYOUT_BSHD, 1, heads, q_len, SIZE, FLUSH_END);
    struct tensor k = tensor_random(random, TEST_NORMAL, LAYOUT_BSHD, 1, heads, kv_len, SIZE, FLUSH_END);
    attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = heads, .q_len = q_len, .head_size = SIZE};
    attn_cache_config config = {.isa = test_isa(), .batch = 1, .kv_heads = heads, .head_size = SIZE};
    void *memory = NULL;
    config.capacity = kv_len;
    args.kv_len = kv_len;
    args.q = tensor_in(&q);
    args.k = args.v = tensor_in(&k);
    args.parallel = &parallel;
    args.options.causal = 1;
    args.options.window_left = 5;
    args.options.soft_cap = 2;
    args.options.score_stage = ATTN_SCORE_CAPPED;
    if (type) {
        config.type = *type;
        attn_cache *cache = cache_create(&config, &memory, FLUSH_END);
        cache_append(cache, kv_len, args.k, args.v, NULL);
        args.cache = cache;
    }
    test_case("heads=%zu q_len=%zu kv_len=%zu cached as type %d", heads, q_len, kv_len, type ? (int)*type : -1);
    check_hidden(&args);
    guarded_free(memory);
    tensor_free(&q);
    tensor_free(&k);
}

static void test_hidden_scores_of_large(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i <= CACHE_TYPES; i++) {
        const attn_type *type = i > 0 ? &cache_types[i - 1] : NULL;
        check_hidden_of_large(&random, 1, 3, 9000, type);
        check_hidden_of_large(&random, 1, 70, 4500, type);
        check_hidden_of_large(&random, 4, 150, 400, type);
        check_hidden_of_large(&random, 7, 40, 300, type);
    }
}

/* A ring has lost keys: they have no logits. */
static void test_hidden_scores_of_a_ring(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { HOLDS = 64, LEN = 150, SIZE = 20, ROWS = 3 };
    struct tensor q = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, ROWS, SIZE, FLUSH_END);
    struct tensor k = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, LEN, SIZE, FLUSH_END);
    attn_cache_config config = {.isa = test_isa(), .batch = 1, .kv_heads = 1, .head_size = SIZE, .capacity = HOLDS};
    config.kind = ATTN_CACHE_RING;
    void *memory;
    attn_cache *ring = cache_create(&config, &memory, FLUSH_END);
    for (size_t i = 0; i < LEN; i += 30)
        cache_append(ring, 30, tensor_from(&k, i), tensor_from(&k, i), NULL);
    attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 1, .q_len = ROWS, .head_size = SIZE};
    args.q = tensor_in(&q);
    args.k = args.v = tensor_in(&k);
    args.kv_len = LEN;
    struct attention_result all = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
    args.cache = ring;
    args.options.causal = 1;
    args.options.window_left = 4;
    args.options.scores_hidden = 1;
    struct attention_result actual = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
    for (size_t i = 0; i < ROWS; i++)
        for (size_t key = 0; key < LEN; key++)
            assert_same_bits(key < LEN - HOLDS ? &(float){-INFINITY} : all.scores + i * LEN + key,
                             actual.scores + i * LEN + key, 1);
    attention_free(&all);
    attention_free(&actual);
    guarded_free(memory);
    tensor_free(&q);
    tensor_free(&k);
}

/* Through a layer, which then projects keys that no row sees. */
static void test_hidden_scores_of_a_layer(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { BATCH = 2, LEN = 33, WIDTH = 24, HEADS = 3, SCORES = BATCH * HEADS * LEN * LEN };
    attn_layer_config config = {.isa = test_isa(), .hidden = WIDTH, .heads = HEADS};
    config.query_width = config.key_width = config.value_width = WIDTH;
    struct layer_weights w = layer_weights_new(&random, &config, 5);
    void *memory;
    attn_layer *layer = layer_create(&w.config, &memory, FLUSH_END);
    struct tensor x = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, BATCH, 1, LEN, WIDTH, FLUSH_END);
    attn_layer_args args = {.batch = BATCH, .q_len = LEN, .kv_len = LEN};
    args.q = args.k = args.v = tensor_rows(&x);
    float *scores[2];
    for (int hidden = 0; hidden < 2; hidden++) {
        static const int32_t lens[BATCH] = {3, 0};
        scores[hidden] = guarded_floats(SCORES, FLUSH_END);
        args.options.scores.data = scores[hidden];
        args.options.scores_hidden = hidden;
        args.options.causal = hidden;
        if (hidden)
            args.options.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_SEQUENCE, .lens.i32 = lens};
        struct layer_result r = layer_run(layer, &w.config, &args, LAYOUT_BHSD, FLUSH_END);
        layer_result_free(&r);
    }
    assert_same_bits(scores[0], scores[1], SCORES);
    guarded_free(scores[0]);
    guarded_free(scores[1]);
    tensor_free(&x);
    layer_weights_free(&w);
    guarded_free(memory);
}

/* ---- Other operations ---- */

static void test_softmax(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { BATCH = 3, ROWS = 4, COLS = 20, COUNT = BATCH * ROWS * COLS };
    float x[COUNT], expected[COUNT], actual[COUNT];
    int64_t lens[BATCH * ROWS];
    int32_t transposed[ROWS * BATCH];
    random_fill(&random, TEST_NORMAL, x, COUNT);
    for (size_t i = 0; i < BATCH * ROWS; i++) {
        lens[i] = (int64_t)random_below(&random, COLS + 2);
        transposed[i % ROWS * BATCH + i / ROWS] = (int32_t)lens[i];
    }
    attn_softmax_args args = {.isa = test_isa(), .batch = BATCH, .rows = ROWS, .cols = COLS};
    args.x = (attn_tensor){x, ATTN_F32, ROWS * COLS, 0, COLS, 1};
    args.y = (attn_tensor_out){expected, ATTN_F32, ROWS * COLS, 0, COLS, 1};
    args.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_ROW, .lens.i64 = lens};
    assert_ok(attn_masked_softmax(&args, NULL));
    args.y.data = actual;
    args.valid.lens = (attn_ints){.i32 = transposed};
    args.valid.batch_stride = 1;
    args.valid.row_stride = BATCH;
    assert_ok(attn_masked_softmax(&args, NULL));
    assert_same_bits(expected, actual, COUNT);
}

/* Log-sum-exps in the last column of the parts' outputs, and of the merged one. */
static void test_merge(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { PARTS = 3, HEADS = 2, LEN = 5, SIZE = 7, ROWS = HEADS * LEN, ROW = SIZE + 1 };
    float o[PARTS][ROWS * ROW], lse[PARTS][ROWS], expected[ROWS * SIZE], expected_lse[ROWS], actual[ROWS * SIZE];
    float actual_lse[2 * ROWS];
    attn_tensor parts[PARTS], dense[PARTS], strided[PARTS];
    for (size_t p = 0; p < PARTS; p++) {
        random_fill(&random, TEST_NORMAL, o[p], ROWS * ROW);
        for (size_t row = 0; row < ROWS; row++)
            lse[p][row] = o[p][row * ROW + SIZE];
        parts[p] = (attn_tensor){o[p], ATTN_F32, 0, LEN * ROW, ROW, 1};
        dense[p] = (attn_tensor){.data = lse[p]};
        strided[p] = (attn_tensor){o[p] + SIZE, ATTN_F32, 0, LEN * ROW, ROW, 1};
    }
    attn_merge_args args = {.isa = test_isa(), .parts = PARTS, .batch = 1, .heads = HEADS, .q_len = LEN, .o = parts};
    args.value_size = SIZE;
    args.log_sum_exp = dense;
    args.merged = (attn_tensor_out){expected, ATTN_F32, 0, LEN * SIZE, SIZE, 1};
    args.merged_log_sum_exp.data = expected_lse;
    assert_ok(attn_merge(&args, NULL));
    args.log_sum_exp = strided;
    args.merged.data = actual;
    args.merged_log_sum_exp = (attn_tensor_out){actual_lse, ATTN_F32, 0, 1, 2 * HEADS, 1};
    assert_ok(attn_merge(&args, NULL));
    assert_same_bits(expected, actual, ROWS * SIZE);
    for (size_t row = 0; row < ROWS; row++)
        assert_same_bits(&expected_lse[row], &actual_lse[row / LEN + row % LEN * 2 * HEADS], 1);
}

/* Split heads with gaps, and in another order. */
static void test_transpose(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { BATCH = 2, LEN = 9, HEADS = 3, SIZE = 5, ROW = SIZE + 2, COUNT = BATCH * LEN * HEADS * SIZE };
    float x[COUNT], dense[COUNT], back[COUNT], strided[BATCH * LEN * HEADS * ROW];
    random_fill(&random, TEST_NORMAL, x, COUNT);
    attn_transpose_args args = {.isa = test_isa(), .batch = BATCH, .len = LEN, .heads = HEADS, .head_size = SIZE};
    args.x = (attn_tensor){x, ATTN_F32, LEN * HEADS * SIZE, 0, HEADS * SIZE, 1};
    args.y.data = dense;
    assert_ok(attn_transpose_qkv(&args, NULL));
    args.y = (attn_tensor_out){strided, ATTN_F32, ROW, LEN * BATCH * ROW, BATCH * ROW, 1};
    assert_ok(attn_transpose_qkv(&args, NULL));
    for (size_t row = 0; row < BATCH * HEADS * LEN; row++) {
        size_t b = row / LEN / HEADS, h = row / LEN % HEADS, i = row % LEN;
        assert_same_bits(dense + row * SIZE, strided + b * ROW + h * LEN * BATCH * ROW + i * BATCH * ROW, SIZE);
    }
    args.x = (attn_tensor){strided, ATTN_F32, ROW, LEN * BATCH * ROW, BATCH * ROW, 1};
    args.y = (attn_tensor_out){back, ATTN_F32, LEN * HEADS * SIZE, 0, HEADS * SIZE, 1};
    assert_ok(attn_transpose_output(&args, NULL));
    assert_same_bits(x, back, COUNT);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_packed_integers),
        cmocka_unit_test(test_append_integers),
        cmocka_unit_test(test_outputs),
        cmocka_unit_test(test_forms_of_masks),
        cmocka_unit_test(test_narrow_masks),
        cmocka_unit_test(test_masks_of_rows),
        cmocka_unit_test(test_hidden_scores),
        cmocka_unit_test(test_hidden_scores_of_large),
        cmocka_unit_test(test_hidden_scores_of_a_ring),
        cmocka_unit_test(test_hidden_scores_of_a_layer),
        cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_transpose),
    };
    return test_run(tests);
}
