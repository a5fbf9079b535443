/* Problems for the tests of attention, layer and cache: strided tensors between guard pages, calls with workspaces
 * of exactly the size that was asked for. Header only: each test uses some of it. */
#ifndef ATTN_TESTS_PROBLEM_H
#define ATTN_TESTS_PROBLEM_H

#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PROBLEM_API static inline __attribute__((unused))

/* ---- Tensors ---- */

enum layout {
    LAYOUT_BHSD,
    LAYOUT_BSHD,
    LAYOUT_GAPS,         /* [B,H,S,D] with unused floats after each row, head and sequence */
    LAYOUT_ONE_SEQUENCE, /* batch stride 0: for inputs */
    LAYOUT_ONE_HEAD,     /* [B,S,D], head stride 0: for inputs */
    LAYOUT_COUNT,
    LAYOUT_OUTPUTS = LAYOUT_ONE_SEQUENCE
};

/* [batch, heads, len, size]; what lies between elements holds the canary. */
struct tensor {
    float *data;
    size_t batch, heads, len, size;
    size_t batch_stride, head_stride, row_stride;
};

PROBLEM_API size_t tensor_count(const struct tensor *t) {
    if (t->batch == 0 || t->heads == 0 || t->len == 0 || t->size == 0)
        return 0;
    return (t->batch - 1) * t->batch_stride + (t->heads - 1) * t->head_stride + (t->len - 1) * t->row_stride + t->size;
}

PROBLEM_API size_t tensor_offset(const struct tensor *t, size_t batch, size_t head, size_t row) {
    return batch * t->batch_stride + head * t->head_stride + row * t->row_stride;
}

PROBLEM_API float *tensor_row(const struct tensor *t, size_t batch, size_t head, size_t row) {
    return t->data + tensor_offset(t, batch, head, row);
}

PROBLEM_API struct tensor tensor_new(enum layout layout, size_t batch, size_t heads, size_t len, size_t size,
                                     enum flush flush) {
    struct tensor t = {.batch = batch, .heads = heads, .len = len, .size = size};
    size_t gap = layout == LAYOUT_GAPS ? 3 : 0;
    t.row_stride = size + gap;
    t.head_stride = layout == LAYOUT_ONE_HEAD ? 0 : len * t.row_stride + gap;
    t.batch_stride = layout == LAYOUT_ONE_HEAD ? len * t.row_stride : heads * t.head_stride + gap;
    if (layout == LAYOUT_BSHD) {
        t.head_stride = size;
        t.row_stride = heads * size;
        t.batch_stride = len * t.row_stride;
    }
    if (layout == LAYOUT_ONE_SEQUENCE)
        t.batch_stride = 0;
    t.data = guarded_floats(tensor_count(&t), flush);
    return t;
}

PROBLEM_API void tensor_fill(const struct tensor *t, struct test_random *random, enum test_values values) {
    for (size_t b = 0; b < t->batch; b++)
        for (size_t h = 0; h < t->heads; h++)
            for (size_t i = 0; i < t->len; i++)
                random_fill(random, values, tensor_row(t, b, h, i), t->size);
}

PROBLEM_API struct tensor tensor_random(struct test_random *random, enum test_values values, enum layout layout,
                                        size_t batch, size_t heads, size_t len, size_t size, enum flush flush) {
    struct tensor t = tensor_new(layout, batch, heads, len, size, flush);
    tensor_fill(&t, random, values);
    return t;
}

/* A copy of the elements, in a layout of its own. */
PROBLEM_API struct tensor tensor_copy(const struct tensor *t, enum layout layout, enum flush flush) {
    struct tensor copy = tensor_new(layout, t->batch, t->heads, t->len, t->size, flush);
    for (size_t b = 0; b < t->batch; b++)
        for (size_t h = 0; h < t->heads; h++)
            for (size_t i = 0; i < t->len && t->size; i++)
                memcpy(tensor_row(&copy, b, h, i), tensor_row(t, b, h, i), t->size * sizeof(float));
    return copy;
}

