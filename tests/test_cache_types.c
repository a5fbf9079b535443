/* Caches of F16, INT8 and F8: what they hold of the rows that they are given, attention over that by the letter,
 * near double arithmetic, and beside keys and values that are not finite. */
#include <float.h>
#include <math.h>

#include "attention_problem.h"
#include "bounds.h"
#include "ops/rotary.h"
#include "oracle.h"
#include "random_options.h"
#include "typed.h"

enum { MOST_SIZE = 160, MOST_HEADS = 3 };

/* ---- What a cache holds ---- */

/* Numbers with so many bits of fraction, whose lowest normal exponent is `lowest`; 0: they have no end. */
static float rounded(float x, int bits, int lowest, float largest) {
    int exponent;
    if (!isfinite(x))
        return isnan(x) ? x : copysignf(largest, x);
    frexp((double)x, &exponent);
    int unit = (exponent - 1 > lowest ? exponent - 1 : lowest) - bits;
    float y = (float)ldexp(rint(ldexp((double)x, -unit)), unit);
    return fabsf(y) > largest ? copysignf(isinf(largest) ? INFINITY : largest, y) : y;
}

static float rounded_to(attn_type type, float x) {
    switch (type) {
    case ATTN_F16: {
        float y = rounded(x, 10, -14, INFINITY);
        return fabsf(y) > 65504.0f ? copysignf(INFINITY, x) : y;
    }
    case ATTN_F8_E4M3:
        return rounded(x, 3, -6, 448.0f);
    case ATTN_F8_E5M2:
        return rounded(x, 2, -14, 57344.0f);
    default:
        return x;
    }
}

/* A row's elements, widened, and what they are multiplied by. `head` is that of its head, or 1. */
static float hold_row(attn_type type, float head, const float *x, size_t n, float *held) {
    float largest = 0.0f;
    for (size_t j = 0; j < n; j++) {
        held[j] = type == ATTN_INT8 ? 0.0f : rounded_to(type, type == ATTN_F16 ? x[j] : x[j] / head);
        largest = isnan(largest) || !isfinite(x[j]) ? NAN : fmaxf(largest, fabsf(x[j]));
    }
    if (type != ATTN_INT8)
        return head;
    if (!(largest >= 0x1p-119f))
        return isnan(largest) ? NAN : 0.0f;
    for (size_t j = 0; j < n; j++)
        held[j] = rintf(x[j] * (127.0f / largest));
    return largest / 127.0f;
}

/* A cache of one sequence, the rows that it was given, and what it is to hold of them. */
struct held {
    attn_type type;
    size_t keys, heads; /* kv heads */
    struct tensor k, v;
    struct tensor held_k, held_v;
    struct tensor key_scales, value_scales; /* [1, heads, 1, keys] */
    float k_scales[MOST_HEADS], v_scales[MOST_HEADS];
    attn_rotary *rotary;
    attn_cache *cache;
    void *memory, *rotary_memory;
};

static bool is_f8(attn_type type) {
    return type == ATTN_F8_E4M3 || type == ATTN_F8_E5M2;
}

/* What the cache is to hold of the rows. */
static void hold(struct held *c) {
    for (size_t h = 0; h < c->heads; h++)
        for (size_t key = 0; key < c->keys; key++) {
            float row[MOST_SIZE];
            memcpy(row, tensor_row(&c->k, 0, h, key), c->k.size * sizeof *row);
            if (c->rotary)
                attn_rotary_rotate(attn_table_attention(&attn_kernels_scalar), c->rotary, key, row, c->k.size, row);
            tensor_row(&c->key_scales, 0, h, 0)[key] =
                hold_row(c->type, c->k_scales[h], row, c->k.size, tensor_row(&c->held_k, 0, h, key));
            tensor_row(&c->value_scales, 0, h, 0)[key] = hold_row(c->type, c->v_scales[h], tensor_row(&c->v, 0, h, key),
                                                                  c->v.size, tensor_row(&c->held_v, 0, h, key));
        }
}

