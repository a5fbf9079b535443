/* The online softmax of one ISA against the reference: of class F32, and of BF16. */
#include "flags.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bf16_model.h"
#include "dispatch.h"

/* The class under test; main goes through both. */
static bool is_bf16;

static const struct attn_bf16_kernel *bf16_of(const struct attn_kernels *of) {
    return attn_bf16_for(of, attn_gemm_find(of, ATTN_CLASS_BF16));
}

/* What probabilities become. */
static attn_type probability_type(const struct attn_kernels *of) {
    return is_bf16 ? bf16_of(of)->type : ATTN_F32;
}

/* ---- A tile ---- */

/* Rows of running state and a tile of logits, twice: what the reference works on and what the kernel works on. */
struct side {
    float *scores, *max, *lanes, *rescale;
};

struct tile {
    size_t rows, score_stride;
    uint32_t *lo, *hi;
    struct side reference, kernel;
};

static struct side new_side(size_t rows, size_t score_stride, enum flush flush) {
    struct side side = {.scores = guarded_aligned_floats(rows * score_stride, flush),
                        .max = guarded_floats(rows, flush),
                        .lanes = guarded_aligned_floats(rows * ATTN_LANES, flush),
                        .rescale = guarded_floats(rows, flush)};
    for (size_t r = 0; r < rows; r++)
        side.max[r] = -INFINITY;
    memset(side.lanes, 0, rows * ATTN_LANES * sizeof *side.lanes);
    return side;
}

static void free_side(struct side *side) {
    guarded_free(side->scores);
    guarded_free(side->max);
    guarded_free(side->lanes);
    guarded_free(side->rescale);
}

static struct tile new_tile(size_t rows, size_t score_stride, enum flush flush) {
    struct tile tile = {.rows = rows, .score_stride = score_stride};
    tile.lo = guarded_alloc(rows * sizeof *tile.lo, sizeof *tile.lo, flush);
    tile.hi = guarded_alloc(rows * sizeof *tile.hi, sizeof *tile.hi, flush);
    tile.reference = new_side(rows, score_stride, flush);
    tile.kernel = new_side(rows, score_stride, flush);
    return tile;
}

static void free_tile(struct tile *tile) {
    free_side(&tile->reference);
    free_side(&tile->kernel);
    guarded_free(tile->lo);
    guarded_free(tile->hi);
}

/* The scale is looked at in class BF16 alone. */
static void run_block(const struct attn_kernels *of, const struct tile *tile, const struct side *side, size_t begin,
                      size_t end, float scale) {
    (is_bf16 ? bf16_of(of)->online_softmax : attn_table_attention(of)->online_softmax)(
        &(struct attn_online_softmax_args){.rows = tile->rows,
                                           .scores = side->scores,
                                           .score_stride = tile->score_stride,
                                           .lo = tile->lo,
                                           .hi = tile->hi,
                                           .begin = begin,
                                           .end = end,
                                           .max = side->max,
                                           .lanes = side->lanes,
                                           .rescale = side->rescale,
                                           .scale = scale});
}

/* New logits in the visible columns, and poison in all others: it must have no effect. */
static void new_logits(struct test_random *random, const struct tile *tile, enum test_values values, float offset) {
    fill_poison(tile->reference.scores, tile->rows * tile->score_stride);
    for (size_t r = 0; r < tile->rows; r++)
        for (size_t c = tile->lo[r]; c < tile->hi[r]; c++)
            tile->reference.scores[r * tile->score_stride + c] = random_float(random, values) + offset;
    memcpy(tile->kernel.scores, tile->reference.scores, tile->rows * tile->score_stride * sizeof(float));
}

/* Columns that enclose every visible one: as few as possible, or all. */
static void enclosing(const struct tile *tile, bool tight, size_t *begin, size_t *end) {
    *begin = tile->score_stride, *end = 0;
    for (size_t r = 0; r < tile->rows; r++)
        if (tile->lo[r] < tile->hi[r]) {
            *begin = tile->lo[r] / 16 * 16 < *begin ? tile->lo[r] / 16 * 16 : *begin;
            *end = (tile->hi[r] + 15u) / 16 * 16 > *end ? (tile->hi[r] + 15u) / 16 * 16 : *end;
        }
    if (!tight || *begin >= *end)
        *begin = 0, *end = tile->score_stride;
}

