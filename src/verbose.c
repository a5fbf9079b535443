#include "verbose.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* timespec_get is missing from mingw-w64 without the universal C runtime and from Android below 10. */
#if defined(TIME_UTC) && !defined(__ANDROID__)
#define HAS_TIMESPEC_GET 1
#else
#define HAS_TIMESPEC_GET 0
#include <sys/time.h>
#endif

#include "arithmetic.h"

atomic_uint attn_verbosity;

unsigned attn_verbose_level(void) {
    unsigned known = atomic_load_explicit(&attn_verbosity, memory_order_relaxed);
    if (known)
        return known - 1;
    const char *text = getenv("ATTN_VERBOSE");
    unsigned level = !text ? 0 : strcmp(text, "1") == 0 ? 1 : strcmp(text, "2") == 0 ? 2 : 0;
    atomic_store_explicit(&attn_verbosity, level + 1,
                          memory_order_relaxed); /* threads that come here at once find the same */
    return level;
}

void attn_verbose(const char *format, ...) {
    if (attn_verbose_level() < 1)
        return;
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    fprintf(stderr, "attn: %s\n", line); /* one call, so that lines of several threads stay whole */
    if (!attn_denormals_are_kept())
        fputs("attn: this thread takes denormal numbers for 0: results may differ from other machines'\n", stderr);
}

/* ---- Calls ---- */

static double microseconds_now(void) {
#if HAS_TIMESPEC_GET
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
#else
    struct timeval t;
    gettimeofday(&t, NULL);
    return (double)t.tv_sec * 1e6 + (double)t.tv_usec;
#endif
}

void attn_line_begin(struct attn_line *line, const char *name) {
    line->name = name;
    line->used = 0;
    line->text[0] = '\0';
    line->microseconds = microseconds_now();
}

void attn_line_stop(struct attn_line *line) {
    line->microseconds = microseconds_now() - line->microseconds;
}

void attn_line_add(struct attn_line *line, const char *format, ...) {
    size_t left = sizeof line->text - line->used;
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line->text + line->used, left, format, args);
    va_end(args);
    if (length > 0)
        line->used += (size_t)length < left ? (size_t)length : left - 1;
}

void attn_line_size(struct attn_line *line, const char *name, size_t size) {
    attn_line_add(line, " %s %zu", name, size);
}

void attn_line_zero(struct attn_line *line, const char *name, size_t size, const char *consequence) {
    if (size == 0)
        attn_line_add(line, "; %s is 0: %s", name, consequence);
}

void attn_line_parallel(struct attn_line *line, const attn_parallel *parallel) {
    if (parallel && parallel->threads > 1)
        attn_line_size(line, "threads", parallel->threads);
}

void attn_line_end(const struct attn_line *line, attn_status status, attn_error *error) {
    if (status == ATTN_OK)
        fprintf(stderr, "attn: %s%s; %.2f us\n", line->name, line->text, line->microseconds);
    else
        fprintf(stderr, "attn: %s failed: %s%s%s\n", line->name, error ? error->field : "", error ? ": " : "",
                attn_status_string(status));
}
