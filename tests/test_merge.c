/* attn_merge: parts of the keys, attended to apart and merged, are attention over all of them. */
#include "attention_problem.h"

#include <float.h>
#include <math.h>

#include "flags.h"
#include "oracle.h"
#include "typed.h"

enum { MOST_PARTS = 9 };

struct parts {
    size_t count;
    struct tensor o[MOST_PARTS];
    attn_tensor in[MOST_PARTS];
    float *log_sum_exp[MOST_PARTS];
    attn_tensor lse_in[MOST_PARTS];
};

/* Merged output and log-sum-exp. */
struct merged {
    struct tensor o;
    float *log_sum_exp;
    size_t rows;
};

static attn_merge_args merge_args(const struct parts *parts) {
    const struct tensor *o = &parts->o[0];
    attn_merge_args args = {.isa = test_isa(), .parts = parts->count, .batch = o->batch, .heads = o->heads};
    args.q_len = o->len;
    args.value_size = o->size;
    args.o = parts->in;
    args.log_sum_exp = parts->lse_in;
    return args;
}

static struct merged merge_run(const attn_merge_args *args, enum layout layout, enum flush flush) {
    struct merged merged = {.rows = args->batch * args->heads * args->q_len};
    attn_merge_args full = *args;
    attn_error error = {.field = "none"};
    merged.o = tensor_new(layout, args->batch, args->heads, args->q_len, args->value_size, flush);
    merged.log_sum_exp = guarded_floats(merged.rows, flush);
    full.merged = tensor_out(&merged.o);
    full.merged_log_sum_exp.data = merged.log_sum_exp;
    assert_ok(attn_merge(&full, &error));
    assert_string_equal(error.field, "none");
    return merged;
}

static void merged_free(struct merged *merged) {
    tensor_free(&merged->o);
    guarded_free(merged->log_sum_exp);
}

static void parts_free(struct parts *parts) {
    for (size_t p = 0; p < parts->count; p++) {
        tensor_free(&parts->o[p]);
        guarded_free(parts->log_sum_exp[p]);
    }
}

static void assert_same_merged(const struct merged *expected, const struct merged *actual) {
    assert_same_tensor(&expected->o, &actual->o);
    assert_same_bits(expected->log_sum_exp, actual->log_sum_exp, expected->rows);
}

/* The scalar reference's bits, in another layout, and without a log-sum-exp as well. */
static void check_bits(struct test_random *random, const struct parts *parts, const struct merged *actual) {
    attn_merge_args args = merge_args(parts);
    args.isa = ATTN_ISA_SCALAR;
    flags_clear();
    struct merged expected = merge_run(&args, LAYOUT_GAPS, random_flush(random));
    int allowed = flags_raised();
    assert_same_merged(&expected, actual);
    args.isa = test_isa();
    struct tensor alone = tensor_new(LAYOUT_BSHD, args.batch, args.heads, args.q_len, args.value_size, FLUSH_END);
    args.merged = tensor_out(&alone);
    args.merged_log_sum_exp.data = actual->log_sum_exp;
    flags_clear();
    assert_ok(attn_merge(&args, NULL));
    assert_flags(flags_raised(), allowed);
    args.merged_log_sum_exp.data = NULL;
    assert_ok(attn_merge(&args, NULL));
    assert_same_tensor(&expected.o, &alone);
    tensor_free(&alone);
    merged_free(&expected);
}

/* ---- The formula ---- */

/* Outputs of at most `most` elements and log-sum-exps at random; one in `empties` rows of a part (0: none) is empty,
 * and its output NaN. */
static struct parts random_parts(struct test_random *random, enum test_values values, size_t most, size_t index,
                                 size_t empties) {
    struct parts parts = {.count = index % MOST_PARTS + 1};
    size_t batch = random_between(random, 1, 3), heads = random_between(random, 1, 4);
    size_t len = random_between(random, 1, 9), size = random_between(random, 1, most);
    float spread = random_below(random, 2) ? 2.0f : 60.0f;
    for (size_t p = 0; p < parts.count; p++) {
        enum layout layout = (enum layout)random_below(random, LAYOUT_OUTPUTS);
        parts.o[p] = tensor_random(random, values, layout, batch, heads, len, size, random_flush(random));
        parts.in[p] = tensor_in(&parts.o[p]);
        parts.log_sum_exp[p] = guarded_floats(batch * heads * len, random_flush(random));
        parts.lse_in[p] = (attn_tensor){.data = parts.log_sum_exp[p]};
        for (size_t row = 0; row < batch * heads * len; row++) {
            float *o = tensor_row(&parts.o[p], row / len / heads, row / len % heads, row % len);
            parts.log_sum_exp[p][row] = spread * random_normal(random);
            if (empties && random_below(random, empties) == 0) {
                parts.log_sum_exp[p][row] = -INFINITY;
                for (size_t c = 0; c < size; c++)
                    o[c] = NAN;
            }
        }
    }
    return parts;
}

