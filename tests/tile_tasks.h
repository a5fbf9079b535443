/* Tasks leave the tiles of amx as they found them. */
#ifndef ATTN_TESTS_TILE_TASKS_H
#define ATTN_TESTS_TILE_TASKS_H

#include <stddef.h>

/* Runs every operator that multiplies, in one task and in several, and looks before and after each of them whether
 * the thread's tiles are as before their first use. `configurations`, how often it has configured them, may be NULL. */
void tile_tasks_check(int (*is_clean)(void), size_t (*configurations)(void));

#endif
