/* GEMM of class INT8. Four elements of a column of B that follow each other in k, a quad, lie in 32 bits, as those of a row of A
 * do. A panel holds its columns' quads, those of one k side by side, then their scales.
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
 *     quad_multiply_add             four products for each lane, added to it */
#include <stdbool.h>

#include "quads.h"
#include "quantised.h"

#include "body/objects.h"

enum { QUAD = 4, VECS = COLS / VEC_LANES, WIDEST = 8, POINTERS = (ROWS + 3) / 4 };
enum { QUAD_BYTES = COLS * QUAD, PART_QUADS = ATTN_INT8_PART / QUAD };

/* Few rows, and the number of widths of their tiles. */
enum { FEW_ROWS = 2, WIDTHS = 3 };

/* Registers of the largest tile. */
enum { TALLEST = ROWS * VECS, MOST_VECS = TALLEST > WIDEST ? TALLEST : WIDEST };

/* Rows that pass over a panel of B. */
enum { ROW_BLOCK = 128 };

/* Prefetch distances in bytes: few rows, which wait for B; and where B is not in L1. */
enum { AHEAD = 1024, AHEAD_ROWS = 16 * QUAD_BYTES };

/* Compile-time rows and registers, every column there. */
struct tile {
    size_t k;
    const int8_t *a;
    size_t a_stride;
    const int8_t *b;
    size_t panel; /* bytes from panel to panel */
    const float *bias;
    float *c;
    size_t c_stride; /* floats */
    size_t fetch;    /* bytes ahead */
    size_t part;     /* of B's rows */
    int32_t *sums;   /* of several parts: [rows][columns] sums of this one, in place of c */
};

typedef void tile_function(const struct tile *t);

INLINE size_t quads_of(size_t k) {
    return (k + QUAD - 1) / QUAD;
}

/* Where register v begins. */
INLINE size_t place(size_t panel, int v) {
    return (size_t)(v / VECS) * panel + (size_t)(v % VECS) * VEC_LANES * QUAD;
}

/* Takes off what QUAD_FLIP adds. */
INLINE void tile_begin(const struct tile *t, vec_int *acc, const int rows, const int width) {
    const int8_t *sums = t->a + attn_quantised_padded(t->k) + (t->part + 1) * sizeof(int32_t);
    UNROLL for (int i = 0; i < rows; i++) {
        vec_int start = vec_int_set(0);
        if (QUAD_FLIP)
            start = vec_int_sub(start, vec_int_shift_left(quad_repeat(sums + (size_t)i * t->a_stride), 7));
        UNROLL for (int j = 0; j < width; j++) acc[i * width + j] = start;
    }
}

INLINE void tile_step(const int8_t *const *a, size_t a_stride, const int8_t *b, size_t panel, vec_int *acc,
                      const int rows, const int width) {
    if (rows <= FEW_ROWS) { /* of B one register at a time */
        quad_left av[FEW_ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = quad_a(a[0] + (size_t)i * a_stride);
        UNROLL for (int j = 0; j < width; j++) {
            quad_right bv = quad_b(b + place(panel, j));
            UNROLL for (int i = 0; i < rows; i++) acc[i * width + j] = quad_multiply_add(av[i], bv, acc[i * width + j]);
        }
        return;
    }
    quad_right bv[VECS];
    UNROLL for (int j = 0; j < width; j++) bv[j] = quad_b(b + place(panel, j));
    UNROLL for (int i = 0; i < rows; i++) {
        quad_left av = quad_a(a[i / 4] + (size_t)(i % 4) * a_stride);
        UNROLL for (int j = 0; j < width; j++) acc[i * width + j] = quad_multiply_add(av, bv[j], acc[i * width + j]);
    }
}

/* c = fma(t, scale of the row * scale of the column, bias). */
INLINE void tile_end(const struct tile *t, const vec_int *acc, const int rows, const int width) {
    const int8_t *scales = t->b + quads_of(t->k) * QUAD_BYTES, *row_scale = t->a + attn_quantised_padded(t->k);
    const float *biases = t->bias;
    float *c = t->c;
    size_t panel = t->panel, a_stride = t->a_stride, c_stride = t->c_stride; /* c may lie anywhere, in *t too */
    vec column[WIDEST], bias[WIDEST];
    UNROLL for (int j = 0; j < width; j++) {
        column[j] = vec_load((const float *)(const void *)(scales + place(panel, j)));
        bias[j] = vec_load(biases + j * VEC_LANES);
    }
    UNROLL for (int i = 0; i < rows; i++, c += c_stride, row_scale += a_stride) {
        vec row = vec_from_bits(quad_repeat(row_scale));
        UNROLL for (int j = 0; j < width; j++)
            vec_store(c + j * VEC_LANES, vec_fma(vec_from_int(acc[i * width + j]), vec_mul(row, column[j]), bias[j]));
    }
}

/* Where B has several parts: int8_parts does the rest. */
INLINE void tile_end_part(int32_t *sums, const vec_int *acc, const int rows, const int width) {
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < width; j++)
        vec_store((float *)sums + (i * width + j) * VEC_LANES, vec_from_bits(acc[i * width + j]));
}

