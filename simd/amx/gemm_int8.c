/* GEMM of class INT8: a group is 64 rows. Panels are those of AVX-512's kernel of the class, which packs them, with as
 * many columns as a tile has. */
#define PRODUCT_FN(name)      ISA_FN(int8_##name)
#define MULTIPLY_ADD(c, a, b) tile_multiply_add_quads(c, a, b)

#include "part.h"

#include "../avx512/quad_registers.h"

enum { ELEMENT = sizeof(int8_t) };

/* A panel has whole units, and rows of A zeros beyond. */
INLINE uint32_t unit_mask(size_t row, struct rows_there there) {
    (void)row, (void)there;
    return UINT32_MAX;
}

#include "remainder.h"

struct memory {
    _Alignas(TILE_BYTES) int32_t sums[ROWS * WIDTH];
    struct spare spare;
    struct part part;
};

INLINE void take_columns(const struct product *product, struct part *part) {
    take_packed_columns(product, part);
}

INLINE void add_groups(const struct product *product, const struct part *part, const int rows, const int cols) {
    add_all_groups(product, part, &product->memory->spare, rows, cols);
}

struct column {
    vec scale;
};

INLINE struct column column_of(const struct product *product, const struct part *part, size_t j) {
    const char *panel = product->b + (part->j + j) / COLS * product->args->b.stride;
    size_t units = (product->args->k + UNIT - 1) / UNIT;
    return (struct column){vec_load((const float *)(const void *)(panel + units * TILE_BYTES))};
}

INLINE vec add_sums(const struct column *column, vec_int sums, const void *a, vec t) {
    (void)column, (void)a;
    return vec_add(t, vec_from_int(sums));
}

INLINE vec finish(const struct column *column, vec t, vec scale, vec bias) {
    return vec_fma(t, vec_mul(scale, column->scale), bias);
}

#include "sums.h"

#include "product.h"

static void ISA_FN(int8_run)(const struct attn_gemm_args *args) {
    size_t groups = (args->k + GROUP_K - 1) / GROUP_K;
    struct memory memory;
    memory.part = (struct part){0};
    ISA_FN(int8_multiply)
    (&(struct product){.args = args,
                       .b = (const char *)args->b.data + args->column / COLS * args->b.stride,
                       .depth = TILE_BYTES,
                       .groups = groups,
                       .at_once = ATTN_INT8_PART / GROUP_K,
                       .columns = columns_at_once(args, groups),
                       .memory = &memory});
}

extern const struct attn_gemm_kernel attn_avx512_gemm_int8;

static void ISA_FN(int8_pack)(const struct attn_pack_args *args) {
    attn_avx512_gemm_int8.pack(args);
}

const struct attn_gemm_kernel ISA_OBJECT(gemm_int8) = {
    .name = "amx_int8_32x32",
    .arithmetic = ATTN_CLASS_INT8,
    .a = ATTN_INT8,
    .b = {.type = ATTN_INT8, .cols = COLS, .k_unit = UNIT, .beside = sizeof(float)},
    .rows = ROWS,
    .pack = ISA_FN(int8_pack),
    .pack_a = QUADS_PACK_A,
    .run = ISA_FN(int8_run),
    .end_task = ISA_FN(int8_end_task)};
