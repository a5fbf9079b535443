/* Attention over few keys: one ISA against the reference kernels that the general path is made of. */
#include "dispatch.h"
#include "flags.h"
#include "types.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct attn_small_kernel *kernel(void) {
    return attn_table_small(test_table());
}

struct shape {
    size_t heads, group, rows, keys, head_size, value_size;
    size_t row_gap, head_gap; /* elements after each row and each head */
    bool heads_inside;        /* rows of one head lie heads apart: [rows][heads][size] */
    enum flush flush;
    attn_type q, kv, o;
    enum attn_class arithmetic;
};

/* One tensor, [heads][rows][size] or [rows][heads][size], exactly as large as described; and the same of floats. */
struct tensor {
    attn_type type;
    char *data;
    float *floats;
    size_t heads, rows, size, head_stride, row_stride;
};

static struct tensor new_tensor(const struct shape *s, attn_type type, size_t heads, size_t rows, size_t size) {
    struct tensor t = {.type = type, .heads = heads, .rows = rows, .size = size};
    if (s->heads_inside) {
        t.head_stride = size + s->row_gap;
        t.row_stride = heads * t.head_stride + s->head_gap;
    } else {
        t.row_stride = size + s->row_gap;
        t.head_stride = rows * t.row_stride + s->head_gap;
    }
    size_t count = (heads - 1) * t.head_stride + (rows - 1) * t.row_stride + size, element = attn_type_size(type);
    t.data = guarded_alloc(count * element, element, s->flush);
    t.floats = malloc(count * sizeof *t.floats);
    assert_non_null(t.floats);
    return t;
}

static void free_tensor(struct tensor *t) {
    guarded_free(t->data);
    free(t->floats);
}

static size_t row_offset(const struct tensor *t, size_t head, size_t row) {
    return head * t->head_stride + row * t->row_stride;
}

static float *row_of(const struct tensor *t, size_t head, size_t row) {
    return t->floats + row_offset(t, head, row);
}

static char *data_of(const struct tensor *t, size_t head, size_t row) {
    return t->data + row_offset(t, head, row) * attn_type_size(t->type);
}

/* Both are the numbers of the type that the floats are nearest to. */
static void round_tensor(const struct tensor *t) {
    const struct attn_convert_kernel *convert = attn_table_convert(&attn_kernels_scalar);
    for (size_t h = 0; h < t->heads; h++)
        for (size_t i = 0; i < t->rows; i++) {
            convert->narrow(t->type, t->size, row_of(t, h, i), data_of(t, h, i));
            convert->widen(t->type, t->size, data_of(t, h, i), row_of(t, h, i));
        }
}

static void fill(struct test_random *random, const struct tensor *t, enum test_values values) {
    for (size_t h = 0; h < t->heads; h++)
        for (size_t i = 0; i < t->rows; i++)
            random_fill(random, values, row_of(t, h, i), t->size);
}

struct problem {
    struct shape shape;
    float scale;
    struct tensor q, k, v;
    uint32_t *hi; /* NULL: every row sees every key */
};

static struct problem new_problem(struct test_random *random, const struct shape *s, enum test_values values) {
    struct problem p = {.shape = *s, .scale = values == TEST_NORMAL ? 1.0f / sqrtf((float)s->head_size) : 0.37f};
    p.q = new_tensor(s, s->q, s->heads, s->rows, s->head_size);
    p.k = new_tensor(s, s->kv, s->heads / s->group, s->keys, s->head_size);
    p.v = new_tensor(s, s->kv, s->heads / s->group, s->keys, s->value_size);
    fill(random, &p.q, values);
    fill(random, &p.k, values);
    fill(random, &p.v, values);
    return p;
}

static void free_problem(struct problem *p) {
    free_tensor(&p->q);
    free_tensor(&p->k);
    free_tensor(&p->v);
    guarded_free(p->hi);
}

static size_t visible(const struct problem *p, size_t row) {
    return p->hi ? p->hi[row] : p->shape.keys;
}

/* ---- The general path, one row at a time ---- */

