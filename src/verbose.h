/* Lines on stderr, if the environment variable ATTN_VERBOSE asks for them: 1, a line per created object; 2, also a line
 * per call, with its sizes, the options in use, the plan of attention and the microseconds that it took. The variable
 * is read once. */
#ifndef ATTN_VERBOSE_H
#define ATTN_VERBOSE_H

#include <attn/attn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

/* How a function like printf reads its format: mingw-w64 has two ways. */
#ifdef __MINGW_PRINTF_FORMAT
#define ATTN_PRINTF(format_index, first_index) __attribute__((format(__MINGW_PRINTF_FORMAT, format_index, first_index)))
#else
#define ATTN_PRINTF(format_index, first_index) __attribute__((format(printf, format_index, first_index)))
#endif

/* The line of a created object; the newline is added. */
void attn_verbose(const char *format, ...) ATTN_PRINTF(1, 2);

/* ---- Calls ---- */

#define ATTN_COLD __attribute__((cold)) /* kept apart from what runs when nothing is printed */

/* A call's line in the making. What does not fit is cut off. */
struct attn_line {
    const char *name;
    double microseconds; /* of the clock when the call began, then of the call */
    size_t used;
    char text[512];
};

void attn_line_add(struct attn_line *line, const char *format, ...) ATTN_PRINTF(2, 3) ATTN_COLD;
/* " name size" */
void attn_line_size(struct attn_line *line, const char *name, size_t size) ATTN_COLD;
/* If the size is 0: says so, and what follows from it. The caller may have forgotten to set it. */
void attn_line_zero(struct attn_line *line, const char *name, size_t size, const char *consequence) ATTN_COLD;
void attn_line_parallel(struct attn_line *line, const attn_parallel *parallel) ATTN_COLD;

/* 0 until the variable has been read, then 1 plus its level. */
extern atomic_uint attn_verbosity;
/* The level, read if need be. */
unsigned attn_verbose_level(void) ATTN_COLD;

/* A quiet call takes one load and one comparison: `level - 1` is the level, or UINT_MAX before the variable has been
 * read. */
static inline bool attn_calls_are_printed(void) {
    unsigned level = atomic_load_explicit(&attn_verbosity, memory_order_relaxed);
    return __builtin_expect(level - 1 >= 2, 0) && attn_verbose_level() >= 2;
}

void attn_line_begin(struct attn_line *line, const char *name) ATTN_COLD;
void attn_line_stop(struct attn_line *line) ATTN_COLD;
/* Prints the line; after a failure the status instead and, if the caller asked for it, the field. */
void attn_line_end(const struct attn_line *line, attn_status status, attn_error *error) ATTN_COLD;

/* The body of a public function that has a parameter `error`: returns what `call` does. Where calls are printed,
 * `describe` adds sizes and options to `line` after a success. `call` stands in one place only, so that the compiler
 * inlines it and a quiet call costs no more than the question whether it is one. */
#define ATTN_RETURN_CALL(name, call, describe)                                                                         \
    do {                                                                                                               \
        struct attn_line line;                                                                                         \
        bool printed = attn_calls_are_printed();                                                                       \
        if (printed)                                                                                                   \
            attn_line_begin(&line, name);                                                                              \
        attn_status call_status = call;                                                                                \
        if (printed) {                                                                                                 \
            attn_line_stop(&line);                                                                                     \
            if (call_status == ATTN_OK)                                                                                \
                describe;                                                                                              \
            attn_line_end(&line, call_status, error);                                                                  \
        }                                                                                                              \
        return call_status;                                                                                            \
    } while (0)

#endif
