/* What the assembler must know. */
void probe(void);

void probe(void) {
    __asm__("vpdpbusd %zmm0, %zmm1, %zmm2");
}
