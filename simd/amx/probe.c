/* What the assembler must know. */
void probe(void);

void probe(void) {
    __asm__("tdpbf16ps %tmm0, %tmm1, %tmm2\n tdpbssd %tmm0, %tmm1, %tmm2");
}
