/* The types of elements. */
#ifndef ATTN_TYPES_H
#define ATTN_TYPES_H

#include <attn/attn.h>
#include <stdbool.h>
#include <stddef.h>

/* Bytes of an element. */
static inline size_t attn_type_size(attn_type type) {
    switch (type) {
    case ATTN_BOOL:
    case ATTN_INT8:
    case ATTN_INT4: /* the byte that two share */
        return 1;
    case ATTN_BF16:
    case ATTN_F16:
        return 2;
    case ATTN_F32:
        break;
    }
    return 4;
}

/* Whether it is a type of floating-point numbers. False for values that are no type. */
static inline bool attn_type_is_float(attn_type type) {
    return type == ATTN_F32 || type == ATTN_BF16 || type == ATTN_F16;
}

#endif
