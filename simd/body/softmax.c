/* Masked softmax of a row. Its maximum, its exp and the division by their sum are a pass each; the first one widens
 * elements of 16 bits, the last one rounds to them. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "body/bf16.h"
#include "body/objects.h"
#include "body/rows.h"

/* Floats of rows that are taken together, and as many of those whose own memory has no room for them: two rows of 1024
 * columns. */
enum { MEMORY = 2048 };

/* Floats ahead of what is read: the rows that are next. While exp takes the processor's time, its own prefetching ends
 * at each page. */
enum { AHEAD = MEMORY, LINE = 16 };

/* A row, or a piece of one. */
struct softmax_row {
    const void *x;
    float *p; /* logits as floats where those of x are not, then their exp; y where that holds floats */
    void *y;
    size_t room; /* floats at p */
    size_t n;
    float max, sum;
    /* 3; of a piece 1 finds its row's maximum, 2 the sum, and 3 divides by that. */
    int passes;
    float *lanes; /* NULL; of a piece: sums of those before it */
    size_t rest;  /* columns behind n that are not visible */
};

/* ---- Maxima ---- */

/* One register of logits; widened they go to p too. `type` is a literal, but for the end of a row. */
INLINE vec take_logits(const attn_type type, const void *x, size_t c, float *p) {
    if (type == ATTN_F32)
        return vec_load((const float *)x + c);
    vec logits = vec_from_u16(type, vec_load_u16((const uint16_t *)x + c));
    vec_store(p + c, logits);
    return logits;
}

/* The first n of one, -inf beyond; p has room for so many floats. A whole register is stored where it can be: it is
 * loaded again without waiting. */
INLINE vec take_last_logits(const attn_type type, size_t n, const void *x, size_t c, float *p, size_t room) {
    if (type == ATTN_F32)
        return vec_load_logits(n, (const float *)x + c);
    vec logits = vec_from_u16(type, vec_load_u16_first(n, (const uint16_t *)x + c));
    if (n < VEC_LANES)
        logits = vec_select(vec_lanes(0, n), logits, vec_set(-INFINITY));
    vec_store_first(room, p + c, logits);
    return logits;
}

/* Of n logits, a multiple of EXP_VECS registers. */
INLINE vec take_whole(const attn_type type, const void *x, size_t n, float *p) {
    vec m[EXP_VECS];
    UNROLL for (int i = 0; i < EXP_VECS; i++) m[i] = vec_set(-INFINITY);
    for (size_t c = 0; c < n; c += EXP_VECS * VEC_LANES) {
        if (type != ATTN_F32)
            UNROLL for (size_t i = 0; i < EXP_VECS * VEC_LANES; i += 2 * LINE)
                vec_prefetch((const float *)x + c / 2, AHEAD + i / 2);
        UNROLL for (int i = 0; i < EXP_VECS; i++) m[i] =
            vec_max(m[i], take_logits(type, x, c + (size_t)i * VEC_LANES, p));
    }
    return vec_max(vec_max(m[0], m[1]), vec_max(m[2], m[3]));
}

INLINE void take_maximum(attn_type type, struct softmax_row *row) {
    size_t n = row->n, c = n / (EXP_VECS * VEC_LANES) * (EXP_VECS * VEC_LANES);
    const void *x = row->x;
    float *p = row->p;
    vec max = c == 0              ? vec_set(-INFINITY)
              : type == ATTN_F32  ? take_whole(ATTN_F32, x, c, p)
              : type == ATTN_BF16 ? take_whole(ATTN_BF16, x, c, p)
                                  : take_whole(ATTN_F16, x, c, p);
    for (; c < n; c += VEC_LANES)
        max = vec_max(max, take_last_logits(type, n - c, x, c, p, row->room - c));
    float found = vec_lane_max(max);
    if (!row->lanes || (row->passes == 1 && found > row->max))
        row->max = found;
}

/* ---- Sums ---- */

