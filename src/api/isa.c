#include "../dispatch.h"

const char *attn_isa_name(attn_isa isa) {
    return (unsigned)isa < ATTN_ISA_COUNT ? attn_isa_names[isa] : NULL;
}

attn_status attn_isa_from_name(const char *name, attn_isa *isa) {
    if (!name || !isa)
        return ATTN_NULL_POINTER;
    return attn_isa_find(name, isa) ? ATTN_OK : ATTN_UNKNOWN_ISA;
}

/* ATTN_ISA_BEST stands for a table that is both built and supported. */
int attn_isa_built(attn_isa isa) {
    return isa == ATTN_ISA_BEST || attn_table(isa);
}

int attn_isa_supported(attn_isa isa) {
    const struct attn_kernels *table;
    return attn_table_for(isa, &table) == ATTN_OK;
}

attn_isa attn_isa_chosen(void) {
    const struct attn_kernels *table = NULL;
    attn_table_for(ATTN_ISA_BEST, &table); /* cannot fail: scalar runs everywhere */
    return table->isa;
}
