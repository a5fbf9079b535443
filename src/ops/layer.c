#include "ops/layer.h"

#include "ops/visible.h"

/* ---- Rows of sequences, one after the other ---- */

/* The rows of a [batch, len] tensor under one number: row i of sequence b is row b * len + i, or cu[b] + i if
 * packed. */
struct rows {
    const void *data;
    attn_type type;
    size_t batch_stride, row_stride, len;
    attn_ints cu;
};

static size_t row_number(const struct rows *x, size_t b, size_t i) {
    return attn_ints_given(&x->cu) ? (size_t)attn_ints_at(&x->cu, b) + i : b * x->len + i;
}

/* Elements before row number `n`. */
static size_t row_offset(const struct rows *x, size_t n) {
    return attn_ints_given(&x->cu) ? n * x->row_stride : n / x->len * x->batch_stride + n % x->len * x->row_stride;
}

/* Whether row n lies row_stride behind row n - 1. */
static bool row_follows(const struct rows *x, size_t n) {
    return attn_ints_given(&x->cu) || n % x->len != 0 || x->batch_stride == x->len * x->row_stride;
}

static size_t total_rows(const attn_cu_lens *cu, size_t batch, size_t len, struct attn_arena *arena) {
    size_t rows = 0;
    if (attn_ints_given(&cu->cu))
        return cu->total;
    if (!attn_mul(batch, len, &rows))
        arena->overflow = true;
    return rows;
}

/* What projected rows are kept as: where they are to be rounded to BF16 and nothing comes before that, BF16. */
static attn_type projected_type(attn_type stored, const attn_rotary *rotary) {
    return stored == ATTN_BF16 && !rotary ? ATTN_BF16 : ATTN_F32;
}

/* What the merged heads are kept as: W_o's product would round them, too. */
static attn_type merged_type(const struct attn_layer *layer) {
    return attn_class_is_bf16(layer->w_o.kernel->arithmetic) ? ATTN_BF16 : ATTN_F32;
}

/* The heads of rows in the workspace, as a tensor. A row has `width` elements. */
static attn_tensor split_heads(const void *rows, attn_type type, size_t len, size_t width, size_t head_size) {
    size_t stride = attn_row_stride(width, type);
    return (attn_tensor){
        .data = rows, .type = type, .batch_stride = len * stride, .head_stride = head_size, .row_stride = stride};
}

/* ---- Projections ---- */

/* What all products of a call share. */
struct projector {
    const struct attn_kernels *table;
    attn_type type; /* of projected rows */
    struct attn_layer_spare spare;
    const attn_parallel *parallel;
};

/* From row number `n` on. */
static struct attn_matrix rows_matrix(const struct rows *x, size_t n) {
    return attn_matrix_of((const char *)x->data + row_offset(x, n) * attn_type_size(x->type), x->type, x->row_stride);
}

/* Rows begin .. end - 1, possibly none, that wait to go into one product: each lies row_stride behind the one
 * before. */
struct pending {
    size_t begin, end;
};

/* Row n of y = row n of x times w. */
static void project_pending(const struct projector *projector, const struct attn_packed *w, const struct rows *x,
                            const struct pending *rows, void *y) {
    if (rows->begin == rows->end) /* then the caller need not have given a pointer */
        return;
    size_t stride = attn_row_stride(w->n, projector->type);
    attn_op_gemm(
        &(struct attn_gemm_call){.table = projector->table,
                                 .w = w,
                                 .m = rows->end - rows->begin,
                                 .x = rows_matrix(x, rows->begin),
                                 .y = attn_matrix_of((char *)y + rows->begin * stride * attn_type_size(projector->type),
                                                     projector->type, stride),
                                 .spare = projector->spare.data,
                                 .spare_bytes = projector->spare.bytes,
                                 .parallel = projector->parallel});
}

