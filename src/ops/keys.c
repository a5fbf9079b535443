#include "ops/keys.h"

void attn_keys_find(struct attn_tile *tile) {
    const struct attn_problem *problem = tile->problem;
    const struct attn_workspace *workspace = tile->workspace;
    const struct attn_sequence *sequence = &tile->sequence;
    const struct attn_kv_view given = {&workspace->tensors, tile->b, tile->kv_head, 0};
    tile->stored = (struct attn_interval){0, 0};
    switch (problem->plan.path) {
    case ATTN_PATH_CACHED:
        tile->k = tile->v = (struct attn_kv_view){&problem->cache->store, tile->b, tile->kv_head, 0};
        tile->stored = (struct attn_interval){sequence->oldest, sequence->kv_len};
        return;
    case ATTN_PATH_PACK_ALL:
    case ATTN_PATH_PACK_HEAD:
        tile->k = problem->plan.path == ATTN_PATH_PACK_ALL
                      ? (struct attn_kv_view){&workspace->packed, tile->b, tile->kv_head, 0}
                      : (struct attn_kv_view){&workspace->packed, tile->task, 0, 0};
        tile->v = problem->plan.values_in_place ? given : tile->k;
        tile->stored = attn_sequence_interval(problem, sequence, tile->b);
        return;
    case ATTN_PATH_STREAMED:
        tile->k = tile->v = (struct attn_kv_view){&tile->scratch.block, 0, 0, 0};
        return;
    default:
        tile->k = tile->v = given;
    }
}

/* The rows of the head's keys and values from `key` on, as the caller has them. */
static struct attn_key_rows rows_from(const struct attn_tile *tile, size_t key) {
    const attn_options *options = tile->problem->options;
    struct attn_segment rows = attn_store_locate(&tile->workspace->tensors, tile->b, tile->kv_head, key);
    int64_t offset = attn_ints_or_0(&options->rotary_offsets, tile->b);
    return (struct attn_key_rows){.k = rows.keys.data,
                                  .v = attn_kv_is_packed(&tile->v) ? rows.values.data : NULL,
                                  .k_stride = rows.keys.stride,
                                  .v_stride = rows.values.stride,
                                  .k_type = tile->problem->k.type,
                                  .v_type = tile->problem->v.type,
                                  .rotary = options->rotary,
                                  .position = key + (size_t)offset,
                                  .attention = tile->attention,
                                  .convert = tile->convert,
                                  .strip = tile->scratch.strip};
}

void attn_keys_pack_head(struct attn_tile *tile) {
    struct attn_interval keys = tile->stored;
    if (keys.begin == keys.end) /* then the caller need not have given a pointer to them */
        return;
    struct attn_key_rows rows = rows_from(tile, keys.begin);
    attn_store_fill_unit(tile->k.store, tile->k.sequence, tile->k.head, keys.begin, &rows);
    attn_store_append(tile->k.store, tile->k.sequence, tile->k.head, keys.begin, keys.end - keys.begin, &rows);
}

void attn_keys_pack_block(struct attn_tile *tile, size_t begin, size_t end) {
    struct attn_key_rows rows = rows_from(tile, begin);
    size_t first = begin / ATTN_BLOCK * ATTN_BLOCK;
    tile->k.first = tile->v.first = first;
    attn_store_fill_unit(tile->k.store, 0, 0, begin - first, &rows);
    attn_store_append(tile->k.store, 0, 0, begin - first, end - begin, &rows);
}
