/* GEMM of class BF16_TILE. Panels have as many columns as a tile: ATTN_TILE_K rows of one are a tile, 1 KiB in one piece, and a
 * panel may begin at any even row and grow by rows. They are those of the class BF16 kernel with narrow panels, which packs
 * them.
 *
 * Two tiles of rows by two of columns are accumulated at the same time, so that each that is loaded is used twice. Tiles are
 * configured for the rows and columns that there are: nothing else of C is touched. The last rows of k, where they are
 * fewer than ATTN_TILE_K, and the first ones, where a product begins within these, go through memory of a tile's size with
 * zeros for what is not there. */
#include <stdbool.h>
#include <string.h>

#include "kernels.h"
#include "tiles.h"
#include "vec.h"

#include "body/flush_x86.h"
#include "body/objects.h"

/* The numbers of the tiles. */
#define C_TOP_LEFT     0
#define C_TOP_RIGHT    1
#define C_BOTTOM_LEFT  2
#define C_BOTTOM_RIGHT 3
#define A_TOP          4
#define A_BOTTOM       5
#define B_LEFT         6
#define B_RIGHT        7

enum { COLS = TILE_ROWS, ROWS = 2 * TILE_ROWS, WIDTH = 2 * COLS };

/* Bytes of ATTN_TILE_K rows of a panel. */
enum { GROUP_BYTES = ATTN_TILE_K * COLS * sizeof(uint16_t) };

/* Rows that pass over two panels of B together, and ATTN_TILE_K rows of k that they take at once: with 256 bytes of each of
 * these rows, B's 128 KiB and A's 512 KiB lie in L2, which has 2 MiB. */
enum { ROW_BLOCK = 128, DEPTH = 64 };

struct product {
    const struct attn_gemm_args *args;
    const char *b; /* the ATTN_TILE_K rows that its first row is one of */
    size_t before; /* how many of them come before it */
    struct {
        size_t rows, cols;
    } configured;
};

/* A part of C of at most ROWS x WIDTH, and the rows of k that it takes now: those of groups group .. end - 1, of ATTN_TILE_K
 * each. */
struct part {
    size_t i, j, rows, cols, group, end;
};

/* ---- Configuration ---- */

INLINE void configure_tile(struct tile_config *config, int tile, size_t rows, size_t bytes) {
    bool used = rows > 0 && bytes > 0;
    config->rows[tile] = (uint8_t)(used ? rows : 0);
    config->bytes[tile] = (uint16_t)(used ? bytes : 0);
}

static void ISA_FN(pairs_configure)(struct product *product, size_t rows, size_t cols) {
    if (product->configured.rows == rows && product->configured.cols == cols)
        return;
    size_t top = rows < TILE_ROWS ? rows : TILE_ROWS, bottom = rows - top;
    size_t left = (cols < COLS ? cols : COLS) * sizeof(float), right = cols * sizeof(float) - left;
    struct tile_config config = {.palette = TILE_PALETTE};
    configure_tile(&config, C_TOP_LEFT, top, left);
    configure_tile(&config, C_TOP_RIGHT, top, right);
    configure_tile(&config, C_BOTTOM_LEFT, bottom, left);
    configure_tile(&config, C_BOTTOM_RIGHT, bottom, right);
    configure_tile(&config, A_TOP, top, TILE_BYTES);
    configure_tile(&config, A_BOTTOM, bottom, TILE_BYTES);
    configure_tile(&config, B_LEFT, TILE_ROWS, left);
    configure_tile(&config, B_RIGHT, TILE_ROWS, right);
    tile_load_config(&config);
    product->configured.rows = rows;
    product->configured.cols = cols;
}

/* ---- Starts ---- */

/* c *= factors, row by row. */
static void ISA_FN(pairs_scale)(char *c, size_t stride, const float *factors, size_t rows, size_t cols) {
    for (size_t i = 0; i < rows; i++, c += stride)
        for (size_t j = 0; j < cols; j += VEC_LANES) {
            float *x = (float *)(void *)c + j;
            vec_mask mask = vec_lanes(0, cols - j < VEC_LANES ? cols - j : VEC_LANES);
            vec_store_mask(mask, x, vec_mul_mask(mask, vec_load_mask(mask, x), vec_set(factors[i])));
        }
}

INLINE void zero_all(const bool tall, const bool wide) {
    tile_zero(C_TOP_LEFT);
    if (wide)
        tile_zero(C_TOP_RIGHT);
    if (tall)
        tile_zero(C_BOTTOM_LEFT);
    if (tall && wide)
        tile_zero(C_BOTTOM_RIGHT);
}

