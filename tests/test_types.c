/* Queries, keys, values and outputs of BF16 and F16, weights and caches of BF16: the bits of the reference of each
 * class, the same for a row alone and among others, and how near they are to the mathematical result. */
#include <float.h>
#include <math.h>

#include "attention_problem.h"
#include "bf16_model.h"
#include "bounds.h"
#include "dispatch.h"
#include "oracle.h"
#include "typed.h"

/* ---- Problems ---- */

/* Of attention, with its tensors in types at random. p holds the same numbers as floats. */
struct typed {
    struct problem p;
    attn_type q, kv, o;
    attn_attention_args args;
    void *memory[3];
};

static void give_types(struct typed *t, attn_type q, attn_type kv, attn_type o) {
    t->q = q;
    t->kv = kv;
    t->o = o;
    t->args = t->p.args;
    size_t q_stride = t->p.args.q.batch_stride, kv_stride = t->p.args.k.batch_stride;
    t->args.q = typed_input(&t->p.q, q, FLUSH_END, &t->memory[0]);
    t->args.k = typed_input(&t->p.k, kv, FLUSH_END, &t->memory[1]);
    t->args.v = typed_input(&t->p.v, kv, FLUSH_START, &t->memory[2]);
    t->args.q.batch_stride = q_stride;
    if (t->p.args.kv_cu.cu.i64)
        t->args.k.batch_stride = t->args.v.batch_stride = kv_stride;
}

static struct typed typed_new(struct test_random *random, enum test_values values, const attn_attention_args *args,
                              unsigned kinds, attn_type kv) {
    struct typed t = {.p = masked_problem_new(random, values, args, kinds)};
    attn_type q = random_type(random);
    tensor_round(&t.p.q, q);
    tensor_round(&t.p.k, kv);
    tensor_round(&t.p.v, kv);
    give_types(&t, q, kv, random_type(random));
    return t;
}

static void typed_free(struct typed *t) {
    for (size_t i = 0; i < 3; i++)
        guarded_free(t->memory[i]);
    problem_free(&t->p);
}

static void describe_typed(const struct typed *t, const char *what) {
    const attn_attention_args *a = &t->args;
    const attn_options *o = &a->options;
    test_case(
        "%s: q of type %d, k and v %d, o %d, batch=%zu heads=%zu kv_heads=%zu q_len=%zu kv_len=%zu head_size=%zu "
        "value_size=%zu scale=%g valid=%d causal=%d position=%d window=%zu,%zu starts=%d mask=%d bias=%d alibi=%d "
        "soft_cap=%g sinks=%d rotary=%d empty=%d",
        what, (int)t->q, (int)t->kv, (int)t->o, a->batch, a->heads, a->kv_heads, a->q_len, a->kv_len, a->head_size,
        a->value_size, (double)a->scale, (int)o->valid.kind, o->causal, (int)o->position, o->window_left,
        o->window_right, o->starts.i64 != NULL, o->mask.data != NULL, o->bias.data != NULL, o->alibi != NULL,
        (double)o->soft_cap, o->sinks != NULL, o->rotary != NULL, (int)o->empty);
}

/* A run with an output of type `o`, widened. */
static struct attention_result run_typed(const attn_attention_args *args, attn_type o, enum layout layout,
                                         bool further_outputs) {
    struct attention_result r = attention_result_new(args, layout, FLUSH_END);
    attn_attention_args full = *args;
    void *memory;
    full.o = typed_output(&r.o, o, FLUSH_END, &memory);
    if (further_outputs) {
        full.options.weights.data = r.weights;
        full.options.scores.data = r.scores;
        full.options.log_sum_exp.data = r.log_sum_exp;
    }
    attention_run_into(&full, FLUSH_END);
    typed_read(&r.o, o, memory);
    return r;
}

static struct attention_result run(const struct typed *t) {
    return run_typed(&t->args, t->o, LAYOUT_BHSD, true);
}

/* As many tasks as threads, the last one first, in the calling thread. */
static void run_in_reverse(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count) {
    (void)context;
    while (count > 0)
        task(arg, --count);
}

static attn_parallel threads(size_t count) {
    return (attn_parallel){run_in_reverse, NULL, count};
}

/* Small problems, now and then one that several threads share, or of more than a span. */
static attn_attention_args some_args(struct test_random *random, size_t index) {
    attn_attention_args args = masked_args(random, index);
    args.scale = random_below(random, 3) ? 0 : random_uniform(random, -1.0f, 1.0f);
    if (index % 6 == 3) {
        args.kv_heads = random_between(random, 1, 2);
        args.heads = args.kv_heads * random_between(random, 1, 3);
        args.q_len = random_between(random, 40, 75);
        args.kv_len = random_between(random, 250, 700);
        args.head_size = 64;
        args.value_size = random_below(random, 2) ? 0 : 40;
    }
    if (index % 24 == 5) {
        args.batch = args.heads = 1;
        args.kv_heads = 0;
        args.q_len = random_between(random, 1, 40);
        args.kv_len = random_between(random, 4090, 8300);
        args.head_size = 16;
        args.value_size = 8;
    }
    return args;
}

