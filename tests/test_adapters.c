/* The adapters to thread pools, and the helpers by which operators use them. */
#include "ops/parallel.h"
#include "support.h"
#include <string.h>

#ifdef HAVE_OPENMP
#include <attn/openmp.h>
#endif
#ifdef HAVE_PTHREADPOOL
#include <attn/pthreadpool.h>
#endif

#define MAX_COUNT 1000

static const size_t counts[] = {0, 1, 7, MAX_COUNT};
#define COUNTS (sizeof counts / sizeof *counts)

/* How often each index was called; the last one stands for all that are too large. */
struct tally {
    atomic_int calls[MAX_COUNT + 1];
};

static void tally_task(void *arg, size_t index) {
    struct tally *tally = arg;
    atomic_fetch_add(&tally->calls[index < MAX_COUNT ? index : MAX_COUNT], 1);
}

static void check_tally(struct tally *tally, size_t count) {
    for (size_t i = 0; i <= MAX_COUNT; i++)
        assert_int_equal(atomic_load(&tally->calls[i]), i < count);
}

/* Items that tasks take until none is left. */
struct tasks {
    size_t count;
    struct tally *items;
    atomic_int *running; /* [count] */
};

static void run_item(const void *arg, size_t item, size_t task) {
    const struct tasks *tasks = arg;
    assert_true(task < tasks->count);
    assert_int_equal(0, atomic_fetch_add(&tasks->running[task], 1)); /* one at a time */
    tally_task(tasks->items, item);
    atomic_fetch_sub(&tasks->running[task], 1);
}

static void check_items(const attn_parallel *parallel, size_t count, size_t items) {
    struct tally tally = {0};
    atomic_int running[MAX_COUNT] = {0};
    count = count < MAX_COUNT ? count : MAX_COUNT;
    attn_for_each(parallel, count, items, run_item, &(struct tasks){count, &tally, running});
    check_tally(&tally, items);
}

#if defined(HAVE_OPENMP) || defined(HAVE_PTHREADPOOL)
/* What an attn_parallel promises, directly and through the helpers. */
static void check_parallel(const attn_parallel *parallel, size_t threads) {
    assert_int_equal(parallel->threads, threads);
    assert_int_equal(attn_threads(parallel), threads);
    for (size_t c = 0; c < COUNTS; c++)
        for (int repeat = 0; repeat < 5; repeat++) {
            test_case("threads=%zu count=%zu repeat=%d", threads, counts[c], repeat);
            struct tally direct = {0}, through = {0};
            parallel->run(parallel->context, tally_task, &direct, counts[c]);
            check_tally(&direct, counts[c]);
            attn_run(parallel, counts[c], tally_task, &through);
            check_tally(&through, counts[c]);

            check_items(parallel, threads, counts[c]);
        }
}
#endif

#ifdef HAVE_OPENMP
static void test_openmp(void **state) {
    (void)state;
    for (int threads = 1; threads <= 8; threads++) {
        attn_parallel parallel = attn_parallel_openmp(threads);
        check_parallel(&parallel, (size_t)threads);
    }
    attn_parallel parallel = attn_parallel_openmp(0);
    check_parallel(&parallel, (size_t)omp_get_max_threads());
}

static void nested_task(void *arg, size_t index) {
    (void)index;
    attn_parallel parallel = attn_parallel_openmp(2);
    struct tally tally = {0};
    attn_run(&parallel, 7, tally_task, &tally);
    for (size_t i = 0; i < 7; i++)
        if (atomic_load(&tally.calls[i]) != 1)
            atomic_fetch_add((atomic_int *)arg, 1);
}

static void test_openmp_nested(void **state) {
    (void)state;
    attn_parallel parallel = attn_parallel_openmp(2);
    atomic_int wrong = 0;
    attn_run(&parallel, 7, nested_task, &wrong);
    assert_int_equal(atomic_load(&wrong), 0);
}
#endif

#ifdef HAVE_PTHREADPOOL
static void test_pthreadpool(void **state) {
    (void)state;
    /* Few threads: while they wait they spin, and where there are more of them than cores a call takes milliseconds. */
    for (size_t threads = 1; threads <= 4; threads *= 2) {
        pthreadpool_t pool = pthreadpool_create(threads);
        assert_non_null(pool);
        attn_parallel parallel = attn_parallel_pthreadpool(pool);
        check_parallel(&parallel, threads);
        pthreadpool_destroy(pool);
    }
    attn_parallel parallel = attn_parallel_pthreadpool(NULL);
    check_parallel(&parallel, 1);
}
#endif

/* An attn_parallel that notes how it was called, and runs the tasks last to first. */
struct note {
    size_t calls, count;
};

static void noting_run(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count) {
    struct note *note = context;
    note->calls++;
    note->count = count;
    for (size_t i = count; i-- > 0;)
        task(arg, i);
}

/* `run` is called for two tasks or more on two threads or more, and never otherwise. */
static void test_when_run_is_called(void **state) {
    (void)state;
    for (size_t threads = 0; threads <= 3; threads++)
        for (size_t c = 0; c < COUNTS; c++) {
            test_case("threads=%zu count=%zu", threads, counts[c]);
            struct note note = {0};
            attn_parallel parallel = {noting_run, &note, threads};
            struct tally tally = {0};
            attn_run(&parallel, counts[c], tally_task, &tally);
            check_tally(&tally, counts[c]);
            bool expected = threads > 1 && counts[c] > 1;
            assert_int_equal(note.calls, expected);
            assert_int_equal(note.count, expected ? counts[c] : 0);
        }
}

static void test_calling_thread(void **state) {
    (void)state;
    const attn_parallel without_run = {NULL, NULL, 1};
    const attn_parallel *const parallels[] = {NULL, &without_run};
    for (size_t p = 0; p < 2; p++) {
        assert_int_equal(attn_threads(parallels[p]), 1);
        for (size_t c = 0; c < COUNTS; c++) {
            struct tally tally = {0};
            attn_run(parallels[p], counts[c], tally_task, &tally);
            check_tally(&tally, counts[c]);
            check_items(parallels[p], 3, counts[c]);
        }
    }
    const attn_parallel zero = {noting_run, NULL, 0};
    assert_int_equal(attn_threads(&zero), 1);
}

static void test_work_deserves_threads(void **state) {
    (void)state;
    const attn_parallel parallel = {noting_run, NULL, 5};
    const struct attn_tuning *tuning = attn_tuning_for(ATTN_ISA_SCALAR);
    assert_int_equal(1, attn_threads_for(tuning, &parallel, 0));
    assert_int_equal(1, attn_threads_for(tuning, &parallel, tuning->wake_ns - 1));
    assert_int_equal(5, attn_threads_for(tuning, &parallel, tuning->wake_ns));
    assert_int_equal(1, attn_threads_for(tuning, NULL, 1e30));
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_when_run_is_called),
        cmocka_unit_test(test_calling_thread),
        cmocka_unit_test(test_work_deserves_threads),
#ifdef HAVE_OPENMP
        cmocka_unit_test(test_openmp),
        cmocka_unit_test(test_openmp_nested),
#endif
#ifdef HAVE_PTHREADPOOL
        cmocka_unit_test(test_pthreadpool),
#endif
    };
    return test_run(tests);
}
