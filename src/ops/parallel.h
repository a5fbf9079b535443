/* How operators cut work into items and run them in tasks. */
#ifndef ATTN_OPS_PARALLEL_H
#define ATTN_OPS_PARALLEL_H

#include <attn/attn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* Nanoseconds of one thread below which waking another costs more than it saves. Operators state their work in nanoseconds of
 * an AVX2 core at 3 GHz: a faster core gives back a little sooner what the others cost. */
#define ATTN_WAKE_NS (1 << 14)

/* Nanoseconds of one multiply-add in a product: 32 in each. */
#define ATTN_MULTIPLY_ADD_NS (1.0 / 32)

/* How many threads the caller offers; at least 1. `parallel` may be NULL. */
size_t attn_threads(const attn_parallel *parallel);

/* How many of them so much work deserves: all or one. */
size_t attn_threads_for(const attn_parallel *parallel, double nanoseconds);

/* Calls task(arg, i) for each i < tasks, in the calling thread where there is one task or no parallel, and returns
 * when all have returned. */
void attn_run(const attn_parallel *parallel, size_t tasks, void (*task)(void *arg, size_t index), void *arg);

/* Calls run(arg, i, task) for each i < items, on at most so many tasks; `task` is below `tasks`, and tells apart what
 * runs at the same time. items + tasks must fit in size_t. */
void attn_for_each(const attn_parallel *parallel, size_t tasks, size_t items,
                   void (*run)(const void *arg, size_t item, size_t task), const void *arg);

/* The items of one task. A task first takes those of a range of its own, the same in every call, so that its core's cache may
 * still hold what they need; then what other ranges have left, which balances tasks whose items differ in cost. */
struct attn_items {
    size_t task;
    struct attn_range *range;  /* NULL: the one task takes all */
    size_t ranges, from, left; /* it takes from this one, and has not seen the end of so many */
    size_t next, end;          /* of the one task */
};

/* False when every item has been taken. */
bool attn_items_take(struct attn_items *items, size_t *item);

/* attn_for_each for tasks that keep something from one item to the next: calls run(arg, items) once in each task, which takes
 * them. */
void attn_for_each_task(const attn_parallel *parallel, size_t tasks, size_t items,
                        void (*run)(const void *arg, struct attn_items *items), const void *arg);

#endif
