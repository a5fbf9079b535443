/* attn_gemm: argument checks, object layout. */
#include "ops/gemm.h"
#include "api/check.h"
#include "dispatch.h"
#include "verbose.h"

struct attn_gemm {
    struct attn_packed packed;
    const struct attn_copy_kernel *copy;
};

static attn_status layout_gemm(const attn_gemm_config *config, struct attn_arena *arena, struct attn_gemm **gemm,
                               struct attn_packed *packed, const struct attn_kernels **table, const char **field) {
    RETURN_IF_ERROR(attn_check_pointer(config, "config", field));
    RETURN_IF_ERROR(attn_check_size(config->k, 1, "k", field));
    RETURN_IF_ERROR(attn_check_size(config->n, 1, "n", field));
    attn_status status = attn_table_for(config->isa, table);
    if (status != ATTN_OK)
        return attn_fail(status, "isa", field);
    *gemm = attn_arena_take(arena, 1, sizeof **gemm);
    attn_packed_layout(packed, attn_gemm_for(*table, ATTN_CLASS_F32), config->k, config->n, config->w.bias != NULL,
                       arena);
    return arena->overflow ? attn_fail(ATTN_OVERFLOW, "n", field) : ATTN_OK;
}

attn_status attn_gemm_size(const attn_gemm_config *config, size_t *bytes, const char **field) {
    struct attn_arena arena = {0};
    struct attn_gemm *gemm;
    struct attn_packed packed;
    const struct attn_kernels *table;
    RETURN_IF_ERROR(layout_gemm(config, &arena, &gemm, &packed, &table, field));
    RETURN_IF_ERROR(attn_check_pointer(bytes, "bytes", field));
    *bytes = arena.used;
    return ATTN_OK;
}

attn_status attn_gemm_create(const attn_gemm_config *config, void *memory, size_t bytes, attn_gemm **gemm,
                             const char **field) {
    size_t needed;
    RETURN_IF_ERROR(attn_gemm_size(config, &needed, field));
    RETURN_IF_ERROR(
        attn_check_linear(&config->w, config->k, config->n, "w.weight", "w.in_stride", "w.out_stride", field));
    RETURN_IF_ERROR(attn_check_pointer(gemm, "gemm", field));
    RETURN_IF_ERROR(attn_check_memory(memory, bytes, needed, "memory", field));

    struct attn_arena arena = {.base = memory};
    struct attn_packed packed;
    const struct attn_kernels *table;
    RETURN_IF_ERROR(layout_gemm(config, &arena, gemm, &packed, &table, field));
    attn_packed_fill(&packed, &config->w);
    (*gemm)->packed = packed;
    (*gemm)->copy = attn_table_copy(table);
    attn_verbose("gemm %zu x %zu, %s", config->k, config->n, packed.kernel->name);
    return ATTN_OK;
}

/* Takes memory for a copy of the rows, if the product is faster on one. */
static float *layout_rows(const struct attn_packed *w, size_t m, size_t x_stride, struct attn_arena *arena) {
    return attn_gemm_wants_rows(w, m, x_stride) ? attn_take_rows(arena, m, w->k) : NULL;
}

attn_status attn_gemm_workspace(const attn_gemm *gemm, size_t m, size_t x_stride, size_t *bytes, const char **field) {
    struct attn_arena arena = {0};
    RETURN_IF_ERROR(attn_check_pointer(gemm, "gemm", field));
    RETURN_IF_ERROR(attn_check_size(m, 0, "m", field));
    RETURN_IF_ERROR(attn_check_pointer(bytes, "bytes", field));
    layout_rows(&gemm->packed, m, x_stride, &arena);
    if (arena.overflow)
        return attn_fail(ATTN_OVERFLOW, "m", field);
    *bytes = arena.used;
    return ATTN_OK;
}

/* If the product is faster on a copy of the rows, makes one and sets *x and *x_stride to it. */
static attn_status copy_rows(const attn_gemm *gemm, size_t m, const float **x, size_t *x_stride, void *workspace,
                             size_t bytes, const char **field) {
    size_t needed, k = gemm->packed.k;
    RETURN_IF_ERROR(attn_gemm_workspace(gemm, m, *x_stride, &needed, field));
    RETURN_IF_ERROR(attn_check_memory(workspace, bytes, needed, "workspace", field));
    float *rows = layout_rows(&gemm->packed, m, *x_stride, &(struct attn_arena){.base = workspace});
    if (rows) {
        gemm->copy->rows(m, k, *x, *x_stride, rows, attn_row_stride(k));
        *x = rows;
        *x_stride = attn_row_stride(k);
    }
    return ATTN_OK;
}

static attn_status run_gemm(const attn_gemm *gemm, size_t m, const float *x, size_t x_stride, float *y, size_t y_stride,
                            void *workspace, size_t bytes, const attn_parallel *parallel, const char **field) {
    RETURN_IF_ERROR(attn_check_pointer(gemm, "gemm", field));
    RETURN_IF_ERROR(attn_check_size(m, 0, "m", field));
    RETURN_IF_ERROR(attn_check_parallel(parallel, "parallel.run", field));
    if (m == 0)
        return ATTN_OK;
    RETURN_IF_ERROR(attn_check_pointer(x, "x", field));
    RETURN_IF_ERROR(attn_check_pointer(y, "y", field));
    const struct attn_packed *w = &gemm->packed;
    if (m > 1 && x_stride < w->k)
        return attn_fail(ATTN_BAD_STRIDE, "x_stride", field);
    if (m > 1 && y_stride < w->n)
        return attn_fail(ATTN_BAD_STRIDE, "y_stride", field);
    struct attn_strided in = {x, {1, 1, m}, {0, 0, x_stride}, w->k}, out = {y, {1, 1, m}, {0, 0, y_stride}, w->n};
    struct attn_named_bytes in_range = {.name = "x"}, out_range = {.name = "y"};
    RETURN_IF_ERROR(attn_check_extent(in.dims, in.strides, in.width, &in_range.bytes, "x_stride", field));
    RETURN_IF_ERROR(attn_check_extent(out.dims, out.strides, out.width, &out_range.bytes, "y_stride", field));
    RETURN_IF_ERROR(attn_check_input(&out, &out_range, &in, &in_range, field));
    if (workspace)
        RETURN_IF_ERROR(copy_rows(gemm, m, &x, &x_stride, workspace, bytes, field));
    attn_op_gemm(w, m, x, x_stride, y, y_stride, parallel);
    return ATTN_OK;
}

static void describe_gemm(const attn_gemm *gemm, size_t m, const attn_parallel *parallel, struct attn_line *line) {
    attn_line_add(line, " %s", gemm->packed.kernel->name);
    attn_line_size(line, "m", m);
    attn_line_size(line, "k", gemm->packed.k);
    attn_line_size(line, "n", gemm->packed.n);
    attn_line_parallel(line, parallel);
    attn_line_zero(line, "m", m, "nothing is written");
}

attn_status attn_gemm_run(const attn_gemm *gemm, size_t m, const float *x, size_t x_stride, float *y, size_t y_stride,
                          void *workspace, size_t bytes, const attn_parallel *parallel, const char **field) {
    ATTN_RETURN_CALL("gemm_run", run_gemm(gemm, m, x, x_stride, y, y_stride, workspace, bytes, parallel, field),
                     describe_gemm(gemm, m, parallel, &line));
}
