/* Which table of kernels a call uses. */
#ifndef ATTN_DISPATCH_H
#define ATTN_DISPATCH_H

#include "kernels.h"
#include <stdio.h>

/* How a function like printf reads its format: mingw-w64 has two ways. */
#ifdef __MINGW_PRINTF_FORMAT
#define ATTN_PRINTF(format_index, first_index) __attribute__((format(__MINGW_PRINTF_FORMAT, format_index, first_index)))
#else
#define ATTN_PRINTF(format_index, first_index) __attribute__((format(printf, format_index, first_index)))
#endif

/* The table of `isa`, whether or not this processor can run it. NULL for ATTN_ISA_BEST, for values that are no ISA,
 * and for ISAs that this library was built without. */
const struct attn_kernels *attn_table(attn_isa isa);

/* The table that `isa` stands for on this processor: ATTN_ISA_BEST is the chosen one. ATTN_UNKNOWN_ISA for values
 * without a table, ATTN_UNSUPPORTED_ISA for a table that this processor or its operating system cannot run; *table
 * is then untouched. */
attn_status attn_table_for(attn_isa isa, const struct attn_kernels **table);

/* One line to stderr where the environment variable ATTN_VERBOSE is 1; the newline is added. Reads the environment:
 * for the creation of objects, not for the run path. */
void attn_verbose(const char *format, ...) ATTN_PRINTF(1, 2);

#endif
