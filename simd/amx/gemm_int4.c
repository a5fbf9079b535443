/* GEMM of class INT4: a group is 64 rows, or a block where that is shorter. Panels are those of AVX-512's kernel of the
 * class, which packs them, with as many columns as a tile has. A row of units holds two rows of a tile: a block's are
 * unpacked into memory that stays in L1, once for ROW_BLOCK rows of A. */
#define PRODUCT_FN(name)      ISA_FN(int4_##name)
#define MULTIPLY_ADD(c, a, b) tile_multiply_add_quads(c, a, b)

#include "format.h"
#include "part.h"

#include "../avx512/quad_registers.h"

/* Rows of a unit, and tiles of B that are unpacked: two panels of the largest block, which has 128 rows, or four of a
 * group. */
enum { UNIT = 8, UNPACKED = 4 };

struct memory {
    _Alignas(TILE_BYTES) int32_t sums[ROWS * WIDTH];
    char unpacked[UNPACKED][TILE_ROWS][TILE_BYTES];
    struct part part;
};

/* Where the part's block begins in the panel of the columns from j on. */
INLINE const char *block_at(const struct product *product, const struct part *part, size_t j) {
    return product->b + (part->j + j) / COLS * product->args->b.stride +
           part->group / product->at_once * attn_block_bytes(ATTN_INT4, &product->args->scaling, COLS);
}

static void ISA_FN(int4_unpack)(const char *units, size_t count, char *to) {
    for (; count > 0; count--, units += TILE_BYTES, to += (size_t)2 * TILE_BYTES) {
        vec_int unit = quad_load(units);
        vec_store((float *)(void *)to, vec_from_bits(quad_lower(unit)));
        vec_store((float *)(void *)(to + TILE_BYTES), vec_from_bits(quad_upper(unit)));
    }
}

INLINE void take_columns(const struct product *product, struct part *part) {
    size_t units = (part->end - part->group) * product->depth / UNIT;
    char *to = (char *)product->memory->unpacked;
    part->b = to;
    part->next = product->at_once * GROUP_BYTES;
    for (size_t j = 0; j < part->cols; j += COLS, to += part->next)
        ISA_FN(int4_unpack)(block_at(product, part, j), units, to);
}

INLINE void add_groups(const struct product *product, const struct part *part, const int rows, const int cols) {
    const struct attn_gemm_args *args = product->args;
    const char *a = (const char *)args->a + part->i * args->a_stride + part->group * product->depth;
    add_whole_groups(product, part, a, part->group, part->end, rows, cols);
}

struct column {
    vec scale;
    vec_int zero_point;
    size_t block;
};

/* Where there is no block all are 0. */
INLINE struct column column_of(const struct product *product, const struct part *part, size_t j) {
    const struct attn_scaling *scaling = &product->args->scaling;
    const char *scales = block_at(product, part, j) + scaling->block / 2 * COLS;
    struct column column = {vec_zero(), vec_int_set(8), part->group / product->at_once};
    if (part->group == part->end)
        return column;
    column.scale = scaling->type == ATTN_F16 ? vec_from_f16(vec_load_u16((const uint16_t *)(const void *)scales))
                                             : vec_load((const float *)(const void *)scales);
    if (scaling->has_zero_point)
        column.zero_point = quad_load_bytes(scales + COLS * attn_type_size(scaling->type));
    return column;
}

INLINE vec add_sums(const struct column *column, vec_int sums, const char *a, vec t) {
    vec_int taken = quad_word_products(column->zero_point, quad_repeat(a + (column->block + 1) * sizeof(int32_t)));
    return vec_fma(vec_from_int(vec_int_sub(sums, taken)), column->scale, t);
}

INLINE vec finish(const struct column *column, vec t, vec scale, vec bias) {
    (void)column;
    return vec_fma(t, scale, bias);
}

#include "sums.h"

#include "product.h"

static void ISA_FN(int4_run)(const struct attn_gemm_args *args) {
    size_t block = args->scaling.block, depth = block < TILE_BYTES ? block : TILE_BYTES;
    struct memory memory;
    memory.part = (struct part){0};
    ISA_FN(int4_multiply)
    (&(struct product){.args = args,
                       .b = (const char *)args->b.data + args->column / COLS * args->b.stride,
                       .depth = depth,
                       .groups = args->k / depth,
                       .at_once = block / depth,
                       .columns = args->m > TILE_ROWS ? WIDTH : UNPACKED / (block / depth) * COLS,
                       .memory = &memory});
}

extern const struct attn_gemm_kernel attn_avx512_gemm_int4;

static void ISA_FN(int4_pack)(const struct attn_pack_args *args) {
    attn_avx512_gemm_int4.pack(args);
}

const struct attn_gemm_kernel ISA_OBJECT(gemm_int4) = {.name = "amx_int4_32x32",
                                                       .arithmetic = ATTN_CLASS_INT4,
                                                       .a = ATTN_INT8,
                                                       .b = {.type = ATTN_INT4, .cols = COLS, .k_unit = UNIT},
                                                       .rows = ROWS,
                                                       .pack = ISA_FN(int4_pack),
                                                       .pack_a = QUADS_PACK_A,
                                                       .run = ISA_FN(int4_run),
                                                       .end_task = ISA_FN(int4_end_task)};
