/* GEMM of the classes INT8 and INT8_BLOCKS. Four elements of a column of B that follow each other in k, a quad, lie in 32 bits, as
 * those of a row of A do. A panel holds its columns' quads, those of one k side by side, then their scales. In INT8_BLOCKS it is
 * so in each block, which ends with the columns' zero points, a byte each; the tiles are the same, and give the sums of a block.
 *
 * quads.h gives, for each ISA:
 *
 *     QUADS_NAME, ROWS, COLS        the kernel's name, the largest tile
 *     EACH_ROW_COUNT(X)             X(rows, registers): the tiles of one panel
 *     QUADS_PACK_A                  pack_a, see quantise.c
 *     QUAD_FLIP                     what elements of B are combined with by exclusive or: 0x80 adds 128 to each, 0 nothing.
 *                                   What is added is multiplied by the sum of A's elements, and taken off again
 *     quad_left, quad_a             four elements of A in every lane
 *     quad_repeat                   32 bits in every lane
 *     quad_right, quad_b            four elements of each of VEC_LANES columns
 *     quad_multiply_add             four products for each lane, added to it
 *     quad_load, quad_load_bytes, quad_word_products   for blocks: see gemm_int4.c
 *     QUAD_FOLDS                    rows of the tallest tile that folds blocks without zero points itself, for 400 bytes of
 *                                   code; 0: none does. Where that is ROWS the totals are in memory, else in registers */
#include <stdbool.h>

#include "format.h"
#include "quads.h"
#include "quantised.h"

#define TILES_FN(name) ISA_FN(int8_##name)
#define MOST_ROWS      ROWS
#define EACH_TILE      EACH_ROW_COUNT

enum { QUAD = 4, QUAD_BYTES = COLS * QUAD };

/* The tallest tile has no registers for them. */
enum { TOTALS_IN_MEMORY = (int)QUAD_FOLDS == (int)ROWS };

/* What is fetched ahead where B is not in L1, in bytes. */
enum { AHEAD_ROWS = 16 * QUAD_BYTES };

#include "body/gemm_quads.h"
#include "body/scales.h"

INLINE size_t quads_of(size_t k) {
    return (k + QUAD - 1) / QUAD;
}

/* Takes off what QUAD_FLIP adds to a part, or block. */
INLINE void tile_begin(const struct tile *t, size_t part, vec_int *acc, const int rows, const int width) {
    const int8_t *sums = t->a + attn_quantised_padded(t->k) + (part + 1) * sizeof(int32_t);
    UNROLL for (int i = 0; i < rows; i++) {
        vec_int start = vec_int_set(0);
        if (QUAD_FLIP)
            start = vec_int_sub(start, vec_int_shift_left(quad_repeat(sums + (size_t)i * t->a_stride), 7));
        UNROLL for (int j = 0; j < width; j++) acc[i * width + j] = start;
    }
}

INLINE void tile_step(const int8_t *const *a, size_t a_stride, const uint8_t *b, size_t panel, vec_int *acc,
                      const int rows, const int width) {
    if (rows <= FEW_ROWS) { /* of B one register at a time */
        quad_left av[FEW_ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = quad_a(a[0] + (size_t)i * a_stride);
        UNROLL for (int j = 0; j < width; j++) {
            quad_right bv = quad_b(b + place(panel, j, QUAD));
            UNROLL for (int i = 0; i < rows; i++) acc[i * width + j] = quad_multiply_add(av[i], bv, acc[i * width + j]);
        }
        return;
    }
    quad_right bv[VECS];
    UNROLL for (int j = 0; j < width; j++) bv[j] = quad_b(b + place(panel, j, QUAD));
    UNROLL for (int i = 0; i < rows; i++) {
        quad_left av = quad_a(a[i / 4] + (size_t)(i % 4) * a_stride);
        UNROLL for (int j = 0; j < width; j++) acc[i * width + j] = quad_multiply_add(av, bv[j], acc[i * width + j]);
    }
}

/* c = fma(t, scale of the row * scale of the column, bias), t as bits of floats. Where blocks were folded, whose scales
 * are in t, that of the column is 1. */
INLINE void tile_end(const struct tile *t, const vec_int *sums, const bool folded, const int rows, const int width) {
    const uint8_t *scales = t->b + quads_of(t->k) * QUAD_BYTES;
    const int8_t *row_scale = t->a + attn_quantised_padded(t->k);
    const float *biases = t->bias;
    float *c = t->c;
    size_t panel = t->panel, a_stride = t->a_stride, c_stride = t->c_stride; /* c may lie anywhere, in *t too */
    vec column[WIDEST], bias[WIDEST];
    UNROLL for (int j = 0; j < width; j++) {
        column[j] = folded ? vec_set(1.0f) : vec_load((const float *)(const void *)(scales + place(panel, j, QUAD)));
        bias[j] = vec_load(biases + j * VEC_LANES);
    }
    UNROLL for (int i = 0; i < rows; i++, c += c_stride, row_scale += a_stride) {
        vec row = vec_from_bits(quad_repeat(row_scale));
        UNROLL for (int j = 0; j < width; j++)
            vec_store(c + j * VEC_LANES, vec_fma(vec_from_bits(sums[i * width + j]), vec_mul(row, column[j]), bias[j]));
    }
}

/* Where B has several parts, or blocks: int8_parts and int8_blocks do the rest. */
INLINE void tile_end_part(int32_t *sums, const vec_int *acc, const int rows, const int width) {
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < width; j++)
        vec_store((float *)sums + (i * width + j) * VEC_LANES, vec_from_bits(acc[i * width + j]));
}