/* p = exp(logits - maximum). */
INLINE void take_exp(attn_type type, struct softmax_row *row) {
    bool goes_on = row->lanes && row->passes == 2;
    size_t n = row->n, c = 0;
    const float *x = type == ATTN_F32 ? row->x : row->p;
    float *p = row->p;
    vec shift = vec_set(row->max == -INFINITY ? 0.0f : row->max), lanes[SUM_VECS];
    UNROLL for (int i = 0; i < SUM_VECS; i++) lanes[i] = goes_on ? vec_load(row->lanes + i * VEC_LANES) : vec_zero();
    for (; c + EXP_VECS * VEC_LANES <= n; c += EXP_VECS * VEC_LANES) {
        UNROLL for (size_t i = 0; i < EXP_VECS * VEC_LANES; i += LINE) vec_prefetch(x + c, AHEAD + i);
        exp_columns(x + c, shift, p + c, lanes, EXP_VECS);
    }
    for (; c < n; c += VEC_LANES) {
        vec e = vec_exp_low(vec_sub(vec_load_logits(n - c, x + c), shift));
        vec_store_first(row->room - c, p + c, e);
        vec next = vec_add(lanes[0], e); /* each register's columns belong to the next of the lanes */
        UNROLL for (int i = 0; i < SUM_VECS - 1; i++) lanes[i] = lanes[i + 1];
        lanes[SUM_VECS - 1] = next;
    }
    if (goes_on)
        UNROLL for (int i = 0; i < SUM_VECS; i++) vec_store(row->lanes + i * VEC_LANES, lanes[i]);
    if (!row->lanes || goes_on)
        row->sum = vec_lane_sum(lanes);
}

/* ---- Quotients ---- */

/* No probability is below 0, or NaN. */
INLINE vec_u16 probability_to_u16(const attn_type type, vec x) {
    return type == ATTN_BF16 ? vec_probability_to_bf16(x) : vec_to_f16(x);
}

/* Whole registers; returns how many columns they were. */
INLINE size_t narrow_whole(const attn_type type, const float *p, vec factor, uint16_t *y, size_t n) {
    size_t c = 0;
#ifdef VEC_PROBABILITIES_TO_BF16
    for (; type == ATTN_BF16 && c + 2 * VEC_LANES <= n; c += 2 * VEC_LANES)
        VEC_PROBABILITIES_TO_BF16(y + c, vec_mul(vec_load(p + c), factor),
                                  vec_mul(vec_load(p + c + VEC_LANES), factor));
    if (type == ATTN_BF16)
        return c;
#endif
    for (; c + VEC_LANES <= n; c += VEC_LANES)
        vec_store_u16(y + c, probability_to_u16(type, vec_mul(vec_load(p + c), factor)));
    return c;
}

/* A row with NaN or an infinity above all numbers is NaN, and so is its sum. */
INLINE void narrow(attn_type type, const struct softmax_row *row, float inverse) {
    const float *p = row->p;
    uint16_t *y = row->y;
    size_t n = row->n, c;
    vec factor = vec_set(inverse);
    if (isnan(inverse)) {
        memset(y, 0xff, n * sizeof *y);
        return;
    }
    c = type == ATTN_BF16 ? narrow_whole(ATTN_BF16, p, factor, y, n) : narrow_whole(ATTN_F16, p, factor, y, n);
    for (; c < n; c += VEC_LANES)
        vec_store_u16_first(n - c, y + c, probability_to_u16(type, vec_mul(vec_load(p + c), factor)));
}

INLINE void divide(attn_type type, const struct softmax_row *row) {
    float inverse = row->sum == 0.0f ? 0.0f : 1.0f / row->sum, *p = row->p;
    size_t n = row->n, c = 0;
    vec factor = vec_set(inverse);
    if (type != ATTN_F32) {
        narrow(type, row, inverse);
        return;
    }
    for (; c + EXP_VECS * VEC_LANES <= n; c += EXP_VECS * VEC_LANES)
        UNROLL for (size_t i = 0; i < EXP_VECS * VEC_LANES; i += VEC_LANES)
            vec_store(p + c + i, vec_mul(vec_load(p + c + i), factor));
    scale_row(p + c, factor, p + c, n - c);
}

/* ---- Rows ---- */

/* Rows that are taken together, as many as there is memory for. A pass over one hides what the others wait for: their
 * maximum, sum and division. */
