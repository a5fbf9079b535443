/* GEMM of class INT4. A block of a panel holds units of 32 bits, those of one k side by side: eight elements of a column, the first
 * four in the lower halves of the bytes and the next four in the upper ones; then the columns' scales, then their zero points, a
 * byte each.
 *
 * quads.h gives, for each ISA, beside what gemm_int8.c says:
 *
 *     INT4_NAME, INT4_ROWS          the kernel's name, the rows of the largest tile
 *     EACH_INT4_ROW_COUNT(X)        X(rows, registers): the tiles of one panel
 *     quad_load, quad_load_bytes    units of VEC_LANES columns; a byte for each lane
 *     quad_lower, quad_upper        the halves of their bytes
 *     quad_multiply_add_positive    quad_multiply_add for elements of B from 0 to 15
 *     quad_word_products            products of the lower 16 bits of each lane, where the upper ones of one factor are 0 */
#include <stdbool.h>

#include "format.h"
#include "quads.h"
#include "quantised.h"

#define TILES_FN(name) ISA_FN(int4_##name)
#define MOST_ROWS      INT4_ROWS
#define EACH_TILE      EACH_INT4_ROW_COUNT

enum { UNIT = 8, UNIT_BYTES = COLS * 4 };

/* What is fetched ahead where B is not in L1, in bytes. */
enum { AHEAD_ROWS = 8 * UNIT_BYTES };

#include "body/gemm_quads.h"
#include "body/one_copy.h"
#include "body/scales.h"

/* Or gcc loads what comes later too, and keeps it on the stack. */
#define KEEP_ORDER() __asm__ volatile("" : : : "memory")

/* Four elements of each row and column: the lower halves of a unit, or the upper ones. */
INLINE void half_step(const int8_t *const *a, size_t a_stride, const vec_int *unit, vec_int *acc, const int rows,
                      const int width, const bool upper) {
    vec_int b[WIDEST];
    UNROLL for (int j = 0; j < width; j++) b[j] = upper ? quad_upper(unit[j]) : quad_lower(unit[j]);
    UNROLL for (int i = 0; i < rows; i++) {
        vec_int av = quad_repeat(a[i / 4] + (size_t)(i % 4) * a_stride + (upper ? 4 : 0));
        UNROLL for (int j = 0; j < width; j++) acc[i * width + j] =
            quad_multiply_add_positive(av, b[j], acc[i * width + j]);
    }
}

INLINE void tile_step(const int8_t *const *a, size_t a_stride, const uint8_t *b, size_t panel, vec_int *acc,
                      const int rows, const int width) {
    if (rows <= FEW_ROWS) { /* of B one register at a time */
        UNROLL for (int j = 0; j < width; j++) {
            vec_int unit = quad_load(b + place(panel, j, 4)), lower = quad_lower(unit), upper = quad_upper(unit);
            UNROLL for (int i = 0; i < rows; i++) {
                const int8_t *row = a[0] + (size_t)i * a_stride;
                vec_int sum = quad_multiply_add_positive(quad_repeat(row), lower, acc[i * width + j]);
                acc[i * width + j] = quad_multiply_add_positive(quad_repeat(row + 4), upper, sum);
            }
            KEEP_ORDER();
        }
        return;
    }
    vec_int unit[VECS];
    UNROLL for (int j = 0; j < width; j++) unit[j] = quad_load(b + place(panel, j, 4));
    half_step(a, a_stride, unit, acc, rows, width, false);
    KEEP_ORDER();
    half_step(a, a_stride, unit, acc, rows, width, true);
}

/* Takes off the zero point, 8, of a block that has none of its own, multiplied by the sum of the row's elements. */
INLINE void tile_begin(const struct tile *t, const int8_t *sums, vec_int *acc, const int rows, const int width) {
    size_t a_stride = t->a_stride;
    int32_t zero = t->scaling.has_zero_point ? 0 : 8;
    UNROLL for (int i = 0; i < rows; i++) {
        int32_t sum; /* no register: gcc would keep a zero for it, for which the tallest tile has no room */
        memcpy(&sum, sums + (size_t)i * a_stride, sizeof sum);
        UNROLL for (int j = 0; j < width; j++) acc[i * width + j] = vec_int_set(-zero * sum);
    }
}