/* t = fma(acc, scale, t) for a block without zero points whose scales are at b. */
INLINE void tile_fold(const struct tile *t, const uint8_t *b, const vec_int *acc, vec *total, const int rows,
                      const int width) {
    size_t panel = t->panel;
    attn_type type = t->scaling.type;
    if (TOTALS_IN_MEMORY)
        __asm__("" : "+r"(total)); /* or gcc keeps totals in registers, which sums of products need more */
    vec scale[WIDEST];
    UNROLL for (int j = 0; j < width; j++) scale[j] = scales_load(type, b + place(panel, j, scale_bytes(type)));
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < width; j++) total[i * width + j] =
        vec_fma(vec_from_int(acc[i * width + j]), scale[j], total[i * width + j]);
}

/* Whether tiles of a product fold its blocks. */
INLINE bool product_folds(const struct attn_scaling *scaling, size_t k) {
    return QUAD_FOLDS > 0 && k > 0 && attn_has_blocks(scaling) && !scaling->has_zero_point;
}

/* Few rows wait for memory, and leave the blocks to int8_blocks. */
INLINE bool tile_folds(const struct tile *t, size_t rows) {
    return rows > FEW_ROWS && rows <= QUAD_FOLDS && product_folds(&t->scaling, t->k);
}

INLINE void tile_run(const struct tile *t, const int rows, const int width) {
    vec_int acc[MOST_VECS];
    vec registers[QUAD_FOLDS > 0 ? QUAD_FOLDS * VECS : 1], *total = TOTALS_IN_MEMORY ? t->totals : registers;
    bool folds = tile_folds(t, (size_t)rows);
    const int8_t *a[POINTERS];
    const uint8_t *b = t->b;
    size_t a_stride = t->a_stride, panel = t->panel, fetch = t->fetch, most = t->scaling.block / QUAD, part = t->part;
    size_t left = quads_of(t->k) - part * most;
    size_t between = COLS * scale_bytes(t->scaling.type);
    point_to_rows(a, t->a + part * t->scaling.block, a_stride, rows);
    if (folds && !TOTALS_IN_MEMORY)
        UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < width; j++) total[i * width + j] = vec_zero();
    for (;; part++) {
        size_t count = left < most ? left : most;
        tile_begin(t, part, acc, rows, width);
        for (left -= count; count > 0; count--) {
            tile_step(a, a_stride, b, panel, acc, rows, width);
            UNROLL for (int j = 0; j < width * VEC_LANES; j += 16)
                quad_prefetch(b + place(panel, j / VEC_LANES, QUAD) + fetch);
            UNROLL for (int q = 0; q < POINTERS; q++) a[q] += QUAD;
            b += QUAD_BYTES;
        }
        if (!folds)
            break;
        tile_fold(t, b, acc, total, rows, width);
        b += between;
        if (left == 0)
            break;
    }
    if (folds) {
        UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < width; j++) acc[i * width + j] =
            vec_bits(total[i * width + j]);
        tile_end(t, acc, true, rows, width);
    } else if (t->sums) {
        tile_end_part(t->sums, acc, rows, width);
    } else {
        UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < width; j++) acc[i * width + j] =
            vec_bits(vec_from_int(acc[i * width + j]));
        tile_end(t, acc, false, rows, width);
    }
}

