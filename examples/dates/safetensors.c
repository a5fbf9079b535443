#include "safetensors.h"
#include <cjson/cJSON.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define METADATA      "__metadata__"
#define LENGTH_BYTES  8
#define ELEMENT_BYTES 4 /* of F32 and of I32 */

static const char *const dtype_names[] = {[DTYPE_F32] = "F32", [DTYPE_I32] = "I32"};

/* ---- Header ---- */

/* JSON numbers are doubles: integers up to 2^53 are exact. */
static bool read_integer(const cJSON *item, uint64_t *value) {
    const double limit = 9007199254740992.0;
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= limit))
        return false;
    *value = (uint64_t)item->valuedouble;
    return (double)*value == item->valuedouble;
}

static bool names_are_unique(const cJSON *object, struct error *error) {
    for (const cJSON *a = object->child; a; a = a->next)
        for (const cJSON *b = a->next; b; b = b->next)
            if (strcmp(a->string, b->string) == 0)
                return refuse(error, "header: the name \"%s\" appears twice", a->string);
    return true;
}

static bool read_dtype(const cJSON *entry, struct tensor *tensor, struct error *error) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(entry, "dtype");
    if (!cJSON_IsString(item))
        return refuse(error, "tensor \"%s\": dtype is missing or not a string", tensor->name);
    for (size_t i = 0; i < sizeof dtype_names / sizeof *dtype_names; i++) {
        if (strcmp(item->valuestring, dtype_names[i]) == 0) {
            tensor->dtype = (enum dtype)i;
            return true;
        }
    }
    return refuse(error, "tensor \"%s\": dtype \"%s\" is neither F32 nor I32", tensor->name, item->valuestring);
}

/* Stores shape and rank, and in *bytes what they ask for. */
static bool read_shape(const cJSON *entry, struct tensor *tensor, uint64_t *bytes, struct error *error) {
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(entry, "shape");
    if (!cJSON_IsArray(shape))
        return refuse(error, "tensor \"%s\": shape is missing or not an array", tensor->name);
    *bytes = ELEMENT_BYTES;
    for (const cJSON *item = shape->child; item; item = item->next) {
        uint64_t size;
        if (tensor->rank == SAFETENSORS_MAX_RANK)
            return refuse(error, "tensor \"%s\": shape has more than %d dimensions", tensor->name,
                          SAFETENSORS_MAX_RANK);
        if (!read_integer(item, &size))
            return refuse(error, "tensor \"%s\": shape holds something else than sizes", tensor->name);
        if (size > SIZE_MAX || (size > 0 && *bytes > UINT64_MAX / size))
            return refuse(error, "tensor \"%s\": the product of the shape overflows", tensor->name);
        *bytes *= size;
        tensor->shape[tensor->rank++] = (size_t)size;
    }
    return true;
}

static bool read_offsets(const cJSON *entry, struct tensor *tensor, struct error *error) {
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(entry, "data_offsets");
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2)
        return refuse(error, "tensor \"%s\": data_offsets is missing or not an array of two", tensor->name);
    if (!read_integer(offsets->child, &tensor->begin) || !read_integer(offsets->child->next, &tensor->end))
        return refuse(error, "tensor \"%s\": data_offsets are not two integers from 0 up", tensor->name);
    if (tensor->begin > tensor->end)
        return refuse(error, "tensor \"%s\": data_offsets end before they begin", tensor->name);
    return true;
}

static bool read_tensor(const cJSON *entry, uint64_t data_size, struct tensor *tensor, struct error *error) {
    uint64_t bytes = 0;
    *tensor = (struct tensor){.name = entry->string};
    if (!cJSON_IsObject(entry) || cJSON_GetArraySize(entry) != 3)
        return refuse(error, "tensor \"%s\": not an object of dtype, shape and data_offsets", tensor->name);
    if (!read_dtype(entry, tensor, error) || !read_shape(entry, tensor, &bytes, error) ||
        !read_offsets(entry, tensor, error))
        return false;
    if (tensor->end > data_size)
        return refuse(error, "tensor \"%s\": data_offsets reach to byte %llu, the file holds %llu bytes of data",
                      tensor->name, (unsigned long long)tensor->end, (unsigned long long)data_size);
    if (tensor->end - tensor->begin != bytes)
        return refuse(error, "tensor \"%s\": data_offsets span %llu bytes, dtype and shape need %llu", tensor->name,
                      (unsigned long long)(tensor->end - tensor->begin), (unsigned long long)bytes);
    if (tensor->begin % ELEMENT_BYTES != 0)
        return refuse(error, "tensor \"%s\": data_offsets are not aligned to %d bytes", tensor->name, ELEMENT_BYTES);
    return true;
}

