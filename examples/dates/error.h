/* What went wrong, in a sentence that names the culprit. */
#ifndef DATES_ERROR_H
#define DATES_ERROR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

struct error {
    char text[256];
};

/* Stores the sentence and returns false, so that a check can end in `return refuse(error, ...)`. Names come from
 * untrusted files: control characters, which could steer a terminal, become question marks. */
__attribute__((format(printf, 2, 3))) static inline bool refuse(struct error *error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    for (char *c = error->text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    return false;
}

#endif
