#include "ops/values.h"

#include <string.h>

#include "ops/fetch.h"

/* ---- The product ---- */

/* What a product is added to: nothing, or the span's output so far. Each of its rows is multiplied by its factor first,
 * unless `rescale` is NULL. The factors of joined blocks follow each other. */
struct so_far {
    bool exists;
    const float *rescale;
};

static void fetch_values_ahead(const struct attn_tile *tile, size_t key, size_t end, size_t n) {
    size_t ahead = attn_fetch_distance(tile->rows, n);
    if (key + ahead < end)
        attn_fetch(tile->rows, attn_kv_locate(&tile->v, key + ahead).values.data, tile->v.store->value_bytes);
}

static enum attn_start start_of(bool accumulate, const float *factors) {
    return !accumulate ? ATTN_START_ZERO : factors ? ATTN_START_SCALE : ATTN_START_C;
}

/* Rows of probabilities, from a product's first key on, and of the output that it adds to. */
struct weighted_rows {
    size_t count;
    const void *probabilities;
    size_t stride; /* floats */
    float *output;
    enum attn_start start;
    const float *factors; /* of a block; the next block's follow, tile->rows further on */
};

/* The product with `keys` keys of a segment, by the kernel for few rows. */
static void decode_values(const struct attn_tile *tile, const struct attn_segment *segment, size_t keys, bool in_pages,
                          const struct weighted_rows *weighted) {
    struct attn_decode_args args = {.rows = weighted->count,
                                    .keys = keys,
                                    .size = tile->problem->value_size,
                                    .x = weighted->probabilities,
                                    .x_stride = weighted->stride,
                                    .b = segment->values,
                                    .first = segment->first,
                                    .fetched = in_pages,
                                    .distant = tile->problem->plan.distant,
                                    .y = weighted->output,
                                    .y_stride = tile->problem->plan.output_stride,
                                    .start = weighted->start,
                                    .factors = weighted->factors,
                                    .factor_stride = tile->rows};
    (attn_kv_is_packed(&tile->v) ? tile->decode->values : tile->decode->values_in_place)(&args);
}

static void multiply_segment_values(const struct attn_tile *tile, const struct attn_segment *segment, size_t keys,
                                    const struct weighted_rows *weighted) {
    struct attn_gemm_args args = {.m = weighted->count,
                                  .n = tile->problem->value_size,
                                  .k = keys,
                                  .a = weighted->probabilities,
                                  .a_stride = weighted->stride * sizeof(float),
                                  .b = segment->values,
                                  .row = segment->first,
                                  .start = weighted->start,
                                  .factors = weighted->factors,
                                  .c = weighted->output,
                                  .c_stride = tile->problem->plan.output_stride * sizeof *weighted->output};
    (attn_kv_is_packed(&tile->v) ? tile->gemm->run : tile->gemm->run_rows)(&args);
}

/* For `rows` rows from row `first` on: output = output so far + probabilities of columns begin .. end - 1 times their
 * values. If the columns are those of several blocks, `begin` is 0. */
static void multiply_values(const struct attn_tile *tile, const struct attn_block *block, size_t first, size_t rows,
                            size_t begin, size_t end, struct so_far so_far) {
    bool in_pages = attn_kv_is_packed(&tile->v) && tile->v.store->capacity <= ATTN_SHORT_SEGMENT;
    struct weighted_rows weighted = {.count = rows,
                                     .stride = block->score_stride,
                                     .output = tile->scratch.span_output + first * tile->problem->plan.output_stride};
    for (size_t c = begin, n; c < end; c += n) {
        size_t in_block = c % ATTN_BLOCK, key = block->begin + c;
        struct attn_segment segment = attn_kv_locate(&tile->v, key);
        n = attn_min(segment.count, in_block ? attn_min(ATTN_BLOCK - in_block, end - c) : end - c);
        if (in_pages)
            fetch_values_ahead(tile, key, block->begin + end, n);
        bool rescaled = so_far.rescale && (c == begin || in_block == 0);
        weighted.probabilities = (char *)attn_block_scores(block, first) + c * attn_type_size(tile->gemm->a);
        weighted.factors = rescaled ? so_far.rescale + c / ATTN_BLOCK * tile->rows : NULL;
        weighted.start = start_of(so_far.exists || c > begin, weighted.factors);
        if (attn_tile_decodes(tile))
            decode_values(tile, &segment, n, in_pages, &weighted);
        else
            multiply_segment_values(tile, &segment, n, &weighted);
    }
}

/* ---- Values that are not finite ---- */