static int compare_begin(const void *left, const void *right) {
    const struct tensor *a = left, *b = right;
    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    return (a->end > b->end) - (a->end < b->end);
}

/* Tensors must tile the data: no two overlap, no byte is left over. */
static bool check_layout(struct safetensors *file, uint64_t data_size, struct error *error) {
    uint64_t end = 0;
    qsort(file->tensors, file->count, sizeof *file->tensors, compare_begin);
    for (size_t i = 0; i < file->count; i++) {
        const struct tensor *tensor = &file->tensors[i];
        if (tensor->begin < end)
            return refuse(error, "tensors \"%s\" and \"%s\" overlap", file->tensors[i - 1].name, tensor->name);
        if (tensor->begin > end)
            return refuse(error, "%llu bytes before tensor \"%s\" belong to no tensor",
                          (unsigned long long)(tensor->begin - end), tensor->name);
        end = tensor->end;
    }
    if (end != data_size)
        return refuse(error, "the last %llu bytes of the file belong to no tensor",
                      (unsigned long long)(data_size - end));
    return true;
}

static bool check_metadata(const cJSON *metadata, struct error *error) {
    if (!cJSON_IsObject(metadata) || cJSON_GetArraySize(metadata) > SAFETENSORS_MAX_TENSORS)
        return refuse(error, "header: " METADATA " is not an object of at most %d entries", SAFETENSORS_MAX_TENSORS);
    for (const cJSON *item = metadata->child; item; item = item->next)
        if (!cJSON_IsString(item))
            return refuse(error, "header: " METADATA " \"%s\" is not a string", item->string);
    return names_are_unique(metadata, error);
}

