/* Outputs beside their inputs in one buffer: taken where no byte is shared, with the bits of an output elsewhere;
 * refused wherever one is. */
#include "problem.h"

#include "api/check.h"

static size_t sweep(size_t full, size_t quick) {
    return test_quick() ? quick : full;
}

/* ---- The check, beside a set of bytes ---- */

enum { MOST_FLOATS = 6000 };

static size_t floats_of(const struct attn_strided *t) {
    size_t floats = t->width;
    for (int d = 0; d < ATTN_CHECK_DIMS; d++)
        floats += (t->dims[d] - 1) * t->strides[d];
    return floats;
}

/* Puts the tensor's floats into a set of those from `base` on, or says whether one is in it. */
static bool touches(const struct attn_strided *t, uintptr_t base, unsigned char *set, bool put) {
    size_t first = ((uintptr_t)t->data - base) / sizeof(float);
    for (size_t i = 0; i < t->dims[0] * t->dims[1] * t->dims[2]; i++) {
        size_t at = first + i / t->dims[2] / t->dims[1] * t->strides[0] + i / t->dims[2] % t->dims[1] * t->strides[1] +
                    i % t->dims[2] * t->strides[2];
        for (size_t c = 0; c < t->width; c++) {
            if (!put && set[at + c])
                return true;
            set[at + c] |= put;
        }
    }
    return false;
}

static bool share_a_float(const struct attn_strided *a, const struct attn_strided *b, uintptr_t base) {
    static unsigned char set[2 * MOST_FLOATS];
    memset(set, 0, sizeof set);
    touches(a, base, set, true);
    return touches(b, base, set, false);
}

static bool is_taken(const struct attn_strided *output, const struct attn_strided *input) {
    struct attn_named_bytes a = {"output", output->data, floats_of(output) * sizeof(float)};
    struct attn_named_bytes b = {"input", input->data, floats_of(input) * sizeof(float)};
    attn_error error = {.field = "untouched"};
    attn_status status = attn_check_input(output, &a, input, &b, &error);
    assert_true(status == ATTN_OK || status == ATTN_OVERLAP);
    assert_string_equal(status == ATTN_OK ? "untouched" : "output", error.field);
    return status == ATTN_OK;
}

static bool ranges_meet(const struct attn_strided *a, const struct attn_strided *b) {
    uintptr_t x = (uintptr_t)a->data, y = (uintptr_t)b->data;
    return x < y + floats_of(b) * sizeof(float) && y < x + floats_of(a) * sizeof(float);
}

/* Strides around a few sizes, so that some are multiples of others. */
static struct attn_strided random_tensor(struct test_random *random, uintptr_t base) {
    static const size_t units[] = {0, 1, 4, 5, 8, 12, 24, 48, 96};
    struct attn_strided t = {.width = random_between(random, 1, 8)};
    for (int d = 0; d < ATTN_CHECK_DIMS; d++) {
        t.dims[d] = random_between(random, 1, 4);
        t.strides[d] = units[random_below(random, sizeof units / sizeof *units)] * random_between(random, 1, 3) +
                       (random_below(random, 8) == 0);
    }
    t.data = (const void *)(base + random_below(random, 200) * sizeof(float));
    return t;
}

static void test_never_takes_an_overlap(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    size_t taken = 0, overlaps = 0;
    for (size_t i = 0; i < sweep(400000, 40000); i++) {
        uintptr_t base = (uintptr_t)(random_bits(&random) >> 20) * sizeof(float); /* nothing lies there */
        struct attn_strided a = random_tensor(&random, base), b = random_tensor(&random, base);
        bool shared = share_a_float(&a, &b, base);
        test_case("pair %zu", i);
        if (is_taken(&a, &b)) {
            assert_false(shared);
            taken += ranges_meet(&a, &b);
        }
        overlaps += shared;
    }
    assert_in_range(taken, sweep(400000, 40000) / 400, SIZE_MAX);
    assert_in_range(overlaps, sweep(400000, 40000) / 10, SIZE_MAX);
}

/* Parts of the rows of one buffer, of which no two have the same column, or some do: taken exactly where they have
 * none. A batch's or a head's stride may be any multiple of the row's, or within it. */