/* ---- The same bits ---- */

/* The ISA whose bits attention must have: scalar, or one whose kernels are references too and have this ISA's class. */
static attn_isa reference_isa(void) {
    const char *name = test_option("reference");
    attn_isa isa = ATTN_ISA_SCALAR;
    if (name)
        assert_ok(attn_isa_from_name(name, &isa));
    return isa;
}

/* As on scalar, with every option, for any numbers. */
static void has_the_bits_of_the_reference(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    if (test_isa() == ATTN_ISA_SCALAR)
        skip();
    for (size_t i = 0; i < sweep(250, 60); i++) {
        enum test_values values = i % 3 == 0 ? TEST_WILD : i % 3 == 1 ? TEST_NORMAL : TEST_NASTY;
        attn_attention_args args = some_args(&random, i % 12 < 9 ? i + 1 : i);
        struct typed t =
            typed_new(&random, values, &args, random_kinds(&random, (1u << KINDS) - 1), random_type(&random));
        if (reference_isa() == ATTN_ISA_SCALAR)
            t.args.arithmetic = ATTN_ARITHMETIC_PORTABLE;
        struct attention_result actual = run(&t);
        attn_attention_args of_reference = t.args;
        of_reference.isa = reference_isa();
        describe_typed(&t, "beside the reference");
        struct attention_result expected = run_typed(&of_reference, t.o, LAYOUT_BHSD, true);
        assert_same_result(&expected, &actual);
        attention_free(&expected);
        attention_free(&actual);
        typed_free(&t);
    }
}

/* What is asked for besides o, and a mask that hides nothing, change no bit of o. */
static void further_outputs_and_masks_change_nothing(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(100, 30); i++) {
        attn_attention_args args = some_args(&random, i);
        unsigned among = KINDS_OF_INTERVALS | KIND(SINKS) | KIND(GROUPS) | KIND(ROTARY);
        struct typed t = typed_new(&random, TEST_NORMAL, &args, random_kinds(&random, among), random_type(&random));
        describe_typed(&t, "o alone");
        if (i % 2)
            t.args.options.empty = ATTN_EMPTY_ZERO;
        struct attention_result expected = run(&t), alone = run_typed(&t.args, t.o, LAYOUT_GAPS, false);
        assert_same_tensor(&expected.o, &alone.o);
        attention_free(&alone);
        if (t.args.kv_len > 0) {
            uint8_t *mask = guarded_alloc(t.args.kv_len, 1, FLUSH_END);
            memset(mask, 1, t.args.kv_len);
            describe_typed(&t, "a mask that hides nothing");
            t.args.options.mask = (attn_tensor){mask, ATTN_BOOL, 0, 0, 0, 1};
            alone = run_typed(&t.args, t.o, LAYOUT_BSHD, false);
            assert_same_tensor(&expected.o, &alone.o);
            attention_free(&alone);
            guarded_free(mask);
        }
        attention_free(&expected);
        typed_free(&t);
    }
}

/* Values of keys that no row sees become infinite or NaN: no bit of o changes, though rows then take values one by
 * one. */
static void hidden_values_change_nothing(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(50, 25); i++) {
        attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 2, .head_size = 20, .value_size = 33};
        args.q_len = random_between(&random, 1, 40);
        args.kv_len = random_between(&random, 1, 300);
        struct typed t = typed_new(&random, TEST_NORMAL, &args, 0, i % 3 ? ATTN_BF16 : random_type(&random));
        uint8_t *mask = guarded_alloc(args.q_len * args.kv_len, 1, FLUSH_END);
        for (size_t j = 0; j < args.q_len * args.kv_len; j++)
            mask[j] = j % args.kv_len % 5 != 0 && random_below(&random, 3) != 0;
        t.args.options.mask = (attn_tensor){mask, ATTN_BOOL, 0, 0, args.kv_len, 1};
        describe_typed(&t, "hidden values that are not finite");
        struct attention_result expected = run_typed(&t.args, t.o, LAYOUT_BHSD, false);
        for (size_t h = 0; h < args.heads; h++)
            for (size_t key = 0; key < args.kv_len; key += 5)
                tensor_row(&t.p.v, 0, h, key)[key % args.value_size] = key % 2 ? NAN : INFINITY;
        for (size_t m = 0; m < 3; m++)
            guarded_free(t.memory[m]);
        give_types(&t, t.q, t.kv, t.o);
        t.args.options.mask = (attn_tensor){mask, ATTN_BOOL, 0, 0, args.kv_len, 1};
        struct attention_result actual = run_typed(&t.args, t.o, LAYOUT_BHSD, false);
        assert_same_tensor(&expected.o, &actual.o);
        attention_free(&expected);
        attention_free(&actual);
        guarded_free(mask);
        typed_free(&t);
    }
}

