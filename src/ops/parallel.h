/* How operators cut work into items and run them in tasks. */
#ifndef ATTN_OPS_PARALLEL_H
#define ATTN_OPS_PARALLEL_H

#include <attn/attn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "tuning.h"

/* How many threads the caller offers; at least 1. `parallel` may be NULL. */
size_t attn_threads(const attn_parallel *parallel);

/* How many of them work of so many nanoseconds is worth: all, or one. */
size_t attn_threads_for(const struct attn_tuning *tuning, const attn_parallel *parallel, double nanoseconds);

/* Calls task(arg, i) for each i < tasks, in the calling thread where there is one task or no parallel, and returns
 * when all have returned. */
void attn_run(const attn_parallel *parallel, size_t tasks, void (*task)(void *arg, size_t index), void *arg);

/* Calls run(arg, i, task) for each i < items, on at most so many tasks; `task` is below `tasks`, and
 * different for calls that run at the same time. items + tasks must fit in size_t. */
void attn_for_each(const attn_parallel *parallel, size_t tasks, size_t items,
                   void (*run)(const void *arg, size_t item, size_t task), const void *arg);

/* The items of one task. A task first takes those of its own range, which is the same in every call: its core's cache
 * may still hold what they need. Then it takes what other ranges have left, because items differ in cost. */
struct attn_items {
    size_t task;
    struct attn_range *range;  /* NULL: the one task takes all */
    size_t ranges, from, left; /* it takes items from range `from`; `left` ranges may still have some */
    size_t next, end;          /* of the one task that takes all */
};

/* False when every item has been taken. */
bool attn_items_take(struct attn_items *items, size_t *item);

/* attn_for_each for tasks that keep state from one item to the next: calls run(arg, items) once in each task, which
 * then takes its items. */
void attn_for_each_task(const attn_parallel *parallel, size_t tasks, size_t items,
                        void (*run)(const void *arg, struct attn_items *items), const void *arg);

#endif
