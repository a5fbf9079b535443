/* The names of the instruction sets. */
#ifndef ATTN_ISA_H
#define ATTN_ISA_H

#include <attn/attn.h>
#include <stdbool.h>

/* [attn_isa]: "best", then the names in isa.def. */
extern const char *const attn_isa_names[ATTN_ISA_COUNT];

/* Finds the ISA of that name. False where none has it; *isa is then untouched. */
bool attn_isa_find(const char *name, attn_isa *isa);

#endif
