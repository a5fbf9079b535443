/* Online softmax of class BF16. pairs.h says what a probability is stored as (PAIR_A). */
#include "pairs.h"

#include "body/bf16.h"
#include "body/exp2.h"
#include "body/logits.h"
#include "body/objects.h"

/* exp of logits: 2^((x * scale - shift) * log2(e)). */
struct powers {
    vec scale, shift;
};

INLINE void powers_each(vec *x, struct powers powers, const int n) {
    UNROLL for (int i = 0; i < n; i++) x[i] = vec_mul(x[i], powers.scale);
    UNROLL for (int i = 0; i < n; i++) x[i] = vec_mul(vec_sub(x[i], powers.shift), vec_set(ATTN_LOG2_E));
    exp2_each(x, n);
}

INLINE void clear_probabilities(PAIR_A *p, size_t begin, size_t end) {
    if (begin < end)
        memset(p + begin, 0, (end - begin) * sizeof *p);
}

/* Logits of n registers from column c on become probabilities. All are read before the first is written: the row of
 * probabilities begins where that of logits does. */
INLINE void take_registers(vec *x, struct powers powers, PAIR_A *p, vec lanes[SUM_VECS], const int n) {
    powers_each(x, powers, n);
    UNROLL for (int i = 0; i < n; i++) {
        pair_store_a(p + i * VEC_LANES, x[i]);
        lanes[i % SUM_VECS] = vec_add(lanes[i % SUM_VECS], x[i]);
    }
}

/* Of the 16 columns at c, of which some are invisible. */
INLINE void take_visible(const float *x, PAIR_A *p, size_t c, size_t lo, size_t hi, struct powers powers,
                         vec lanes[SUM_VECS]) {
    vec e[SUM_VECS];
    UNROLL for (size_t i = 0; i < SUM_VECS; i++) e[i] = visible_logits(x, c + i * VEC_LANES, lo, hi);
    take_registers(e, powers, p + c, lanes, SUM_VECS);
}

static void ISA_FN(bf16_row)(const struct attn_online_softmax_args *args, size_t r, float scale, float shift,
                             float rescale) {
    float *x = args->scores + r * args->score_stride, *lane = args->lanes + r * ATTN_LANES;
    PAIR_A *p = (PAIR_A *)(void *)x;
    size_t lo = args->lo[r], hi = args->hi[r], c = lo / ATTN_LANES * ATTN_LANES;
    struct powers powers = {vec_set(scale), vec_set(shift)};
    vec lanes[SUM_VECS], e[EXP_VECS];
    load_lanes(lane, vec_set(rescale), lanes);
    if (lo > c) {
        take_visible(x, p, c, lo, hi, powers, lanes);
        c += ATTN_LANES;
    }
    for (; c + EXP_VECS * VEC_LANES <= hi; c += EXP_VECS * VEC_LANES) {
        UNROLL for (int i = 0; i < EXP_VECS; i++) e[i] = vec_load(x + c + i * VEC_LANES);
        take_registers(e, powers, p + c, lanes, EXP_VECS);
    }
    for (; c < hi; c += ATTN_LANES)
        take_visible(x, p, c, c, hi, powers, lanes);
    store_lanes(lanes, lane);
    clear_probabilities(p, args->begin, lo / ATTN_LANES * ATTN_LANES);
    clear_probabilities(p, (hi + ATTN_LANES - 1) / ATTN_LANES * ATTN_LANES, args->end);
}

/* Up to a register's worth of rows. */
static void ISA_FN(bf16_rows)(const struct attn_online_softmax_args *args, size_t first, size_t count) {
    float shift[VEC_LANES], rescale[VEC_LANES], scale = args->scale;
    for (size_t r = first; scale < 0.0f && r < first + count; r++)
        if (args->lo[r] < args->hi[r])
            scale_row(args->scores + r * args->score_stride + args->lo[r], vec_set(scale),
                      args->scores + r * args->score_stride + args->lo[r], args->hi[r] - args->lo[r]);
    scale = scale < 0.0f ? 1.0f : scale;
    take_maxima(args, first, count, vec_set(scale), shift, rescale);
    for (size_t r = first; r < first + count; r++) {
        if (args->lo[r] < args->hi[r])
            ISA_FN(bf16_row)(args, r, scale, shift[r - first], rescale[r - first]);
        else
            clear_probabilities((PAIR_A *)(void *)(args->scores + r * args->score_stride), args->begin, args->end);
    }
}

static void ISA_FN(bf16_online_softmax)(const struct attn_online_softmax_args *args) {
    for (size_t first = 0; first < args->rows; first += VEC_LANES)
        ISA_FN(bf16_rows)(args, first, args->rows - first < VEC_LANES ? args->rows - first : VEC_LANES);
}

const struct attn_bf16_kernel ISA_OBJECT(bf16) = {
    .name = ISA_NAME, .type = PAIR_A_TYPE, .online_softmax = ISA_FN(bf16_online_softmax)};