INLINE void tile_run(const struct tile *t, const int rows, const int width) {
    vec_int acc[MOST_VECS];
    const int8_t *a[POINTERS], *b = t->b + t->part * PART_QUADS * QUAD_BYTES;
    size_t a_stride = t->a_stride, panel = t->panel, fetch = t->fetch;
    size_t count = quads_of(t->k) - t->part * PART_QUADS;
    if (count > PART_QUADS)
        count = PART_QUADS;
    tile_begin(t, acc, rows, width);
    /* A pointer for every four rows: what x86's addressing modes reach with the stride and its multiples. */
    UNROLL for (int q = 0; q < POINTERS; q++) {
        a[q] = t->a + t->part * ATTN_INT8_PART + (size_t)(q * 4 < rows ? q * 4 : 0) * a_stride;
        __asm__("" : "+r"(a[q])); /* or the compiler derives each from the first again, through the stack */
    }
    for (; count > 0; count--) {
        tile_step(a, a_stride, b, panel, acc, rows, width);
        UNROLL for (int j = 0; j < width * VEC_LANES; j += 16) quad_prefetch(b + place(panel, j / VEC_LANES) + fetch);
        UNROLL for (int q = 0; q < POINTERS; q++) a[q] += QUAD;
        b += QUAD_BYTES;
    }
    if (t->sums)
        tile_end_part(t->sums, acc, rows, width);
    else
        tile_end(t, acc, rows, width);
}

#define TILE(rows, width)                                                                                              \
    static void ISA_FN(int8_##rows##_##width)(const struct tile *t) {                                                  \
        tile_run(t, rows, width);                                                                                      \
    }
EACH_ROW_COUNT(TILE)
TILE(1, 8)
TILE(1, 4)
TILE(2, 4)
#define ENTRY(rows, width) ISA_FN(int8_##rows##_##width),
static tile_function *const tiles[] = {EACH_ROW_COUNT(ENTRY)}; /* [rows - 1] */

/* Of few rows, which wait for B and for their own chains, also several panels at a time. */
static const struct {
    tile_function *run;
    size_t width;
} wide_tiles[FEW_ROWS][WIDTHS - 1] = {{{ISA_FN(int8_1_8), 8}, {ISA_FN(int8_1_4), 4}}, {{ISA_FN(int8_2_4), 4}}};

/* ---- A product ---- */

static const float no_bias[WIDEST * VEC_LANES];

INLINE struct tile tile_of(const struct attn_gemm_args *args, size_t i, size_t j, size_t fetch) {
    return (struct tile){.k = args->k,
                         .a = (const int8_t *)args->a + i * args->a_stride,
                         .a_stride = args->a_stride,
                         .b = (const int8_t *)args->b.data + (args->column + j) / COLS * args->b.stride,
                         .panel = args->b.stride,
                         .bias = args->start == ATTN_START_BIAS ? args->factors + j : no_bias,
                         .c = (float *)((char *)args->c + i * args->c_stride) + j,
                         .c_stride = args->c_stride / sizeof(float),
                         .fetch = fetch};
}

