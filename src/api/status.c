#include <attn/attn.h>

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)

const char *attn_status_string(attn_status status) {
    switch (status) {
    case ATTN_OK:
        return "success";
    case ATTN_NULL_POINTER:
        return "a required pointer is NULL";
    case ATTN_BAD_SIZE:
        return "a size is zero, too large, or does not divide as it must";
    case ATTN_BAD_VALUE:
        return "a value is NaN, infinite, out of range, not one of its enumeration, or given without what uses it";
    case ATTN_BAD_STRIDE:
        return "strides make rows overlap, or were forgotten";
    case ATTN_OVERLAP:
        return "an output overlaps an input";
    case ATTN_OVERFLOW:
        return "a product of sizes does not fit in size_t";
    case ATTN_MISALIGNED:
        return "memory is not aligned to " TEXT(ATTN_ALIGNMENT) " bytes";
    case ATTN_TOO_SMALL:
        return "memory or cache is too small";
    case ATTN_UNKNOWN_ISA:
        return "instruction set is unknown or not built into this library";
    case ATTN_UNSUPPORTED_ISA:
        return "instruction set is not supported by this processor or its operating system";
    case ATTN_MISMATCH:
        return "objects do not belong together";
    }
    return "not a status of libattn";
}

const char *attn_version(void) {
    return TEXT(ATTN_VERSION_MAJOR) "." TEXT(ATTN_VERSION_MINOR) "." TEXT(ATTN_VERSION_PATCH);
}