/* Probability c of a row of scores, of that type. */
static float probability(attn_type type, const float *row, size_t c) {
    uint16_t half;
    if (type == ATTN_F32)
        return row[c];
    memcpy(&half, (const char *)row + c * sizeof half, sizeof half);
    return model_widened(half);
}

/* No byte of row r was written but those of its logits and of probabilities. */
static void check_bytes(const struct tile *tile, const struct side *side, size_t r, const float *before, size_t begin,
                        size_t end, attn_type type) {
    size_t at = r * tile->score_stride, size = type == ATTN_F32 ? sizeof(float) : sizeof(uint16_t);
    const char *was = (const char *)(before + at), *is = (const char *)(side->scores + at);
    for (size_t byte = 0; byte < tile->score_stride * sizeof(float); byte++) {
        bool of_logits = byte / sizeof(float) >= tile->lo[r] && byte / sizeof(float) < tile->hi[r];
        bool of_probabilities = byte / size >= begin && byte / size < end;
        if (!of_logits && !of_probabilities && was[byte] != is[byte])
            test_fail("byte %zu of row %zu was written", byte, r);
    }
}

static void check_probabilities(const struct tile *tile, size_t r, size_t begin, size_t end) {
    size_t at = r * tile->score_stride;
    for (size_t c = begin; c < end; c++) {
        float expected = probability(probability_type(&attn_kernels_scalar), tile->reference.scores + at, c);
        float actual = probability(probability_type(test_table()), tile->kernel.scores + at, c);
        assert_same_bits(&expected, &actual, 1);
    }
}

static void check_block(const struct tile *tile, bool tight, float scale) {
    const struct attn_kernels *reference = &attn_kernels_scalar, *kernel = test_table();
    size_t begin, end, bytes = tile->rows * tile->score_stride * sizeof(float);
    float *before = malloc(bytes);
    assert_non_null(before);
    memcpy(before, tile->kernel.scores, bytes);
    enclosing(tile, tight, &begin, &end);
    assert_same_flags(0, run_block(reference, tile, &tile->reference, begin, end, scale),
                      run_block(kernel, tile, &tile->kernel, begin, end, scale));
    assert_same_bits(tile->reference.max, tile->kernel.max, tile->rows);
    assert_same_bits(tile->reference.lanes, tile->kernel.lanes, tile->rows * ATTN_LANES);
    assert_same_bits(tile->reference.rescale, tile->kernel.rescale, tile->rows);
    for (size_t r = 0; r < tile->rows; r++) {
        check_probabilities(tile, r, begin, end);
        check_bytes(tile, &tile->reference, r, before, begin, end, probability_type(reference));
        check_bytes(tile, &tile->kernel, r, before, begin, end, probability_type(kernel));
    }
    free(before);
}

/* Positive, negative, 1, and now and then so large or small that logits overflow or vanish; never 0. In class F32
 * NaN, for nothing may come of it. */
static float random_scale(struct test_random *random) {
    static const float scales[] = {1.0f, -1.0f, 0.125f, 0x1p-130f, -0x1p-149f, 0x1p100f, -0x1p120f, FLT_MAX};
    if (!is_bf16)
        return NAN;
    if (random_below(random, 3))
        return random_uniform(random, 0.01f, 2.0f) * (random_below(random, 4) ? 1.0f : -1.0f);
    return scales[random_below(random, sizeof scales / sizeof *scales)];
}

/* ---- Against the reference ---- */

static void equals_reference_on_every_offset(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    size_t step = test_quick() ? 5 : 1;
    for (uint32_t lo = 0; lo <= 80; lo += (uint32_t)random_between(&random, 1, step))
        for (uint32_t hi = lo; hi <= 80; hi += (uint32_t)random_between(&random, 1, step)) {
            struct tile tile = new_tile(1, 80, hi % 2 ? FLUSH_START : FLUSH_END);
            tile.lo[0] = lo, tile.hi[0] = hi;
            for (size_t turn = 0; turn < 3; turn++) {
                float scale = random_scale(&random);
                test_case("lo=%u hi=%u scale=%g turn=%zu", lo, hi, (double)scale, turn);
                new_logits(&random, &tile, TEST_NORMAL, (float)turn - 1.0f);
                check_block(&tile, turn % 2, scale);
            }
            free_tile(&tile);
        }
}

