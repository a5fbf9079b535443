/* A product with weights of 4 bits: blocks of 64 along k share a scale of F32, as in ONNX's MatMulNBits. Prints the
 * bytes of the packed weights and the largest error, over the largest result, beside the same product in F32. */
#include "support.h"
#include <math.h>
#include <string.h>

enum { ROWS = 3, IN = 512, OUT = 96, BLOCK = 64, BLOCKS = IN / BLOCK };

static attn_error error;

/* Weights [OUT][IN] become integers of 4 bits, two to a byte, the first in the lower half, and a scale for each
 * block: a weight is (integer - 8) * scale. */
static void quantise(const float *weights, uint8_t *integers, float *scales) {
    for (size_t b = 0; b < (size_t)OUT * BLOCKS; b++) {
        const float *w = weights + b * BLOCK;
        float most = 0;
        for (size_t i = 0; i < BLOCK; i++)
            most = fmaxf(most, fabsf(w[i]));
        scales[b] = most / 7;
        for (size_t i = 0; i < BLOCK; i += 2) {
            const int low = (int)lrintf(w[i] / scales[b]) + 8, high = (int)lrintf(w[i + 1] / scales[b]) + 8;
            integers[(b * BLOCK + i) / 2] = (uint8_t)(low | high << 4);
        }
    }
}

/* y = x w. Returns the bytes of the packed weights. */
static size_t multiply(const attn_linear *w, const float *x, float *y) {
    attn_gemm_config config = {.k = IN, .n = OUT, .w = *w};
    size_t bytes = 0;
    attn_gemm *gemm;
    check(attn_gemm_size(&config, &bytes, &error), &error);
    void *memory = allocate(bytes);
    check(attn_gemm_create(&config, memory, bytes, &gemm, &error), &error);
    attn_gemm_run_args args = {.m = ROWS};
    args.x = attn_rows_dense(x, ATTN_F32, ROWS, IN);
    args.y = attn_rows_out_dense(y, ATTN_F32, ROWS, OUT);
    check(attn_gemm_workspace(gemm, &args, &args.workspace_bytes, &error), &error);
    args.workspace = allocate(args.workspace_bytes); /* for rows rounded to integers of 8 bits */
    check(attn_gemm_run(gemm, &args, &error), &error);
    free(args.workspace);
    free(memory);
    return bytes;
}

int main(void) {
    static uint8_t integers[OUT * IN / 2];
    static float scales[OUT * BLOCKS], exact[ROWS * OUT], y[ROWS * OUT];
    float *weights = numbers(1, OUT * IN), *x = numbers(2, ROWS * IN), difference = 0, largest = 0;
    quantise(weights, integers, scales);
    const attn_linear f32 = attn_linear_transposed(weights, ATTN_F32, IN, NULL);
    attn_linear int4 = attn_linear_transposed(integers, ATTN_INT4, IN, NULL);
    int4.scales = scales;
    int4.scale_type = ATTN_F32;
    int4.block = BLOCK;
    const size_t f32_bytes = multiply(&f32, x, exact), int4_bytes = multiply(&int4, x, y);
    for (size_t i = 0; i < ROWS * OUT; i++) {
        difference = fmaxf(difference, fabsf(y[i] - exact[i]));
        largest = fmaxf(largest, fabsf(exact[i]));
    }
    printf("packed weights: %zu KiB in F32, %zu in INT4; largest error %.3f of the largest result\n", f32_bytes / 1024,
           int4_bytes / 1024, (double)(difference / largest));
    free(x);
    free(weights);
    return !(difference < 0.1f * largest) || int4_bytes * 6 > f32_bytes;
}