/* The elements, which are little-endian in the file, in the byte order of this machine: all are of four bytes. */
static bool read_elements(struct safetensors *file, const unsigned char *data, uint64_t data_size,
                          struct error *error) {
    const size_t count = (size_t)(data_size / ELEMENT_BYTES);
    file->elements = malloc((count + 1) * sizeof *file->elements);
    if (!file->elements)
        return refuse(error, "no memory for %zu elements", count);
    for (size_t i = 0; i < count; i++, data += ELEMENT_BYTES)
        file->elements[i] =
            (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
    for (size_t i = 0; i < file->count; i++)
        file->tensors[i].data = file->elements + file->tensors[i].begin / ELEMENT_BYTES;
    return true;
}

static bool read_tensors(struct safetensors *file, const unsigned char *data, uint64_t data_size, struct error *error) {
    if (!cJSON_IsObject(file->header))
        return refuse(error, "header: not a JSON object");
    const size_t entries = (size_t)cJSON_GetArraySize(file->header);
    if (entries > SAFETENSORS_MAX_TENSORS)
        return refuse(error, "header: %zu tensors, more than %d", entries, SAFETENSORS_MAX_TENSORS);
    if (!names_are_unique(file->header, error))
        return false;
    file->tensors = calloc(entries + 1, sizeof *file->tensors);
    if (!file->tensors)
        return refuse(error, "no memory for %zu tensors", entries);
    for (const cJSON *entry = file->header->child; entry; entry = entry->next) {
        const bool ok = strcmp(entry->string, METADATA) == 0
                            ? check_metadata(entry, error)
                            : read_tensor(entry, data_size, &file->tensors[file->count++], error);
        if (!ok)
            return false;
    }
    return check_layout(file, data_size, error) && read_elements(file, data, data_size, error);
}

/* The parser gets a copy that ends in a zero: some of its versions look one byte past the length they are given. Zeros
 * inside would pass for white space. */
static bool parse_header(struct safetensors *file, const char *text, size_t length, struct error *error) {
    const char *end = NULL;
    if (memchr(text, 0, length))
        return refuse(error, "header: not JSON, it holds a zero byte");
    char *copy = malloc(length + 1);
    if (!copy)
        return refuse(error, "no memory for a header of %zu bytes", length);
    memcpy(copy, text, length);
    copy[length] = 0;
    file->header = cJSON_ParseWithLengthOpts(copy, length + 1, &end, 1);
    if (!file->header)
        refuse(error, "header: not JSON from byte %td on", end ? end - copy : 0);
    free(copy);
    return file->header != NULL;
}

/* ---- File ---- */

static bool parse(struct safetensors *file, const unsigned char *bytes, size_t size, struct error *error) {
    uint64_t length = 0;
    if (size < LENGTH_BYTES)
        return refuse(error, "header length: the file has %zu bytes, too few for it", size);
    for (size_t i = 0; i < LENGTH_BYTES; i++)
        length |= (uint64_t)bytes[i] << (8 * i);
    if (length > size - LENGTH_BYTES)
        return refuse(error, "header length: %llu bytes reach beyond the file of %zu", (unsigned long long)length,
                      size);
    if (length > SAFETENSORS_MAX_HEADER)
        return refuse(error, "header length: %llu bytes, more than %d", (unsigned long long)length,
                      SAFETENSORS_MAX_HEADER);
    if (length % ELEMENT_BYTES != 0)
        return refuse(error, "header length: %llu leaves the data unaligned to %d bytes", (unsigned long long)length,
                      ELEMENT_BYTES);
    return parse_header(file, (const char *)bytes + LENGTH_BYTES, (size_t)length, error) &&
           read_tensors(file, bytes + LENGTH_BYTES + length, size - LENGTH_BYTES - length, error);
}

bool safetensors_parse(struct safetensors *file, const void *bytes, size_t size, struct error *error) {
    *file = (struct safetensors){0};
    if (parse(file, bytes, size, error))
        return true;
    safetensors_free(file);
    return false;
}

static void *read_stream(FILE *stream, size_t *size, struct error *error) {
    /* The first byte tells a directory from a file; the end tells the size. */
    if (getc(stream) == EOF || fseek(stream, 0, SEEK_END) != 0) {
        refuse(error, "%s", ferror(stream) ? strerror(errno) : "header length: the file is empty");
        return NULL;
    }
    const long end = ftell(stream);
    if (end < 0 || end > SAFETENSORS_MAX_FILE) {
        refuse(error, "the file has more than %d bytes", SAFETENSORS_MAX_FILE);
        return NULL;
    }
    rewind(stream);
    *size = (size_t)end;
    void *bytes = malloc(*size + 1);
    if (!bytes || fread(bytes, 1, *size, stream) != *size) {
        refuse(error, "%s", bytes ? "the file cannot be read to its end" : "no memory for the file");
        free(bytes);
        return NULL;
    }
    return bytes;
}

bool safetensors_read(struct safetensors *file, const char *path, struct error *error) {
    struct error cause;
    size_t size = 0;
    *file = (struct safetensors){0};
    FILE *stream = fopen(path, "rb");
    if (!stream)
        return refuse(error, "%s: %s", path, strerror(errno));
    void *bytes = read_stream(stream, &size, &cause);
    fclose(stream);
    const bool ok = bytes && safetensors_parse(file, bytes, size, &cause);
    free(bytes);
    return ok || refuse(error, "%s: %s", path, cause.text);
}

void safetensors_free(struct safetensors *file) {
    cJSON_Delete(file->header);
    free(file->tensors);
    free(file->elements);
    *file = (struct safetensors){0};
}

/* ---- Contents ---- */

const struct tensor *safetensors_find(const struct safetensors *file, const char *name) {
    for (size_t i = 0; i < file->count; i++)
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    return NULL;
}

/* "[2, 3]" */
static void format_shape(size_t rank, const size_t *shape, char *text, size_t size) {
    size_t used = (size_t)snprintf(text, size, "[");
    for (size_t i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, i ? ", %zu" : "%zu", shape[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
}

const void *safetensors_get(const struct safetensors *file, const char *name, enum dtype dtype, size_t rank,
                            const size_t *shape, struct error *error) {
    const struct tensor *tensor = safetensors_find(file, name);
    if (!tensor) {
        refuse(error, "tensor \"%s\" is missing", name);
        return NULL;
    }
    if (tensor->dtype != dtype) {
        refuse(error, "tensor \"%s\" is %s, not %s", name, dtype_names[tensor->dtype], dtype_names[dtype]);
        return NULL;
    }
    if (tensor->rank != rank || memcmp(tensor->shape, shape, rank * sizeof *shape) != 0) {
        char have[96], want[96];
        format_shape(tensor->rank, tensor->shape, have, sizeof have);
        format_shape(rank, shape, want, sizeof want);
        refuse(error, "tensor \"%s\" has shape %s, not %s", name, have, want);
        return NULL;
    }
    return tensor->data;
}

const char *safetensors_metadata(const struct safetensors *file, const char *key, struct error *error) {
    const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(file->header, METADATA);
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(metadata, key);
    if (!item) {
        refuse(error, METADATA " \"%s\" is missing", key);
        return NULL;
    }
    return item->valuestring;
}
