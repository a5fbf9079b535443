/* The rotary embedding: rotated queries and keys against the formula in double precision, and attention with it as
 * attention over queries and keys that were rotated before, bit by bit. */
#include "attention_problem.h"
#include "ops/rotary.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>

#include "arithmetic.h"

enum { LARGEST_HEAD = 128 };

/* ---- Tables ---- */

struct table {
    attn_rotary_config config;
    attn_rotary *rotary;
    void *memory;
    double *frequencies;
};

/* Any base, pairing and number of elements up to `head_size`; every third with frequencies of its own. */
static struct table table_new(struct test_random *random, size_t index, size_t positions, size_t head_size) {
    static const double bases[] = {0, 10000, 500000, 2, 1, 0.5};
    struct table t = {.config = {.positions = positions, .pairs = (attn_rotary_pairs)(index % 2)}};
    size_t pairs = head_size / 2, bytes = 0;
    attn_error error = {.field = "none"};
    t.config.dims = 2 * (random_below(random, 2) ? pairs : random_between(random, 1, pairs));
    t.config.base = bases[random_below(random, sizeof bases / sizeof *bases)];
    if (index % 3 == 2) {
        t.frequencies = guarded_alloc(t.config.dims / 2 * sizeof(double), sizeof(double), FLUSH_END);
        for (size_t i = 0; i < t.config.dims / 2; i++)
            t.frequencies[i] = (double)random_uniform(random, -2.0f, 2.0f) * (i % 4 ? 1 : 100);
        t.config.frequencies = t.frequencies;
        t.config.base = 0;
    }
    assert_ok(attn_rotary_size(&t.config, &bytes, &error));
    t.memory = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_rotary_create(&t.config, t.memory, bytes, &t.rotary, &error));
    assert_string_equal(error.field, "none");
    return t;
}

static void table_free(struct table *t) {
    guarded_free(t->memory);
    guarded_free(t->frequencies);
}

static double angle(const attn_rotary_config *config, size_t pair, double position) {
    double base = config->base != 0 ? config->base : 10000;
    return position *
           (config->frequencies ? config->frequencies[pair] : pow(base, -2 * (double)pair / (double)config->dims));
}

static size_t first_of_pair(const attn_rotary_config *config, size_t pair) {
    return config->pairs == ATTN_ROTARY_HALVES ? pair : 2 * pair;
}

static size_t second_of_pair(const attn_rotary_config *config, size_t pair) {
    return config->pairs == ATTN_ROTARY_HALVES ? pair + config->dims / 2 : 2 * pair + 1;
}

/* ---- Rotated elements, read off as scores ---- */

/* Head c of `head_size` is the unit vector c: its product with a vector is element c, as all else is multiplied by
 * 0. */
static float *unit_vectors(size_t head_size) {
    float *units = guarded_floats(head_size * head_size, FLUSH_END);
    for (size_t i = 0; i < head_size * head_size; i++)
        units[i] = i / head_size == i % head_size;
    return units;
}

/* Raw scores [head_size, q_len, kv_len] of what `args` says in queries and keys. */
static float *run_scores(attn_attention_args args) {
    const float value = 1;
    size_t rows = args.head_size * args.q_len;
    float *scores = guarded_floats(rows * args.kv_len, FLUSH_END), *o = guarded_floats(rows, FLUSH_END);
    args.batch = 1;
    args.heads = args.head_size;
    args.value_size = 1;
    args.scale = 1;
    args.v = (attn_tensor){&value, ATTN_F32, 0, 0, 0, 1};
    args.o = (attn_tensor_out){o, ATTN_F32, rows, args.q_len, 1, 1};
    args.options.scores.data = scores;
    attention_run_into(&args, FLUSH_END);
    guarded_free(o);
    return scores;
}

/* rotated[i][c]: element c of the query x at position first + i. There is one key, at position 0, where a rotation
 * changes nothing. */