static void equals_reference_near_the_end_of_a_block(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (uint32_t hi = 220; hi <= ATTN_BLOCK; hi += test_quick() ? 4 : 1)
        for (size_t i = 0; i < (test_quick() ? 3 : 20); i++) {
            struct tile tile = new_tile(2, ATTN_BLOCK, FLUSH_END);
            tile.hi[0] = tile.hi[1] = hi;
            tile.lo[0] = (uint32_t)random_below(&random, 257);
            tile.lo[1] = (uint32_t)random_below(&random, hi);
            test_case("lo=%u,%u hi=%u", tile.lo[0], tile.lo[1], hi);
            new_logits(&random, &tile, TEST_NORMAL, 0.0f);
            check_block(&tile, i % 2, random_scale(&random));
            free_tile(&tile);
        }
}

/* Causal edges, windows, lengths and empty rows mixed. */
static void random_ranges(struct test_random *random, const struct tile *tile) {
    for (size_t r = 0; r < tile->rows; r++) {
        tile->lo[r] = random_below(random, 2) ? 0 : (uint32_t)random_below(random, tile->score_stride + 1);
        tile->hi[r] = random_below(random, 4) ? (uint32_t)random_between(random, 0, tile->score_stride)
                                              : (uint32_t)tile->score_stride;
    }
}

/* Keys that a mask hides, in some rows. */
static void hide_some(struct test_random *random, const struct tile *tile) {
    for (size_t r = 0; r < tile->rows && random_below(random, 2); r++)
        for (size_t c = tile->lo[r]; c < tile->hi[r]; c += random_between(random, 1, 9)) {
            size_t at = r * tile->score_stride + c;
            tile->reference.scores[at] = tile->kernel.scores[at] = -INFINITY;
        }
}

static void check_random_tile(struct test_random *random, size_t rows, enum test_values values) {
    size_t stride = 16 * random_between(random, 1, 16), blocks = random_between(random, 1, 4);
    struct tile tile = new_tile(rows, stride, random_below(random, 2) ? FLUSH_START : FLUSH_END);
    float scale = random_scale(random);
    for (size_t block = 0; block < blocks; block++) {
        float offset = random_uniform(random, -30.0f, 30.0f);
        random_ranges(random, &tile);
        test_case("rows=%zu score_stride=%zu block %zu of %zu offset=%g scale=%g values=%d", rows, stride, block,
                  blocks, (double)offset, (double)scale, (int)values);
        new_logits(random, &tile, values, offset);
        hide_some(random, &tile);
        check_block(&tile, random_below(random, 2), scale);
    }
    free_tile(&tile);
}

static void equals_reference_on_every_size(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t rows = 1; rows <= ATTN_MAX_ROWS; rows++)
        for (size_t i = 0; i < (test_quick() ? 4 : 20); i++)
            check_random_tile(&random, rows, TEST_NORMAL);
}

static void equals_reference_on_any_values(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < (test_quick() ? 60 : 2000); i++)
        check_random_tile(&random, random_between(&random, 1, ATTN_MAX_ROWS), i % 2 ? TEST_WILD : TEST_NASTY);
}

/* Rows whose every visible logit is one special value, after a state of special values. Probabilities of class F32
 * vanish around -103.5, those of BF16 between -86.6 and -86.7. */
static void equals_reference_on_special_rows(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const float values[] = {-INFINITY, INFINITY, NAN, -FLT_MAX, FLT_MAX, 0.0f, -0.0f, -103.5f, -86.6f, -86.7f, 88.0f},
                scales[] = {1.0f, -1.0f, 0.125f, 0x1p-149f};
    size_t count = sizeof values / sizeof *values;
    for (size_t i = 0; i < count * count * 4; i++) {
        float first = values[i / 4 % count], second = values[i / 4 / count], scale = is_bf16 ? scales[i % 4] : NAN;
        struct tile tile = new_tile(1, 32, FLUSH_END);
        for (size_t turn = 0; turn < 2; turn++) {
            test_case("logits of %g, then of %g, scale=%g: turn %zu", (double)first, (double)second, (double)scale,
                      turn);
            tile.lo[0] = 3, tile.hi[0] = 29;
            new_logits(&random, &tile, TEST_NORMAL, 0.0f);
            for (size_t c = 3; c < 29; c++)
                tile.reference.scores[c] = tile.kernel.scores[c] = turn ? second : first;
            check_block(&tile, turn, scale);
        }
        free_tile(&tile);
    }
}

/* ---- online_softmax_blocks of class F32 ---- */

