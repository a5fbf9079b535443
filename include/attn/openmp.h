/* An attn_parallel that runs on OpenMP's threads. Compile with -fopenmp (or your compiler's flag
 * for it).
 *
 *     attn_parallel parallel = attn_parallel_openmp(4);
 *     args.parallel = &parallel;
 *
 * The attn_parallel holds no resource: it is a value, copied and dropped freely, and may be used by
 * several threads at once. Called from inside an OpenMP parallel region, the tasks run in the
 * calling thread unless nested regions are switched on (omp_set_max_active_levels): the same
 * results, not faster. Needs OpenMP 3.0. */
#ifndef ATTN_OPENMP_H
#define ATTN_OPENMP_H

#ifndef _OPENMP
#error "attn/openmp.h needs a compiler with OpenMP switched on (-fopenmp)"
#endif

#include <attn/attn.h>
#include <omp.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The context is the number of threads itself. */
static inline void attn_openmp_run(void *context, void (*task)(void *arg, size_t index), void *arg,
                                   size_t count) {
    int threads = (int)(intptr_t)context;
    size_t i;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (i = 0; i < count; i++)
        task(arg, i);
}

/* At most `threads` threads, the calling one among them; with 0 or less as many as
 * omp_get_max_threads() says now. */
static inline attn_parallel attn_parallel_openmp(int threads) {
    attn_parallel parallel;
    if (threads <= 0)
        threads = omp_get_max_threads();
    parallel.run = attn_openmp_run;
    parallel.context = (void *)(intptr_t)threads;
    parallel.threads = (size_t)threads;
    return parallel;
}

#ifdef __cplusplus
}
#endif

#endif
