#include "stack_maxima.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 16 * 1024 };

/* The most that the calls of an operation took. */
struct maximum {
    const char *operation;
    size_t used;
};

enum { MOST_OPERATIONS = 64 };

static struct maximum maxima[MOST_OPERATIONS];

/* The first status that was not ATTN_OK since the last measurement began. */
static attn_status status;

void note(attn_status of_call) {
    status = status == ATTN_OK ? of_call : status;
}

static struct maximum *maximum_of(const char *operation) {
    size_t i = 0;
    while (maxima[i].operation && strcmp(maxima[i].operation, operation) != 0)
        i++;
    assert_in_range(i, 0, MOST_OPERATIONS - 2);
    maxima[i].operation = operation;
    return &maxima[i];
}

void measure(const char *operation, stack_call *run, void *problem) {
    struct maximum *maximum = maximum_of(operation);
    status = ATTN_OK;
    size_t used = stack_used(run, problem);
    assert_ok(status);
    maximum->used = used > maximum->used ? used : maximum->used;
    if (used > MOST)
        test_fail("%s takes %zu bytes of stack", operation, used);
}

void print_maxima(void **state) {
    (void)state;
    for (const struct maximum *m = maxima; m->operation; m++)
        printf("%-40s %6zu bytes of stack\n", m->operation, m->used);
}

static void run_in_turn(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count) {
    (void)context;
    for (size_t i = 0; i < count; i++)
        task(arg, i);
}

const attn_parallel in_turn = {.run = run_in_turn, .threads = 40};

void measure_cut(const char *operation, stack_call *run, void *problem, const attn_parallel **parallel) {
    *parallel = NULL;
    measure(operation, run, problem);
    *parallel = &in_turn;
    measure(operation, run, problem);
}

const char *reason_to_skip(void) {
    if (getenv("ATTN_VERBOSE"))
        return "ATTN_VERBOSE prints, which takes what the C library likes";
    return test_option("skip");
}

/* ---- Memory ---- */

void room_take(struct room *room) {
    room->data = guarded_alloc(room->bytes, ATTN_ALIGNMENT, FLUSH_END);
}

void blob_is_exported(struct blob *blob) {
    blob->config = (attn_import_config){
        .isa = test_isa(), .blob = blob->exported.data, .blob_bytes = blob->exported.bytes, .mode = ATTN_IMPORT_COPY};
    blob->config.verify = 1;
}

void blob_free(struct blob *blob) {
    guarded_free(blob->exported.data);
    guarded_free(blob->memory.data);
}