/* F32 tensors with the same numbers give the same bits, and o is rounded once. Keys and values of BF16 keep their
 * type, which decides the class; queries of that class may be any that round to the same. */
static void types_are_only_storage(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(150, 40); i++) {
        enum test_values values = i % 4 == 3 ? TEST_NASTY : TEST_NORMAL;
        attn_attention_args args = some_args(&random, i);
        struct typed t =
            typed_new(&random, values, &args, random_kinds(&random, (1u << KINDS) - 1), random_type(&random));
        struct attention_result actual = run(&t);
        attn_attention_args floats = t.p.args;
        if (t.kv == ATTN_BF16) {
            floats.k = t.args.k;
            floats.v = t.args.v;
        }
        describe_typed(&t, "beside floats");
        struct attention_result expected = run_typed(&floats, ATTN_F32, LAYOUT_BHSD, true);
        tensor_round(&expected.o, t.o);
        assert_same_result(&expected, &actual);
        attention_free(&actual);
        if (t.kv == ATTN_BF16 && !t.args.options.rotary) {
            describe_typed(&t, "queries rounded before");
            tensor_round(&t.p.q, ATTN_BF16);
            actual = run_typed(&floats, ATTN_F32, LAYOUT_BHSD, true);
            tensor_round(&actual.o, t.o);
            assert_same_result(&expected, &actual);
            attention_free(&actual);
        }
        attention_free(&expected);
        typed_free(&t);
    }
}

/* Sequence `b` of a result over all of them, by itself: whole, and a chunk of its rows. */
static void check_sequence_alone(struct test_random *random, const struct typed *t,
                                 const struct attention_result *whole, size_t b) {
    attn_attention_args one = one_sequence(&t->args, b);
    describe_typed(t, "a sequence alone");
    struct attention_result alone = run_typed(&one, t->o, LAYOUT_BHSD, true);
    for (size_t head = 0; head < one.heads; head++)
        assert_same_rows(((struct rows_of){&t->args, whole, b, head, 0}), ((struct rows_of){&one, &alone, 0, head, 0}),
                         one.q_len, one.kv_len);
    attention_free(&alone);
    const attn_options *o = &one.options;
    if ((o->position_offsets.i64 ? o->position_offsets.i64[0] : o->position_offset) > INT64_MAX / 2)
        return; /* as rows of a chunk they would stand at another position */
    for (size_t begin = 0, end; begin < one.q_len; begin = end) {
        end = random_between(random, begin + 1, one.q_len < begin + 9 ? one.q_len : begin + 9);
        attn_attention_args chunk = some_rows(&one, begin, end);
        describe_typed(t, "some rows");
        struct attention_result part = run_typed(&chunk, t->o, LAYOUT_BHSD, true);
        for (size_t head = 0; head < one.heads; head++)
            assert_same_rows(((struct rows_of){&t->args, whole, b, head, begin}),
                             ((struct rows_of){&chunk, &part, 0, head, 0}), end - begin, one.kv_len);
        attention_free(&part);
        if (one.q_len > 30)
            end = one.q_len - begin > 30 ? end + 20 : end;
    }
}

/* A row's bits are the same whatever is computed with it: other sequences, rows before and after, other threads. */
static void rows_are_the_same_in_any_company(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(75, 24); i++) {
        attn_attention_args args = some_args(&random, i);
        struct typed t = typed_new(&random, TEST_NORMAL, &args, random_kinds(&random, (1u << KINDS) - 1),
                                   i % 3 ? ATTN_BF16 : random_type(&random));
        struct attention_result whole = run(&t);
        for (size_t count = 2; count <= 3; count++) {
            attn_parallel parallel = threads(count);
            attn_attention_args shared = t.args;
            shared.parallel = &parallel;
            describe_typed(&t, count == 2 ? "2 threads" : "3 threads");
            struct attention_result actual = run_typed(&shared, t.o, LAYOUT_GAPS, true);
            assert_same_result(&whole, &actual);
            attention_free(&actual);
        }
        for (size_t b = 0; b < t.args.batch; b++)
            check_sequence_alone(&random, &t, &whole, b);
        attention_free(&whole);
        typed_free(&t);
    }
}

/* Borders of sequences of 0 to `longest` rows, with rows before the first. */
static attn_cu_lens random_cu(struct test_random *random, size_t batch, size_t longest, int64_t *cu) {
    cu[0] = (int64_t)random_below(random, 3);
    for (size_t b = 0; b < batch; b++)
        cu[b + 1] = cu[b] + (int64_t)(b == 0 ? longest : random_below(random, longest + 1));
    return (attn_cu_lens){.cu.i64 = cu, .total = (size_t)cu[batch]};
}

