/* Splitting and merging heads: the copy kernel, attn_transpose_qkv and attn_transpose_output. */
#include "typed.h"

#include <string.h>

#include "types.h"

static const struct attn_copy_kernel *kernel(void) {
    return attn_table_copy(test_table());
}

/* Memory for `count` elements of `bytes` bytes each; what lies between those of a tensor holds the canary. */
static unsigned char *new_elements(size_t count, size_t bytes, enum flush flush) {
    return guarded_alloc(count * bytes, bytes, flush);
}

/* Any bits at all. */
static void fill_bytes(struct test_random *random, unsigned char *x, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        x[i] = (unsigned char)random_bits(random);
}

static void assert_same_bytes(const unsigned char *expected, const unsigned char *actual, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if (expected[i] != actual[i])
            test_fail("byte %zu is %02x, not %02x", i, actual[i], expected[i]);
}

/* ---- The kernel ---- */

/* Halves with gaps of halves between rows. */
static void check_copy(struct test_random *random, size_t rows, size_t size, size_t x_gap, size_t y_gap,
                       enum flush flush) {
    size_t bytes = 2 * size, x_stride = 2 * (size + x_gap), y_stride = 2 * (size + y_gap);
    size_t x_bytes = rows ? (rows - 1) * x_stride + bytes : 0, y_bytes = rows ? (rows - 1) * y_stride + bytes : 0;
    test_case("rows=%zu size=%zu x_gap=%zu y_gap=%zu flush=%d", rows, size, x_gap, y_gap, (int)flush);
    unsigned char *x = new_elements(x_bytes / 2, 2, flush), *y = new_elements(y_bytes / 2, 2, flush);
    unsigned char *expected = new_elements(y_bytes / 2, 2, flush);
    fill_bytes(random, x, x_bytes);
    for (size_t i = 0; i < rows && bytes; i++)
        memcpy(expected + i * y_stride, x + i * x_stride, bytes);
    kernel()->rows(rows, bytes, x, x_stride, y, y_stride);
    assert_same_bytes(expected, y, y_bytes);
    guarded_free(x);
    guarded_free(y);
    guarded_free(expected);
}

static void copies_every_tail(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t size = 0; size <= 140; size++)
        for (size_t rows = 0; rows <= 9; rows += test_quick() ? 3 : 1)
            for (size_t i = 0; i < 4; i++)
                check_copy(&random, rows, size, i % 2 * random_between(&random, 1, 20),
                           i / 2 * random_between(&random, 1, 20), (size + i) % 2 ? FLUSH_START : FLUSH_END);
}

static void copies_long_rows(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const size_t sizes[] = {127, 128, 129, 255, 256, 257, 768, 1023, 1025, 2050};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_copy(&random, 3, sizes[i], 0, 0, FLUSH_END);
        check_copy(&random, 5, sizes[i], 7, 1024, FLUSH_START);
    }
}

/* ---- The public functions ---- */

struct shape {
    size_t batch, len, heads, head_size, row_gap, batch_gap;
};

static attn_tensor merged_side(const struct shape *s, attn_type type, const void *data) {
    size_t row_stride = s->heads * s->head_size + s->row_gap;
    return (attn_tensor){data, type, s->len * row_stride + s->batch_gap, 0, row_stride, 1};
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
static void naive_split(const struct shape *s, const attn_tensor *side, size_t element, unsigned char *split) {
    const unsigned char *merged = side->data;
    for (size_t b = 0; b < s->batch; b++)
        for (size_t h = 0; h < s->heads; h++)
            for (size_t i = 0; i < s->len; i++)
                for (size_t j = 0; j < s->head_size; j++)
                    memcpy(split + (((b * s->heads + h) * s->len + i) * s->head_size + j) * element,
                           merged + (b * side->batch_stride + i * side->row_stride + h * s->head_size + j) * element,
                           element);
}

/* Random elements, gaps as they were. */
static void fill_merged(struct test_random *random, const struct shape *s, const attn_tensor *side, size_t element,
                        unsigned char *merged) {
    for (size_t b = 0; b < s->batch; b++)
        for (size_t i = 0; i < s->len; i++)
            fill_bytes(random, merged + (b * side->batch_stride + i * side->row_stride) * element,
                       s->heads * s->head_size * element);
}

/* Splits, compares with the naive loops, merges into fresh memory and compares with the start, gaps included: what lies
 * there is the canary on both sides. One type on both sides is copied, whatever its bits mean. */
static void check_shape(struct test_random *random, const struct shape *s, attn_type type, enum flush flush) {
    size_t element = attn_type_size(type), bytes = split_count(s) * element;
    test_case("type=%d batch=%zu len=%zu heads=%zu head_size=%zu row_gap=%zu batch_gap=%zu flush=%d", (int)type,
              s->batch, s->len, s->heads, s->head_size, s->row_gap, s->batch_gap, (int)flush);
    attn_transpose_args args = args_of(s);
    attn_tensor side = merged_side(s, type, NULL);
    size_t count = merged_count(s, &side);
    unsigned char *merged = new_elements(count, element, flush), *back = new_elements(count, element, flush);
    unsigned char *split = new_elements(split_count(s), element, flush);
    unsigned char *expected = new_elements(split_count(s), element, flush);
    fill_merged(random, s, &side, element, merged);
    side.data = merged;
    naive_split(s, &side, element, expected);

    attn_error error = {0};
    args.x = side;
    args.y = (attn_tensor_out){.data = split, .type = type};
    assert_ok(attn_transpose_qkv(&args, &error));
    assert_same_bytes(expected, split, bytes);
    args.x = (attn_tensor){.data = split, .type = type};
    args.y = (attn_tensor_out){back, type, side.batch_stride, 0, side.row_stride, 1};
    assert_ok(attn_transpose_output(&args, &error));
    assert_null(error.field);
    assert_same_bytes(merged, back, count * element);

    guarded_free(merged);
    guarded_free(back);
    guarded_free(split);
    guarded_free(expected);
}

static void round_trip_of_every_head_size(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t head_size = 1; head_size <= 70; head_size++)
        for (size_t i = 0; i < (test_quick() ? 2 : 12); i++) {
            struct shape shape = {.batch = random_between(&random, 1, 3),
                                  .len = random_between(&random, 1, 12),
                                  .heads = random_between(&random, 1, 6),
                                  .head_size = head_size,
                                  .row_gap = random_below(&random, 2) * random_below(&random, 20),
                                  .batch_gap = random_below(&random, 2) * random_below(&random, 20)};
            check_shape(&random, &shape, random_type(&random), i % 2 ? FLUSH_START : FLUSH_END);
        }
}

