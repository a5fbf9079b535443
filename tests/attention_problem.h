/* Attention problems at random, and results held against the oracle: what the tests of attention's bits and those of
 * its semantics share. Link with oracle.c. */
#ifndef ATTN_TESTS_ATTENTION_PROBLEM_H
#define ATTN_TESTS_ATTENTION_PROBLEM_H

#include "problem.h"

/* Arguments with the tensors and lengths that they point to. */
struct problem {
    attn_attention_args args;
    struct tensor q, k, v;
    int64_t *lens;
};

/* `quick` where ATTN_TEST_QUICK=1 asks for a fraction of each sweep, else `full`. */
size_t sweep(size_t full, size_t quick);

/* Sizes, scale and mask; pointers are left NULL. `index` counts the problems of a sweep. */
attn_attention_args random_args(struct test_random *random, size_t index);

enum flush random_flush(struct test_random *random);

/* Inputs for `args`, in layouts at random. */
struct problem problem_new(struct test_random *random, enum test_values values, const attn_attention_args *args);
void problem_free(struct problem *p);

/* Names the problem as the current case. */
void describe(const attn_attention_args *a);

/* Every output within its bound of the oracle's. `exact_scores` says that no score rounds, and narrows the bounds. */
void check_against_oracle(const attn_attention_args *args, const struct attention_result *r, int exact_scores);

#endif