static void packed_sequences_are_as_alone(void **state) {
    (void)state;
    enum { SEQUENCES = 4 };
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 20); i++) {
        int64_t q_cu[SEQUENCES + 1], kv_cu[SEQUENCES + 1];
        attn_attention_args args = masked_args(&random, i);
        args.batch = random_between(&random, 1, SEQUENCES);
        args.q_cu = random_cu(&random, args.batch, args.q_len, q_cu);
        args.kv_cu = random_cu(&random, args.batch, args.kv_len, kv_cu);
        struct typed t =
            typed_new(&random, TEST_NORMAL, &args, random_kinds(&random, (1u << KINDS) - 1), random_type(&random));
        struct attention_result whole = run(&t);
        for (size_t b = 0; b < args.batch; b++) {
            attn_attention_args one = one_sequence(&t.args, b);
            describe_typed(&t, "a packed sequence alone");
            struct attention_result alone = run_typed(&one, t.o, LAYOUT_BHSD, true);
            for (size_t head = 0; head < args.heads; head++)
                assert_same_rows(((struct rows_of){&t.args, &whole, b, head, 0}),
                                 ((struct rows_of){&one, &alone, 0, head, 0}), one.q_len, one.kv_len);
            attention_free(&alone);
        }
        attention_free(&whole);
        typed_free(&t);
    }
}

/* ---- Caches ---- */

/* Keys from `first` on, as many as `len`, in a type that holds their numbers. */
static void append_some(const struct typed *t, attn_cache *cache, size_t first, size_t len, attn_type type) {
    void *memory[2];
    struct tensor k = t->p.k, v = t->p.v;
    attn_tensor rows[2] = {typed_input(&k, type, FLUSH_END, &memory[0]), typed_input(&v, type, FLUSH_END, &memory[1])};
    size_t element = type == ATTN_F32 ? sizeof(float) : sizeof(uint16_t);
    rows[0].data = (const char *)rows[0].data + first * rows[0].row_stride * element;
    rows[1].data = (const char *)rows[1].data + first * rows[1].row_stride * element;
    attn_cache_append_args args = {.len = len, .k = rows[0], .v = rows[1]};
    args.rotary = t->args.options.rotary;
    args.rotary_offsets.i64 = t->args.options.rotary ? t->p.rotary_offsets : NULL;
    attn_error error = {.field = "none"};
    assert_ok(attn_cache_append(cache, &args, &error));
    assert_string_equal("none", error.field);
    guarded_free(memory[0]);
    guarded_free(memory[1]);
}

/* Attention over a cache that was filled in pieces, or one key at a time, from tensors of any type is attention over
 * tensors of its own type. */
static void caches_round_what_they_are_given(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 20); i++) {
        attn_attention_args args = masked_args(&random, i);
        args.kv_len = args.kv_len ? args.kv_len : 1;
        attn_type stored = random_stored_type(&random), given = random_type(&random);
        struct typed t = {
            .p = masked_problem_new(&random, TEST_NORMAL, &args, random_kinds(&random, (1u << KINDS) - 1))};
        tensor_round(&t.p.k, given);
        tensor_round(&t.p.v, given);
        t.args = t.p.args;
        attn_cache_config config = {.isa = args.isa,
                                    .batch = t.p.args.batch,
                                    .kv_heads = t.p.k.heads,
                                    .head_size = t.p.args.head_size,
                                    .value_size = t.p.v.size,
                                    .capacity = args.kv_len,
                                    .type = stored};
        void *memory;
        attn_cache *cache = cache_create(&config, &memory, FLUSH_END);
        for (size_t done = 0, taken; done < args.kv_len; done += taken) {
            taken = i % 2 && args.kv_len < 700 ? 1 : random_between(&random, 1, args.kv_len - done);
            append_some(&t, cache, done, taken, given);
        }
        attn_attention_args over_cache = t.p.args;
        over_cache.cache = cache;
        over_cache.kv_len = 0;
        over_cache.k = over_cache.v = (attn_tensor){.type = ATTN_BOOL}; /* not looked at */
        struct attention_result actual = run_typed(&over_cache, ATTN_F32, LAYOUT_BHSD, true);
        bool rounds_twice = stored == ATTN_BF16 && given != ATTN_BF16 && t.args.options.rotary;
        if (!rounds_twice) { /* keys are rotated before they are rounded: no tensor of BF16 holds them */
            tensor_round(&t.p.k, stored);
            tensor_round(&t.p.v, stored);
            give_types(&t, ATTN_F32, stored, ATTN_F32);
            describe_typed(&t, i % 2 ? "a cache, one key at a time" : "a cache, in pieces");
            struct attention_result expected = run(&t);
            assert_same_result(&expected, &actual);
            attention_free(&expected);
        }
        attention_free(&actual);
        guarded_free(memory);
        typed_free(&t);
    }
}

/* ---- The class by the letter ---- */

/* A head of plain attention: rows see the first `seen` keys. */
struct head {
    size_t head_size, value_size;
    float scale;
    const struct tensor *q, *k, *v;
};