/* Out of line: a copy for each caller would take 4 KB more. */
static __attribute__((noinline)) void project(const struct projector *projector, const struct attn_packed *w,
                                              const struct rows *x, size_t batch,
                                              struct attn_interval (*interval)(const void *context, size_t b),
                                              const void *context, void *y) {
    struct pending rows = {0, 0};
    for (size_t b = 0; b < batch; b++) {
        struct attn_interval used = interval(context, b);
        size_t begin = row_number(x, b, used.begin), end = row_number(x, b, used.end);
        if (begin == end)
            continue;
        if (rows.begin == rows.end || begin != rows.end || !row_follows(x, begin)) {
            project_pending(projector, w, x, &rows, y);
            rows.begin = begin;
        }
        rows.end = end;
    }
    project_pending(projector, w, x, &rows, y);
}

static struct attn_interval query_rows(const void *context, size_t b) {
    return (struct attn_interval){0, attn_sequence_of(context, b).q_len};
}

/* Keys and values that no row sees are neither projected nor read. */
static struct attn_interval visible_keys(const void *context, size_t b) {
    struct attn_sequence sequence = attn_sequence_of(context, b);
    return attn_sequence_interval(context, &sequence, b);
}

static struct attn_interval new_keys(const void *context, size_t b) {
    size_t row;
    return (struct attn_interval){0, attn_cache_new_keys(context, b, &row)};
}

/* ---- Forward ---- */

bool attn_layer_run_init(struct attn_layer_run *run, const struct attn_layer *layer, const attn_layer_args *args,
                         size_t kv_len, struct attn_longest longest) {
    size_t head_size = layer->head_size, value_size = layer->value_size;
    attn_type stored = args->cache ? args->cache->config.type : layer->kv_type;
    attn_type type = projected_type(stored, args->options.rotary);
    attn_tensor o = split_heads(NULL, merged_type(layer), args->q_len, layer->w_o.k, value_size);
    *run = (struct attn_layer_run){.layer = layer, .args = args};
    run->problem = (struct attn_problem){
        .table = layer->table,
        .batch = args->batch,
        .heads = layer->heads,
        .kv_heads = layer->kv_heads,
        .group = layer->heads / layer->kv_heads,
        .q_len = args->q_len,
        .kv_len = kv_len,
        .longest = longest,
        .head_size = head_size,
        .value_size = value_size,
        .scale = layer->scale,
        .q = split_heads(NULL, type, args->q_len, layer->w_q.n, head_size),
        .k = split_heads(NULL, type, kv_len, layer->w_k.n, head_size),
        .v = split_heads(NULL, type, kv_len, layer->w_v.n, value_size),
        .stored = stored,
        .arithmetic = layer->arithmetic,
        .o = attn_as_output(&o, NULL),
        .q_cu = args->q_cu.cu,
        .kv_cu = args->kv_cu.cu,
        .cache = args->cache,
        .options = &args->options,
        .parallel = args->parallel,
    };
    return attn_plan_make(&run->problem);
}

/* Takes memory to convert rows in: of the call's products one after the other. */
static void take_layer_spare(const struct attn_packed *const *w, const size_t *rows, const attn_type (*types)[2],
                             int count, const attn_parallel *parallel, struct attn_layer_spare *spare,
                             struct attn_arena *arena) {
    *spare = (struct attn_layer_spare){0};
    for (int i = 0; i < count; i++) {
        size_t bytes = 0;
        arena->overflow |= !attn_gemm_spare_bytes(w[i], rows[i], types[i][0], types[i][1], &bytes);
        spare->bytes = attn_max(spare->bytes, bytes);
    }
    spare->data = spare->bytes ? attn_arena_take(arena, attn_threads(parallel), spare->bytes) : NULL;
}

