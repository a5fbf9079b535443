/* Decode of class BF16: pairs as pairs.h multiplies them, in decode_loops.h's loops. decode.h gives, for each ISA,
 * beside what these ask for
 *
 *     PAIR_PANELS_1, _2        panels of keys that one row, or two, read side by side
 *     EACH_PAIR_WIDTH_1, _2    registers of a value that one row, or two, accumulate at once: multiples of LANES_VECS
 *     PAIRS_IN_PLACE           where keys and values are read in place too; then also
 *     EACH_PAIR_WIDTH_4        likewise of four rows in place
 *     PAIR_DEPTH               units of keys that are transposed at once, and what decode_columns.h asks for */
#include "decode.h"
#include "pairs.h"

#include <string.h>

#include "body/objects.h"

enum { UNIT = 2, STEPS = PAIR_STEPS };

typedef PAIR_A decode_x;

/* A pair has the bytes of a float, and is loaded as one. */
INLINE size_t decode_bytes(const attn_type type) {
    (void)type;
    return sizeof(float);
}
INLINE int decode_at_once(const attn_type type, const int registers) {
    (void)type, (void)registers;
    return 1;
}
INLINE void decode_load(const attn_type type, const char *b, vec *x, const int n) {
    (void)type, (void)n;
    *x = vec_load((const float *)(const void *)b);
}
INLINE vec decode_a(const PAIR_A *x, const int s, const int part) {
    return pair_a(x, s, part);
}
INLINE vec decode_b(vec unit, const int s, const int part) {
    return part == 0 ? pair_b_few(unit, s) : pair_b(unit, s, part);
}
INLINE vec decode_multiply_add(vec a, vec b, vec acc) {
    return pair_multiply_add(a, b, acc);
}

/* Where a register is taken alone some of its columns may not be there. */
#if !TAILS /* those go through memory of their own */
static __attribute__((noinline)) vec ISA_FN(pair_interleave_first)(size_t n, const void *even, const void *odd) {
    uint16_t rows[2][VEC_LANES] = {0};
    memcpy(rows[0], even, n * sizeof(uint16_t));
    memcpy(rows[1], odd, n * sizeof(uint16_t));
    return pair_interleave(rows[0], rows[1]);
}
#define pair_interleave_first ISA_FN(pair_interleave_first)
#endif
INLINE vec decode_load_rows(const char *first, const char *second, size_t n) {
    return __builtin_constant_p(n) ? pair_interleave(first, second) : pair_interleave_first(n, first, second);
}

#include "body/decode_loops.h"

#define PAIRS_VALUES(rows, width) VALUES(pairs, ATTN_BF16, rows, width)
#define PAIRS_ENTRY(rows, width)  VALUES_ENTRY(pairs, rows, width)
EACH_PAIR_WIDTH_1(PAIRS_VALUES, 1)
EACH_PAIR_WIDTH_2(PAIRS_VALUES, 2)
static values_function *const values_1[] = {EACH_PAIR_WIDTH_1(PAIRS_ENTRY, 1)};
static values_function *const values_2[] = {EACH_PAIR_WIDTH_2(PAIRS_ENTRY, 2)};
enum { WIDEST_1 = WIDEST_OF(values_1), WIDEST_2 = WIDEST_OF(values_2) };

/* Out of line, so that no arithmetic leaves the part of its caller in which denormal numbers count as 0. */
static __attribute__((noinline)) void ISA_FN(decode_pairs_scores)(const struct attn_decode_args *args) {
    scores_of(ATTN_BF16, args, PAIR_PANELS_1, PAIR_PANELS_2);
}

/* Chains of all keys go on with the last element of an odd number. */
static __attribute__((noinline)) void ISA_FN(decode_last_scores)(const struct attn_decode_args *args) {
    struct stretch s = stretch_of(ATTN_BF16, args);
    const char *b = s.b + (args->first / s.step * s.panel + s.size / UNIT * s.step) * decode_bytes(ATTN_BF16);
    for (size_t r = 0; r < args->rows; r++)
        for (size_t j = 0; j < s.keys; j += VEC_LANES) {
            const decode_x *x = s.x + r * s.x_stride + s.size - 1;
            float *y = s.y + r * s.y_stride + j;
            vec acc = vec_load(y), unit;
            decode_load(ATTN_BF16, b + (j / s.step * s.panel + j % s.step) * decode_bytes(ATTN_BF16), &unit, 1);
            UNROLL for (int i = 0; i < STEPS; i++) acc =
                decode_multiply_add(decode_a(x, i, LAST_MISSING), decode_b(unit, i, LAST_MISSING), acc);
            vec_store(y, acc);
        }
}

