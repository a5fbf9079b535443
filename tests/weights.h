/* Random weights of every type, as attn_linear takes them. */
#ifndef ATTN_TESTS_WEIGHTS_H
#define ATTN_TESTS_WEIGHTS_H

#include "support.h"

/* What attn_linear says beside sizes and pointers. */
struct weight_kind {
    attn_type type;
    size_t block; /* 0: none */
    attn_type scale_type;
    bool has_zero_points, dequantised;
};

/* Every one of them. */
extern const struct weight_kind weight_kinds[];
extern const size_t weight_kind_count;

/* Dense: INT4 [out][in], others [in][out]. */
struct weight {
    size_t in, out, blocks;
    attn_linear linear;
    uint8_t *elements;    /* of blocks, [out][in], a byte each; of INT8 plus 128 */
    uint8_t *zero_points; /* of blocks, [out][blocks], likewise, also where the linear has none */
    void *data, *scales, *packed_zero_points;
    float *bias;
};

struct weight new_weight(struct test_random *random, struct weight_kind kind, size_t in, size_t out, bool has_bias);
void free_weight(struct weight *weight);

/* A gemm of it with the ISA under test, in memory of its own. */
attn_gemm *new_gemm(const struct weight *weight, attn_arithmetic arithmetic);
/* y[m][out] = x[m][in] times the gemm's weight. */
void multiply_rows(const attn_gemm *gemm, size_t in, size_t out, size_t m, const float *x, float *y);
/* y[len][out], the layer's causal self-attention of x[len][in]. */
void forward_rows(const attn_layer *layer, size_t in, size_t out, size_t len, const float *x, float *y);

#endif