/* out[n] = a[k] times element [p][j] of b at p * k_stride + j * n_stride. */
static void reference_product(enum attn_class arithmetic, size_t n, size_t k, const float *a, const float *b,
                              size_t k_stride, size_t n_stride, float *out) {
    const struct attn_gemm_kernel *gemm = attn_gemm_find(&attn_kernels_scalar, arithmetic);
    size_t element = attn_type_size(gemm->b.type);
    char *source = malloc(n * k * element + 1), *packed = malloc(n * (k + 1) * element + 1);
    assert_non_null(source);
    assert_non_null(packed);
    for (size_t i = 0; i < n * k; i++)
        attn_table_convert(&attn_kernels_scalar)
            ->narrow(gemm->b.type, 1, b + i % k * k_stride + i / k * n_stride, source + i * element);
    struct attn_panels panels = {packed, 1, (k + 1) * element};
    gemm->pack(&(struct attn_pack_args){
        .k = k, .n = n, .b = source, .k_stride = element, .n_stride = k * element, .packed = panels});
    gemm->run(&(struct attn_gemm_args){.m = 1, .n = n, .k = k, .a = a, .b = panels, .c = out});
    free(source);
    free(packed);
}

/* Logits become probabilities. Returns the inverse of their sum. */
static float reference_softmax(const struct problem *p, size_t n, float *scores, size_t stride) {
    const struct attn_attention_kernel *attention = attn_table_attention(&attn_kernels_scalar);
    uint32_t lo = 0, hi = (uint32_t)n;
    float max = -INFINITY, sum, rescale, lanes[ATTN_LANES] = {0};
    struct attn_online_softmax_args args = {.rows = 1,
                                            .scores = scores,
                                            .score_stride = stride,
                                            .lo = &lo,
                                            .hi = &hi,
                                            .begin = 0,
                                            .end = stride,
                                            .max = &max,
                                            .lanes = lanes,
                                            .rescale = &rescale,
                                            .scale = p->scale};
    if (p->shape.arithmetic == ATTN_CLASS_BF16)
        attn_kernels_scalar.bf16->online_softmax(&args);
    else
        attention->online_softmax(&args);
    attention->sum(1, lanes, &sum);
    return sum == 0.0f ? 0.0f : 1.0f / sum;
}

/* o[value_size], as numbers of o's type. */
static void expect_row(const struct problem *p, size_t h, size_t row, float *o) {
    const struct attn_attention_kernel *attention = attn_table_attention(&attn_kernels_scalar);
    const struct attn_convert_kernel *convert = attn_table_convert(&attn_kernels_scalar);
    const struct shape *s = &p->shape;
    size_t n = visible(p, row), kv_head = h / s->group;
    float q[ATTN_SMALL_SIZE], scores[(ATTN_SMALL_KEYS + 15) / 16 * 16];
    if (s->arithmetic == ATTN_CLASS_BF16)
        convert->round_bf16(s->head_size, row_of(&p->q, h, row), q);
    else
        attention->scale(1, s->head_size, row_of(&p->q, h, row), 0, p->scale, q, 0);
    reference_product(s->arithmetic, n, s->head_size, q, row_of(&p->k, kv_head, 0), 1, p->k.row_stride, scores);
    float inverse = reference_softmax(p, n, scores, sizeof scores / sizeof *scores);
    reference_product(s->arithmetic, s->value_size, n, scores, row_of(&p->v, kv_head, 0), p->v.row_stride, 1, o);
    attention->normalize(1, s->value_size, o, 0, &inverse, o, 0);
    for (size_t j = 0; j < s->value_size; j++) {
        char typed[sizeof(float)];
        convert->narrow(s->o, 1, o + j, typed);
        convert->widen(s->o, 1, typed, o + j);
    }
}

/* ---- The check ---- */

/* What instructions for F16 may raise: the reference converts with integers. */
static int flags_of_types(const struct shape *s) {
    int from = s->q == ATTN_F16 || s->kv == ATTN_F16 ? FE_INVALID : 0;
    return s->o == ATTN_F16 ? FE_INVALID | FE_OVERFLOW : from;
}

/* What the reference raises, and what it would if every row saw every key: logits that a row does not see may be
 * computed. */
