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

/* The product with the keys of a segment from `key` on, by the kernel for few rows. */
static void decode_values(const struct attn_tile *tile, const struct attn_segment *segment, size_t key, size_t keys,
                          bool in_pages, const struct weighted_rows *weighted) {
    bool packed = attn_kv_is_packed(&tile->v);
    struct attn_decode_args args = {.rows = weighted->count,
                                    .keys = keys,
                                    .size = tile->problem->value_size,
                                    .x = weighted->probabilities,
                                    .x_stride = weighted->stride * attn_type_size(ATTN_F32),
                                    .b = segment->values,
                                    .first = packed ? segment->first : key % 2,
                                    .fetched = in_pages,
                                    .distant = tile->problem->plan.distant,
                                    .y = weighted->output,
                                    .y_stride = tile->problem->plan.output_stride,
                                    .start = weighted->start,
                                    .factors = weighted->factors,
                                    .factor_stride = tile->rows};
    if (packed)
        attn_tile_decode_in_turns(tile, tile->decode->values, &args);
    else
        tile->decode->values_in_place(&args);
}

/* ---- Groups of keys ---- */

/* Class BF16_TILE adds up ATTN_TILE_K keys, counted from key 0, before it adds them to the output. The kernel counts
 * from the first row of a panel. So a product takes a group from where it lies only if it is there as a whole, or as
 * far as the rows see it, at the same distance from a multiple of ATTN_TILE_K. In pages of an odd multiple of 16
 * keys it may not be. */

/* How many keys from `key` on, at most `left`, a product can take from their segment; 0: they are to be gathered
 * first. */
static size_t keys_in_place(const struct attn_tile *tile, const struct attn_segment *segment, size_t key, size_t left) {
    size_t n = attn_min(segment->count, left), end = (key + n) / ATTN_TILE_K * ATTN_TILE_K;
    if (tile->gemm->arithmetic != ATTN_CLASS_BF16_TILE)
        return n;
    if (segment->first % ATTN_TILE_K != key % ATTN_TILE_K)
        return 0;
    return n == left ? n : end > key ? end - key : 0;
}

/* Copies the values of keys key .. key + n - 1 of one group to scratch memory, to rows that they have in their
 * group. */
static struct attn_segment gather_values(const struct attn_tile *tile, size_t key, size_t n) {
    const struct attn_format *format = &tile->gemm->b;
    size_t end = key + n, from = key - key % format->k_unit;
    for (size_t taken; from < end; from += taken) {
        struct attn_segment segment = attn_kv_locate(&tile->v, from);
        struct attn_panels to = tile->scratch.group;
        size_t offset = 0;
        attn_panel_bytes(format, from % ATTN_TILE_K, to.cols, &offset);
        to.data = (char *)to.data + offset;
        taken = attn_min(segment.count, end - from);
        attn_panels_copy(format, &segment.values, segment.first, 0, &to, taken, tile->problem->value_size);
    }
    return (struct attn_segment){.values = tile->scratch.group, .first = key % ATTN_TILE_K, .count = n};
}

/* Puts zeros in the place of a gathered value. */
static void clear_gathered(const struct attn_tile *tile, size_t key) {
    const float zero = 0.0f;
    tile->gemm->pack(&(struct attn_pack_args){
        .k = 1, .n = tile->problem->value_size, .b = &zero, .packed = tile->scratch.group, .row = key % ATTN_TILE_K});
}

/* ---- Scales ---- */

/* The probabilities that multiply the values of a cache whose values have scales, times those. Of columns that a row
 * does not see they are +0, and stay so unless a scale is not finite. */
static void scale_probabilities(const struct attn_tile *tile, const struct attn_block *block) {
    for (size_t c = block->first, n; c < block->last; c += n) {
        struct attn_segment segment = attn_kv_locate(&tile->v, block->begin + c);
        n = attn_min(segment.count, block->last - c);
        attn_tile_scale_columns(tile, tile->rows, n, block->scores + c, block->score_stride, &segment.value_scales);
    }
}

static bool scales_finite(const struct attn_tile *tile, const struct attn_scales *scales, size_t n) {
    return scales->step == 0 || tile->attention->all_finite(scales->data, n);
}

/* ---- Accumulating products ---- */

