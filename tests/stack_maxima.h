/* The stack that calls take, the most of each operation; and memory for the objects that are called with. */
#ifndef ATTN_TESTS_STACK_MAXIMA_H
#define ATTN_TESTS_STACK_MAXIMA_H

#include "stack.h"
#include "support.h"

/* Every call of a measurement says its status. */
void note(attn_status of_call);

/* Fails where a call takes more than 16 KiB, or says another status than ATTN_OK. `operation` is a literal. */
void measure(const char *operation, stack_call *run, void *problem);

/* All tasks on the stack of the calling thread. */
extern const attn_parallel in_turn;

/* With `parallel`, a field of the problem, NULL; then with a pool. */
void measure_cut(const char *operation, stack_call *run, void *problem, const attn_parallel **parallel);

/* The last test of a program. */
void print_maxima(void **state);

/* NULL, or why there is nothing to measure; main asks it after test_init with the option "skip". */
const char *reason_to_skip(void);

/* What a size query says, and memory of exactly that size. */
struct room {
    size_t bytes;
    void *data;
};

void room_take(struct room *room);

/* An object's weights as a blob, and what is made from that. */
struct blob {
    struct room exported, memory;
    attn_import_config config;
};

void blob_is_exported(struct blob *blob);
void blob_free(struct blob *blob);

#endif
