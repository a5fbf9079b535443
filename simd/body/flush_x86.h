/* Denormal numbers as 0 on x86, decided after rounding. */
#ifndef ATTN_BODY_FLUSH_X86_H
#define ATTN_BODY_FLUSH_X86_H

#include <immintrin.h>

typedef unsigned flush_state;

/* FTZ and DAZ. */
INLINE flush_state flush_begin(void) {
    unsigned state = _mm_getcsr();
    _mm_setcsr(state | 0x8040);
    return state;
}

INLINE void flush_end(flush_state state) {
    _mm_setcsr(state);
}

#endif
