/* Packed weights as one piece of bytes: a header, then panels and biases, each at ATTN_ALIGNMENT, in the format of some
 * kernel. A gemm has one weight, a layer four. */
#ifndef ATTN_API_BLOB_H
#define ATTN_API_BLOB_H

#include "api/check.h"
#include "ops/repack.h"

enum attn_blob_kind { ATTN_BLOB_GEMM = 1, ATTN_BLOB_LAYER };

enum { ATTN_BLOB_WEIGHTS = 4 };

/* In the byte order of the machine. Sizes of a layer are 0 in a gemm's. */
struct attn_blob_weight {
    uint64_t k, n;
    uint32_t class_of_type; /* the portable one: BF16, also where the exporter's ISA has BF16_TILE */
    uint32_t type, cols, k_unit, beside, flip;
    uint32_t block, scale_type, has_zero_point, has_bias;
    char kernel[32]; /* whose format it is: for those who look into a file */
};

struct attn_blob_header {
    char magic[8];
    uint32_t byte_order, version;
    uint32_t library; /* ATTN_VERSION of the writer, likewise */
    uint32_t kind;
    uint64_t bytes;         /* of the blob */
    uint64_t checksum;      /* of the header, with 0 in this place */
    uint64_t data_checksum; /* of what follows the header */
    uint64_t heads, kv_heads, head_size, value_size;
    float scale;
    uint32_t kv_type, arithmetic, weights;
    struct attn_blob_weight w[ATTN_BLOB_WEIGHTS];
};

/* What `checksum` should be. */
uint64_t attn_blob_checksum(const struct attn_blob_header *header);

struct attn_blob {
    struct attn_blob_header header;
    struct attn_packed_reader weights[ATTN_BLOB_WEIGHTS];
};

/* ---- Export ---- */

/* The table whose kernels' formats a blob gets: that of `isa`, also where this machine cannot run it. NULL for
 * ATTN_ISA_BEST: the formats that the object has. */
attn_status attn_blob_table(attn_isa isa, const struct attn_kernels **table, attn_error *error);

/* Begins a header without weights. */
struct attn_blob attn_blob_of(enum attn_blob_kind kind, attn_arithmetic arithmetic);

/* Adds a weight in the format of the table's kernel, or in the one that it has where `table` is NULL. */
void attn_blob_add(struct attn_blob *blob, const struct attn_packed *packed, const struct attn_kernels *table);

/* Takes the memory of the header and of all weights. */
void attn_blob_layout(struct attn_blob *blob, struct attn_arena *arena);

/* That none of a weight's panels lie in what is going to be written: an imported weight's are those of a blob. */
attn_status attn_blob_check_apart(const struct attn_packed *packed, const void *memory, size_t bytes,
                                  attn_error *error);

/* Writes a blob of weights that have been added in this order to memory that can hold it. */
void attn_blob_write(struct attn_blob *blob, const struct attn_packed *const *packed, void *memory);

/* ---- Import ---- */

/* Reads and checks the header, but for what a config of these weights says. */
attn_status attn_blob_open(const attn_import_config *config, enum attn_blob_kind kind, struct attn_blob *blob,
                           attn_error *error);

/* Weight i, as a config has it. Its pointers say only what there is. */
attn_linear attn_blob_linear(const struct attn_blob *blob, const attn_import_config *config, int i);

/* Finds the weights in the blob, and checks them. packed[i], as a config of these weights has been laid out, says what
 * is expected of weight i, and the kernel that the ISA prefers. */
attn_status attn_blob_map(const attn_import_config *config, struct attn_blob *blob,
                          const struct attn_packed *const *packed, const struct attn_linear_names *const *names,
                          attn_error *error);

/* Gives packed[i] the blob's panels where they are used as they are, or takes memory for others. */
attn_status attn_blob_use(const attn_import_config *config, const struct attn_blob *blob, int i,
                          const struct attn_kernels *table, struct attn_packed *packed, struct attn_arena *arena,
                          attn_error *error);

/* Fills the memory that attn_blob_use has taken, if it has. */
void attn_blob_fill(const struct attn_blob *blob, int i, const struct attn_packed *packed);

#endif
