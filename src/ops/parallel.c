#include "parallel.h"

size_t attn_threads(const attn_parallel *parallel) {
    return parallel && parallel->threads > 1 ? parallel->threads : 1;
}

void attn_run(const attn_parallel *parallel, size_t tasks, void (*task)(void *arg, size_t index), void *arg) {
    if (tasks > 1 && attn_threads(parallel) > 1) {
        parallel->run(parallel->context, task, arg, tasks);
        return;
    }
    for (size_t i = 0; i < tasks; i++)
        task(arg, i);
}

enum { MOST_RANGES = 32 };

static void cut_queue(struct attn_queue *queue, size_t items) {
    for (size_t r = 0, begin = 0; r < queue->ranges; r++) {
        atomic_init(&queue->range[r].next, begin);
        begin += items / queue->ranges + (r < items % queue->ranges);
        queue->range[r].end = begin;
    }
}

/* Out of line: one task needs nothing of this on its stack. */
static __attribute__((noinline)) void run_ranges(const attn_parallel *parallel, size_t tasks, size_t items,
                                                 void (*task)(void *arg, size_t index), void *arg,
                                                 struct attn_queue *queue) {
    struct attn_range range[MOST_RANGES];
    *queue = (struct attn_queue){.range = range, .ranges = tasks < MOST_RANGES ? tasks : MOST_RANGES};
    cut_queue(queue, items);
    attn_run(parallel, tasks, task, arg);
}

void attn_run_queue(const attn_parallel *parallel, size_t tasks, size_t items, void (*task)(void *arg, size_t index),
                    void *arg, struct attn_queue *queue) {
    if (tasks > 1) {
        run_ranges(parallel, tasks, items, task, arg, queue);
        return;
    }
    struct attn_range all;
    *queue = (struct attn_queue){.range = &all, .ranges = 1};
    cut_queue(queue, items);
    attn_run(parallel, tasks, task, arg);
}