static void rotate_queries(attn_isa isa, const attn_rotary *rotary, const float *x, size_t head_size, size_t first,
                           size_t rows, float *rotated) {
    float *units = unit_vectors(head_size);
    attn_attention_args args = {.isa = isa, .q_len = rows, .kv_len = 1, .head_size = head_size};
    args.q = (attn_tensor){x, ATTN_F32, head_size, 0, 0, 1};
    args.k = (attn_tensor){units, ATTN_F32, 0, head_size, 0, 1};
    args.options.causal = 1;
    args.options.position = ATTN_POSITION_OFFSET;
    args.options.position_offset = (int64_t)first;
    args.options.rotary = rotary;
    float *scores = run_scores(args);
    for (size_t i = 0; i < rows * head_size; i++)
        rotated[i] = scores[i % head_size * rows + i / head_size];
    guarded_free(scores);
    guarded_free(units);
}

/* rotated[j][c]: element c of the key x at index j. There are as many rows as keys, so that the first row is at
 * position 0; it sees all keys. */
static void rotate_keys(attn_isa isa, const attn_rotary *rotary, const float *x, size_t head_size, size_t keys,
                        float *rotated) {
    float *units = unit_vectors(head_size);
    attn_attention_args args = {.isa = isa, .q_len = keys, .kv_len = keys, .head_size = head_size};
    args.q = (attn_tensor){units, ATTN_F32, 0, head_size, 0, 1};
    args.k = (attn_tensor){x, ATTN_F32, head_size, 0, 0, 1};
    args.options.rotary = rotary;
    float *scores = run_scores(args);
    for (size_t j = 0; j < keys * head_size; j++)
        rotated[j] = scores[j % head_size * keys * keys + j / head_size];
    guarded_free(scores);
    guarded_free(units);
}

/* ---- The formula ----
 *
 * Sine and cosine are within 1 ULP of a reduced angle that is rounded to a float: 0.75 units of FLT_EPSILON. The
 * element's product and fused sum round twice more, by half a unit of |x| + |partner| at most. The angle in double
 * precision is off by some units of its own last place, and that much are sine and cosine. */
static void check_formula(const struct table *t, const float *x, size_t head_size, size_t first, size_t rows,
                          const float *rotated) {
    for (size_t i = 0; i < rows; i++) {
        const float *y = rotated + i * head_size;
        assert_same_bits(x + t->config.dims, y + t->config.dims, head_size - t->config.dims);
        for (size_t pair = 0; pair < t->config.dims / 2; pair++) {
            size_t one = first_of_pair(&t->config, pair), two = second_of_pair(&t->config, pair);
            double a = angle(&t->config, pair, (double)(first + i)), x1 = (double)x[one], x2 = (double)x[two];
            double bound = (2 * FLT_EPSILON + 0x1p-50 * fabs(a)) * (fabs(x1) + fabs(x2)) + FLT_MIN;
            assert_near(x1 * cos(a) - x2 * sin(a), (double)y[one], bound);
            assert_near(x1 * sin(a) + x2 * cos(a), (double)y[two], bound);
        }
    }
}

static const size_t rotary_head_sizes[] = {2, 3, 4, 6, 16, 17, 20, 33, 64, 80, LARGEST_HEAD};
#define ROTARY_HEAD_SIZES (sizeof rotary_head_sizes / sizeof *rotary_head_sizes)

static void test_formula(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { ROWS = 9 };
    static const size_t firsts[] = {0, 1, 100, 1000, 4096, 20000};
    float x[LARGEST_HEAD], rotated[ROWS * LARGEST_HEAD], reference[ROWS * LARGEST_HEAD];
    for (size_t i = 0; i < sweep(66, 11); i++) {
        size_t head_size = rotary_head_sizes[i % ROTARY_HEAD_SIZES], first = firsts[random_below(&random, sweep(6, 4))];
        struct table t = table_new(&random, i, first + ROWS, head_size);
        test_case("head_size=%zu dims=%zu pairs=%d base=%g first=%zu", head_size, t.config.dims, (int)t.config.pairs,
                  t.config.base, first);
        random_fill(&random, TEST_NORMAL, x, head_size);
        rotate_queries(test_isa(), t.rotary, x, head_size, first, ROWS, rotated);
        check_formula(&t, x, head_size, first, ROWS, rotated);
        rotate_queries(ATTN_ISA_SCALAR, t.rotary, x, head_size, first, ROWS, reference);
        assert_same_bits(reference, rotated, ROWS * head_size);
        table_free(&t);
    }
}

