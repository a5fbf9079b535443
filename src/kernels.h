/* The border between the operators (src/ops, portable C) and the kernels (src/ref, simd).
 *
 * An operator receives a table and calls what is in it; a kernel knows nothing of statuses, threads, heads or masks.
 * Kernels trust their arguments: the operators have checked them. Unless said otherwise pointers need a float's
 * alignment only, inputs and outputs do not overlap, and not one byte outside the described elements is read or
 * written.
 *
 * The scalar reference (src/ref) is the specification: every kernel returns its bits. What fixes them:
 *   - a GEMM element is one chain acc = fma(a, b, acc) over ascending k;
 *   - exp is SLEEF's finz_expf_u10 sequence; max(m, x) is (x > m ? x : m), which ignores NaN in x;
 *   - a sum over columns runs in 16 lanes, column c in lane c % 16, each lane in ascending order; the lanes are then
 *     added in the tree of attn_lane_sum: lane i to lane i + 8, then i + 4, i + 2, i + 1.
 * A kernel compiled by gcc raises FE_INVALID, FE_DIVBYZERO or FE_OVERFLOW only where the reference does, with these
 * exceptions:
 *   - an infinite factor (scale, inverse, slope, in run_rows an element of a) may meet the zeros that fill up a
 *     register;
 *   - a product may raise what its columns would raise from a start of +0;
 *   - `small` may raise what it would if every row saw every key;
 *   - a slope above FLT_MAX / 2^31 may raise in a column that is not visible;
 *   - from and to F16 a signalling NaN may raise FE_INVALID, and a number that becomes infinite FE_OVERFLOW: the
 *     reference computes with integers.
 */
#ifndef ATTN_KERNELS_H
#define ATTN_KERNELS_H

#include <attn/attn.h>
#include <stddef.h>
#include <stdint.h>

#include "arithmetic.h"

/* Lanes of every sum, whatever the register width. */
#define ATTN_LANES 16

/* Keys are taken in blocks of this many, counted from key 0: one maximum and one rescaling of the output per block. */
#define ATTN_BLOCK 256

/* Keys between two span borders, counted from key 0: spans are independent of each other and merged in ascending
 * order. */
#define ATTN_SPAN 4096

/* The most keys and the largest head that attn_small_kernel takes. */
#define ATTN_SMALL_KEYS 32
#define ATTN_SMALL_SIZE 128

/* The most query rows of a tile. No kernel has a larger attn_gemm_kernel.rows. */
#define ATTN_MAX_ROWS 32

/* The most columns of a panel. */
#define ATTN_MAX_COLS 32

/* ---- GEMM ---- */

/* The order of a product's operations. Kernels of one class return the same bits: those of the class' reference, which
 * is a kernel of src/ref. */
enum attn_class {
    /* One chain acc = fma(a, b, acc) an element, over ascending k. B may be stored as F16, INT8 or F8, whose
     * elements are widened, which is exact: a kernel for each, with INT8 without scales. */
    ATTN_CLASS_F32,
    /* A and B are bf16 numbers. One chain over ascending pairs of rows of packed B, 2 i and 2 i + 1:
     *   acc = fma(a[2 i], b[2 i], fma(a[2 i + 1], b[2 i + 1], acc))
     * Where the product lacks one of the two, both its elements are +0. Denormal operands and results count as zeros of
     * their sign; what is tiny is decided after rounding (attn_fmaf_flushed). These are the bits of VDPBF16PS. The
     * product c * factor of a start is flushed likewise. */
    ATTN_CLASS_BF16,
    /* A and B are bf16 numbers, flushed as above. For each ATTN_TILE_K rows of packed B, counted from row 0 of the
     * panel, in ascending order:
     *   even = fma(a[2 i], b[2 i], even) over ascending i, from +0; odd = fma(a[2 i + 1], b[2 i + 1], odd) likewise
     *   acc = acc + (even + odd)
     * Where the product lacks a row of them both its elements are +0, and take part. These are the bits of
     * TDPBF16PS. */
    ATTN_CLASS_BF16_TILE,
    /* A's rows and B are integers with scales. Sums of products are exact integers, whatever their order:
     *   acc = sum over p of a[p] * b[p], of each ATTN_INT8_PART rows of B; t = (float)acc of the first, + (float)acc of
     *   each other; c = fma(t, scale of the row * scale of the column, start) */
    ATTN_CLASS_INT8,
    /* The same with a scale and a zero point, z, for each block of a column:
     *   acc = sum over p of a[p] * (b[p] - z), of each block; t = fma((float)acc, the block's scale, t), from +0;
     *   c = fma(t, scale of the row, start) */
    ATTN_CLASS_INT4,
    /* The same with elements of 8 bits, which have a sign; z is 0 where there are no zero points. */
    ATTN_CLASS_INT8_BLOCKS
};

