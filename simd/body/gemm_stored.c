/* GEMM of class F32 whose packed B is stored in fewer bits: F16, INT8, E4M3 and E5M2, whose panels lie as those of
 * floats; and INT4.
 *
 * One or two rows wait for B: it is widened in registers on its way into the multiply-adds. More rows are the
 * product of floats: a part of a panel is widened into memory, and the kernel for floats goes on from there with the
 * chains of the part before it. F16 is widened by the first tile of rows while that multiplies. */
#include <string.h>

#include "body/objects.h"
#include "body/stored.h"
#include "format.h"
#include "tile.h"

#include "body/panel.h"
#include "body/scales.h"

/* Floats of the part where the caller gives no memory: 4 KiB of the stack, of which attention has taken up to 9 when
 * it calls. INT4 is a type of weights alone, which attention does not call for: 8 KiB. A tile loads and stores C once in
 * so many steps. */
enum { PART = 1024, INT4_PART = 2 * PART };

/* Rows that pass over a part of the stack: with so few steps of k their A, 128 KiB or less, and their C stay in L2. */
enum { STORED_ROW_BLOCK = 512 };

/* Few rows, the most registers of B that they take at once, and how far ahead they fetch, in bytes. */
enum { STORED_FEW_ROWS = 2, STORED_WIDTH = 4, STORED_AHEAD = 1024 };

/* Where row `row` lies of the panel that has that column. */
INLINE char *stored_at(const struct attn_panels *b, size_t row, size_t column, const size_t size) {
    return (char *)b->data + panel_number(b, column) * b->stride + row * b->cols * size;
}

/* As panels lie, in elements. */
INLINE struct layout stored_layout(const struct attn_panels *b, const size_t size) {
    return layout_of(b->stride / size, b->cols < COLS);
}

/* ---- Few rows ---- */

/* Compile-time rows and registers of B. */
INLINE void stored_tile(const struct tile *t, const char *b, const attn_type type, const int rows, const int width) {
    const size_t size = stored_bytes(type), line = LINE * sizeof(float) / size;
    vec acc[STORED_FEW_ROWS * STORED_WIDTH];
    tile_begin(t, acc, rows, width, 0);
    struct layout layout = t->layout;
    size_t k = t->k;
    const float *a[STORED_FEW_ROWS] = {t->a, rows > 1 ? t->a + t->a_stride : t->a};
    for (size_t p = 0; p < k; p++, b += layout.step * size) {
        vec av[STORED_FEW_ROWS];
        UNROLL for (int i = 0; i < rows; i++) av[i] = vec_set(a[i][p]);
        UNROLL for (int j = 0; j < width; j++) {
            const char *from = b + place(layout, (size_t)j) * size;
            if ((size_t)(j % VECS * VEC_LANES) % line == 0)
                vec_prefetch((const float *)(const void *)from, STORED_AHEAD / sizeof(float));
            vec bv;
            stored_load(type, from, &bv, 1);
            UNROLL for (int i = 0; i < rows; i++) acc[i * width + j] = vec_fma(av[i], bv, acc[i * width + j]);
        }
    }
    tile_end(t, acc, rows, width, 0);
}

typedef void stored_function(const struct tile *t, const char *b);

/* [rows - 1][log2(width)] */
typedef stored_function *const stored_tiles[STORED_FEW_ROWS][3];

#define TILE(name, type, rows, width)                                                                                  \
    static void ISA_FN(name##_##rows##_##width)(const struct tile *t, const char *b) {                                 \
        stored_tile(t, b, type, rows, width);                                                                          \
    }
