/* A layer of multi-head attention whose answer can be worked out by hand: all projections are the identity and the two
 * visible keys are equal, so that y is the mean of their values, (1 + 3) / 2. Key 3 is beyond the valid length. */
#include <attn/alloc.h>
#include <stdio.h>

int main(void) {
    const float identity[] = {1, 0, 0, 1}, q[] = {5, 7}, k[] = {1, 2, 1, 2, 9, 9}, v[] = {1, 1, 3, 3, 99, 99};
    const int64_t valid_len = 2;
    float y[2] = {0};
    attn_layer_config config = {.query_width = 2, .key_width = 2, .value_width = 2, .hidden = 2, .heads = 2};
    config.w_q = config.w_k = config.w_v = config.w_o = attn_linear_dense(identity, ATTN_F32, 2, NULL);
    attn_layer_args args = {.batch = 1, .q_len = 1, .kv_len = 3, .y = attn_rows_out_dense(y, ATTN_F32, 1, 2)};
    args.q = attn_rows_dense(q, ATTN_F32, 1, 2);
    args.k = attn_rows_dense(k, ATTN_F32, 3, 2);
    args.v = attn_rows_dense(v, ATTN_F32, 3, 2);
    args.options.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = &valid_len};

    attn_layer *layer = NULL;
    attn_buffer workspace = {NULL, 0};
    attn_error error = {0};
    if (attn_layer_new(&config, &layer, &error) || attn_layer_forward_in(layer, &args, &workspace, &error)) {
        fprintf(stderr, "%s: %s\n", error.field, attn_status_string(error.status));
        return 1;
    }
    printf("libattn %s on %s: y[0] = %.3f (expected 2.000)\n", attn_version(), attn_isa_name(attn_isa_chosen()), y[0]);
    attn_buffer_free(&workspace);
    attn_free(layer);
    return y[0] != 2 || y[1] != 2;
}