PROBLEM_API attn_tensor tensor_in(const struct tensor *t) {
    return (attn_tensor){t->data, ATTN_F32, t->batch_stride, t->head_stride, t->row_stride, 1};
}

PROBLEM_API attn_tensor_out tensor_out(const struct tensor *t) {
    return (attn_tensor_out){t->data, ATTN_F32, t->batch_stride, t->head_stride, t->row_stride, 1};
}

/* The same as [batch, len, size], for one head. */
PROBLEM_API attn_tensor tensor_rows(const struct tensor *t) {
    return (attn_tensor){t->data, ATTN_F32, t->batch_stride, 0, t->row_stride, 1};
}

PROBLEM_API attn_tensor_out tensor_rows_out(const struct tensor *t) {
    return (attn_tensor_out){t->data, ATTN_F32, t->batch_stride, 0, t->row_stride, 1};
}

/* Fails the test where anything but the elements was written. */
PROBLEM_API void tensor_check(const struct tensor *t) {
    size_t count = tensor_count(t);
    unsigned char *element = calloc(count + 1, 1);
    assert_non_null(element);
    for (size_t b = 0; count && b < t->batch; b++)
        for (size_t h = 0; h < t->heads; h++)
            for (size_t i = 0; i < t->len; i++)
                memset(element + tensor_offset(t, b, h, i), 1, t->size);
    for (size_t at = 0; at < count; at++)
        if (!element[at] && !is_untouched(t->data + at))
            test_fail("float %zu, between the elements of a tensor, was written", at);
    free(element);
}

PROBLEM_API void tensor_free(struct tensor *t) {
    tensor_check(t);
    guarded_free(t->data);
    t->data = NULL;
}

#define assert_same_tensor(expected, actual) test_same_tensor(expected, actual, __FILE__, __LINE__)
PROBLEM_API void test_same_tensor(const struct tensor *expected, const struct tensor *actual, const char *file,
                                  int line) {
    if (expected->batch != actual->batch || expected->heads != actual->heads || expected->len != actual->len ||
        expected->size != actual->size)
        test_fail_at(file, line, "tensors of different shapes are compared");
    for (size_t b = 0; b < expected->batch; b++)
        for (size_t h = 0; h < expected->heads; h++)
            for (size_t i = 0; i < expected->len; i++)
                test_same_bits(tensor_row(expected, b, h, i), tensor_row(actual, b, h, i), expected->size, file, line);
}

/* ---- Attention ---- */

/* Everything that attention gives. */
struct attention_result {
    struct tensor o;
    float *weights, *scores, *log_sum_exp;
    size_t rows, kv_len;
};

/* Memory for it. The layout must be one for outputs. Sizes are those of `args`, with a cache its length; packed
 * sequences make a tensor of one sequence. */
PROBLEM_API struct attention_result attention_result_new(const attn_attention_args *args, enum layout layout,
                                                         enum flush flush) {
    struct attention_result r = {.rows = args->batch * args->heads * args->q_len,
                                 .kv_len =
                                     args->cache ? attn_cache_length(args->cache, ATTN_ALL_SEQUENCES) : args->kv_len};
    size_t size = args->value_size ? args->value_size : args->head_size;
    r.o = args->q_cu.cu.i64 ? tensor_new(layout, 1, args->heads, args->q_cu.total, size, flush)
                            : tensor_new(layout, args->batch, args->heads, args->q_len, size, flush);
    r.weights = guarded_floats(r.rows * r.kv_len, flush);
    r.scores = guarded_floats(r.rows * r.kv_len, flush);
    r.log_sum_exp = guarded_floats(r.rows, flush);
    return r;
}

