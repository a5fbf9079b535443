/* The d2l module's own answers: inputs and outputs of its MultiHeadAttention and masked_softmax with the same in
 * float64. The cases are listed in manifest.tsv of the directory that the environment variable ATTN_TEST_DATA names. */
#include "support.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "npy.h"

/* ---- Cases ---- */

struct golden {
    char directory[512], kind[32], class_[16];
    size_t batch, heads, hidden, query_width, key_width, value_width, q_len, kv_len, bias, rank;
    double score_max, tolerance;
};

static FILE *open_data(const char *directory, const char *name) {
    char path[640];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "r");
    if (!file)
        test_fail("%s cannot be opened", path);
    return file;
}

static const char *data_directory(void) {
    const char *directory = getenv("ATTN_TEST_DATA");
    if (!directory)
        test_fail("the environment variable ATTN_TEST_DATA is not set");
    return directory;
}

/* The value of `key` in a line "key=value\n" of meta.txt; false where no line has it. */
static bool meta_text(const char *directory, const char *key, char *value, size_t size) {
    char line[1024];
    size_t length = strlen(key);
    bool found = false;
    FILE *file = open_data(directory, "meta.txt");
    while (!found && fgets(line, sizeof line, file))
        if (strncmp(line, key, length) == 0 && line[length] == '=') {
            line[strcspn(line, "\n")] = '\0';
            snprintf(value, size, "%s", line + length + 1);
            found = true;
        }
    fclose(file);
    return found;
}

/* A number that meta.txt must have. */
static double meta_number(const char *directory, const char *key) {
    char text[64], *end = text;
    double number = 0;
    if (meta_text(directory, key, text, sizeof text))
        number = strtod(text, &end);
    if (end == text || *end)
        test_fail("%s/meta.txt has no number %s", directory, key);
    return number;
}

static size_t meta_size(const char *directory, const char *key) {
    return (size_t)meta_number(directory, key);
}

static struct golden golden_read(const char *name) {
    struct golden g = {0};
    char rank[8];
    test_case("%s", name);
    int length = snprintf(g.directory, sizeof g.directory, "%s/%s", data_directory(), name);
    assert_in_range(length, 1, sizeof g.directory - 1);
    if (!meta_text(g.directory, "kind", g.kind, sizeof g.kind) ||
        !meta_text(g.directory, "class", g.class_, sizeof g.class_) ||
        !meta_text(g.directory, "valid_lens_rank", rank, sizeof rank))
        test_fail("meta.txt has no kind, class or valid_lens_rank");
    g.rank = meta_size(g.directory, "valid_lens_rank");
    g.batch = meta_size(g.directory, "batch");
    g.q_len = meta_size(g.directory, "q_len");
    g.kv_len = meta_size(g.directory, "kv_len");
    if (strcmp(g.kind, "multihead") != 0)
        return g;
    g.heads = meta_size(g.directory, "heads");
    g.hidden = meta_size(g.directory, "num_hiddens");
    g.query_width = meta_size(g.directory, "query_size");
    g.key_width = meta_size(g.directory, "key_size");
    g.value_width = meta_size(g.directory, "value_size");
    g.bias = meta_size(g.directory, "bias");
    g.score_max = meta_number(g.directory, "score_max_abs");
    g.tolerance = meta_number(g.directory, "tol.y.max_abs");
    return g;
}

/* An array of the case; fails the test where it is not there, or not of this type and number of elements. */
static struct npy golden_array(const struct golden *g, const char *name, enum npy_type type, size_t count) {
    char path[640];
    struct npy array;
    snprintf(path, sizeof path, "%s/%s.npy", g->directory, name);
    if (npy_read(path, &array) != 0)
        test_fail("%s cannot be read", path);
    if (array.type != type || array.count != count)
        test_fail("%s: type %d and %zu elements, not type %d and %zu", path, (int)array.type, array.count, (int)type,
                  count);
    return array;
}

/* The case's valid_lens and their array, which is empty with rank 0. */
static attn_valid_lens golden_lens(const struct golden *g, struct npy *array) {
    *array = (struct npy){0};
    if (g->rank == 0)
        return (attn_valid_lens){.kind = ATTN_VALID_ALL, .lens.i64 = NULL};
    *array = golden_array(g, "valid_lens", NPY_I64, g->rank == 1 ? g->batch : g->batch * g->q_len);
    assert_int_equal(g->rank, array->rank);
    return (attn_valid_lens){.kind = g->rank == 1 ? ATTN_VALID_PER_SEQUENCE : ATTN_VALID_PER_ROW,
                             .lens.i64 = array->i64};
}

