/* What the assembler must know. */
void probe(void);

void probe(void) {
    __asm__("sdot v0.4s, v1.16b, v2.16b");
}