/* The class of products with weights of that type that every ISA has. */
static inline enum attn_class attn_class_of(attn_type type) {
    switch (type) {
    case ATTN_BF16:
        return ATTN_CLASS_BF16;
    case ATTN_INT8:
        return ATTN_CLASS_INT8;
    case ATTN_INT4:
        return ATTN_CLASS_INT4;
    default:
        return ATTN_CLASS_F32;
    }
}

/* The type of the class' own B. */
static inline attn_type attn_class_type(enum attn_class arithmetic) {
    switch (arithmetic) {
    case ATTN_CLASS_BF16:
    case ATTN_CLASS_BF16_TILE:
        return ATTN_BF16;
    case ATTN_CLASS_INT8:
    case ATTN_CLASS_INT8_BLOCKS:
        return ATTN_INT8;
    case ATTN_CLASS_INT4:
        return ATTN_INT4;
    case ATTN_CLASS_F32:
        break;
    }
    return ATTN_F32;
}

/* Whether A's rows are quantised: as pack_a makes them. */
static inline bool attn_class_is_quantised(enum attn_class arithmetic) {
    return arithmetic == ATTN_CLASS_INT8 || arithmetic == ATTN_CLASS_INT4 || arithmetic == ATTN_CLASS_INT8_BLOCKS;
}

/* Rows of packed B that class BF16_TILE adds up before it adds them to an element: a product that ends within them and
 * another one that goes on from there are not the product of both. */
#define ATTN_TILE_K 32

/* Of bf16 numbers, whatever the order. */
static inline bool attn_class_is_bf16(enum attn_class arithmetic) {
    return arithmetic == ATTN_CLASS_BF16 || arithmetic == ATTN_CLASS_BF16_TILE;
}

/* How the elements of a packed matrix lie. */
struct attn_format {
    attn_type type;
    size_t cols;   /* of a panel; a divisor of ATTN_MAX_COLS */
    size_t k_unit; /* rows whose elements lie side by side; a panel holds a multiple of so many */
    size_t beside; /* bytes of each column beside its elements: of class INT8 its scale */
    uint8_t flip;  /* of INT8: what each element is combined with by exclusive or; 0x80 adds 128 to it */
    uint8_t wide;  /* of BF16: 1 where packed elements are floats */
};

/* Products of INT8 that are added up as integers: with bytes of either sign, and with bytes that are made positive,
 * no sum of so many leaves 32 bits. */
#define ATTN_INT8_PART 65536

/* What quantised elements of B are multiplied by. */
struct attn_scaling {
    size_t block;        /* rows that share a scale; without blocks: ATTN_INT8_PART, and all rows share one */
    attn_type type;      /* of the scales: F32, or of blocks F16 */
    bool has_zero_point; /* each block; else INT4 has 8, INT8 has 0 */
};

/* Whether each block of a column has a scale, which stands among the elements. */
static inline bool attn_has_blocks(const struct attn_scaling *scaling) {
    return scaling->block < ATTN_INT8_PART;
}