static void test_keys_as_queries(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { KEYS = 21 };
    float x[LARGEST_HEAD], keys[KEYS * LARGEST_HEAD], queries[KEYS * LARGEST_HEAD];
    for (size_t i = 0; i < sweep(33, 11); i++) {
        size_t head_size = rotary_head_sizes[i % ROTARY_HEAD_SIZES], count = random_between(&random, 1, KEYS);
        struct table t = table_new(&random, i, count, head_size);
        test_case("head_size=%zu dims=%zu pairs=%d base=%g keys=%zu", head_size, t.config.dims, (int)t.config.pairs,
                  t.config.base, count);
        random_fill(&random, TEST_NORMAL, x, head_size);
        rotate_keys(test_isa(), t.rotary, x, head_size, count, keys);
        rotate_queries(test_isa(), t.rotary, x, head_size, 0, count, queries);
        assert_same_bits(queries, keys, count * head_size);
        check_formula(&t, x, head_size, 0, count, keys);
        table_free(&t);
    }
}

/* ---- Rotated before ---- */

/* Cosine and sine of every pair at a position, as [position][head_size]: what becomes of pairs (1, 0). */
static float *read_table(const struct problem *p) {
    size_t head_size = p->args.head_size, positions = p->rotary.positions;
    float *x = guarded_floats(head_size, FLUSH_END), *values = guarded_floats(positions * head_size, FLUSH_END);
    memset(x, 0, head_size * sizeof *x);
    for (size_t pair = 0; pair < p->rotary.dims / 2; pair++)
        x[first_of_pair(&p->rotary, pair)] = 1;
    rotate_queries(ATTN_ISA_SCALAR, p->args.options.rotary, x, head_size, 0, positions, values);
    guarded_free(x);
    return values;
}

/* One product and one fused multiply-add an element. */
static void rotate_by_the_letter(const attn_rotary_config *config, const float *table_row, float *x) {
    for (size_t pair = 0; pair < config->dims / 2; pair++) {
        size_t one = first_of_pair(config, pair), two = second_of_pair(config, pair);
        float cosine = table_row[one], sine = table_row[two], x1 = x[one], x2 = x[two];
        x[one] = attn_fmaf(x2, -sine, x1 * cosine);
        x[two] = attn_fmaf(x1, sine, x2 * cosine);
    }
}

static int64_t position_of(const attn_attention_args *args, size_t b, size_t row) {
    const attn_options *options = &args->options;
    const attn_ints *offsets = &options->position_offsets;
    int64_t keys = (int64_t)args->kv_len, len = options->valid.lens.i64 ? options->valid.lens.i64[b] : keys;
    if (options->position == ATTN_POSITION_TOP_LEFT)
        return (int64_t)row;
    if (options->position == ATTN_POSITION_OFFSET)
        return (int64_t)row + (offsets->i64   ? offsets->i64[b]
                               : offsets->i32 ? offsets->i32[b]
                                              : options->position_offset);
    if (options->position == ATTN_POSITION_VALID_END)
        keys = len < 0 ? 0 : len < keys ? len : keys;
    return (int64_t)row + keys - (int64_t)args->q_len;
}

/* Rows of queries stand at their positions, keys at their indices, both moved by the sequence's offset. */
static struct tensor rotated_copy(const struct problem *p, const struct tensor *t, int queries, const float *table) {
    struct tensor copy = tensor_copy(t, LAYOUT_BHSD, FLUSH_END);
    for (size_t row = 0; row < t->batch * t->heads * t->len; row++) {
        size_t i = row % t->len, head = row / t->len % t->heads, b = row / t->len / t->heads;
        int64_t position = queries ? position_of(&p->args, b, i) : (int64_t)i;
        position += p->args.options.rotary_offsets.i64 ? p->args.options.rotary_offsets.i64[b] : 0;
        assert_in_range(position, 0, p->rotary.positions - 1);
        rotate_by_the_letter(&p->rotary, table + (size_t)position * t->size, tensor_row(&copy, b, head, i));
    }
    return copy;
}