static int reference_flags(const struct problem *p, const struct attn_small_args *args) {
    const struct attn_small_kernel *reference = attn_table_small(&attn_kernels_scalar);
    struct tensor o = new_tensor(&p->shape, p->shape.o, p->shape.heads, p->shape.rows, p->shape.value_size);
    struct attn_small_args own = *args;
    own.o = o.data;
    own.scratch = guarded_alloc(reference->scratch_bytes, ATTN_ALIGNMENT, FLUSH_END);
    flags_clear();
    reference->run(&own);
    own.hi = NULL;
    reference->run(&own);
    int flags = flags_raised();
    guarded_free(own.scratch);
    free_tensor(&o);
    return flags;
}

/* A row of o, and what lies between it and the next one. */
static void check_row(const struct problem *p, const struct tensor *o, const struct tensor *untouched, size_t h,
                      size_t i) {
    const struct shape *s = &p->shape;
    size_t element = attn_type_size(s->o), bytes = s->value_size * element;
    float *expected = malloc(s->value_size * sizeof *expected);
    assert_non_null(expected);
    expect_row(p, h, i, expected);
    attn_table_convert(&attn_kernels_scalar)->widen(s->o, s->value_size, data_of(o, h, i), row_of(o, h, i));
    assert_same_bits(expected, row_of(o, h, i), s->value_size);
    if (s->heads_inside ? h + 1 < s->heads : i + 1 < s->rows)
        assert_memory_equal(data_of(untouched, h, i) + bytes, data_of(o, h, i) + bytes, s->row_gap * element);
    free(expected);
}

static void check(const struct problem *p) {
    const struct shape *s = &p->shape;
    struct tensor o = new_tensor(s, s->o, s->heads, s->rows, s->value_size);
    struct tensor untouched = new_tensor(s, s->o, s->heads, s->rows, s->value_size);
    round_tensor(&p->q);
    round_tensor(&p->k);
    round_tensor(&p->v);
    void *scratch = guarded_alloc(kernel()->scratch_bytes, ATTN_ALIGNMENT, FLUSH_END);
    struct attn_small_args args = {.arithmetic = s->arithmetic,
                                   .q_type = s->q,
                                   .kv_type = s->kv,
                                   .o_type = s->o,
                                   .heads = s->heads,
                                   .group = s->group,
                                   .rows = s->rows,
                                   .keys = s->keys,
                                   .hi = p->hi,
                                   .head_size = s->head_size,
                                   .value_size = s->value_size,
                                   .scale = p->scale,
                                   .q = p->q.data,
                                   .k = p->k.data,
                                   .v = p->v.data,
                                   .q_head_stride = p->q.head_stride,
                                   .q_row_stride = p->q.row_stride,
                                   .k_head_stride = p->k.head_stride,
                                   .k_row_stride = p->k.row_stride,
                                   .v_head_stride = p->v.head_stride,
                                   .v_row_stride = p->v.row_stride,
                                   .o = o.data,
                                   .o_head_stride = o.head_stride,
                                   .o_row_stride = o.row_stride,
                                   .scratch = scratch};
    int allowed = reference_flags(p, &args) | flags_of_types(s);
    flags_clear();
    kernel()->run(&args);
    assert_flags(flags_raised(), allowed);
    for (size_t h = 0; h < s->heads; h++)
        for (size_t i = 0; i < s->rows; i++)
            check_row(p, &o, &untouched, h, i);
    guarded_free(scratch);
    free_tensor(&o);
    free_tensor(&untouched);
}

/* Floats every other time; else any types of a class that the kernel has. */
static void draw_types(struct test_random *random, struct shape *s) {
    static const attn_type types[] = {ATTN_F32, ATTN_F16, ATTN_BF16};
    s->q = s->kv = s->o = ATTN_F32;
    s->arithmetic = ATTN_CLASS_F32;
    if (random_below(random, 2))
        return;
    s->q = types[random_below(random, 3)];
    s->o = types[random_below(random, 3)];
    s->kv = types[random_below(random, kernel()->has_bf16 ? 3 : 2)];
    s->arithmetic = s->kv == ATTN_BF16 ? ATTN_CLASS_BF16 : ATTN_CLASS_F32;
}

static void say(const struct shape *s, enum test_values values) {
    test_case("q of type %d, k and v %d, o %d, heads=%zu group=%zu rows=%zu keys=%zu head_size=%zu value_size=%zu "
              "gaps=%zu,%zu inside=%d flush=%d values=%d",
              (int)s->q, (int)s->kv, (int)s->o, s->heads, s->group, s->rows, s->keys, s->head_size, s->value_size,
              s->row_gap, s->head_gap, (int)s->heads_inside, (int)s->flush, (int)values);
}

