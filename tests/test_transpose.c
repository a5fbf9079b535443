/* Splitting and merging heads: the copy kernel, attn_transpose_qkv and attn_transpose_output. */
#include "support.h"

#include <string.h>

static const struct attn_copy_kernel *kernel(void) {
    return attn_table_copy(test_table());
}

/* ---- The kernel ---- */

static void check_copy(struct test_random *random, size_t rows, size_t size, size_t x_gap, size_t y_gap,
                       enum flush flush) {
    test_case("rows=%zu size=%zu x_gap=%zu y_gap=%zu flush=%d", rows, size, x_gap, y_gap, (int)flush);
    struct test_matrix x = test_matrix(rows, size, size + x_gap, flush);
    struct test_matrix y = test_matrix(rows, size, size + y_gap, flush);
    test_matrix_fill(&x, random, TEST_WILD);
    kernel()->rows(rows, size, x.data, x.stride, y.data, y.stride);
    assert_same_matrix(&x, &y);
    test_matrix_free(&x);
    test_matrix_free(&y);
}

static void copies_every_tail(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t size = 0; size <= 70; size++)
        for (size_t rows = 0; rows <= 9; rows += test_quick() ? 3 : 1)
            for (size_t i = 0; i < 4; i++)
                check_copy(&random, rows, size, i % 2 * random_between(&random, 1, 20),
                           i / 2 * random_between(&random, 1, 20), (size + i) % 2 ? FLUSH_START : FLUSH_END);
}

static void copies_long_rows(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const size_t sizes[] = {127, 128, 129, 255, 256, 257, 768, 1023, 1025};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_copy(&random, 3, sizes[i], 0, 0, FLUSH_END);
        check_copy(&random, 5, sizes[i], 7, 1024, FLUSH_START);
    }
}

/* ---- The public functions ---- */

struct shape {
    size_t batch, len, heads, head_size, row_gap, batch_gap;
};

static attn_tensor merged_side(const struct shape *s, const float *data) {
    size_t row_stride = s->heads * s->head_size + s->row_gap;
    return (attn_tensor){data, ATTN_F32, s->len * row_stride + s->batch_gap, 0, row_stride, 1};
}

static attn_transpose_args args_of(const struct shape *s) {
    return (attn_transpose_args){
        .isa = test_isa(), .batch = s->batch, .len = s->len, .heads = s->heads, .head_size = s->head_size};
}

static size_t split_count(const struct shape *s) {
    return s->batch * s->heads * s->len * s->head_size;
}

static size_t merged_count(const struct shape *s, const attn_tensor *side) {
    if (split_count(s) == 0)
        return 0;
    return (s->batch - 1) * side->batch_stride + (s->len - 1) * side->row_stride + s->heads * s->head_size;
}

/* Visits [b, i, h, j]: `split` is dense [b, h, i, j], `merged` strided [b, i, h, j]. */
static void naive_split(const struct shape *s, const attn_tensor *side, float *split) {
    const float *merged = side->data;
    for (size_t b = 0; b < s->batch; b++)
        for (size_t h = 0; h < s->heads; h++)
            for (size_t i = 0; i < s->len; i++)
                for (size_t j = 0; j < s->head_size; j++)
                    split[((b * s->heads + h) * s->len + i) * s->head_size + j] =
                        merged[b * side->batch_stride + i * side->row_stride + h * s->head_size + j];
}

/* Random elements, gaps as they were. */
static void fill_merged(struct test_random *random, const struct shape *s, const attn_tensor *side, float *merged) {
    for (size_t b = 0; b < s->batch; b++)
        for (size_t i = 0; i < s->len; i++)
            random_fill(random, TEST_WILD, merged + b * side->batch_stride + i * side->row_stride,
                        s->heads * s->head_size);
}

/* Splits, compares with the naive loops, merges into fresh memory and compares with the start, gaps included: what lies
 * there is the canary on both sides. */
static void check_shape(struct test_random *random, const struct shape *s, enum flush flush) {
    test_case("batch=%zu len=%zu heads=%zu head_size=%zu row_gap=%zu batch_gap=%zu flush=%d", s->batch, s->len,
              s->heads, s->head_size, s->row_gap, s->batch_gap, (int)flush);
    attn_transpose_args args = args_of(s);
    attn_tensor side = merged_side(s, NULL);
    size_t count = merged_count(s, &side);
    float *merged = guarded_floats(count, flush), *back = guarded_floats(count, flush);
    float *split = guarded_floats(split_count(s), flush), *expected = guarded_floats(split_count(s), flush);
    fill_merged(random, s, &side, merged);
    side.data = merged;
    naive_split(s, &side, expected);

    attn_error error = {0};
    args.x = side;
    args.y.data = split;
    assert_ok(attn_transpose_qkv(&args, &error));
    assert_same_bits(expected, split, split_count(s));
    args.x = (attn_tensor){.data = split};
    args.y = (attn_tensor_out){back, ATTN_F32, side.batch_stride, 0, side.row_stride, 1};
    assert_ok(attn_transpose_output(&args, &error));
    assert_null(error.field);
    assert_same_bits(merged, back, count);
    for (size_t i = 0; i < count; i++)
        assert_true(is_untouched(merged + i) == is_untouched(back + i));

    guarded_free(merged);
    guarded_free(back);
    guarded_free(split);
    guarded_free(expected);
}

static void round_trip_of_every_head_size(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t head_size = 1; head_size <= 70; head_size++)
        for (size_t i = 0; i < (test_quick() ? 1 : 8); i++) {
            struct shape shape = {.batch = random_between(&random, 1, 3),
                                  .len = random_between(&random, 1, 12),
                                  .heads = random_between(&random, 1, 6),
                                  .head_size = head_size,
                                  .row_gap = random_below(&random, 2) * random_below(&random, 20),
                                  .batch_gap = random_below(&random, 2) * random_below(&random, 20)};
            check_shape(&random, &shape, i % 2 ? FLUSH_START : FLUSH_END);
        }
}

static void round_trip_of_usual_sizes(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    /* The last ones have rows 4 KiB apart. */
    const struct shape shapes[] = {{2, 6, 5, 20, 0, 0},     {1, 1, 1, 1, 0, 0},     {1, 128, 12, 64, 0, 0},
                                   {3, 17, 4, 128, 1, 11},  {2, 33, 8, 80, 16, 32}, {1, 200, 2, 7, 3, 0},
                                   {2, 37, 16, 64, 0, 128}, {1, 1601, 16, 64, 0, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check_shape(&random, &shapes[i], FLUSH_END);
}

static void touches_nothing_for_empty_sizes(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < 3; i++) {
        struct shape shape = {.batch = i == 0 ? 0 : 2, .len = i == 1 ? 0 : 3, .heads = i == 2 ? 0 : 4, .head_size = 5};
        check_shape(&random, &shape, FLUSH_END);
        attn_transpose_args args = args_of(&shape);
        assert_ok(attn_transpose_qkv(&args, NULL));
        assert_ok(attn_transpose_output(&args, NULL));
    }
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_every_tail),
        cmocka_unit_test(copies_long_rows),
        cmocka_unit_test(round_trip_of_every_head_size),
        cmocka_unit_test(round_trip_of_usual_sizes),
        cmocka_unit_test(touches_nothing_for_empty_sizes),
    };
    return test_run(tests);
}