/* Creates the cache and gives it the rows. Once it is created nobody looks at the caller's scales any more. */
static void fill(struct held *c, bool scaled) {
    float *scales[2] = {guarded_floats(c->heads, FLUSH_END), guarded_floats(c->heads, FLUSH_START)};
    attn_cache_config config = {.isa = test_isa(), .batch = 1, .kv_heads = c->heads, .capacity = c->keys};
    config.type = c->type;
    config.head_size = c->k.size;
    config.value_size = c->v.size;
    memcpy(scales[0], c->k_scales, c->heads * sizeof(float));
    memcpy(scales[1], c->v_scales, c->heads * sizeof(float));
    config.k_scales = scaled ? scales[0] : NULL;
    config.v_scales = scaled ? scales[1] : NULL;
    c->cache = cache_create(&config, &c->memory, FLUSH_END);
    guarded_free(scales[0]);
    guarded_free(scales[1]);
    attn_cache_append_args args = {.len = c->keys, .k = tensor_in(&c->k), .v = tensor_in(&c->v), .rotary = c->rotary};
    assert_ok(attn_cache_append(c->cache, &args, NULL));
}

static struct held held_new(struct test_random *random, attn_type type, enum test_values values, size_t heads,
                            size_t keys, size_t head_size, size_t value_size, bool rotary) {
    struct held c = {.type = type, .keys = keys, .heads = heads};
    bool scaled = is_f8(type) && random_below(random, 4);
    c.k = tensor_random(random, values, LAYOUT_BHSD, 1, heads, keys, head_size, FLUSH_END);
    c.v = tensor_random(random, values, LAYOUT_GAPS, 1, heads, keys, value_size, FLUSH_END);
    c.held_k = tensor_new(LAYOUT_BHSD, 1, heads, keys, head_size, FLUSH_END);
    c.held_v = tensor_new(LAYOUT_BHSD, 1, heads, keys, value_size, FLUSH_END);
    c.key_scales = tensor_new(LAYOUT_BHSD, 1, heads, 1, keys, FLUSH_END);
    c.value_scales = tensor_new(LAYOUT_BHSD, 1, heads, 1, keys, FLUSH_END);
    for (size_t h = 0; h < MOST_HEADS; h++) {
        c.k_scales[h] = scaled ? random_uniform(random, 0.001f, 2.0f) : 1.0f;
        c.v_scales[h] = scaled ? random_uniform(random, 0.001f, 2.0f) : 1.0f;
    }
    if (rotary)
        c.rotary = draw_rotary(random, keys, head_size, &c.rotary_memory);
    hold(&c);
    fill(&c, scaled);
    return c;
}

static void held_free(struct held *c) {
    struct tensor *tensors[] = {&c->k, &c->v, &c->held_k, &c->held_v, &c->key_scales, &c->value_scales};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        tensor_free(tensors[i]);
    guarded_free(c->rotary_memory);
    guarded_free(c->memory);
}

static attn_attention_args args_over(const struct held *c, const struct tensor *q) {
    attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = q->heads, .kv_heads = c->heads};
    args.q_len = q->len;
    args.kv_len = c->keys;
    args.head_size = q->size;
    args.value_size = c->v.size;
    args.q = tensor_in(q);
    args.cache = c->cache;
    args.options.rotary = c->rotary;
    return args;
}

/* ---- By the letter ---- */

static float sleef_exp(float x) {
    float y;
    attn_table_elementary(&attn_kernels_scalar)->exp(&x, &y, 1);
    return y;
}

static float chain(const float *a, const float *b, size_t b_stride, size_t n, float acc) {
    for (size_t p = 0; p < n; p++)
        acc = fmaf(a[p], b[p * b_stride], acc);
    return acc;
}

