/* Reader of safetensors files: 8 bytes of header length (little endian), a JSON header, then the tensors' bytes. The
 * file is not trusted: whatever it holds, the answer is a file whose tensors lie inside it or an error that names what
 * is wrong. */
#ifndef DATES_SAFETENSORS_H
#define DATES_SAFETENSORS_H

#include "error.h"
#include <stddef.h>
#include <stdint.h>

struct cJSON;

enum {
    SAFETENSORS_MAX_RANK = 4,
    SAFETENSORS_MAX_TENSORS = 4096,
    SAFETENSORS_MAX_HEADER = 1 << 20,
    SAFETENSORS_MAX_FILE = 1 << 30,
};

enum dtype { DTYPE_F32, DTYPE_I32 };

struct tensor {
    const char *name;
    enum dtype dtype;
    size_t rank, shape[SAFETENSORS_MAX_RANK];
    uint64_t begin, end; /* bytes, counted from the first behind the header */
    const void *data;
};

struct safetensors {
    struct cJSON *header;
    struct tensor *tensors;
    size_t count;
    uint32_t *elements; /* of all tensors, one after the other */
};

/* Takes `size` bytes as a file; they are not needed afterwards. safetensors_free releases *file. */
bool safetensors_parse(struct safetensors *file, const void *bytes, size_t size, struct error *error);
/* Reads the file at `path`. */
bool safetensors_read(struct safetensors *file, const char *path, struct error *error);
/* Releases what is held; *file may be all zero. */
void safetensors_free(struct safetensors *file);

/* NULL where there is none of that name. */
const struct tensor *safetensors_find(const struct safetensors *file, const char *name);
/* The tensor's data; NULL and an error where it is missing or differs in type or shape. */
const void *safetensors_get(const struct safetensors *file, const char *name, enum dtype dtype, size_t rank,
                            const size_t *shape, struct error *error);
/* A string of __metadata__; NULL and an error where there is none. */
const char *safetensors_metadata(const struct safetensors *file, const char *key, struct error *error);

#endif