/* Each factor exp(lse - largest) is 1 ULP off, and by half a unit of the difference; every part rounds twice more, and
 * so does the division at the end. Factors so light that they vanish are not looked at. */
static void check_formula_row(const struct parts *parts, size_t row, const float *o, float log_sum_exp) {
    const struct tensor *t = &parts->o[0];
    double max = -INFINITY, sum = 0, farthest = 0;
    for (size_t p = 0; p < parts->count; p++)
        max = fmax(max, (double)parts->log_sum_exp[p][row]);
    for (size_t p = 0; p < parts->count && max > -INFINITY; p++) {
        double below = max - (double)parts->log_sum_exp[p][row];
        sum += exp(-below);
        farthest = fmax(farthest, below < 40 ? below : 0);
    }
    double units = 4 + farthest + 2 * (double)parts->count;
    if (max == -INFINITY)
        assert_true(isinf(log_sum_exp) && log_sum_exp < 0);
    else
        assert_near(max + log(sum), (double)log_sum_exp, FLT_EPSILON * (units + fabs(max) + log(sum)));
    for (size_t c = 0; c < t->size; c++) {
        double expected = 0, magnitude = 0;
        for (size_t p = 0; p < parts->count; p++) {
            double lse = (double)parts->log_sum_exp[p][row];
            if (lse == -INFINITY)
                continue;
            double term =
                exp(lse - max) / sum *
                (double)tensor_row(&parts->o[p], row / t->len / t->heads, row / t->len % t->heads, row % t->len)[c];
            expected += term;
            magnitude += fabs(term);
        }
        assert_near(expected, (double)o[c], units * FLT_EPSILON * magnitude + FLT_MIN);
        assert_false(o[c] == 0 && signbit(o[c]));
    }
}

static void check_formula(const struct parts *parts, const struct merged *merged) {
    const struct tensor *t = &merged->o;
    for (size_t row = 0; row < merged->rows; row++)
        check_formula_row(parts, row, tensor_row(t, row / t->len / t->heads, row / t->len % t->heads, row % t->len),
                          merged->log_sum_exp[row]);
}

static void name_case(const struct parts *parts) {
    const struct tensor *t = &parts->o[0];
    test_case("parts=%zu batch=%zu heads=%zu q_len=%zu value_size=%zu", parts->count, t->batch, t->heads, t->len,
              t->size);
}

static void test_formula(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(400, 60); i++) {
        struct parts parts = random_parts(&random, TEST_NORMAL, i % 8 ? 70 : 1100, i, 1 + i % 5);
        attn_merge_args args = merge_args(&parts);
        name_case(&parts);
        struct merged merged = merge_run(&args, LAYOUT_BHSD, random_flush(&random));
        check_formula(&parts, &merged);
        check_bits(&random, &parts, &merged);
        merged_free(&merged);
        parts_free(&parts);
    }
}

/* Infinities, NaN and extremes, in log-sum-exps too: the reference's bits. */
static void test_same_bits_of_wild_values(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(200, 40); i++) {
        struct parts parts = random_parts(&random, TEST_WILD, 70, i, 6);
        attn_merge_args args = merge_args(&parts);
        for (size_t p = 0; p < parts.count && i % 2; p++)
            random_fill(&random, TEST_WILD, parts.log_sum_exp[p], args.batch * args.heads * args.q_len);
        name_case(&parts);
        struct merged merged = merge_run(&args, LAYOUT_BHSD, random_flush(&random));
        check_bits(&random, &parts, &merged);
        merged_free(&merged);
        parts_free(&parts);
    }
}

/* ---- Types ---- */

/* Each part in a type of its own, and the result in another: the merged floats, rounded. Long rows are taken in
 * pieces. */
static void check_types(struct test_random *random, struct parts *parts) {
    attn_type to = random_type(random);
    void *memory[MOST_PARTS], *merged_memory;
    attn_tensor typed[MOST_PARTS];
    for (size_t p = 0; p < parts->count; p++) {
        attn_type from = random_type(random);
        tensor_round(&parts->o[p], from);
        typed[p] = typed_input(&parts->o[p], from, random_flush(random), &memory[p]);
    }
    attn_merge_args args = merge_args(parts);
    struct merged expected = merge_run(&args, LAYOUT_BHSD, FLUSH_END);
    tensor_round(&expected.o, to);
    struct merged actual = {tensor_new(LAYOUT_GAPS, args.batch, args.heads, args.q_len, args.value_size, FLUSH_END),
                            guarded_floats(expected.rows, FLUSH_END), expected.rows};
    args.o = typed;
    args.merged = typed_output(&actual.o, to, random_flush(random), &merged_memory);
    args.merged_log_sum_exp.data = actual.log_sum_exp;
    assert_ok(attn_merge(&args, NULL));
    typed_read(&actual.o, to, merged_memory);
    assert_same_merged(&expected, &actual);
    for (size_t p = 0; p < parts->count; p++)
        guarded_free(memory[p]);
    merged_free(&expected);
    merged_free(&actual);
}

