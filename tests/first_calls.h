/* What the library prints when a process calls it first, for programs that say what the processor is. */
#ifndef ATTN_TESTS_FIRST_CALLS_H
#define ATTN_TESTS_FIRST_CALLS_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <attn/attn.h>

/* Of the first two calls, under ATTN_VERBOSE=1. Before test_init, which calls it too. */
static char first_calls_said[512];

static void call_first(void) {
    FILE *file = tmpfile();
    int saved = dup(STDERR_FILENO);
    if (!file || saved < 0 || setenv("ATTN_VERBOSE", "1", 1) != 0 || unsetenv("ATTN_MAX_ISA") != 0 ||
        dup2(fileno(file), STDERR_FILENO) < 0)
        abort();
    attn_isa_chosen();
    attn_isa_chosen();
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    first_calls_said[fread(first_calls_said, 1, sizeof first_calls_said - 1, file)] = '\0';
    fclose(file);
}

#endif
