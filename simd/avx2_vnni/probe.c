/* What the assembler must know. */
void probe(void);

void probe(void) {
    __asm__("{vex} vpdpbusd %ymm0, %ymm1, %ymm2");
}
