/* How much stack a call takes: the high-water mark of painted stack. */
#ifndef ATTN_TESTS_STACK_H
#define ATTN_TESTS_STACK_H

#include <stddef.h>

/* How much is painted, and so the most that can be seen. */
#define PAINTED_BYTES ((size_t)64 * 1024)

/* What is measured: makes one call of the library, and keeps its status in the problem. It must neither fail the
 * test nor print, because that takes stack too. */
typedef void stack_call(void *problem);

/* Bytes of stack between run's caller and the deepest byte that run(problem) writes; 0 where there are fewer than 256.
 *
 * Calls it twice, first to let the dynamic linker bind what it calls, then on fresh paint. The first call has unusual
 * control bits in its floating-point environment (another rounding, denormals flushed where the processor can), the
 * second has the usual ones; the test fails where either call leaves other control bits than it found. */
size_t stack_used(stack_call *run, void *problem);

#endif
