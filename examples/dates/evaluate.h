/* How well and how fast the model works: the example's --check, --refuse, --expected and --bench. Each returns an
 * exit status. */
#ifndef DATES_EVALUATE_H
#define DATES_EVALUATE_H

#include <attn/attn.h>

struct model;

/* Rewrites the first column of a tab-separated file and compares with the second. 1 where one differs. */
int evaluate_check(struct model *model, const char *path);
/* Rewrites each line of a file, none of which is a date. 1 where more than one line in a hundred is answered. */
int evaluate_refuse(struct model *model, const char *path);
/* Compares the model's insides with those in a safetensors file. 1 where one differs by more than 1e-3. */
int evaluate_expected(struct model *model, const char *path);
/* Times each date alone, on `isa` or, where that is ATTN_ISA_BEST, on every ISA of this machine; 0 dates: some of its
 * own. */
int evaluate_bench(const char *model_path, attn_isa isa, size_t count, char *const *dates);

#endif
