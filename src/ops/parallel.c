#include "parallel.h"

size_t attn_threads(const attn_parallel *parallel) {
    return parallel && parallel->threads > 1 ? parallel->threads : 1;
}

size_t attn_threads_for(const struct attn_tuning *tuning, const attn_parallel *parallel, double nanoseconds) {
    return nanoseconds < tuning->wake_ns ? 1 : attn_threads(parallel);
}

void attn_run(const attn_parallel *parallel, size_t tasks, void (*task)(void *arg, size_t index), void *arg) {
    if (tasks > 1 && attn_threads(parallel) > 1) {
        parallel->run(parallel->context, task, arg, tasks);
        return;
    }
    for (size_t i = 0; i < tasks; i++)
        task(arg, i);
}

/* ---- Items ---- */

/* The ranges lie on the caller's stack, so there are at most this many; more tasks share them. */
enum { MOST_RANGES = 32 };

struct attn_range {
    _Alignas(64) atomic_size_t next; /* on its own cache line, because one task mostly writes it; <= end + tasks */
    size_t end;
};

bool attn_items_take(struct attn_items *items, size_t *item) {
    if (!items->range) {
        *item = items->next++;
        return *item < items->end;
    }
    for (; items->left > 0; items->left--, items->from = items->from + 1 < items->ranges ? items->from + 1 : 0) {
        struct attn_range *range = &items->range[items->from];
        *item = atomic_fetch_add_explicit(&range->next, 1, memory_order_relaxed);
        if (*item < range->end)
            return true;
    }
    return false;
}

struct shared_items {
    struct attn_range range[MOST_RANGES];
    size_t ranges;
    void (*run)(const void *arg, struct attn_items *items);
    const void *arg;
};

/* The counters order nothing between threads: `parallel` itself guarantees that all tasks have ended when it
 * returns. */
static void run_task(void *arg, size_t task) {
    struct shared_items *shared = arg;
    struct attn_items items = {.task = task,
                               .range = shared->range,
                               .ranges = shared->ranges,
                               .from = task % shared->ranges,
                               .left = shared->ranges};
    shared->run(shared->arg, &items);
}

/* Not inlined, so that a single task does not have the ranges on its stack. */
static __attribute__((noinline)) void run_tasks(const attn_parallel *parallel, size_t tasks, size_t items,
                                                void (*run)(const void *arg, struct attn_items *items),
                                                const void *arg) {
    struct shared_items shared;
    shared.ranges = tasks < MOST_RANGES ? tasks : MOST_RANGES;
    shared.run = run;
    shared.arg = arg;
    for (size_t r = 0, begin = 0; r < shared.ranges; r++) {
        atomic_init(&shared.range[r].next, begin);
        begin += items / shared.ranges + (r < items % shared.ranges);
        shared.range[r].end = begin;
    }
    attn_run(parallel, tasks, run_task, &shared);
}

void attn_for_each_task(const attn_parallel *parallel, size_t tasks, size_t items,
                        void (*run)(const void *arg, struct attn_items *items), const void *arg) {
    tasks = tasks < items ? tasks : items;
    if (tasks > 1 && attn_threads(parallel) > 1)
        run_tasks(parallel, tasks, items, run, arg);
    else
        run(arg, &(struct attn_items){.end = items});
}

struct each {
    void (*run)(const void *arg, size_t item, size_t task);
    const void *arg;
};

static void run_each(const void *arg, struct attn_items *items) {
    const struct each *each = arg;
    for (size_t item; attn_items_take(items, &item);)
        each->run(each->arg, item, items->task);
}

void attn_for_each(const attn_parallel *parallel, size_t tasks, size_t items,
                   void (*run)(const void *arg, size_t item, size_t task), const void *arg) {
    attn_for_each_task(parallel, tasks, items, run_each, &(struct each){run, arg});
}