/* `rows` rows and `cols` columns of several parts, one after the other: their sums are added up in c. */
static __attribute__((noinline)) void ISA_FN(int8_parts)(struct tile t, tile_function *run, size_t rows, size_t cols) {
    int32_t sums[MOST_VECS * VEC_LANES];
    const int8_t *scales = t.b + quads_of(t.k) * QUAD_BYTES;
    t.sums = sums;
    for (size_t left = t.k; left > 0; t.part++) {
        size_t taken = left < ATTN_INT8_PART ? left : ATTN_INT8_PART;
        run(&t);
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

INLINE void run_tile(const struct tile *t, tile_function *run, size_t rows, size_t cols) {
    if (t->k > ATTN_INT8_PART)
        ISA_FN(int8_parts)(*t, run, rows, cols);
    else
        run(t);
}

/* The last columns, fewer than a panel has: in memory of a panel's width. */
static __attribute__((noinline)) void ISA_FN(int8_last_columns)(struct tile t, size_t rows, size_t cols) {
    float c[ROWS * COLS], bias[COLS];
    float *to = t.c;
    size_t stride = t.c_stride;
    for (size_t j = 0; j < COLS; j++)
        bias[j] = j < cols ? t.bias[j] : 0.0f;
    t.bias = bias;
    t.c = c;
    t.c_stride = COLS;
    run_tile(&t, tiles[rows - 1], rows, COLS);
    for (size_t i = 0; i < rows; i++)
        memcpy(to + i * stride, c + i * COLS, cols * sizeof *c);
}

/* `rows` rows from i on of the panel that begins with column j. */
INLINE void run_panel(const struct attn_gemm_args *args, size_t i, size_t rows, size_t j, size_t fetch) {
    struct tile t = tile_of(args, i, j, fetch);
    if (args->n - j < COLS)
        ISA_FN(int8_last_columns)(t, rows, args->n - j);
    else
        run_tile(&t, tiles[rows - 1], rows, COLS);
}

/* `rows` rows, at most FEW_ROWS, over all columns. */
static void ISA_FN(int8_few_rows)(const struct attn_gemm_args *args, size_t rows) {
    size_t n = args->n, j = 0;
    for (int w = 0; w < WIDTHS - 1 && wide_tiles[rows - 1][w].run; w++)
        for (const size_t wide = wide_tiles[rows - 1][w].width * VEC_LANES; j + wide <= n; j += wide) {
            struct tile t = tile_of(args, 0, j, AHEAD);
            run_tile(&t, wide_tiles[rows - 1][w].run, rows, wide);
        }
    for (; j < n; j += COLS)
        run_panel(args, 0, rows, j, AHEAD);
}

/* m rows in tiles of nearly equal height, a panel after the other. */
static void ISA_FN(int8_block)(const struct attn_gemm_args *args, size_t i, size_t m) {
    size_t count = (m + ROWS - 1) / ROWS, height = m / count, taller = m % count;
    for (size_t j = 0; j < args->n; j += COLS)
        for (size_t tile = 0, row = i, rows; tile < count; tile++, row += rows) {
            rows = height + (tile < taller);
            run_panel(args, row, rows, j, AHEAD_ROWS);
        }
}

static void ISA_FN(int8_run)(const struct attn_gemm_args *args) {
    size_t blocks = (args->m + ROW_BLOCK - 1) / ROW_BLOCK, rows = blocks ? (args->m + blocks - 1) / blocks : 1;
    if (args->m <= FEW_ROWS && args->m > 0) {
        ISA_FN(int8_few_rows)(args, args->m);
        return;
    }
    for (size_t i = 0; i < args->m; i += rows)
        ISA_FN(int8_block)(args, i, args->m - i < rows ? args->m - i : rows);
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

static void ISA_FN(int8_pack)(const struct attn_pack_args *args) {
    size_t panels = (args->n + COLS - 1) / COLS, quads = quads_of(args->k);
    for (size_t i = 0; i < panels * COLS; i++) {
        size_t j = i < args->n ? i : args->n - 1;
        uint32_t *to = (uint32_t *)(void *)((char *)args->packed.data + i / COLS * args->packed.stride) + i % COLS;
        const char *column = (const char *)args->b + j * args->n_stride;
        for (size_t q = 0; q < quads; q++)
            to[q * COLS] = quad_of(args, column, q * QUAD);
        memcpy(to + quads * COLS, (const float *)args->scales + j, sizeof *to);
    }
}

const struct attn_gemm_kernel ISA_OBJECT(gemm_int8) = {
    .name = QUADS_NAME,
    .arithmetic = ATTN_CLASS_INT8,
    .a = ATTN_INT8,
    .b = {.type = ATTN_INT8, .cols = COLS, .k_unit = QUAD, .beside = sizeof(float), .flip = QUAD_FLIP},
    .rows = ROWS,
    .pack = ISA_FN(int8_pack),
    .pack_a = QUADS_PACK_A,
    .run = ISA_FN(int8_run)};
