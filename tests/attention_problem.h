/* Attention problems at random, and results held against the oracle: what the tests of attention share. Link with
 * oracle.c. */
#ifndef ATTN_TESTS_ATTENTION_PROBLEM_H
#define ATTN_TESTS_ATTENTION_PROBLEM_H

#include "problem.h"

/* Kinds of options that decide which keys rows see and how logits change. A problem may have several. */
enum kind {
    KIND_VALID_SEQUENCE,
    KIND_VALID_ROW,
    KIND_STARTS,
    KIND_CAUSAL,
    KIND_TOP_LEFT, /* positions; without any of these four they are those of BOTTOM_RIGHT */
    KIND_VALID_END,
    KIND_OFFSET,
    KIND_OFFSETS, /* an offset for each sequence */
    KIND_WINDOW_LEFT,
    KIND_WINDOW_RIGHT,
    KIND_MASK,
    KIND_BIAS,
    KIND_ALIBI,
    KIND_SOFT_CAP,
    KIND_SINKS,
    KIND_GROUPS, /* several query heads to a kv head */
    KIND_ROTARY,
    KINDS
};

#define KIND(name)     (1u << KIND_##name)
#define KINDS_OF_RULES (KIND(TOP_LEFT) | KIND(VALID_END) | KIND(OFFSET) | KIND(OFFSETS))
/* With only these a row sees an interval of keys. */
#define KINDS_OF_INTERVALS                                                                                             \
    (KIND(VALID_SEQUENCE) | KIND(VALID_ROW) | KIND(STARTS) | KIND(CAUSAL) | KINDS_OF_RULES | KIND(WINDOW_LEFT) |       \
     KIND(WINDOW_RIGHT))
/* Those whose effect depends on a query row's position. */
#define KINDS_OF_POSITIONS (KIND(CAUSAL) | KIND(WINDOW_LEFT) | KIND(WINDOW_RIGHT) | KIND(ALIBI) | KIND(ROTARY))

/* 1 if these kinds can be combined, else 0: there is at most one kind of lengths and one rule of positions, and
 * VALID_END knows no lengths of rows. */
int kinds_agree(unsigned kinds);
/* Each of `among` with probability 1/2, without those that cannot be combined. */
unsigned random_kinds(struct test_random *random, unsigned among);

/* Arguments, and the memory that they point to. */
struct problem {
    attn_attention_args args;
    struct tensor q, k, v;
    int64_t *lens, *starts, *rotary_offsets;
    void *position_offsets;
    uint8_t *mask;
    struct tensor bias;
    void *typed_bias; /* NULL, or the same in another type */
    float *alibi, *sinks, *bias_factors;
    attn_rotary_config rotary;
    void *rotary_memory;
};

/* `quick` where ATTN_TEST_QUICK=1 asks for a fraction of each sweep, else `full`. */
size_t sweep(size_t full, size_t quick);

/* Sizes, scale, causality and the kind of lengths; pointers are left NULL. `index` counts the problems of a sweep. */
attn_attention_args random_args(struct test_random *random, size_t index);

/* Sizes for many kinds at once: small, now and then longer than a block and, rarely, than a span. */
attn_attention_args masked_args(struct test_random *random, size_t index);

enum flush random_flush(struct test_random *random);

/* Inputs for `args`, in layouts at random. */
struct problem problem_new(struct test_random *random, enum test_values values, const attn_attention_args *args);
/* The same with these kinds of options, broadcast or not at random, and no others. `values` are also those of the
 * bias. */
struct problem masked_problem_new(struct test_random *random, enum test_values values, const attn_attention_args *args,
                                  unsigned kinds);
void problem_free(struct problem *p);

/* A boolean mask or an additive one with gaps after its rows; bit 0 of `broadcast` makes the batch stride 0, bit 1 that
 * of heads, bit 2 that of rows. */
attn_tensor mask_layout(const attn_attention_args *args, unsigned broadcast, size_t *bytes);
struct tensor bias_new(const attn_attention_args *args, unsigned broadcast, enum flush flush);

/* Names the problem as the current case. */
void describe(const attn_attention_args *a);

/* ---- Parts of a problem ---- */

/* Sequence `b` by itself, not packed. */
attn_attention_args one_sequence(const attn_attention_args *args, size_t b);
/* Query head `head` of the only sequence by itself. */
attn_attention_args one_head(const attn_attention_args *args, size_t head);
/* Query rows [begin, end) of the only sequence, at their own positions, which a chunk gives by ATTN_POSITION_OFFSET. */
attn_attention_args some_rows(const attn_attention_args *args, size_t begin, size_t end);

/* What the scalar reference gives for dense tensors, one sequence and one head at a time. */
struct attention_result reference_run(const struct problem *p);

/* Query rows from `begin` on of a head of sequence `b` of a result. */
struct rows_of {
    const attn_attention_args *args;
    const struct attention_result *result;
    size_t b, head, begin;
};

/* `count` rows are the same: outputs, and what there is for the first `keys` keys. */
#define assert_same_rows(expected, actual, count, keys)                                                                \
    test_same_rows(expected, actual, count, keys, __FILE__, __LINE__)
void test_same_rows(struct rows_of expected, struct rows_of actual, size_t count, size_t keys, const char *file,
                    int line);

/* How far an output of attention may be from the oracle's, in units of FLT_EPSILON * sum |p * v|, and log-sum-exp in
 * units of FLT_EPSILON. Errors of the row's scores are proportional to `score`, which is 0 if no score rounds. */
double output_units(size_t kv_len, double score);
double log_sum_exp_units(size_t kv_len, double score, double log_sum_exp);

/* Every output within its bound of the oracle's. `exact_scores` says that no score rounds, and narrows the bounds. */
void check_against_oracle(const struct problem *p, const struct attention_result *r, int exact_scores);

#endif