/* The class of products with such weights. */
static inline enum attn_class attn_class_of_weights(attn_type type, const struct attn_scaling *scaling) {
    return type == ATTN_INT8 && attn_has_blocks(scaling) ? ATTN_CLASS_INT8_BLOCKS : attn_class_of(type);
}

/* A packed matrix B[k][n], or some panels of one. What lies in a panel only the kernel knows that has packed it;
 * of weights also ops/repack.c, by the format. */
struct attn_panels {
    void *data;
    size_t cols;   /* of a panel: the format's, or ATTN_LANES where that is less */
    size_t stride; /* bytes from panel to panel */
};

/* Packs b[k][n], element [p][j] at b + p * k_stride + j * n_stride (bytes), as rows from `row` and columns from
 * `column` on; quantised elements all at once, row and column 0. Strides may be anything; those of neighbours in
 * either are the fast case. INT4: column j begins at b + j * n_stride, k_stride is not looked at. Copies of column n
 * - 1 fill up the last of the panels that begin here: a product with them raises no exception of its own. A panel
 * that has columns before these keeps its others. */
struct attn_pack_args {
    size_t k, n;
    const void *b;
    size_t k_stride, n_stride;
    struct attn_panels packed;
    size_t row, column;
    struct attn_scaling scaling; /* of classes of integers, as the next two */
    const void *scales;          /* [n]; with blocks: [n][k / block] */
    const void *zero_points;     /* of blocks, or NULL: as elements are, INT8 [n][k / block], INT4 two to a byte, the
                                  * first in its lower half, [n][(k / block + 1) / 2] */
};

/* Where the chain of c[i][j] starts. */
enum attn_start {
    ATTN_START_ZERO, /* +0 */
    ATTN_START_BIAS, /* factors[j] */
    ATTN_START_C,    /* c[i][j] */
    ATTN_START_SCALE /* c[i][j] * factors[i] */
};

/* c[i][j] = start + sum over ascending p of a[i][p] * b[p][j]. Strides are bytes. */
struct attn_gemm_args {
    size_t m, n, k; /* each may be 0; with k == 0 the start is stored */
    const void *a;
    size_t a_stride; /* at least a row, or any where m <= 1 */
    /* Packed: the product begins with this row and column of it, the first of a panel. In place (run_rows,
     * run_columns): data and stride alone. */
    struct attn_panels b;
    struct attn_scaling scaling; /* as it was packed */
    size_t row, column;
    enum attn_start start; /* of quantised elements ZERO or BIAS */
    const float *factors;  /* as the start needs */
    attn_type c_type;      /* F32, or the kernel's `c`; the start is then ZERO or BIAS, and results are rounded once */
    void *c;
    size_t c_stride; /* at least a row */
    void *widened;   /* NULL, or memory of attn_gemm_widened_bytes, on a cache line */
};

/* Rows x[m][k] of F32, BF16 or F16. */
struct attn_quantise_args {
    size_t m, k;
    size_t block; /* see attn_scaling; else a multiple of 32 */
    attn_type type;
    const void *x;
    void *a;
    size_t x_stride, a_stride; /* bytes */
};

/* A tile, its packer and its sizes are one: data packed by one kernel is read by the same kernel only, or,
 * of weights, by one with an equal format. */