static void test_takes_columns(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    size_t taken = 0, refused = 0;
    for (size_t i = 0; i < sweep(100000, 10000); i++) {
        uintptr_t base = (uintptr_t)(random_bits(&random) >> 20) * sizeof(float);
        struct attn_strided part[2] = {{0}, {0}};
        size_t size = random_between(&random, 1, 6), heads = random_between(&random, 1, 3), columns[2];
        size_t row = random_between(&random, 2 * heads * size, 40);
        bool heads_in_rows = random_below(&random, 2) != 0;
        size_t width = heads_in_rows ? heads * size : size, len = random_between(&random, 2, 4);
        for (int t = 0; t < 2; t++) {
            columns[t] = random_below(&random, row - width + 1);
            part[t].width = size;
            part[t].dims[0] = random_between(&random, 1, 3);
            part[t].dims[1] = heads;
            part[t].dims[2] = len;
            part[t].strides[0] = heads * len * row;
            part[t].strides[1] = heads_in_rows ? size : len * row;
            part[t].strides[2] = row;
            part[t].data = (const void *)(base + (100 + columns[t]) * sizeof(float));
        }
        bool apart = columns[0] + width <= columns[1] || columns[1] + width <= columns[0];
        test_case("columns %zu and %zu of %zu, %zu each", columns[0], columns[1], row, width);
        assert_int_equal(apart, !share_a_float(&part[0], &part[1], base));
        assert_int_equal(apart, is_taken(&part[0], &part[1]));
        taken += apart;
        refused += !apart;
    }
    assert_in_range(taken, 1000, SIZE_MAX);
    assert_in_range(refused, 1000, SIZE_MAX);
}

/* ---- The functions ---- */

/* A buffer of rows, each of which holds the parts one after the other; the rest is random. */
static float *random_buffer(struct test_random *random, size_t count) {
    float *buffer = guarded_floats(count, FLUSH_END);
    random_fill(random, TEST_NORMAL, buffer, count);
    return buffer;
}

/* Everything but the part that was written is as it was. */
static void check_others(const float *before, const float *after, size_t count, size_t row, size_t begin, size_t end) {
    for (size_t i = 0; i < count; i++)
        if (i % row < begin || i % row >= end)
            assert_same_bits(before + i, after + i, 1);
}

enum { BATCH = 2, LEN = 21, HEADS = 3, SIZE = 20, PARTS = 4, WIDTH = HEADS * SIZE };

/* [batch, len, 4, heads, size], or [batch, 4, heads, len, size]: q, k, v and o, the last in any place. */
static void attention_beside(struct test_random *random, size_t place, bool rows_outside) {
    size_t part = rows_outside ? WIDTH : WIDTH * LEN, count = (size_t)BATCH * LEN * PARTS * WIDTH;
    size_t row = rows_outside ? PARTS * WIDTH : PARTS * part;
    float *buffer = random_buffer(random, count), *before = guarded_copy(buffer, count, FLUSH_END);
    attn_attention_args args = {.isa = test_isa(), .batch = BATCH, .heads = HEADS, .q_len = LEN, .kv_len = LEN};
    attn_tensor *in[] = {&args.q, &args.k, &args.v};
    args.head_size = SIZE;
    args.options.causal = 1;
    args.options.position = ATTN_POSITION_TOP_LEFT;
    attn_tensor at = {
        NULL, ATTN_F32, LEN * PARTS * WIDTH, rows_outside ? SIZE : LEN * SIZE, rows_outside ? PARTS * WIDTH : SIZE, 1};
    for (size_t t = 0; t < 3; t++) {
        *in[t] = at;
        in[t]->data = buffer + (t + (t >= place)) * part;
    }
    struct attention_result expected = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
    args.o = (attn_tensor_out){buffer + place * part, ATTN_F32, at.batch_stride, at.head_stride, at.row_stride, 1};
    attention_run_into(&args, FLUSH_END);
    struct tensor o = {args.o.data, BATCH, HEADS, LEN, SIZE, at.batch_stride, at.head_stride, at.row_stride};
    assert_same_tensor(&expected.o, &o);
    check_others(before, buffer, count, row, place * part, place * part + part);
    attn_error error = {.field = "none"};
    args.o.data = (float *)args.o.data + (place == 3 ? -1 : 1); /* one column into a neighbour */
    assert_status(ATTN_OVERLAP, attn_attention(&args, NULL, 0, &error));
    assert_string_equal("o", error.field);
    attention_free(&expected);
    guarded_free(buffer);
    guarded_free(before);
}