/* Ascending as under causality, or any, empty rows among them. */
static void hide_keys(struct test_random *random, struct problem *p, bool causal) {
    size_t rows = p->shape.rows, keys = p->shape.keys;
    p->hi = guarded_alloc(rows * sizeof *p->hi, sizeof *p->hi, p->shape.flush);
    for (size_t i = 0; i < rows; i++)
        p->hi[i] = (uint32_t)(causal ? (i + 1) * keys / rows : random_below(random, keys + 1));
}

static void equals_the_general_path_on_every_rows_and_keys(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t keys = 1; keys <= ATTN_SMALL_KEYS; keys++)
        for (size_t rows = 1; rows <= 35; rows += test_quick() ? random_between(&random, 1, 12) : 1) {
            struct shape s = {.heads = 2,
                              .group = 1 + keys % 2,
                              .rows = rows,
                              .keys = keys,
                              .head_size = 5,
                              .value_size = 3,
                              .flush = rows % 2 ? FLUSH_START : FLUSH_END};
            draw_types(&random, &s);
            say(&s, TEST_NORMAL);
            struct problem p = new_problem(&random, &s, TEST_NORMAL);
            check(&p);
            free_problem(&p);
        }
}

static void equals_the_general_path_on_every_size(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t size = 1; size <= ATTN_SMALL_SIZE; size += test_quick() ? random_between(&random, 1, 6) : 1)
        for (size_t i = 0; i < 4; i++) {
            struct shape s = {.heads = 2,
                              .group = 1,
                              .rows = random_between(&random, 1, 9),
                              .keys = random_between(&random, 1, ATTN_SMALL_KEYS),
                              .head_size = i % 2 ? size : random_between(&random, 1, ATTN_SMALL_SIZE),
                              .value_size = i % 2 ? random_between(&random, 1, 300) : size,
                              .row_gap = i / 2 * random_below(&random, 20),
                              .flush = (size + i) % 2 ? FLUSH_START : FLUSH_END};
            draw_types(&random, &s);
            say(&s, TEST_NORMAL);
            struct problem p = new_problem(&random, &s, TEST_NORMAL);
            if (i == 3)
                hide_keys(&random, &p, true);
            check(&p);
            free_problem(&p);
        }
}

static struct shape random_shape(struct test_random *random) {
    size_t group = random_between(random, 1, 3);
    return (struct shape){.heads = group * random_between(random, 1, 3),
                          .group = group,
                          .rows = random_between(random, 1, 20),
                          .keys = random_between(random, 1, ATTN_SMALL_KEYS),
                          .head_size = random_between(random, 1, 40),
                          .value_size = random_between(random, 1, 40),
                          .row_gap = random_below(random, 2) * random_below(random, 20),
                          .head_gap = random_below(random, 2) * random_below(random, 20),
                          .heads_inside = random_below(random, 2),
                          .flush = random_below(random, 2) ? FLUSH_START : FLUSH_END};
}

static void equals_the_general_path_on_any_values(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const enum test_values values[] = {TEST_NORMAL, TEST_NASTY, TEST_WILD};
    for (size_t i = 0; i < (test_quick() ? 60 : 3000); i++) {
        struct shape s = random_shape(&random);
        draw_types(&random, &s);
        say(&s, values[i % 3]);
        struct problem p = new_problem(&random, &s, values[i % 3]);
        if (i % 4)
            hide_keys(&random, &p, i % 4 == 1);
        check(&p);
        free_problem(&p);
    }
}

/* Logits of one special value each: every query is 1, every key has one element. */
static void equals_the_general_path_on_special_logits(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const float values[] = {-INFINITY, INFINITY, NAN, -FLT_MAX, FLT_MAX, 0.0f, -0.0f, -103.5f, 88.0f};
    size_t count = sizeof values / sizeof *values;
    for (size_t pair = 0; pair < count * count; pair++) {
        struct shape s = {.heads = 1,
                          .group = 1,
                          .rows = 5,
                          .keys = random_between(&random, 1, ATTN_SMALL_KEYS),
                          .head_size = 1,
                          .value_size = 7,
                          .flush = FLUSH_END};
        draw_types(&random, &s);
        struct problem p = new_problem(&random, &s, TEST_NORMAL);
        test_case("logits of %g and %g, keys=%zu, q of type %d, k and v %d, o %d", (double)values[pair / count],
                  (double)values[pair % count], s.keys, (int)s.q, (int)s.kv, (int)s.o);
        p.scale = 1.0f;
        for (size_t i = 0; i < s.rows; i++)
            *row_of(&p.q, 0, i) = 1.0f;
        for (size_t c = 0; c < s.keys; c++)
            *row_of(&p.k, 0, c) = values[random_below(&random, 2) ? pair / count : pair % count];
        check(&p);
        free_problem(&p);
    }
}