/* A row's running state within a span, and of all spans so far. */
struct running {
    float max, sum, lanes[ATTN_LANES], output[MOST_SIZE];
};

/* A query and its head. */
struct asked {
    const struct held *c;
    size_t head; /* kv head */
    float query[MOST_SIZE];
};

static float logit(const struct asked *asked, size_t key) {
    const struct held *c = asked->c;
    float x = chain(asked->query, tensor_row(&c->held_k, 0, asked->head, key), 1, c->k.size, 0.0f);
    return x * tensor_row(&c->key_scales, 0, asked->head, 0)[key];
}

static void take_block(const struct asked *asked, size_t first, size_t count, bool is_first, struct running *r) {
    const struct held *c = asked->c;
    const float *scales = tensor_row(&c->value_scales, 0, asked->head, 0) + first;
    float x[ATTN_BLOCK], before = r->max;
    for (size_t i = 0; i < count; i++) {
        x[i] = logit(asked, first + i);
        r->max = x[i] > r->max ? x[i] : r->max;
    }
    float rescale = sleef_exp(before - r->max);
    r->max += 0.0f;
    for (size_t i = 0; i < ATTN_LANES; i++)
        r->lanes[i] *= rescale;
    for (size_t i = 0; i < count; i++) {
        x[i] = sleef_exp(x[i] - r->max);
        r->lanes[i % ATTN_LANES] += x[i];
        x[i] = x[i] * scales[i];
    }
    for (size_t j = 0; j < c->v.size; j++) {
        float start = is_first ? 0.0f : r->output[j] * rescale;
        r->output[j] = chain(x, tensor_row(&c->held_v, 0, asked->head, first) + j, c->held_v.row_stride, count, start);
    }
}

static void merge(size_t size, struct running *total, const struct running *span) {
    float max = span->max > total->max ? span->max : total->max;
    float f0 = sleef_exp(total->max - max), f1 = sleef_exp(span->max - max);
    total->sum = fmaf(span->sum, f1, total->sum * f0);
    for (size_t j = 0; j < size; j++)
        total->output[j] = fmaf(span->output[j], f1, total->output[j] * f0);
    total->max = max;
}

static void by_the_letter(const struct asked *asked, size_t seen, float *o) {
    struct running total = {.max = -INFINITY};
    for (size_t span = 0; span < seen; span += ATTN_SPAN) {
        struct running r = {.max = -INFINITY};
        for (size_t block = span; block < seen && block < span + ATTN_SPAN; block += ATTN_BLOCK)
            take_block(asked, block, seen - block < ATTN_BLOCK ? seen - block : ATTN_BLOCK, block == span, &r);
        r.sum = attn_lane_sum(r.lanes);
        if (span == 0)
            total = r;
        else
            merge(asked->c->v.size, &total, &r);
    }
    for (size_t j = 0; j < asked->c->v.size; j++)
        o[j] = total.output[j] * (1.0f / total.sum) + 0.0f;
}

static void take_query(struct asked *asked, const struct tensor *q, size_t head, size_t row, float scale) {
    const struct held *c = asked->c;
    memcpy(asked->query, tensor_row(q, 0, head, row), q->size * sizeof(float));
    if (c->rotary)
        attn_rotary_rotate(attn_table_attention(&attn_kernels_scalar), c->rotary, c->keys - q->len + row, asked->query,
                           q->size, asked->query);
    for (size_t d = 0; d < q->size; d++)
        asked->query[d] *= scale;
}

