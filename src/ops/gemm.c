#include "ops/gemm.h"

#include <string.h>

#include "ops/convert.h"
#include "ops/layouts.h"
#include "ops/parallel.h"
#include "quantised.h"

/* Items per thread: enough that a thread which loses its core delays little. */
#define ITEMS_PER_THREAD 4

void attn_packed_take(struct attn_packed *packed, const struct attn_format *format, bool has_bias,
                      struct attn_arena *arena) {
    size_t cols = format->cols, panel = 0;
    arena->overflow |= !attn_weight_panel_bytes(format, &packed->scaling, packed->k, cols, &panel);
    packed->panels = (struct attn_panels){.cols = cols, .stride = panel};
    packed->panels.data = attn_arena_take(arena, packed->n / cols + (packed->n % cols != 0), panel);
    packed->bias = has_bias ? attn_arena_take(arena, packed->n, sizeof *packed->bias) : NULL;
}

void attn_packed_layout(struct attn_packed *packed, const struct attn_gemm_kernel *kernel, size_t k, size_t n,
                        const attn_linear *w, struct attn_arena *arena) {
    *packed = (struct attn_packed){.kernel = kernel, .k = k, .n = n, .scaling = attn_linear_scaling(w)};
    attn_packed_take(packed, &kernel->b, w->bias != NULL, arena);
}

static void pack_plain(const struct attn_packed *packed, const attn_linear *w) {
    size_t element = attn_type_size(packed->kernel->b.type);
    packed->kernel->pack(
        &(struct attn_pack_args){.k = packed->k,
                                 .n = packed->n,
                                 .b = w->weight,
                                 .k_stride = w->in_stride * element,
                                 .n_stride = w->type == ATTN_INT4 ? w->out_stride / 2 : w->out_stride * element,
                                 .packed = packed->panels,
                                 .scaling = packed->scaling,
                                 .scales = w->scales,
                                 .zero_points = w->zero_points});
}

void attn_packed_fill(struct attn_packed *packed, const attn_linear *w) {
    struct attn_linear_reader reader = attn_linear_reader_of(w, packed->k);
    struct attn_weight_source source = attn_linear_source(&reader);
    if (source.elements)
        attn_repack(&packed->kernel->b, packed, &source);
    else
        pack_plain(packed, w);
    if (packed->bias)
        memcpy((float *)packed->bias, w->bias, packed->n * sizeof *packed->bias);
}

void *attn_take_rows(struct attn_arena *arena, size_t rows, size_t width, attn_type type) {
    size_t bytes = 0;
    if (width > SIZE_MAX / attn_type_size(type) - ATTN_LINE ||
        !attn_mul(attn_row_stride(width, type), attn_type_size(type), &bytes))
        arena->overflow = true;
    return attn_arena_take(arena, rows, bytes);
}

/* ---- Conversion ---- */

/* Rows that are converted before a product, or after it, at a time: as many as pass over a panel of weights
 * together. */
enum { CONVERTED_ROWS = 128 };

static bool takes(const struct attn_packed *w, attn_type x) {
    return w->kernel->a == x && (!attn_class_is_bf16(w->kernel->arithmetic) || x == ATTN_BF16);
}

static bool gives(const struct attn_packed *w, attn_type y) {
    return y == ATTN_F32 || (y == w->kernel->c && w->k <= w->kernel->c_most);
}

/* Rounds the bytes of a converted row up to the distance of the next one: whole cache lines, and one more where rows
 * would alias. */
static bool spread_rows(size_t *bytes) {
    if (!attn_round_up(*bytes, ATTN_LINE, bytes))
        return false;
    return *bytes % ATTN_ALIAS ? true : attn_add(*bytes, ATTN_LINE, bytes);
}

/* Bytes from one row of floats that become y to the next. */
static bool result_stride(size_t width, size_t *bytes) {
    return attn_mul(width, attn_type_size(ATTN_F32), bytes) && spread_rows(bytes);
}

/* Bytes from one converted row of x to the next. */
static bool converted_stride(const struct attn_packed *w, size_t *bytes) {
    bool fits = attn_class_is_quantised(w->kernel->arithmetic) ? attn_quantised_bytes(w->k, w->scaling.block, bytes)
                                                               : attn_mul(w->k, attn_type_size(w->kernel->a), bytes);
    return fits && spread_rows(bytes);
}

/* A task's memory: converted rows of x, floats that become rows of y, then what the kernel widens. */
struct spare {
    size_t x_stride, y_stride; /* 0: not converted */
    size_t x_bytes, y_bytes, widened_bytes;
};

static bool spare_of(const struct attn_packed *w, size_t m, attn_type x, attn_type y, struct spare *spare,
                     size_t *bytes) {
    size_t rows = attn_min(m, CONVERTED_ROWS);
    *spare = (struct spare){.widened_bytes = attn_gemm_widened_bytes(w->kernel, m, w->k)};
    return (takes(w, x) || converted_stride(w, &spare->x_stride)) &&
           (gives(w, y) || result_stride(w->n, &spare->y_stride)) && attn_mul(rows, spare->x_stride, &spare->x_bytes) &&
           attn_mul(rows, spare->y_stride, &spare->y_bytes) && attn_add(spare->x_bytes, spare->y_bytes, bytes) &&
           attn_add(*bytes, spare->widened_bytes, bytes);
}

bool attn_gemm_spare_bytes(const struct attn_packed *w, size_t m, attn_type x, attn_type y, size_t *bytes) {
    struct spare spare;
    return spare_of(w, m, x, y, &spare, bytes);
}

