/* Denormal numbers as 0 on x86, decided after rounding. */
#ifndef ATTN_BODY_FLUSH_X86_H
#define ATTN_BODY_FLUSH_X86_H

#include <immintrin.h>

typedef unsigned flush_state;

/* Keeps what is loaded and stored, and the arithmetic between, on its side. */
INLINE void flush_set(unsigned state) {
    __asm__ volatile("" : : : "memory");
    _mm_setcsr(state);
    __asm__ volatile("" : : : "memory");
}

/* FTZ and DAZ. */
INLINE flush_state flush_begin(void) {
    unsigned state = _mm_getcsr();
    flush_set(state | 0x8040);
    return state;
}

INLINE void flush_end(flush_state state) {
    flush_set(state);
}

#endif
