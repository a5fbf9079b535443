/* attn_gemm: argument checks, object layout. */
#include "ops/gemm.h"
#include "api/blob.h"
#include "api/check.h"
#include "dispatch.h"
#include "ops/parallel.h"
#include "verbose.h"

struct attn_gemm {
    const struct attn_kernels *table;
    attn_arithmetic arithmetic;
    struct attn_packed packed;
};

static const struct attn_linear_names names_w = ATTN_LINEAR_NAMES("w"), names_blob = ATTN_LINEAR_NAMES("blob.w");

static attn_status layout_gemm(const attn_gemm_config *config, struct attn_arena *arena, struct attn_gemm **gemm,
                               struct attn_packed *packed, const struct attn_kernels **table, attn_error *error) {
    RETURN_IF_ERROR(attn_check_pointer(config, "config", error));
    RETURN_IF_ERROR(attn_check_size(config->k, 1, "k", error));
    RETURN_IF_ERROR(attn_check_size(config->n, 1, "n", error));
    RETURN_IF_ERROR(attn_check_arithmetic(config->arithmetic, "arithmetic", error));
    attn_status status = attn_table_for(config->isa, table);
    if (status != ATTN_OK)
        return attn_fail(status, "isa", error);
    RETURN_IF_ERROR(attn_check_linear_type(&config->w, config->k, &names_w, error));
    *gemm = attn_arena_take(arena, 1, sizeof **gemm);
    attn_packed_layout(packed, attn_gemm_for_linear(*table, &config->w, config->arithmetic), config->k, config->n,
                       &config->w, arena);
    return arena->overflow ? attn_fail(ATTN_OVERFLOW, "n", error) : ATTN_OK;
}

attn_status attn_gemm_size(const attn_gemm_config *config, size_t *bytes, attn_error *error) {
    struct attn_arena arena = {0};
    struct attn_gemm *gemm;
    struct attn_packed packed;
    const struct attn_kernels *table;
    RETURN_IF_ERROR(layout_gemm(config, &arena, &gemm, &packed, &table, error));
    RETURN_IF_ERROR(attn_check_pointer(bytes, "bytes", error));
    *bytes = arena.used;
    return ATTN_OK;
}

attn_status attn_gemm_create(const attn_gemm_config *config, void *memory, size_t bytes, attn_gemm **gemm,
                             attn_error *error) {
    size_t needed;
    RETURN_IF_ERROR(attn_gemm_size(config, &needed, error));
    RETURN_IF_ERROR(attn_check_linear(&config->w, config->k, config->n, &names_w, error));
    RETURN_IF_ERROR(attn_check_pointer(gemm, "gemm", error));
    RETURN_IF_ERROR(attn_check_memory(memory, bytes, needed, "memory", error));

    struct attn_arena arena = {.base = memory};
    struct attn_packed packed;
    const struct attn_kernels *table;
    RETURN_IF_ERROR(layout_gemm(config, &arena, gemm, &packed, &table, error));
    attn_packed_fill(&packed, &config->w);
    **gemm = (attn_gemm){table, config->arithmetic, packed};
    attn_verbose("gemm %zu x %zu, %s", config->k, config->n, packed.kernel->name);
    return ATTN_OK;
}

/* ---- Export and import ---- */

static attn_status layout_export(const attn_gemm *gemm, attn_isa isa, struct attn_blob *blob, struct attn_arena *arena,
                                 attn_error *error) {
    const struct attn_kernels *table;
    RETURN_IF_ERROR(attn_check_pointer(gemm, "gemm", error));
    RETURN_IF_ERROR(attn_blob_table(isa, &table, error));
    *blob = attn_blob_of(ATTN_BLOB_GEMM, gemm->arithmetic);
    attn_blob_add(blob, &gemm->packed, table);
    attn_blob_layout(blob, arena);
    return arena->overflow ? attn_fail(ATTN_OVERFLOW, "gemm", error) : ATTN_OK;
}

attn_status attn_gemm_export_size(const attn_gemm *gemm, attn_isa isa, size_t *bytes, attn_error *error) {
    struct attn_arena arena = {0};
    struct attn_blob blob;
    RETURN_IF_ERROR(layout_export(gemm, isa, &blob, &arena, error));
    RETURN_IF_ERROR(attn_check_pointer(bytes, "bytes", error));
    *bytes = arena.used;
    return ATTN_OK;
}