static void test_types(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(300, 50); i++) {
        size_t most = i % 4 ? 70 : 1100;
        struct parts parts = random_parts(&random, i % 3 ? TEST_NORMAL : TEST_WILD, most, i, 1 + i % 5);
        name_case(&parts);
        check_types(&random, &parts);
        parts_free(&parts);
    }
}

/* ---- Single and empty parts ---- */

/* One part, among others that are empty or not, comes through as it is. */
static void test_single_part(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 20); i++) {
        struct parts parts = random_parts(&random, TEST_NORMAL, 70, i, 1),
                     one = random_parts(&random, TEST_NORMAL, 70, 0, 0);
        attn_merge_args args = merge_args(&one);
        size_t at = random_below(&random, parts.count), rows = args.batch * args.heads * args.q_len;
        attn_tensor log_sum_exp[MOST_PARTS];
        float *none = guarded_floats(rows, FLUSH_END), *nowhere = guarded_floats(0, FLUSH_END);
        for (size_t row = 0; row < rows; row++)
            none[row] = -INFINITY;
        attn_tensor in[MOST_PARTS];
        for (size_t p = 0; p < parts.count; p++) {
            in[p] = p == at ? one.in[0] : (attn_tensor){nowhere, ATTN_F32, 0, 0, 0, 1}; /* pages that fault */
            log_sum_exp[p] = (attn_tensor){.data = p == at ? one.log_sum_exp[0] : none};
        }
        args.parts = parts.count;
        args.o = in;
        args.log_sum_exp = log_sum_exp;
        name_case(&one);
        struct merged merged = merge_run(&args, LAYOUT_BSHD, FLUSH_END);
        assert_same_tensor(&one.o[0], &merged.o);
        assert_same_bits(one.log_sum_exp[0], merged.log_sum_exp, rows);
        merged_free(&merged);
        guarded_free(none);
        guarded_free(nowhere);
        parts_free(&parts);
        parts_free(&one);
    }
}

static void test_all_empty(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < MOST_PARTS; i++) {
        struct parts parts = random_parts(&random, TEST_NORMAL, 70, i, 1);
        attn_merge_args args = merge_args(&parts);
        name_case(&parts);
        struct merged merged = merge_run(&args, LAYOUT_BHSD, FLUSH_START);
        for (size_t j = 0; j < tensor_count(&merged.o); j++)
            assert_true(merged.o.data[j] == 0 && !signbit(merged.o.data[j]));
        for (size_t row = 0; row < merged.rows; row++)
            assert_true(merged.log_sum_exp[row] == -INFINITY);
        merged_free(&merged);
        parts_free(&parts);
    }
}

/* batch, heads and query length of 0: nothing is looked at. */
static void test_nothing_to_do(void **state) {
    (void)state;
    float *nowhere = guarded_floats(0, FLUSH_END);
    const attn_tensor o = {nowhere, ATTN_F32, 0, 0, 0, 1};
    const attn_tensor log_sum_exp = {.data = nowhere};
    for (int zero = 0; zero < 3; zero++) {
        attn_merge_args args = {.isa = test_isa(), .parts = 1, .batch = zero != 0, .heads = zero != 1};
        args.q_len = zero != 2;
        args.value_size = 8;
        args.o = &o;
        args.log_sum_exp = &log_sum_exp;
        args.merged = (attn_tensor_out){nowhere, ATTN_F32, 8, 8, 8, 1};
        args.merged_log_sum_exp.data = nowhere;
        test_case("zero %d", zero);
        assert_ok(attn_merge(&args, NULL));
    }
    guarded_free(nowhere);
}

/* ---- Any split of the keys ---- */

/* Attention by each part of the keys. The sink belongs to one part alone. */
static struct parts attend_in_parts(const struct problem *p, size_t count, const attn_attention_args *part_args) {
    struct parts parts = {.count = count};
    for (size_t part = 0; part < count; part++) {
        attn_attention_args args = part_args[part];
        args.options.empty = ATTN_EMPTY_ZERO;
        args.options.sinks = part == count / 2 ? p->args.options.sinks : NULL;
        struct attention_result r = attention_run(&args, LAYOUT_BSHD, FLUSH_END);
        parts.o[part] = tensor_copy(&r.o, LAYOUT_GAPS, FLUSH_END);
        parts.in[part] = tensor_in(&parts.o[part]);
        parts.log_sum_exp[part] = guarded_copy(r.log_sum_exp, r.rows, FLUSH_END);
        parts.lse_in[part] = (attn_tensor){.data = parts.log_sum_exp[part]};
        attention_free(&r);
    }
    return parts;
}