void attn_layer_run_layout(struct attn_layer_run *run, struct attn_arena *arena) {
    const struct attn_layer *layer = run->layer;
    const attn_layer_args *args = run->args;
    struct attn_problem *problem = &run->problem;
    size_t kv_rows = args->cache ? 0 : total_rows(&args->kv_cu, args->batch, problem->kv_len, arena);
    run->o_rows = total_rows(&args->q_cu, args->batch, args->q_len, arena);
    problem->q.data = run->q = attn_take_rows(arena, run->o_rows, layer->w_q.n, problem->q.type);
    problem->o.data = run->o = attn_take_rows(arena, run->o_rows, layer->w_o.k, problem->o.type);
    if (!args->cache) {
        problem->k.data = run->k = attn_take_rows(arena, kv_rows, layer->w_k.n, problem->k.type);
        problem->v.data = run->v = attn_take_rows(arena, kv_rows, layer->w_v.n, problem->v.type);
    }
    run->attention = attn_arena_take(arena, 1, problem->plan.workspace_bytes);
    take_layer_spare((const struct attn_packed *[]){&layer->w_q, &layer->w_o, &layer->w_k, &layer->w_v},
                     (const size_t[]){run->o_rows, run->o_rows, kv_rows, kv_rows},
                     (const attn_type[][2]){{args->q.type, problem->q.type},
                                            {problem->o.type, args->y.type},
                                            {args->k.type, problem->k.type},
                                            {args->v.type, problem->v.type}},
                     args->cache ? 2 : 4, args->parallel, &run->spare, arena);
}

static struct rows layer_rows_of(const attn_tensor *x, size_t len, attn_ints cu) {
    return (struct rows){x->data, x->type, x->batch_stride, x->row_stride, len, cu};
}

/* x, or a copy of its used rows if they alias where they are. The copy lies where the merged heads will lie later, if
 * it fits. */
static struct rows spread(const struct attn_layer_run *run, const struct rows *x, size_t size,
                          struct attn_interval (*interval)(const void *context, size_t b)) {
    const struct attn_problem *problem = &run->problem;
    size_t stride = attn_row_stride(run->layer->w_o.k, x->type);
    size_t rows = attn_ints_given(&x->cu) ? (size_t)attn_ints_at(&x->cu, problem->batch) : problem->batch * x->len;
    size_t element = attn_type_size(x->type), row_bytes = x->row_stride * element;
    bool aliases = x->type == ATTN_F32 && row_bytes % ATTN_ALIAS == 0;
    if (!aliases || problem->o.type != ATTN_F32 || size > stride || rows > run->o_rows)
        return *x;
    for (size_t b = 0; b < problem->batch; b++) {
        struct attn_interval used = interval(problem, b);
        size_t first = row_number(x, b, used.begin);
        if (used.begin < used.end)
            attn_table_copy(run->layer->table)
                ->rows(used.end - used.begin, size * element, attn_element_at(x->data, x->type, row_offset(x, first)),
                       row_bytes, (char *)run->o + first * stride * element, stride * element);
    }
    return (struct rows){run->o, x->type, x->len * stride, stride, x->len, x->cu};
}

static bool same_rows(const struct rows *x, const struct rows *y) {
    return x->data == y->data && x->type == y->type && x->batch_stride == y->batch_stride &&
           x->row_stride == y->row_stride && x->len == y->len && x->cu.i64 == y->cu.i64 && x->cu.i32 == y->cu.i32;
}

/* y = merged heads times W_o. */
static void project_output(const struct attn_layer_run *run, const struct projector *projector) {
    const struct attn_problem *problem = &run->problem;
    const struct attn_packed *w = &run->layer->w_o;
    const attn_tensor_out *y = &run->args->y;
    struct rows to = {y->data, y->type, y->batch_stride, y->row_stride, problem->q_len, problem->q_cu};
    size_t stride = attn_row_stride(w->k, problem->o.type);
    for (size_t b = 0, end; b < problem->batch; b = end) {
        size_t first = row_number(&to, b, 0), last = row_number(&to, b, attn_sequence_of(problem, b).q_len);
        for (end = b + 1; end < problem->batch && row_follows(&to, last); end++)
            last = row_number(&to, end, attn_sequence_of(problem, end).q_len);
        if (first < last)
            attn_op_gemm(&(struct attn_gemm_call){
                .table = projector->table,
                .w = w,
                .m = last - first,
                .x = attn_matrix_of((const char *)run->o + first * stride * attn_type_size(problem->o.type),
                                    problem->o.type, stride),
                .y = rows_matrix(&to, first),
                .spare = projector->spare.data,
                .spare_bytes = projector->spare.bytes,
                .parallel = projector->parallel});
    }
}

