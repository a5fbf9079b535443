/* Reference GEMM of class BF16_TILE: one column a panel, two chains for each ATTN_TILE_K rows of it. */
#include "ref/gemm_bf16.h"

/* The sum over rows p .. p + ATTN_TILE_K - 1 of the product, of which some may be missing. */
static float sum_of_rows(const struct side *side, size_t p) {
    float even = 0.0f, odd = 0.0f;
    for (size_t i = 0; i < ATTN_TILE_K; i += 2) {
        even = multiply_add(side, p + i, even);
        odd = multiply_add(side, p + i + 1, odd);
    }
    return attn_fmaf_flushed(1.0f, even, odd);
}

static void run(const struct attn_gemm_args *args) {
    size_t before = args->row % ATTN_TILE_K; /* rows that the product lacks of the first ATTN_TILE_K */
    for (size_t i = 0; i < args->m; i++)
        for (size_t j = 0; j < args->n; j++) {
            float *c = (float *)((char *)args->c + i * args->c_stride), acc = start(args, c, i, j);
            struct side side = {(const float *)((const char *)args->a + i * args->a_stride),
                                row_at(&args->b, args->column + j, args->row), args->k};
            for (size_t p = 0; args->k > 0 && p < args->k + before; p += ATTN_TILE_K)
                acc = attn_fmaf_flushed(1.0f, acc, sum_of_rows(&side, p - before));
            c[j] = acc;
        }
}

const struct attn_gemm_kernel attn_ref_gemm_bf16_tile = {.name = "scalar_bf16_tile_1x1",
                                                         .arithmetic = ATTN_CLASS_BF16_TILE,
                                                         .a = ATTN_F32,
                                                         .b = {.type = ATTN_BF16, .cols = 1, .k_unit = 2},
                                                         .rows = 1,
                                                         .pack = pack,
                                                         .finite = finite,
                                                         .run = run};