/* ---- Multi-head attention ---- */

struct weights {
    struct npy w, b;
};

/* nn.Linear's layout: [out, in]. */
static attn_linear golden_linear(const struct golden *g, const char *which, size_t in, struct weights *arrays) {
    char name[16];
    attn_linear linear = {.in_stride = 1, .out_stride = in};
    *arrays = (struct weights){0};
    snprintf(name, sizeof name, "W_%s", which);
    arrays->w = golden_array(g, name, NPY_F32, in * g->hidden);
    linear.weight = arrays->w.f32;
    if (g->bias) {
        snprintf(name, sizeof name, "b_%s", which);
        arrays->b = golden_array(g, name, NPY_F32, g->hidden);
        linear.bias = arrays->b.f32;
    }
    return linear;
}

/* The case's layer in guarded memory. */
static attn_layer *golden_layer(const struct golden *g, void **memory) {
    attn_layer_config config = {.isa = test_isa(), .hidden = g->hidden, .heads = g->heads};
    struct weights arrays[4];
    attn_layer *layer = NULL;
    size_t bytes = 0;
    config.query_width = g->query_width;
    config.key_width = g->key_width;
    config.value_width = g->value_width;
    config.w_q = golden_linear(g, "q", g->query_width, &arrays[0]);
    config.w_k = golden_linear(g, "k", g->key_width, &arrays[1]);
    config.w_v = golden_linear(g, "v", g->value_width, &arrays[2]);
    config.w_o = golden_linear(g, "o", g->hidden, &arrays[3]);
    assert_ok(attn_layer_size(&config, &bytes, NULL));
    *memory = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_layer_create(&config, *memory, bytes, &layer, NULL));
    for (size_t i = 0; i < 4; i++) {
        npy_free(&arrays[i].w);
        npy_free(&arrays[i].b);
    }
    return layer;
}

static void compare_outputs(const struct golden *g, const char *truth, const float *y) {
    size_t count = g->batch * g->q_len * g->hidden;
    struct npy expected = golden_array(g, truth, NPY_F64, count);
    for (size_t i = 0; i < count; i++)
        assert_near(expected.f64[i], (double)y[i], g->tolerance);
    npy_free(&expected);
}

/* Errors of at most d in the scores of a row make a weight w wrong by 2 d w (1 - w) at most, to first order. The
 * scores of these cases are sums of some 10 to 100 products behind a projection of as many, each rounded: d of 16
 * units in the last place of the largest score covers that, 4 more cover exp, sum and division, and FLT_MIN weights
 * that underflow. */
static void compare_weights(const struct golden *g, const char *truth, const float *weights) {
    size_t count = g->batch * g->heads * g->q_len * g->kv_len;
    double score_error = 16 * FLT_EPSILON * g->score_max;
    struct npy expected = golden_array(g, truth, NPY_F64, count);
    for (size_t i = 0; i < count; i++) {
        double w = expected.f64[i], relative = 4 * FLT_EPSILON + expm1(2 * score_error) * (1 - w);
        assert_near(w, (double)weights[i], relative * w + FLT_MIN);
    }
    npy_free(&expected);
}

static void check_multihead(const struct golden *g, attn_empty_rows empty, const char *y_truth,
                            const char *weights_truth) {
    void *memory;
    const attn_layer *layer = golden_layer(g, &memory);
    struct npy q = golden_array(g, "q", NPY_F32, g->batch * g->q_len * g->query_width);
    struct npy k = golden_array(g, "k", NPY_F32, g->batch * g->kv_len * g->key_width);
    struct npy v = golden_array(g, "v", NPY_F32, g->batch * g->kv_len * g->value_width), lens;
    float *y = guarded_floats(g->batch * g->q_len * g->hidden, FLUSH_END);
    float *weights = guarded_floats(g->batch * g->heads * g->q_len * g->kv_len, FLUSH_END);
    attn_layer_args args = {.batch = g->batch, .q_len = g->q_len, .kv_len = g->kv_len};
    size_t bytes = 0;
    args.q = (attn_tensor){q.f32, ATTN_F32, g->q_len * g->query_width, 0, g->query_width, 1};
    args.k = (attn_tensor){k.f32, ATTN_F32, g->kv_len * g->key_width, 0, g->key_width, 1};
    args.v = (attn_tensor){v.f32, ATTN_F32, g->kv_len * g->value_width, 0, g->value_width, 1};
    args.y = (attn_tensor_out){y, ATTN_F32, g->q_len * g->hidden, 0, g->hidden, 1};
    args.options.valid = golden_lens(g, &lens);
    args.options.empty = empty;
    args.options.weights.data = weights;
    assert_ok(attn_layer_workspace(layer, &args, &bytes, NULL));
    void *workspace = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_layer_forward(layer, &args, workspace, bytes, NULL));
    compare_outputs(g, y_truth, y);
    compare_weights(g, weights_truth, weights);
    guarded_free(workspace);
    guarded_free(memory);
    guarded_free(y);
    guarded_free(weights);
    npy_free(&q);
    npy_free(&k);
    npy_free(&v);
    npy_free(&lens);
}

