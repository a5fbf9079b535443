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

/* Items 0 .. count - 1, each given out once. A task first takes those of a range of its own, the same in every call, so that
 * what they need may still be in its core's cache; then what other ranges have left, which balances tasks whose items differ in
 * cost. */
struct attn_queue {
    struct attn_range {
        /* Ends at `end` plus the number of tasks: the count must leave room for that. */
        _Alignas(64) atomic_size_t next;
        size_t end;
    } * range; /* each on a line of its own: its task takes from it alone, mostly */
    size_t ranges;
};

/* Fills *queue with so many items, for task(arg, i) to take, and calls it for each i < tasks as attn_run does. No order between
 * threads follows from the queue; that the tasks have ended is what `run` guarantees. */
void attn_run_queue(const attn_parallel *parallel, size_t tasks, size_t items, void (*task)(void *arg, size_t index),
                    void *arg, struct attn_queue *queue);

/* The queue as one task sees it. */
struct attn_share {
    struct attn_queue *queue;
    size_t range, left; /* where it takes items now, and how many ranges it has not seen the end of */
    size_t item;        /* that it has taken */
};

static inline struct attn_share attn_queue_share(struct attn_queue *queue, size_t task) {
    return (struct attn_share){
        .queue = queue, .range = task < queue->ranges ? task : task % queue->ranges, .left = queue->ranges};
}

/* False when every item has been taken. */
static inline bool attn_queue_take(struct attn_share *share) {
    struct attn_queue *queue = share->queue;
    for (; share->left > 0; share->left--, share->range = share->range + 1 < queue->ranges ? share->range + 1 : 0) {
        atomic_size_t *next = &queue->range[share->range].next;
        if (queue->ranges > 1) {
            share->item = atomic_fetch_add_explicit(next, 1, memory_order_relaxed);
        } else { /* a locked addition would wait for the last item's outputs to reach the cache */
            share->item = atomic_load_explicit(next, memory_order_relaxed);
            atomic_store_explicit(next, share->item + 1, memory_order_relaxed);
        }
        if (share->item < queue->range[share->range].end)
            return true;
    }
    return false;
}

#endif
