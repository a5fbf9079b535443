#include "cache_model.h"

#include "ops/rotary.h"
#include "oracle.h"
#include "pages.h"
#include "random_options.h"
#include "typed.h"

/* ---- The model ---- */

static bool is_f8(attn_type type) {
    return type == ATTN_F8_E4M3 || type == ATTN_F8_E5M2;
}

struct model model_new(struct test_random *random, attn_type type, size_t batch, size_t most) {
    static const size_t sizes[] = {1, 2, 3, 7, 8, 15, 16, 17, 20, 33, 64};
    struct model m = {.batch = batch, .most = most, .kv_heads = random_between(random, 1, MODEL_KV_HEADS)};
    m.heads = m.kv_heads * random_between(random, 1, 3);
    m.type = type;
    m.scaled = is_f8(m.type) && random_below(random, 2);
    for (size_t h = 0; h < MODEL_KV_HEADS; h++) {
        m.k_scales[h] = ldexpf(1.0f, (int)random_below(random, 9) - 4);
        m.v_scales[h] = ldexpf(1.0f, (int)random_below(random, 5));
    }
    m.head_size = sizes[random_below(random, sizeof sizes / sizeof *sizes)];
    m.value_size = random_below(random, 2) ? m.head_size : sizes[random_below(random, sizeof sizes / sizeof *sizes)];
    m.k = tensor_new(LAYOUT_BHSD, batch, m.kv_heads, most, m.head_size, FLUSH_END);
    m.v = tensor_new(LAYOUT_BHSD, batch, m.kv_heads, most, m.value_size, FLUSH_END);
    for (size_t b = 0; b < batch; b++) {
        m.room[b] = most;
        m.offsets[b] = (int64_t)random_between(random, MODEL_ROWS, MODEL_ROWS + 20);
    }
    if (m.type != ATTN_INT8 && random_below(random, 3) == 0) /* forks have the same one, and grow beyond `most` */
        m.rotary = draw_rotary(random, 4 * most + 3 * MODEL_ROWS, m.head_size, &m.rotary_memory);
    return m;
}

static void copy_rows(const struct tensor *to, size_t b, size_t first, const struct tensor *from, size_t from_b,
                      size_t from_first, size_t count) {
    for (size_t h = 0; h < to->heads; h++)
        for (size_t i = 0; i < count; i++)
            memcpy(tensor_row(to, b, h, first + i), tensor_row(from, from_b, h, from_first + i),
                   to->size * sizeof(float));
}

struct model model_continue(const struct model *parent, size_t batch, const size_t *sources, size_t len, size_t most) {
    struct model m = *parent;
    m.batch = batch;
    m.most = most;
    m.shared = len;
    m.rotary_memory = NULL; /* the parent's */
    m.k = tensor_new(LAYOUT_BHSD, batch, m.kv_heads, most, m.head_size, FLUSH_END);
    m.v = tensor_new(LAYOUT_BHSD, batch, m.kv_heads, most, m.value_size, FLUSH_END);
    for (size_t b = 0; b < batch; b++) {
        size_t source = sources ? sources[b] : b;
        m.lens[b] = len;
        m.room[b] = most;
        m.offsets[b] = parent->offsets[source];
        copy_rows(&m.k, b, 0, &parent->k, source, 0, len);
        copy_rows(&m.v, b, 0, &parent->v, source, 0, len);
    }
    return m;
}

void model_free(struct model *model) {
    tensor_free(&model->k);
    tensor_free(&model->v);
    guarded_free(model->rotary_memory);
}

attn_cache_config model_config(const struct model *model, size_t capacity) {
    return (attn_cache_config){.isa = test_isa(),
                               .batch = model->batch,
                               .kv_heads = model->kv_heads,
                               .head_size = model->head_size,
                               .value_size = model->value_size,
                               .capacity = capacity,
                               .type = model->type,
                               .k_scales = model->scaled ? model->k_scales : NULL,
                               .v_scales = model->scaled ? model->v_scales : NULL};
}

size_t model_longest(const struct model *model) {
    size_t longest = 0;
    for (size_t b = 0; b < model->batch; b++)
        longest = model->lens[b] > longest ? model->lens[b] : longest;
    return longest;
}

