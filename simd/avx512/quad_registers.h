/* Registers of bytes in fours, with and without VPDPBUSD. A unit that builds on this includes its own vec.h first. */
#ifndef ATTN_AVX512_QUAD_REGISTERS_H
#define ATTN_AVX512_QUAD_REGISTERS_H

#include <string.h>

#include "kernels.h"
#include "vec.h"

void attn_avx512_quantise(const struct attn_quantise_args *args);
#define QUADS_PACK_A attn_avx512_quantise

INLINE vec_int quad_repeat(const void *p) {
    int32_t quad;
    memcpy(&quad, p, sizeof quad);
    return _mm512_set1_epi32(quad);
}
INLINE void quad_prefetch(const void *p) {
    _mm_prefetch((const char *)p, _MM_HINT_T0);
}
INLINE vec_int quad_load(const void *p) {
    return _mm512_loadu_si512(p);
}
INLINE vec_int quad_load_bytes(const void *p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
INLINE vec_int quad_lower(vec_int unit) {
    return vec_int_and(unit, vec_int_set(0x0f0f0f0f));
}
INLINE vec_int quad_upper(vec_int unit) {
    return vec_int_and(_mm512_srli_epi32(unit, 4), vec_int_set(0x0f0f0f0f));
}
INLINE vec_int quad_word_products(vec_int a, vec_int b) {
    return _mm512_madd_epi16(a, b);
}

#endif