#define TILES(name, type, rows) TILE(name, type, rows, 1) TILE(name, type, rows, 2) TILE(name, type, rows, 4)
#define ENTRIES(name, rows)                                                                                            \
    { ISA_FN(name##_##rows##_1), ISA_FN(name##_##rows##_2), ISA_FN(name##_##rows##_4) }

static const float stored_ones[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
_Static_assert(ROWS <= sizeof stored_ones / sizeof *stored_ones, "a factor for each row of a tile");

/* What c is multiplied by at the start; NULL: chains do not start from it. */
INLINE const float *stored_scale(const struct attn_gemm_args *args) {
    if (args->start == ATTN_START_SCALE)
        return args->factors;
    return args->start == ATTN_START_C ? stored_ones : NULL;
}

/* All but how B lies. */
INLINE struct tile few_rows_of(const struct attn_gemm_args *args) {
    return (struct tile){.k = args->k,
                         .a = args->a,
                         .a_stride = args->a_stride / sizeof(float),
                         .bias = args->start == ATTN_START_BIAS ? args->factors : NULL,
                         .scale = stored_scale(args),
                         .c = args->c,
                         .c_stride = args->c_stride / sizeof(float)};
}

static void ISA_FN(stored_few_rows)(const struct attn_gemm_args *args, stored_tiles tiles, size_t size) {
    const char *b = stored_at(&args->b, args->row, args->column, size);
    size_t width = STORED_WIDTH;
    struct tile t = few_rows_of(args);
    t.layout = stored_layout(&args->b, size);
    for (size_t j = 0, cols; j < args->n; j += cols) {
        size_t vecs = (args->n - j + VEC_LANES - 1) / VEC_LANES;
        while (width > vecs)
            width /= 2;
        cols = width * VEC_LANES < args->n - j ? width * VEC_LANES : args->n - j;
        t.tail = vec_tail_of(cols - (width - 1) * VEC_LANES);
        tiles[args->m - 1][__builtin_ctz((unsigned)width)](&t, b + place(t.layout, j / VEC_LANES) * size);
        t.bias = t.bias ? t.bias + cols : NULL;
        t.c += cols;
    }
}

/* ---- INT4 ---- */

/* A block of a panel holds bytes with two elements of a column, as they came: row i has elements 2 i and 2 i + 1 of
 * each column side by side; then the columns' scales, then their zero points, a byte each.
 *
 * Of bytes as ints the lower halves are the last bits of floats 2^23 + x, the upper ones of 2^19 + x, once the other
 * bits are those of 2^23 and 2^19. `zero` is the zero point on each: the difference, which is exact, needs no
 * conversion. */
#define INT4_BASE(half) ((half) ? 0x1p19f : 0x1p23f)

/* What tile.h may say of INT4_WIDE. */
enum { INT4_NONE, INT4_WITHOUT_ZEROS, INT4_ANY };

struct int4_block {
    vec scale, zero[2];
};

/* Of the block and register whose scales are at b. */
INLINE struct int4_block int4_load_block(const struct attn_scaling *scaling, const char *b, const int v) {
    const size_t element = scale_bytes(scaling->type);
    const void *scale = b + (size_t)v * VEC_LANES * element;
    const char *zeros = b + COLS * element + v * VEC_LANES;
    vec zero = scaling->has_zero_point ? vec_from_int(vec_load_u8((const uint8_t *)zeros)) : vec_set(8);
    return (struct int4_block){scales_load(scaling->type, scale),
                               {vec_add(zero, vec_set(INT4_BASE(0))), vec_add(zero, vec_set(INT4_BASE(1)))}};
}

/* The two elements of a register, dequantised, of the bytes at b. */
INLINE void int4_load(const struct int4_block *block, const char *b, vec x[2]) {
    vec_int bytes = vec_load_u8((const uint8_t *)b), lower = vec_int_set(15);
    vec_int halves[] = {vec_int_and(bytes, lower), vec_int_and_not(bytes, lower)};
    UNROLL for (int i = 0; i < 2; i++) {
        vec number = vec_from_bits(vec_int_or(halves[i], vec_bits(vec_set(INT4_BASE(i)))));
        x[i] = vec_mul(vec_sub(number, block->zero[i]), block->scale);
    }
}

/* Compile-time rows and registers, those of whole panels. */
INLINE void int4_tile(const struct tile *t, const struct attn_scaling *scaling, const char *b, const int rows,
                      const int width) {
    vec acc[STORED_FEW_ROWS * 2 * VECS];
    const float *a[STORED_FEW_ROWS] = {t->a, rows > 1 ? t->a + t->a_stride : t->a};
    size_t panel = t->layout.panel, pairs = scaling->block / 2, p = 0;
    size_t between = attn_block_bytes(ATTN_INT4, scaling, COLS) - pairs * COLS;
    tile_begin(t, acc, rows, width, 1);
    for (size_t blocks = t->k / scaling->block; blocks > 0; blocks--, b += between) {
        struct int4_block block[2 * VECS];
        UNROLL for (int v = 0; v < width; v++) block[v] =
            int4_load_block(scaling, b + (size_t)(v / VECS) * panel + pairs * COLS, v % VECS);
        for (size_t count = pairs; count > 0; count--, b += COLS, p += 2) {
            UNROLL for (int v = 0; v < width; v++) {
                const char *from = b + (size_t)(v / VECS) * panel + v % VECS * VEC_LANES;
                vec x[2];
                if (v % VECS == 0)
                    vec_prefetch((const float *)(const void *)from, STORED_AHEAD / sizeof(float));
                int4_load(&block[v], from, x);
                UNROLL for (int i = 0; i < rows; i++) {
                    vec *sum = &acc[i * width + v];
                    *sum = vec_fma(vec_set(a[i][p]), x[0], *sum);
                    *sum = vec_fma(vec_set(a[i][p + 1]), x[1], *sum);
                }
                __asm__ volatile("" : : : "memory"); /* or gcc keeps A for the next register, for which AVX2 has none */
            }
        }
    }
    tile_end(t, acc, rows, width, 1);
}

static void ISA_FN(int4_f32_1)(const struct tile *t, const struct attn_scaling *scaling, const char *b) {
    int4_tile(t, scaling, b, 1, VECS);
}

static void ISA_FN(int4_f32_2)(const struct tile *t, const struct attn_scaling *scaling, const char *b) {
    int4_tile(t, scaling, b, 2, VECS);
}

/* One row of one panel has two chains, which wait for their multiply-adds: two panels at once have four. */
static void ISA_FN(int4_f32_wide)(const struct tile *t, const struct attn_scaling *scaling, const char *b) {
    struct attn_scaling taken = *scaling;
    if (INT4_WIDE == INT4_WITHOUT_ZEROS)
        taken.has_zero_point = false;
    int4_tile(t, &taken, b, 1, 2 * VECS);
}

INLINE bool int4_is_wide(const struct attn_gemm_args *args, size_t j) {
    return args->m == 1 && args->n - j >= 2 * COLS &&
           (INT4_WIDE == INT4_ANY || (INT4_WIDE == INT4_WITHOUT_ZEROS && !args->scaling.has_zero_point));
}

/* k rows of a panel from row p on, both even. */
static void ISA_FN(int4_part)(const struct attn_scaling *scaling, const char *panel, size_t p, size_t k, float *part) {
    size_t bytes = attn_block_bytes(ATTN_INT4, scaling, COLS);
    for (size_t end = p + k, n; p < end; p += n) {
        const char *b = panel + p / scaling->block * bytes;
        size_t first = p % scaling->block, left = scaling->block - first;
        struct int4_block block[VECS];
        n = end - p < left ? end - p : left;
        UNROLL for (int v = 0; v < VECS; v++) block[v] = int4_load_block(scaling, b + scaling->block / 2 * COLS, v);
        for (size_t i = 0; i < n; i += 2, part += 2 * COLS)
            UNROLL for (int v = 0; v < VECS; v++) {
                vec x[2];
                int4_load(&block[v], b + (first + i) / 2 * COLS + v * VEC_LANES, x);
                vec_store(part + v * VEC_LANES, x[0]);
                vec_store(part + COLS + v * VEC_LANES, x[1]);
            }
    }
}

/* ---- More rows ---- */

/* k rows of a panel; what fills up the last one is there. E5M2, of few operations, waits for stores here, of which two
 * registers at once take more (4 rows over a cache 0.96). */
INLINE void widen_panel(const attn_type type, const char *b, size_t k, float *part) {
    const int n = type == ATTN_F8_E5M2 ? 1 : stored_at_once(type, VECS);
    for (size_t p = 0; p < k; p++, b += COLS * stored_bytes(type), part += COLS)
        UNROLL for (int v = 0; v < VECS; v += n) {
            vec x[2];
            stored_load(type, b + (size_t)(v * VEC_LANES) * stored_bytes(type), x, n);
            UNROLL for (int i = 0; i < n; i++) vec_store(part + (v + i) * VEC_LANES, x[i]);
        }
}

/* The same of the first `vecs` registers of two narrow ones. */
INLINE void widen_narrow(const attn_type type, const char *b, struct layout layout, size_t k, size_t vecs,
                         float *part) {
    for (size_t p = 0; p < k; p++, b += layout.step * stored_bytes(type), part += COLS)
        for (size_t v = 0; v < vecs; v++) {
            vec x;
            stored_load(type, b + place(layout, v) * stored_bytes(type), &x, 1);
            vec_store(part + v * VEC_LANES, x);
        }
}

/* Rows p to p + k - 1 of what begins at b: `vecs` registers of each. */
INLINE void widen_part(const attn_type type, const struct attn_scaling *scaling, const char *b, struct layout layout,
                       size_t p, size_t k, size_t vecs, float *part) {
    const char *row = b + p * layout.step * stored_bytes(type);
    if (type == ATTN_INT4)
        ISA_FN(int4_part)(scaling, b, p, k, part);
    else if (layout.step == COLS)
        widen_panel(type, row, k, part);
    else
        widen_narrow(type, row, layout, k, vecs, part);
}

/* Compile-time rows over a whole panel of F16, which is widened while it is multiplied. Its floats are stored as rows
 * `part_step` floats apart. */
INLINE void f16_tile(const struct tile *t, const char *b, float *part, size_t part_step, const int rows) {
    enum { POINTED = (ROWS + 3) / 4 };
    const size_t step = COLS * sizeof(uint16_t);
    vec acc[ROWS * VECS];
    const float *a[POINTED];
    size_t k = t->k, stride = t->a_stride;
    pointers(a, POINTED, t->a, stride, rows);
    tile_begin(t, acc, rows, VECS, 1);
    for (size_t p = 0; p < k; p++, b += step, part += part_step) {
        vec bv[VECS];
        vec_prefetch((const float *)(const void *)b, STORED_AHEAD / sizeof(float));
        UNROLL for (int j = 0; j < VECS; j++) {
            stored_load(ATTN_F16, b + (size_t)j * VEC_LANES * sizeof(uint16_t), &bv[j], 1);
            vec_store(part + j * VEC_LANES, bv[j]);
        }
        UNROLL for (int i = 0; i < rows; i++) {
            vec av = vec_set(a[i / 4][(size_t)(i % 4) * stride]);
            UNROLL for (int j = 0; j < VECS; j++) acc[i * VECS + j] = vec_fma(av, bv[j], acc[i * VECS + j]);
            __asm__ volatile("" : : : "memory"); /* else gcc reads all of A first, for which NEON has no registers */
        }
        UNROLL for (int q = 0; q < POINTED; q++) a[q]++;
    }
    tile_end(t, acc, rows, VECS, 1);
}

typedef void f16_function(const struct tile *t, const char *b, float *part, size_t part_step);

#define F16_TILE(rows, widest, columns)                                                                                \
    static void ISA_FN(f16_tile_##rows)(const struct tile *t, const char *b, float *part, size_t part_step) {          \
        f16_tile(t, b, part, part_step, rows);                                                                         \
    }
#define F16_ENTRY(rows, widest, columns) ISA_FN(f16_tile_##rows),
EACH_ROW_COUNT(F16_TILE)
static f16_function *const f16_tiles[ROWS] = {EACH_ROW_COUNT(F16_ENTRY)}; /* [rows - 1] */

/* A product over the whole panel at b: the first tile leaves it in `part` for the rows below. Where there are none,
 * one row of it is enough. */
static void ISA_FN(f16_multiply)(struct attn_gemm_args product, const char *b, float *part) {
    size_t tiles = (product.m + ROWS - 1) / ROWS, rows = (product.m + tiles - 1) / tiles;
    struct tile t = few_rows_of(&product);
    f16_tiles[rows - 1](&t, b, part, tiles > 1 ? COLS : 0);
    if (tiles == 1)
        return;
    product.m -= rows;
    product.a = (const char *)product.a + rows * product.a_stride;
    product.c = (char *)product.c + rows * product.c_stride;
    if (product.start == ATTN_START_SCALE)
        product.factors += rows;
    ISA_OBJECT(gemm_f32).run(&product);
}

/* Where panels are widened, and how many of their rows at a time. */
struct part {
    float *data;
    size_t rows;
};

/* `product` is of one panel, at b, whose rows it takes part by part. */
INLINE void multiply_panel(const attn_type type, struct attn_gemm_args product, const char *b, struct layout layout,
                           struct part part) {
    const bool tiled = type == ATTN_F16 && layout.step == COLS && product.n == COLS;
    const size_t k = product.k, rows = tiled && product.m <= ROWS ? k : part.rows;
    const size_t vecs = (product.n + VEC_LANES - 1) / VEC_LANES;
    const float *a = product.a;
    size_t p = 0;
    product.b = (struct attn_panels){part.data, COLS, sizeof(float[PART])};
    product.row = product.column = 0;
    do {
        product.k = k - p < rows ? k - p : rows;
        product.a = a + p;
        if (tiled)
            ISA_FN(f16_multiply)(product, b + p * COLS * sizeof(uint16_t), part.data);
        else {
            widen_part(type, &product.scaling, b, layout, p, product.k, vecs, part.data);
            ISA_OBJECT(gemm_f32).run(&product);
        }
        product.start = ATTN_START_C;
        p += product.k;
    } while (p < k);
}

/* m rows from row i on of the panel that begins with column j. */
INLINE struct attn_gemm_args panel_of(const struct attn_gemm_args *args, size_t i, size_t m, size_t j) {
    struct attn_gemm_args product = *args;
    product.m = m;
    product.n = args->n - j < COLS ? args->n - j : COLS;
    product.a = (const char *)args->a + i * args->a_stride;
    product.c = (float *)((char *)args->c + i * args->c_stride) + j;
    product.factors = args->start == ATTN_START_BIAS    ? args->factors + j
                      : args->start == ATTN_START_SCALE ? args->factors + i
                                                        : NULL;
    return product;
}

/* The caller's memory, for nearly equal parts of k; or the stack. */
INLINE struct part part_of(const struct attn_gemm_args *args, float *stack, size_t floats) {
    if (!args->widened)
        return (struct part){stack, floats / COLS};
    size_t parts = (args->k + K_BLOCK - 1) / K_BLOCK, rows = parts ? (args->k + parts - 1) / parts : 0;
    return (struct part){args->widened, parts > 1 ? (rows + 3) / 4 * 4 : rows};
}

/* In blocks of rows, a panel after the other. */
INLINE void multiply_panels(const attn_type type, const struct attn_gemm_args *args) {
    const size_t size = stored_bytes(type), most = args->widened ? ROW_BLOCK : STORED_ROW_BLOCK;
    float stack[type == ATTN_INT4 ? INT4_PART : PART];
    struct part part = part_of(args, stack, sizeof stack / sizeof *stack);
    struct layout layout = stored_layout(&args->b, size);
    const char *b = stored_at(&args->b, args->row, args->column, size);
    for (size_t i = 0, m; i < args->m; i += m) {
        m = args->m - i < most ? args->m - i : most;
        for (size_t j = 0; j < args->n; j += COLS)
            multiply_panel(type, panel_of(args, i, m, j), b + place(layout, j / VEC_LANES) * size, layout, part);
    }
}

/* The columns from j on. */
static __attribute__((noinline)) void ISA_FN(int4_rest)(const struct attn_gemm_args *args, size_t j) {
    struct attn_gemm_args rest = *args;
    rest.n -= j;
    rest.column += j;
    rest.c = (float *)args->c + j;
    rest.factors = args->start == ATTN_START_BIAS ? args->factors + j : args->factors;
    multiply_panels(ATTN_INT4, &rest);
}

static void ISA_FN(int4_f32_run)(const struct attn_gemm_args *args) {
    size_t j = 0;
    bool few = args->m > 0 && args->m <= STORED_FEW_ROWS;
    for (size_t cols; few && j + COLS <= args->n; j += cols) {
        bool wide = int4_is_wide(args, j);
        struct tile t = few_rows_of(args);
        t.layout = stored_layout(&args->b, 1);
        t.bias = t.bias ? t.bias + j : NULL;
        t.c += j;
        cols = wide ? 2 * COLS : COLS;
        (wide          ? ISA_FN(int4_f32_wide)
         : args->m > 1 ? ISA_FN(int4_f32_2)
                       : ISA_FN(int4_f32_1))(&t, &args->scaling, stored_at(&args->b, 0, args->column + j, 1));
    }
    if (j < args->n)
        ISA_FN(int4_rest)(args, j);
}

/* `type` and `tiles` are literals. */
INLINE void stored_run(const attn_type type, stored_tiles tiles, const struct attn_gemm_args *args) {
    if (args->m > 0 && args->m <= STORED_FEW_ROWS) {
        ISA_FN(stored_few_rows)(args, tiles, stored_bytes(type));
        return;
    }
    multiply_panels(type, args);
}

/* ---- Packing ---- */

/* `cols` elements that lie n_stride apart to a panel's row, then the last of them again as far as `all`. */
INLINE void pack_row(const char *from, size_t n_stride, size_t cols, size_t all, char *to, const size_t size) {
    if (n_stride == size)
        memcpy(to, from, cols * size);
    else
        for (size_t j = 0; j < cols; j++)
            memcpy(to + j * size, from + j * n_stride, size);
    for (size_t j = cols; j < all; j++)
        memcpy(to + j * size, from + (cols - 1) * n_stride, size);
}

/* Panel by panel, the first of them perhaps from its middle on: it keeps what it has beside these columns. */
INLINE void stored_pack(const struct attn_pack_args *args, const size_t size) {
    const struct attn_panels *packed = &args->packed;
    for (size_t j = 0, cols; j < args->n; j += cols) {
        size_t first = (args->column + j) % packed->cols, left = packed->cols - first;
        cols = args->n - j < left ? args->n - j : left;
        const char *from = (const char *)args->b + j * args->n_stride;
        char *to = stored_at(packed, args->row, args->column + j, size) + first * size;
        for (size_t p = 0; p < args->k; p++)
            pack_row(from + p * args->k_stride, args->n_stride, cols, first == 0 ? left : cols,
                     to + p * packed->cols * size, size);
    }
}

static void ISA_FN(stored_pack_u16)(const struct attn_pack_args *args) {
    stored_pack(args, sizeof(uint16_t));
}

static void ISA_FN(stored_pack_u8)(const struct attn_pack_args *args) {
    stored_pack(args, 1);
}

/* INT4: panel by panel, all rows. Bytes are packed as elements of 8 bits, half as many of them. */
static void ISA_FN(int4_f32_pack)(const struct attn_pack_args *args) {
    const struct attn_scaling *scaling = &args->scaling;
    size_t element = scale_bytes(scaling->type), blocks = args->k / scaling->block;
    size_t rows = scaling->block / 2, bytes = attn_block_bytes(ATTN_INT4, scaling, COLS);
    for (size_t j = 0; j < args->n; j += COLS)
        for (size_t b = 0; b < blocks; b++) {
            size_t cols = args->n - j < COLS ? args->n - j : COLS;
            const char *from = (const char *)args->b + j * args->n_stride + b * rows;
            const char *scales = (const char *)args->scales + (j * blocks + b) * element;
            char *to = (char *)args->packed.data + j / COLS * args->packed.stride + b * bytes;
            for (size_t p = 0; p < rows; p++)
                pack_row(from + p, args->n_stride, cols, COLS, to + p * COLS, 1);
            pack_row(scales, blocks * element, cols, COLS, to += rows * COLS, element);
            to += COLS * element;
            for (size_t i = 0; scaling->has_zero_point && i < COLS; i++) {
                size_t column = j + (i < cols ? i : cols - 1);
                to[i] = (char)attn_zero_point_of(ATTN_INT4, args->zero_points, blocks, column, b);
            }
        }
}

/* Whole panels: what fills up the last one is copies. */
INLINE int stored_finite(const attn_type type, const struct attn_panels *b, size_t row, size_t k, size_t n) {
    const size_t size = stored_bytes(type);
    for (size_t j = 0; type != ATTN_INT8 && j < n; j += b->cols) {
        const char *from = stored_at(b, row, j, size);
        vec_magnitude largest = vec_magnitude_of(vec_zero());
        for (size_t i = 0; i < k * b->cols; i += VEC_LANES) {
            vec x;
            stored_load(type, from + i * size, &x, 1);
            largest = vec_larger(largest, vec_magnitude_of(x));
        }
        if (!vec_all_finite(largest))
            return 0;
    }
    return 1;
}

#define STORED(name_, type_, pack_)                                                                                    \
    TILES(name_, type_, 1)                                                                                             \
    TILES(name_, type_, 2)                                                                                             \
    static stored_tiles ISA_FN(name_##_tiles) = {ENTRIES(name_, 1), ENTRIES(name_, 2)};                                \
    static int ISA_FN(name_##_finite)(const struct attn_panels *b, size_t row, size_t k, size_t n) {                   \
        return stored_finite(type_, b, row, k, n);                                                                     \
    }                                                                                                                  \
    static void ISA_FN(name_##_run)(const struct attn_gemm_args *args) {                                               \
        stored_run(type_, ISA_FN(name_##_tiles), args);                                                                \
    }                                                                                                                  \
    const struct attn_gemm_kernel ISA_OBJECT(gemm_##name_) = {.name = GEMM_NAME "_" #name_,                            \
                                                              .arithmetic = ATTN_CLASS_F32,                            \
                                                              .b = {.type = type_, .cols = COLS, .k_unit = 1},         \
                                                              .rows = ROWS,                                            \
                                                              .widened_row = COLS * sizeof(float),                     \
                                                              .widened_rows = K_BLOCK,                                 \
                                                              .pack = pack_,                                           \
                                                              .finite = ISA_FN(name_##_finite),                        \
                                                              .run = ISA_FN(name_##_run)};
STORED(f16, ATTN_F16, ISA_FN(stored_pack_u16))
STORED(s8, ATTN_INT8, ISA_FN(stored_pack_u8))
STORED(e4m3, ATTN_F8_E4M3, ISA_FN(stored_pack_u8))
STORED(e5m2, ATTN_F8_E5M2, ISA_FN(stored_pack_u8))

const struct attn_gemm_kernel ISA_OBJECT(gemm_int4_f32) = {.name = GEMM_NAME "_int4",
                                                           .arithmetic = ATTN_CLASS_F32,
                                                           .b = {.type = ATTN_INT4, .cols = COLS, .k_unit = 2},
                                                           .rows = ROWS,
                                                           .widened_row = COLS * sizeof(float),
                                                           .widened_rows = K_BLOCK,
                                                           .pack = ISA_FN(int4_f32_pack),
                                                           .run = ISA_FN(int4_f32_run)};
