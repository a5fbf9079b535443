#include "stack.h"

#include <fenv.h>
#include <stdint.h>

#include "support.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

/* ---- Control bits ---- */

struct control_bits {
    int rounding;
    uint64_t others;
};

#if defined(__x86_64__)
/* All of MXCSR but its exception flags: rounding, flush-to-zero, denormals-are-zero, exception masks. */
enum { FLAGS = 0x3f, FLUSH_BITS = 0x8040 };

static uint64_t read_others(void) {
    return _mm_getcsr() & ~(unsigned)FLAGS;
}

static void write_others(uint64_t bits) {
    _mm_setcsr((unsigned)bits);
}
#elif defined(__aarch64__)
/* FPCR, which holds no flags. */
enum { FLUSH_BITS = 1 << 24 };

static uint64_t read_others(void) {
    uint64_t bits;
    __asm__ volatile("mrs %0, fpcr" : "=r"(bits));
    return bits;
}

static void write_others(uint64_t bits) {
    __asm__ volatile("msr fpcr, %0" : : "r"(bits));
}
#else
enum { FLUSH_BITS = 0 };

static uint64_t read_others(void) {
    return 0;
}

static void write_others(uint64_t bits) {
    (void)bits;
}
#endif

static struct control_bits control_bits(void) {
    return (struct control_bits){fegetround(), read_others()};
}

static bool control_bits_are(struct control_bits expected) {
    struct control_bits now = control_bits();
    return now.rounding == expected.rounding && now.others == expected.others;
}

static void set_unusual_bits(void) {
#ifdef FE_UPWARD
    fesetround(FE_UPWARD);
#endif
    write_others(read_others() | FLUSH_BITS);
}

/* ---- The stack ---- */

#define PAINT UINT64_C(0xa5c3a5c3a5c3a5c3)

/* Not painted: what lies below a frame may be in use by a leaf function, on x86-64 128 bytes. */
enum { RED_ZONE = 256, WORDS = (PAINTED_BYTES - RED_ZONE) / sizeof(uint64_t) };

/* Below the frame of this function, where the frame of the call that comes next will be; downwards, as a stack grows.
 * Returns where the paint ends. */
static __attribute__((noinline)) const volatile uint64_t *paint(void) {
    char *frame = __builtin_frame_address(0);
    volatile uint64_t *end = (volatile uint64_t *)(void *)(frame - PAINTED_BYTES);
    for (size_t i = WORDS; i-- > 0;)
        end[i] = PAINT;
    return end;
}

static size_t bytes_used(const volatile uint64_t *end) {
    size_t i = 0;
    while (i < WORDS && end[i] == PAINT)
        i++;
    return i < WORDS ? PAINTED_BYTES - i * sizeof(uint64_t) : 0;
}

/* Whether a first call leaves the unusual control bits that it finds. */
static bool first_call(stack_call *run, void *problem) {
    struct control_bits usual = control_bits(), unusual;
    set_unusual_bits();
    unusual = control_bits();
    run(problem);
    bool kept = control_bits_are(unusual);
    fesetround(usual.rounding);
    write_others(usual.others);
    return kept;
}

size_t stack_used(stack_call *run, void *problem) {
    struct control_bits usual = control_bits();
    bool kept = first_call(run, problem);
    const volatile uint64_t *painted = paint();
    run(problem);
    size_t used = bytes_used(painted);
    if (!kept || !control_bits_are(usual))
        test_fail("the control bits of the floating-point environment changed");
    return used;
}