static void check_lengths(const struct model *model, const attn_cache *cache) {
    for (size_t b = 0; b < model->batch; b++)
        assert_int_equal(model->lens[b], attn_cache_length(cache, b));
    assert_int_equal(model_longest(model), attn_cache_length(cache, ATTN_ALL_SEQUENCES));
    assert_int_equal(0, attn_cache_length(cache, model->batch));
}

/* ---- Appending ---- */

static size_t maximum(const size_t *x, size_t count) {
    size_t most = 0;
    for (size_t i = 0; i < count; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

static int all_equal(const size_t *x, size_t count) {
    for (size_t i = 1; i < count; i++)
        if (x[i] != x[0])
            return 0;
    return 1;
}

static enum layout random_layout(struct test_random *random) {
    return (enum layout)random_below(random, LAYOUT_OUTPUTS);
}

/* [batch, heads, len, size] with the rows of the model beyond its lengths; what is beyond lens[b] is poison. */
static struct tensor new_rows(struct test_random *random, const struct model *m, const struct tensor *from,
                              const size_t *lens) {
    struct tensor t = tensor_new(random_layout(random), m->batch, from->heads, maximum(lens, m->batch), from->size,
                                 random_below(random, 2) ? FLUSH_END : FLUSH_START);
    for (size_t b = 0; b < m->batch; b++) {
        copy_rows(&t, b, 0, from, b, m->lens[b], lens[b]);
        for (size_t h = 0; h < t.heads; h++)
            for (size_t i = lens[b]; i < t.len; i++)
                fill_poison(tensor_row(&t, b, h, i), t.size);
    }
    return t;
}

/* The same rows one sequence after the other, [1, heads, total, size], from row cu[0] on. */
static struct tensor new_packed_rows(struct test_random *random, const struct model *m, const struct tensor *from,
                                     const attn_cu_lens *cu) {
    struct tensor t = tensor_new(random_layout(random), 1, from->heads, cu->total, from->size, FLUSH_END);
    for (size_t b = 0; b < m->batch; b++)
        copy_rows(&t, 0, (size_t)cu->cu.i64[b], from, b, m->lens[b], (size_t)(cu->cu.i64[b + 1] - cu->cu.i64[b]));
    return t;
}

/* Cumulative lengths, now and then with rows before the first and after the last sequence. */
static attn_cu_lens cumulate(struct test_random *random, const size_t *lens, size_t batch, int64_t *cu) {
    cu[0] = (int64_t)(random_below(random, 2) * random_below(random, 4));
    for (size_t b = 0; b < batch; b++)
        cu[b + 1] = cu[b] + (int64_t)lens[b];
    return (attn_cu_lens){.cu.i64 = cu, .total = (size_t)cu[batch] + random_below(random, 2) * random_below(random, 4)};
}

/* A row whose largest magnitude is 127 times a power of two, `least` at least, and whose elements are multiples of
 * that: it is the row's scale, and what the row becomes are its own numbers. At most 2^60: no sum overflows before
 * or without the product with the scale. One with a NaN or an infinity becomes NaN. */
static void fit_int8(float *x, size_t n, float least) {
    size_t at = 0;
    int exponent;
    for (size_t j = 0; j < n; j++) {
        if (!isfinite(x[j])) {
            for (size_t i = 0; i < n; i++)
                x[i] = NAN;
            return;
        }
        at = fabsf(x[j]) > fabsf(x[at]) ? j : at;
    }
    frexpf(x[at], &exponent);
    float scale = ldexpf(1.0f, exponent < 67 ? exponent - 7 : 60);
    scale = scale > least ? scale : least;
    for (size_t j = 0; j < n; j++) {
        float q = rintf(x[j] / scale);
        x[j] = (q > 127 ? 127 : q < -127 ? -127 : q) * scale;
    }
    x[at] = x[at] == 0.0f ? 0.0f : copysignf(127 * scale, x[at]);
}

/* Rows that a cache may be given, of a type that holds them: numbers of the cache's type, or any. */
static attn_type fit_row(const struct model *m, float *x, size_t n, float least, attn_type drawn) {
    attn_type given = is_f8(m->type) ? drawn : m->type == ATTN_INT8 ? ATTN_BF16 : m->type;
    if (m->type == ATTN_INT8)
        fit_int8(x, n, least);
    else
        round_floats(given, x, n);
    return given;
}

/* Makes a row what the cache holds of it. */
static void store_row(const struct model *m, float *x, size_t n, float scale) {
    for (size_t j = 0; m->scaled && j < n; j++)
        x[j] /= scale;
    if (m->type != ATTN_INT8)
        round_floats(m->type, x, n);
    for (size_t j = 0; m->scaled && j < n; j++)
        x[j] *= scale;
}

/* The same for the last `count` keys and values of sequence b. */
static void store_rows(struct model *m, size_t b, size_t count) {
    for (size_t h = 0; h < m->kv_heads; h++)
        for (size_t i = m->lens[b] - count; i < m->lens[b]; i++) {
            float *k = tensor_row(&m->k, b, h, i), *v = tensor_row(&m->v, b, h, i);
            if (m->rotary)
                attn_rotary_rotate(attn_table_attention(&attn_kernels_scalar), m->rotary,
                                   (size_t)((int64_t)i + m->offsets[b]), k, m->head_size, k);
            store_row(m, k, m->head_size, m->k_scales[h]);
            store_row(m, v, m->value_size, m->v_scales[h]);
        }
}

void model_append(struct test_random *random, struct model *model, attn_cache *cache, enum test_values values,
                  const size_t *lens) {
    int64_t each[MODEL_BATCH], cu[MODEL_BATCH + 1];
    attn_cache_append_args args = {.len = maximum(lens, model->batch) + random_below(random, 3)};
    attn_error error = {.field = "none"};
    struct tensor k, v;
    attn_type given = ATTN_F32, drawn = random_type(random);
    for (size_t b = 0; b < model->batch; b++) {
        each[b] = (int64_t)lens[b];
        for (size_t h = 0; h < model->kv_heads; h++)
            for (size_t i = model->lens[b]; i < model->lens[b] + lens[b]; i++) {
                random_fill(random, values, tensor_row(&model->k, b, h, i), model->head_size);
                random_fill(random, values, tensor_row(&model->v, b, h, i), model->value_size);
                given = fit_row(model, tensor_row(&model->k, b, h, i), model->head_size, 0x1p-20f, drawn);
                fit_row(model, tensor_row(&model->v, b, h, i), model->value_size, 1.0f, drawn);
            }
    }
    if (random_below(random, 2)) {
        args.cu = cumulate(random, lens, model->batch, cu);
        k = new_packed_rows(random, model, &model->k, &args.cu);
        v = new_packed_rows(random, model, &model->v, &args.cu);
    } else {
        if (all_equal(lens, model->batch) && random_below(random, 2))
            args.len = lens[0];
        else
            args.lens.i64 = each;
        k = new_rows(random, model, &model->k, lens);
        v = new_rows(random, model, &model->v, lens);
    }
    void *memory[2]; /* of k and v in a type that holds them, or in floats of the same numbers */
    args.k = typed_input(&k, random_below(random, 2) ? given : ATTN_F32, FLUSH_END, &memory[0]);
    args.v = typed_input(&v, random_below(random, 2) ? given : ATTN_F32, FLUSH_START, &memory[1]);
    args.rotary = model->rotary;
    args.rotary_offsets.i64 = model->rotary ? model->offsets : NULL;
    assert_ok(attn_cache_append(cache, &args, &error));
    assert_string_equal("none", error.field);
    for (size_t b = 0; b < model->batch; b++) {
        model->lens[b] += lens[b];
        if (is_widened_type(model->type))
            store_rows(model, b, lens[b]);
    }
    check_lengths(model, cache);
    guarded_free(memory[0]);
    guarded_free(memory[1]);
    tensor_free(&k);
    tensor_free(&v);
}

void model_append_some(struct test_random *random, struct model *model, attn_cache *cache, size_t most) {
    size_t lens[MODEL_BATCH], alike = random_below(random, 3) ? SIZE_MAX : random_below(random, most + 1);
    for (size_t b = 0; b < model->batch; b++) {
        size_t room = model->room[b] - model->lens[b], len = alike == SIZE_MAX ? random_below(random, most + 1) : alike;
        lens[b] = len < room ? len : room;
    }
    model_append(random, model, cache, TEST_NORMAL, lens);
}

void model_truncate(struct model *model, attn_cache *cache, size_t sequence, size_t len) {
    attn_error error = {.field = "none"};
    assert_ok(attn_cache_truncate(cache, sequence, len, &error));
    assert_string_equal("none", error.field);
    for (size_t b = 0; b < model->batch; b++)
        if ((sequence == b || sequence == ATTN_ALL_SEQUENCES) && model->lens[b] > len) {
            model->lens[b] = len;
            if (len < model->shared && len + model->most - model->shared < model->room[b])
                model->room[b] = len + model->most - model->shared;
        }
    check_lengths(model, cache);
}

void model_forget(struct model *model, size_t capacity) {
    for (size_t b = 0; b < model->batch; b++)
        if (model->lens[b] > capacity && model->lens[b] - capacity > model->gone[b])
            model->gone[b] = model->lens[b] - capacity;
}

/* ---- Comparing ---- */

struct outputs {
    struct tensor o; /* [1, heads, total, value_size] where queries are packed */
    float *weights, *scores, *log_sum_exp;
};

/* A run with every output, and one with the first alone. */
static struct outputs run(const attn_attention_args *args, enum layout layout) {
    size_t batch = args->q_cu.cu.i64 ? 1 : args->batch, len = args->q_cu.cu.i64 ? args->q_cu.total : args->q_len;
    size_t kv_len = args->cache ? attn_cache_length(args->cache, ATTN_ALL_SEQUENCES) : args->kv_len;
    size_t rows = args->batch * args->heads * args->q_len, bytes = 0;
    struct tensor alone = tensor_new(layout, batch, args->heads, len, args->value_size, FLUSH_END);
    struct outputs r = {.o = tensor_new(layout, batch, args->heads, len, args->value_size, FLUSH_END)};
    attn_attention_args full = *args;
    attn_error error = {.field = "none"};
    full.o = tensor_out(&alone);
    assert_ok(attn_attention_workspace(&full, &bytes, &error));
    void *workspace = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_attention(&full, workspace, bytes, &error));
    guarded_free(workspace);
    full.o = tensor_out(&r.o);
    full.options.weights.data = r.weights = guarded_floats(rows * kv_len, FLUSH_END);
    full.options.scores.data = r.scores = guarded_floats(rows * kv_len, FLUSH_END);
    full.options.log_sum_exp.data = r.log_sum_exp = guarded_floats(rows, FLUSH_END);
    assert_ok(attn_attention_workspace(&full, &bytes, &error));
    workspace = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_attention(&full, workspace, bytes, &error));
    assert_string_equal("none", error.field);
    guarded_free(workspace);
    assert_same_tensor(&r.o, &alone);
    tensor_free(&alone);
    return r;
}