static void compare_rows(const struct held *c, const struct tensor *q, attn_type q_type, attn_type o_type,
                         bool causal) {
    attn_attention_args args = args_over(c, q);
    struct attention_result r = attention_result_new(&args, LAYOUT_BHSD, FLUSH_END);
    void *memory[2];
    args.q = typed_input(q, q_type, FLUSH_END, &memory[0]);
    args.o = typed_output(&r.o, o_type, FLUSH_END, &memory[1]);
    args.options.causal = causal;
    args.options.scores.data = r.scores;
    args.options.scores_hidden = 1;
    attention_run_into(&args, FLUSH_END);
    typed_read(&r.o, o_type, memory[1]);
    guarded_free(memory[0]);
    for (size_t h = 0; h < q->heads; h++)
        for (size_t row = 0; row < q->len; row++) {
            struct asked asked = {.c = c, .head = h / (q->heads / c->heads)};
            size_t seen = causal ? c->keys - q->len + row + 1 : c->keys;
            float o[MOST_SIZE], *scores = r.scores + (h * q->len + row) * c->keys;
            take_query(&asked, q, h, row, (float)(1 / sqrt((double)q->size)));
            test_case("type %d: row %zu of %zu, head %zu, %zu of %zu keys, sizes %zu and %zu, q of type %d, o %d",
                      (int)c->type, row, q->len, h, seen, c->keys, q->size, c->v.size, (int)q_type, (int)o_type);
            for (size_t key = 0; key < c->keys; key++)
                assert_same_bits(&(float){logit(&asked, key)}, scores + key, 1);
            by_the_letter(&asked, seen, o);
            round_floats(o_type, o, c->v.size);
            assert_same_bits(o, tensor_row(&r.o, 0, h, row), c->v.size);
        }
    attention_free(&r);
}

static void is_the_class_by_the_letter(void **state) {
    (void)state;
    static const struct {
        size_t q_len, keys, head_size, value_size;
    } shapes[] = {{1, 1, 1, 1},     {3, 5, 7, 3},      {5, 40, 16, 20},     {2, 255, 20, 9}, {33, 257, 33, 65},
                  {4, 600, 64, 64}, {70, 90, 17, 5},   {20, 300, 128, 130}, {2, 4097, 3, 2}, {1, 4500, 4, 3},
                  {9, 12, 64, 32},  {16, 513, 80, 31}, {1, 700, 128, 128}};
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < CACHE_TYPES * sizeof shapes / sizeof *shapes; i++) {
        attn_type type = cache_types[i % CACHE_TYPES], q_type = random_type(&random);
        size_t shape = i / CACHE_TYPES, heads = random_between(&random, 1, MOST_HEADS);
        if (type == ATTN_BF16)
            continue;
        struct held c = held_new(&random, type, TEST_NORMAL, heads, shapes[shape].keys, shapes[shape].head_size,
                                 shapes[shape].value_size, random_below(&random, 2));
        struct tensor q = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, heads * random_between(&random, 1, 2),
                                        shapes[shape].q_len, shapes[shape].head_size, FLUSH_END);
        tensor_round(&q, q_type);
        compare_rows(&c, &q, q_type, random_type(&random), random_below(&random, 2));
        tensor_free(&q);
        held_free(&c);
    }
}

/* Numbers of any size, denormals, infinities and NaN: the logits of a query that is 1 in one element and 0 elsewhere
 * are the elements as they are held, times the scale. */
static void holds_any_number(void **state) {
    (void)state;
    enum { SIZE = 5, KEYS = 200 };
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(20, 4) * CACHE_TYPES; i++) {
        attn_type type = cache_types[i % CACHE_TYPES];
        if (type == ATTN_BF16)
            continue;
        struct held c =
            held_new(&random, type, random_below(&random, 2) ? TEST_WILD : TEST_NASTY, 1, KEYS, SIZE, 1, false);
        struct tensor q = tensor_new(LAYOUT_BHSD, 1, 1, SIZE, SIZE, FLUSH_END);
        attn_attention_args args = args_over(&c, &q);
        struct attention_result r = attention_result_new(&args, LAYOUT_BHSD, FLUSH_END);
        for (size_t d = 0; d < SIZE * SIZE; d++)
            tensor_row(&q, 0, 0, d / SIZE)[d % SIZE] = d / SIZE == d % SIZE ? 1.0f : 0.0f;
        args.scale = 1.0f;
        args.o = tensor_out(&r.o);
        args.options.scores.data = r.scores;
        attention_run_into(&args, FLUSH_END);
        for (size_t at = 0; at < (size_t)SIZE * KEYS; at++) {
            struct asked asked = {.c = &c};
            memcpy(asked.query, tensor_row(&q, 0, 0, at / KEYS), SIZE * sizeof(float));
            test_case("type %d: key %zu, element %zu", (int)type, at % KEYS, at / KEYS);
            assert_same_bits(&(float){logit(&asked, at % KEYS)}, r.scores + at, 1);
        }
        attention_free(&r);
        tensor_free(&q);
        held_free(&c);
    }
}