/* Runs with a workspace of exactly the size that was asked for. */
PROBLEM_API void attention_run_into(const attn_attention_args *args, enum flush flush) {
    size_t bytes = 0;
    attn_error error = {.field = "none"};
    assert_ok(attn_attention_workspace(args, &bytes, &error));
    void *workspace = poisoned_alloc(bytes, flush);
    assert_ok(attn_attention(args, workspace, bytes, &error));
    assert_string_equal(error.field, "none");
    guarded_free(workspace);
}

PROBLEM_API struct attention_result attention_run(const attn_attention_args *args, enum layout layout,
                                                  enum flush flush) {
    struct attention_result r = attention_result_new(args, layout, flush);
    attn_attention_args full = *args;
    full.o = tensor_out(&r.o);
    full.options.weights.data = r.weights;
    full.options.scores.data = r.scores;
    full.options.log_sum_exp.data = r.log_sum_exp;
    attention_run_into(&full, flush);
    return r;
}

PROBLEM_API void attention_free(struct attention_result *r) {
    tensor_free(&r->o);
    guarded_free(r->weights);
    guarded_free(r->scores);
    guarded_free(r->log_sum_exp);
}

/* The output of query row `row` of a head of sequence `b`. */
PROBLEM_API float *attention_row(const attn_attention_args *args, const struct attention_result *r, size_t b,
                                 size_t head, size_t row) {
    return args->q_cu.cu.i64 ? tensor_row(&r->o, 0, head, (size_t)args->q_cu.cu.i64[b] + row)
                             : tensor_row(&r->o, b, head, row);
}

#define assert_same_result(expected, actual) test_same_result(expected, actual, __FILE__, __LINE__)
PROBLEM_API void test_same_result(const struct attention_result *expected, const struct attention_result *actual,
                                  const char *file, int line) {
    test_same_tensor(&expected->o, &actual->o, file, line);
    test_same_bits(expected->log_sum_exp, actual->log_sum_exp, expected->rows, file, line);
    test_same_bits(expected->weights, actual->weights, expected->rows * expected->kv_len, file, line);
    test_same_bits(expected->scores, actual->scores, expected->rows * expected->kv_len, file, line);
}

/* A sequence's own rows have weights of +0 and scores of -inf for `count` keys that only longer sequences have. */
PROBLEM_API void check_no_keys(const float *weights, const float *scores, size_t count) {
    for (size_t i = 0; i < count; i++) {
        assert_same_bits(&(float){0}, weights + i, 1);
        assert_same_bits(&(float){-INFINITY}, scores + i, 1);
    }
}

/* ---- Lengths ---- */

/* `count` lengths, most of them between 0 and kv_len, some beyond either end. */
PROBLEM_API int64_t *random_lens(struct test_random *random, size_t count, size_t kv_len, enum flush flush) {
    int64_t *lens = guarded_alloc(count * sizeof *lens, sizeof *lens, flush);
    for (size_t i = 0; i < count; i++)
        switch (random_below(random, 16)) {
        case 0:
            lens[i] = INT64_MIN;
            break;
        case 1:
            lens[i] = INT64_MAX;
            break;
        case 2:
            lens[i] = -(int64_t)random_below(random, 5);
            break;
        default:
            lens[i] = (int64_t)random_below(random, kv_len + 3);
        }
    return lens;
}

/* How many lengths a call reads. */
PROBLEM_API size_t lens_count(attn_valid_kind kind, size_t batch, size_t q_len) {
    return kind == ATTN_VALID_ALL ? 0 : kind == ATTN_VALID_PER_SEQUENCE ? batch : batch * q_len;
}

/* No lengths without a kind. */
PROBLEM_API attn_valid_lens valid_lens(attn_valid_kind kind, const int64_t *lens) {
    return (attn_valid_lens){.kind = kind, .lens.i64 = kind == ATTN_VALID_ALL ? NULL : lens};
}

/* ---- Layer ---- */

