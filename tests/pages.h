/* Pages of memory that fault or not, on POSIX systems and on Windows. What cannot be done ends the program. */
#ifndef ATTN_TESTS_PAGES_H
#define ATTN_TESTS_PAGES_H

#include <stddef.h>

size_t page_size(void);
/* `bytes` rounded up to pages. */
size_t whole_pages(size_t bytes);

/* Whole pages that fault on every access until they are opened. */
char *pages_new(size_t bytes);
/* Whole pages of them may be read and written from now on. They start as zeros. */
void pages_open(char *pages, size_t bytes);
/* What may be done with opened pages from now on. */
enum access { ACCESS_NONE, ACCESS_READ, ACCESS_WRITE };
void pages_protect(char *pages, size_t bytes, enum access access);
void pages_free(char *pages, size_t bytes);

#endif
