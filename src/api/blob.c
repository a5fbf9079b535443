#include "api/blob.h"

#include <string.h>

#include "dispatch.h"

/* Raised whenever panels of any format lie in another way, or the header does. */
enum { BLOB_VERSION = 1 };

static const char blob_magic[8] = {'A', 'T', 'T', 'N', 'p', 'a', 'c', 'k'};

/* Another machine's bytes come out in another order. */
#define BLOB_BYTE_ORDER UINT32_C(0x01020304)

_Static_assert(sizeof(struct attn_blob_header) % ATTN_ALIGNMENT == 0, "what follows the header is aligned");

/* Of whole words. A step is one to one in the word and in the sum: a single word that changes changes the result. */
static uint64_t checksum(const void *data, size_t bytes) {
    uint64_t sum = UINT64_C(0x9e3779b97f4a7c15), word;
    for (size_t i = 0; i < bytes; i += sizeof word) {
        memcpy(&word, (const char *)data + i, sizeof word);
        sum = (sum ^ word) * UINT64_C(0xff51afd7ed558ccd);
        sum ^= sum >> 32;
    }
    return sum;
}

uint64_t attn_blob_checksum(const struct attn_blob_header *header) {
    struct attn_blob_header without = *header;
    without.checksum = 0;
    return checksum(&without, sizeof without);
}

static struct attn_format format_of(const struct attn_blob_weight *w) {
    return (struct attn_format){(attn_type)w->type, w->cols, w->k_unit, w->beside, (uint8_t)w->flip, 0};
}

static bool same_format(const struct attn_format *a, const struct attn_format *b) {
    return a->type == b->type && a->cols == b->cols && a->k_unit == b->k_unit && a->beside == b->beside &&
           a->flip == b->flip;
}

/* Scales of each column. */
static size_t scale_blocks(const struct attn_packed *packed, attn_type type) {
    return attn_has_blocks(&packed->scaling) ? packed->k / packed->scaling.block : type == ATTN_INT8 ? 1 : 0;
}

void attn_blob_layout(struct attn_blob *blob, struct attn_arena *arena) {
    attn_arena_take(arena, 1, sizeof blob->header);
    for (uint32_t i = 0; i < blob->header.weights; i++) {
        const struct attn_blob_weight *w = &blob->header.w[i];
        struct attn_packed_reader *reader = &blob->weights[i];
        reader->format = format_of(w);
        reader->packed = (struct attn_packed){
            .k = (size_t)w->k,
            .n = (size_t)w->n,
            .scaling = {.block = w->block, .type = (attn_type)w->scale_type, .has_zero_point = w->has_zero_point}};
        attn_packed_take(&reader->packed, &reader->format, w->has_bias, arena);
    }
}

/* ---- Export ---- */

attn_status attn_blob_table(attn_isa isa, const struct attn_kernels **table, attn_error *error) {
    *table = attn_table(isa);
    if (*table) /* where the ISA runs here, the table that calls take: the header has the name of its kernel */
        attn_table_for(isa, table);
    return *table || isa == ATTN_ISA_BEST ? ATTN_OK : attn_fail(ATTN_UNKNOWN_ISA, "isa", error);
}

struct attn_blob attn_blob_of(enum attn_blob_kind kind, attn_arithmetic arithmetic) {
    struct attn_blob blob = {.header = {.byte_order = BLOB_BYTE_ORDER,
                                        .version = BLOB_VERSION,
                                        .library = ATTN_VERSION,
                                        .kind = (uint32_t)kind,
                                        .arithmetic = (uint32_t)arithmetic}};
    memcpy(blob.header.magic, blob_magic, sizeof blob_magic);
    return blob;
}

/* The class whose reference the weight's products return; of BF16 the portable one. */
static enum attn_class class_of(const struct attn_packed *packed) {
    bool float32 = packed->kernel->arithmetic == ATTN_CLASS_F32;
    return float32 ? ATTN_CLASS_F32 : attn_class_of_weights(packed->kernel->b.type, &packed->scaling);
}

/* Whether rows stay floats though the type alone says that they are quantised. */
static bool is_dequantised(attn_type type, uint32_t class_of_type) {
    return type == ATTN_INT4 && class_of_type == ATTN_CLASS_F32;
}