static void outputs_free(struct outputs *r) {
    tensor_free(&r->o);
    guarded_free(r->weights);
    guarded_free(r->scores);
    guarded_free(r->log_sum_exp);
}

/* Sequence `b` of a run over the cache. */
struct part {
    size_t b, row; /* its first query row in packed outputs */
    size_t q_len, kv_len;
    size_t most_rows, most_keys; /* of weights */
};

static void check_untouched(const float *x, size_t count, const char *what) {
    for (size_t i = 0; i < count; i++)
        if (!is_untouched(x + i))
            test_fail("%s beyond the rows of a sequence were written", what);
}

static void compare_part(const struct outputs *expected, const struct outputs *actual, const struct part *part,
                         size_t heads) {
    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < part->most_rows; i++) {
            size_t at = (part->b * heads + h) * part->most_rows + i, one = h * part->q_len + i;
            const float *weights = actual->weights + at * part->most_keys,
                        *scores = actual->scores + at * part->most_keys;
            size_t own = part->kv_len;
            if (i >= part->q_len) {
                check_untouched(weights, part->most_keys, "weights");
                check_untouched(scores, part->most_keys, "scores");
                check_untouched(actual->log_sum_exp + at, 1, "log-sum-exps");
                continue;
            }
            check_no_keys(weights + own, scores + own, part->most_keys - own);
            assert_same_bits(tensor_row(&expected->o, 0, h, i),
                             tensor_row(&actual->o, actual->o.batch == 1 ? 0 : part->b, h, part->row + i),
                             expected->o.size);
            assert_same_bits(expected->log_sum_exp + one, actual->log_sum_exp + at, 1);
            assert_same_bits(expected->weights + one * own, weights, own);
            assert_same_bits(expected->scores + one * own, scores, own);
        }
}

