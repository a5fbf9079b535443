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

/* edge: in the place of C, of a panel within which C ends. */
struct memory {
    struct spare spare;
    _Alignas(TILE_BYTES) float edge[ROWS][COLS];
};

INLINE void take_columns(const struct product *product, struct part *part) {
    take_packed_columns(product, part);
}

INLINE char *c_of(const struct product *product, const struct part *part) {
    return (char *)product->args->c + part->i * product->args->c_stride + part->j * sizeof(float);
}

/* c *= factors, row by row. */
static __attribute__((noinline)) void PRODUCT_FN(scale)(char *c, size_t stride, const float *factors, size_t rows,
                                                        size_t cols) {
    for (size_t j = 0; j < cols; j += VEC_LANES, c += VEC_LANES * sizeof(float)) {
        vec_mask mask = vec_lanes(0, attn_min(cols - j, VEC_LANES));
        for (size_t i = 0; i < rows; i++) {
            float *x = (float *)(void *)(c + i * stride);
            vec_store_mask(mask, x, vec_mul_mask(mask, vec_load_mask(mask, x), vec_set(factors[i])));
        }
    }
}

/* Some rows of n columns. */
static __attribute__((noinline)) void PRODUCT_FN(copy)(const char *from, size_t from_stride, char *to, size_t to_stride,
                                                       size_t rows, size_t n) {
    vec_mask mask = vec_lanes(0, n);
    for (size_t i = 0; i < rows; i++, from += from_stride, to += to_stride)
        vec_store_mask(mask, (float *)(void *)to, vec_load_mask(mask, (const float *)(const void *)from));
}

/* Columns of C that the part's last panel has, 0 where it has all. */
INLINE size_t edge_columns(const struct part *part) {
    return part->cols % COLS;
}

/* The last column of tiles from or to memory of their own. */
INLINE struct places without_edge(const struct product *product, struct places places, const int cols) {
    places.at[cols - 1] = (char *)product->memory->edge;
    places.stride[cols - 1] = places.stride[cols - 1] > 0 ? TILE_BYTES : 0;
    return places;
}

INLINE void load_part(const struct product *product, const struct part *part, struct places places, const int rows,
                      const int cols) {
    size_t edge = edge_columns(part), stride = places.stride[cols - 1];
    const char *last = places.at[cols - 1];
    if (edge > 0) {
        places = without_edge(product, places, cols);
        PRODUCT_FN(copy)(last, stride, places.at[cols - 1], TILE_BYTES, stride > 0 ? part->rows : 1, edge);
    }
    load_all(places, rows, cols);
}

INLINE void begin_part(const struct product *product, const struct part *part, const int rows, const int cols) {
    const struct attn_gemm_args *args = product->args;
    char *c = c_of(product, part);
    if (part->group == 0 && args->start == ATTN_START_SCALE)
        PRODUCT_FN(scale)(c, args->c_stride, args->factors + part->i, part->rows, part->cols);
    if (part->group > 0 || args->start == ATTN_START_C || args->start == ATTN_START_SCALE)
        load_part(product, part, places_of(c, args->c_stride), rows, cols);
    else if (args->start == ATTN_START_BIAS)
        load_part(product, part, places_of((char *)(args->factors + part->j), 0), rows, cols);
    else
        zero_all(rows, cols);
}

INLINE void add_groups(const struct product *product, const struct part *part, const int rows, const int cols) {
    add_all_groups(product, part, &product->memory->spare, rows, cols);
}

INLINE void end_part(const struct product *product, const struct part *part, const int rows, const int cols) {
    size_t edge = edge_columns(part), stride = product->args->c_stride;
    struct places places = places_of(c_of(product, part), stride);
    char *last = places.at[cols - 1];
    if (edge > 0)
        places = without_edge(product, places, cols);
    store_all(places, rows, cols);
    if (edge > 0)
        PRODUCT_FN(copy)(places.at[cols - 1], TILE_BYTES, last, stride, part->rows, edge);
}

INLINE void end_product(const struct product *product) {
    (void)product;
}

#include "product.h"

static void ISA_FN(pairs_run)(const struct attn_gemm_args *args) {
    size_t before = args->row % ATTN_TILE_K;
    size_t groups = args->k ? (before + args->k + ATTN_TILE_K - 1) / ATTN_TILE_K : 0;
    struct memory memory;
    struct product product = {.args = args,
                              .b = (const char *)args->b.data + args->column / COLS * args->b.stride +
                                   (args->row - before) / UNIT * TILE_BYTES,
                              .before = before,
                              .depth = TILE_BYTES,
                              .groups = groups,
                              .at_once = DEPTH,
                              .columns = columns_at_once(args, groups),
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