attn_status attn_gemm_export(const attn_gemm *gemm, attn_isa isa, void *blob, size_t bytes, attn_error *error) {
    struct attn_arena arena = {0};
    struct attn_blob made;
    RETURN_IF_ERROR(layout_export(gemm, isa, &made, &arena, error));
    RETURN_IF_ERROR(attn_check_memory(blob, bytes, arena.used, "blob", error));
    RETURN_IF_ERROR(attn_blob_check_apart(&gemm->packed, blob, arena.used, error));
    attn_blob_write(&made, (const struct attn_packed *[]){&gemm->packed}, blob);
    return ATTN_OK;
}

/* Reads and checks the blob, once: what is checked must be what is used, if the blob changes meanwhile too. */
static attn_status open_import(const attn_import_config *config, struct attn_blob *blob, struct attn_gemm *filled,
                               attn_error *error) {
    struct attn_gemm *object;
    struct attn_arena measure = {0};
    RETURN_IF_ERROR(attn_blob_open(config, ATTN_BLOB_GEMM, blob, error));
    attn_gemm_config stored = {.isa = config->isa,
                               .k = (size_t)blob->header.w[0].k,
                               .n = (size_t)blob->header.w[0].n,
                               .w = attn_blob_linear(blob, config, 0),
                               .arithmetic = (attn_arithmetic)blob->header.arithmetic};
    filled->arithmetic = stored.arithmetic;
    attn_status status = layout_gemm(&stored, &measure, &object, &filled->packed, &filled->table, NULL);
    if (status != ATTN_OK)
        return attn_fail(status, "blob.config", error);
    return attn_blob_map(config, blob, (const struct attn_packed *[]){&filled->packed},
                         (const struct attn_linear_names *[]){&names_blob}, error);
}

/* Fills *filled, whose panels lie in the blob or, with an arena that has memory, there. May be called twice. */
static attn_status layout_import(const attn_import_config *config, const struct attn_blob *blob,
                                 struct attn_arena *arena, struct attn_gemm *filled, struct attn_gemm **object,
                                 attn_error *error) {
    *object = attn_arena_take(arena, 1, sizeof **object);
    RETURN_IF_ERROR(attn_blob_use(config, blob, 0, filled->table, &filled->packed, arena, error));
    return arena->overflow ? attn_fail(ATTN_OVERFLOW, "blob.config", error) : ATTN_OK;
}

attn_status attn_gemm_import_size(const attn_import_config *config, size_t *bytes, attn_error *error) {
    struct attn_arena arena = {0};
    struct attn_blob blob;
    attn_gemm filled, *object;
    RETURN_IF_ERROR(open_import(config, &blob, &filled, error));
    RETURN_IF_ERROR(layout_import(config, &blob, &arena, &filled, &object, error));
    RETURN_IF_ERROR(attn_check_pointer(bytes, "bytes", error));
    *bytes = arena.used;
    return ATTN_OK;
}

attn_status attn_gemm_import(const attn_import_config *config, void *memory, size_t bytes, attn_gemm **gemm,
                             attn_error *error) {
    struct attn_arena measure = {0}, arena = {.base = memory};
    struct attn_blob blob;
    attn_gemm filled, *object;
    RETURN_IF_ERROR(open_import(config, &blob, &filled, error));
    RETURN_IF_ERROR(layout_import(config, &blob, &measure, &filled, &object, error));
    RETURN_IF_ERROR(attn_check_pointer(gemm, "gemm", error));
    RETURN_IF_ERROR(attn_check_memory(memory, bytes, measure.used, "memory", error));
    RETURN_IF_ERROR(layout_import(config, &blob, &arena, &filled, &object, error));
    attn_blob_fill(&blob, 0, &filled.packed);
    *object = filled;
    *gemm = object;
    attn_verbose("gemm %zu x %zu, %s, imported", filled.packed.k, filled.packed.n, filled.packed.kernel->name);
    return ATTN_OK;
}

/* ---- Run ---- */