struct attn_gemm_kernel {
    const char *name;
    enum attn_class arithmetic;
    attn_type a; /* of the elements of A, after pack_a */
    attn_type c; /* what C may have instead of F32, where k is at most c_most: it cannot hold sums of parts */
    size_t c_most;
    struct attn_format b; /* of B once it is packed; its source has the same type */
    size_t rows;          /* of the largest tile; <= ATTN_MAX_ROWS */
    /* Of a kernel that widens B: what `run` is faster with, bytes for each of up to so many rows of a panel. Else 0. */
    size_t widened_row, widened_rows;
    /* NULL, or the kernel of the same class and types whose packed B is wide: faster where many rows read what is
     * packed for them alone. */
    const struct attn_gemm_kernel *of_floats;
    void (*pack)(const struct attn_pack_args *args);
    /* Classes of integers: quantises rows for `run` (quantised.h). Others: NULL. */
    void (*pack_a)(const struct attn_quantise_args *args);
    /* 1 where no element of rows row .. row + k - 1 of the first n columns is infinite or NaN, else 0. NULL for
     * classes of integers. */
    int (*finite)(const struct attn_panels *b, size_t row, size_t k, size_t n);
    void (*run)(const struct attn_gemm_args *args);
    /* The same for b as the caller has it: element [p][j] at b + p * stride + j * (its size) (run_rows), or at b + j *
     * stride + p * (its size) (run_columns). Of class F32 over floats; others: NULL. */
    void (*run_rows)(const struct attn_gemm_args *args);
    void (*run_columns)(const struct attn_gemm_args *args);
    /* NULL, or what a task calls after its last product: `run` may leave a state of the processor to the task's next
     * one. */
    void (*end_task)(void);
};

/* For products of m rows and k, from row 0 of B on. */
static inline size_t attn_gemm_widened_bytes(const struct attn_gemm_kernel *kernel, size_t m, size_t k) {
    size_t unit = kernel->b.k_unit, rows = kernel->widened_rows;
    if (k < rows)
        rows = (k + unit - 1) / unit * unit;
    return m > kernel->rows ? rows * kernel->widened_row : 0;
}

static inline void attn_gemm_end_task(const struct attn_gemm_kernel *kernel) {
    if (kernel->end_task)
        kernel->end_task();
}

/* ---- Decode ---- */

/* A few query rows over a stretch of keys. */
struct attn_decode_args {
    size_t rows; /* at least 1 */
    size_t keys; /* at least 1 */
    size_t size; /* of a key, or of a value; at least 1 */
    /* scores: queries, [rows][size]; values: probabilities, [rows][keys], where each block of ATTN_BLOCK begins so many
     * floats after the one before it, whatever their type. */
    const void *x;
    size_t x_stride;      /* bytes */
    struct attn_panels b; /* as the class' GEMM kernel packs elements of the type; in place data and stride alone */
    size_t first;         /* the first key's column, that of a panel, or the first value's row; in place 1 where the
                           * first value's key is the second of a pair, else 0 */
    bool fetched;         /* what follows this stretch lies elsewhere: the caller has fetched it */
    int distant;     /* prefetch hint: 0 if a cache holds all keys and values, 1 if it holds some, 2 if it holds few */
    float *y;        /* scores: [rows][keys]; values: [rows][size]. Up to 31 floats more of each row are written. */
    size_t y_stride; /* floats */
    /* Of values: where chains start. Before every block of ATTN_BLOCK keys but the first row r's chains are multiplied
     * by factors[n * factor_stride + r], n = 1, 2, ... Those of n = 0 are of the start. y's further floats are read.
     * In class BF16 each block is a product of its own: pairs are those of the panels' rows, and of a pair that lies in
     * two blocks each lacks the other's element. */
    enum attn_start start;
    const float *factors;
    size_t factor_stride;
};

/* The same chains as a GEMM kernel's, for few rows: these wait for memory. */
struct attn_decode_kernel {
    const char *name;
    enum attn_class arithmetic; /* F32 or BF16 */
    attn_type x;                /* F32, or what the GEMM kernel has for A */
    attn_type type;             /* of keys and values */
    size_t rows;                /* the most of a call over panels, 2 */
    size_t rows_in_turns; /* the most that such calls take one after the other: for more rows a product is faster */
    size_t rows_in_place; /* the most of a call in place, at least 2; 0 where there is no such kernel */
    /* Those in place are both there, or both NULL. F32 has them on every ISA. */
    void (*scores)(const struct attn_decode_args *args);
    void (*scores_in_place)(const struct attn_decode_args *args);
    void (*values)(const struct attn_decode_args *args);
    void (*values_in_place)(const struct attn_decode_args *args);
};

