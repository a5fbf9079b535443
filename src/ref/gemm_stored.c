/* Reference GEMM of class F32 over elements of B that are stored in fewer bits, and widened: one column a panel, one
 * chain an element. */
#include <math.h>
#include <string.h>

#include "ref/convert.h"
#include "ref/gemm.h"
#include "types.h"

/* Row `row` of a column of packed B. */
static char *row_at(const struct attn_panels *b, attn_type type, size_t column, size_t row) {
    return (char *)b->data + column * b->stride + row * attn_type_size(type);
}

static float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static float load(attn_type type, const char *element) {
    uint16_t half;
    uint8_t byte;
    if (type == ATTN_F16) {
        memcpy(&half, element, sizeof half);
        return from_bits(ref_widen_f16(half));
    }
    memcpy(&byte, element, sizeof byte);
    if (type == ATTN_INT8)
        return (float)(int8_t)byte;
    return from_bits(type == ATTN_F8_E4M3 ? ref_widen_e4m3(byte) : ref_widen_e5m2(byte));
}

static void pack(attn_type type, const struct attn_pack_args *args) {
    const char *b = args->b;
    for (size_t j = 0; j < args->n; j++)
        for (size_t p = 0; p < args->k; p++)
            memcpy(row_at(&args->packed, type, args->column + j, args->row + p),
                   b + p * args->k_stride + j * args->n_stride, attn_type_size(type));
}

static int finite(attn_type type, const struct attn_panels *b, size_t row, size_t k, size_t n) {
    for (size_t j = 0; j < n; j++)
        for (size_t p = 0; p < k; p++)
            if (!isfinite(load(type, row_at(b, type, j, row + p))))
                return 0;
    return 1;
}

static float element(attn_type type, const struct attn_gemm_args *args, size_t i, size_t j) {
    const float *a = (const float *)((const char *)args->a + i * args->a_stride);
    const float *c = (const float *)((const char *)args->c + i * args->c_stride);
    float acc = ref_start(args, c, i, j);
    for (size_t p = 0; p < args->k; p++)
        acc = attn_fmaf(a[p], load(type, row_at(&args->b, type, args->column + j, args->row + p)), acc);
    return acc;
}

static void run(attn_type type, const struct attn_gemm_args *args) {
    for (size_t i = 0; i < args->m; i++)
        for (size_t j = 0; j < args->n; j++)
            ((float *)((char *)args->c + i * args->c_stride))[j] = element(type, args, i, j);
}

#define STORED(name_, type_)                                                                                           \
    static void pack_##name_(const struct attn_pack_args *args) {                                                      \
        pack(type_, args);                                                                                             \
    }                                                                                                                  \
    static int finite_##name_(const struct attn_panels *b, size_t row, size_t k, size_t n) {                           \
        return finite(type_, b, row, k, n);                                                                            \
    }                                                                                                                  \
    static void run_##name_(const struct attn_gemm_args *args) {                                                       \
        run(type_, args);                                                                                              \
    }                                                                                                                  \
    const struct attn_gemm_kernel attn_ref_gemm_##name_ = {.name = "scalar_" #name_ "_1x1",                            \
                                                           .arithmetic = ATTN_CLASS_F32,                               \
                                                           .b = {.type = type_, .cols = 1, .k_unit = 1},               \
                                                           .rows = 1,                                                  \
                                                           .pack = pack_##name_,                                       \
                                                           .finite = finite_##name_,                                   \
                                                           .run = run_##name_};
STORED(f16, ATTN_F16)
STORED(s8, ATTN_INT8)
STORED(e4m3, ATTN_F8_E4M3)
STORED(e5m2, ATTN_F8_E5M2)