/* Checks everything but data. *bytes: what each task needs. */
static attn_status check_gemm_run(const attn_gemm *gemm, const attn_gemm_run_args *args, size_t *bytes,
                                  attn_error *error) {
    RETURN_IF_ERROR(attn_check_pointer(gemm, "gemm", error));
    RETURN_IF_ERROR(attn_check_pointer(args, "args", error));
    RETURN_IF_ERROR(attn_check_size(args->m, 0, "m", error));
    RETURN_IF_ERROR(attn_check_parallel(args->parallel, "parallel.run", error));
    RETURN_IF_ERROR(attn_check_float_type(args->x.type, "x.type", error));
    RETURN_IF_ERROR(attn_check_float_type(args->y.type, "y.type", error));
    return attn_gemm_spare_bytes(&gemm->packed, args->m, args->x.type, args->y.type, bytes)
               ? ATTN_OK
               : attn_fail(ATTN_OVERFLOW, "m", error);
}

/* The memory of all tasks. */
static bool take_spare(const attn_gemm_run_args *args, size_t bytes, struct attn_arena *arena, char **spare) {
    *spare = bytes ? attn_arena_take(arena, attn_threads(args->parallel), bytes) : NULL;
    return !arena->overflow;
}

attn_status attn_gemm_workspace(const attn_gemm *gemm, const attn_gemm_run_args *args, size_t *bytes,
                                attn_error *error) {
    struct attn_arena arena = {0};
    size_t each;
    char *spare;
    RETURN_IF_ERROR(check_gemm_run(gemm, args, &each, error));
    RETURN_IF_ERROR(attn_check_pointer(bytes, "bytes", error));
    if (!take_spare(args, each, &arena, &spare))
        return attn_fail(ATTN_OVERFLOW, "m", error);
    *bytes = arena.used;
    return ATTN_OK;
}

static attn_status run_gemm(const attn_gemm *gemm, const attn_gemm_run_args *args, attn_error *error) {
    struct attn_arena measure = {0}, arena = {0};
    struct attn_gemm_call call = {0};
    RETURN_IF_ERROR(check_gemm_run(gemm, args, &call.spare_bytes, error));
    if (args->m == 0)
        return ATTN_OK;
    const struct attn_packed *w = &gemm->packed;
    attn_tensor to = attn_as_input(&args->y);
    struct attn_strided x = attn_rows_of(&args->x, 1, args->m, w->k), y = attn_rows_of(&to, 1, args->m, w->n);
    struct attn_named_bytes x_range, y_range;
    x.any_float = y.any_float = true;
    RETURN_IF_ERROR(attn_check_rows(&x, &x_range, &attn_names_x, error));
    RETURN_IF_ERROR(attn_check_rows(&y, &y_range, &attn_names_y, error));
    RETURN_IF_ERROR(attn_check_input(&y, &y_range, &x, &x_range, error));
    if (!take_spare(args, call.spare_bytes, &measure, &call.spare))
        return attn_fail(ATTN_OVERFLOW, "m", error);
    RETURN_IF_ERROR(attn_check_memory(args->workspace, args->workspace_bytes, measure.used, "workspace", error));
    arena.base = args->workspace;
    take_spare(args, call.spare_bytes, &arena, &call.spare);
    call.table = gemm->table;
    call.w = w;
    call.m = args->m;
    call.x = attn_matrix_of(args->x.data, args->x.type, args->x.row_stride);
    call.y = attn_matrix_of(args->y.data, args->y.type, args->y.row_stride);
    call.parallel = args->parallel;
    attn_op_gemm(&call);
    return ATTN_OK;
}

static void describe_gemm(const attn_gemm *gemm, const attn_gemm_run_args *args, struct attn_line *line) {
    attn_line_add(line, " %s", gemm->packed.kernel->name);
    attn_line_size(line, "m", args->m);
    attn_line_size(line, "k", gemm->packed.k);
    attn_line_size(line, "n", gemm->packed.n);
    attn_line_parallel(line, args->parallel);
    attn_line_zero(line, "m", args->m, "nothing is written");
}

attn_status attn_gemm_run(const attn_gemm *gemm, const attn_gemm_run_args *args, attn_error *error) {
    ATTN_RETURN_CALL("gemm_run", run_gemm(gemm, args, error), describe_gemm(gemm, args, &line));
}
