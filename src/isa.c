#include "isa.h"
#include <string.h>

#define ISA(name, NAME, arch) [ATTN_ISA_##NAME] = #name,
const char *const attn_isa_names[ATTN_ISA_COUNT] = {
    [ATTN_ISA_BEST] = "best",
#include "isa.def"
};
#undef ISA

bool attn_isa_find(const char *name, attn_isa *isa) {
    for (int i = 0; i < ATTN_ISA_COUNT; i++)
        if (strcmp(name, attn_isa_names[i]) == 0) {
            *isa = (attn_isa)i;
            return true;
        }
    return false;
}
