/* exp for AVX-512 with VDPBF16PS. */
#include "vec.h"

#include "../avx512/exp.h"