/* n columns of one row, added to its state, against the reference block by block. */
static void check_several_blocks(struct test_random *random, const struct tile *tile, size_t n) {
    size_t blocks = (n + ATTN_BLOCK - 1) / ATTN_BLOCK;
    float *rescales = guarded_floats(blocks, FLUSH_END), expected[ATTN_LANES];
    flags_clear();
    for (size_t i = 0; i < blocks; i++) {
        uint32_t lo = 0, hi = (uint32_t)(n - i * ATTN_BLOCK < ATTN_BLOCK ? n - i * ATTN_BLOCK : ATTN_BLOCK);
        float *scores = tile->reference.scores + i * ATTN_BLOCK;
        float offset = random_uniform(random, -30.0f, 30.0f);
        bool hidden = random_below(random, 6) == 0;
        for (uint32_t c = 0; c < hi; c++)
            scores[c] = hidden ? -INFINITY : scores[c] + offset;
        memcpy(tile->kernel.scores + i * ATTN_BLOCK, scores, hi * sizeof *scores);
        attn_table_attention(&attn_kernels_scalar)
            ->online_softmax(&(struct attn_online_softmax_args){.rows = 1,
                                                                .scores = scores,
                                                                .lo = &lo,
                                                                .hi = &hi,
                                                                .end = (hi + 15u) / 16 * 16,
                                                                .max = tile->reference.max,
                                                                .lanes = tile->reference.lanes,
                                                                .rescale = &expected[i]});
    }
    int allowed = flags_raised();
    flags_clear();
    attn_table_attention(test_table())
        ->online_softmax_blocks(&(struct attn_online_softmax_blocks_args){.scores = tile->kernel.scores,
                                                                          .n = n,
                                                                          .max = tile->kernel.max,
                                                                          .lanes = tile->kernel.lanes,
                                                                          .rescale = rescales});
    assert_flags(flags_raised(), allowed);
    assert_same_bits(tile->reference.max, tile->kernel.max, 1);
    assert_same_bits(tile->reference.lanes, tile->kernel.lanes, ATTN_LANES);
    assert_same_bits(tile->reference.scores, tile->kernel.scores, tile->score_stride);
    assert_same_bits(expected, rescales, blocks);
    guarded_free(rescales);
}

static void blocks_equal_the_reference_block_by_block(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    const enum test_values values[] = {TEST_NORMAL, TEST_WILD, TEST_NASTY};
    if (!attn_table_attention(test_table())->online_softmax_blocks)
        skip();
    for (size_t i = 0; i < (test_quick() ? 60 : 600); i++) {
        size_t n = random_between(&random, 1, i % 2 ? 2 * ATTN_BLOCK : ATTN_LANES * ATTN_BLOCK);
        struct tile tile = new_tile(1, (n + 15) / 16 * 16, FLUSH_END);
        tile.lo[0] = 0, tile.hi[0] = (uint32_t)n;
        for (size_t turn = 0; turn < 2; turn++) {
            test_case("n=%zu values=%d turn=%zu", n, (int)values[i % 3], turn);
            new_logits(&random, &tile, values[i % 3], 0.0f);
            check_several_blocks(&random, &tile, n);
        }
        free_tile(&tile);
    }
}

/* ---- Against double precision ---- */

/* Class F32: probabilities, sum and the product of the rescale factors, in double. */
static void f32_is_near_double(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t round = 0; round < (test_quick() ? 10 : 100); round++) {
        enum { COLS = 64, BLOCKS = 3 };
        struct tile tile = new_tile(1, COLS, FLUSH_END);
        double max = -INFINITY, sum = 0.0, rescales = 1.0;
        float logits[BLOCKS * COLS];
        tile.lo[0] = 0, tile.hi[0] = COLS;
        for (size_t block = 0; block < BLOCKS; block++) {
            test_case("round %zu block %zu", round, block);
            new_logits(&random, &tile, TEST_NORMAL, random_uniform(&random, -5.0f, 5.0f));
            memcpy(logits + block * COLS, tile.kernel.scores, COLS * sizeof *logits);
            run_block(test_table(), &tile, &tile.kernel, 0, COLS, NAN);
            if (block > 0)
                rescales *= (double)tile.kernel.rescale[0];
        }
        double first_max = -INFINITY;
        for (size_t c = 0; c < BLOCKS * COLS; c++) {
            max = fmax(max, (double)logits[c]);
            if (c < COLS)
                first_max = max;
        }
        for (size_t c = 0; c < BLOCKS * COLS; c++)
            sum += exp((double)logits[c] - max);
        double lane_sum = 0.0;
        for (size_t i = 0; i < ATTN_LANES; i++)
            lane_sum += (double)tile.kernel.lanes[i];
        assert_near(max, (double)tile.kernel.max[0], 0.0);
        assert_near(sum, lane_sum, 1e-5 * sum);
        assert_near(exp(first_max - max), rescales, 1e-5);
        for (size_t c = 0; c < COLS; c++) {
            double p = exp((double)logits[(BLOCKS - 1) * COLS + c] - max);
            assert_near(p, (double)tile.kernel.scores[c], 4e-6 * p);
        }
        free_tile(&tile);
    }
}