static void round_trip_of_usual_sizes(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    /* Rows of floats, or of halves, of the last ones lie 4 KiB apart. */
    const struct shape shapes[] = {{2, 6, 5, 20, 0, 0},     {1, 1, 1, 1, 0, 0},     {1, 128, 12, 64, 0, 0},
                                   {3, 17, 4, 128, 1, 11},  {2, 33, 8, 80, 16, 32}, {1, 200, 2, 7, 3, 0},
                                   {2, 37, 16, 64, 0, 128}, {2, 21, 32, 64, 0, 0},  {1, 1601, 16, 64, 0, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_shape(&random, &shapes[i], ATTN_F32, FLUSH_END);
        check_shape(&random, &shapes[i], i % 2 ? ATTN_BF16 : ATTN_F16, FLUSH_END);
    }
}

static void touches_nothing_for_empty_sizes(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < 3; i++) {
        struct shape shape = {.batch = i == 0 ? 0 : 2, .len = i == 1 ? 0 : 3, .heads = i == 2 ? 0 : 4, .head_size = 5};
        check_shape(&random, &shape, ATTN_F32, FLUSH_END);
        attn_transpose_args args = args_of(&shape);
        assert_ok(attn_transpose_qkv(&args, NULL));
        assert_ok(attn_transpose_output(&args, NULL));
    }
}

/* ---- From one type to another ---- */

/* x, of type `from`, in the layouts of both sides: y is x rounded to `to`. */
static void check_conversion(struct test_random *random, const struct tensor *numbers, attn_type from, attn_type to,
                             bool merge) {
    struct tensor x = tensor_copy(numbers, merge ? LAYOUT_GAPS : LAYOUT_BSHD, FLUSH_END);
    struct tensor y = tensor_new(merge ? LAYOUT_BSHD : LAYOUT_GAPS, x.batch, x.heads, x.len, x.size, FLUSH_END);
    void *x_memory, *y_memory;
    enum flush flush = random_below(random, 2) ? FLUSH_END : FLUSH_START;
    attn_transpose_args args = {.isa = test_isa(), .batch = x.batch, .len = x.len, .heads = x.heads};
    args.head_size = x.size;
    args.x = typed_input(&x, from, flush, &x_memory);
    args.y = typed_output(&y, to, flush, &y_memory);
    *(merge ? &args.y.head_stride : &args.x.head_stride) = 0;
    assert_ok((merge ? attn_transpose_output : attn_transpose_qkv)(&args, NULL));
    typed_read(&y, to, y_memory);
    tensor_round(&x, to);
    assert_same_tensor(&x, &y);
    guarded_free(x_memory);
    tensor_free(&x);
    tensor_free(&y);
}

static void converts_every_type(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const attn_type types[] = {ATTN_F32, ATTN_BF16, ATTN_F16};
    for (size_t i = 0; i < (test_quick() ? 8 : 60) * 9; i++) {
        attn_type from = types[i % 3], to = types[i / 3 % 3];
        size_t size = i % 4 ? random_between(&random, 1, 70) : random_between(&random, 250, 530);
        struct tensor numbers =
            tensor_random(&random, i % 2 ? TEST_WILD : TEST_NORMAL, LAYOUT_BHSD, random_between(&random, 1, 3),
                          random_between(&random, 1, 4), random_between(&random, 1, 9), size, FLUSH_END);
        tensor_round(&numbers, from);
        test_case("from=%d to=%d batch=%zu heads=%zu len=%zu size=%zu", (int)from, (int)to, numbers.batch,
                  numbers.heads, numbers.len, size);
        check_conversion(&random, &numbers, from, to, false);
        check_conversion(&random, &numbers, from, to, true);
        tensor_free(&numbers);
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
        cmocka_unit_test(converts_every_type),
    };
    return test_run(tests);
}
