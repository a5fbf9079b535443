#include "ops/block.h"

#include <math.h>
#include <string.h>

#include "ops/dropout.h"
#include "ops/keys.h"

/* ---- What rows see of a block ---- */

/* Few rows have room for the scores of several blocks. */
enum { MOST_BLOCKS = 8 };

/* Keys begin .. begin + n - 1, a column each. What is said of each row is an array of as many as the tile has, in struct
 * of_rows. */
struct block {
    float *scores; /* [rows][score_stride], where those of the next block follow row by row */
    size_t score_stride;
    size_t begin;
    size_t first, last;   /* columns first .. last - 1 are seen by some row */
    uint32_t *lo, *hi;    /* the columns that each row sees */
    const uint8_t **mask; /* of column 0, where it hides some but not all */
    const float **bias;
    float *correction; /* followed by the next block's: of what is accumulated before */
    bool ragged;       /* a row may not see all of the columns first .. last - 1 */
};

/* A tile's rows once for each block that it takes in one go: blocks times rows are at most the height of a tile. */
struct of_rows {
    uint32_t lo[ATTN_MAX_ROWS], hi[ATTN_MAX_ROWS];
    const uint8_t *mask[ATTN_MAX_ROWS];
    const float *bias[ATTN_MAX_ROWS];
    float correction[ATTN_MAX_ROWS];
};

static float *scores_of(const struct block *block, size_t r) {
    return block->scores + r * block->score_stride;
}

/* What the masks leave of row r's columns. */
static void look_at_masks(const struct attn_tile *tile, struct block *block, size_t r) {
    const struct attn_row_masks *masks = &tile->row[r].masks;
    size_t key = block->begin + block->lo[r], n = block->hi[r] - block->lo[r];
    enum attn_seen seen = masks->mask ? attn_mask_sees(masks->mask + key, n) : ATTN_SEES_ALL;
    if (seen == ATTN_SEES_NONE || (masks->bias && attn_bias_hides_all(masks->bias + key, n))) {
        block->lo[r] = block->hi[r] = 0;
        return;
    }
    if (seen == ATTN_SEES_SOME)
        block->mask[r] = masks->mask + block->begin;
    if (masks->bias)
        block->bias[r] = masks->bias + block->begin;
    block->ragged |= seen == ATTN_SEES_SOME || masks->bias;
}

/* Every row sees all of it. */
static void describe_whole(const struct attn_tile *tile, struct block *block, size_t n) {
    block->first = 0;
    block->last = n;
    block->ragged = false;
    for (size_t r = 0; r < tile->rows; r++) {
        block->lo[r] = 0;
        block->hi[r] = (uint32_t)n;
        block->mask[r] = NULL;
        block->bias[r] = NULL;
    }
}

static void describe_block(const struct attn_tile *tile, struct block *block, size_t begin, size_t n) {
    block->begin = begin;
    if (tile->core.begin <= begin && begin + n <= tile->core.end) {
        describe_whole(tile, block, n);
        return;
    }
    block->first = n;
    block->last = 0;
    block->ragged = false;
    for (size_t r = 0; r < tile->rows; r++) {
        const struct attn_tile_row *row = &tile->row[r];
        size_t lo = row->keys.begin > begin ? attn_min(row->keys.begin - begin, n) : 0;
        size_t hi = row->keys.end > begin ? attn_min(row->keys.end - begin, n) : 0;
        block->lo[r] = (uint32_t)lo;
        block->hi[r] = (uint32_t)hi;
        block->mask[r] = NULL;
        block->bias[r] = NULL;
        if (lo < hi && attn_tile_uses(tile, ATTN_USE_MASKS) && !row->mean)
            look_at_masks(tile, block, r);
        if (block->lo[r] < block->hi[r]) {
            block->first = attn_min(block->first, block->lo[r]);
            block->last = attn_max(block->last, block->hi[r]);
        }
    }
    for (size_t r = 0; r < tile->rows; r++)
        block->ragged |= block->lo[r] != block->first || block->hi[r] != block->last;
}

