#include "ops/scores.h"

#include <math.h>
#include <string.h>

#include "ops/fetch.h"

/* ---- The product ---- */

/* The segments to be read next, as many keys as the product has. */
static void fetch_keys_ahead(const struct attn_tile *tile, size_t begin, size_t end, size_t n) {
    const struct attn_store *store = tile->k.store;
    size_t ahead = attn_fetch_distance(tile->rows, n);
    for (size_t i = ahead; i < ahead + n && begin + i < end; i += store->capacity)
        attn_fetch(tile->rows, attn_kv_locate(&tile->k, begin + i).keys.data, store->key_bytes);
}

/* Rows of queries and of their scores. */
struct query_rows {
    size_t count;
    const void *query;
    float *scores;
    size_t score_stride;
};

/* The products of some rows with the keys of a segment, by the kernel for few rows. */
static void decode_keys(const struct attn_tile *tile, const struct attn_segment *segment, bool in_pages,
                        const struct query_rows *rows) {
    struct attn_decode_args args = {.rows = rows->count,
                                    .keys = segment->count,
                                    .size = tile->problem->head_size,
                                    .x = rows->query,
                                    .x_stride = tile->query_stride,
                                    .b = segment->keys,
                                    .first = segment->first,
                                    .fetched = in_pages,
                                    .distant = tile->problem->plan.distant,
                                    .y = rows->scores,
                                    .y_stride = rows->score_stride};
    if (attn_kv_is_packed(&tile->k))
        attn_tile_decode_in_turns(tile, tile->decode->scores, &args);
    else
        tile->decode->scores_in_place(&args);
}

static void multiply_segment_keys(const struct attn_tile *tile, const struct attn_segment *segment,
                                  const struct query_rows *rows) {
    struct attn_gemm_args args = {.m = rows->count,
                                  .n = segment->count,
                                  .k = tile->problem->head_size,
                                  .a = rows->query,
                                  .a_stride = tile->query_stride,
                                  .b = segment->keys,
                                  .column = segment->first,
                                  .c = rows->scores,
                                  .c_stride = rows->score_stride * sizeof *rows->scores,
                                  .widened = tile->scratch.widened};
    (attn_kv_is_packed(&tile->k) ? tile->gemm->run : tile->gemm->run_columns)(&args);
}

/* The products with keys begin .. end - 1 of a cache whose keys have scales, times those. */
static void scale_products(const struct attn_tile *tile, struct query_rows rows, size_t begin, size_t end) {
    for (size_t n; begin < end; begin += n, rows.scores += n) {
        struct attn_segment segment = attn_kv_locate(&tile->k, begin);
        n = attn_min(segment.count, end - begin);
        attn_tile_scale_columns(tile, rows.count, n, rows.scores, rows.score_stride, &segment.key_scales);
    }
}

/* The products with keys begin .. end - 1. `begin` is a multiple of the store's unit. */
static void multiply_keys(const struct attn_tile *tile, struct query_rows rows, size_t begin, size_t end) {
    bool in_pages = attn_kv_is_packed(&tile->k) && tile->k.store->capacity <= ATTN_SHORT_SEGMENT;
    struct query_rows part = rows;
    for (size_t key = begin, n; key < end; key += n, part.scores += n) {
        struct attn_segment segment = attn_kv_locate_joined(&tile->k, key, end);
        n = segment.count;
        if (in_pages)
            fetch_keys_ahead(tile, key, end, n);
        if (attn_tile_decodes(tile))
            decode_keys(tile, &segment, in_pages, &part);
        else
            multiply_segment_keys(tile, &segment, &part);
    }
    if (tile->k.store->key_scales)
        scale_products(tile, rows, begin, end);
}

/* For each part the columns of the joined blocks that its rows see. */
static void multiply_parts(const struct attn_tile *tile, const struct attn_block *block, size_t joined) {
    struct attn_part part;
    for (size_t row = 0; row < tile->rows; row += part.rows) {
        part = attn_blocks_part(tile, block, row);
        size_t first = part.first - part.first % tile->k.store->unit;
        if (part.first < part.last)
            multiply_keys(tile,
                          (struct query_rows){part.rows, (const char *)tile->query + row * tile->query_stride,
                                              attn_block_scores(block, row) + first, block->score_stride},
                          block->begin + first, block->begin + part.last + attn_blocks_further(block, joined));
    }
}

/* ---- Logits ---- */

/* Copies the logits of visible keys to [batch, heads, q_len, kv_len], where hidden keys keep their -inf. Rows that take
 * the mean see no key: they have weights (of_means), but no logits. */
static void copy_scores(const struct attn_tile *tile, const struct attn_block *block, const attn_tensor_out *to,
                        bool of_means) {
    for (size_t r = 0; r < tile->rows; r++) {
        const struct attn_tile_row *row = &tile->row[r];
        float *logits = attn_tile_row_of(tile, r, to) + block->begin * to->col_stride;
        for (size_t c = block->lo[r]; c < block->hi[r]; c++)
            if (row->takes_mean ? of_means : attn_masks_leave(tile->problem->options, &row->masks, block->begin + c))
                logits[c * to->col_stride] = attn_block_scores(block, r)[c];
    }
}

static void copy_stage(const struct attn_tile *tile, const struct attn_block *block, attn_score_stage stage) {
    const attn_options *options = tile->problem->options;
    if (options->scores.data && options->score_stage == stage && !options->scores_hidden)
        copy_scores(tile, block, &tile->problem->scores, false);
}