static bool rows_finite(const struct attn_tile *tile, size_t begin, size_t end) {
    struct attn_panels rows = attn_kv_locate(&tile->v, begin).values;
    size_t n = end - begin, size = tile->problem->value_size;
    const char *data = rows.data;
    if (rows.stride == size * attn_type_size(ATTN_F32)) /* the rows are contiguous: one call for all */
        return tile->attention->all_finite(rows.data, n * size);
    for (size_t i = 0; i < n; i++)
        if (!tile->attention->all_finite((const float *)(data + i * rows.stride), size))
            return false;
    return true;
}

static bool panels_finite(const struct attn_tile *tile, size_t begin, size_t end) {
    for (size_t n; begin < end; begin += n) {
        struct attn_segment segment = attn_kv_locate(&tile->v, begin);
        n = attn_min(segment.count, end - begin);
        if (!tile->gemm->finite(&segment.values, segment.first, n, tile->problem->value_size))
            return false;
    }
    return true;
}

static bool are_finite(const struct attn_tile *tile, size_t begin, size_t end) {
    return attn_kv_is_packed(&tile->v) ? panels_finite(tile, begin, end) : rows_finite(tile, begin, end);
}

/* Whether the values of a block's columns are finite. If the tiles of a head share packed values, the first one that
 * asks checks all of the block's that are stored, and the others find the answer. */
static bool values_finite(struct attn_tile *tile, const struct attn_block *block) {
    struct attn_finite *found = &tile->finite;
    size_t index = block->begin / ATTN_BLOCK;
    if (tile->stored.begin == tile->stored.end || index >= 64)
        return are_finite(tile, block->begin + block->first, block->begin + block->last);
    if (found->head != tile->head)
        *found = (struct attn_finite){.head = tile->head};
    uint64_t bit = (uint64_t)1 << index;
    if (!(found->known & bit)) {
        size_t begin = attn_max(block->begin, tile->stored.begin);
        size_t end = attn_min(block->begin + ATTN_BLOCK, tile->stored.end);
        found->known |= bit;
        found->finite |= are_finite(tile, begin, end) ? bit : 0;
    }
    return found->finite & bit;
}

/* ---- Accumulating ---- */

static void accumulate_parts(const struct attn_tile *tile, const struct attn_block *block, size_t joined) {
    struct attn_part part;
    for (size_t row = 0; row < tile->rows; row += part.rows) {
        part = attn_blocks_part(tile, block, row);
        if (part.first < part.last)
            multiply_values(tile, block, row, part.rows, part.first, part.last + attn_blocks_further(block, joined),
                            (struct so_far){tile->span_has_values, block->rescale + row});
    }
}

/* One row: a product for each run of consecutive keys that it sees. */
static void accumulate_seen(const struct attn_tile *tile, const struct attn_block *block, size_t r) {
    const struct attn_tile_row *row = &tile->row[r];
    const attn_options *options = tile->problem->options;
    float *output = tile->scratch.span_output + r * tile->problem->plan.output_stride;
    size_t hi = block->hi[r];
    tile->attention->scale(1, tile->problem->value_size, output, 0, block->rescale[r], output, 0);
    for (size_t c = block->lo[r], end; c < hi; c = end + 1) {
        for (end = c; end < hi && (row->takes_mean || attn_masks_leave(options, &row->masks, block->begin + end));
             end++)
            ;
        multiply_values(tile, block, r, 1, c, end, (struct so_far){.exists = true});
    }
}

void attn_values_zero_if_none(struct attn_tile *tile) {
    if (!tile->span_has_values)
        memset(tile->scratch.span_output, 0,
               tile->rows * tile->problem->plan.output_stride * sizeof *tile->scratch.span_output);
    tile->span_has_values = true;
}

/* A key that a row does not see has probability 0 in it. Times a finite value that changes at most the sign of a zero,
 * which `normalize` makes +0; times an infinity or NaN it would be NaN. So if a value is not finite, rows that see
 * different keys take one by one the values that they see. */
static void accumulate_together(struct attn_tile *tile, const struct attn_block *block, size_t joined) {
    if (block->rows_differ)
        attn_values_zero_if_none(tile); /* the products do not write a row that sees nothing of the block */
    if (!block->rows_differ || values_finite(tile, block))
        accumulate_parts(tile, block, joined);
    else
        for (size_t r = 0; r < tile->rows; r++)
            accumulate_seen(tile, block, r);
    tile->span_has_values = true;
}

void attn_values_accumulate(struct attn_tile *tile, const struct attn_block *block, size_t joined) {
    size_t at_once = attn_tile_decodes(tile) ? joined : 1;
    for (size_t i = 0; i < joined; i += at_once)
        accumulate_together(tile, &block[i], at_once);
}