/* The sequence by itself, from the model's tensors. */
static attn_attention_args part_args(const struct model *model, const attn_attention_args *whole,
                                     const struct tensor *q, const struct part *part) {
    attn_attention_args args = *whole;
    args.isa = test_isa();
    args.cache = NULL;
    args.batch = 1;
    args.q_cu = (attn_cu_lens){0};
    args.q_len = part->q_len;
    args.kv_len = part->kv_len;
    args.q.data = tensor_row(q, q->batch == 1 ? 0 : part->b, 0, part->row);
    args.k = tensor_in(&model->k);
    args.k.data = tensor_row(&model->k, part->b, 0, 0);
    args.v = tensor_in(&model->v);
    args.v.data = tensor_row(&model->v, part->b, 0, 0);
    args.options = options_of_sequence(&whole->options, part->b, whole->q_len);
    return args;
}

/* Row 0 of sequence b in the cache's type; free *memory. */
static attn_tensor part_tensor(const struct model *model, const struct tensor *t, size_t b, void **memory) {
    attn_tensor in = typed_input(t, model->type, FLUSH_END, memory);
    size_t element = model->type == ATTN_F32 ? sizeof(float) : sizeof(uint16_t);
    in.data = (const char *)in.data + tensor_offset(t, b, 0, 0) * element;
    return in;
}

