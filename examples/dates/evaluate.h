/* How well and how fast the model works: the example's --check, --refuse, --expected and --bench. Each returns an
 * exit status. */
#ifndef DATES_EVALUATE_H
#define DATES_EVALUATE_H

#include "error.h"
#include <attn/attn.h>
#include <stddef.h>

struct model;
struct model_config;

/* The largest difference of something inside the model from what PyTorch computed in F32. */
struct difference {
    const char *name;
    double largest;
};
/* DIFFERENCE_STEPS: of the logits that come through the caches, token by token. */
enum { DIFFERENCE_ENCODER, DIFFERENCE_LOGITS, DIFFERENCE_STEPS = 4, DIFFERENCES };

/* The differences from a safetensors file. */
bool evaluate_differences(struct model *model, const char *path, struct difference *differences, struct error *error);

/* Rewrites the first column of a tab-separated file and compares with the second. 1 where one differs. */
int evaluate_check(struct model *model, const char *path);
/* Rewrites each line of a file, none of which is a date. 1 where more than one line in a hundred is answered. */
int evaluate_refuse(struct model *model, const char *path);
/* Prints the differences from a safetensors file. 1 where one is NaN or, in F32, more than 1e-3. */
int evaluate_expected(struct model *model, const char *path);
/* Times each date alone, on the config's ISA or, where that is ATTN_ISA_BEST, on every ISA of this machine; 0 dates:
 * some of its own. */
int evaluate_bench(const char *model_path, const struct model_config *config, size_t count, char *const *dates);

#endif
