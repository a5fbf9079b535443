/* The constructors of dense tensors and weights: where an element lies is what their order of dimensions says. */
#include "support.h"

enum { BATCH = 2, HEADS = 3, ROWS = 5, SIZE = 7 };

static const float elements[BATCH * HEADS * ROWS * SIZE];

static size_t index_of(const attn_tensor *t, size_t b, size_t h, size_t i, size_t c) {
    return b * t->batch_stride + h * t->head_stride + i * t->row_stride + c * t->col_stride;
}

static void tensors_are_dense(void **state) {
    (void)state;
    attn_tensor split = attn_tensor_dense(elements, ATTN_F32, HEADS, ROWS, SIZE);
    attn_tensor merged = attn_tensor_merged(elements, ATTN_F32, HEADS, ROWS, SIZE);
    attn_tensor rows = attn_rows_dense(elements, ATTN_F32, ROWS, SIZE);
    for (size_t n = 0; n < BATCH * HEADS * ROWS * SIZE; n++) {
        size_t c = n % SIZE, i = n / SIZE % ROWS, h = n / (SIZE * ROWS) % HEADS, b = n / (SIZE * ROWS * HEADS);
        assert_int_equal(index_of(&split, b, h, i, c), n);
        assert_int_equal(index_of(&merged, b, h, i, c), ((b * ROWS + i) * HEADS + h) * SIZE + c);
        assert_int_equal(index_of(&rows, b, 0, i, c), (b * ROWS + i) * SIZE + c);
    }
    assert_int_equal(rows.head_stride, 0); /* where there are no heads */
}

static void data_and_type_are_kept(void **state) {
    (void)state;
    static float out[1];
    const attn_tensor inputs[] = {attn_tensor_dense(elements, ATTN_BOOL, HEADS, ROWS, SIZE),
                                  attn_tensor_merged(elements, ATTN_BOOL, HEADS, ROWS, SIZE),
                                  attn_rows_dense(elements, ATTN_BOOL, ROWS, SIZE)};
    const attn_tensor_out outputs[] = {attn_tensor_out_dense(out, ATTN_BOOL, HEADS, ROWS, SIZE),
                                       attn_tensor_out_merged(out, ATTN_BOOL, HEADS, ROWS, SIZE),
                                       attn_rows_out_dense(out, ATTN_BOOL, ROWS, SIZE)};
    for (size_t i = 0; i < 3; i++) {
        const attn_tensor *in = &inputs[i];
        const attn_tensor_out *o = &outputs[i];
        assert_ptr_equal(in->data, elements);
        assert_ptr_equal(o->data, out);
        assert_int_equal(in->type, ATTN_BOOL);
        assert_int_equal(o->type, ATTN_BOOL);
        assert_int_equal(o->batch_stride, in->batch_stride);
        assert_int_equal(o->head_stride, in->head_stride);
        assert_int_equal(o->row_stride, in->row_stride);
        assert_int_equal(o->col_stride, in->col_stride);
    }
}

/* w[k, n] in both orders. */
static void weights_are_dense(void **state) {
    (void)state;
    enum { IN = 5, OUT = 7 };
    const float bias[OUT] = {0};
    attn_linear w = attn_linear_dense(elements, ATTN_BF16, OUT, bias);
    attn_linear transposed = attn_linear_transposed(elements, ATTN_BF16, IN, bias);
    for (size_t k = 0; k < IN; k++) {
        for (size_t n = 0; n < OUT; n++) {
            assert_int_equal(k * w.in_stride + n * w.out_stride, k * OUT + n);
            assert_int_equal(k * transposed.in_stride + n * transposed.out_stride, n * IN + k);
        }
    }
    assert_int_equal(w.type, ATTN_BF16);
    assert_int_equal(transposed.type, ATTN_BF16);
    assert_ptr_equal(w.weight, elements);
    assert_ptr_equal(transposed.weight, elements);
    assert_ptr_equal(w.bias, bias);
    assert_ptr_equal(transposed.bias, bias);
    assert_null(attn_linear_dense(elements, ATTN_F32, OUT, NULL).bias);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_dense),
        cmocka_unit_test(data_and_type_are_kept),
        cmocka_unit_test(weights_are_dense),
    };
    return test_run(tests);
}
