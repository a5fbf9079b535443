/* The SVE of 256 bits table. */
#include "body/objects.h"

const struct attn_kernels attn_kernels_sve256 = {.isa = ATTN_ISA_SVE256,
                                                 .lower = &attn_kernels_neon,
                                                 .gemm = ISA_OBJECT(gemm),
                                                 .decode = &ISA_OBJECT(decode),
                                                 .softmax = &ISA_OBJECT(softmax),
                                                 .elementary = &ISA_OBJECT(elementary),
                                                 .attention = &ISA_OBJECT(attention),
                                                 .small = &ISA_OBJECT(small),
                                                 .copy = &ISA_OBJECT(copy)};
