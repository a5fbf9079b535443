/* What the cache and the layer share. */
#ifndef ATTN_API_CACHE_H
#define ATTN_API_CACHE_H

#include "api/check.h"
#include "verbose.h"

/* Checks everything in an append but the rows: lengths, and that each sequence has room, pages and positions for
 * them. */
attn_status attn_check_cache_lens(const attn_cache *cache, const attn_cache_append_args *args, attn_error *error);

/* Adds an append that was done to the line. */
void attn_describe_append(const attn_cache *cache, const attn_cache_append_args *args, struct attn_line *line);

#endif