static void ISA_FN(decode_bf16_scores)(const struct attn_decode_args *args) {
    flush_state state = flush_begin();
    ISA_FN(decode_pairs_scores)(args);
    if (args->size % UNIT)
        ISA_FN(decode_last_scores)(args);
    flush_end(state);
}

/* ---- Values whose pairs are not whole ---- */

/* One unit, of which `part` is there, for chains of all columns; `registers` as take_unit's. */
INLINE void values_of_part(const struct stretch *all, const int registers, const enum part part) {
    for (size_t r = 0; r < all->rows; r++)
        for (size_t j = 0; j < all->size; j += VEC_LANES) {
            struct stretch s = *all;
            size_t offset = registers == OF_ROWS ? j / UNIT : j / COLS * s.panel + j % COLS;
            vec acc;
            s.x += r * s.x_stride;
            s.y += r * s.y_stride + j;
            s.columns = s.size - j < VEC_LANES ? s.size - j : VEC_LANES;
            if (s.start == ATTN_START_SCALE)
                s.factors += r;
            values_begin(&s, &acc, 1, 1);
            take_unit(ATTN_BF16, &s, &s.x, 0, s.b + offset * decode_bytes(ATTN_BF16), &acc, 1, 1, registers, part);
            store_chains(&s, &acc, 1, 1);
        }
}

/* Of a stretch: the second element of its first pair, whole pairs, the first one of its last. */
enum piece { FIRST_PIECE, WHOLE_PIECE, LAST_PIECE, PIECES };

typedef void piece_function(struct stretch *s);

/* The pieces of a stretch. Where it begins within a pair, so does each of its blocks. */
static __attribute__((noinline)) void ISA_FN(decode_values_of_pieces)(const struct stretch *all,
                                                                      piece_function *const pieces[PIECES]) {
    const size_t block = ATTN_BLOCK * sizeof(float) / sizeof(decode_x);
    for (size_t key = 0; key < all->keys;) {
        struct stretch s = *all;
        size_t number = key / ATTN_BLOCK, in_block = key % ATTN_BLOCK, left = s.keys - key;
        if (s.before && left > ATTN_BLOCK - in_block)
            left = ATTN_BLOCK - in_block;
        enum piece piece = s.before && in_block == 0 ? FIRST_PIECE : left < UNIT ? LAST_PIECE : WHOLE_PIECE;
        s.b += (key + s.before) / UNIT * s.step * decode_bytes(ATTN_BF16);
        s.x += number * block + in_block;
        s.keys = piece == WHOLE_PIECE ? left / UNIT * UNIT : 1;
        if (key > 0)
            s.start = in_block == 0 ? ATTN_START_SCALE : ATTN_START_C;
        if (number > 0)
            s.factors += number * s.factor_stride;
        key += s.keys;
        pieces[piece](&s);
    }
}

enum { PANEL = COLS / VEC_LANES };

static __attribute__((noinline)) void ISA_FN(decode_first_of_panels)(struct stretch *s) {
    values_of_part(s, PANEL, FIRST_MISSING);
}
static __attribute__((noinline)) void ISA_FN(decode_last_of_panels)(struct stretch *s) {
    values_of_part(s, PANEL, LAST_MISSING);
}
static void ISA_FN(decode_whole_of_panels)(struct stretch *s) {
    values_of_parts(ATTN_BF16, s, s->rows > 1 ? values_2 : values_1, s->rows > 1 ? WIDEST_2 : WIDEST_1,
                    registers_of(s->size));
}

static void ISA_FN(decode_bf16_values)(const struct attn_decode_args *args) {
    static piece_function *const pieces[PIECES] = {ISA_FN(decode_first_of_panels), ISA_FN(decode_whole_of_panels),
                                                   ISA_FN(decode_last_of_panels)};
    struct stretch s = stretch_of_values(ATTN_BF16, args);
    flush_state state = flush_begin();
    ISA_FN(decode_values_of_pieces)(&s, pieces);
    flush_end(state);
}