/* Over a cache of F32 with the sequence's keys, which are rotated already. */
static struct outputs run_over_floats(const struct model *model, const attn_attention_args *of_part,
                                      const struct part *part) {
    attn_attention_args args = *of_part;
    attn_cache_config config = model_config(model, part->kv_len + 1);
    void *memory;
    config.batch = 1;
    config.type = ATTN_F32;
    config.k_scales = config.v_scales = NULL;
    attn_cache *cache = cache_create(&config, &memory, FLUSH_END);
    cache_append(cache, part->kv_len, args.k, args.v, NULL);
    args.cache = cache;
    struct outputs r = run(&args, LAYOUT_BHSD);
    guarded_free(memory);
    return r;
}

static struct outputs run_part(const struct model *model, const attn_attention_args *whole, const struct tensor *q,
                               const struct part *part) {
    attn_attention_args args = part_args(model, whole, q, part);
    int64_t start = whole->options.starts.i64 ? whole->options.starts.i64[part->b] : 0;
    if (model->gone[part->b]) {
        start = start > (int64_t)model->gone[part->b] ? start : (int64_t)model->gone[part->b];
        args.options.starts.i64 = &start;
    }
    if (is_widened_type(model->type))
        return run_over_floats(model, &args, part);
    void *memory[2];
    args.k = part_tensor(model, &model->k, part->b, &memory[0]);
    args.v = part_tensor(model, &model->v, part->b, &memory[1]);
    struct outputs r = run(&args, LAYOUT_BHSD);
    guarded_free(memory[0]);
    guarded_free(memory[1]);
    return r;
}

/* A call over the cache, with what it points to. */
struct question {
    attn_attention_args args;
    struct drawn_options drawn;
    struct tensor q;
    size_t q_lens[MODEL_BATCH];
    int64_t cu[MODEL_BATCH + 1];
};