static float sleef_exp(float x) {
    float y;
    attn_table_elementary(&attn_kernels_scalar)->exp(&x, &y, 1);
    return y;
}

/* acc + the sum over a pair of elements, of which the second may not be there. */
static float add_pair(const float *a, const float *b, size_t b_stride, size_t count, float acc) {
    float last = count > 1 ? model_fma(a[1], b[b_stride], acc) : model_fma(0, 0, acc);
    return model_fma(a[0], b[0], last);
}

/* acc + the sum over 32 elements, of which the last may not be there. */
static float add_32(const float *a, const float *b, size_t b_stride, size_t count, float acc) {
    float sum[2] = {0, 0};
    for (size_t p = 0; p < 32; p++)
        sum[p % 2] = model_fma(p < count ? a[p] : 0, p < count ? b[p * b_stride] : 0, sum[p % 2]);
    return model_add(acc, model_add(sum[0], sum[1]));
}

static float product(const float *a, const float *b, size_t b_stride, size_t k, float acc) {
    bool tiles = attn_class_for(test_table(), ATTN_BF16, ATTN_ARITHMETIC_FASTEST) == ATTN_CLASS_BF16_TILE;
    for (size_t p = 0, unit = tiles ? 32 : 2; p < k; p += unit)
        acc = (tiles ? add_32 : add_pair)(a + p, b + p * b_stride, b_stride, k - p, acc);
    return acc;
}

/* A row's running state within a span, and of all spans so far. */
struct running {
    float max, sum, lanes[ATTN_LANES], output[160];
};

static void take_block(const struct head *h, const float *query, size_t first, size_t count, bool is_first,
                       struct running *r) {
    float x[ATTN_BLOCK], before = r->max;
    for (size_t c = 0; c < count; c++) {
        x[c] = product(query, tensor_row(h->k, 0, 0, first + c), 1, h->head_size, 0) * h->scale;
        r->max = x[c] > r->max ? x[c] : r->max;
    }
    float rescale = sleef_exp(before - r->max);
    r->max += 0.0f;
    for (size_t i = 0; i < ATTN_LANES; i++)
        r->lanes[i] *= rescale;
    for (size_t c = 0; c < count; c++) {
        float t = (x[c] - r->max) * ATTN_LOG2_E, n = nearbyintf(t), f = t - n;
        float p = fmaf(fmaf(fmaf(ATTN_EXP2_C3, f, ATTN_EXP2_C2), f, ATTN_EXP2_C1), f, 1.0f) * exp2f(n);
        p = t < -125.0f ? 0.0f : p;
        r->lanes[c % ATTN_LANES] += p;
        x[c] = model_rounded_bf16(p);
    }
    for (size_t j = 0; j < h->value_size; j++) {
        float start = is_first ? 0.0f : model_mul(r->output[j], rescale);
        r->output[j] = product(x, tensor_row(h->v, 0, 0, first) + j, h->v->row_stride, count, start);
    }
}

static void merge(const struct head *h, struct running *total, const struct running *span) {
    float max = span->max > total->max ? span->max : total->max;
    float f0 = sleef_exp(total->max - max), f1 = sleef_exp(span->max - max);
    total->sum = fmaf(span->sum, f1, total->sum * f0);
    for (size_t j = 0; j < h->value_size; j++)
        total->output[j] = fmaf(span->output[j], f1, total->output[j] * f0);
    total->max = max;
}

static void by_the_letter(const struct head *h, const float *query, size_t seen, float *o) {
    struct running total = {.max = -INFINITY};
    for (size_t span = 0; span < seen; span += ATTN_SPAN) {
        struct running r = {.max = -INFINITY};
        for (size_t block = span; block < seen && block < span + ATTN_SPAN; block += ATTN_BLOCK)
            take_block(h, query, block, seen - block < ATTN_BLOCK ? seen - block : ATTN_BLOCK, block == span, &r);
        r.sum = attn_lane_sum(r.lanes);
        if (span == 0)
            total = r;
        else
            merge(h, &total, &r);
    }
    float inverse = seen ? 1.0f / total.sum : 0.0f;
    for (size_t j = 0; j < h->value_size; j++)
        o[j] = (seen ? total.output[j] : 0.0f) * inverse + 0.0f;
}

