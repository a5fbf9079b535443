/* A layer of multi-head attention whose answer can be worked out by hand. All projections are the identity and the two
 * visible keys are equal, so each weighs 1/2 and y is the mean of their values: (1 + 3) / 2. The third key, and its
 * value of 99, is behind the valid length. */
#include <attn/attn.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef _WIN32 /* which has no aligned_alloc */
#include <malloc.h>
#define aligned_alloc(alignment, bytes) _aligned_malloc(bytes, alignment)
#define free                            _aligned_free
#endif

static void *allocate(size_t bytes) {
    return aligned_alloc(ATTN_ALIGNMENT, (bytes / ATTN_ALIGNMENT + 1) * ATTN_ALIGNMENT);
}

static void print(const attn_error *error) {
    char text[128];
    attn_error_text(error, text, sizeof text);
    fprintf(stderr, "%s\n", text);
}

int main(void) {
    const float identity[] = {1, 0, 0, 1}, q[] = {5, 7}, k[] = {1, 2, 1, 2, 9, 9}, v[] = {1, 1, 3, 3, 99, 99};
    const int64_t valid_len = 2;
    float y[2] = {0};
    attn_layer_config config = {.query_width = 2, .key_width = 2, .value_width = 2, .hidden = 2, .heads = 2};
    config.w_q = config.w_k = config.w_v = config.w_o = (attn_linear){identity, .in_stride = 2, .out_stride = 1};
    attn_layer_args args = {.batch = 1, .q_len = 1, .kv_len = 3, .y = {y, .row_stride = 2}};
    args.q = (attn_tensor){q, .batch_stride = 2, .row_stride = 2};
    args.k = (attn_tensor){k, .batch_stride = 6, .row_stride = 2};
    args.v = (attn_tensor){v, .batch_stride = 6, .row_stride = 2};
    args.options.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = &valid_len};
    void *memory = NULL, *workspace = NULL;
    attn_layer *layer = NULL;
    attn_error error = {0};
    size_t bytes = 0;
    attn_status status;
    if ((status = attn_layer_size(&config, &bytes, &error)) ||
        (status = attn_layer_create(&config, memory = allocate(bytes), bytes, &layer, &error)) ||
        (status = attn_layer_workspace(layer, &args, &bytes, &error)) ||
        (status = attn_layer_forward(layer, &args, workspace = allocate(bytes), bytes, &error)))
        print(&error);
    else
        printf("libattn %s on %s: y[0] = %.3f (expected 2.000)\n", attn_version(), attn_isa_name(attn_isa_chosen()),
               y[0]);
    free(workspace);
    free(memory);
    return status != ATTN_OK || y[0] != 2 || y[1] != 2;
}