/* Rows of a tile that go through the products together, and the columns that some of them see. */
struct part {
    size_t row, rows, first, last;
};

/* The part whose first row is `row`: all, or as many as a product takes at once where others see other columns. */
static struct part part_from(const struct attn_tile *tile, const struct block *block, size_t row) {
    if (!block->ragged)
        return (struct part){0, tile->rows, block->first, block->last};
    size_t parts = (tile->rows + tile->gemm->rows - 1) / tile->gemm->rows;
    struct part part = {row, attn_min((tile->rows + parts - 1) / parts, tile->rows - row), ATTN_BLOCK, 0};
    for (size_t r = row; r < row + part.rows; r++)
        if (block->lo[r] < block->hi[r]) {
            part.first = attn_min(part.first, block->lo[r]);
            part.last = attn_max(part.last, block->hi[r]);
        }
    return part;
}

/* The key behind the last that some row sees. */
static size_t end_of(const struct block *block) {
    return block->begin + block->last;
}

/* How many of `count` blocks go through a product as one: those that follow each other, which every row sees whole. */
static size_t joined(const struct block *block, size_t count) {
    size_t n = 1;
    while (n < count && !block[n - 1].ragged && !block[n].ragged && block[0].first == 0 &&
           end_of(&block[n - 1]) == block[n].begin + block[n].first)
        n++;
    return n;
}

/* The columns that joined blocks have beyond the first one's. */
static size_t further(const struct block *block, size_t joined) {
    return end_of(&block[joined - 1]) - end_of(block);
}

/* ---- The first product ---- */

/* Panels that one product can take, from key `begin` on: those of a segment, of segments that follow each other in memory, or
 * of two segments of one panel each, whose distance then is the panel stride. Only within one cache's memory is there such a
 * distance: what a fork shares lies in memory of its own. */
static size_t join_panels(const struct attn_tile *tile, size_t begin, size_t end, struct attn_segment *segment) {
    size_t n = segment->count;
    while (n < end - begin) {
        struct attn_segment next = attn_kv_locate(&tile->k, begin + n);
        if (next.keys == segment->keys + n * tile->problem->head_size) {
            n += next.count;
            continue;
        }
        if (n == segment->key_cols && tile->k.store->kind == ATTN_KV_PAGED && next.keys > segment->keys) {
            segment->key_stride = (size_t)(next.keys - segment->keys);
            n += next.key_cols;
        }
        break;
    }
    return attn_min(n, end - begin);
}

/* Segments of up to this many keys end before the processor's own prefetching gets far. */
enum { SHORT = 64 };

/* A page that will be needed soon, which the processor does not foresee. One row waits for memory alone: the beginnings of
 * several pages start as many of its own prefetchers. More rows have time for every line. */
static void prefetch(const struct attn_tile *tile, const float *page, size_t floats) {
    enum { LINE = 16, REACH = 1024, HEAD = 64 }; /* floats: prefetchers stop at 4 KiB */
    size_t taken = tile->rows > 1 ? REACH : HEAD;
    for (size_t i = 0; i < floats; i += REACH)
        for (size_t j = 0; j < taken && i + j < floats; j += LINE)
            __builtin_prefetch(page + i + j);
}

/* The logits of n keys whose panels are at one distance, for a part's rows. */
static void multiply_panels(const struct attn_tile *tile, const struct part *part, const struct attn_segment *segment,
                            size_t n, float *scores, size_t score_stride) {
    const struct attn_problem *problem = tile->problem;
    tile->gemm->run(&(struct attn_gemm_args){.m = part->rows,
                                             .n = n,
                                             .k = problem->head_size,
                                             .a = tile->scratch.query + part->row * problem->head_size,
                                             .a_stride = problem->head_size,
                                             .b = segment->keys,
                                             .panel_stride = segment->key_stride,
                                             .narrow = segment->narrow,
                                             .distant = problem->plan.distant,
                                             .c = scores,
                                             .c_stride = score_stride});
}

