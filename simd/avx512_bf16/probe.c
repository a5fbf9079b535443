/* What the assembler must know. */
void probe(void);

void probe(void) {
    __asm__("vdpbf16ps %zmm0, %zmm1, %zmm2");
}