/* ---- Keys and values that are not finite ---- */

/* Attention in which even rows do not see every fifth key: a mask hides it. */
static struct attention_result run_hiding(const struct held *c, const struct tensor *q) {
    attn_attention_args args = args_over(c, q);
    uint8_t *mask = guarded_alloc(q->len * c->keys, 1, FLUSH_END);
    for (size_t i = 0; i < q->len * c->keys; i++)
        mask[i] = i % c->keys % 5 != 0 || i / c->keys % 2;
    args.options.mask = (attn_tensor){mask, ATTN_BOOL, 0, 0, c->keys, 1};
    struct attention_result r = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
    guarded_free(mask);
    return r;
}

/* Fills the cache once more. */
static void refill(struct held *c) {
    assert_ok(attn_cache_truncate(c->cache, 0, 0, NULL));
    cache_append(c->cache, c->keys, tensor_in(&c->k), tensor_in(&c->v), NULL);
}

static void check_rows(const struct held *c, const struct attention_result *expected,
                       const struct attention_result *actual, bool keys) {
    for (size_t h = 0; h < expected->o.heads; h++)
        for (size_t row = 0; row < expected->o.len; row++)
            for (size_t j = 0; j < c->v.size; j++) {
                const float *o = tensor_row(&actual->o, 0, h, row) + j;
                test_case("type %d: row %zu, column %zu, %s", (int)c->type, row, j, keys ? "keys" : "values");
                if (row % 2 && (keys || j == 1 || c->type == ATTN_INT8))
                    assert_true(isnan(*o));
                else
                    assert_same_bits(tensor_row(&expected->o, 0, h, row) + j, o, 1);
            }
}

/* A key or value with a NaN makes rows that see it NaN, a value of INT8 in all columns. It changes no other row, nor
 * another key's scale. */
static void not_finite_keys_harm_no_other(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(12, 4) * CACHE_TYPES; i++) {
        attn_type type = cache_types[i % CACHE_TYPES];
        size_t keys = random_below(&random, 3) ? random_between(&random, 2, 70) : random_between(&random, 250, 300);
        struct held c = held_new(&random, type, TEST_NORMAL, 2, keys, 20, 33, false);
        struct tensor q =
            tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 2, random_between(&random, 1, 6), 20, FLUSH_END);
        struct attention_result expected = run_hiding(&c, &q), actual;
        for (size_t at = 0; at < 2 * keys; at += at % keys + 5 < keys ? 5 : keys - at % keys)
            tensor_row(&c.v, 0, at / keys, at % keys)[1] = NAN;
        refill(&c);
        actual = run_hiding(&c, &q);
        check_rows(&c, &expected, &actual, false);
        attention_free(&actual);
        for (size_t at = 0; at < 2 * keys; at += at % keys + 5 < keys ? 5 : keys - at % keys)
            tensor_row(&c.k, 0, at / keys, at % keys)[at % 20] = NAN;
        refill(&c);
        actual = run_hiding(&c, &q);
        check_rows(&c, &expected, &actual, true);
        attention_free(&actual);
        attention_free(&expected);
        tensor_free(&q);
        held_free(&c);
    }
}

