/* What the files of the program hashes share. */
#ifndef ATTN_TESTS_HASHES_H
#define ATTN_TESTS_HASHES_H

#include <attn/attn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- The case: hashes_case.c ---- */

/* Of queries, of keys and values, of outputs; for a layer or a product those of x, of weights and what keys and
 * values are rounded to, of y. */
struct types {
    const char *name; /* "" for F32 throughout, else what begins the case's name */
    attn_type q, kv, o;
    const struct quantised *weights; /* NULL: they have the type of keys and values */
};

/* Weights of F16, or of integers and what they have beside their elements. */
struct quantised {
    attn_type type;
    size_t block; /* of blocks, as the next two */
    attn_type scale_type;
    bool has_zero_points, dequantised;
};

extern const struct types all_f32;

/* The case that is computed. */
extern struct now {
    attn_isa isa;
    const struct types *types;
    attn_type cache; /* not F32: of caches, whatever the types say */
    FILE *expected;  /* NULL: print */
    const char *path;
    char name[128];
    uint64_t random, hash;
    size_t cases;
} now;

void stop(const char *format, ...);

/* Each case draws the same numbers whatever comes before it. */
void case_begin(const char *format, ...);

/* Little-endian, every NaN alike. */
void hash_floats(const float *x, size_t n);
/* The same of elements of a type. */
void hash_elements(attn_type type, const void *x, size_t n);

/* The line with that of the file. */
void compare(const char *line);
void case_end(void);

/* Memory until the case ends. */
void *take(size_t bytes);
/* Outputs start as -77, and what the library does not touch stays it. */
float *outputs(size_t n);
void *typed_outputs(attn_type type, size_t n);

size_t below(size_t bound);
float *numbers(size_t n);
float float_of(uint32_t bits);
/* x as elements of the type, cut to it: the numbers are the same on every platform. F16: normal numbers alone. */
const void *cut(attn_type type, const float *x, size_t n);
void give_type(attn_tensor *x, attn_type type, size_t n);
/* Some elements become infinite, NaN, -0, the largest or denormal. */
void strew(const float *x, size_t n);
int64_t *lengths(size_t n, size_t most);
/* cu[0 .. batch], sequence b of len - b * 2 or so rows. */
const int64_t *starts_of(size_t batch, size_t len, size_t *total);

void ok(attn_status status, const attn_error *error);
/* As many tasks as threads, the last one first, in the calling thread. */
extern const attn_parallel three_tasks;
attn_rotary *new_rotary(size_t positions, size_t dims, attn_rotary_pairs pairs, double base);
void run_attention(const attn_attention_args *args);

/* ---- Options: hashes_options.c ---- */

/* What options are chosen for, and where their outputs lie. */
struct problem {
    size_t batch, heads, q_len, kv_len, head_size;
    bool packed;          /* some sequence may have fewer keys than query rows */
    const float *data[3]; /* inputs to strew, NULL for none, and their lengths */
    size_t length[3];
    float scale;
    attn_options *options;
};

struct option {
    const char *name;
    void (*choose)(struct problem *p);
};

/* The first few go with every shape and cache, the others with smaller shapes. */
enum { FEW_OPTIONS = 7 };

extern const struct option all_options[];
extern const size_t option_count;

/* Some of them, and some that are not in the list. */
void plain(struct problem *p);
void valid_per_sequence(struct problem *p);
void causal(struct problem *p);
void rotary(struct problem *p);
void dropout(struct problem *p);
void everything(struct problem *p);
void bias_factors(struct problem *p);
void bias_bf16(struct problem *p);
void bias_f16_columns(struct problem *p);

/* Of weights, scores and log-sum-exp, where they were asked for. */
void hash_outputs(const struct problem *p);

#endif
