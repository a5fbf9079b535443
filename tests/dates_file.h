/* The files of the example that reads dates, and models made from them. */
#ifndef ATTN_TESTS_DATES_FILE_H
#define ATTN_TESTS_DATES_FILE_H

#include "support.h"

#include "model.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

struct bytes {
    unsigned char *data;
    size_t size;
};

/* Of the example: ATTN_DATES_DIR. */
const char *dates_directory(void);

/* A file of it, up to a guard page; guarded_free takes its data. */
struct bytes read_whole(const char *name);

/* A model of a file in memory. */
bool create(struct model *model, const struct bytes *bytes, const struct model_config *config, struct error *error);

/* The sentence names the culprit. */
void assert_names(const struct error *error, const char *culprit);

#endif