static void multiply_segment_values(const struct attn_tile *tile, const struct attn_segment *segment, size_t keys,
                                    const struct weighted_rows *weighted) {
    struct attn_gemm_args args = {.m = weighted->count,
                                  .n = tile->problem->value_size,
                                  .k = keys,
                                  .a = weighted->probabilities,
                                  .a_stride = weighted->stride * attn_type_size(ATTN_F32),
                                  .b = segment->values,
                                  .row = segment->first,
                                  .start = weighted->start,
                                  .factors = weighted->factors,
                                  .c = weighted->output,
                                  .c_stride = tile->problem->plan.output_stride * sizeof *weighted->output,
                                  .widened = tile->scratch.widened};
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
        size_t left = in_block ? attn_min(ATTN_BLOCK - in_block, end - c) : end - c;
        struct attn_segment segment = attn_kv_locate(&tile->v, key);
        n = keys_in_place(tile, &segment, key, left);
        if (n == 0) {
            n = attn_min(ATTN_TILE_K - key % ATTN_TILE_K, left);
            segment = gather_values(tile, key, n);
        }
        if (in_pages)
            fetch_values_ahead(tile, key, block->begin + end, n);
        bool rescaled = so_far.rescale && (c == begin || in_block == 0);
        weighted.probabilities =
            (char *)(attn_block_scores(block, first) + c - in_block) + in_block * attn_type_size(tile->gemm->a);
        weighted.factors = rescaled ? so_far.rescale + c / ATTN_BLOCK * tile->rows : NULL;
        weighted.start = start_of(so_far.exists || c > begin, weighted.factors);
        if (attn_tile_decodes(tile))
            decode_values(tile, &segment, key, n, in_pages, &weighted);
        else
            multiply_segment_values(tile, &segment, n, &weighted);
    }
}

/* ---- Values that are not finite ---- */

static bool row_finite(const struct attn_tile *tile, const void *row) {
    attn_type type = tile->problem->v.type;
    size_t n = tile->problem->value_size;
    if (type == ATTN_F32)
        return tile->attention->all_finite(row, n);
    tile->convert->widen(type, n, row, tile->scratch.row);
    return tile->attention->all_finite(tile->scratch.row, n);
}

static bool rows_finite(const struct attn_tile *tile, size_t begin, size_t end) {
    struct attn_panels rows = attn_kv_locate(&tile->v, begin).values;
    size_t n = end - begin, floats = tile->problem->value_size * attn_type_size(ATTN_F32);
    const char *data = rows.data;
    if (tile->problem->v.type == ATTN_F32 && rows.stride == floats) /* the rows are contiguous: one call for all */
        return tile->attention->all_finite(rows.data, n * tile->problem->value_size);
    for (size_t i = 0; i < n; i++)
        if (!row_finite(tile, data + i * rows.stride))
            return false;
    return true;
}

static bool panels_finite(const struct attn_tile *tile, size_t begin, size_t end) {
    for (size_t n; begin < end; begin += n) {
        struct attn_segment segment = attn_kv_locate(&tile->v, begin);
        n = attn_min(segment.count, end - begin);
        if (!scales_finite(tile, &segment.value_scales, n) ||
            !tile->gemm->finite(&segment.values, segment.first, n, tile->problem->value_size))
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

static bool row_sees(const struct attn_tile *tile, size_t r, size_t key) {
    const struct attn_tile_row *row = &tile->row[r];
    return row->takes_mean || attn_masks_leave(tile->problem->options, &row->masks, key);
}

/* One row: a product for each run of consecutive keys that it sees. */
static void accumulate_runs(const struct attn_tile *tile, const struct attn_block *block, size_t r) {
    size_t hi = block->hi[r];
    for (size_t c = block->lo[r], end; c < hi; c = end + 1) {
        for (end = c; end < hi && row_sees(tile, r, block->begin + end); end++)
            ;
        multiply_values(tile, block, r, 1, c, end, (struct so_far){.exists = true});
    }
}

/* One row: a product for each group of keys, with zeros in the place of values that it does not see. */
static void accumulate_groups(const struct attn_tile *tile, const struct attn_block *block, size_t r) {
    struct weighted_rows weighted = {
        .count = 1, .output = tile->scratch.span_output + r * tile->problem->plan.output_stride, .start = ATTN_START_C};
    for (size_t c = block->lo[r], n; c < block->hi[r]; c += n) {
        size_t key = block->begin + c;
        n = attn_min(ATTN_TILE_K - key % ATTN_TILE_K, block->hi[r] - c);
        struct attn_segment segment = gather_values(tile, key, n);
        for (size_t i = key; i < key + n; i++)
            if (!row_sees(tile, r, i))
                clear_gathered(tile, i);
        weighted.probabilities = (char *)attn_block_scores(block, r) + c * attn_type_size(tile->gemm->a);
        multiply_segment_values(tile, &segment, n, &weighted);
    }
}

static void accumulate_seen(const struct attn_tile *tile, const struct attn_block *block, size_t r) {
    float *output = tile->scratch.span_output + r * tile->problem->plan.output_stride;
    tile->attention->scale(1, tile->problem->value_size, output, 0, block->rescale[r], output, 0);
    if (tile->gemm->arithmetic == ATTN_CLASS_BF16_TILE)
        accumulate_groups(tile, block, r);
    else
        accumulate_runs(tile, block, r);
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
    for (size_t i = 0; i < joined && tile->v.store->value_scales; i++)
        scale_probabilities(tile, &block[i]);
    for (size_t i = 0; i < joined; i += at_once)
        accumulate_together(tile, &block[i], at_once);
}
