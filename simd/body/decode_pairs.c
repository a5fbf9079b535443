/* Decode of class BF16: pairs as pairs.h multiplies them, in decode_loops.h's loops. decode.h gives, for each ISA,
 * beside what these ask for
 *
 *     PAIR_PANELS_1, _2        panels of keys that one row, or two, read side by side
 *     EACH_PAIR_WIDTH_1, _2    registers of a value that one row, or two, accumulate at once */
#include "decode.h"
#include "pairs.h"

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

#include "body/decode_loops.h"

#define PAIRS_VALUES(rows, width) VALUES(pairs, ATTN_BF16, rows, width)
#define PAIRS_ENTRY(rows, width)  VALUES_ENTRY(pairs, rows, width)
EACH_PAIR_WIDTH_1(PAIRS_VALUES, 1)
EACH_PAIR_WIDTH_2(PAIRS_VALUES, 2)
#define ONE_MORE(rows, width) +1
enum { WIDEST_1 = 0 EACH_PAIR_WIDTH_1(ONE_MORE, 1), WIDEST_2 = 0 EACH_PAIR_WIDTH_2(ONE_MORE, 2) };
static values_function *const values_1[WIDEST_1] = {EACH_PAIR_WIDTH_1(PAIRS_ENTRY, 1)};
static values_function *const values_2[WIDEST_2] = {EACH_PAIR_WIDTH_2(PAIRS_ENTRY, 2)};

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
    if (args->rows > 1)
        values_of_parts(ATTN_BF16, s, values_2, WIDEST_2, total);
    else
        values_of_parts(ATTN_BF16, s, values_1, WIDEST_1, total);
    flush_end(state);
}

const struct attn_decode_kernel ISA_OBJECT(decode_bf16) = {.name = ISA_NAME "_bf16",
                                                           .arithmetic = ATTN_CLASS_BF16,
                                                           .x = PAIR_A_TYPE,
                                                           .type = ATTN_BF16,
                                                           .rows = MOST_ROWS,
                                                           .scores = ISA_FN(decode_bf16_scores),
                                                           .values = ISA_FN(decode_bf16_values)};
