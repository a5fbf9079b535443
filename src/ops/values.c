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
        attn_fetch(tile->rows, attn_kv_locate(&tile->v, key + ahead).values, n * tile->problem->value_size);
}

/* For `rows` rows from row `first` on: output = output so far + probabilities of columns begin .. end - 1 times their
 * values. If the columns are those of several blocks, `begin` is 0. */
static void multiply_values(const struct attn_tile *tile, const struct attn_block *block, size_t first, size_t rows,
                            size_t begin, size_t end, struct so_far so_far) {
    const struct attn_problem *problem = tile->problem;
    size_t stride = problem->plan.output_stride, unit = tile->v.store->unit;
    bool packed = attn_kv_is_packed(&tile->v);
    struct attn_gemm_args args = {.m = rows,
                                  .n = problem->value_size,
                                  .a_stride = block->score_stride,
                                  .distant = problem->plan.distant,
                                  .scale_stride = tile->rows,
                                  .c = tile->scratch.span_output + first * stride,
                                  .c_stride = stride};
    for (size_t c = begin; c < end; c += args.k) {
        size_t in_block = c % ATTN_BLOCK, key = block->begin + c, offset = (key - tile->v.first) % unit;
        struct attn_segment segment = attn_kv_locate(&tile->v, key - offset);
        args.k = attn_min(segment.count - offset, in_block ? attn_min(ATTN_BLOCK - in_block, end - c) : end - c);
        if (segment.count <= ATTN_SHORT_SEGMENT)
            fetch_values_ahead(tile, key, block->begin + end, args.k);
        args.a = attn_block_scores(block, first) + c;
        args.b = segment.values + offset * tile->gemm->cols; /* no offset in tensors */
        args.panel_stride = args.b_stride = segment.value_stride;
        args.accumulate = so_far.exists || c > begin;
        bool rescaled = so_far.rescale && (c == begin || in_block == 0);
        args.scale = rescaled ? so_far.rescale + c / ATTN_BLOCK * tile->rows : NULL;
        args.block = args.k > ATTN_BLOCK ? ATTN_BLOCK : 0;
        if (packed)
            tile->gemm->run(&args);
        else
            attn_tile_multiply_in_place(tile, tile->gemm->run_rows, args);
    }
}

/* ---- Values that are not finite ---- */

static bool rows_finite(const struct attn_tile *tile, size_t begin, size_t end) {
    struct attn_segment rows = attn_kv_locate(&tile->v, begin);
    size_t n = end - begin, size = tile->problem->value_size;
    if (rows.value_stride == size) /* the rows are contiguous: one call for all */
        return tile->attention->all_finite(rows.values, n * size);
    for (size_t i = 0; i < n; i++)
        if (!tile->attention->all_finite(rows.values + i * rows.value_stride, size))
            return false;
    return true;
}

static bool panels_finite(const struct attn_tile *tile, size_t begin, size_t end) {
    size_t cols = tile->gemm->cols;
    for (size_t n; begin < end; begin += n) {
        size_t offset = (begin - tile->v.first) % tile->v.store->unit;
        struct attn_segment segment = attn_kv_locate(&tile->v, begin - offset);
        n = attn_min(segment.count - offset, end - begin);
        for (size_t c = 0; c < tile->problem->value_size; c += cols)
            if (!tile->attention->all_finite(segment.values + c / cols * segment.value_stride + offset * cols,
                                             n * cols))
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
        memset(tile->scratch.span_output, 0, tile->rows * tile->problem->plan.output_stride * sizeof(float));
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
    size_t at_once = tile->rows <= tile->gemm->chained_rows ? joined : 1;
    for (size_t i = 0; i < joined; i += at_once)
        accumulate_together(tile, &block[i], at_once);
}