/* The parts' outputs and log-sum-exps are within the bounds of check_against_oracle; an absolute error of a
 * log-sum-exp is a relative error of its factor. Merging adds the errors that check_formula_row allows. Two
 * log-sum-exps that both carry weight are no farther apart than the logits are large. */
static void check_split(const struct problem *p, const struct parts *parts, const struct merged *merged) {
    const attn_attention_args *args = &p->args;
    struct oracle oracle;
    oracle_attention(args, &p->rotary, &oracle);
    for (size_t row = 0; row < merged->rows; row++) {
        double score = oracle.score_magnitude[row], lse = oracle.log_sum_exp[row];
        double lse_units = 2 + log_sum_exp_units(args->kv_len, score, lse);
        double merge_units = 4 + 2 * score + 2 * (double)parts->count;
        double units = output_units(args->kv_len, score) + 2 * lse_units + merge_units;
        const float *o =
            tensor_row(&merged->o, row / args->q_len / args->heads, row / args->q_len % args->heads, row % args->q_len);
        for (size_t c = 0; c < merged->o.size; c++) {
            size_t at = row * merged->o.size + c;
            assert_near(oracle.output[at], (double)o[c], units * FLT_EPSILON * oracle.magnitude[at] + FLT_MIN);
        }
        assert_near(lse, (double)merged->log_sum_exp[row], isfinite(lse) ? (lse_units + merge_units) * FLT_EPSILON : 0);
    }
    oracle_free(&oracle);
}

static void merge_and_check(struct test_random *random, const struct problem *p, size_t count,
                            const attn_attention_args *part_args) {
    describe(&p->args);
    struct parts parts = attend_in_parts(p, count, part_args);
    attn_merge_args args = merge_args(&parts);
    struct merged merged = merge_run(&args, LAYOUT_BHSD, FLUSH_END);
    check_split(p, &parts, &merged);
    check_bits(random, &parts, &merged);
    merged_free(&merged);
    parts_free(&parts);
}

/* Ranges of keys, as caches on several machines hold them; some have none. */
static void test_ranges_of_keys(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(100, 16); i++) {
        attn_attention_args args = masked_args(&random, i), part_args[MOST_PARTS];
        args.options.empty = ATTN_EMPTY_ZERO;
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &args,
                                              random_kinds(&random, KIND(SOFT_CAP) | KIND(SINKS) | KIND(GROUPS)));
        size_t count = random_between(&random, 1, MOST_PARTS), begin = 0;
        for (size_t part = 0; part < count; part++) {
            size_t rest = p.args.kv_len - begin, len = part == count - 1 ? rest : random_below(&random, rest + 1);
            part_args[part] = p.args;
            part_args[part].kv_len = len;
            part_args[part].k.data = (const float *)part_args[part].k.data + begin * p.k.row_stride;
            part_args[part].v.data = (const float *)part_args[part].v.data + begin * p.v.row_stride;
            begin += len;
        }
        merge_and_check(&random, &p, count, part_args);
        problem_free(&p);
    }
}

/* Any partition of the keys, by boolean masks beside all that an attention may have else. */
static void test_sets_of_keys(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(100, 16); i++) {
        attn_attention_args args = masked_args(&random, i), part_args[MOST_PARTS];
        args.options.empty = ATTN_EMPTY_ZERO;
        struct problem p = masked_problem_new(&random, TEST_NORMAL, &args, random_kinds(&random, ~KIND(MASK)));
        size_t count = random_between(&random, 1, MOST_PARTS);
        uint8_t *mask = guarded_alloc(count * args.kv_len, 1, FLUSH_END);
        for (size_t j = 0; j < args.kv_len; j++) {
            size_t owner = random_below(&random, count);
            for (size_t part = 0; part < count; part++)
                mask[part * args.kv_len + j] = part == owner;
        }
        for (size_t part = 0; part < count; part++) {
            part_args[part] = p.args;
            part_args[part].options.mask = (attn_tensor){mask + part * args.kv_len, ATTN_BOOL, 0, 0, 0, 1};
        }
        merge_and_check(&random, &p, count, part_args);
        guarded_free(mask);
        problem_free(&p);
    }
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formula),        cmocka_unit_test(test_same_bits_of_wild_values),
        cmocka_unit_test(test_types),          cmocka_unit_test(test_single_part),
        cmocka_unit_test(test_all_empty),      cmocka_unit_test(test_nothing_to_do),
        cmocka_unit_test(test_ranges_of_keys), cmocka_unit_test(test_sets_of_keys),
    };
    return test_run(tests);
}
