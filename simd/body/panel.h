/* Which panel a column of packed B lies in. tile.h or pairs.h says how many columns a kernel's have. */
#ifndef ATTN_BODY_PANEL_H
#define ATTN_BODY_PANEL_H

#include "kernels.h"

/* The others are narrow: nothing is divided by a variable. */
INLINE size_t panel_number(const struct attn_panels *b, size_t column) {
    return b->cols == COLS ? column / COLS : column / ATTN_LANES;
}

#endif