/* Takes off the zero points at `zeros`. */
INLINE void take_zero_points(const struct tile *t, const uint8_t *zeros, const int8_t *sums, vec_int *acc,
                             const int rows, const int width) {
    size_t panel = t->panel, a_stride = t->a_stride;
    UNROLL for (int j = 0; j < width; j++) {
        vec_int zero = quad_load_bytes(zeros + place(panel, j, 1));
        UNROLL for (int i = 0; i < rows; i++) {
            vec_int taken = quad_word_products(zero, quad_repeat(sums + (size_t)i * a_stride));
            acc[i * width + j] = vec_int_sub(acc[i * width + j], taken);
        }
    }
}

/* t = fma(acc - zero point * sum of the row's elements, scale, t) for a block whose scales are at b. */
INLINE void tile_fold(const struct tile *t, const uint8_t *b, const int8_t *sums, vec_int *acc, float *total,
                      const int rows, const int width) {
    size_t panel = t->panel;
    attn_type type = t->scaling.type;
    if (t->scaling.has_zero_point)
        take_zero_points(t, b + COLS * scale_bytes(type), sums, acc, rows, width);
    KEEP_ORDER();
    UNROLL for (int j = 0; j < width; j++) {
        vec scale = scales_load(type, b + place(panel, j, scale_bytes(type)));
        UNROLL for (int i = 0; i < rows; i++) {
            float *to = total + (i * width + j) * VEC_LANES;
            vec_store(to, vec_fma(vec_from_int(acc[i * width + j]), scale, vec_load(to)));
        }
    }
}

/* c = fma(t, scale of the row, bias). */
INLINE void end_rows(const struct tile *t, const float *total, size_t rows, const int width) {
    const int8_t *row_scale = t->a + attn_quantised_padded(t->k);
    const float *bias = t->bias;
    float *c = t->c;
    size_t a_stride = t->a_stride, c_stride = t->c_stride; /* c may lie anywhere, in *t too */
    for (; rows > 0; rows--, c += c_stride, row_scale += a_stride, total += width * VEC_LANES) {
        vec row = vec_from_bits(quad_repeat(row_scale));
        UNROLL for (int j = 0; j < width; j++)
            vec_store(c + j * VEC_LANES, vec_fma(vec_load(total + j * VEC_LANES), row, vec_load(bias + j * VEC_LANES)));
    }
}

/* For tiles of all heights: once where their loops pass over all of k. */
#define END(width)                                                                                                     \
    static ONE_COPY void TILES_FN(end_##width)(const struct tile *t, const float *total, size_t rows) {                \
        end_rows(t, total, rows, width);                                                                               \
    }
END(2)
END(4)
END(8)

INLINE void tile_end(const struct tile *t, const float *total, const int rows, const int width) {
    _Static_assert(VECS == 2 || VECS == 4, "else another width");
    (width == 2 ? TILES_FN(end_2) : width == 4 ? TILES_FN(end_4) : TILES_FN(end_8))(t, total, (size_t)rows);
}