/* ---- Masked softmax ---- */

/* For each row: y[c] = exp(x[c] - m) * (1 / sum) for c < valid, +0 for valid <= c < cols, where m is the maximum of the
 * valid x (+0 where that is -inf) and sum the lane sum of the exp. A sum of 0 (every x is -inf) gives a row of +0.
 * x[valid..] is not read. y may be x where their elements have one size. */
struct attn_softmax_rows {
    /* Of x and of y: F32, BF16 or F16. They are widened and narrowed as attn_convert_kernel does, but for the bits of
     * NaN. */
    attn_type from, to;
    size_t rows, cols;
    const size_t *valid; /* [rows]; a row of 0 is not looked at */
    const void *x;
    size_t x_stride; /* bytes */
    void *y;
    size_t y_stride;
};

struct attn_softmax_kernel {
    const char *name;
    void (*rows)(const struct attn_softmax_rows *args);
};

/* ---- Elementary functions ---- */

/* y[c] = f(x[c]) with the bits of SLEEF's finz_*f_u10. y may be x. */
struct attn_elementary_kernel {
    const char *name;
    void (*exp)(const float *x, float *y, size_t n);
    void (*log)(const float *x, float *y, size_t n);
    void (*tanh)(const float *x, float *y, size_t n);
    /* abs(x) <= 4, for angles come reduced. Beyond, and for NaN, y may be anything and differ between kernels. */
    void (*sin)(const float *x, float *y, size_t n);
    void (*cos)(const float *x, float *y, size_t n);
};

/* ---- Attention ---- */

/* One tile of query rows through one block of keys. Row r's logits are scores[r * score_stride + c], c counting the
 * block's keys; the columns visible to it are lo[r] <= c < hi[r] (none where hi[r] <= lo[r]). max and lanes hold, for
 * each row, what the span has accumulated so far. */
struct attn_online_softmax_args {
    size_t rows;
    /* 64-byte aligned. In: logits. Out: probabilities exp(logit - max) where visible, +0 elsewhere. */
    float *scores;
    size_t score_stride; /* a multiple of 16 */
    const uint32_t *lo, *hi;
    size_t begin, end; /* columns [begin, end) are written; multiples of 16 that enclose every [lo, hi) */
    float *max;        /* [rows] running maximum, -inf at first; becomes max(max, the block's), where -0 becomes +0 */
    /* [rows][ATTN_LANES] partial sums of the probabilities, 64-byte aligned, +0 at first: multiplied by the rescale
     * factor, then added to. */
    float *lanes;
    float *rescale; /* [rows] out: the factor by which the caller must multiply the values accumulated so far */
    float scale;    /* of class BF16: not 0. Else not looked at. */
};

/* One row through several blocks of ATTN_BLOCK columns, one after the other. The row sees their first n columns. */
struct attn_online_softmax_blocks_args {
    float *scores; /* as above */
    size_t n;      /* 1 to ATTN_LANES * ATTN_BLOCK */
    float *max, *lanes;
    float *rescale; /* [blocks] */
};

/* What one row's logits become between the product and the maximum, columns lo <= c < hi. In this order:
 *   slope:    x[c] = fma(-slope, abs((float)(distance + c)), x[c]), distance + c in integers; skipped where slope is 0
 *   add:      x[c] = fma(factor, add[c], x[c]), which for a factor of 1 is x[c] + add[c]; -inf where add[c] is -inf,
 *             whatever the factor, also for x[c] of +inf or NaN; NULL for none
 *   visible:  x[c] = -inf where visible[c] is 0; NULL for none
 * Other columns of x, add and visible are neither read nor written. */
