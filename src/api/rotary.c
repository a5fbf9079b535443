/* attn_rotary: argument checks, object layout. */
#include "ops/rotary.h"

#include <math.h>

#include "api/check.h"
#include "dispatch.h"
#include "verbose.h"

/* Angles up to 2^63 * 2^20 lose nothing that their reduction needs. */
#define MOST_FREQUENCY 0x1p20

static attn_status check_frequencies(const attn_rotary_config *config, attn_error *error) {
    const char *name = config->frequencies ? "frequencies" : "base";
    size_t pairs = config->dims / 2, step = config->frequencies || pairs == 1 ? 1 : pairs - 1;
    /* The largest power of a base is the first or the last. */
    for (size_t i = 0; i < pairs; i += step)
        if (!(fabs(attn_rotary_frequency(config, i)) <= MOST_FREQUENCY))
            return attn_fail(ATTN_BAD_VALUE, name, error);
    return ATTN_OK;
}

/* *resolved = the config with its base resolved. Takes the object's parts. */
static attn_status layout_rotary(const attn_rotary_config *config, attn_rotary_config *resolved,
                                 struct attn_arena *arena, struct attn_rotary *rotary, struct attn_rotary **object,
                                 attn_error *error) {
    size_t row;
    RETURN_IF_ERROR(attn_check_pointer(config, "config", error));
    RETURN_IF_ERROR(attn_check_size(config->positions, 1, "positions", error));
    RETURN_IF_ERROR(attn_check_size(config->dims, 2, "dims", error));
    if (config->dims % 2 != 0)
        return attn_fail(ATTN_BAD_SIZE, "dims", error);
    RETURN_IF_ERROR(attn_check_enum((int)config->pairs, ATTN_ROTARY_INTERLEAVED, "pairs", error));
    if (!isfinite(config->base) || signbit(config->base)) /* -0 is the result of a computation, not "unset" */
        return attn_fail(ATTN_BAD_VALUE, "base", error);
    RETURN_IF_ERROR(attn_check_used(config->base != 0, !config->frequencies, "base", error));
    *resolved = *config;
    if (config->base == 0)
        resolved->base = 10000;
    *rotary = (struct attn_rotary){
        .positions = config->positions, .dims = config->dims, .interleaved = config->pairs == ATTN_ROTARY_INTERLEAVED};
    if (!attn_mul(config->dims, 2 * sizeof(float), &row))
        return attn_fail(ATTN_OVERFLOW, "dims", error);
    *object = attn_arena_take(arena, 1, sizeof **object);
    rotary->frequencies = attn_arena_take(arena, config->dims / 2, sizeof(double));
    rotary->table = attn_arena_take(arena, config->positions, row);
    if (arena->overflow)
        return attn_fail(ATTN_OVERFLOW, "positions", error);
    return check_frequencies(resolved, error);
}

attn_status attn_rotary_size(const attn_rotary_config *config, size_t *bytes, attn_error *error) {
    struct attn_arena arena = {0};
    struct attn_rotary rotary, *object;
    attn_rotary_config resolved;
    RETURN_IF_ERROR(layout_rotary(config, &resolved, &arena, &rotary, &object, error));
    RETURN_IF_ERROR(attn_check_pointer(bytes, "bytes", error));
    *bytes = arena.used;
    return ATTN_OK;
}

attn_status attn_rotary_create(const attn_rotary_config *config, void *memory, size_t bytes, attn_rotary **rotary,
                               attn_error *error) {
    size_t needed;
    RETURN_IF_ERROR(attn_rotary_size(config, &needed, error));
    RETURN_IF_ERROR(attn_check_pointer(rotary, "rotary", error));
    RETURN_IF_ERROR(attn_check_memory(memory, bytes, needed, "memory", error));
    const struct attn_kernels *table;
    attn_status status = attn_table_for(ATTN_ISA_BEST, &table);
    if (status != ATTN_OK)
        return attn_fail(status, "config", error);
    struct attn_arena arena = {.base = memory};
    struct attn_rotary filled;
    attn_rotary_config resolved;
    RETURN_IF_ERROR(layout_rotary(config, &resolved, &arena, &filled, rotary, error));
    for (size_t i = 0; i < config->dims / 2; i++)
        filled.frequencies[i] = attn_rotary_frequency(&resolved, i);
    attn_op_rotary_fill(attn_table_elementary(table), &filled);
    **rotary = filled;
    attn_verbose("rotary %zu positions, %zu dims", config->positions, config->dims);
    return ATTN_OK;
}