/* ---- Masked softmax ---- */

/* Inputs are exact. Only exp (1 unit), the sum, the division and the product round, and x - max by half a unit of
 * itself. */
static void check_softmax(const struct golden *g) {
    size_t count = g->batch * g->q_len * g->kv_len;
    struct npy x = golden_array(g, "x", NPY_F32, count), expected = golden_array(g, "y_f64", NPY_F64, count), lens;
    float *y = guarded_floats(count, FLUSH_END);
    attn_softmax_args args = {.isa = test_isa(), .batch = g->batch, .rows = g->q_len, .cols = g->kv_len};
    args.x.data = x.f32;
    args.y.data = y;
    args.x.batch_stride = args.y.batch_stride = g->q_len * g->kv_len;
    args.x.row_stride = args.y.row_stride = g->kv_len;
    args.valid = golden_lens(g, &lens);
    args.empty = ATTN_EMPTY_MEAN;
    assert_ok(attn_masked_softmax(&args, NULL));
    for (size_t i = 0; i < count; i++)
        assert_near(expected.f64[i], (double)y[i], 4 * FLT_EPSILON * expected.f64[i]);
    guarded_free(y);
    npy_free(&x);
    npy_free(&expected);
    npy_free(&lens);
}

/* ---- The manifest ---- */

static const char first_line[] = "name\tkind\tclass\t";

/* Calls check(case) for every line of the manifest after the first, and returns how many there are. */
static size_t for_each_case(size_t (*check)(const struct golden *g), size_t *checked) {
    char line[2048];
    size_t lines = 0;
    FILE *file = open_data(data_directory(), "manifest.tsv");
    *checked = 0;
    assert_non_null(fgets(line, sizeof line, file));
    assert_int_equal(0, strncmp(line, first_line, strlen(first_line)));
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\t\n")] = '\0';
        struct golden g = golden_read(line);
        *checked += check(&g);
        lines++;
    }
    fclose(file);
    return lines;
}

/* The number of checks made for the case. A row without keys has two answers, and both policies give theirs. */
static size_t check_case(const struct golden *g) {
    if (strcmp(g->kind, "masked_softmax") == 0) {
        check_softmax(g);
        return 1;
    }
    if (strcmp(g->kind, "multihead") != 0)
        test_fail("a case of an unknown kind, %s", g->kind);
    check_multihead(g, ATTN_EMPTY_MEAN, "y_f64", "attn_f64");
    if (strcmp(g->class_, "policy") != 0) {
        assert_string_equal(g->class_, "core");
        check_multihead(g, ATTN_EMPTY_ZERO, "y_f64", "attn_f64");
    } else {
        check_multihead(g, ATTN_EMPTY_ZERO, "y_sel_f64", "attn_sel_f64");
    }
    return 1;
}

static void test_d2l_answers(void **state) {
    (void)state;
    size_t checked, lines;
    (void)test_random(__func__);
    lines = for_each_case(check_case, &checked);
    printf("%zu of %zu cases of the manifest\n", checked, lines);
    assert_int_equal(15, lines);
    assert_int_equal(lines, checked);
}

/* The two answers to a row without keys differ by more than the tolerance: the cases can tell the policies apart. */
static size_t policies_differ(const struct golden *g) {
    if (strcmp(g->class_, "policy") != 0)
        return 0;
    size_t count = g->batch * g->q_len * g->hidden, apart = 0;
    struct npy mean = golden_array(g, "y_f64", NPY_F64, count), zero = golden_array(g, "y_sel_f64", NPY_F64, count);
    for (size_t i = 0; i < count; i++)
        apart += fabs(mean.f64[i] - zero.f64[i]) > 2 * g->tolerance;
    npy_free(&mean);
    npy_free(&zero);
    assert_true(apart > 0);
    return 1;
}

static void test_policy_cases_tell_apart(void **state) {
    (void)state;
    size_t policy_cases;
    for_each_case(policies_differ, &policy_cases);
    assert_int_equal(2, policy_cases);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_d2l_answers),
        cmocka_unit_test(test_policy_cases_tell_apart),
    };
    return test_run(tests);
}