/* A weight's block as attn_linear says it. */
static size_t linear_block(const struct attn_scaling *scaling) {
    return attn_has_blocks(scaling) ? scaling->block : 0;
}

void attn_blob_add(struct attn_blob *blob, const struct attn_packed *packed, const struct attn_kernels *table) {
    struct attn_blob_weight *w = &blob->header.w[blob->header.weights++];
    attn_type type = packed->kernel->b.type;
    uint32_t class_of_type = (uint32_t)class_of(packed);
    const attn_linear linear = {
        .type = type, .block = linear_block(&packed->scaling), .dequantised = is_dequantised(type, class_of_type)};
    const struct attn_gemm_kernel *kernel =
        table ? attn_gemm_for_linear(table, &linear, (attn_arithmetic)blob->header.arithmetic) : packed->kernel;
    *w = (struct attn_blob_weight){.k = packed->k,
                                   .n = packed->n,
                                   .class_of_type = class_of_type,
                                   .type = (uint32_t)type,
                                   .cols = (uint32_t)kernel->b.cols,
                                   .k_unit = (uint32_t)kernel->b.k_unit,
                                   .beside = (uint32_t)kernel->b.beside,
                                   .flip = kernel->b.flip,
                                   .block = (uint32_t)packed->scaling.block,
                                   .scale_type = (uint32_t)packed->scaling.type,
                                   .has_zero_point = packed->scaling.has_zero_point,
                                   .has_bias = packed->bias != NULL};
    size_t length = strlen(kernel->name);
    memcpy(w->kernel, kernel->name, attn_min(length, sizeof w->kernel - 1));
}

attn_status attn_blob_check_apart(const struct attn_packed *packed, const void *memory, size_t bytes,
                                  attn_error *error) {
    const struct attn_panels *panels = &packed->panels;
    size_t count = packed->n / panels->cols + (packed->n % panels->cols != 0);
    RETURN_IF_ERROR(attn_check_disjoint(memory, bytes, panels->data, count * panels->stride, "blob", error));
    size_t biases = packed->bias ? packed->n * sizeof *packed->bias : 0;
    return attn_check_disjoint(memory, bytes, packed->bias, biases, "blob", error);
}

void attn_blob_write(struct attn_blob *blob, const struct attn_packed *const *packed, void *memory) {
    struct attn_arena arena = {.base = memory};
    struct attn_blob_header *header = &blob->header;
    attn_blob_layout(blob, &arena);
    memset(memory, 0, arena.used);
    for (uint32_t i = 0; i < header->weights; i++) {
        const struct attn_packed_reader *to = &blob->weights[i], from = {packed[i]->kernel->b, *packed[i]};
        struct attn_weight_source source = attn_packed_source(&from);
        attn_repack(&to->format, &to->packed, &source);
        if (to->packed.bias)
            memcpy((float *)to->packed.bias, packed[i]->bias, packed[i]->n * sizeof(float));
    }
    header->bytes = arena.used;
    header->data_checksum = checksum((char *)memory + sizeof *header, arena.used - sizeof *header);
    header->checksum = attn_blob_checksum(header);
    memcpy(memory, header, sizeof *header);
}

/* ---- Import ---- */

static attn_status check_import(const attn_import_config *config, attn_error *error) {
    size_t least = sizeof(struct attn_blob_header);
    RETURN_IF_ERROR(attn_check_pointer(config, "config", error));
    RETURN_IF_ERROR(attn_check_enum((int)config->mode, ATTN_IMPORT_COPY, "mode", error));
    RETURN_IF_ERROR(attn_check_pointer(config->blob, "blob", error));
    if ((uintptr_t)config->blob % ATTN_ALIGNMENT != 0)
        return attn_fail(ATTN_MISALIGNED, "blob", error);
    return config->blob_bytes < least ? attn_fail_size(ATTN_TOO_SMALL, "blob_bytes", least, config->blob_bytes, error)
                                      : ATTN_OK;
}