INLINE void tile_run(const struct tile *t, const int rows, const int width) {
    vec_int acc[MOST_VECS];
    float memory[MOST_VECS * VEC_LANES], *total = memory;
    const int8_t *a[POINTERS], *sums = t->a + attn_quantised_padded(t->k) + sizeof(float);
    const uint8_t *b = t->b;
    size_t a_stride = t->a_stride, panel = t->panel, fetch = t->fetch, units = t->scaling.block / UNIT;
    __asm__("" : "+r"(total)); /* or gcc keeps sums in registers, which sums of products need more */
    size_t between = attn_block_bytes(ATTN_INT4, &t->scaling, COLS) - units * UNIT_BYTES;
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < width; j++)
        vec_store(total + (i * width + j) * VEC_LANES, vec_zero());
    point_to_rows(a, t->a, a_stride, rows);
    for (size_t blocks = t->k / t->scaling.block; blocks > 0; blocks--) {
        tile_begin(t, sums, acc, rows, width);
        for (size_t count = units; count > 0; count--) {
            tile_step(a, a_stride, b, panel, acc, rows, width);
            UNROLL for (int j = 0; j < width * VEC_LANES; j += 16)
                quad_prefetch(b + place(panel, j / VEC_LANES, 4) + fetch);
            UNROLL for (int q = 0; q < POINTERS; q++) a[q] += UNIT;
            b += UNIT_BYTES;
        }
        tile_fold(t, b, sums, acc, total, rows, width);
        b += between;
        sums += sizeof(int32_t);
    }
    tile_end(t, total, rows, width);
}

INLINE void run_tile(const struct tile *t, tile_function *run, size_t rows, size_t cols) {
    (void)rows, (void)cols;
    run(t);
}

#include "body/gemm_loops.h"

static void ISA_FN(int4_run)(const struct attn_gemm_args *args) {
    ISA_FN(int4_multiply)(&(struct product){args});
}

/* ---- Packing ---- */

/* Eight elements, the first in the lowest bits: the first four to the lower halves of bytes, the next to the upper
 * ones. */
INLINE uint32_t unit_of(uint32_t eight) {
    uint32_t unit = 0;
    for (unsigned i = 0; i < UNIT / 2; i++)
        unit |= (eight >> 4 * i & 15) << 8 * i | (eight >> (16 + 4 * i) & 15) << (8 * i + 4);
    return unit;
}

/* Block b of a column to column `lane` of a panel's block. */
INLINE void pack_block(const struct attn_pack_args *args, size_t j, size_t b, uint8_t *to, size_t lane) {
    const struct attn_scaling *scaling = &args->scaling;
    size_t blocks = args->k / scaling->block, element = scale_bytes(scaling->type);
    size_t cols = args->packed.cols;
    const uint8_t *from = (const uint8_t *)args->b + j * args->n_stride + b * scaling->block / 2;
    for (size_t u = 0; u < scaling->block / UNIT; u++, to += cols * sizeof(uint32_t)) {
        const uint8_t *four = from + 4 * u;
        uint32_t unit = unit_of(four[0] | (uint32_t)four[1] << 8 | (uint32_t)four[2] << 16 | (uint32_t)four[3] << 24);
        memcpy(to + lane * sizeof unit, &unit, sizeof unit);
    }
    memcpy(to + lane * element, (const char *)args->scales + (j * blocks + b) * element, element);
    if (scaling->has_zero_point)
        to[cols * element + lane] = attn_zero_point_of(ATTN_INT4, args->zero_points, blocks, j, b);
}

/* Panels may have fewer columns than the kernel's. */
static void ISA_FN(int4_pack)(const struct attn_pack_args *args) {
    size_t cols = args->packed.cols, panels = (args->n + cols - 1) / cols,
           bytes = attn_block_bytes(ATTN_INT4, &args->scaling, cols);
    for (size_t i = 0; i < panels * cols; i++) {
        size_t j = i < args->n ? i : args->n - 1;
        uint8_t *panel = (uint8_t *)args->packed.data + i / cols * args->packed.stride;
        for (size_t b = 0; b < args->k / args->scaling.block; b++)
            pack_block(args, j, b, panel + b * bytes, i % cols);
    }
}

const struct attn_gemm_kernel ISA_OBJECT(gemm_int4) = {.name = INT4_NAME,
                                                       .arithmetic = ATTN_CLASS_INT4,
                                                       .a = ATTN_INT8,
                                                       .b = {.type = ATTN_INT4, .cols = COLS, .k_unit = UNIT},
                                                       .rows = INT4_ROWS,
                                                       .pack = ISA_FN(int4_pack),
                                                       .pack_a = QUADS_PACK_A,
                                                       .run = ISA_FN(int4_run)};