enum { MOST_ROWS = 16 };

INLINE void clear_rest(attn_type to, const struct softmax_row *row) {
    size_t element = to == ATTN_F32 ? sizeof(float) : sizeof(uint16_t);
    memset((char *)row->y + row->n * element, 0, row->rest * element);
}

/* All rows as far as `end`, or a piece. Hidden columns are cleared row by row, while exp takes the processor's time:
 * cleared for all rows first, 512 columns with 128 visible took 1.12 to 1.2 times as long. */
static __attribute__((noinline)) void ISA_FN(softmax_passes)(const struct attn_softmax_rows *args,
                                                             struct softmax_row *rows, const struct softmax_row *end) {
    int passes = rows->passes;
    for (struct softmax_row *row = rows; row < end; row++)
        take_maximum(args->from, row);
    for (struct softmax_row *row = rows; passes > 1 && row < end; row++) {
        take_exp(args->from, row);
        if (row->rest > 0)
            clear_rest(args->to, row);
    }
    for (struct softmax_row *row = rows; passes > 2 && row < end; row++)
        divide(args->to, row);
}

/* Row i; of memory it may take `room` floats. */
INLINE void take_row(const struct attn_softmax_rows *args, size_t i, float *memory, size_t room,
                     struct softmax_row *row) {
    row->n = args->valid[i];
    row->rest = args->cols - row->n;
    row->x = (const char *)args->x + i * args->x_stride;
    row->y = (char *)args->y + i * args->y_stride;
    row->p = args->to == ATTN_F32 ? row->y : memory;
    row->room = args->to == ATTN_F32 ? row->n : room;
    row->passes = 3;
    row->lanes = NULL;
}

/* On to the next MEMORY columns, of so many that are left. */
INLINE void take_piece(attn_type from, size_t left, struct softmax_row *row) {
    row->x = (const char *)row->x + row->n * (from == ATTN_F32 ? sizeof(float) : sizeof(uint16_t));
    row->y = (uint16_t *)row->y + row->n;
    row->n = left < MEMORY ? left : MEMORY;
}

/* A row of 16 bits that is longer than the memory, in pieces. Its exp are computed twice. */
static __attribute__((noinline)) void ISA_FN(softmax_pieces)(const struct attn_softmax_rows *args, size_t i,
                                                             float *memory) {
    float lanes[ATTN_LANES] = {0};
    struct softmax_row piece = {.max = -INFINITY};
    take_row(args, i, memory, MEMORY, &piece);
    clear_rest(args->to, &piece);
    for (int passes = 1; passes <= 3; passes++) {
        take_row(args, i, memory, MEMORY, &piece);
        piece.passes = passes;
        piece.lanes = lanes;
        piece.n = piece.rest = 0;
        for (size_t left = args->valid[i]; left > 0; left -= piece.n) {
            take_piece(args->from, left, &piece);
            ISA_FN(softmax_passes)(args, &piece, &piece + 1);
        }
    }
}

static void ISA_FN(softmax_rows)(const struct attn_softmax_rows *args) {
    float memory[MEMORY] __attribute__((aligned(ATTN_ALIGNMENT)));
    struct softmax_row rows[MOST_ROWS];
    for (size_t i = 0; i < args->rows;) {
        size_t count = 0;
        for (size_t taken = 0, room; count < MOST_ROWS && i < args->rows; i++) {
            room = (args->valid[i] + ATTN_LANES - 1) / ATTN_LANES * ATTN_LANES;
            if (room == 0)
                continue;
            if (taken > 0 && taken + room > MEMORY)
                break;
            if (room > MEMORY && args->to != ATTN_F32) {
                ISA_FN(softmax_pieces)(args, i, memory);
                continue;
            }
            take_row(args, i, memory + taken, room, &rows[count++]);
            taken += room;
        }
        if (count > 0)
            ISA_FN(softmax_passes)(args, rows, rows + count);
    }
}

const struct attn_softmax_kernel ISA_OBJECT(softmax) = {.name = ISA_NAME, .rows = ISA_FN(softmax_rows)};
