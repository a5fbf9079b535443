#include "ops/repack.h"

#include <string.h>

/* Elements of the widest type. */
struct stretch {
    uint32_t memory[ATTN_STRETCH];
};

/* Column `lane` of a panel. */
struct column {
    const struct attn_format *format;
    struct attn_scaling scaling;
    size_t k, lane;
    uint8_t *panel;
};

static struct column column_of(const struct attn_format *format, const struct attn_packed *packed, size_t j) {
    uint8_t *panel = (uint8_t *)packed->panels.data + j / format->cols * packed->panels.stride;
    return (struct column){format, packed->scaling, packed->k, j % format->cols, panel};
}

static bool is_int4(const struct column *column) {
    return column->format->type == ATTN_INT4;
}

static bool has_blocks(const struct column *column) {
    return attn_has_blocks(&column->scaling);
}

/* ---- Places ---- */

/* Block b of a panel. */
static uint8_t *block_at(const struct column *column, size_t b) {
    return column->panel + b * attn_block_bytes(column->format->type, &column->scaling, column->format->cols);
}

/* Where the unit that holds element p begins, and how many bytes lie between it and the next one of the column, in the
 * same block where there are blocks. */
static uint8_t *unit_at(const struct column *column, size_t p, size_t *step) {
    const struct attn_format *format = column->format;
    size_t bytes = format->k_unit * attn_type_size(format->type), block = column->scaling.block;
    uint8_t *begin = has_blocks(column) ? block_at(column, p / block) : column->panel;
    *step = format->cols * bytes;
    return begin + (has_blocks(column) ? p % block : p) / format->k_unit * *step + column->lane * bytes;
}

/* The scales of block b, or of the columns, behind the elements. */
static uint8_t *scales_at(const struct column *column, size_t b) {
    const struct attn_format *format = column->format;
    if (has_blocks(column))
        return block_at(column, b) + format->cols * attn_block_elements(format->type, column->scaling.block);
    size_t units = (column->k + format->k_unit - 1) / format->k_unit;
    return column->panel + units * format->k_unit * format->cols * attn_type_size(format->type);
}

static uint8_t *scale_at(const struct column *column, size_t b) {
    return scales_at(column, b) + column->lane * attn_type_size(column->scaling.type);
}

static uint8_t *zero_point_at(const struct column *column, size_t b) {
    return scales_at(column, b) + column->format->cols * attn_type_size(column->scaling.type) + column->lane;
}

/* ---- Stretches ---- */

/* Of few bytes: a constant number of them is no call. */
static inline void copy_unit(uint8_t *to, const uint8_t *from, size_t bytes) {
    if (bytes == 4)
        memcpy(to, from, 4);
    else if (bytes == 2)
        memcpy(to, from, 2);
    else
        memcpy(to, from, bytes);
}

static void flip(uint8_t *elements, size_t bytes, uint8_t bits) {
    for (size_t i = 0; bits && i < bytes; i++)
        elements[i] ^= bits;
}

/* Copies the units of elements p .. p + count - 1. */
static void write_units(const struct column *column, size_t p, size_t count, const uint8_t *elements) {
    size_t step, bytes = column->format->k_unit * attn_type_size(column->format->type);
    uint8_t *unit = unit_at(column, p, &step);
    for (size_t i = 0; i < count; i += column->format->k_unit, unit += step, elements += bytes)
        copy_unit(unit, elements, bytes);
}
static void read_units(const struct column *column, size_t p, size_t count, uint8_t *elements) {
    size_t step, bytes = column->format->k_unit * attn_type_size(column->format->type);
    const uint8_t *unit = unit_at(column, p, &step);
    for (size_t i = 0; i < count; i += column->format->k_unit, unit += step, elements += bytes)
        copy_unit(elements, unit, bytes);
}

/* INT4: the first half of a unit's elements lie in the lower halves of its bytes, the others in the upper ones. */
static void write_halves(const struct column *column, size_t b, const uint8_t *elements) {
    size_t unit = column->format->k_unit, half = unit / 2;
    uint8_t *to = block_at(column, b) + column->lane * half;
    for (size_t p = 0; p < column->scaling.block; p += unit, to += column->format->cols * half)
        for (size_t i = 0; i < half; i++)
            to[i] = (uint8_t)(elements[p + i] | elements[p + half + i] << 4);
}
static void read_halves(const struct column *column, size_t b, uint8_t *elements) {
    size_t unit = column->format->k_unit, half = unit / 2;
    const uint8_t *from = block_at(column, b) + column->lane * half;
    for (size_t p = 0; p < column->scaling.block; p += unit, from += column->format->cols * half)
        for (size_t i = 0; i < half; i++) {
            elements[p + i] = from[i] & 15;
            elements[p + half + i] = from[i] >> 4;
        }
}