/* From rows `stride` bytes apart, which is 0 where all are one. */
INLINE void load_all(const char *c, size_t stride, const bool tall, const bool wide) {
    tile_load(C_TOP_LEFT, c, stride);
    if (wide)
        tile_load(C_TOP_RIGHT, c + TILE_BYTES, stride);
    if (tall)
        tile_load(C_BOTTOM_LEFT, c + TILE_ROWS * stride, stride);
    if (tall && wide)
        tile_load(C_BOTTOM_RIGHT, c + TILE_ROWS * stride + TILE_BYTES, stride);
}

INLINE void store_all(char *c, size_t stride, const bool tall, const bool wide) {
    tile_store(C_TOP_LEFT, c, stride);
    if (wide)
        tile_store(C_TOP_RIGHT, c + TILE_BYTES, stride);
    if (tall)
        tile_store(C_BOTTOM_LEFT, c + TILE_ROWS * stride, stride);
    if (tall && wide)
        tile_store(C_BOTTOM_RIGHT, c + TILE_ROWS * stride + TILE_BYTES, stride);
}

/* ---- ATTN_TILE_K rows of k ---- */

/* `next`: bytes from panel to panel. */
INLINE void add_group(const char *a, size_t a_stride, const char *b, size_t next, const bool tall, const bool wide) {
    tile_load(B_LEFT, b, TILE_BYTES);
    tile_load(A_TOP, a, a_stride);
    tile_multiply_add(C_TOP_LEFT, A_TOP, B_LEFT);
    if (wide) {
        tile_load(B_RIGHT, b + next, TILE_BYTES);
        tile_multiply_add(C_TOP_RIGHT, A_TOP, B_RIGHT);
    }
    if (tall) {
        tile_load(A_BOTTOM, a + TILE_ROWS * a_stride, a_stride);
        tile_multiply_add(C_BOTTOM_LEFT, A_BOTTOM, B_LEFT);
    }
    if (tall && wide)
        tile_multiply_add(C_BOTTOM_RIGHT, A_BOTTOM, B_RIGHT);
}

/* Of each group the rows that the product has: all, or lo .. hi - 1. */
struct rows_there {
    size_t lo, hi;
};

INLINE struct rows_there rows_there(const struct product *product, size_t group) {
    size_t end = product->before + product->args->k - group * ATTN_TILE_K;
    return (struct rows_there){group == 0 ? product->before : 0, end < ATTN_TILE_K ? end : ATTN_TILE_K};
}

INLINE bool is_whole(const struct product *product, size_t group) {
    struct rows_there there = rows_there(product, group);
    return there.hi - there.lo == ATTN_TILE_K;
}

/* Memory for a group some of whose rows are not there. */
struct spare {
    uint16_t a[ROWS][ATTN_TILE_K];
    uint32_t b[WIDTH / COLS][TILE_ROWS][COLS]; /* pairs */
};

static void ISA_FN(pairs_copy_a)(struct spare *spare, const struct product *product, const struct part *part,
                                 size_t group, struct rows_there there) {
    const struct attn_gemm_args *args = product->args;
    size_t first = group * ATTN_TILE_K + there.lo - product->before;
    const char *a = (const char *)args->a + part->i * args->a_stride + first * sizeof(uint16_t);
    memset(spare->a, 0, part->rows * sizeof *spare->a);
    for (size_t i = 0; i < part->rows; i++, a += args->a_stride)
        memcpy(&spare->a[i][there.lo], a, (there.hi - there.lo) * sizeof(uint16_t));
}

/* Of a pair that is there by half only that half: the other may be infinite. */
static void ISA_FN(pairs_copy_b)(uint32_t (*spare)[COLS], const char *b, struct rows_there there) {
    memset(spare, 0, sizeof(uint32_t) * TILE_ROWS * COLS);
    for (size_t row = there.lo / 2 * 2; row < there.hi; row += 2) {
        bool even = row >= there.lo, odd = row + 1 < there.hi;
        __m512i halves = _mm512_set1_epi32((int)((odd ? 0xffff0000u : 0u) | (even ? 0xffffu : 0u)));
        __m512i pairs = _mm512_loadu_si512(b + row / 2 * TILE_BYTES);
        _mm512_storeu_si512(spare[row / 2], _mm512_and_si512(pairs, halves));
    }
}

static __attribute__((noinline)) void ISA_FN(pairs_fill)(struct spare *spare, const struct product *product,
                                                         const struct part *part, size_t group) {
    struct rows_there there = rows_there(product, group);
    const char *b = product->b + part->j / COLS * product->args->b.stride + group * GROUP_BYTES;
    ISA_FN(pairs_copy_a)(spare, product, part, group, there);
    ISA_FN(pairs_copy_b)(spare->b[0], b, there);
    if (part->cols > COLS)
        ISA_FN(pairs_copy_b)(spare->b[1], b + product->args->b.stride, there);
}

