/* Reference of decode of class BF16: products of the class' reference GEMM, one of queries and keys, and one for each
 * block of probabilities and values. */
#include "kernels.h"

extern const struct attn_gemm_kernel attn_ref_gemm_bf16;

static void scores(const struct attn_decode_args *args) {
    attn_ref_gemm_bf16.run(&(struct attn_gemm_args){.m = args->rows,
                                                    .n = args->keys,
                                                    .k = args->size,
                                                    .a = args->x,
                                                    .a_stride = args->x_stride,
                                                    .b = args->b,
                                                    .column = args->first,
                                                    .c = args->y,
                                                    .c_stride = args->y_stride * sizeof(float)});
}

static void values(const struct attn_decode_args *args) {
    for (size_t key = 0; key < args->keys; key += ATTN_BLOCK) {
        size_t left = args->keys - key;
        attn_ref_gemm_bf16.run(
            &(struct attn_gemm_args){.m = args->rows,
                                     .n = args->size,
                                     .k = left < ATTN_BLOCK ? left : ATTN_BLOCK,
                                     .a = (const float *)args->x + key,
                                     .a_stride = args->x_stride,
                                     .b = args->b,
                                     .row = args->first + key,
                                     .start = key > 0 ? ATTN_START_SCALE : args->start,
                                     .factors = args->factors + key / ATTN_BLOCK * args->factor_stride,
                                     .c = args->y,
                                     .c_stride = args->y_stride * sizeof(float)});
    }
}

const struct attn_decode_kernel attn_ref_decode_bf16 = {.name = "scalar_bf16",
                                                        .arithmetic = ATTN_CLASS_BF16,
                                                        .x = ATTN_F32,
                                                        .type = ATTN_BF16,
                                                        .rows = 2,
                                                        .scores = scores,
                                                        .values = values};
