/* Reader of NumPy's .npy files: version 1.0, '<f4', '<f8' or '<i8', C order, at most 4 dimensions. Strict: anything
 * else, and a file that is shorter or longer than its header says, is refused. */
#ifndef TESTS_NPY_H
#define TESTS_NPY_H

#include <stddef.h>
#include <stdint.h>

#define NPY_MAX_RANK 4

enum npy_type { NPY_F32, NPY_F64, NPY_I64 };

struct npy {
    enum npy_type type;
    size_t rank, shape[NPY_MAX_RANK];
    size_t count; /* product of shape */
    union {
        void *data;
        float *f32;
        double *f64;
        int64_t *i64;
    };
};

/* 0, or -1 with a sentence on stderr. */
int npy_read(const char *path, struct npy *array);
void npy_free(struct npy *array);

#endif
