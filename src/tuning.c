#include "tuning.h"

/* Measured on Zen 3. */
static const struct attn_tuning general = {.partly_distant_bytes = (size_t)16 << 20,
                                           .distant_bytes = (size_t)32 << 20,
                                           .in_place_tiles = 3,
                                           .in_place_value_size = 0};

/* Measured on Zen 5 and Emerald Rapids. Values in place: 1.14 for 32 query rows over 4096 keys of 64, 1.25 for windows of
 * 256 keys, 1.03 over 21 shapes on Emerald Rapids. */
static const struct attn_tuning avx512 = {.partly_distant_bytes = (size_t)16 << 20,
                                          .distant_bytes = (size_t)32 << 20,
                                          .in_place_tiles = 3,
                                          .in_place_value_size = 128};

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