static void test_attention(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t place = 0; place < PARTS; place++) {
        test_case("attention, o is part %zu", place);
        attention_beside(&random, place, true);
        attention_beside(&random, place, false);
    }
}

static void test_layer(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    attn_layer_config config = {.isa = test_isa(), .query_width = WIDTH, .key_width = WIDTH, .value_width = WIDTH};
    config.hidden = WIDTH;
    config.heads = HEADS;
    struct layer_weights weights = layer_weights_new(&random, &config, 15);
    size_t count = (size_t)BATCH * LEN * 2 * WIDTH, bytes = 0;
    float *buffer = random_buffer(&random, count), *before = guarded_copy(buffer, count, FLUSH_END);
    void *memory;
    attn_layer *layer = layer_create(&weights.config, &memory, FLUSH_END);
    attn_layer_args args = {.batch = BATCH, .q_len = LEN, .kv_len = LEN};
    args.q = args.k = args.v = (attn_tensor){buffer, ATTN_F32, LEN * 2 * WIDTH, 0, 2 * WIDTH, 1};
    struct layer_result expected = layer_run(layer, &weights.config, &args, LAYOUT_BHSD, FLUSH_END);
    args.y = (attn_tensor_out){buffer + WIDTH, ATTN_F32, LEN * 2 * WIDTH, 0, 2 * WIDTH, 1};
    assert_ok(attn_layer_workspace(layer, &args, &bytes, NULL));
    void *workspace = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_layer_forward(layer, &args, workspace, bytes, NULL));
    struct tensor y = {args.y.data, BATCH, 1, LEN, WIDTH, LEN * 2 * WIDTH, 0, 2 * WIDTH};
    assert_same_tensor(&expected.y, &y);
    check_others(before, buffer, count, 2 * WIDTH, WIDTH, 2 * WIDTH);
    args.y.data = (float *)args.y.data - 1;
    assert_status(ATTN_OVERLAP, attn_layer_forward(layer, &args, workspace, bytes, NULL));
    layer_result_free(&expected);
    layer_weights_free(&weights);
    guarded_free(workspace);
    guarded_free(memory);
    guarded_free(buffer);
    guarded_free(before);
}

static void test_gemm(void **state) {
    (void)state;
    enum { M = 19, K = 33, N = 40, ROW = K + N + 2 };
    struct test_random random = test_random(__func__);
    float *w = random_buffer(&random, K * N), *y = guarded_floats(M * N, FLUSH_END);
    float *buffer = random_buffer(&random, M * ROW), *before = guarded_copy(buffer, M * ROW, FLUSH_END);
    attn_gemm_config config = {.isa = test_isa(), .k = K, .n = N, .w = {.weight = w, .in_stride = N, .out_stride = 1}};
    attn_gemm *gemm = NULL;
    size_t bytes = 0;
    assert_ok(attn_gemm_size(&config, &bytes, NULL));
    void *memory = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_gemm_create(&config, memory, bytes, &gemm, NULL));
    assert_ok(gemm_rows(gemm, M, buffer, ROW, y, N, NULL, NULL));
    assert_ok(gemm_rows(gemm, M, buffer, ROW, buffer + K + 1, ROW, NULL, NULL));
    for (size_t i = 0; i < M; i++)
        assert_same_bits(y + i * N, buffer + i * ROW + K + 1, N);
    check_others(before, buffer, M * ROW, ROW, K + 1, K + 1 + N);
    assert_status(ATTN_OVERLAP, gemm_rows(gemm, M, buffer, ROW, buffer + K - 1, ROW, NULL, NULL));
    assert_status(ATTN_OVERLAP, gemm_rows(gemm, M, buffer, ROW, buffer + K + 1, ROW - 1, NULL, NULL));
    guarded_free(memory);
    guarded_free(w);
    guarded_free(y);
    guarded_free(buffer);
    guarded_free(before);
}

