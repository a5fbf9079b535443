/* Reference GEMM: one column a panel, one chain of multiply-adds an element. */
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

/* Chains computed side by side: on processors without the instruction one chain alone would mostly wait for its
 * emulated fma. */
enum { CHAINS = 8 };

static void run_chains(const struct attn_gemm_args *args, size_t i, size_t j, size_t n, size_t k_stride,
                       size_t n_stride) {
    const float *a = args->a + i * args->a_stride, *b = args->b + j * n_stride;
    float acc[CHAINS];
    for (size_t l = 0; l < n; l++)
        acc[l] = start(args, i, j + l);
    for (size_t p = 0; p < args->k; p++) {
        if (args->block && p > 0 && p % args->block == 0)
            for (size_t l = 0; l < n; l++)
                acc[l] *= args->scale[p / args->block * args->scale_stride + i];
        for (size_t l = 0; l < n; l++)
            acc[l] = attn_fmaf(a[p], b[p * k_stride + l * n_stride], acc[l]);
    }
    for (size_t l = 0; l < n; l++)
        args->c[i * args->c_stride + j + l] = acc[l];
}

static void run_strided(const struct attn_gemm_args *args, size_t k_stride, size_t n_stride) {
    for (size_t i = 0; i < args->m; i++)
        for (size_t j = 0, n; j < args->n; j += n) {
            n = args->n - j < CHAINS ? args->n - j : CHAINS;
            run_chains(args, i, j, n, k_stride, n_stride);
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
