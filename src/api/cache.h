/* What attention's caches and the layer's share. */
#ifndef ATTN_API_CACHE_H
#define ATTN_API_CACHE_H

#include "api/check.h"
#include "verbose.h"

/* Everything in an append but the rows: the lengths, and that each sequence has room, pages and positions for them. */
attn_status attn_check_cache_lens(const attn_cache *cache, const attn_cache_append_args *args, const char **field);

/* An append that was done. */
void attn_describe_append(const attn_cache *cache, const attn_cache_append_args *args, struct attn_line *line);

#endif
