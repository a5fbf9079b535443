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
    case ATTN_F8_E4M3:
    case ATTN_F8_E5M2:
        return 1;
    case ATTN_BF16:
    case ATTN_F16:
        return 2;
    case ATTN_F32:
        break;
    }
    return 4;
}

/* "BF16", as errors and ATTN_VERBOSE say it; of a type that has been checked. */
const char *attn_type_name(attn_type type);

/* A set of types has the bit of each. */
#define ATTN_TYPE_BIT(type) (1u << (type))
#define ATTN_TYPES_FLOAT    (ATTN_TYPE_BIT(ATTN_F32) | ATTN_TYPE_BIT(ATTN_BF16) | ATTN_TYPE_BIT(ATTN_F16))

/* False for values that are no type. */
static inline bool attn_type_is_in(attn_type type, unsigned types) {
    return (unsigned)type < 32 && (types & ATTN_TYPE_BIT(type)) != 0;
}

/* Whether rows may have it: a type of floating-point numbers of 16 bits or more. */
static inline bool attn_type_is_float(attn_type type) {
    return attn_type_is_in(type, ATTN_TYPES_FLOAT);
}

#endif