static void is_the_class_by_the_letter(void **state) {
    (void)state;
    static const struct {
        size_t q_len, kv_len, head_size, value_size;
        int causal;
    } shapes[] = {{1, 1, 1, 1, 0},      {3, 5, 7, 3, 0},     {5, 40, 16, 20, 1}, {2, 255, 20, 9, 0},
                  {33, 257, 33, 65, 1}, {4, 600, 64, 64, 0}, {70, 90, 17, 5, 1}, {20, 300, 128, 130, 1},
                  {2, 4097, 3, 2, 0},   {1, 8300, 4, 3, 0},  {9, 12, 64, 32, 1}, {16, 513, 80, 31, 0}};
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 1};
        args.q_len = shapes[i].q_len;
        args.kv_len = shapes[i].kv_len;
        args.head_size = shapes[i].head_size;
        args.value_size = shapes[i].value_size;
        args.scale = i % 3 == 2 ? random_uniform(&random, -1.0f, 1.0f) : 0;
        struct typed t = typed_new(&random, TEST_NORMAL, &args, shapes[i].causal ? KIND(CAUSAL) : 0, ATTN_BF16);
        struct head head = {args.head_size, args.value_size, args.scale, &t.p.q, &t.p.k, &t.p.v};
        head.scale = args.scale != 0 ? args.scale : (float)(1 / sqrt((double)args.head_size));
        struct attention_result r = run_typed(&t.args, t.o, LAYOUT_BHSD, i % 2);
        for (size_t row = 0; row < args.q_len; row++) {
            float query[160], o[160];
            size_t seen = args.kv_len, hidden = args.q_len - 1 - row;
            if (shapes[i].causal)
                seen -= hidden < seen ? hidden : seen;
            memcpy(query, tensor_row(&t.p.q, 0, 0, row), args.head_size * sizeof *query);
            round_floats(ATTN_BF16, query, args.head_size);
            by_the_letter(&head, query, seen, o);
            round_floats(t.o, o, args.value_size);
            test_case("by the letter: row %zu of %zu, %zu of %zu keys, sizes %zu and %zu, o of type %d", row,
                      args.q_len, seen, args.kv_len, args.head_size, args.value_size, (int)t.o);
            assert_same_bits(o, tensor_row(&r.o, 0, 0, row), args.value_size);
        }
        attention_free(&r);
        typed_free(&t);
    }
}

/* ---- Beside double arithmetic ---- */

/* How far o may be from the oracle's, which sees the same numbers, for one element: `size` is the sum of |weight *
 * value|. In class F32 what attention_problem.c says, in class BF16 what bounds.h does. What is rounded to the type of
 * o is off by half a unit more. */
static double bound(const struct typed *t, const struct oracle *oracle, size_t row, double size, double o) {
    const struct bound_row seen = {t->args.head_size, t->args.kv_len, oracle->score_magnitude[row]};
    double units = output_units(t->args.kv_len, seen.score);
    double error = size * (t->kv == ATTN_BF16 ? bound_attention(1, &seen, t->args.options.rotary != NULL)
                                              : units * (double)FLT_EPSILON);
    double rounding = t->o == ATTN_BF16 ? BOUND_BF16 : t->o == ATTN_F16 ? BOUND_F16 : 0;
    return error + (rounding > 0 ? rounding * (fabs(o) + error) : 0) + (t->o == ATTN_F16 ? 0x1p-24 : (double)FLT_MIN);
}

static void is_near_double(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    double worst = 0, worst_of_class = 0, worst_of_bound = 0;
    for (size_t i = 0; i < sweep(150, 40); i++) {
        attn_attention_args args = masked_args(&random, i);
        unsigned kinds = random_kinds(&random, (1u << KINDS) - 1);
        struct typed t = {.p = masked_problem_new(&random, TEST_NORMAL, &args, kinds)};
        attn_type q = random_type(&random), kv = random_type(&random);
        /* Queries of class BF16 are rounded, after they are rotated. */
        tensor_round(&t.p.q, kv == ATTN_BF16 && !t.p.args.options.rotary ? ATTN_BF16 : q);
        q = kv == ATTN_BF16 && !t.p.args.options.rotary && q == ATTN_F16 ? ATTN_BF16 : q;
        tensor_round(&t.p.k, kv);
        tensor_round(&t.p.v, kv);
        give_types(&t, q, kv, random_type(&random));
        struct attention_result r = run(&t);
        struct oracle oracle;
        oracle_attention(&t.p.args, &t.p.rotary, &oracle);
        describe_typed(&t, "beside double");
        for (size_t at = 0; at < r.rows * r.o.size; at++) {
            size_t row = at / r.o.size, head = row / args.q_len;
            double o =
                (double)tensor_row(&r.o, head / t.args.heads, head % t.args.heads, row % args.q_len)[at % r.o.size];
            double most = bound(&t, &oracle, row, oracle.magnitude[at], oracle.output[at]);
            assert_near(oracle.output[at], o, most);
            worst = fmax(worst, fabs(o - oracle.output[at]) / most);
            if (t.kv == ATTN_BF16 && t.o == ATTN_F32 && !t.args.options.rotary && oracle.magnitude[at] > 0) {
                worst_of_class = fmax(worst_of_class, fabs(o - oracle.output[at]) / oracle.magnitude[at]);
                worst_of_bound = fmax(worst_of_bound, fabs(o - oracle.output[at]) / most);
            }
        }
        for (size_t row = 0; row < r.rows; row++) {
            double score = oracle.score_magnitude[row], expected = oracle.log_sum_exp[row];
            double units = log_sum_exp_units(t.args.kv_len, score, expected) * (double)FLT_EPSILON;
            if (t.kv == ATTN_BF16)
                units += exp2(-13.2) + 5 * score * (double)FLT_EPSILON + (t.args.options.rotary ? 0x1p-7 * score : 0);
            assert_near(expected, (double)r.log_sum_exp[row], isfinite(expected) ? units : 0);
        }
        oracle_free(&oracle);
        attention_free(&r);
        typed_free(&t);
    }
    print_message("largest error: %.2f of the bound; class BF16: 2^%.2f of sum |weight * value|, %.2f of the bound\n",
                  worst, log2(worst_of_class), worst_of_bound);
}