static attn_status check_header(const struct attn_blob_header *header, size_t given, enum attn_blob_kind kind,
                                attn_error *error) {
    if (memcmp(header->magic, blob_magic, sizeof blob_magic) != 0)
        return attn_fail(ATTN_BAD_VALUE, "blob.magic", error);
    if (header->byte_order != BLOB_BYTE_ORDER)
        return attn_fail(ATTN_MISMATCH, "blob.byte_order", error);
    if (header->version != BLOB_VERSION)
        return attn_fail_size(ATTN_MISMATCH, "blob.version", BLOB_VERSION, header->version, error);
    if (header->checksum != attn_blob_checksum(header))
        return attn_fail(ATTN_BAD_VALUE, "blob.checksum", error);
    if (header->kind != (uint32_t)kind || header->weights != (kind == ATTN_BLOB_GEMM ? 1 : ATTN_BLOB_WEIGHTS))
        return attn_fail(ATTN_MISMATCH, "blob.kind", error);
    if (header->heads > PTRDIFF_MAX || header->kv_heads > PTRDIFF_MAX || header->head_size > PTRDIFF_MAX ||
        header->value_size > PTRDIFF_MAX)
        return attn_fail(ATTN_BAD_VALUE, "blob.config", error);
    if (header->bytes > given)
        return attn_fail_size(ATTN_TOO_SMALL, "blob_bytes", (size_t)header->bytes, given, error);
    return ATTN_OK;
}

/* What the checks of an attn_linear do not cover. */
static attn_status check_weight(const struct attn_blob_weight *w, attn_error *error) {
    if (w->k > PTRDIFF_MAX || w->n > PTRDIFF_MAX || w->has_bias > 1 || w->has_zero_point > 1)
        return attn_fail(ATTN_BAD_VALUE, "blob.config", error);
    attn_type type = (attn_type)w->type;
    const struct attn_scaling scaling = {.block = w->block};
    return w->class_of_type == (uint32_t)attn_class_of_weights(type, &scaling) || is_dequantised(type, w->class_of_type)
               ? ATTN_OK
               : attn_fail(ATTN_BAD_VALUE, "blob.class", error);
}

attn_status attn_blob_open(const attn_import_config *config, enum attn_blob_kind kind, struct attn_blob *blob,
                           attn_error *error) {
    const struct attn_kernels *table;
    RETURN_IF_ERROR(check_import(config, error));
    attn_status status = attn_table_for(config->isa, &table);
    if (status != ATTN_OK)
        return attn_fail(status, "isa", error);
    *blob = (struct attn_blob){0};
    memcpy(&blob->header, config->blob, sizeof blob->header);
    RETURN_IF_ERROR(check_header(&blob->header, config->blob_bytes, kind, error));
    for (uint32_t i = 0; i < blob->header.weights; i++)
        RETURN_IF_ERROR(check_weight(&blob->header.w[i], error));
    return ATTN_OK;
}

attn_linear attn_blob_linear(const struct attn_blob *blob, const attn_import_config *config, int i) {
    const struct attn_blob_weight *w = &blob->header.w[i];
    bool blocks = w->type == ATTN_INT4 || w->type == ATTN_INT8;
    const struct attn_scaling scaling = {.block = w->block};
    return (attn_linear){.weight = config->blob,
                         .bias = w->has_bias ? config->blob : NULL,
                         .type = (attn_type)w->type,
                         .scale_type = (attn_type)w->scale_type,
                         .block = blocks ? linear_block(&scaling) : 0,
                         .zero_points = w->has_zero_point ? config->blob : NULL,
                         .dequantised = is_dequantised((attn_type)w->type, w->class_of_type)};
}

/* The format, and that the header says of the weight what the config says. */
static attn_status check_format(const struct attn_blob_weight *w, const struct attn_packed *packed, attn_error *error) {
    struct attn_format format = format_of(w);
    if (w->k != packed->k || w->n != packed->n || w->block != packed->scaling.block)
        return attn_fail(ATTN_BAD_VALUE, "blob.config", error);
    return w->flip <= UINT8_MAX && attn_format_is_known(&format, &packed->scaling)
               ? ATTN_OK
               : attn_fail(ATTN_BAD_VALUE, "blob.format", error);
}