static void check_rotated_before(struct test_random *random, size_t index, unsigned kinds) {
    attn_attention_args args = masked_args(random, index);
    struct problem p = masked_problem_new(random, TEST_NORMAL, &args, kinds | KIND(ROTARY));
    describe(&p.args);
    if (kinds & KIND(TOP_LEFT) && index % 2)
        p.args.options.rotary_offsets.i64 = NULL;
    float *table = read_table(&p);
    struct tensor q = rotated_copy(&p, &p.q, 1, table), k = rotated_copy(&p, &p.k, 0, table);
    struct attention_result actual = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
    p.args.q = tensor_in(&q);
    p.args.k = tensor_in(&k);
    p.args.options.rotary = NULL;
    p.args.options.rotary_offsets.i64 = NULL;
    struct attention_result expected = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
    assert_same_result(&expected, &actual);
    attention_free(&expected);
    attention_free(&actual);
    tensor_free(&q);
    tensor_free(&k);
    guarded_free(table);
    problem_free(&p);
}

static void test_as_rotated_before(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 8); i++)
        check_rotated_before(&random, i, i % 3 == 2 ? KIND(CAUSAL) | KIND(TOP_LEFT) : i % 3 ? KIND(CAUSAL) : 0);
    for (size_t i = 0; i < sweep(100, 12); i++)
        check_rotated_before(&random, i, random_kinds(&random, ~0u));
}

/* A base and the frequencies that it stands for, powers of two that are exact, are one table. */
static void test_base_as_frequencies(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { SIZE = 8, ROWS = 50 };
    const double frequencies[SIZE / 2] = {1, 0.25, 0.0625, 0.015625}; /* 256^(-2 i / 8) */
    float x[SIZE], rotated[2][ROWS * SIZE];
    random_fill(&random, TEST_NORMAL, x, SIZE);
    for (size_t i = 0; i < 2; i++) {
        attn_rotary_config config = {.positions = ROWS, .dims = SIZE, .base = 256};
        attn_rotary *rotary = NULL;
        size_t bytes = 0;
        config.base = i ? 0 : 256;
        config.frequencies = i ? frequencies : NULL;
        test_case("%s", i ? "frequencies" : "base");
        assert_ok(attn_rotary_size(&config, &bytes, NULL));
        void *memory = poisoned_alloc(bytes, FLUSH_START);
        assert_ok(attn_rotary_create(&config, memory, bytes, &rotary, NULL));
        rotate_queries(test_isa(), rotary, x, SIZE, 0, ROWS, rotated[i]);
        guarded_free(memory);
    }
    assert_same_bits(rotated[0], rotated[1], ROWS * SIZE);
}

/* The hash of a table whose angles go up to 2^26: the same whatever ISA, processor and C library. */
static void test_table_of_every_machine(void **state) {
    (void)state;
    enum { DIMS = 128, POSITIONS = 64 };
    double frequencies[DIMS / 2];
    struct attn_rotary rotary = {.positions = POSITIONS, .dims = DIMS, .frequencies = frequencies};
    const attn_rotary_config config = {.dims = DIMS, .base = 8e6};
    for (size_t i = 0; i < DIMS / 2; i++)
        frequencies[i] = 0x1p20 * attn_rotary_frequency(&config, i);
    rotary.table = guarded_aligned_floats(POSITIONS * 2 * DIMS, FLUSH_END);
    attn_op_rotary_fill(attn_table_elementary(test_table()), &rotary);
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < POSITIONS * 2 * DIMS; i++) {
        uint32_t bits;
        memcpy(&bits, &rotary.table[i], sizeof bits);
        hash = (hash ^ bits) * UINT64_C(0x100000001b3);
    }
    guarded_free(rotary.table);
    if (hash != UINT64_C(0x8aa73e1e23a81109))
        test_fail("hash %016" PRIx64 " instead of 8aa73e1e23a81109", hash);
}