/* ---- Products with weights ---- */

struct weights {
    struct tensor w; /* [1, 1, k, n] */
    attn_type type;
    float *bias;
    void *memory, *object;
    attn_gemm *gemm;
};

static struct weights new_weights(struct test_random *random, size_t k, size_t n, attn_type type) {
    struct weights w = {.w = tensor_random(random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, k, n, FLUSH_END), .type = type};
    attn_gemm_config config = {.isa = test_isa(), .k = k, .n = n};
    size_t bytes = 0;
    tensor_round(&w.w, type);
    if (random_below(random, 2)) {
        w.bias = guarded_floats(n, FLUSH_END);
        random_fill(random, TEST_NORMAL, w.bias, n);
    }
    attn_tensor in = typed_input(&w.w, type, FLUSH_END, &w.memory);
    config.w = (attn_linear){.weight = in.data, .in_stride = n, .out_stride = 1, .bias = w.bias, .type = type};
    assert_ok(attn_gemm_size(&config, &bytes, NULL));
    w.object = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_gemm_create(&config, w.object, bytes, &w.gemm, NULL));
    return w;
}

static void weights_free(struct weights *w) {
    tensor_free(&w->w);
    guarded_free(w->bias);
    guarded_free(w->memory);
    guarded_free(w->object);
}

/* y in memory for floats, rounded to its type. The workspace is exactly as large as asked for, and NULL where it is
 * nothing. */
static void run_product(const attn_gemm *gemm, const struct tensor *x, attn_type x_type, const struct tensor *y,
                        attn_type y_type, const attn_parallel *parallel) {
    attn_gemm_run_args args = {.m = x->len, .parallel = parallel};
    void *x_memory, *y_memory;
    attn_error error = {.field = "none"};
    size_t bytes = 1;
    args.x.type = x_type;
    args.y.type = y_type;
    assert_ok(attn_gemm_workspace(gemm, &args, &bytes, &error));
    args.workspace = bytes ? poisoned_alloc(bytes, FLUSH_END) : NULL;
    args.workspace_bytes = bytes;
    args.x = typed_input(x, x_type, FLUSH_END, &x_memory);
    args.y = typed_output(y, y_type, FLUSH_END, &y_memory);
    args.x.batch_stride = args.x.head_stride = args.y.batch_stride = args.y.head_stride = 0;
    assert_ok(attn_gemm_run(gemm, &args, &error));
    assert_string_equal("none", error.field);
    typed_read(y, y_type, y_memory);
    guarded_free(x_memory);
    guarded_free(args.workspace);
}

/* What the class gives, element by element, from the model. */
static float model_product(const struct weights *w, const struct tensor *x, size_t i, size_t j) {
    float row[600];
    memcpy(row, tensor_row(x, 0, 0, i), x->size * sizeof *row);
    round_floats(ATTN_BF16, row, x->size);
    return product(row, w->w.data + j, w->w.row_stride, x->size, w->bias ? w->bias[j] : 0);
}

static void products_convert_on_both_sides(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(100, 30); i++) {
        bool large = i % 10 == 7;
        size_t m = large ? random_between(&random, 120, 400) : random_below(&random, 40);
        size_t k = large ? random_between(&random, 100, 600) : random_between(&random, 1, 70);
        size_t n = large ? random_between(&random, 60, 200) : random_between(&random, 1, 70);
        attn_type x_type = random_type(&random), y_type = random_type(&random);
        struct weights w = new_weights(&random, k, n, random_stored_type(&random));
        struct tensor x = tensor_random(&random, TEST_NORMAL, i % 2 ? LAYOUT_GAPS : LAYOUT_BHSD, 1, 1, m, k, FLUSH_END);
        struct tensor expected = tensor_new(LAYOUT_BHSD, 1, 1, m, n, FLUSH_END);
        tensor_round(&x, x_type);
        test_case("m=%zu n=%zu k=%zu, x of type %d, weights %d, y %d", m, n, k, (int)x_type, (int)w.type, (int)y_type);
        run_product(w.gemm, &x, ATTN_F32, &expected, ATTN_F32, NULL);
        for (size_t e = 0; w.type == ATTN_BF16 && e < m * n; e += large ? 97 : 1) {
            float one = model_product(&w, &x, e / n, e % n);
            assert_same_bits(&one, tensor_row(&expected, 0, 0, e / n) + e % n, 1);
        }
        tensor_round(&expected, y_type);
        for (size_t count = 1; count <= 3; count++) {
            attn_parallel parallel = threads(count);
            struct tensor y = tensor_new(i % 3 ? LAYOUT_GAPS : LAYOUT_BHSD, 1, 1, m, n, FLUSH_END);
            run_product(w.gemm, &x, x_type, &y, y_type, &parallel);
            assert_same_tensor(&expected, &y);
            tensor_free(&y);
        }
        tensor_free(&x);
        tensor_free(&expected);
        weights_free(&w);
    }
}

