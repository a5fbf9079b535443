/* Decode for AVX-512 with VDPBF16PS. */
#include "../avx512/decode.h"