/* Class BF16, at every distance from the maximum, down to where a probability is no longer a normal number: by the
 * formulas of kernels.h with the C library's functions, and beside exp in double. */
static void bf16_is_the_formula_and_near_double(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    double worst = 0;
    for (size_t i = 0; i < (test_quick() ? 100 : 3000); i++) {
        enum { COLS = 32 };
        struct tile tile = new_tile(1, COLS, FLUSH_END);
        float logits[COLS], scale = i % 2 ? 1.0f : random_uniform(&random, 0.05f, 2.0f), most = -INFINITY;
        float depth = random_below(&random, 2) ? 4.0f : 95.0f;
        tile.lo[0] = 0, tile.hi[0] = COLS;
        for (size_t c = 0; c < COLS; c++)
            logits[c] = random_uniform(&random, -depth, 0.0f) / scale;
        memcpy(tile.kernel.scores, logits, sizeof logits);
        for (size_t c = 0; c < COLS; c++)
            most = fmaxf(most, logits[c] * scale);
        run_block(test_table(), &tile, &tile.kernel, 0, COLS, scale);
        float max = most + 0.0f;
        assert_same_bits(&max, tile.kernel.max, 1);
        float lanes[ATTN_LANES] = {0};
        for (size_t c = 0; c < COLS; c++) {
            float t = (logits[c] * scale - most) * ATTN_LOG2_E, n = nearbyintf(t), f = t - n;
            float e = fmaf(fmaf(fmaf(ATTN_EXP2_C3, f, ATTN_EXP2_C2), f, ATTN_EXP2_C1), f, 1.0f) * exp2f(n);
            float p = t < -125.0f ? 0.0f : e, rounded = model_rounded_bf16(p);
            float actual = probability(probability_type(test_table()), tile.kernel.scores, c);
            double distance = (double)logits[c] * (double)scale - (double)most, true_p = exp(distance);
            test_case("logit %a, scale %a, maximum %a", (double)logits[c], (double)scale, (double)most);
            assert_same_bits(&rounded, &actual, 1);
            lanes[c % ATTN_LANES] += p;
            if (t >= -125.0f) {
                worst = fmax(worst, fabs((double)p - true_p) / true_p);
                /* The polynomial's error; and the exponent's, which rounds three times: the product with the scale,
                 * of the logit's magnitude, then two numbers of the distance's. */
                double of_t = (fabs((double)most) + 4 * fabs(distance)) * (double)FLT_EPSILON;
                assert_near(true_p, (double)p, (0x1p-13 + of_t) * true_p);
                assert_near((double)p, (double)actual, 0x1p-8 * (double)p);
            }
        }
        assert_same_bits(lanes, tile.kernel.lanes, ATTN_LANES);
        free_tile(&tile);
    }
    print_message("largest relative error of a probability before it is rounded: 2^%.2f\n", log2(worst));
}

#define AGAINST_THE_REFERENCE                                                                                          \
    cmocka_unit_test(equals_reference_on_every_offset), cmocka_unit_test(equals_reference_near_the_end_of_a_block),    \
        cmocka_unit_test(equals_reference_on_every_size), cmocka_unit_test(equals_reference_on_any_values),            \
        cmocka_unit_test(equals_reference_on_special_rows)

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest f32[] = {
        AGAINST_THE_REFERENCE,
        cmocka_unit_test(blocks_equal_the_reference_block_by_block),
        cmocka_unit_test(f32_is_near_double),
    };
    const struct CMUnitTest bf16[] = {
        AGAINST_THE_REFERENCE,
        cmocka_unit_test(bf16_is_the_formula_and_near_double),
    };
    int failed = test_run(f32);
    is_bf16 = true;
    return failed + test_run(bf16);
}
