#include "ops/softmax.h"

#include <math.h>
#include <string.h>

#include "ops/parallel.h"
#include "ops/visible.h"

#define SOFTMAX_ROWS_PER_ITEM 16

/* Elements that are floats at a time, on the stack, where a row's own memory has no room for them. */
#define SOFTMAX_PIECE 1024

struct softmax {
    const struct attn_softmax_kernel *kernel;
    const struct attn_attention_kernel *attention;
    const struct attn_convert_kernel *convert;
    const attn_softmax_args *args;
    size_t rows; /* batch * rows */
};

/* One element, then as many again as there are. */
static void empty_row(const struct softmax *softmax, char *y) {
    const attn_softmax_args *args = softmax->args;
    float value = args->empty == ATTN_EMPTY_MEAN ? 1.0f / (float)args->cols : 0.0f;
    size_t done = attn_type_size(args->y.type), bytes = args->cols * done;
    softmax->convert->narrow(args->y.type, 1, &value, y);
    for (; done < bytes; done += attn_min(done, bytes - done))
        memcpy(y + done, y, attn_min(done, bytes - done));
}

/* A row of 16-bit results. */
struct narrow_row {
    const void *x;
    void *y;
    size_t valid;
    float *piece; /* [SOFTMAX_PIECE], 64-byte aligned */
};

/* Widens columns c and up; returns how many. */
static size_t widen_piece(const struct softmax *softmax, const struct narrow_row *row, size_t c) {
    attn_type type = softmax->args->x.type;
    size_t n = attn_min(row->valid - c, SOFTMAX_PIECE);
    softmax->convert->widen(type, n, attn_element_at(row->x, type, c), row->piece);
    return n;
}

static void narrow_piece(const struct softmax *softmax, const struct narrow_row *row, size_t c, size_t n) {
    attn_type type = softmax->args->y.type;
    softmax->convert->narrow(type, n, row->piece, (char *)row->y + c * attn_type_size(type));
}

static float max_of_pieces(const struct softmax *softmax, const struct narrow_row *row) {
    float max = -INFINITY;
    for (size_t c = 0, n; c < row->valid; c += n) {
        n = widen_piece(softmax, row, c);
        float found = softmax->kernel->max(row->piece, n);
        max = found > max ? found : max;
    }
    return max;
}

/* The online softmax, told the maximum in advance, rescales nothing: its lanes are those of the whole row. */
static float sum_of_pieces(const struct softmax *softmax, const struct narrow_row *row, float max) {
    _Alignas(ATTN_ALIGNMENT) float lanes[ATTN_LANES] = {0};
    float rescale;
    for (size_t c = 0, n; c < row->valid; c += n) {
        n = widen_piece(softmax, row, c);
        uint32_t lo = 0, hi = (uint32_t)n;
        softmax->attention->online_softmax(&(struct attn_online_softmax_args){
            .rows = 1,
            .scores = row->piece,
            .score_stride = SOFTMAX_PIECE,
            .lo = &lo,
            .hi = &hi,
            .end = (n + ATTN_LANES - 1) / ATTN_LANES * ATTN_LANES,
            .max = &max,
            .lanes = lanes,
            .rescale = &rescale,
        });
    }
    return attn_lane_sum(lanes);
}

/* In three passes over pieces of the row. */
static void softmax_pieces(const struct softmax *softmax, const struct narrow_row *row) {
    float max = max_of_pieces(softmax, row), sum = sum_of_pieces(softmax, row, max);
    float shift = max == -INFINITY ? 0.0f : max, inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    for (size_t c = 0, n; c < row->valid; c += n) {
        n = widen_piece(softmax, row, c);
        softmax->attention->weights(row->piece, 0, n, n, shift, inverse, row->piece);
        narrow_piece(softmax, row, c, n);
    }
}

/* The bits of a row of floats, rounded. */
static void softmax_narrow(const struct softmax *softmax, const void *x, size_t valid, void *y) {
    _Alignas(ATTN_ALIGNMENT) float piece[SOFTMAX_PIECE];
    const struct narrow_row row = {x, y, valid, piece};
    size_t cols = softmax->args->cols, element = attn_type_size(softmax->args->y.type);
    if (valid <= SOFTMAX_PIECE) {
        widen_piece(softmax, &row, 0);
        softmax->kernel->row(piece, valid, valid, piece);
        narrow_piece(softmax, &row, 0, valid);
    } else {
        softmax_pieces(softmax, &row);
    }
    memset((char *)y + valid * element, 0, (cols - valid) * element);
}

static void softmax_row(const struct softmax *softmax, size_t row) {
    const attn_softmax_args *args = softmax->args;
    size_t b = row / args->rows, i = row % args->rows;
    size_t valid = attn_valid_len(&args->valid, b, i, args->rows, args->cols);
    const void *x = attn_typed_row_at(&args->x, b, 0, i);
    void *y = attn_typed_row_out_at(&args->y, b, 0, i);
    if (valid == 0) {
        empty_row(softmax, y);
    } else if (args->y.type != ATTN_F32) {
        softmax_narrow(softmax, x, valid, y);
    } else {
        if (args->x.type != ATTN_F32) {
            softmax->convert->widen(args->x.type, valid, x, y);
            x = y;
        }
        softmax->kernel->row(x, valid, args->cols, y);
    }
}

static void softmax_rows(const void *arg, size_t item, size_t task) {
    (void)task;
    const struct softmax *softmax = arg;
    size_t begin = item * SOFTMAX_ROWS_PER_ITEM, end = attn_min(begin + SOFTMAX_ROWS_PER_ITEM, softmax->rows);
    for (size_t row = begin; row < end; row++)
        softmax_row(softmax, row);
}

void attn_op_masked_softmax(const struct attn_kernels *table, const attn_softmax_args *args) {
    struct softmax softmax = {.kernel = attn_table_softmax(table),
                              .attention = attn_table_attention(table),
                              .convert = attn_table_convert(table),
                              .args = args,
                              .rows = args->batch * args->rows};
    size_t items = (softmax.rows + SOFTMAX_ROWS_PER_ITEM - 1) / SOFTMAX_ROWS_PER_ITEM;
    double elements = (double)softmax.rows * (double)args->cols;
    const struct attn_tuning *tuning = attn_tuning_for(table->isa);
    attn_for_each(args->parallel, attn_threads_for(tuning, args->parallel, elements * tuning->float_ns), items,
                  softmax_rows, &softmax);
}