/* For queries over a cache the sum of position and offset counts, however large both are. */
static void test_offsets_that_cancel(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    enum { SIZE = 20, KEYS = 6, ROWS = 3 };
    static const int64_t positions[] = {KEYS, 1000, (int64_t)1 << 62, INT64_MAX};
    struct table t = table_new(&random, 0, KEYS + ROWS, SIZE);
    attn_cache_config config = {.isa = test_isa(), .batch = 1, .kv_heads = 1, .head_size = SIZE, .capacity = KEYS};
    struct tensor q = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, ROWS, SIZE, FLUSH_END);
    struct tensor k = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, KEYS, SIZE, FLUSH_END);
    void *memory;
    attn_cache *cache = cache_create(&config, &memory, FLUSH_END);
    cache_append(cache, KEYS, tensor_in(&k), tensor_in(&k), NULL);
    attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 1, .q_len = ROWS, .head_size = SIZE};
    args.q = tensor_in(&q);
    args.cache = cache;
    args.options.causal = 1; /* all keys are seen from KEYS on */
    args.options.position = ATTN_POSITION_OFFSET;
    args.options.rotary = t.rotary;
    struct attention_result result[sizeof positions / sizeof *positions];
    for (size_t i = 0; i < sizeof positions / sizeof *positions; i++) {
        int64_t offset = KEYS - positions[i];
        test_case("position %lld, offset %lld", (long long)positions[i], (long long)offset);
        args.options.position_offset = positions[i];
        args.options.rotary_offsets.i64 = &offset;
        result[i] = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
        assert_same_result(&result[0], &result[i]);
    }
    for (size_t i = 0; i < sizeof positions / sizeof *positions; i++)
        attention_free(&result[i]);
    guarded_free(memory);
    tensor_free(&q);
    tensor_free(&k);
    table_free(&t);
}

/* Keys that no row sees, but a row without keys takes the mean of, may lie before the table's first position and from
 * its end on, behind which no page is. A larger table changes nothing. */
static void check_unseen_keys(struct test_random *random, size_t index, size_t q_len) {
    enum { SIZE = 8, BEFORE = 2, BEHIND = 3 };
    size_t positions = q_len + 5, bytes = 0;
    int64_t offset = -BEFORE, start = BEFORE, lens[64];
    attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 2, .q_len = q_len, .head_size = SIZE};
    args.kv_len = BEFORE + positions + BEHIND;
    args.options = (attn_options){.valid = {.kind = ATTN_VALID_PER_ROW, .lens.i64 = lens}, .starts.i64 = &start};
    args.options.rotary_offsets.i64 = &offset;
    args.options.causal = 1; /* the first row is at position 0 of the table, and sees one key */
    args.options.position = ATTN_POSITION_OFFSET;
    args.options.position_offset = BEFORE;
    args.options.empty = ATTN_EMPTY_MEAN;
    assert_in_range(q_len, 2, 64);
    for (size_t i = 0; i < q_len; i++)
        lens[i] = i == q_len / 2 ? 0 : (int64_t)(BEFORE + positions);
    struct problem p = problem_new(random, TEST_NORMAL, &args);
    p.args.options.valid.lens.i64 = lens;
    describe(&p.args);
    struct attention_result result[2];
    for (size_t larger = 0; larger < 2; larger++) {
        attn_rotary_config config = {.positions = positions + larger * BEHIND, .dims = SIZE};
        attn_rotary *rotary = NULL;
        config.pairs = (attn_rotary_pairs)(index % 2);
        assert_ok(attn_rotary_size(&config, &bytes, NULL));
        void *memory = poisoned_alloc(bytes, FLUSH_END);
        assert_ok(attn_rotary_create(&config, memory, bytes, &rotary, NULL));
        p.args.options.rotary = rotary;
        result[larger] = attention_run(&p.args, LAYOUT_BHSD, FLUSH_END);
        guarded_free(memory);
    }
    assert_same_result(&result[0], &result[1]);
    attention_free(&result[0]);
    attention_free(&result[1]);
    problem_free(&p);
}

static void test_unseen_keys_beyond_the_table(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < 4; i++)
        check_unseen_keys(&random, i, i < 2 ? 2 : 50); /* packed block by block, and a head at a time */
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formula),
        cmocka_unit_test(test_keys_as_queries),
        cmocka_unit_test(test_as_rotated_before),
        cmocka_unit_test(test_base_as_frequencies),
        cmocka_unit_test(test_table_of_every_machine),
        cmocka_unit_test(test_offsets_that_cancel),
        cmocka_unit_test(test_unseen_keys_beyond_the_table),
    };
    return test_run(tests);
}
