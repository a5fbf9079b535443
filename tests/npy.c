#include "npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX 10 /* magic, version, header length */

static int refuse(const char *path, const char *why) {
    fprintf(stderr, "%s: %s\n", path, why);
    return -1;
}

/* The file's bytes, or NULL. */
static unsigned char *slurp(const char *path, size_t *size) {
    unsigned char *bytes = NULL;
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    if (fseek(file, 0, SEEK_END) == 0) {
        long end = ftell(file);
        if (end >= 0 && fseek(file, 0, SEEK_SET) == 0) {
            *size = (size_t)end;
            bytes = malloc(*size + 1);
            if (bytes && fread(bytes, 1, *size, file) != *size) {
                free(bytes);
                bytes = NULL;
            }
        }
    }
    fclose(file);
    return bytes;
}

static int parse_type(const char *header, struct npy *array, size_t *element) {
    static const struct {
        const char *key;
        enum npy_type type;
        size_t size;
    } types[] = {
        {"{'descr': '<f4', ", NPY_F32, 4}, {"{'descr': '<f8', ", NPY_F64, 8}, {"{'descr': '<i8', ", NPY_I64, 8}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strncmp(header, types[i].key, strlen(types[i].key)) == 0) {
            array->type = types[i].type;
            *element = types[i].size;
            return (int)strlen(types[i].key);
        }
    return -1;
}

/* "(2, 3), }", "(2,), }" or "(), }", then spaces and a newline. */
static int parse_shape(const char *text, struct npy *array) {
    if (*text++ != '(')
        return -1;
    array->rank = 0;
    array->count = 1;
    while (*text != ')') {
        char *end;
        if (*text < '0' || *text > '9' || array->rank == NPY_MAX_RANK)
            return -1;
        unsigned long long size = strtoull(text, &end, 10);
        if (size > UINT32_MAX || (size && array->count > UINT32_MAX / size))
            return -1;
        array->shape[array->rank++] = (size_t)size;
        array->count *= (size_t)size;
        text = end;
        if (*text == ',')
            text += text[1] == ' ' ? 2 : 1;
        else if (*text != ')')
            return -1;
    }
    if (strncmp(text, "), }", 4) != 0)
        return -1;
    text += 4;
    text += strspn(text, " ");
    return strcmp(text, "\n") == 0 ? 0 : -1;
}

/* Little-endian elements of `size` bytes, in this machine's order. */
static void copy_elements(unsigned char *to, const unsigned char *from, size_t count, size_t size) {
    const unsigned one = 1;
    unsigned char first;
    memcpy(&first, &one, 1);
    for (size_t i = 0; i < count * size; i += size)
        for (size_t byte = 0; byte < size; byte++)
            to[i + (first ? byte : size - 1 - byte)] = from[i + byte];
}

static int parse(const char *path, unsigned char *bytes, size_t size, struct npy *array) {
    static const char order[] = "'fortran_order': False, 'shape': ";
    size_t element = 0;
    if (size < PREFIX || memcmp(bytes, "\x93NUMPY\x01\x00", 8) != 0)
        return refuse(path, "not a .npy file of version 1.0");
    size_t length = bytes[8] | (size_t)bytes[9] << 8;
    if (length > size - PREFIX)
        return refuse(path, "the header ends beyond the file");
    char *header = calloc(length + 1, 1);
    if (!header)
        return refuse(path, "out of memory");
    memcpy(header, bytes + PREFIX, length);
    int at = parse_type(header, array, &element);
    int good = at >= 0 && strncmp(header + at, order, strlen(order)) == 0 &&
               parse_shape(header + at + strlen(order), array) == 0;
    free(header);
    if (!good)
        return refuse(path, "a header that this reader does not know");
    if (size - PREFIX - length != array->count * element)
        return refuse(path, "the data's length is not the shape's");
    array->data = malloc(array->count * element + 1);
    if (!array->data)
        return refuse(path, "out of memory");
    copy_elements(array->data, bytes + PREFIX + length, array->count, element);
    return 0;
}

int npy_read(const char *path, struct npy *array) {
    size_t size = 0;
    *array = (struct npy){0};
    unsigned char *bytes = slurp(path, &size);
    if (!bytes)
        return refuse(path, "cannot be read");
    int status = parse(path, bytes, size, array);
    free(bytes);
    return status;
}

void npy_free(struct npy *array) {
    free(array->data);
    *array = (struct npy){0};
}