struct attn_bias_args {
    float *x;
    size_t lo, hi;
    float slope;
    int32_t distance; /* the key of column 0 less the row's position; distance + hi does not overflow */
    const float *add;
    float factor; /* finite; not looked at without add */
    const uint8_t *visible;
};

struct attn_attention_kernel {
    const char *name;
    /* x[c] = cap * tanh(x[c] * inverse) for c < n. */
    void (*soft_cap)(float *x, size_t n, float cap, float inverse);
    void (*bias)(const struct attn_bias_args *args);
    /* Rotary embedding: y[j] = fma(x[partner of j], sin[j], x[j] * cos[j]) for j < dims, an even number. The partner is
     * j + 1 or j - 1 of the same pair where interleaved, else j + dims / 2 or j - dims / 2; the sign is in sin. y may
     * be x. */
    void (*rotate)(const float *x, const float *cos, const float *sin, size_t dims, int interleaved, float *y);
    /* For each row with a visible column:
     *   new = max(old maximum, visible logits in any order); shift = new, or +0 where new is -inf
     *   rescale = exp(old - shift); lanes *= rescale
     *   p[c] = exp(logit[c] - shift); lanes[c % 16] += p[c] over ascending c
     * A row without a visible column keeps its max and lanes; its rescale is 1 and its columns are set to +0. */
    void (*online_softmax)(const struct attn_online_softmax_args *args);
    /* The same for one row and several blocks; NULL where calls of online_softmax, block by block, take no longer. */
    void (*online_softmax_blocks)(const struct attn_online_softmax_blocks_args *args);
    /* Merges a later span's state into an earlier one's, row by row, in place of the earlier:
     *   new = max(m0, m1); shift as above; f0 = exp(m0 - shift), f1 = exp(m1 - shift)
     *   sum0 = fma(sum1, f1, sum0 * f0); output0[j] = fma(output1[j], f1, output0[j] * f0); m0 = new */
    void (*merge)(size_t rows, size_t size, float *max0, float *sum0, float *output0, const float *max1,
                  const float *sum1, const float *output1, size_t output_stride);
    /* sum[r] = tree sum of lanes[r][16] (attn_lane_sum). */
    void (*sum)(size_t rows, const float *lanes, float *sum);
    /* out[r][j] = output[r][j] * inverse[r] + 0 for r < rows, j < size: each row divided by its sum, -0 made +0. out
     * may be output. */
    void (*normalize)(size_t rows, size_t size, const float *output, size_t output_stride, const float *inverse,
                      float *out, size_t out_stride);
    /* y[c] = exp(x[c] - shift) * inverse for lo <= c < hi, where x[c] <= shift or NaN; +0 elsewhere below cols. y may
     * be x. */
    void (*weights)(const float *x, size_t lo, size_t hi, size_t cols, float shift, float inverse, float *y);
    /* y[r][j] = x[r][j] * factor for r < rows, j < size. y may be x. */
    void (*scale)(size_t rows, size_t size, const float *x, size_t x_stride, float factor, float *y, size_t y_stride);
    /* x[r][c] = x[r][c] * factors[c] for r < rows, c < n: products with keys, and probabilities, by the scales of
     * the keys and values of a cache. */
    void (*scale_columns)(size_t rows, size_t n, float *x, size_t x_stride, const float *factors);
    /* 1 where none of x[0..n) is infinite or NaN, else 0. */
    int (*all_finite)(const float *x, size_t n);
};

/* ---- Attention of classes BF16 and BF16_TILE ---- */