INLINE void add_partial(const struct product *product, const struct part *part, size_t group, struct spare *spare,
                        const bool tall, const bool wide) {
    ISA_FN(pairs_fill)(spare, product, part, group);
    add_group((const char *)spare->a, sizeof *spare->a, (const char *)spare->b, sizeof *spare->b, tall, wide);
}

/* ---- A part ---- */

/* Rows and columns are configured. */
INLINE void run_part(const struct product *product, const struct part *part, struct spare *spare, const bool tall,
                     const bool wide) {
    const struct attn_gemm_args *args = product->args;
    char *c = (char *)args->c + part->i * args->c_stride + part->j * sizeof(float);
    const char *a = (const char *)args->a + part->i * args->a_stride;
    const char *b = product->b + part->j / COLS * args->b.stride;
    if (part->group > 0 || args->start == ATTN_START_C || args->start == ATTN_START_SCALE)
        load_all(c, args->c_stride, tall, wide);
    else if (args->start == ATTN_START_BIAS)
        load_all((const char *)(args->factors + part->j), 0, tall, wide);
    else
        zero_all(tall, wide);
    size_t group = part->group, whole_end = part->end;
    if (group < part->end && !is_whole(product, group))
        add_partial(product, part, group++, spare, tall, wide);
    if (group < part->end && !is_whole(product, part->end - 1))
        whole_end--;
    a += group * ATTN_TILE_K * sizeof(uint16_t) - product->before * sizeof(uint16_t);
    for (b += group * GROUP_BYTES; group < whole_end; group++) {
        add_group(a, args->a_stride, b, args->b.stride, tall, wide);
        a += ATTN_TILE_K * sizeof(uint16_t);
        b += GROUP_BYTES;
    }
    if (group < part->end)
        add_partial(product, part, group, spare, tall, wide);
    store_all(c, args->c_stride, tall, wide);
}

typedef void part_function(const struct product *product, const struct part *part, struct spare *spare);

/* Tiles of rows, and of columns. */
#define SHAPE(tall, wide)                                                                                              \
    static void ISA_FN(pairs_##tall##_##wide)(const struct product *product, const struct part *part,                  \
                                              struct spare *spare) {                                                   \
        run_part(product, part, spare, tall == 2, wide == 2);                                                          \
    }
SHAPE(1, 1)
SHAPE(1, 2)
SHAPE(2, 1)
SHAPE(2, 2)
static part_function *const shapes[2][2] = {{ISA_FN(pairs_1_1), ISA_FN(pairs_1_2)},
                                            {ISA_FN(pairs_2_1), ISA_FN(pairs_2_2)}};

static void ISA_FN(pairs_part)(struct product *product, const struct part *part) {
    const struct attn_gemm_args *args = product->args;
    struct spare spare;
    char *c = (char *)args->c + part->i * args->c_stride + part->j * sizeof(float);
    ISA_FN(pairs_configure)(product, part->rows, part->cols);
    if (part->group == 0 && args->start == ATTN_START_SCALE)
        ISA_FN(pairs_scale)(c, args->c_stride, args->factors + part->i, part->rows, part->cols);
    shapes[part->rows > TILE_ROWS][part->cols > COLS](product, part, &spare);
}

/* ---- The product ---- */

INLINE size_t less_of(size_t a, size_t b) {
    return a < b ? a : b;
}

/* Rows i .. end - 1 by groups group .. last - 1. */
static void ISA_FN(pairs_rows)(struct product *product, size_t i, size_t end, size_t group, size_t last) {
    struct part part = {.group = group, .end = last};
    for (part.j = 0; part.j < product->args->n; part.j += part.cols) {
        part.cols = less_of(product->args->n - part.j, WIDTH);
        for (part.i = i; part.i < end; part.i += part.rows) {
            part.rows = less_of(end - part.i, ROWS);
            ISA_FN(pairs_part)(product, &part);
        }
    }
}

static void ISA_FN(pairs_run)(const struct attn_gemm_args *args) {
    struct product product = {.args = args, .before = args->row % ATTN_TILE_K};
    size_t groups = args->k ? (product.before + args->k + ATTN_TILE_K - 1) / ATTN_TILE_K : 0;
    if (args->m == 0 || args->n == 0 || (args->k == 0 && args->start == ATTN_START_C))
        return;
    product.b = (const char *)args->b.data + args->column / COLS * args->b.stride +
                (args->row - product.before) * COLS * sizeof(uint16_t);
    flush_state state = flush_begin(); /* of pairs_scale alone: tiles look at no control bits */
    for (size_t i = 0; i < args->m; i += ROW_BLOCK) {
        size_t group = 0;
        do {
            size_t last = less_of(group + DEPTH, groups);
            ISA_FN(pairs_rows)(&product, i, less_of(i + ROW_BLOCK, args->m), group, last);
            group = last;
        } while (group < groups);
    }
    flush_end(state);
    tile_release();
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
                                                       .run = ISA_FN(pairs_run)};