/* ---- Beside double arithmetic ---- */

/* The elements times their scales, each rounded to a float. */
static struct tensor dequantised(const struct tensor *held, const struct tensor *scales) {
    struct tensor t = tensor_new(LAYOUT_BHSD, 1, held->heads, held->len, held->size, FLUSH_END);
    for (size_t h = 0; h < t.heads; h++)
        for (size_t at = 0; at < t.len * t.size; at++)
            tensor_row(&t, 0, h, at / t.size)[at % t.size] =
                tensor_row(held, 0, h, at / t.size)[at % t.size] * tensor_row(scales, 0, h, 0)[at / t.size];
    return t;
}

static struct oracle oracle_over(const struct held *c, const struct tensor *q, const struct tensor *k,
                                 const struct tensor *v) {
    attn_attention_args args = args_over(c, q);
    struct oracle oracle;
    args.cache = NULL;
    args.k = tensor_in(k);
    args.v = tensor_in(v);
    args.options.causal = 1;
    oracle_attention(&args, NULL, &oracle);
    return oracle;
}

/* The largest error of an output, as a part of its bound, which is class F32's. */
static double bounded_error(const struct held *c, const struct attention_result *r, const struct oracle *oracle) {
    double worst = 0;
    for (size_t at = 0; at < r->rows * c->v.size; at++) {
        size_t row = at / c->v.size;
        struct bound_row seen = {c->k.size, c->keys, oracle->score_magnitude[row]};
        double bound = bound_attention(0, &seen, 0) * oracle->magnitude[at] + (double)FLT_MIN;
        double o = (double)tensor_row(&r->o, 0, 0, row)[at % c->v.size];
        assert_near(oracle->output[at], o, bound);
        worst = fmax(worst, fabs(o - oracle->output[at]) / bound);
    }
    return worst;
}

/* The sum of the squares of all errors. */
static double squares(const struct held *c, const struct attention_result *r, const struct oracle *oracle) {
    double sum = 0;
    for (size_t at = 0; at < r->rows * c->v.size; at++) {
        double o = (double)tensor_row(&r->o, 0, 0, at / c->v.size)[at % c->v.size];
        sum += (o - oracle->output[at]) * (o - oracle->output[at]);
    }
    return sum;
}

static double largest_of(const struct tensor *t) {
    double largest = 0;
    for (size_t at = 0; at < t->len * t->size; at++)
        largest = fmax(largest, fabs((double)tensor_row(t, 0, 0, at / t->size)[at % t->size]));
    return largest;
}

/* Outputs are within their bounds of what the numbers that the cache was given would make: those of storing them, and
 * of the class over what is stored. */
static void check_given(const struct held *c, const struct tensor *q, const struct attention_result *r,
                        const struct oracle *held, const struct oracle *given) {
    struct bound_stored k = bound_of_stored(c->type, (double)c->k_scales[0], largest_of(&c->k));
    struct bound_stored v = bound_of_stored(c->type, (double)c->v_scales[0], largest_of(&c->v));
    for (size_t at = 0; at < r->rows * c->v.size; at++) {
        size_t row = at / c->v.size;
        struct bound_row seen = {c->k.size, c->keys, held->score_magnitude[row]};
        double query = 0;
        for (size_t d = 0; d < q->size; d++)
            query += fabs((double)tensor_row(q, 0, 0, row)[d]) / sqrt((double)q->size);
        double bound = bound_of_storing(k, v, given->score_magnitude[row], query, given->magnitude[at]);
        bound += bound_attention(0, &seen, 0) * held->magnitude[at] + (double)FLT_MIN;
        assert_near(given->output[at], (double)tensor_row(&r->o, 0, 0, row)[at % c->v.size], bound);
    }
}