/* `rows` rows and `cols` columns of several parts, one after the other: their sums are added up in c. */
static __attribute__((noinline)) void ISA_FN(int8_parts)(struct tile t, tile_function *run, size_t rows, size_t cols) {
    int32_t sums[MOST_VECS * VEC_LANES];
    const uint8_t *scales = t.b + quads_of(t.k) * QUAD_BYTES;
    t.sums = sums;
    for (size_t left = t.k; left > 0; t.part++) {
        size_t taken = left < ATTN_INT8_PART ? left : ATTN_INT8_PART;
        run(&t);
        t.b += ATTN_INT8_PART * COLS;
        left -= taken;
        for (size_t i = 0; i < rows; i++)
            for (size_t j = 0; j < cols; j++) {
                float *c = t.c + i * t.c_stride + j, scale;
                memcpy(&scale, scales + j / COLS * t.panel + j % COLS * sizeof scale, sizeof scale);
                float sum = (float)sums[i * cols + j];
                sum = t.part > 0 ? *c + sum : sum;
                *c = left > 0 ? sum
                              : __builtin_fmaf(sum, attn_quantised_scale(t.a + i * t.a_stride, t.k) * scale, t.bias[j]);
            }
    }
}

/* ---- Blocks ---- */

/* t = fma(sum - zero point * sum of the row's elements, scale, t) for a block whose scales, of compile-time type, are at
 * t->b. Totals and sums lie row by row. Zero points are packed plus 128. */
INLINE void fold_block(const struct tile *t, float *total, size_t rows, size_t cols, const attn_type type,
                       const bool has_zero_point) {
    const size_t element = scale_bytes(type);
    const int8_t *row = t->a + attn_quantised_padded(t->k) + (t->part + 1) * sizeof(int32_t);
    const int32_t *sums = t->sums;
    size_t panel = t->panel, a_stride = t->a_stride;
    const uint8_t *b = t->b;
    for (size_t j = 0; j < cols; j += COLS, b += panel) {
        vec scale[VECS];
        vec_int zero[VECS];
        quad_prefetch(b + t->fetch);
        UNROLL for (int v = 0; v < VECS; v++) {
            scale[v] = scales_load(type, b + (size_t)v * VEC_LANES * element);
            zero[v] = has_zero_point ? quad_load_bytes(b + COLS * element + v * VEC_LANES) : vec_int_set(0);
        }
        for (size_t i = 0; i < rows; i++)
            UNROLL for (int v = 0; v < VECS; v++) {
                size_t at = i * cols + j + (size_t)v * VEC_LANES;
                vec_int dot = quad_load(sums + at);
                if (has_zero_point) {
                    vec_int sum = quad_repeat(row + i * a_stride);
                    dot = vec_int_sub(dot, vec_int_sub(quad_word_products(zero[v], sum), vec_int_shift_left(sum, 7)));
                }
                vec_store(total + at, vec_fma(vec_from_int(dot), scale[v], vec_load(total + at)));
            }
    }
}

INLINE void fold_any_block(const struct tile *t, float *total, size_t rows, size_t cols) {
    if (t->scaling.type == ATTN_F16 && t->scaling.has_zero_point)
        fold_block(t, total, rows, cols, ATTN_F16, true);
    else if (t->scaling.type == ATTN_F16)
        fold_block(t, total, rows, cols, ATTN_F16, false);
    else if (t->scaling.has_zero_point)
        fold_block(t, total, rows, cols, ATTN_F32, true);
    else
        fold_block(t, total, rows, cols, ATTN_F32, false);
}

/* `rows` rows and `cols` columns of all blocks, one after the other. c = fma(t, scale of the row, bias). */
static __attribute__((noinline)) void ISA_FN(int8_blocks)(struct tile t, tile_function *run, size_t rows, size_t cols) {
    int32_t sums[MOST_VECS * VEC_LANES];
    float total[MOST_VECS * VEC_LANES];
    size_t elements = t.scaling.block * COLS, bytes = attn_block_bytes(ATTN_INT8, &t.scaling, COLS);
    t.sums = sums;
    for (size_t i = 0; i < rows * cols; i += VEC_LANES)
        vec_store(total + i, vec_zero());
    for (; t.part < t.k / t.scaling.block; t.part++) {
        run(&t);
        t.b += elements;
        fold_any_block(&t, total, rows, cols);
        t.b += bytes - elements;
    }
    for (size_t i = 0; i < rows; i++) {
        vec row = vec_set(attn_quantised_scale(t.a + i * t.a_stride, t.k));
        for (size_t j = 0; j < cols; j += VEC_LANES)
            vec_store(t.c + i * t.c_stride + j, vec_fma(vec_load(total + i * cols + j), row, vec_load(t.bias + j)));
    }
}