void attn_op_layer_forward(struct attn_layer_run *run) {
    const struct attn_layer *layer = run->layer;
    const attn_layer_args *args = run->args;
    const struct attn_problem *problem = &run->problem;
    const struct projector projector = {layer->table, problem->q.type, run->spare, args->parallel};
    struct rows q = layer_rows_of(&args->q, args->q_len, args->q_cu.cu);
    struct rows x = spread(run, &q, layer->w_q.k, query_rows);
    project(&projector, &layer->w_q, &x, args->batch, query_rows, problem, run->q);
    if (!args->cache) {
        struct rows k = layer_rows_of(&args->k, problem->kv_len, args->kv_cu.cu);
        struct rows v = layer_rows_of(&args->v, problem->kv_len, args->kv_cu.cu);
        if (!same_rows(&k, &q) || layer->w_k.k != layer->w_q.k) /* else x has all of k's used rows already */
            x = spread(run, &k, layer->w_k.k, visible_keys);
        project(&projector, &layer->w_k, &x, args->batch, visible_keys, problem, run->k);
        if (!same_rows(&v, &k) || layer->w_v.k != layer->w_k.k)
            x = spread(run, &v, layer->w_v.k, visible_keys);
        project(&projector, &layer->w_v, &x, args->batch, visible_keys, problem, run->v);
    }
    attn_op_attention(problem, run->attention);
    project_output(run, &projector);
}

/* ---- Append ---- */

void attn_layer_append_layout(const struct attn_layer *layer, const attn_layer_append_args *args,
                              struct attn_layer_append_run *run, struct attn_arena *arena) {
    size_t rows = total_rows(&args->cu, args->cache->config.batch, args->len, arena);
    attn_type type = projected_type(args->cache->config.type, args->rotary);
    run->k = attn_take_rows(arena, rows, layer->w_k.n, type);
    run->v = attn_take_rows(arena, rows, layer->w_v.n, type);
    take_layer_spare((const struct attn_packed *[]){&layer->w_k, &layer->w_v}, (const size_t[]){rows, rows},
                     (const attn_type[][2]){{args->k.type, type}, {args->v.type, type}}, 2, args->parallel, &run->spare,
                     arena);
}

attn_cache_append_args attn_layer_append_to_cache(const struct attn_layer *layer, const attn_layer_append_args *args,
                                                  const void *k, const void *v) {
    attn_type type = projected_type(args->cache->config.type, args->rotary);
    return (attn_cache_append_args){.len = args->len,
                                    .lens = args->lens,
                                    .cu = args->cu,
                                    .k = split_heads(k, type, args->len, layer->w_k.n, layer->head_size),
                                    .v = split_heads(v, type, args->len, layer->w_v.n, layer->value_size),
                                    .rotary = args->rotary,
                                    .rotary_offsets = args->rotary_offsets,
                                    .parallel = args->parallel};
}

void attn_op_layer_append(const struct attn_layer *layer, const attn_layer_append_args *args,
                          const struct attn_layer_append_run *run) {
    attn_cache_append_args append = attn_layer_append_to_cache(layer, args, run->k, run->v);
    const struct projector projector = {layer->table, append.k.type, run->spare, args->parallel};
    size_t batch = args->cache->config.batch;
    struct rows k_rows = layer_rows_of(&args->k, args->len, args->cu.cu),
                v_rows = layer_rows_of(&args->v, args->len, args->cu.cu);
    project(&projector, &layer->w_k, &k_rows, batch, new_keys, &append, run->k);
    project(&projector, &layer->w_v, &v_rows, batch, new_keys, &append, run->v);
    attn_op_cache_append(args->cache, &append);
}