/* Scales that use the type's range: an F8's largest number stands for the largest of the keys, or of the values. */
static void give_range(struct held *c) {
    float largest = c->type == ATTN_F8_E4M3 ? 448.0f : 57344.0f;
    for (size_t h = 0; h < MOST_HEADS; h++) {
        c->k_scales[h] = (float)largest_of(&c->k) / largest;
        c->v_scales[h] = (float)largest_of(&c->v) / largest;
    }
    hold(c);
    guarded_free(c->memory);
    fill(c, true);
}

static void is_near_double(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    double worst[CACHE_TYPES] = {0}, sum[CACHE_TYPES] = {0}, count[CACHE_TYPES] = {0};
    for (size_t i = 0; i < sweep(30, 8) * CACHE_TYPES; i++) {
        size_t which = i % CACHE_TYPES, q_len = random_between(&random, 1, 20);
        size_t size = random_between(&random, 1, 128),
               keys = random_between(&random, q_len, random_below(&random, 4) ? 100 : 700);
        bool in_range = i / CACHE_TYPES % 2;
        if (cache_types[which] == ATTN_BF16)
            continue;
        struct held c = held_new(&random, cache_types[which], TEST_NORMAL, 1, keys, size, 40, false);
        struct tensor q = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, q_len, size, FLUSH_END);
        if (is_f8(c.type) && in_range)
            give_range(&c);
        struct tensor k = dequantised(&c.held_k, &c.key_scales), v = dequantised(&c.held_v, &c.value_scales);
        attn_attention_args args = args_over(&c, &q);
        args.options.causal = 1;
        struct attention_result r = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
        struct oracle held = oracle_over(&c, &q, &k, &v), given = oracle_over(&c, &q, &c.k, &c.v);
        test_case("type %d beside double: %zu rows, %zu keys of size %zu", (int)c.type, q_len, keys, size);
        worst[which] = fmax(worst[which], bounded_error(&c, &r, &held));
        if (!is_f8(c.type) || in_range) {
            check_given(&c, &q, &r, &held, &given);
            sum[which] += squares(&c, &r, &given);
            count[which] += (double)(r.rows * c.v.size);
        }
        oracle_free(&held);
        oracle_free(&given);
        attention_free(&r);
        tensor_free(&q);
        tensor_free(&k);
        tensor_free(&v);
        held_free(&c);
    }
    for (size_t which = 0; which < CACHE_TYPES; which++)
        if (count[which] > 0)
            print_message(
                "  cache of type %d: at most %.2g of the bound off what it holds; root mean square of the distance to "
                "what it was given, of deviation 1: %.2g\n",
                (int)cache_types[which], worst[which], sqrt(sum[which] / count[which]));
}

/* ---- Memory ---- */

/* Keys and values take the bytes of their type, of INT8 and 4 of each key's and each value's scale. */
static void takes_the_bytes_of_its_type(void **state) {
    (void)state;
    attn_cache_config config = {.isa = test_isa(), .batch = 1, .kv_heads = 2, .head_size = 64, .value_size = 96};
    static const size_t bytes[CACHE_TYPES] = {4, 2, 2, 1, 1, 1};
    for (size_t i = 0; i < CACHE_TYPES; i++) {
        size_t less = 0, more = 0, of_scales = cache_types[i] == ATTN_INT8 ? 2 * sizeof(float) : 0;
        config.type = cache_types[i];
        config.capacity = 1024;
        assert_ok(attn_cache_size(&config, &less, NULL));
        config.capacity = 2048;
        assert_ok(attn_cache_size(&config, &more, NULL));
        test_case("type %d", (int)config.type);
        assert_int_equal(1024 * 2 * ((64 + 96) * bytes[i] + of_scales), more - less);
    }
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_the_class_by_the_letter),    cmocka_unit_test(holds_any_number),
        cmocka_unit_test(not_finite_keys_harm_no_other), cmocka_unit_test(is_near_double),
        cmocka_unit_test(takes_the_bytes_of_its_type),
    };
    return test_run(tests);
}