/* What is different between the two products. */
struct attn_bf16_kernel {
    const char *name;
    /* Of probabilities, and of A of the GEMM kernels that take them: BF16, or F32 for floats that are BF16 numbers. */
    attn_type type;
    /* As attn_attention_kernel's, but a row of scores becomes a row of `type`, which begins where the row of logits
     * does. For each row with a visible column:
     *   logit[c] = logit[c] * scale, rounded: the bits are those of logits that were scaled before they came here
     *   new = max(old maximum, visible logits); shift, rescale and lanes as there
     *   t[c] = (logit[c] - shift) * log2(e), which is never above 0
     *   n = t[c] rounded to the nearest integer, the even one of two; f = t[c] - n
     *   p[c] = fma(fma(fma(C3, f, C2), f, C1), f, 1) * 2^n, or +0 where t[c] < -125; lanes[c % 16] += p[c]
     *   p[c], rounded to BF16, is the probability
     * The polynomial is 2^f for abs(f) <= 1/2 with a relative error of at most 2^-13.2 (minimax with a constant of
     * 1). */
    void (*online_softmax)(const struct attn_online_softmax_args *args);
};

#define ATTN_LOG2_E  0x1.715476p+0f
#define ATTN_EXP2_C1 0x1.62f5fcp-1f
#define ATTN_EXP2_C2 0x1.f00c6ap-3f
#define ATTN_EXP2_C3 0x1.c2a1eap-5f

/* ---- Attention over few keys ---- */

/* The heads of one sequence, in one call. Query row i of head h reads the first hi[i] keys and values of kv head h /
 * group, and no byte of key number `keys` or later ones. Row i of head h of a tensor begins h * head_stride + i *
 * row_stride elements behind its data. */
struct attn_small_args {
    enum attn_class arithmetic;        /* F32; BF16 where the kernel has it */
    attn_type q_type, kv_type, o_type; /* F32, BF16 or F16 */
    size_t heads, group;               /* query heads, a multiple of group */
    size_t rows;                       /* of each head */
    size_t keys;                       /* 1 to ATTN_SMALL_KEYS */
    const uint32_t *hi;                /* [rows], each at most keys; NULL: every row sees every key */
    size_t head_size, value_size;      /* each at least 1; head_size at most ATTN_SMALL_SIZE */
    float scale;
    const void *q, *k, *v;
    size_t q_head_stride, q_row_stride;
    size_t k_head_stride, k_row_stride;
    size_t v_head_stride, v_row_stride;
    void *o;
    size_t o_head_stride, o_row_stride;
    void *scratch; /* scratch_bytes of memory, aligned to ATTN_ALIGNMENT */
};

struct attn_small_kernel {
    const char *name;
    size_t scratch_bytes; /* a multiple of ATTN_ALIGNMENT */
    bool has_bf16;        /* class BF16 too */
    /* The bits that scale, gemm, online_softmax, gemm, sum and normalize give for one block of elements that are
     * widened, and then `narrow`. In class F32:
     *   logit[c] = chain over ascending d of (q[d] * scale) * k[c][d], from +0
     *   max = the largest visible logit, NaN passed over, -0 made +0, -inf where there is none
     *   shift = max, or +0 for -inf
     *   p[c] = exp(logit[c] - shift); sum = the lane sum of p
     *   o[j] = (chain over ascending visible c of p[c] * v[c][j], from +0) * (1 / sum, or 0 where sum is 0) + 0
     * In class BF16 elements are rounded to BF16 first, chains are those of that class, logits are products times
     * scale, and attn_bf16_kernel says what p[c] are. */
    void (*run)(const struct attn_small_args *args);
};

/* ---- Splitting and merging heads ---- */

/* Byte y[i * y_stride + j] = x[i * x_stride + j] for i < rows, j < bytes. The number of bytes, both strides and the
 * alignment of x and y are multiples of 2. */
struct attn_copy_kernel {
    const char *name;
    void (*rows)(size_t rows, size_t bytes, const void *x, size_t x_stride, void *y, size_t y_stride);
};

/* ---- Element types ---- */

/* Rows of outputs, and of what they become, in elements. */
struct attn_normalize_args {
    size_t rows, size;
    const float *output;
    size_t output_stride;
    const float *inverse; /* of each row */
    void *out;
    size_t out_stride;
};