/* ---- In place ---- */

#ifdef PAIRS_IN_PLACE
/* A pair of a key is there already; one of values is made of two rows. */
enum { DEPTH = PAIR_DEPTH };

INLINE void decode_columns(const attn_type type, const char *b, size_t stride, vec *units) {
    (void)type;
    vec_load_columns((const float *)(const void *)b, stride / sizeof(float), units);
}

#include "body/decode_columns.h"

SCORES_IN_PLACE(pairs, ATTN_BF16)

static void ISA_FN(decode_bf16_scores_in_place)(const struct attn_decode_args *args) {
    flush_state state = flush_begin();
    ISA_FN(decode_pairs_columns)(args);
    flush_end(state);
}

#define ROWS_VALUES(rows, width) VALUES_OF_ROWS(pairs_rows, ATTN_BF16, rows, width)
#define ROWS_ENTRY(rows, width)  VALUES_ENTRY(pairs_rows, rows, width)
EACH_PAIR_WIDTH_1(ROWS_VALUES, 1)
EACH_PAIR_WIDTH_2(ROWS_VALUES, 2)
EACH_PAIR_WIDTH_4(ROWS_VALUES, 4)
#if VEC_LANES < 16 /* else they are there */
ROWS_VALUES(1, 1)
ROWS_VALUES(2, 1)
#endif
static values_function *const rows_1[] = {EACH_PAIR_WIDTH_1(ROWS_ENTRY, 1)};
static values_function *const rows_2[] = {EACH_PAIR_WIDTH_2(ROWS_ENTRY, 2)};
static values_function *const rows_4[] = {EACH_PAIR_WIDTH_4(ROWS_ENTRY, 4)};

static __attribute__((noinline)) void ISA_FN(decode_first_of_rows)(struct stretch *s) {
    values_of_part(s, OF_ROWS, FIRST_MISSING);
}
static __attribute__((noinline)) void ISA_FN(decode_last_of_rows)(struct stretch *s) {
    values_of_part(s, OF_ROWS, LAST_MISSING);
}
static void ISA_FN(decode_whole_of_rows)(struct stretch *s) {
    static const struct values_of of_rows[MOST_ROWS_IN_PLACE] = {
        {rows_1, WIDEST_1}, {rows_2, WIDEST_2}, {rows_4, WIDEST_OF(rows_4)}, {rows_4, WIDEST_OF(rows_4)}};
    values_of_rows(ATTN_BF16, s, of_rows, ISA_FN(decode_pairs_rows_2_1), ISA_FN(decode_pairs_rows_1_1));
}

static void ISA_FN(decode_bf16_values_in_place)(const struct attn_decode_args *args) {
    static piece_function *const pieces[PIECES] = {ISA_FN(decode_first_of_rows), ISA_FN(decode_whole_of_rows),
                                                   ISA_FN(decode_last_of_rows)};
    struct stretch all = stretch_in_place(ATTN_BF16, args);
    flush_state state = flush_begin();
    for (size_t row = 0; row < all.rows; row += MOST_ROWS_IN_PLACE) {
        struct stretch s;
        ISA_FN(decode_some_rows)(&all, row, MOST_ROWS_IN_PLACE, &s);
        ISA_FN(decode_values_of_pieces)(&s, pieces);
    }
    flush_end(state);
}
#endif

const struct attn_decode_kernel ISA_OBJECT(decode_bf16) = {.name = ISA_NAME "_bf16",
                                                           .arithmetic = ATTN_CLASS_BF16,
                                                           .x = PAIR_A_TYPE,
                                                           .type = ATTN_BF16,
                                                           .rows = MOST_ROWS,
                                                           .rows_in_turns = MOST_ROWS,
                                                           .scores = ISA_FN(decode_bf16_scores),
#ifdef PAIRS_IN_PLACE
                                                           .rows_in_place = ROWS_IN_PLACE,
                                                           .scores_in_place = ISA_FN(decode_bf16_scores_in_place),
                                                           .values_in_place = ISA_FN(decode_bf16_values_in_place),
#endif
                                                           .values = ISA_FN(decode_bf16_values)};
