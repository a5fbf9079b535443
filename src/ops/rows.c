#include "ops/rows.h"

#include <string.h>

#include "ops/convert.h"
#include "ops/keys.h"

/* ---- What rows may see ---- */

static void describe_row(struct attn_tile *tile, struct attn_tile_row *row) {
    const struct attn_problem *problem = tile->problem;
    const attn_options *options = problem->options;
    row->keys = attn_tile_uses(tile, ATTN_USE_ROW_INTERVALS)
                    ? attn_row_interval(problem, &tile->sequence, tile->b, row->row)
                    : tile->every_row;
    row->takes_mean = false;
    row->masks = (struct attn_row_masks){0};
    if (!attn_tile_uses(tile, ATTN_USE_LOGITS))
        return;
    if (attn_tile_uses(tile, ATTN_USE_MASKS))
        row->masks = attn_row_masks_of(problem, tile->b, row->head, row->row);
    if (options->empty == ATTN_EMPTY_ZERO || options->sinks)
        return;
    for (size_t key = row->keys.begin; key < row->keys.end; key++)
        if (attn_masks_leave(options, &row->masks, key))
            return;
    row->takes_mean = true;
    row->keys = (struct attn_interval){tile->sequence.oldest, tile->sequence.kv_len};
}

/* Adds a row that may see `keys`: tile->keys encloses what any row may see, tile->common is what every row may see. */
static void enclose(struct attn_tile *tile, struct attn_interval keys) {
    tile->common.begin = attn_max(tile->common.begin, keys.begin);
    tile->common.end = attn_min(tile->common.end, keys.end);
    if (keys.begin == keys.end)
        return;
    bool first = tile->keys.begin == tile->keys.end;
    tile->keys.begin = first ? keys.begin : attn_min(tile->keys.begin, keys.begin);
    tile->keys.end = attn_max(tile->keys.end, keys.end);
}

static void describe_rows(struct attn_tile *tile) {
    tile->keys = (struct attn_interval){0, 0};
    tile->common = (struct attn_interval){0, attn_tile_uses(tile, ATTN_USE_MASKS) ? 0 : SIZE_MAX};
    for (size_t r = 0; r < tile->rows; r++) {
        describe_row(tile, &tile->row[r]);
        enclose(tile, tile->row[r].keys);
    }
}

/* Whether all tiles of a head see the same keys in the same way: then one description serves them all. */
static bool tiles_see_the_same_keys(const struct attn_tile *tile) {
    return !attn_tile_uses(tile, ATTN_USE_ROW_INTERVALS | ATTN_USE_LOGITS);
}

/* ---- Which rows ---- */

/* Tiles of nearly equal height, so that the last is not a sliver. The first ones may have a row more. */
static size_t tile_rows_of(const struct attn_tile *tile, size_t index) {
    size_t total = tile->sequence.q_len * tile->problem->group;
    return total / tile->tiles + (index < total % tile->tiles);
}

void attn_rows_take_head(struct attn_tile *tile, size_t head) {
    const struct attn_problem *problem = tile->problem;
    tile->head = head;
    tile->b = head / problem->kv_heads;
    tile->kv_head = head % problem->kv_heads;
    tile->sequence = attn_sequence_of(problem, tile->b);
    tile->tiles = attn_tiles_of(&problem->plan, tile->sequence.q_len * problem->group);
    if (!attn_tile_uses(tile, ATTN_USE_ROW_INTERVALS))
        tile->every_row = attn_row_interval(problem, &tile->sequence, tile->b, 0);
    attn_keys_find(tile);
    if (tiles_see_the_same_keys(tile) && tile->tiles > 0) {
        tile->rows = tile_rows_of(tile, 0);
        describe_rows(tile);
    }
}

void attn_rows_take(struct attn_tile *tile, size_t index) {
    const struct attn_problem *problem = tile->problem;
    size_t total = tile->sequence.q_len * problem->group, tiles = tile->tiles;
    size_t begin = index * (total / tiles) + attn_min(index, total % tiles);
    size_t query = begin / problem->group, member = begin % problem->group;
    tile->rows = tile_rows_of(tile, index);
    for (size_t r = 0; r < tile->rows; r++) {
        tile->row[r].row = query;
        tile->row[r].head = tile->kv_head * problem->group + member;
        if (++member == problem->group) {
            member = 0;
            query++;
        }
    }
    if (!tiles_see_the_same_keys(tile))
        describe_rows(tile);
}

/* ---- Queries ---- */

static const void *query_at(const struct attn_tile *tile, size_t head, size_t row) {
    size_t batch = attn_ints_given(&tile->problem->q_cu) ? 0 : tile->b;
    return attn_typed_row_at(&tile->problem->q, batch, head, tile->sequence.q_row + row);
}

/* Prefetches the queries of the head's next tile: the processor would wait for them line by line. Zen 5, AVX2: 1000
 * rows that see 10 or 20 keys take 1.17 and 1.14 times as long without; over 72 other shapes 1.005. */
