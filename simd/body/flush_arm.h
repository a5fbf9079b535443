/* Denormal numbers as 0 on Arm. FPCR.FZ looks at results before they are rounded, the class after: only a result
 * just below 2^-126, which rounding would bring there, comes out differently. Each zero that FZ makes of a result
 * sets FPSR.UFC, so what leaves it clear is right, and what sets it is computed again without FZ (pairs_lanes.h). */
#ifndef ATTN_BODY_FLUSH_ARM_H
#define ATTN_BODY_FLUSH_ARM_H

#include <stdbool.h>
#include <stdint.h>

/* Control bits, and exception flags. */
typedef struct {
    uint64_t control, flags;
} flush_state;

/* "memory" keeps what is loaded and stored, and the arithmetic between, on its side. */
INLINE uint64_t flush_control(void) {
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control) : : "memory");
    return control;
}
INLINE void flush_set_control(uint64_t control) {
    __asm__ volatile("msr fpcr, %0" : : "r"(control) : "memory");
}
INLINE uint64_t flush_flags(void) {
    uint64_t flags;
    __asm__ volatile("mrs %0, fpsr" : "=r"(flags) : : "memory");
    return flags;
}
INLINE void flush_set_flags(uint64_t flags) {
    __asm__ volatile("msr fpsr, %0" : : "r"(flags) : "memory");
}

#define FLUSH_FZ  (UINT64_C(1) << 24)
#define FLUSH_UFC (UINT64_C(1) << 3)

INLINE flush_state flush_begin(void) {
    flush_state state = {flush_control(), flush_flags()};
    flush_set_control(state.control | FLUSH_FZ);
    flush_set_flags(0);
    return state;
}

INLINE void flush_end(flush_state state) {
    flush_set_control(state.control);
    flush_set_flags(state.flags);
}

/* Whether a result has become zero since the flags were cleared. The caller's asm statements have its results as
 * operands. */
INLINE bool flush_failed(void) {
    return flush_flags() & FLUSH_UFC;
}

/* Between these two denormal numbers are kept. The second clears the flags. */
INLINE uint64_t flush_pause(void) {
    uint64_t control = flush_control();
    flush_set_control(control & ~FLUSH_FZ);
    return control;
}
INLINE void flush_resume(uint64_t control) {
    flush_set_control(control);
    flush_set_flags(0);
}

#endif