/* A byte holds a zero point, of which of INT4 only 0 to 16 can have been written: some kernels take it with a sign. */
static attn_status check_zero_points(const struct attn_weight_source *source, const struct attn_packed *packed,
                                     attn_type type, const char *name, attn_error *error) {
    const size_t most = type == ATTN_INT4 ? 16 : UINT8_MAX;
    size_t blocks = packed->scaling.has_zero_point ? packed->k / packed->scaling.block : 0;
    for (size_t j = 0; j < packed->n; j++)
        for (size_t b = 0; b < blocks; b++)
            if (source->zero_point(source->context, j, b) > most)
                return attn_fail(ATTN_BAD_VALUE, name, error);
    return ATTN_OK;
}

attn_status attn_blob_map(const attn_import_config *config, struct attn_blob *blob,
                          const struct attn_packed *const *packed, const struct attn_linear_names *const *names,
                          attn_error *error) {
    const struct attn_blob_header *header = &blob->header;
    /* Nothing is written through it: these are the addresses of what is there. */
    struct attn_arena arena = {.base = (char *)(uintptr_t)config->blob};
    for (uint32_t i = 0; i < header->weights; i++)
        RETURN_IF_ERROR(check_format(&header->w[i], packed[i], error));
    attn_blob_layout(blob, &arena);
    if (arena.overflow || arena.used != header->bytes)
        return attn_fail(ATTN_BAD_VALUE, "blob.bytes", error);
    if (config->verify && header->data_checksum != checksum((const char *)config->blob + sizeof *header,
                                                            (size_t)header->bytes - sizeof *header))
        return attn_fail(ATTN_BAD_VALUE, "blob.data", error);
    for (uint32_t i = 0; i < header->weights; i++) {
        const struct attn_packed_reader *reader = &blob->weights[i];
        struct attn_weight_source source = attn_packed_source(reader);
        RETURN_IF_ERROR(attn_check_scales(&source, reader->packed.scaling.type, reader->packed.n,
                                          scale_blocks(&reader->packed, reader->format.type), names[i]->scales, error));
        RETURN_IF_ERROR(check_zero_points(&source, &reader->packed, reader->format.type, names[i]->zero_points, error));
    }
    return ATTN_OK;
}

/* The kernel of a class that reads this format, of the table or one below. Scalar's does not count as one where there
 * are others. */
static const struct attn_gemm_kernel *kernel_that_reads(const struct attn_kernels *table, enum attn_class arithmetic,
                                                        const struct attn_format *format) {
    for (const struct attn_kernels *t = table; t && (t->lower || t == table); t = t->lower)
        for (const struct attn_gemm_kernel *const *kernel = t->gemm; kernel && *kernel; kernel++)
            if ((*kernel)->arithmetic == arithmetic && same_format(&(*kernel)->b, format))
                return *kernel;
    return NULL;
}

attn_status attn_blob_use(const attn_import_config *config, const struct attn_blob *blob, int i,
                          const struct attn_kernels *table, struct attn_packed *packed, struct attn_arena *arena,
                          attn_error *error) {
    const struct attn_packed_reader *reader = &blob->weights[i];
    const struct attn_gemm_kernel *preferred = packed->kernel;
    bool has_bias = reader->packed.bias != NULL;
    *packed = reader->packed;
    packed->kernel = kernel_that_reads(table, preferred->arithmetic, &reader->format);
    if (packed->kernel && config->mode != ATTN_IMPORT_COPY)
        return ATTN_OK;
    if (config->mode == ATTN_IMPORT_IN_PLACE)
        return attn_fail(ATTN_MISMATCH, "blob.format", error);
    packed->kernel = preferred;
    attn_packed_take(packed, &preferred->b, has_bias, arena);
    return ATTN_OK;
}

void attn_blob_fill(const struct attn_blob *blob, int i, const struct attn_packed *packed) {
    const struct attn_packed_reader *reader = &blob->weights[i];
    struct attn_weight_source source = attn_packed_source(reader);
    if (packed->panels.data == reader->packed.panels.data)
        return;
    attn_repack(&packed->kernel->b, packed, &source);
    if (packed->bias)
        memcpy((float *)packed->bias, reader->packed.bias, packed->n * sizeof(float));
}
