/* Rows of A of the classes of integers.
 *
 * quads.h gives, for each ISA: quad_round, to the nearest integer, the even one of two; quad_store and
 * quad_store_four, which keep the lowest byte of each lane; quad_lane_sum; quad_lane_max. */
#include "quantised.h"

#include "quads.h"

/* Elements x[0 .. n), n at most VEC_LANES; +0 beyond. */
INLINE vec load(const void *x, size_t p, size_t n, const attn_type type) {
    if (type == ATTN_F32)
        return vec_load_first(n, (const float *)x + p);
    vec_u16 half = vec_load_u16_first(n, (const uint16_t *)x + p);
    return type == ATTN_BF16 ? vec_from_bits(vec_from_upper(half)) : vec_from_f16(half);
}

/* The largest magnitude of a row; NaN where an element is not finite. */
INLINE float largest_of(const void *x, size_t k, const attn_type type) {
    enum { AT_ONCE = 4 };
    vec_magnitude m[AT_ONCE];
    size_t p = 0;
    UNROLL for (int u = 0; u < AT_ONCE; u++) m[u] = vec_magnitude_of(vec_zero());
    for (; p + AT_ONCE * VEC_LANES <= k; p += AT_ONCE * VEC_LANES)
        UNROLL for (size_t u = 0; u < AT_ONCE; u++) m[u] =
            vec_larger(m[u], vec_magnitude_of(load(x, p + u * VEC_LANES, VEC_LANES, type)));
    for (; p < k; p += VEC_LANES)
        m[0] = vec_larger(m[0], vec_magnitude_of(load(x, p, k - p, type)));
    m[0] = vec_larger(vec_larger(m[0], m[1]), vec_larger(m[2], m[3]));
    return vec_all_finite(m[0]) ? quad_lane_max(m[0]) : NAN;
}

/* Elements p0 .. p1 - 1 of a row; returns the sum of their integers. */
INLINE int32_t quantise_block(const void *x, size_t p0, size_t p1, vec inverse, int8_t *q, const attn_type type) {
    vec_int sum = vec_int_set(0);
    size_t p = p0;
    for (; p + 4 * VEC_LANES <= p1; p += 4 * VEC_LANES) {
        vec_int i[4];
        UNROLL for (size_t u = 0; u < 4; u++) i[u] =
            quad_round(vec_mul(load(x, p + u * VEC_LANES, VEC_LANES, type), inverse));
        sum = vec_int_add(sum, vec_int_add(vec_int_add(i[0], i[1]), vec_int_add(i[2], i[3])));
        quad_store_four(q + p, i);
    }
    for (; p + VEC_LANES <= p1; p += VEC_LANES) {
        vec_int i = quad_round(vec_mul(load(x, p, VEC_LANES, type), inverse));
        sum = vec_int_add(sum, i);
        quad_store(q + p, i);
    }
    if (p < p1) {
        vec_int i = quad_round(vec_mul(load(x, p, p1 - p, type), inverse));
        sum = vec_int_add(sum, i);
        quad_store(q + p, i);
    }
    return quad_lane_sum(sum);
}

/* Nothing but zeros. */
static void ISA_FN(quantise_nothing)(void *row, size_t k, size_t block, float scale) {
    memset(row, 0, attn_quantised_padded(k));
    for (size_t b = 0; b < attn_quantised_blocks(k, block); b++)
        attn_quantised_set_sum(row, k, b, 0);
    attn_quantised_set_scale(row, k, scale);
}

INLINE void quantise_row(const void *x, size_t k, size_t block, float largest, void *row, const attn_type type) {
    if (!(largest >= ATTN_QUANTISE_LEAST)) {
        ISA_FN(quantise_nothing)(row, k, block, isnan(largest) ? NAN : 0.0f);
        return;
    }
    vec inverse = vec_set(127.0f / largest);
    for (size_t p = 0, b = 0; p < k; p += block, b++)
        attn_quantised_set_sum(row, k, b, quantise_block(x, p, k - p < block ? k : p + block, inverse, row, type));
    attn_quantised_set_scale(row, k, largest / 127.0f);
}

/* Some rows at a time, so that none waits for its largest element and the quotients. */
enum { ROWS_AT_ONCE = 4 };

INLINE void quantise_rows(const struct attn_quantise_args *args, const attn_type type) {
    for (size_t i = 0; i < args->m; i += ROWS_AT_ONCE) {
        float largest[ROWS_AT_ONCE];
        size_t rows = args->m - i < ROWS_AT_ONCE ? args->m - i : ROWS_AT_ONCE;
        const char *x = (const char *)args->x + i * args->x_stride;
        for (size_t r = 0; r < rows; r++)
            largest[r] = largest_of(x + r * args->x_stride, args->k, type);
        for (size_t r = 0; r < rows; r++)
            quantise_row(x + r * args->x_stride, args->k, args->block, largest[r],
                         (char *)args->a + (i + r) * args->a_stride, type);
    }
}

#define ROWS_OF(name, type)                                                                                            \
    static void ISA_FN(quantise_##name)(const struct attn_quantise_args *args) {                                       \
        quantise_rows(args, type);                                                                                     \
    }
ROWS_OF(f32, ATTN_F32)
ROWS_OF(bf16, ATTN_BF16)
ROWS_OF(f16, ATTN_F16)

void ISA_OBJECT(quantise)(const struct attn_quantise_args *args) {
    if (args->type == ATTN_F32)
        ISA_FN(quantise_f32)(args);
    else if (args->type == ATTN_BF16)
        ISA_FN(quantise_bf16)(args);
    else
        ISA_FN(quantise_f16)(args);
}
