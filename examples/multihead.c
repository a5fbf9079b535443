/* PyTorch's nn.MultiheadAttention(8, 2, batch_first=True) with both of its masks, against the numbers that PyTorch
 * gives (multihead.py). In PyTorch's masks True means hidden, in the library's visible: mask_hides says that this one
 * is PyTorch's.
 *
 *     attn_mask          [queries, keys]: options.mask, the same for all sequences and heads by strides of 0; one of
 *                        floats would be options.bias
 *     key_padding_mask   [batch, keys]: behind each sequence, so a valid length, whose keys cost nothing. Before it,
 *                        options.starts; anywhere else, or it into options.mask as [batch, 1, queries, keys] */
#include "support.h"
#include <math.h>

enum { WIDTH = 8, HEADS = 2, BATCH = 2, QUERIES = 3, KEYS = 5 };

static const unsigned char attn_mask[QUERIES][KEYS] = {{0, 1, 0, 0, 1}, {0, 0, 1, 0, 0}, {0, 0, 0, 0, 0}};
static const unsigned char key_padding_mask[BATCH][KEYS] = {{0, 0, 0, 0, 0}, {0, 0, 0, 1, 1}};

static const float expected_y[BATCH * QUERIES][WIDTH] = {
    {0.122913f, 1.430324f, 0.508327f, 0.193320f, -0.125314f, 0.070929f, -0.923476f, -1.370858f},
    {-0.567893f, 1.636978f, 1.134833f, 1.933523f, 0.234936f, 1.513145f, -2.891253f, -3.877565f},
    {1.065263f, 0.801687f, 0.559416f, 3.207954f, -0.356437f, 0.564538f, -1.989981f, -2.321989f},
    {0.360940f, 0.729554f, 0.996233f, 2.201507f, -1.192219f, 0.574785f, -1.053782f, 0.199706f},
    {0.330144f, 0.772108f, 0.577476f, 3.777634f, -2.305049f, 1.318158f, -1.063246f, -0.008298f},
    {0.011361f, 1.182350f, 0.698526f, 3.257630f, -1.755179f, 1.298578f, -1.251020f, -0.562388f},
};
/* Of both heads, averaged. */
static const float expected_weights[BATCH * QUERIES][KEYS] = {
    {0.367355f, 0.000000f, 0.403927f, 0.228718f, 0.000000f}, {0.692792f, 0.190457f, 0.000000f, 0.025593f, 0.091158f},
    {0.490208f, 0.197873f, 0.143409f, 0.038387f, 0.130122f}, {0.368250f, 0.000000f, 0.631750f, 0.000000f, 0.000000f},
    {0.428678f, 0.571322f, 0.000000f, 0.000000f, 0.000000f}, {0.253752f, 0.539124f, 0.207125f, 0.000000f, 0.000000f},
};
static attn_error error;

static attn_layer *make_layer(void **memory) {
    float *in_proj_weight = numbers(1, 3 * WIDTH * WIDTH), *in_proj_bias = numbers(2, 3 * WIDTH);
    float *out_weight = numbers(3, WIDTH * WIDTH), *out_bias = numbers(4, WIDTH);
    attn_layer_config config = {.query_width = WIDTH, .key_width = WIDTH, .value_width = WIDTH, .hidden = WIDTH};
    config.heads = HEADS;
    config.w_q = attn_linear_transposed(in_proj_weight, ATTN_F32, WIDTH, in_proj_bias);
    config.w_k = attn_linear_transposed(in_proj_weight + WIDTH * WIDTH, ATTN_F32, WIDTH, in_proj_bias + WIDTH);
    config.w_v = attn_linear_transposed(in_proj_weight + 2 * WIDTH * WIDTH, ATTN_F32, WIDTH, in_proj_bias + 2 * WIDTH);
    config.w_o = attn_linear_transposed(out_weight, ATTN_F32, WIDTH, out_bias);
    attn_layer *layer = NULL;
    size_t bytes = 0;
    check(attn_layer_size(&config, &bytes, &error), &error);
    check(attn_layer_create(&config, *memory = allocate(bytes), bytes, &layer, &error), &error);
    free(in_proj_weight); /* packed in `memory` */
    free(in_proj_bias);
    free(out_weight);
    free(out_bias);
    return layer;
}

/* How many keys are not padding, which must all be at the end. */
static int64_t valid_length(const unsigned char *padding) {
    int64_t length = KEYS;
    while (length > 0 && padding[length - 1])
        length--;
    for (int64_t key = 0; key < length; key++)
        if (padding[key])
            exit(EXIT_FAILURE);
    return length;
}

static float difference(const float *x, const float *expected, size_t count) {
    float most = 0;
    for (size_t i = 0; i < count; i++)
        most = fmaxf(most, fabsf(x[i] - expected[i]));
    return most;
}

int main(void) {
    float *query = numbers(5, BATCH * QUERIES * WIDTH), *key = numbers(6, BATCH * KEYS * WIDTH);
    float y[BATCH * QUERIES][WIDTH], weights[BATCH][HEADS][QUERIES][KEYS], mean[BATCH * QUERIES][KEYS];
    int64_t lengths[BATCH];
    for (size_t b = 0; b < BATCH; b++)
        lengths[b] = valid_length(key_padding_mask[b]);

    attn_layer_args args = {.batch = BATCH, .q_len = QUERIES, .kv_len = KEYS};
    args.q = (attn_tensor){query, .batch_stride = QUERIES * WIDTH, .row_stride = WIDTH};
    args.k = args.v = (attn_tensor){key, .batch_stride = KEYS * WIDTH, .row_stride = WIDTH};
    args.y = (attn_tensor_out){y, .batch_stride = QUERIES * WIDTH, .row_stride = WIDTH};
    args.options.mask = (attn_tensor){attn_mask, ATTN_BOOL, .row_stride = KEYS, .col_stride = 1};
    args.options.mask_hides = 1;
    args.options.valid = (attn_valid_lens){ATTN_VALID_PER_SEQUENCE, .lens.i64 = lengths};
    args.options.weights.data = weights; /* need_weights=True */

    void *memory = NULL;
    attn_layer *layer = make_layer(&memory);
    forward(layer, &args);

    for (size_t i = 0; i < BATCH * QUERIES * KEYS; i++) {
        const size_t b = i / (QUERIES * KEYS), row = i / KEYS % QUERIES, column = i % KEYS;
        mean[b * QUERIES + row][column] = (weights[b][0][row][column] + weights[b][1][row][column]) / HEADS;
    }
    const float of_y = difference(y[0], expected_y[0], BATCH * QUERIES * WIDTH);
    const float of_weights = difference(mean[0], expected_weights[0], BATCH * QUERIES * KEYS);
    printf("largest difference from PyTorch: outputs %g, weights %g\n", (double)of_y, (double)of_weights);
    free(memory);
    free(query);
    free(key);
    return !(of_y < 3e-6f && of_weights < 1e-6f);
}