/* Products around 2^126 times a denormal scale: class BF16 takes that for zero in products alone. */
static void equals_the_general_path_with_a_denormal_scale(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < 40; i++) {
        struct shape s = random_shape(&random);
        s.head_size = 1;
        draw_types(&random, &s);
        say(&s, TEST_NORMAL);
        struct problem p = new_problem(&random, &s, TEST_NORMAL);
        p.scale = 0x1p-127f;
        for (size_t h = 0; h < s.heads; h++)
            for (size_t row = 0; row < s.rows; row++)
                *row_of(&p.q, h, row) = 0x1p63f;
        for (size_t h = 0; h < s.heads / s.group; h++)
            for (size_t c = 0; c < s.keys; c++)
                *row_of(&p.k, h, c) *= 0x1p63f;
        check(&p);
        free_problem(&p);
    }
}

/* One value is the negative number nearest to 0 that products take for one, which the division underflows; the others
 * are -0. All weigh alike. */
static void negative_outputs_that_underflow(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t size = 1; size <= 70; size++)
        for (size_t rows = 1; rows <= 9; rows += 4) {
            struct shape s = {.heads = 1, .group = 1, .rows = rows, .keys = 3, .head_size = 1, .value_size = size};
            draw_types(&random, &s);
            say(&s, TEST_NORMAL);
            float least = s.arithmetic == ATTN_CLASS_BF16 ? -FLT_MIN : s.kv == ATTN_F16 ? -0x1p-24f : -FLT_TRUE_MIN;
            struct problem p = new_problem(&random, &s, TEST_NORMAL);
            for (size_t c = 0; c < s.keys; c++) {
                *row_of(&p.k, 0, c) = 0.0f;
                for (size_t j = 0; j < size; j++)
                    row_of(&p.v, 0, c)[j] = c == j % s.keys ? least : -0.0f;
            }
            check(&p);
            free_problem(&p);
        }
}

/* Keys and values that a row does not see may be NaN or +inf: no bit of the row changes. Those that no row sees may
 * lie on a page that faults. */
static void hidden_keys_reach_no_row(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < (test_quick() ? 20 : 300); i++) {
        struct shape s = random_shape(&random);
        s.group = s.heads;
        draw_types(&random, &s);
        say(&s, TEST_NORMAL);
        struct problem p = new_problem(&random, &s, TEST_NORMAL);
        hide_keys(&random, &p, false);
        size_t odd = random_below(&random, s.keys);
        row_of(&p.k, 0, odd)[random_below(&random, s.head_size)] = i % 4 < 2 ? NAN : INFINITY;
        row_of(&p.v, 0, odd)[random_below(&random, s.value_size)] = i % 2 ? INFINITY : NAN;
        check(&p);
        for (size_t row = 0; row < s.rows; row++) {
            float *expected = malloc(s.value_size * sizeof(float));
            assert_non_null(expected);
            expect_row(&p, 0, row, expected);
            for (size_t j = 0; j < s.value_size; j++)
                assert_true(p.hi[row] > odd ? i % 4 >= 2 || isnan(expected[j]) : isfinite(expected[j]));
            free(expected);
        }
        free_problem(&p);
    }
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_general_path_on_every_rows_and_keys),
        cmocka_unit_test(equals_the_general_path_on_every_size),
        cmocka_unit_test(equals_the_general_path_on_any_values),
        cmocka_unit_test(equals_the_general_path_on_special_logits),
        cmocka_unit_test(equals_the_general_path_with_a_denormal_scale),
        cmocka_unit_test(negative_outputs_that_underflow),
        cmocka_unit_test(hidden_keys_reach_no_row),
    };
    return test_run(tests);
}
