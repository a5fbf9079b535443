/* The NEON table. */
#include "body/objects.h"

const struct attn_kernels attn_kernels_neon = {.isa = ATTN_ISA_NEON,
                                               .lower = &attn_kernels_scalar,
                                               .gemm = ISA_OBJECT(gemm),
                                               .decode = &ISA_OBJECT(decode),
                                               .softmax = &ISA_OBJECT(softmax),
                                               .elementary = &ISA_OBJECT(elementary),
                                               .attention = &ISA_OBJECT(attention),
                                               .small = &ISA_OBJECT(small),
                                               .copy = &ISA_OBJECT(copy)};
