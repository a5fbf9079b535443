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
