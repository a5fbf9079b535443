/* How operators cut work into tasks. */
#ifndef ATTN_OPS_PARALLEL_H
#define ATTN_OPS_PARALLEL_H

#include <attn/attn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* Into how many tasks work is cut at most; at least 1. `parallel` may be NULL. */
size_t attn_threads(const attn_parallel *parallel);

/* Calls task(arg, i) for each i < tasks, in the calling thread where there is one task or no parallel, and returns
 * when all have returned. */
void attn_run(const attn_parallel *parallel, size_t tasks, void (*task)(void *arg, size_t index), void *arg);

/* Items 0 .. count - 1, each given out once, to any thread: what balances tasks whose items differ in cost. No order
 * between threads follows from it; that the tasks have ended is what `run` guarantees. */
struct attn_queue {
    atomic_size_t next; /* ends at count plus the number of threads: count must leave room for that */
    size_t count;
    bool shared;
};

/* For `tasks` tasks that take items. */
static inline void attn_queue_init(struct attn_queue *queue, size_t count, size_t tasks) {
    atomic_init(&queue->next, 0);
    queue->count = count;
    queue->shared = tasks > 1;
}

/* False when every item has been taken. */
static inline bool attn_queue_take(struct attn_queue *queue, size_t *item) {
    if (queue->shared) {
        *item = atomic_fetch_add_explicit(&queue->next, 1, memory_order_relaxed);
    } else { /* a locked addition would wait for the last item's outputs to reach the cache */
        *item = atomic_load_explicit(&queue->next, memory_order_relaxed);
        atomic_store_explicit(&queue->next, *item + 1, memory_order_relaxed);
    }
    return *item < queue->count;
}

#endif
