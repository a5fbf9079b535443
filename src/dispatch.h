/* Which table of kernels a call uses. */
#ifndef ATTN_DISPATCH_H
#define ATTN_DISPATCH_H

#include "kernels.h"

/* The table of `isa`, whether or not this processor can run it. NULL for ATTN_ISA_BEST, for values that are no ISA,
 * and for ISAs that this library was built without. */
const struct attn_kernels *attn_table(attn_isa isa);

/* The table that `isa` stands for on this processor: ATTN_ISA_BEST is the chosen one. ATTN_UNKNOWN_ISA for values
 * without a table, ATTN_UNSUPPORTED_ISA for a table that this processor or its operating system cannot run; *table
 * is then untouched. */
attn_status attn_table_for(attn_isa isa, const struct attn_kernels **table);

#endif
