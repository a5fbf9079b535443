/* What the assembler must know. */
void probe(void);

void probe(void) {
    __asm__("smmla v0.4s, v1.16b, v2.16b\n bfmlalb v0.4s, v1.8h, v2.8h");
}
