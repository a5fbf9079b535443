/* For mmap, which C11 does not have. */
#define _GNU_SOURCE 1

#include "pages.h"

#include <stdio.h>
#include <stdlib.h>

#ifdef _WIN32
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

static void must(int done) {
    if (!done) {
        perror("pages of memory");
        abort();
    }
}

#ifdef _WIN32

static size_t system_page_size(void) {
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return info.dwPageSize;
}

char *pages_new(size_t bytes) {
    char *pages = VirtualAlloc(NULL, bytes, MEM_RESERVE, PAGE_NOACCESS);
    must(pages != NULL);
    return pages;
}

void pages_open(char *pages, size_t bytes) {
    must(VirtualAlloc(pages, bytes, MEM_COMMIT, PAGE_READWRITE) != NULL);
}

void pages_protect(char *pages, size_t bytes, enum access access) {
    static const DWORD modes[] = {PAGE_NOACCESS, PAGE_READONLY, PAGE_READWRITE};
    DWORD before;
    must(VirtualProtect(pages, bytes, modes[access], &before));
}

void pages_free(char *pages, size_t bytes) {
    (void)bytes;
    must(VirtualFree(pages, 0, MEM_RELEASE));
}

#else

static size_t system_page_size(void) {
    return (size_t)sysconf(_SC_PAGESIZE);
}

char *pages_new(size_t bytes) {
    char *pages = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(pages != MAP_FAILED);
    return pages;
}

void pages_open(char *pages, size_t bytes) {
    must(mprotect(pages, bytes, PROT_READ | PROT_WRITE) == 0);
}

void pages_protect(char *pages, size_t bytes, enum access access) {
    static const int modes[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
    must(mprotect(pages, bytes, modes[access]) == 0);
}

void pages_free(char *pages, size_t bytes) {
    must(munmap(pages, bytes) == 0);
}

#endif

size_t page_size(void) {
    static size_t size;
    if (size == 0)
        size = system_page_size();
    return size;
}

size_t whole_pages(size_t bytes) {
    return (bytes + page_size() - 1) / page_size() * page_size();
}
