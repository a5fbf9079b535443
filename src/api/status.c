#include <attn/attn.h>
#include <stdio.h>

#include "types.h"

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

int attn_version_number(void) {
    return ATTN_VERSION;
}

const char *attn_version(void) {
    return TEXT(ATTN_VERSION_MAJOR) "." TEXT(ATTN_VERSION_MINOR) "." TEXT(ATTN_VERSION_PATCH);
}

const char *attn_status_name(attn_status status) {
    switch (status) {
#define NAME(name)                                                                                                     \
    case name:                                                                                                         \
        return #name;
        NAME(ATTN_OK)
        NAME(ATTN_NULL_POINTER)
        NAME(ATTN_BAD_SIZE)
        NAME(ATTN_BAD_VALUE)
        NAME(ATTN_BAD_STRIDE)
        NAME(ATTN_OVERLAP)
        NAME(ATTN_OVERFLOW)
        NAME(ATTN_MISALIGNED)
        NAME(ATTN_TOO_SMALL)
        NAME(ATTN_UNKNOWN_ISA)
        NAME(ATTN_UNSUPPORTED_ISA)
        NAME(ATTN_MISMATCH)
#undef NAME
    }
    return "no status";
}

/* Where there are two numbers, a sentence that has them says more than the status alone. */
static const char *sentence_with_sizes(const attn_error *error) {
    switch (error->status) {
    case ATTN_TOO_SMALL:
        return "%s%stoo small: %zu needed, %zu given";
    case ATTN_MISMATCH:
        return "%s%sdoes not belong together: %zu expected, %zu given";
    default:
        return error->given < error->needed ? "%s%stoo small: at least %zu, but %zu given"
                                            : "%s%stoo large: at most %zu, but %zu given";
    }
}

static const char type_names[][8] = {
    [ATTN_F32] = "F32",   [ATTN_BOOL] = "BOOL", [ATTN_BF16] = "BF16",       [ATTN_F16] = "F16",
    [ATTN_INT8] = "INT8", [ATTN_INT4] = "INT4", [ATTN_F8_E4M3] = "F8_E4M3", [ATTN_F8_E5M2] = "F8_E5M2"};
enum { TYPES = sizeof type_names / sizeof type_names[0], LONGEST_LIST = 128 };
_Static_assert(sizeof type_names + TYPES * sizeof " or " <= LONGEST_LIST, "a list has room for every type");

const char *attn_type_name(attn_type type) {
    return type_names[type];
}

/* "F32, BF16 or F16" */
static void list_types(unsigned types, char list[LONGEST_LIST]) {
    size_t used = 0;
    list[0] = '\0';
    for (unsigned type = 0; type < TYPES; type++) {
        if (!attn_type_is_in((attn_type)type, types))
            continue;
        bool is_last = types >> type == 1;
        const char *before = used == 0 ? "" : is_last ? " or " : ", ";
        used += (size_t)snprintf(list + used, LONGEST_LIST - used, "%s%s", before, type_names[type]);
    }
}

static int text_of_type(const attn_error *error, const char *field, char *buffer, size_t size) {
    char list[LONGEST_LIST];
    list_types((unsigned)error->needed, list);
    const char *given = error->given < TYPES ? type_names[error->given] : "a value that is no type";
    return snprintf(buffer, size, "%s: %s expected, %s given", field, list, given);
}

size_t attn_error_text(const attn_error *error, char *buffer, size_t size) {
    static const attn_error none = {.status = ATTN_OK};
    const attn_error *e = error ? error : &none;
    const char *field = e->field ? e->field : "", *colon = e->field ? ": " : "";
    int length;
    if (e->needed == 0 && e->given == 0)
        length = snprintf(buffer, size, "%s%s%s", field, colon, attn_status_string(e->status));
    else if (e->status == ATTN_BAD_VALUE)
        length = text_of_type(e, field, buffer, size);
    else
        length = snprintf(buffer, size, sentence_with_sizes(e), field, colon, e->needed, e->given);
    return length < 0 ? 0 : (size_t)length;
}