static void fetch_next_queries(const struct attn_tile *tile) {
    enum { LINE = 64 };
    const struct attn_problem *problem = tile->problem;
    size_t next = tile->row[0].row + tile->rows, left = tile->sequence.q_len - attn_min(next, tile->sequence.q_len);
    if (problem->group > 1 || left == 0)
        return;
    size_t element = attn_type_size(problem->q.type);
    const char *x = query_at(tile, tile->row[0].head, next);
    for (size_t r = attn_min(left, tile->rows); r > 0; r--, x += problem->q.row_stride * element)
        for (size_t j = 0; j < problem->head_size * element; j += LINE)
            __builtin_prefetch(x + j);
    __asm__ volatile(""); /* or gcc removes calls of a function that only prefetches */
}

static void scale_queries(const struct attn_tile *tile) {
    const struct attn_problem *problem = tile->problem;
    float *query = tile->scratch.query;
    for (size_t r = 0, n, distance; r < tile->rows; r += n) {
        n = attn_tile_rows_at_one_distance(tile, r, problem->q.head_stride, problem->q.row_stride, &distance);
        tile->attention->scale(n, problem->head_size, query_at(tile, tile->row[r].head, tile->row[r].row), distance,
                               problem->scale, query + r * problem->head_size, problem->head_size);
    }
}

static bool is_rotated(const struct attn_tile *tile, const struct attn_tile_row *row) {
    return attn_tile_uses(tile, ATTN_USE_ROTARY) &&
           (attn_tile_uses(tile, ATTN_USE_SCORES_HIDDEN) || (!row->takes_mean && row->keys.begin < row->keys.end));
}

/* Row r's query as floats, rotated: where the caller has it, or in memory for one row. The table need not have the
 * position of a row that sees no key: such a row is not rotated. */
static const float *query_of_row(const struct attn_tile *tile, const struct attn_tile_row *row) {
    const struct attn_problem *problem = tile->problem;
    const attn_options *options = problem->options;
    float *query = tile->scratch.row;
    const void *given = query_at(tile, row->head, row->row);
    const float *x = given;
    if (problem->q.type != ATTN_F32) {
        tile->convert->widen(problem->q.type, problem->head_size, given, query);
        x = query;
    }
    if (!is_rotated(tile, row))
        return x;
    size_t position =
        (size_t)tile->sequence.position + row->row + (size_t)attn_ints_or_0(&options->rotary_offsets, tile->b);
    attn_rotary_rotate(tile->attention, options->rotary, position, x, problem->head_size, query);
    return query;
}

/* In class BF16 the products are scaled, not the queries: these are rounded once. */
static void take_queries_one_by_one(const struct attn_tile *tile) {
    const struct attn_problem *problem = tile->problem;
    size_t n = problem->head_size, bytes = n * attn_type_size(tile->gemm->a);
    char *to = tile->scratch.query;
    for (size_t r = 0; r < tile->rows; r++, to += bytes) {
        const struct attn_tile_row *row = &tile->row[r];
        const void *given = query_at(tile, row->head, row->row);
        if (!attn_tile_is_bf16(tile))
            tile->attention->scale(1, n, query_of_row(tile, row), 0, problem->scale, (float *)to, 0);
        else if (is_rotated(tile, row))
            attn_take_row(tile->convert, tile->gemm, ATTN_F32, n, query_of_row(tile, row), to);
        else if (problem->q.type != ATTN_F32 && problem->q.type == tile->gemm->a)
            memcpy(to, given, bytes);
        else
            attn_take_row(tile->convert, tile->gemm, problem->q.type, n, given, to);
    }
}

/* Whether the product reads queries where the caller has them. The kernel for few rows reads them once. */
static bool are_in_place(const struct attn_tile *tile) {
    const struct attn_problem *problem = tile->problem;
    return attn_tile_is_bf16(tile) && problem->q.type == ATTN_BF16 && tile->gemm->a == ATTN_BF16 &&
           !attn_tile_uses(tile, ATTN_USE_ROTARY) && problem->group == 1 && !attn_tile_decodes(tile);
}

void attn_rows_take_queries(struct attn_tile *tile) {
    tile->query = tile->scratch.query;
    tile->query_stride = tile->problem->head_size * attn_type_size(tile->gemm->a);
    if (are_in_place(tile)) {
        tile->query = query_at(tile, tile->row[0].head, tile->row[0].row);
        tile->query_stride = tile->problem->q.row_stride * sizeof(uint16_t);
    } else if (attn_tile_uses(tile, ATTN_USE_ROTARY | ATTN_USE_TYPES)) {
        take_queries_one_by_one(tile);
    } else {
        scale_queries(tile);
    }
    if (tile->problem->plan.spans == 1) /* else the next item is another span of the same rows */
        fetch_next_queries(tile);
}