static attn_options options_over(const struct model *model, const attn_options *drawn) {
    attn_options options = *drawn;
    options.rotary = model->rotary;
    options.rotary_offsets.i64 = model->rotary ? model->offsets : NULL;
    if (maximum(model->gone, model->batch) > 0) /* the mean needs values that are gone */
        options.empty = ATTN_EMPTY_ZERO;
    return options;
}

/* Queries of the same or of different lengths. */
static void draw_queries(struct test_random *random, struct question *question) {
    attn_attention_args *args = &question->args;
    int packed = random_below(random, 2) != 0;
    for (size_t b = 0; b < args->batch; b++)
        question->q_lens[b] = packed ? random_below(random, args->q_len + 1) : args->q_len;
    if (packed)
        args->q_cu = cumulate(random, question->q_lens, args->batch, question->cu);
    question->q = tensor_random(random, TEST_NORMAL, random_layout(random), packed ? 1 : args->batch, args->heads,
                                packed ? args->q_cu.total : args->q_len, args->head_size, FLUSH_END);
    args->q = tensor_in(&question->q);
}

static void question_draw(struct test_random *random, struct question *question, const struct model *model,
                          const attn_cache *cache) {
    size_t longest = model_longest(model), q_len = random_between(random, 1, random_below(random, 4) ? 6 : MODEL_ROWS);
    attn_attention_args *args = &question->args;
    question->drawn = draw_options(random, model->batch, model->heads, q_len, longest);
    *args = (attn_attention_args){.batch = model->batch, .heads = model->heads, .kv_heads = model->kv_heads};
    args->isa = random_below(random, 2) ? ATTN_ISA_BEST : test_isa();
    args->q_len = q_len;
    args->kv_len = random_below(random, 2) ? longest : 0;
    args->head_size = model->head_size;
    args->value_size = model->value_size;
    args->cache = cache;
    args->options = options_over(model, &question->drawn.options);
    draw_queries(random, question);
    test_case("type=%d batch=%zu heads=%zu kv_heads=%zu q_len=%zu%s longest=%zu sizes=%zu,%zu %s", (int)model->type,
              model->batch, model->heads, model->kv_heads, q_len, args->q_cu.cu.i64 ? " (packed)" : "", longest,
              model->head_size, model->value_size, options_text(&args->options));
}

/* Packed rows that belong to no sequence. */
static void check_other_rows(const struct question *question, const struct outputs *r) {
    const attn_cu_lens *cu = &question->args.q_cu;
    for (size_t row = 0; cu->cu.i64 && row < cu->total; row++)
        for (size_t h = 0; h < r->o.heads; h++)
            if ((int64_t)row < cu->cu.i64[0] || (int64_t)row >= cu->cu.i64[question->args.batch])
                check_untouched(tensor_row(&r->o, 0, h, row), r->o.size, "rows");
}

static struct part part_of(const struct model *model, const struct question *question, size_t b) {
    return (struct part){.b = b,
                         .row = question->args.q_cu.cu.i64 ? (size_t)question->cu[b] : 0,
                         .q_len = question->q_lens[b],
                         .kv_len = model->lens[b],
                         .most_rows = question->args.q_len,
                         .most_keys = model_longest(model)};
}

/* Whether a row of the sequence, masks aside, sees keys that are gone, and has a window to the left or sees no
 * others. */
static int asks_for_what_is_gone(const struct model *model, const struct question *question, size_t b) {
    struct part part = part_of(model, question, b);
    attn_attention_args args = part_args(model, &question->args, &question->q, &part);
    args.options.mask.data = NULL;
    args.options.bias.data = NULL;
    for (size_t i = 0; model->gone[b] && i < part.q_len; i++) {
        int gone = 0, kept = 0;
        for (size_t key = 0; key < part.kv_len; key++)
            *(key < model->gone[b] ? &gone : &kept) |= oracle_sees(&args, 0, 0, i, key);
        if (gone && (args.options.window_left || !kept))
            return 1;
    }
    return 0;
}