/* The same of keys that are rows. */
static void multiply_rows(const struct attn_tile *tile, const struct part *part, const struct attn_segment *segment,
                          size_t n, float *scores, size_t score_stride) {
    const struct attn_problem *problem = tile->problem;
    for (size_t r = 0; r < part->rows; r += tile->gemm->rows)
        tile->gemm->run_columns(
            &(struct attn_gemm_args){.m = attn_min(part->rows - r, tile->gemm->rows),
                                     .n = n,
                                     .k = problem->head_size,
                                     .a = tile->scratch.query + (part->row + r) * problem->head_size,
                                     .a_stride = problem->head_size,
                                     .b = segment->keys,
                                     .b_stride = segment->key_stride,
                                     .distant = problem->plan.distant,
                                     .c = scores + r * score_stride,
                                     .c_stride = score_stride});
}

static void fetch_keys_ahead(const struct attn_tile *tile, size_t begin, size_t end, size_t n) {
    size_t unit = tile->k.store->unit, ahead = tile->rows > 1 ? n : 3 * n;
    for (size_t i = ahead; i < ahead + n && begin + i < end; i += unit)
        prefetch(tile, attn_kv_locate(&tile->k, begin + i).keys, unit * tile->problem->head_size);
}

/* Keys begin .. end - 1, from a multiple of the store's unit on. */
static void score_part(const struct attn_tile *tile, const struct part *part, size_t begin, size_t end, float *scores,
                       size_t score_stride) {
    bool packed = attn_kv_is_packed(&tile->k);
    for (size_t n; begin < end; begin += n, scores += n) {
        struct attn_segment segment = attn_kv_locate(&tile->k, begin);
        n = join_panels(tile, begin, end, &segment);
        if (segment.count <= SHORT)
            fetch_keys_ahead(tile, begin, end, n);
        if (packed)
            multiply_panels(tile, part, &segment, n, scores, score_stride);
        else
            multiply_rows(tile, part, &segment, n, scores, score_stride);
    }
}

/* The logits of joined blocks' columns, as far as a part's rows see them. */
static void score(const struct attn_tile *tile, const struct block *block, size_t joined) {
    struct part part;
    for (size_t row = 0; row < tile->rows; row += part.rows) {
        part = part_from(tile, block, row);
        size_t first = part.first - part.first % tile->k.store->unit;
        if (part.first < part.last)
            score_part(tile, &part, block->begin + first, block->begin + part.last + further(block, joined),
                       scores_of(block, row) + first, block->score_stride);
    }
}

/* ---- Logits ---- */

/* Logits of keys that rows see, to dense [batch, heads, q_len, kv_len]; -inf stays for the others. Rows that take the mean see
 * none, but have weights. */
static void copy_scores(const struct attn_tile *tile, const struct block *block, float *to, bool mean) {
    const struct attn_problem *problem = tile->problem;
    for (size_t r = 0; r < tile->rows; r++) {
        const struct attn_tile_row *row = &tile->row[r];
        size_t index = (tile->b * problem->heads + row->head) * problem->q_len + row->row;
        float *logits = to + index * problem->kv_len + block->begin;
        for (size_t c = block->lo[r]; c < block->hi[r]; c++)
            if (row->mean ? mean : attn_masks_leave(&row->masks, block->begin + c))
                logits[c] = scores_of(block, r)[c];
    }
}

static void copy_stage(const struct attn_tile *tile, const struct block *block, attn_score_stage stage) {
    const attn_options *options = tile->problem->options;
    if (options->scores && options->score_stage == stage)
        copy_scores(tile, block, options->scores, false);
}

/* ALiBi at distances that the kernel's integers do not hold: for rows far from all keys. */
static void add_far_slope(float *x, size_t lo, size_t hi, float slope, double distance) {
    for (size_t c = lo; c < hi; c++)
        x[c] = attn_fmaf(-slope, fabsf((float)(distance + (double)c)), x[c]);
}

