/* Decode of class BF16: pairs as pairs.h multiplies them, in decode_loops.h's loops. decode.h gives, for each ISA,
 * beside what these ask for
 *
 *     PAIR_PANELS_1, _2        panels of keys that one row, or two, read side by side
 *     EACH_PAIR_WIDTH_1, _2    registers of a value that one row, or two, accumulate at once: multiples of LANES_VECS
 *     PAIRS_IN_PLACE           where keys and values are read in place too; then also
 *     PAIR_DEPTH, KEYS_AHEAD   see decode_columns.h */
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

/* Where a register is taken alone some of its columns may not be there: they go through memory of their own. */
static __attribute__((noinline)) vec ISA_FN(decode_some_of_rows)(const char *first, const char *second, size_t n) {
    uint16_t rows[2][VEC_LANES] = {0};
    memcpy(rows[0], first, n * sizeof(uint16_t));
    memcpy(rows[1], second, n * sizeof(uint16_t));
    return pair_interleave(rows[0], rows[1]);
}
INLINE vec decode_load_rows(const char *first, const char *second, size_t n) {
    return __builtin_constant_p(n) ? pair_interleave(first, second) : ISA_FN(decode_some_of_rows)(first, second, n);
}

#include "body/decode_loops.h"

#define PAIRS_VALUES(rows, width) VALUES(pairs, ATTN_BF16, rows, width)
#define PAIRS_ENTRY(rows, width)  VALUES_ENTRY(pairs, rows, width)
EACH_PAIR_WIDTH_1(PAIRS_VALUES, 1)
EACH_PAIR_WIDTH_2(PAIRS_VALUES, 2)
#define ONE_MORE(rows, width) +LANES_VECS
enum { WIDEST_1 = 0 EACH_PAIR_WIDTH_1(ONE_MORE, 1), WIDEST_2 = 0 EACH_PAIR_WIDTH_2(ONE_MORE, 2) };
static values_function *const values_1[] = {EACH_PAIR_WIDTH_1(PAIRS_ENTRY, 1)};
static values_function *const values_2[] = {EACH_PAIR_WIDTH_2(PAIRS_ENTRY, 2)};

/* Out of line, so that no arithmetic leaves the part of its caller in which denormal numbers count as 0. */
static __attribute__((noinline)) void ISA_FN(decode_pairs_scores)(const struct attn_decode_args *args) {
    scores_of(ATTN_BF16, args, PAIR_PANELS_1, PAIR_PANELS_2);
}

static void ISA_FN(decode_bf16_scores)(const struct attn_decode_args *args) {
    flush_state state = flush_begin();
    ISA_FN(decode_pairs_scores)(args);
    flush_end(state);
}

static void ISA_FN(decode_bf16_values)(const struct attn_decode_args *args) {
    struct stretch s = stretch_of_values(ATTN_BF16, args);
    size_t total = registers_of(args->size);
    flush_state state = flush_begin();
    values_of_parts(ATTN_BF16, &s, args->rows > 1 ? values_2 : values_1, args->rows > 1 ? WIDEST_2 : WIDEST_1, total);
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
ROWS_VALUES(1, 1)
ROWS_VALUES(2, 1)
static values_function *const rows_1[] = {EACH_PAIR_WIDTH_1(ROWS_ENTRY, 1)};
static values_function *const rows_2[] = {EACH_PAIR_WIDTH_2(ROWS_ENTRY, 2)};

static void ISA_FN(decode_bf16_values_in_place)(const struct attn_decode_args *args) {
    struct stretch s = stretch_in_place(ATTN_BF16, args, ROWS_AHEAD);
    bool two = args->rows > 1;
    flush_state state = flush_begin();
    values_of_rows(ATTN_BF16, &s, two ? rows_2 : rows_1, two ? WIDEST_2 : WIDEST_1,
                   two ? ISA_FN(decode_pairs_rows_2_1) : ISA_FN(decode_pairs_rows_1_1));
    flush_end(state);
}
#endif

const struct attn_decode_kernel ISA_OBJECT(decode_bf16) = {.name = ISA_NAME "_bf16",
                                                           .arithmetic = ATTN_CLASS_BF16,
                                                           .x = PAIR_A_TYPE,
                                                           .type = ATTN_BF16,
                                                           .rows = MOST_ROWS,
                                                           .scores = ISA_FN(decode_bf16_scores),
#ifdef PAIRS_IN_PLACE
                                                           .scores_in_place = ISA_FN(decode_bf16_scores_in_place),
                                                           .values_in_place = ISA_FN(decode_bf16_values_in_place),
#endif
                                                           .values = ISA_FN(decode_bf16_values)};