/* A ring says that it has lost the keys, and writes nothing. */
static void check_refused(const attn_attention_args *args) {
    struct attention_result r = attention_result_new(args, LAYOUT_BHSD, FLUSH_END);
    attn_attention_args full = *args;
    attn_error error = {.field = "none"};
    size_t bytes = 0;
    full.o = tensor_out(&r.o);
    assert_ok(attn_attention_workspace(&full, &bytes, &error));
    void *workspace = guarded_alloc(bytes, ATTN_ALIGNMENT, FLUSH_END);
    assert_status(ATTN_TOO_SMALL, attn_attention(&full, workspace, bytes, &error));
    assert_string_equal("cache", error.field);
    for (size_t at = 0; at < tensor_count(&r.o); at++)
        assert_true(is_untouched(r.o.data + at));
    guarded_free(workspace);
    attention_free(&r);
}

static int is_refused(const struct model *model, const struct question *question) {
    for (size_t b = 0; b < model->batch; b++)
        if (asks_for_what_is_gone(model, question, b)) {
            check_refused(&question->args);
            return 1;
        }
    return 0;
}

static void compare_parts(struct test_random *random, const struct model *model, const struct question *question) {
    struct outputs whole = run(&question->args, random_layout(random));
    for (size_t b = 0; b < model->batch; b++) {
        struct part part = part_of(model, question, b);
        struct outputs alone = run_part(model, &question->args, &question->q, &part);
        compare_part(&alone, &whole, &part, model->heads);
        outputs_free(&alone);
    }
    check_other_rows(question, &whole);
    outputs_free(&whole);
}

void model_compare(struct test_random *random, const struct model *model, const attn_cache *cache) {
    struct question question;
    check_lengths(model, cache);
    question_draw(random, &question, model, cache);
    int refused = is_refused(model, &question);
    if (refused) { /* then for the keys that are left; a ring that was cut down to keys that it has lost has none */
        question.args.options = options_without_intervals(&question.args.options);
        refused = is_refused(model, &question);
    }
    if (!refused)
        compare_parts(random, model, &question);
    tensor_free(&question.q);
    drawn_options_free(&question.drawn);
}

/* ---- Families ---- */

/* The most keys that a fork has room for beyond those that it shares. */
enum { MORE = 70 };

/* Only that member can be written to; none where `member` is FAMILY. */
static void let_write(const struct family *family, size_t member) {
    for (size_t i = 0; i < family->count; i++)
        pages_protect(family->member[i].slot, family->slot_bytes, i == member ? ACCESS_WRITE : ACCESS_READ);
}

/* Takes a slot for a member of that many bytes, which begins or ends where the slot does. */
static void *take_slot(struct test_random *random, struct family *family, struct member *member, size_t bytes) {
    member->slot = family->slots[family->count++];
    assert_in_range(bytes, 0, family->slot_bytes);
    size_t slack = random_below(random, 2) ? (family->slot_bytes - bytes) / ATTN_ALIGNMENT * ATTN_ALIGNMENT : 0;
    let_write(family, family->count - 1);
    return member->slot + slack;
}

struct family family_new(struct test_random *random, size_t most) {
    struct family family = {.count = 0};
    struct member *root = &family.member[0];
    size_t page = page_size(), bytes = 0;
    attn_error error = {.field = "none"};
    root->model = model_new(random, random_cache_type(random), random_between(random, 1, 3), most + FAMILY * MORE);
    attn_cache_config own = model_config(&root->model, most), largest = model_config(&root->model, root->model.most);
    largest.batch = MODEL_BATCH;
    root->model.most = most; /* there are positions for the keys of all forks */
    for (size_t b = 0; b < root->model.batch; b++)
        root->model.room[b] = most;
    assert_ok(attn_cache_size(&largest, &bytes, &error));
    family.slot_bytes = (bytes + page - 1) / page * page;
    family.arena = guarded_alloc(FAMILY * (family.slot_bytes + page), page, FLUSH_START);
    for (size_t i = 0; i < FAMILY; i++) {
        size_t j = random_below(random, i + 1);
        family.slots[i] = family.slots[j];
        family.slots[j] = family.arena + i * (family.slot_bytes + page);
        pages_protect(family.slots[j] + family.slot_bytes, page, ACCESS_NONE);
    }
    assert_ok(attn_cache_size(&own, &bytes, &error));
    void *memory = take_slot(random, &family, root, bytes);
    assert_ok(attn_cache_create(&own, memory, bytes, &root->cache, &error));
    return family;
}

