/* GEMM of class BF16_TILE: a group is ATTN_TILE_K rows. A panel may begin at any even row and grow by rows. Panels are
 * those of the class BF16 kernel with narrow panels, which packs them. */
#define PRODUCT_FN(name)      ISA_FN(pairs_##name)
#define MULTIPLY_ADD(c, a, b) tile_multiply_add_pairs(c, a, b)

#include "part.h"

#include "body/flush_x86.h"

enum { ELEMENT = sizeof(uint16_t) };

/* Of a pair that is there by half only that half: the other may be infinite. */
INLINE uint32_t unit_mask(size_t row, struct rows_there there) {
    return (row + 1 < there.hi ? 0xffff0000u : 0u) | (row >= there.lo ? 0xffffu : 0u);
}

#include "remainder.h"

_Static_assert((int)GROUP_K == (int)ATTN_TILE_K, "a group is what the class adds up at once");

/* Groups that rows take at once. Of ROW_BLOCK rows they are 512 KiB, of two panels 128 KiB: both lie in L2, which has
 * 2 MiB. */
enum { DEPTH = 64 };

struct memory {
    struct spare spare;
};

INLINE void take_columns(const struct product *product, struct part *part) {
    take_packed_columns(product, part);
    part->width = part->cols;
}

INLINE char *c_of(const struct product *product, const struct part *part) {
    return (char *)product->args->c + part->i * product->args->c_stride + part->j * sizeof(float);
}

/* c *= factors, row by row. */
static void PRODUCT_FN(scale)(char *c, size_t stride, const float *factors, size_t rows, size_t cols) {
    for (size_t i = 0; i < rows; i++, c += stride)
        for (size_t j = 0; j < cols; j += VEC_LANES) {
            float *x = (float *)(void *)c + j;
            vec_mask mask = vec_lanes(0, cols - j < VEC_LANES ? cols - j : VEC_LANES);
            vec_store_mask(mask, x, vec_mul_mask(mask, vec_load_mask(mask, x), vec_set(factors[i])));
        }
}

INLINE void begin_part(const struct product *product, const struct part *part, const bool tall, const bool wide) {
    const struct attn_gemm_args *args = product->args;
    if (part->group == 0 && args->start == ATTN_START_SCALE)
        PRODUCT_FN(scale)
    (c_of(product, part), args->c_stride, args->factors + part->i, part->rows, part->cols);
    if (part->group > 0 || args->start == ATTN_START_C || args->start == ATTN_START_SCALE)
        load_all(c_of(product, part), args->c_stride, tall, wide);
    else if (args->start == ATTN_START_BIAS)
        load_all((const char *)(args->factors + part->j), 0, tall, wide);
    else
        zero_all(tall, wide);
}

INLINE void add_groups(const struct product *product, const struct part *part, const bool tall, const bool wide) {
    add_all_groups(product, part, &product->memory->spare, tall, wide);
}

INLINE void end_part(const struct product *product, const struct part *part, const bool tall, const bool wide) {
    store_all(c_of(product, part), product->args->c_stride, tall, wide);
}

#include "product.h"

static void ISA_FN(pairs_run)(const struct attn_gemm_args *args) {
    size_t before = args->row % ATTN_TILE_K;
    struct memory memory;
    struct product product = {.args = args,
                              .b = (const char *)args->b.data + args->column / COLS * args->b.stride +
                                   (args->row - before) / UNIT * TILE_BYTES,
                              .before = before,
                              .depth = TILE_BYTES,
                              .groups = args->k ? (before + args->k + ATTN_TILE_K - 1) / ATTN_TILE_K : 0,
                              .at_once = DEPTH,
                              .columns = args->n,
                              .memory = &memory};
    if (args->k == 0 && args->start == ATTN_START_C)
        return;
    flush_state state = flush_begin(); /* of the products of starts alone: tiles look at no control bits */
    ISA_FN(pairs_multiply)(&product);
    flush_end(state);
}

/* ---- Packing ---- */

extern const struct attn_gemm_kernel attn_avx512_bf16_gemm_bf16;

static void ISA_FN(pairs_pack)(const struct attn_pack_args *args) {
    attn_avx512_bf16_gemm_bf16.pack(args);
}

static int ISA_FN(pairs_finite)(const struct attn_panels *b, size_t row, size_t k, size_t n) {
    return attn_avx512_bf16_gemm_bf16.finite(b, row, k, n);
}

const struct attn_gemm_kernel ISA_OBJECT(gemm_bf16) = {.name = "amx_bf16_32x32",
                                                       .arithmetic = ATTN_CLASS_BF16_TILE,
                                                       .a = ATTN_BF16,
                                                       .b = {.type = ATTN_BF16, .cols = COLS, .k_unit = 2},
                                                       .rows = ROWS,
                                                       .pack = ISA_FN(pairs_pack),
                                                       .finite = ISA_FN(pairs_finite),
                                                       .run = ISA_FN(pairs_run),
                                                       .end_task = ISA_FN(pairs_end_task)};
