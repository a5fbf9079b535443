#include "tuning.h"

/* Nanoseconds are those of an AVX2 core at 3 GHz. Measured with two threads on a Zen 5: attention pays from 1.57
 * million multiply-adds on, with shared keys from 3.15 million. */
#define SHARING                                                                                                        \
    .wake_ns = 1 << 14, .multiply_add_ns = 1.0 / 32, .float_ns = 0.25, .byte_ns = 1.0 / 32, .uneven = 3,               \
    .uneven_shared = 6, .even_ns = 1 << 21, .aliased_bytes = 3 << 21

/* Measured on Zen 3. */
static const struct attn_tuning general = {.partly_distant_bytes = (size_t)16 << 20,
                                           .distant_bytes = (size_t)32 << 20,
                                           .in_place_tiles = 3,
                                           .in_place_value_size = 0,
                                           SHARING};

/* Measured on Zen 5 and Emerald Rapids, for which the same values were best. Values in place: 1.14 for 32 query rows
 * over 4096 keys of 64, 1.25 for windows of 256 keys, 1.03 over 21 shapes on Emerald Rapids. */
static const struct attn_tuning avx512 = {.partly_distant_bytes = (size_t)16 << 20,
                                          .distant_bytes = (size_t)32 << 20,
                                          .in_place_tiles = 3,
                                          .in_place_value_size = 128,
                                          SHARING};

const struct attn_tuning *attn_tuning_for(attn_isa isa) {
    switch (isa) {
    case ATTN_ISA_AVX512:
    case ATTN_ISA_AVX512_VNNI:
    case ATTN_ISA_AVX512_BF16:
    case ATTN_ISA_AMX:
        return &avx512;
    default:
        return &general;
    }
}
