/* Reference GEMM: one column a panel, one fmaf chain an element. */
#include <math.h>

#include "kernels.h"

static void pack(const struct attn_pack_args *args) {
    for (size_t j = 0; j < args->n; j++)
        for (size_t p = 0; p < args->k; p++)
            args->packed[j * args->panel_stride + p] = args->b[p * args->k_stride + j * args->n_stride];
}

static float start(const struct attn_gemm_args *args, size_t i, size_t j) {
    if (args->accumulate)
        return args->c[i * args->c_stride + j] * (args->scale ? args->scale[i] : 1.0f);
    return args->bias ? args->bias[j] : 0.0f;
}

static void run_strided(const struct attn_gemm_args *args, size_t k_stride, size_t n_stride) {
    for (size_t i = 0; i < args->m; i++) {
        for (size_t j = 0; j < args->n; j++) {
            const float *a = args->a + i * args->a_stride, *b = args->b + j * n_stride;
            float acc = start(args, i, j);
            for (size_t p = 0; p < args->k; p++) {
                if (args->block && p > 0 && p % args->block == 0)
                    acc *= args->scale[p / args->block * args->scale_stride + i];
                acc = fmaf(a[p], b[p * k_stride], acc);
            }
            args->c[i * args->c_stride + j] = acc;
        }
    }
}

static void run(const struct attn_gemm_args *args) {
    run_strided(args, 1, args->panel_stride);
}

static void run_rows(const struct attn_gemm_args *args) {
    run_strided(args, args->b_stride, 1);
}

static void run_columns(const struct attn_gemm_args *args) {
    run_strided(args, 1, args->b_stride);
}

const struct attn_gemm_kernel attn_ref_gemm = {.name = "scalar_1x1",
                                               .rows = 1,
                                               .cols = 1,
                                               .pack = pack,
                                               .run = run,
                                               .run_rows = run_rows,
                                               .run_columns = run_columns,
                                               .chained_rows = ATTN_MAX_ROWS};