enum { LAYER_Q, LAYER_K, LAYER_V, LAYER_O, LAYER_WEIGHTS };

/* A config and its weights, scaled so that products with standard normal inputs are about standard normal. */
struct layer_weights {
    attn_layer_config config;
    float *weight[LAYER_WEIGHTS], *bias[LAYER_WEIGHTS];
};

/* What a config stands for. */
struct layer_sizes {
    size_t kv_heads, head_size, value_size, out_size;
};

PROBLEM_API struct layer_sizes layer_sizes_of(const attn_layer_config *config) {
    struct layer_sizes s = {config->kv_heads, config->head_size, config->value_size, config->out_size};
    s.kv_heads = s.kv_heads ? s.kv_heads : config->heads;
    s.head_size = s.head_size ? s.head_size : config->hidden / config->heads;
    s.value_size = s.value_size ? s.value_size : s.head_size;
    s.out_size = s.out_size ? s.out_size : config->heads * s.head_size;
    return s;
}

/* A config with that head size, said in any of the ways there are, and each other size of its own or the usual one. */
PROBLEM_API void random_layer_sizes(struct test_random *random, attn_layer_config *config, size_t head_size) {
    config->head_size = random_below(random, 2) ? head_size : 0;
    config->hidden = config->head_size && random_below(random, 2) ? 0 : config->heads * head_size;
    config->value_size = random_below(random, 2) ? random_between(random, 1, 40) : 0;
    config->out_size = random_below(random, 2) ? random_between(random, 1, 90) : 0;
}

PROBLEM_API void layer_weight_sizes(const attn_layer_config *config, size_t which, size_t *in, size_t *out) {
    struct layer_sizes s = layer_sizes_of(config);
    const size_t ins[] = {config->query_width, config->key_width, config->value_width, config->heads * s.value_size};
    const size_t outs[] = {config->heads * s.head_size, s.kv_heads * s.head_size, s.kv_heads * s.value_size,
                           s.out_size};
    *in = ins[which];
    *out = outs[which];
}

PROBLEM_API attn_linear *layer_linear(attn_layer_config *config, size_t which) {
    attn_linear *linears[] = {&config->w_q, &config->w_k, &config->w_v, &config->w_o};
    return linears[which];
}

/* Weights for the sizes in `config`; bit i of `biases` says whether weight i has a bias. Stored [in, out]. */
PROBLEM_API struct layer_weights layer_weights_new(struct test_random *random, const attn_layer_config *config,
                                                   unsigned biases) {
    struct layer_weights w = {.config = *config};
    for (size_t which = 0; which < LAYER_WEIGHTS; which++) {
        attn_linear *linear = layer_linear(&w.config, which);
        size_t in, out;
        layer_weight_sizes(config, which, &in, &out);
        w.weight[which] = guarded_floats(in * out, FLUSH_END);
        float range = sqrtf(3.0f / (float)in); /* a uniform number's deviation is 1 / sqrt(3) */
        for (size_t i = 0; i < in * out; i++)
            w.weight[which][i] = random_uniform(random, -range, range);
        if (biases >> which & 1) {
            w.bias[which] = guarded_floats(out, FLUSH_END);
            random_fill(random, TEST_UNIFORM, w.bias[which], out);
        }
        *linear = (attn_linear){.weight = w.weight[which], .in_stride = out, .out_stride = 1, .bias = w.bias[which]};
    }
    return w;
}

PROBLEM_API void layer_weights_free(struct layer_weights *w) {
    for (size_t which = 0; which < LAYER_WEIGHTS; which++) {
        guarded_free(w->weight[which]);
        guarded_free(w->bias[which]);
    }
}

/* A layer in guarded memory of the exact size; free *memory. */
PROBLEM_API attn_layer *layer_create(const attn_layer_config *config, void **memory, enum flush flush) {
    attn_layer *layer = NULL;
    size_t bytes = 0;
    assert_ok(attn_layer_size(config, &bytes, NULL));
    *memory = poisoned_alloc(bytes, flush);
    assert_ok(attn_layer_create(config, *memory, bytes, &layer, NULL));
    return layer;
}