static void test_softmax(void **state) {
    (void)state;
    enum { ROWS = 7, COLS = 37, ROW = 2 * COLS, COUNT = BATCH * ROWS * ROW };
    struct test_random random = test_random(__func__);
    float *buffer = random_buffer(&random, COUNT), *before = guarded_copy(buffer, COUNT, FLUSH_END);
    float *y = guarded_floats(BATCH * ROWS * COLS, FLUSH_END);
    attn_softmax_args args = {.isa = test_isa(), .batch = BATCH, .rows = ROWS, .cols = COLS};
    args.x.data = buffer;
    args.y.data = y;
    args.x.batch_stride = ROWS * ROW;
    args.x.row_stride = ROW;
    args.y.batch_stride = ROWS * COLS;
    args.y.row_stride = COLS;
    assert_ok(attn_masked_softmax(&args, NULL));
    args.y.data = buffer + COLS;
    args.y.batch_stride = args.x.batch_stride;
    args.y.row_stride = args.x.row_stride;
    assert_ok(attn_masked_softmax(&args, NULL));
    for (size_t i = 0; i < BATCH * ROWS; i++)
        assert_same_bits(y + i * COLS, buffer + COLS + i * ROW, COLS);
    check_others(before, buffer, COUNT, ROW, COLS, ROW);
    args.y.data = buffer + COLS - 1;
    assert_status(ATTN_OVERLAP, attn_masked_softmax(&args, NULL));
    guarded_free(buffer);
    guarded_free(before);
    guarded_free(y);
}

/* [batch, heads, len, parts + 1, size]: what is merged is the last part. */
static void test_merge(void **state) {
    (void)state;
    enum { MERGED = 3, ROWS = BATCH * HEADS * LEN, ROW = (MERGED + 1) * SIZE, COUNT = ROWS * ROW };
    struct test_random random = test_random(__func__);
    float *buffer = random_buffer(&random, COUNT), *before = guarded_copy(buffer, COUNT, FLUSH_END);
    float *merged = guarded_floats(ROWS * SIZE, FLUSH_END);
    attn_tensor parts[MERGED];
    attn_tensor lse[MERGED];
    float *lse_buffer = random_buffer(&random, MERGED * ROWS);
    for (size_t p = 0; p < MERGED; p++) {
        parts[p] = (attn_tensor){buffer + p * SIZE, ATTN_F32, HEADS * LEN * ROW, LEN * ROW, ROW, 1};
        lse[p] = (attn_tensor){.data = lse_buffer + p * ROWS};
    }
    attn_merge_args args = {.isa = test_isa(), .parts = MERGED, .batch = BATCH, .heads = HEADS, .q_len = LEN};
    args.value_size = SIZE;
    args.o = parts;
    args.log_sum_exp = lse;
    args.merged = (attn_tensor_out){merged, ATTN_F32, HEADS * LEN * SIZE, LEN * SIZE, SIZE, 1};
    assert_ok(attn_merge(&args, NULL));
    args.merged = (attn_tensor_out){buffer + MERGED * SIZE, ATTN_F32, HEADS * LEN * ROW, LEN * ROW, ROW, 1};
    assert_ok(attn_merge(&args, NULL));
    for (size_t i = 0; i < ROWS; i++)
        assert_same_bits(merged + i * SIZE, buffer + MERGED * SIZE + i * ROW, SIZE);
    check_others(before, buffer, COUNT, ROW, MERGED * SIZE, ROW);
    args.merged.data = (float *)args.merged.data - 1;
    assert_status(ATTN_OVERLAP, attn_merge(&args, NULL));
    guarded_free(buffer);
    guarded_free(before);
    guarded_free(merged);
    guarded_free(lse_buffer);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_never_takes_an_overlap),
        cmocka_unit_test(test_takes_columns),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_layer),
        cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_merge),
    };
    return test_run(tests);
}