/* Row by row its own columns only: columns that no row of a part sees hold no product. */
static void cap_logits(const struct attn_tile *tile, const struct attn_block *block) {
    float most = tile->problem->options->soft_cap;
    for (size_t r = 0; r < tile->rows; r++)
        tile->attention->soft_cap(attn_block_scores(block, r) + block->lo[r], block->hi[r] - block->lo[r], most,
                                  1.0f / most);
}

/* ALiBi for a distance that does not fit into the kernel's int32: the row is far from all keys. */
static void add_far_slope(float *x, size_t lo, size_t hi, float slope, double distance) {
    for (size_t c = lo; c < hi; c++)
        x[c] = attn_fmaf(-slope, fabsf((float)(distance + (double)c)), x[c]);
}

static void add_bias(const struct attn_tile *tile, const struct attn_block *block, size_t r) {
    const struct attn_tile_row *row = &tile->row[r];
    const float *slopes = tile->problem->options->alibi, *factors = tile->problem->options->bias_factors;
    struct attn_bias_args args = {.x = attn_block_scores(block, r),
                                  .lo = block->lo[r],
                                  .hi = block->hi[r],
                                  .add = block->bias[r],
                                  .factor = factors ? factors[row->head] : 1.0f,
                                  .visible = block->mask[r]};
    if (slopes && slopes[row->head] != 0.0f) {
        double distance = (double)block->begin - (double)row->row - (double)tile->sequence.position;
        if (fabs(distance) < INT32_MAX - ATTN_BLOCK) {
            args.slope = slopes[row->head];
            args.distance = (int32_t)distance;
        } else {
            add_far_slope(args.x, args.lo, args.hi, slopes[row->head], distance);
        }
    }
    if (args.lo < args.hi && (args.slope != 0.0f || args.add || args.visible))
        tile->attention->bias(&args);
}

/* Rows that take the mean give every key the same weight. */
static void add_biases(const struct attn_tile *tile, const struct attn_block *block) {
    for (size_t r = 0; r < tile->rows; r++) {
        if (tile->row[r].takes_mean)
            memset(attn_block_scores(block, r) + block->first, 0, (block->last - block->first) * sizeof *block->scores);
        else
            add_bias(tile, block, r);
    }
}

/* In class BF16 queries are not scaled. Where nothing looks at logits before the softmax, that scales them. */
static void scale_logits(const struct attn_tile *tile, const struct attn_block *block) {
    for (size_t r = 0; r < tile->rows; r++) {
        float *x = attn_block_scores(block, r) + block->lo[r];
        if (block->lo[r] < block->hi[r])
            tile->attention->scale(1, block->hi[r] - block->lo[r], x, 0, tile->problem->scale, x, 0);
    }
}

/* Options that change logits, or copy them out, between the product and the softmax. */
static void apply_options(const struct attn_tile *tile, const struct attn_block *block) {
    if (attn_tile_is_bf16(tile))
        scale_logits(tile, block);
    copy_stage(tile, block, ATTN_SCORE_RAW);
    if (attn_tile_uses(tile, ATTN_USE_SOFT_CAP))
        cap_logits(tile, block);
    copy_stage(tile, block, ATTN_SCORE_CAPPED);
    add_biases(tile, block);
    copy_stage(tile, block, ATTN_SCORE_MASKED);
    if (attn_tile_uses(tile, ATTN_USE_WEIGHTS))
        copy_scores(tile, block, &tile->problem->weights, true);
}

void attn_scores_compute(const struct attn_tile *tile, const struct attn_block *block, size_t joined) {
    multiply_parts(tile, block, joined);
    for (size_t i = 0; attn_tile_uses(tile, ATTN_USE_LOGITS) && i < joined; i++)
        apply_options(tile, &block[i]);
}

/* ---- Logits of hidden keys ---- */

/* Of one block, which begins at a multiple of the store's unit. Keys before `begin` are not there. */
static void write_logits(const struct attn_tile *tile, size_t begin, size_t first, size_t end) {
    const struct attn_problem *problem = tile->problem;
    const attn_options *options = problem->options;
    const attn_tensor_out *to = &problem->scores;
    multiply_keys(tile, (struct query_rows){tile->rows, tile->query, tile->scratch.scores, ATTN_SCORE_STRIDE}, first,
                  end);
    for (size_t r = 0; r < tile->rows; r++) {
        float *logits = tile->scratch.scores + r * ATTN_SCORE_STRIDE, *row = attn_tile_row_of(tile, r, to);
        if (attn_tile_is_bf16(tile))
            tile->attention->scale(1, end - first, logits, 0, problem->scale, logits, 0);
        if (options->score_stage == ATTN_SCORE_CAPPED && attn_tile_uses(tile, ATTN_USE_SOFT_CAP))
            tile->attention->soft_cap(logits, end - first, options->soft_cap, 1.0f / options->soft_cap);
        for (size_t key = begin; key < end; key++)
            row[key * to->col_stride] = logits[key - first];
    }
}

void attn_scores_write_hidden(const struct attn_tile *tile, size_t begin, size_t end) {
    begin = attn_max(begin, tile->sequence.oldest);
    end = attn_min(end, tile->sequence.kv_len);
    for (size_t next; begin < end; begin = next) {
        next = attn_min((begin / ATTN_BLOCK + 1) * ATTN_BLOCK, end);
        write_logits(tile, begin, begin - begin % tile->k.store->unit, next);
    }
}