static void add_bias(const struct attn_tile *tile, const struct block *block, size_t r) {
    const struct attn_tile_row *row = &tile->row[r];
    const float *slopes = tile->problem->options->alibi;
    struct attn_bias_args args = {.x = scores_of(block, r),
                                  .lo = block->lo[r],
                                  .hi = block->hi[r],
                                  .add = block->bias[r],
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

/* From products to what the softmax sees. */
static void finish_scores(const struct attn_tile *tile, const struct block *block) {
    const attn_options *options = tile->problem->options;
    copy_stage(tile, block, ATTN_SCORE_RAW);
    if (options->soft_cap > 0.0f)
        for (size_t r = 0; r < tile->rows; r++) /* the product left out columns that no row of a part sees */
            tile->attention->soft_cap(scores_of(block, r) + block->lo[r], block->hi[r] - block->lo[r],
                                      options->soft_cap, 1.0f / options->soft_cap);
    copy_stage(tile, block, ATTN_SCORE_CAPPED);
    for (size_t r = 0; r < tile->rows; r++) {
        if (tile->row[r].mean)
            memset(scores_of(block, r) + block->first, 0, (block->last - block->first) * sizeof(float));
        else
            add_bias(tile, block, r);
    }
    copy_stage(tile, block, ATTN_SCORE_MASKED);
    if (options->weights)
        copy_scores(tile, block, options->weights, true);
}

static void drop(const struct attn_tile *tile, const struct block *block) {
    const attn_options *options = tile->problem->options;
    struct attn_dropout dropout = {.probability = options->dropout, .seed = options->dropout_seed};
    for (size_t r = 0; r < tile->rows; r++)
        attn_dropout_apply(&dropout, tile->b * tile->problem->heads + tile->row[r].head, tile->row[r].row,
                           block->begin + block->first, scores_of(block, r) + block->first, block->last - block->first);
}

/* ---- The second product ---- */

/* What a product with values is added to: the span's output so far, multiplied row by row unless `scale` is NULL, or nothing.
 * Joined blocks' factors follow each other. */
struct so_far {
    bool exists;
    const float *scale;
};

static void fetch_values_ahead(const struct attn_tile *tile, size_t key, size_t end, size_t n) {
    size_t ahead = tile->rows > 1 ? n : 3 * n;
    if (key + ahead < end)
        prefetch(tile, attn_kv_locate(&tile->v, key + ahead).values, n * tile->problem->value_size);
}

/* What n probabilities of `rows` rows from row `first` on make of values that begin at `values`. */
struct weighted {
    size_t first, rows, n;
    const float *probabilities, *values;
    size_t value_stride;
    struct so_far so_far;
};

static struct attn_gemm_args values_product(const struct attn_tile *tile, const struct block *block,
                                            const struct weighted *sum) {
    size_t stride = tile->problem->plan.output_stride;
    return (struct attn_gemm_args){.m = sum->rows,
                                   .n = tile->problem->value_size,
                                   .k = sum->n,
                                   .a = sum->probabilities,
                                   .a_stride = block->score_stride,
                                   .b = sum->values,
                                   .panel_stride = sum->value_stride,
                                   .b_stride = sum->value_stride,
                                   .distant = tile->problem->plan.distant,
                                   .accumulate = sum->so_far.exists,
                                   .scale = sum->so_far.scale,
                                   .block = sum->n > ATTN_BLOCK ? ATTN_BLOCK : 0,
                                   .scale_stride = tile->rows,
                                   .c = tile->scratch.span_output + sum->first * stride,
                                   .c_stride = stride};
}

static void add_value_panels(const struct attn_tile *tile, const struct block *block, const struct weighted *sum) {
    struct attn_gemm_args args = values_product(tile, block, sum);
    tile->gemm->run(&args);
}

/* Rows of values are multiplied by no more rows than a product takes at once. */
static void add_value_rows(const struct attn_tile *tile, const struct block *block, const struct weighted *sum) {
    struct attn_gemm_args args = values_product(tile, block, sum);
    for (size_t r = 0; r < sum->rows; r += tile->gemm->rows) {
        args.m = attn_min(sum->rows - r, tile->gemm->rows);
        tile->gemm->run_rows(&args);
        args.a += args.m * args.a_stride;
        args.c += args.m * args.c_stride;
        args.scale = args.scale ? args.scale + args.m : NULL;
    }
}

/* output[rows from `first`] = what it is so far + probabilities[.., begin .. end - 1] values. */
static void accumulate(const struct attn_tile *tile, const struct block *block, size_t first, size_t rows, size_t begin,
                       size_t end, struct so_far so_far) {
    bool packed = attn_kv_is_packed(&tile->v);
    size_t unit = tile->v.store->unit;
    struct weighted sum = {.first = first, .rows = rows};
    for (size_t c = begin; c < end; c += sum.n) {
        size_t in_block = c % ATTN_BLOCK, key = block->begin + c, offset = (key - tile->v.first) % unit;
        struct attn_segment segment = attn_kv_locate(&tile->v, key - offset);
        sum.n = attn_min(segment.count - offset, in_block ? attn_min(ATTN_BLOCK - in_block, end - c) : end - c);
        if (segment.count <= SHORT)
            fetch_values_ahead(tile, key, block->begin + end, sum.n);
        bool begins = c == begin || in_block == 0;
        sum.probabilities = scores_of(block, first) + c;
        sum.values = segment.values + offset * tile->gemm->cols; /* 0 in tensors */
        sum.value_stride = segment.value_stride;
        sum.so_far.exists = so_far.exists || c > begin;
        sum.so_far.scale = begins && so_far.scale ? so_far.scale + c / ATTN_BLOCK * tile->rows : NULL;
        if (packed)
            add_value_panels(tile, block, &sum);
        else
            add_value_rows(tile, block, &sum);
    }
}

static bool rows_finite(const struct attn_tile *tile, size_t begin, size_t end) {
    struct attn_segment rows = attn_kv_locate(&tile->v, begin);
    size_t n = end - begin, size = tile->problem->value_size;
    if (rows.value_stride == size) /* one row of all */
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

/* Whether the values of a block's columns are: tiles of a head that share them look once. */
static bool values_finite(struct attn_tile *tile, const struct block *block) {
    struct attn_finite *found = &tile->finite;
    size_t begin = block->begin + block->first, end = block->begin + block->last, index = block->begin / ATTN_BLOCK;
    if (tile->stored.begin == tile->stored.end || index >= 64)
        return are_finite(tile, begin, end);
    if (found->head != tile->head)
        *found = (struct attn_finite){.head = tile->head};
    uint64_t bit = (uint64_t)1 << index;
    if (!(found->known & bit)) {
        begin = attn_max(block->begin, tile->stored.begin);
        end = attn_min(block->begin + ATTN_BLOCK, tile->stored.end);
        found->known |= bit;
        found->finite |= are_finite(tile, begin, end) ? bit : 0;
    }
    return found->finite & bit;
}

static float *span_output_of(const struct attn_tile *tile, size_t r) {
    return tile->scratch.span_output + r * tile->problem->plan.output_stride;
}

void attn_block_clear_output(const struct attn_tile *tile) {
    memset(tile->scratch.span_output, 0, tile->rows * tile->problem->plan.output_stride * sizeof(float));
}

/* One row, value after value that it sees. */
static void accumulate_seen(const struct attn_tile *tile, const struct block *block, size_t r, float correction) {
    size_t hi = block->hi[r];
    tile->attention->scale(1, tile->problem->value_size, span_output_of(tile, r), 0, correction,
                           span_output_of(tile, r), 0);
    for (size_t c = block->lo[r], end; c < hi; c = end + 1) {
        const struct attn_tile_row *row = &tile->row[r];
        for (end = c; end < hi && (row->mean || attn_masks_leave(&row->masks, block->begin + end)); end++)
            ;
        accumulate(tile, block, r, 1, c, end, (struct so_far){.exists = true});
    }
}

/* Where rows see different keys, the others' zero probabilities would carry an infinity or NaN in a value to rows that do not
 * see it; finite values they leave alone, but for the sign of a zero, which `finish` makes +0. */
static void add_values(struct attn_tile *tile, const struct block *block, size_t joined) {
    if (block->ragged && tile->fresh) { /* rows may see nothing */
        attn_block_clear_output(tile);
        tile->fresh = false;
    }
    struct part part;
    if (!block->ragged || values_finite(tile, block)) {
        for (size_t row = 0; row < tile->rows; row += part.rows) {
            part = part_from(tile, block, row);
            if (part.first < part.last)
                accumulate(tile, block, row, part.rows, part.first, part.last + further(block, joined),
                           (struct so_far){.exists = !tile->fresh, .scale = block->correction + row});
        }
    } else {
        for (size_t r = 0; r < tile->rows; r++)
            accumulate_seen(tile, block, r, block->correction[r]);
    }
    tile->fresh = false;
}

/* ---- The block ---- */

static void softmax_of_one(struct attn_tile *tile, const struct block *block) {
    tile->attention->block(&(struct attn_block_args){.rows = tile->rows,
                                                     .scores = block->scores,
                                                     .score_stride = block->score_stride,
                                                     .lo = block->lo,
                                                     .hi = block->hi,
                                                     .begin = block->first / ATTN_LANES * ATTN_LANES,
                                                     .end = (block->last + ATTN_LANES - 1) / ATTN_LANES * ATTN_LANES,
                                                     .max = tile->span_max,
                                                     .lanes = tile->scratch.lanes,
                                                     .correction = block->correction});
}

static void softmax(struct attn_tile *tile, const struct block *block, size_t joined) {
    if (tile->rows == 1 && joined > 1 && tile->attention->row)
        tile->attention->row(&(struct attn_row_args){.scores = block->scores,
                                                     .n = block->last + further(block, joined),
                                                     .max = tile->span_max,
                                                     .lanes = tile->scratch.lanes,
                                                     .correction = block->correction});
    else
        for (size_t i = 0; i < joined; i++)
            softmax_of_one(tile, &block[i]);
}

size_t attn_blocks_at_once(const struct attn_tile *tile) {
    if (tile->problem->plan.path == ATTN_PATH_STREAMED) /* there is room for one */
        return 1;
    return attn_min(tile->problem->plan.tile_rows / tile->rows, MOST_BLOCKS);
}

/* Blocks that go through a product as one, keys first. */
static void run_joined(struct attn_tile *tile, const struct block *block, size_t joined) {
    if (tile->problem->plan.path == ATTN_PATH_STREAMED)
        attn_keys_pack_block(tile, block->begin + block->first, block->begin + block->last);
    score(tile, block, joined);
    for (size_t i = 0; attn_tile_uses(tile, ATTN_USE_LOGITS) && i < joined; i++)
        finish_scores(tile, &block[i]);
    softmax(tile, block, joined);
    for (size_t i = 0; attn_tile_uses(tile, ATTN_USE_DROPOUT) && i < joined; i++)
        drop(tile, &block[i]);
    size_t at_once = tile->rows <= tile->gemm->chained_rows ? joined : 1;
    for (size_t i = 0; i < joined; i += at_once)
        add_values(tile, &block[i], at_once);
}

void attn_blocks_run(struct attn_tile *tile, size_t begin, size_t end) {
    enum { PADDING = ATTN_SCORE_STRIDE - ATTN_BLOCK };
    struct block blocks[MOST_BLOCKS];
    struct of_rows of_rows;
    size_t count = 0, stride = (end - begin + ATTN_BLOCK - 1) / ATTN_BLOCK * ATTN_BLOCK + PADDING;
    for (size_t column = 0; begin < end; begin += ATTN_BLOCK, column += ATTN_BLOCK) {
        struct block *block = &blocks[count];
        size_t row = count * tile->rows;
        block->score_stride = stride;
        block->scores = tile->scratch.scores + column;
        block->lo = of_rows.lo + row;
        block->hi = of_rows.hi + row;
        block->mask = of_rows.mask + row;
        block->bias = of_rows.bias + row;
        block->correction = of_rows.correction + row;
        describe_block(tile, block, begin, attn_min(end - begin, ATTN_BLOCK));
        count += block->first < block->last;
    }
    for (size_t i = 0, n; i < count; i += n) {
        n = joined(&blocks[i], count - i);
        run_joined(tile, &blocks[i], n);
    }
}