size_t family_fork(struct test_random *random, struct family *family, size_t parent) {
    struct member *of = &family->member[parent], *member = &family->member[family->count];
    size_t sources[MODEL_BATCH], batch = random_between(random, 1, MODEL_BATCH), len = SIZE_MAX, bytes = 0;
    int identity = random_below(random, 3) == 0;
    attn_error error = {.field = "none"};
    assert_in_range(family->count, 1, FAMILY - 1);
    batch = identity ? of->model.batch : batch;
    for (size_t b = 0; b < batch; b++) {
        sources[b] = identity ? b : random_below(random, of->model.batch);
        len = of->model.lens[sources[b]] < len ? of->model.lens[sources[b]] : len;
    }
    len = random_below(random, 3) ? random_below(random, len + 1) : len / 16 * 16;
    for (size_t b = 0; b < batch; b++)
        of->keep[sources[b]] = len > of->keep[sources[b]] ? len : of->keep[sources[b]];
    size_t most = len + random_between(random, 1, MORE);
    attn_cache_fork_config config = {.parent = of->cache, .batch = batch, .len = len, .capacity = most};
    config.sources = identity ? NULL : sources;
    test_case("fork %zu of member %zu: batch=%zu len=%zu capacity=%zu", family->count, parent, batch, len, most);
    assert_ok(attn_cache_fork_size(&config, &bytes, &error));
    *member = (struct member){.model = model_continue(&of->model, batch, config.sources, len, most)};
    void *memory = take_slot(random, family, member, bytes);
    assert_ok(attn_cache_fork(&config, memory, bytes, &member->cache, &error));
    family_compare(random, family);
    return family->count - 1;
}

void family_append(struct test_random *random, struct family *family, size_t member, enum test_values values,
                   const size_t *lens) {
    test_case("append to member %zu of %zu", member, family->count);
    let_write(family, member);
    model_append(random, &family->member[member].model, family->member[member].cache, values, lens);
    family_compare(random, family);
}

void family_append_some(struct test_random *random, struct family *family, size_t member, size_t most) {
    test_case("append to member %zu of %zu", member, family->count);
    let_write(family, member);
    model_append_some(random, &family->member[member].model, family->member[member].cache, most);
    family_compare(random, family);
}

void family_truncate(struct test_random *random, struct family *family, size_t member, size_t sequence, size_t len) {
    test_case("truncate sequence %zu of member %zu of %zu to %zu", sequence, member, family->count, len);
    let_write(family, member);
    model_truncate(&family->member[member].model, family->member[member].cache, sequence, len);
    family_compare(random, family);
}

void family_truncate_some(struct test_random *random, struct family *family, size_t member) {
    const struct member *m = &family->member[member];
    size_t sequence = random_below(random, 3) ? random_below(random, m->model.batch) : ATTN_ALL_SEQUENCES;
    size_t least = 0, longest = model_longest(&m->model);
    for (size_t b = 0; b < m->model.batch; b++)
        if (sequence == b || sequence == ATTN_ALL_SEQUENCES)
            least = m->keep[b] > least ? m->keep[b] : least;
    longest = sequence == ATTN_ALL_SEQUENCES ? longest : m->model.lens[sequence];
    size_t len = random_between(random, least, longest), near = len / 16 * 16 + random_below(random, 2);
    if (random_below(random, 2) && near >= least && near <= longest)
        len = near;
    family_truncate(random, family, member, sequence, len);
}

void family_compare(struct test_random *random, const struct family *family) {
    let_write(family, FAMILY);
    for (size_t i = 0; i < family->count; i++)
        model_compare(random, &family->member[i].model, family->member[i].cache);
}

void family_free(struct family *family) {
    pages_protect(family->arena, FAMILY * (family->slot_bytes + page_size()), ACCESS_WRITE);
    while (family->count > 0)
        model_free(&family->member[--family->count].model);
    guarded_free(family->arena);
}