/* ---- Writing ---- */

static void write_block(const struct column *column, const struct attn_weight_source *source, size_t j, size_t b) {
    struct stretch stretch;
    uint8_t *elements = (uint8_t *)stretch.memory;
    size_t block = column->scaling.block;
    source->elements(source->context, j, b * block, block, elements);
    flip(elements, block, column->format->flip);
    if (is_int4(column))
        write_halves(column, b, elements);
    else
        write_units(column, b * block, block, elements);
    source->scale(source->context, j, b, scale_at(column, b));
    if (column->scaling.has_zero_point)
        *zero_point_at(column, b) = source->zero_point(source->context, j, b);
}

/* What fills up the last unit is 0. */
static void write_stretch(const struct column *column, const struct attn_weight_source *source, size_t j, size_t p) {
    struct stretch stretch = {{0}};
    uint8_t *elements = (uint8_t *)stretch.memory;
    size_t count = attn_min(column->k - p, ATTN_STRETCH);
    source->elements(source->context, j, p, count, elements);
    flip(elements, ATTN_STRETCH, column->format->flip);
    write_units(column, p, count, elements);
    if (p + count == column->k && column->format->beside > 0)
        source->scale(source->context, j, 0, scale_at(column, 0));
}

void attn_repack(const struct attn_format *format, const struct attn_packed *to,
                 const struct attn_weight_source *source) {
    size_t cols = format->cols, n = to->n, step = attn_min(to->scaling.block, ATTN_STRETCH);
    for (size_t first = 0; first < n; first += cols)
        for (size_t p = 0; p < to->k; p += step)
            for (size_t lane = 0; lane < cols; lane++) {
                struct column column = column_of(format, to, first + lane);
                size_t j = attn_min(first + lane, n - 1); /* copies of the last column fill up its panel */
                if (has_blocks(&column))
                    write_block(&column, source, j, p / step);
                else
                    write_stretch(&column, source, j, p);
            }
}

/* ---- Reading ---- */

static struct column read_column(const struct attn_packed_reader *reader, size_t j) {
    return column_of(&reader->format, &reader->packed, j);
}

static void packed_elements(const void *context, size_t j, size_t p, size_t count, void *to) {
    struct column column = read_column(context, j);
    struct stretch stretch;
    uint8_t *elements = (uint8_t *)stretch.memory;
    if (is_int4(&column)) {
        read_halves(&column, p / column.scaling.block, to);
        return;
    }
    read_units(&column, p, count, elements);
    flip(elements, count, column.format->flip);
    memcpy(to, elements, count * attn_type_size(column.format->type));
}

static void packed_scale(const void *context, size_t j, size_t b, void *to) {
    struct column column = read_column(context, j);
    memcpy(to, scale_at(&column, b), attn_type_size(column.scaling.type));
}

static uint8_t packed_zero_point(const void *context, size_t j, size_t b) {
    struct column column = read_column(context, j);
    return *zero_point_at(&column, b);
}

struct attn_weight_source attn_packed_source(const struct attn_packed_reader *reader) {
    return (struct attn_weight_source){reader, packed_elements, packed_scale, packed_zero_point};
}

/* ---- Formats ---- */

static bool is_power_of_two(size_t x) {
    return x > 0 && (x & (x - 1)) == 0;
}

bool attn_format_is_known(const struct attn_format *format, const struct attn_scaling *scaling) {
    bool int8 = format->type == ATTN_INT8, int4 = format->type == ATTN_INT4;
    size_t most = int4 ? scaling->block : 8, beside = int8 && !attn_has_blocks(scaling) ? attn_type_size(ATTN_F32) : 0;
    return is_power_of_two(format->cols) && format->cols <= ATTN_MAX_COLS && is_power_of_two(format->k_unit) &&
           format->k_unit >= (int4 ? 2 : 1) && format->k_unit <= most && format->beside == beside &&
           (int8 ? format->flip == 0 || format->flip == 0x80 : format->flip == 0);
}
