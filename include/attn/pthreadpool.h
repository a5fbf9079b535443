/* An attn_parallel that runs on a pthreadpool (https://github.com/Maratyszcza/pthreadpool, also
 * inside XNNPACK and PyTorch).
 *
 *     pthreadpool_t pool = pthreadpool_create(4);
 *     attn_parallel parallel = attn_parallel_pthreadpool(pool);
 *     args.parallel = &parallel;
 *
 * The attn_parallel borrows the pool: destroy the pool after the last call that uses it. Calls from
 * several threads on one pool wait for each other inside pthreadpool. A call from inside a task of
 * the same pool deadlocks: give that call NULL for its attn_parallel, or another pool. Waiting
 * threads spin: a pool of more threads than there are free cores is slow, and where other processes
 * want the cores a call now and then takes several milliseconds. There attn/openmp.h with
 * OMP_WAIT_POLICY=passive is the better choice. */
#ifndef ATTN_PTHREADPOOL_H
#define ATTN_PTHREADPOOL_H

#include <attn/attn.h>
#include <pthreadpool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

static inline void attn_pthreadpool_run(void *context, void (*task)(void *arg, size_t index),
                                        void *arg, size_t count) {
    /* No flags: denormals stay as they are, workers go on spinning for the next call. */
    pthreadpool_parallelize_1d((pthreadpool_t)context, task, arg, count, 0);
}

/* All threads of the pool, the calling one among them. A NULL pool is the calling thread alone. */
static inline attn_parallel attn_parallel_pthreadpool(pthreadpool_t pool) {
    attn_parallel parallel;
    parallel.run = attn_pthreadpool_run;
    parallel.context = pool;
    parallel.threads = pthreadpool_get_threads_count(pool);
    return parallel;
}

#ifdef __cplusplus
}
#endif

#endif