struct layer_result {
    struct tensor y;
    float *weights, *log_sum_exp;
    size_t rows, kv_len; /* rows of weights */
};

/* A forward pass with every output asked for. */
PROBLEM_API struct layer_result layer_run(const attn_layer *layer, const attn_layer_config *config,
                                          const attn_layer_args *args, enum layout layout, enum flush flush) {
    struct layer_result r = {.rows = args->batch * config->heads * args->q_len,
                             .kv_len = args->cache ? attn_cache_length(args->cache, ATTN_ALL_SEQUENCES) : args->kv_len};
    attn_layer_args full = *args;
    attn_error error = {.field = "none"};
    size_t bytes = 0;
    r.y = tensor_new(layout, args->batch, 1, args->q_len, layer_sizes_of(config).out_size, flush);
    r.weights = guarded_floats(r.rows * r.kv_len, flush);
    r.log_sum_exp = guarded_floats(r.rows, flush);
    full.y = tensor_rows_out(&r.y);
    full.options.weights.data = r.weights;
    full.options.log_sum_exp.data = r.log_sum_exp;
    assert_ok(attn_layer_workspace(layer, &full, &bytes, &error));
    void *workspace = poisoned_alloc(bytes, flush);
    assert_ok(attn_layer_forward(layer, &full, workspace, bytes, &error));
    assert_string_equal(error.field, "none");
    guarded_free(workspace);
    return r;
}

PROBLEM_API void layer_result_free(struct layer_result *r) {
    tensor_free(&r->y);
    guarded_free(r->weights);
    guarded_free(r->log_sum_exp);
}

#define assert_same_layer_result(expected, actual) test_same_layer_result(expected, actual, __FILE__, __LINE__)
PROBLEM_API void test_same_layer_result(const struct layer_result *expected, const struct layer_result *actual,
                                        const char *file, int line) {
    test_same_tensor(&expected->y, &actual->y, file, line);
    test_same_bits(expected->log_sum_exp, actual->log_sum_exp, expected->rows, file, line);
    test_same_bits(expected->weights, actual->weights, expected->rows * expected->kv_len, file, line);
}

/* ---- Cache ---- */

/* An empty cache in guarded memory of the exact size; free *memory. */
PROBLEM_API attn_cache *cache_create(const attn_cache_config *config, void **memory, enum flush flush) {
    attn_cache *cache = NULL;
    size_t bytes = 0;
    assert_ok(attn_cache_size(config, &bytes, NULL));
    *memory = poisoned_alloc(bytes, flush);
    assert_ok(attn_cache_create(config, *memory, bytes, &cache, NULL));
    assert_int_equal(0, attn_cache_length(cache, ATTN_ALL_SEQUENCES));
    return cache;
}

/* Appends `len` rows of keys and values to every sequence. */
PROBLEM_API void cache_append(attn_cache *cache, size_t len, attn_tensor k, attn_tensor v,
                              const attn_parallel *parallel) {
    attn_cache_append_args args = {.len = len, .k = k, .v = v, .parallel = parallel};
    attn_error error = {.field = "none"};
    assert_ok(attn_cache_append(cache, &args, &error));
    assert_string_equal(error.field, "none");
}

/* The rows from `begin` on. */
PROBLEM_API attn_tensor tensor_from(const struct tensor *t, size_t begin) {
    attn_tensor in = tensor_in(t);
    in.data = (const float *)in.data + begin * t->row_stride;
    return in;
}

PROBLEM_API attn_tensor rows_from(const struct tensor *t, size_t begin) {
    attn_tensor rows = tensor_rows(t);
    rows.data = (const float *)rows.data + begin * t->row_stride;
    return rows;
}

#endif