/* Where totals are in memory. */
static __attribute__((noinline)) void ISA_FN(int8_folded)(struct tile *t, tile_function *run) {
    vec totals[MOST_VECS];
    UNROLL for (int v = 0; v < MOST_VECS; v++) totals[v] = vec_zero();
    t->totals = totals;
    run(t);
    t->totals = NULL;
}

INLINE void run_tile(struct tile *t, tile_function *run, size_t rows, size_t cols) {
    bool blocks = attn_has_blocks(&t->scaling);
    if (blocks && !tile_folds(t, rows))
        ISA_FN(int8_blocks)(*t, run, rows, cols);
    else if (blocks && TOTALS_IN_MEMORY)
        ISA_FN(int8_folded)(t, run);
    else if (!blocks && t->k > ATTN_INT8_PART)
        ISA_FN(int8_parts)(*t, run, rows, cols);
    else
        run(t);
}

INLINE size_t most_rows(const struct product *product) {
    return product_folds(&product->args->scaling, product->args->k) ? (size_t)QUAD_FOLDS : (size_t)MOST_ROWS;
}
#define MOST_ROWS_OF most_rows

#include "body/gemm_loops.h"

static void ISA_FN(int8_run)(const struct attn_gemm_args *args) {
    ISA_FN(int8_multiply)(&(struct product){args});
}

/* ---- Packing ---- */

/* Elements p .. p + 3 of a column, 0 from k on. */
INLINE uint32_t quad_of(const struct attn_pack_args *args, const char *column, size_t p) {
    uint8_t bytes[QUAD] = {0};
    uint32_t quad;
    size_t left = args->k - p;
    if (args->k_stride == 1 && left >= QUAD)
        memcpy(bytes, column + p, QUAD);
    else
        for (size_t i = 0; i < QUAD && i < left; i++)
            bytes[i] = (uint8_t)column[(p + i) * args->k_stride];
    memcpy(&quad, bytes, sizeof quad);
    return quad ^ (QUAD_FLIP * UINT32_C(0x01010101));
}

/* Block b of column j to column `lane` of a panel's block; without blocks all rows are one. Returns where the next one
 * begins. */
INLINE char *pack_block(const struct attn_pack_args *args, size_t j, size_t b, char *to, size_t lane) {
    const struct attn_scaling *scaling = &args->scaling;
    bool has_blocks = attn_has_blocks(scaling);
    size_t rows = has_blocks ? scaling->block : args->k, blocks = has_blocks ? args->k / rows : 1;
    size_t cols = args->packed.cols, element = scale_bytes(scaling->type);
    for (size_t q = 0; q < quads_of(rows); q++, to += cols * QUAD) {
        uint32_t quad = quad_of(args, (const char *)args->b + j * args->n_stride, b * rows + q * QUAD);
        memcpy(to + lane * QUAD, &quad, sizeof quad);
    }
    memcpy(to + lane * element, (const char *)args->scales + (j * blocks + b) * element, element);
    to += cols * element;
    if (scaling->has_zero_point)
        to[lane] = (char)attn_zero_point_of(ATTN_INT8, args->zero_points, blocks, j, b);
    return to + (scaling->has_zero_point ? cols : 0);
}

/* Panels may have fewer columns than the kernel's. */
static void ISA_FN(int8_pack)(const struct attn_pack_args *args) {
    size_t cols = args->packed.cols, panels = (args->n + cols - 1) / cols;
    size_t blocks = attn_has_blocks(&args->scaling) ? args->k / args->scaling.block : 1;
    for (size_t i = 0; i < panels * cols; i++) {
        size_t j = i < args->n ? i : args->n - 1;
        char *to = (char *)args->packed.data + i / cols * args->packed.stride;
        for (size_t b = 0; b < blocks; b++)
            to = pack_block(args, j, b, to, i % cols);
    }
}

#define KERNEL(object, kernel_name, class, bytes_beside)                                                               \
    const struct attn_gemm_kernel ISA_OBJECT(object) = {                                                               \
        .name = kernel_name,                                                                                           \
        .arithmetic = class,                                                                                           \
        .a = ATTN_INT8,                                                                                                \
        .b = {.type = ATTN_INT8, .cols = COLS, .k_unit = QUAD, .beside = bytes_beside, .flip = QUAD_FLIP},             \
        .rows = ROWS,                                                                                                  \
        .pack = ISA_FN(int8_pack),                                                                                     \
        .pack_a = QUADS_PACK_A,                                                                                        \
        .run = ISA_FN(int8_run)};
KERNEL(gemm_int8, QUADS_NAME, ATTN_CLASS_INT8, sizeof(float))
KERNEL(gemm_int8_blocks, QUADS_NAME "_blocks", ATTN_CLASS_INT8_BLOCKS, 0)
