/* Reference GEMM of class BF16: one column a panel, one chain of pairs an element. */
#include "ref/gemm_bf16.h"

static void run(const struct attn_gemm_args *args) {
    size_t before = args->row % 2; /* elements of the first pair that the product lacks */
    for (size_t i = 0; i < args->m; i++)
        for (size_t j = 0; j < args->n; j++) {
            float *c = (float *)((char *)args->c + i * args->c_stride), acc = start(args, c, i, j);
            struct side side = {(const float *)((const char *)args->a + i * args->a_stride),
                                row_at(&args->b, args->column + j, args->row), args->k};
            for (size_t p = 0; args->k > 0 && p < args->k + before; p += 2)
                acc = multiply_add(&side, p - before, multiply_add(&side, p + 1 - before, acc));
            c[j] = acc;
        }
}

const struct attn_gemm_kernel attn_ref_gemm_bf16 = {.name = "scalar_bf16_1x1",
                                                    .arithmetic = ATTN_CLASS_BF16,
                                                    .a = ATTN_F32,
                                                    .b = {.type = ATTN_BF16, .cols = 1, .k_unit = 2},
                                                    .rows = 1,
                                                    .pack = pack,
                                                    .finite = finite,
                                                    .run = run};