/* Rows of x as the kernel takes them. */
static void convert_rows(const struct attn_gemm_call *call, size_t rows, const char *x, char *to, size_t to_stride) {
    const struct attn_gemm_kernel *kernel = call->w->kernel;
    size_t k = call->w->k;
    if (kernel->pack_a) {
        kernel->pack_a(&(struct attn_quantise_args){.m = rows,
                                                    .k = k,
                                                    .block = call->w->scaling.block,
                                                    .type = call->x.type,
                                                    .x = x,
                                                    .a = to,
                                                    .x_stride = call->x.stride,
                                                    .a_stride = to_stride});
        return;
    }
    for (size_t i = 0; i < rows; i++, x += call->x.stride, to += to_stride)
        attn_take_row(attn_table_convert(call->table), kernel, call->x.type, k, x, to);
}

/* ---- The product ---- */

/* A product cut into items: bands of rows, or bands of columns. */
struct product {
    const struct attn_gemm_call *call;
    struct spare spare;
    bool by_rows;
    size_t band; /* rows or columns of an item, a multiple of the tile's */
};

struct part {
    size_t row, rows, col, cols;
};

static void multiply_part(const struct product *product, struct part part, size_t task) {
    const struct attn_gemm_call *call = product->call;
    const struct attn_packed *w = call->w;
    char *spare = call->spare + task * call->spare_bytes, *x = (char *)call->x.data + part.row * call->x.stride;
    char *y = (char *)call->y.data + part.row * call->y.stride + part.col * attn_type_size(call->y.type);
    bool narrow = product->spare.y_stride > 0;
    struct attn_gemm_args args = {
        .m = part.rows,
        .n = part.cols,
        .k = w->k,
        .a = x,
        .a_stride = call->x.stride,
        .b = w->panels,
        .scaling = w->scaling,
        .column = part.col,
        .start = w->bias ? ATTN_START_BIAS : ATTN_START_ZERO,
        .factors = w->bias ? w->bias + part.col : NULL,
        .c_type = narrow ? ATTN_F32 : call->y.type,
        .c = narrow ? spare + product->spare.x_bytes : y,
        .c_stride = narrow ? product->spare.y_stride : call->y.stride,
        .widened = product->spare.widened_bytes > 0 ? spare + product->spare.x_bytes + product->spare.y_bytes : NULL};
    if (product->spare.x_stride > 0) {
        convert_rows(call, part.rows, x, spare, product->spare.x_stride);
        args.a = spare;
        args.a_stride = product->spare.x_stride;
    }
    w->kernel->run(&args);
    for (size_t i = 0; narrow && i < part.rows; i++)
        attn_table_convert(call->table)
            ->narrow(call->y.type, part.cols, (const float *)(const void *)((char *)args.c + i * args.c_stride),
                     y + i * call->y.stride);
}

/* Rows that are converted go some at a time. */
static void multiply_band(const struct product *product, size_t item, size_t task) {
    const struct attn_gemm_call *call = product->call;
    size_t begin = item * product->band, total = product->by_rows ? call->m : call->w->n;
    size_t end = attn_min(begin + product->band, total);
    struct part part = product->by_rows ? (struct part){begin, end - begin, 0, call->w->n}
                                        : (struct part){0, call->m, begin, end - begin};
    bool converts = product->spare.x_stride > 0 || product->spare.y_stride > 0;
    size_t last = part.row + part.rows, most = converts ? CONVERTED_ROWS : part.rows;
    for (; part.row < last; part.row += part.rows) {
        part.rows = attn_min(last - part.row, most);
        multiply_part(product, part, task);
    }
}

static void multiply_bands(const void *arg, struct attn_items *items) {
    const struct product *product = arg;
    for (size_t item; attn_items_take(items, &item);)
        multiply_band(product, item, items->task);
    attn_gemm_end_task(product->call->w->kernel);
}

/* `total` rows or columns, cut into items of the same number of GEMM tiles. */
struct cut {
    size_t band, items;
    double wait; /* the time until the last thread is done, as a multiple of the time with equal shares */
};

static struct cut cut_tiles(size_t total, size_t tile, size_t threads) {
    size_t tiles = (total + tile - 1) / tile;
    size_t wanted = threads < tiles / ITEMS_PER_THREAD ? threads * ITEMS_PER_THREAD : tiles;
    size_t per_item = (tiles + wanted - 1) / wanted, items = (tiles + per_item - 1) / per_item;
    double most = (double)((items + threads - 1) / threads) * (double)per_item;
    return (struct cut){per_item * tile, items, most * (double)threads / (double)tiles};
}

void attn_op_gemm(const struct attn_gemm_call *call) {
    const struct attn_packed *w = call->w;
    struct product product = {.call = call, .by_rows = true, .band = call->m};
    size_t bytes;
    if (call->m == 0)
        return;
    spare_of(w, call->m, call->x.type, call->y.type, &product.spare, &bytes);
    /* In floating point, because the product of the sizes may not fit in size_t. */
    const struct attn_tuning *tuning = attn_tuning_for(call->table->isa);
    size_t threads = attn_threads_for(tuning, call->parallel,
                                      (double)call->m * (double)w->n * (double)w->k * tuning->multiply_add_ns);
    if (threads == 1) {
        multiply_bands(&product, &(struct attn_items){.end = 1});
        return;
    }
    struct cut rows = cut_tiles(call->m, w->kernel->rows, threads), cols = cut_tiles(w->n, w->kernel->b.cols, threads);
    product.by_rows = rows.wait < cols.wait;
    struct cut cut = product.by_rows ? rows : cols;
    product.band = cut.band;
    attn_for_each_task(call->parallel, threads, cut.items, multiply_bands, &product);
}