/* Rows from one type to another: ATTN_F32, ATTN_BF16, ATTN_F16, ATTN_F8_E4M3, ATTN_F8_E5M2. Elements of 16 bits have
 * an alignment of 2. In the default floating-point environment every bit is fixed, those of NaN too. NaN stays NaN
 * and keeps its sign and as many upper bits of its fraction as the result has, E4M3 none but ones; it becomes quiet,
 * except where BF16 is widened. */
struct attn_convert_kernel {
    const char *name;
    /* y[j] = x[j] for j < n, x of `type`, which may be ATTN_INT8 too. Exact. */
    void (*widen)(attn_type type, size_t n, const void *x, float *y);
    /* y[j] = x[j] for j < n, y of `type`, rounded to nearest, of two to the even one, beyond the largest number to
     * infinity. To BF16 a denormal x becomes the zero of its sign, as in processors' own instructions for BF16; to
     * F16 and F8 denormal results are kept. To either F8 what is beyond the largest number, 448 or 57344, becomes
     * that number with its sign, infinity too: no number becomes NaN or infinite. To F32 every bit is copied. */
    void (*narrow)(attn_type type, size_t n, const float *x, void *y);
    /* What attn_attention_kernel.normalize gives, narrowed to BF16 or F16. */
    void (*normalize)(attn_type type, const struct attn_normalize_args *args);
    /* y[j] = x[j] narrowed to BF16 and widened again. y may be x. */
    void (*round_bf16)(size_t n, const float *x, float *y);
};

/* ---- The table ---- */

/* A group that is NULL is the next lower ISA's; attn_table_* follow that. */
struct attn_kernels {
    attn_isa isa;
    const struct attn_kernels *lower; /* NULL for scalar */
    /* Of an ISA that has an instruction for pairs of BF16: the same table with products of class BF16 by multiply-adds,
     * whose panels are the same, for processors that are faster at these. Else NULL. */
    const struct attn_kernels *by_fma;
    const struct attn_gemm_kernel *const *gemm; /* ends with NULL */
    const struct attn_decode_kernel *decode;
    /* Of keys and values of other types, a list that ends with NULL; NULL: the lower ISA's. Scalar has the reference
     * of class BF16. */
    const struct attn_decode_kernel *const *stored_decode;
    const struct attn_softmax_kernel *softmax;
    const struct attn_elementary_kernel *elementary;
    const struct attn_attention_kernel *attention;
    const struct attn_bf16_kernel *bf16;
    const struct attn_small_kernel *small;
    const struct attn_copy_kernel *copy;
    const struct attn_convert_kernel *convert;
};

#define ISA(name, NAME, arch) extern const struct attn_kernels attn_kernels_##name;
#include "isa.def"
#undef ISA

#define ATTN_TABLE_GROUP(group)                                                                                        \
    static inline const struct attn_##group##_kernel *attn_table_##group(const struct attn_kernels *table) {           \
        while (!table->group)                                                                                          \
            table = table->lower;                                                                                      \
        return table->group;                                                                                           \
    }
ATTN_TABLE_GROUP(decode)
ATTN_TABLE_GROUP(softmax)
ATTN_TABLE_GROUP(elementary)
ATTN_TABLE_GROUP(attention)
ATTN_TABLE_GROUP(small)
ATTN_TABLE_GROUP(copy)
ATTN_TABLE_GROUP(convert)
#undef ATTN_TABLE_GROUP

/* The fixed tree over 16 lanes. */
static inline float attn_lane_sum(const float *lanes) {
    float t[ATTN_LANES];
    for (size_t i = 0; i < ATTN_LANES; i++)
        t[i] = lanes[i];
    for (size_t half = ATTN_LANES / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++)
            t[i] = t[i] + t[i + half];
    return t[0];
}

#endif