/* How far an element is from the product of x and the weights' numbers. Rows of other types that meet weights of BF16
 * are rounded to BF16 first. */
static void check_product(const struct weights *w, const struct tensor *x, size_t i, size_t j, float y) {
    double sum = w->bias ? (double)w->bias[j] : 0, magnitude = fabs(sum), rounded = 0;
    for (size_t p = 0; p < x->size; p++) {
        double term = (double)tensor_row(x, 0, 0, i)[p] * (double)tensor_row(&w->w, 0, 0, p)[j];
        sum += term;
        magnitude += fabs(term);
        rounded += w->type == ATTN_BF16 ? BOUND_BF16 * fabs(term) : 0;
    }
    enum attn_class arithmetic = attn_class_of(w->type);
    if (arithmetic == ATTN_CLASS_BF16 && test_isa() == ATTN_ISA_AMX)
        arithmetic = ATTN_CLASS_BF16_TILE;
    assert_near(sum, (double)y, rounded + bound_product(arithmetic, x->size, 0, magnitude + rounded));
}

static void products_are_near_double(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 20); i++) {
        size_t m = random_between(&random, 1, 9), n = random_between(&random, 1, 50);
        struct weights w = new_weights(&random, random_between(&random, 1, 600), n, random_stored_type(&random));
        struct tensor x = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, m, w.w.len, FLUSH_END);
        struct tensor y = tensor_new(LAYOUT_BHSD, 1, 1, m, n, FLUSH_END);
        run_product(w.gemm, &x, ATTN_F32, &y, ATTN_F32, NULL);
        test_case("m=%zu n=%zu k=%zu, weights of type %d", m, n, x.size, (int)w.type);
        for (size_t e = 0; e < m * n; e++)
            check_product(&w, &x, e / n, e % n, tensor_row(&y, 0, 0, e / n)[e % n]);
        tensor_free(&x);
        tensor_free(&y);
        weights_free(&w);
    }
}

/* A product of floats needs no workspace, nor does one whose kernel takes and writes the types as they are. */
static void asks_for_workspace_where_it_converts(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (int stored = 0; stored < 2; stored++) {
        struct weights w = new_weights(&random, 20, 30, stored ? ATTN_BF16 : ATTN_F32);
        static const attn_type types[] = {ATTN_F32, ATTN_BF16, ATTN_F16};
        for (size_t i = 0; i < 9; i++) {
            attn_gemm_run_args args = {.m = 50, .x = {.type = types[i % 3]}, .y = {.type = types[i / 3]}};
            attn_parallel parallel = threads(3);
            size_t one = 0, three = 0, less = 0;
            assert_ok(attn_gemm_workspace(w.gemm, &args, &one, NULL));
            args.parallel = &parallel;
            assert_ok(attn_gemm_workspace(w.gemm, &args, &three, NULL));
            args.m = 49;
            assert_ok(attn_gemm_workspace(w.gemm, &args, &less, NULL));
            test_case("weights %d, x of type %d, y %d: %zu bytes, %zu with 3 threads", stored, (int)args.x.type,
                      (int)args.y.type, one, three);
            if (!stored)
                assert_int_equal(args.x.type != ATTN_F32 || args.y.type != ATTN_F32, one > 0);
            else if (args.x.type != ATTN_BF16 || args.y.type == ATTN_F16)
                assert_true(one > 0);
            assert_true(three >= 2 * one && less <= three);
        }
        weights_free(&w);
    }
}

int main(int argc, char **argv) {
    const char *const options[] = {"reference", NULL};
    test_init(argc, argv, options);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(has_the_bits_of_the_reference),  cmocka_unit_test(further_outputs_and_masks_change_nothing),
        cmocka_unit_test(types_are_only_storage),         cmocka_unit_test(rows_are_the_same_in_any_company),
        cmocka_unit_test(packed_sequences_are_as_alone),  cmocka_unit_test(caches_round_what_they_are_given),
        cmocka_unit_test(is_the_class_by_the_letter),     cmocka_unit_test(is_near_double),
        cmocka_unit_test(products_convert_on_both_sides), cmocka_unit_test(asks_for_workspace_where_it_converts),
        cmocka_unit_test(hidden_values_change_nothing),   cmocka_unit_test(products_are_near_double),
    };
    return test_run(tests);
}
