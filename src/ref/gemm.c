/* Reference GEMM: one column a panel, one chain of multiply-adds an element. */
#include <math.h>
#include <string.h>

#include "ref/gemm.h"

static float load(const char *element) {
    float x;
    memcpy(&x, element, sizeof x);
    return x;
}

static void pack(const struct attn_pack_args *args) {
    const char *b = args->b;
    for (size_t j = 0; j < args->n; j++)
        for (size_t p = 0; p < args->k; p++) {
            float *column = (float *)((char *)args->packed.data + (args->column + j) * args->packed.stride);
            column[args->row + p] = load(b + p * args->k_stride + j * args->n_stride);
        }
}

static int finite(const struct attn_panels *b, size_t row, size_t k, size_t n) {
    for (size_t j = 0; j < n; j++)
        for (size_t p = 0; p < k; p++)
            if (!isfinite(((const float *)((const char *)b->data + j * b->stride))[row + p]))
                return 0;
    return 1;
}

/* Chains computed side by side: on processors without the instruction one chain alone would mostly wait for its
 * emulated fma. */
enum { CHAINS = 8 };

/* Element [p][j] of B is at b + p * k_stride + j * n_stride. */
static void run_chains(const struct attn_gemm_args *args, size_t i, size_t j, size_t n, const char *b, size_t k_stride,
                       size_t n_stride) {
    const float *a = (const float *)((const char *)args->a + i * args->a_stride);
    float *c = (float *)((char *)args->c + i * args->c_stride);
    float acc[CHAINS];
    for (size_t l = 0; l < n; l++)
        acc[l] = ref_start(args, c, i, j + l);
    for (size_t p = 0; p < args->k; p++) {
        for (size_t l = 0; l < n; l++)
            acc[l] = attn_fmaf(a[p], load(b + p * k_stride + (j + l) * n_stride), acc[l]);
    }
    for (size_t l = 0; l < n; l++)
        c[j + l] = acc[l];
}

static void run_strided(const struct attn_gemm_args *args, const char *b, size_t k_stride, size_t n_stride) {
    for (size_t i = 0; i < args->m; i++)
        for (size_t j = 0, n; j < args->n; j += n) {
            n = args->n - j < CHAINS ? args->n - j : CHAINS;
            run_chains(args, i, j, n, b, k_stride, n_stride);
        }
}

static void run(const struct attn_gemm_args *args) {
    run_strided(args, (const char *)args->b.data + args->column * args->b.stride + args->row * sizeof(float),
                sizeof(float), args->b.stride);
}

static void run_rows(const struct attn_gemm_args *args) {
    run_strided(args, args->b.data, args->b.stride, sizeof(float));
}

static void run_columns(const struct attn_gemm_args *args) {
    run_strided(args, args->b.data, sizeof(float), args->b.stride);
}

const struct attn_gemm_kernel attn_ref_gemm_f32 = {.name = "scalar_1x1",
                                                   .arithmetic = ATTN_CLASS_F32,
                                                   .b = {.cols = 1, .k_unit = 1},
                                                   .rows = 1,
                                                   .pack = pack,
                                                   .finite = finite,
                                                   .run = run,
                                                   .run_rows = run_rows,
                                                   .run_columns = run_columns};
