/* Options at random for attention, cache and layer, with the memory that they point to. Link with random_options.c. */
#ifndef ATTN_TESTS_RANDOM_OPTIONS_H
#define ATTN_TESTS_RANDOM_OPTIONS_H

#include "problem.h"

enum { OPTIONS_ARRAYS = 10 };

struct drawn_options {
    attn_options options;
    void *memory[OPTIONS_ARRAYS];
    size_t arrays;
};

/* Every mask, step of the logits and policy for empty rows, each now and then; neither rotary embedding nor dropout nor
 * outputs. */
struct drawn_options draw_options(struct test_random *random, size_t batch, size_t heads, size_t q_len, size_t kv_len);
void drawn_options_free(struct drawn_options *drawn);

/* The options of sequence `b` alone; outputs are left out. */
attn_options options_of_sequence(const attn_options *options, size_t b, size_t q_len);

/* The same with every key visible that masks and starts do not hide. */
attn_options options_without_intervals(const attn_options *options);

/* For test_case; valid until the next call. */
const char *options_text(const attn_options *options);

/* A rotary table for positions below `positions` and heads of `head_size`; NULL where a head is too small for a pair.
 * Free *memory. */
attn_rotary *draw_rotary(struct test_random *random, size_t positions, size_t head_size, void **memory);

#endif
